"""CTC prefix beam search (Hannun et al. 2014, arXiv 1408.2873).

A prefix is a text that some paths have written so far; its probability is the sum over those that end in
blank and those that end in its last symbol. The best prefixes go on to the next frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isogloss.decoding.beam import Beam, Found, Prefix, Scores, ranked, root, total, worth_trying
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import limited
from isogloss.nn.ctc import ctc_best_path
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK

Beams = dict[int, tuple[Prefix, float, float]]
"""By identity: a prefix, and log p of the paths that end in blank and in its last symbol."""


def ctc_beam(log_probabilities: Sequence, beam: Beam) -> list[list[Hypothesis]]:
    """(B, T, V) -> for each utterance up to `beam.most` hypotheses, the best first.

    Frames of symbols are those of the best path through the hypothesis.
    """
    values = limited(log_probabilities.values, beam.allowed)
    rows = values.double().cpu().numpy()
    lengths = log_probabilities.lengths.tolist()
    return [aligned(values[i], n, _search(rows[i, :n], beam)[: beam.most]) for i, n in enumerate(lengths)]


def aligned(values: Tensor, frames: int, found: list[Found]) -> list[Hypothesis]:
    """(T, V) of one utterance: frames of symbols by CTC's best path, and their mean probability there.

    Where there is no path they are interpolated; a symbol that then has no frame has the probability 0.
    """
    texts = Sequence.from_list([torch.tensor(tokens, dtype=torch.int64, device=values.device) for tokens, _ in found])
    scores = Sequence(values.expand(len(found), -1, -1), torch.full_like(texts.lengths, frames))
    spans, _ = ctc_best_path(scores, texts)
    hypotheses = []
    for (tokens, score), places in zip(found, spans.tolist(), strict=True):
        own, interpolated = placed(places[: len(tokens)], frames)
        said = [
            float(values[start:end, token].exp().mean()) if end > start else 0.0
            for token, (start, end) in zip(tokens, own, strict=True)
        ]
        hypotheses.append(Hypothesis(tokens, own, said, score, interpolated))
    return hypotheses


def placed(spans: list[list[int]], frames: int) -> tuple[list[tuple[int, int]], bool]:
    """The frames of each symbol by the spans of `ctc_best_path`; evenly spread, and True, where there was no path."""
    if not spans or spans[0][0] >= 0:
        return [(start, end) for start, end in spans], False
    count = len(spans)
    return [(frames * n // count, frames * (n + 1) // count) for n in range(count)], True


def _search(frames: Scores, beam: Beam) -> list[Found]:
    """(T, V) -> tokens and scores, the best first."""
    start = root(beam)
    beams: Beams = {id(start): (start, 0.0, -math.inf)}
    for scores in frames:
        extended = _extended(beams, scores, worth_trying(scores, beam), beam)
        best = ranked(((prefix, total(blank, said)) for prefix, blank, said in extended.values()), beam.width)
        beams = {id(prefix): extended[id(prefix)] for prefix in best}
    finished = [(prefix.tokens(), total(b, s) + prefix.ended(beam)) for prefix, b, s in beams.values()]
    return sorted(finished, key=lambda pair: -pair[1])


def _extended(beams: Beams, scores: Scores, symbols: list[int], beam: Beam) -> Beams:
    """Every prefix by one frame: as it is, and with every symbol tried that may bring it among the best."""
    found: Beams = {}
    for prefix, blank, said in beams.values():
        again = said + scores[prefix.symbol] if prefix.parent else -math.inf
        found[id(prefix)] = (prefix, total(blank, said) + scores[BLANK], again)
    if not symbols:
        return found
    least = _least(found, beam)
    for prefix, blank, said in beams.values():
        both = total(blank, said)
        for symbol in symbols:
            # The last symbol again is a second one only after a blank.
            score = (blank if symbol == prefix.symbol else both) + scores[symbol]
            known = prefix.following.get(symbol)
            hopeless = score + prefix.extra + beam.most_gained < least and (known is None or id(known) not in beams)
            if hopeless or not prefix.may_go_on(symbol, beam):
                continue
            longer = prefix.then(symbol, beam)
            _, before, already = found.get(id(longer), (longer, -math.inf, -math.inf))
            found[id(longer)] = (longer, before, total(already, score))
    return found


def _least(found: Beams, beam: Beam) -> float:
    """Below this no other prefix comes among the best of a step: so many have more."""
    scores = sorted((total(blank, said) + prefix.extra for prefix, blank, said in found.values()), reverse=True)
    return scores[beam.width - 1] if len(scores) >= beam.width else -math.inf
