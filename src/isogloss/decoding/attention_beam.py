"""Beam search over the attention decoder, symbol by symbol; CTC has a word in the ranking of what was written.

The decoder alone may stop early or go on without end. CTC's probability of the whole text, which must account for
every frame, is added with a weight (hybrid CTC/attention; Watanabe et al. 2017), once a text has ended.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isogloss.decoding.beam import Beam, Found, Prefix, ranked, root, worth_trying
from isogloss.decoding.ctc_beam import aligned
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.protocols import CTC, AttentionProtocol
from isogloss.decoding.symbols import limited
from isogloss.nn.ctc import ctc_loss, frames_needed
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import END


def attention_beam(
    head: AttentionProtocol,
    ctc: CTC,
    states: Sequence,
    beam: Beam,
) -> list[list[Hypothesis]]:
    """(B, T, D) -> for each utterance up to `beam.most` hypotheses, the best first.

    Texts that CTC could not write in so many frames are left out. Frames of symbols are those of CTC's best path.
    """
    hypotheses = []
    for item in states.unpad():
        one = Sequence.from_list([item])
        scores = ctc(one).values[0]
        found = [pair for pair in _search(head, one, beam) if frames_needed(pair[0]) <= len(item)]
        again = [(tokens, score + beam.ctc * _log_ctc(scores, tokens)) for tokens, score in found or [([], 0.0)]]
        hypotheses.append(aligned(scores, len(item), sorted(again, key=lambda pair: -pair[1])[: beam.most]))
    return hypotheses


def _search(head: AttentionProtocol, states: Sequence, beam: Beam) -> list[Found]:
    """(1, T, D) -> tokens and scores of the texts that ended; none is longer than the audio has frames."""
    remembered = head.begin(states, remember=False)
    start = root(beam)
    beams: dict[int, tuple[Prefix, float]] = {id(start): (start, 0.0)}
    finished: list[Found] = []
    for _ in range(int(states.lengths[0]) + 1):
        begun = torch.tensor([[END, *prefix.tokens()] for prefix, _ in beams.values()], device=states.device)
        scores = limited(head.following(begun, remembered), beam.allowed).double().cpu().numpy()
        found: dict[int, tuple[Prefix, float]] = {}
        for row, (prefix, before) in zip(scores, beams.values(), strict=True):
            finished.append((prefix.tokens(), before + float(row[END]) + prefix.ended(beam)))
            for symbol in worth_trying(row, beam):
                if not prefix.may_go_on(symbol, beam):
                    continue
                following = prefix.then(symbol, beam)
                found[id(following)] = following, before + float(row[symbol])
        finished = sorted(finished, key=lambda pair: -pair[1])[: beam.width]
        best = ranked(found.values(), beam.width)
        beams = {id(prefix): found[id(prefix)] for prefix in best}
        # What goes on is already behind everything that has ended by more than it could gain in a few symbols.
        if not beams or max(s + p.extra for p, s in beams.values()) < finished[-1][1] - beam.margin:
            break
    return finished


def _log_ctc(scores: Tensor, tokens: list[int]) -> float:
    """log p of a text under CTC: (T, V)."""
    written = torch.tensor([tokens], dtype=torch.int64, device=scores.device)
    lengths = torch.tensor([len(scores)]), torch.tensor([len(tokens)])
    return -float(ctc_loss(Sequence(scores[None].float(), lengths[0]), Sequence(written, lengths[1]))[0])
