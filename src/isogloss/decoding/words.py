"""From symbols with frames to words with seconds."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import exp, inf, log, prod

from isogloss.decoding.hypothesis import Hypothesis
from isogloss.text.tokenizers import Tokenizer

LEAD, TRAIL = 0.04, 0.02
"""Seconds by which a word begins before its first symbol and ends after its last, as far as its neighbours leave room:
measured at 25 Hz on the dev split of festvox-ru (benchmarks/word_times.py), where symbols alone come 48 ms late. At
50 Hz they come no earlier: those of a fine-tuned Whisper begin 39 ms later than a Conformer's on the same clips."""
EPSILON = 1e-6
"""Nothing is surer than this."""


@dataclass(frozen=True)
class Word:
    """A word and where it is said, in seconds from the start of the audio.

    confidence: the probability that it is right, as far as the model's calibration goes. interpolated:
    the times are guessed from the length of the text.
    """

    text: str
    start: float
    end: float
    confidence: float = 1.0
    interpolated: bool = False


@dataclass(frozen=True)
class Calibration:
    """How sure a model may be: log-odds of a word being right = slope · log-odds of its symbols + offset (Platt)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        """The product of a word's symbol probabilities -> the probability that the word is right."""
        p = min(max(probability, EPSILON), 1 - EPSILON)
        return 1 / (1 + exp(-(self.slope * log(p / (1 - p)) + self.offset)))


def words(
    hypothesis: Hypothesis,
    tokenizer: Tokenizer,
    frame_seconds: float,
    start: float = 0.0,
    end: float = inf,
    calibration: Calibration = Calibration(),
    before: int = 0,
) -> list[Word]:
    """The words of a hypothesis, each from its first symbol to its last, and a little around them.

    start, end: of the decoded audio in the recording, in seconds; the last frame may hold some padding,
    so no word ends after it. before: the frame after the last symbol of the word before, if there was one.
    """
    places = spelled(hypothesis.tokens, tokenizer)
    spans = [(hypothesis.frames[first][0], hypothesis.frames[last][1]) for _, first, last in places]
    outlined = _outlined(spans, before, LEAD / frame_seconds, TRAIL / frame_seconds)
    return [
        Word(
            text,
            start + begins * frame_seconds,
            min(end, start + ends * frame_seconds),
            calibration(prod(hypothesis.probabilities[first : last + 1])),
            hypothesis.interpolated,
        )
        for (text, first, last), (begins, ends) in zip(places, outlined, strict=True)
    ]


def _outlined(spans: list[tuple[int, int]], before: int, lead: float, trail: float) -> list[tuple[float, float]]:
    """Words from the frames of their symbols, (first, last + 1): these lag behind the sound, and end before it does.

    lead, trail: frames that are added where there is room.
    """
    starts: list[float] = []
    for first, last in spans:
        starts.append(max(first - lead, min(first, before)))
        before = last
    following = [*starts, inf][1:]
    return [
        (begins, max(last, min(last + trail, next_begins)))
        for begins, (_, last), next_begins in zip(starts, spans, following, strict=True)
    ]


def spelled(tokens: list[int], tokenizer: Tokenizer) -> list[tuple[str, int, int]]:
    """The words that tokens spell, and the places of each one's first and last token.

    Works for any tokenizer: what stands before a token that begins with a space is spelled without what follows.
    """
    spaces = (place for place, token in enumerate(tokens) if tokenizer.decode([token])[:1].isspace())
    return [
        (word, begin + first, begin + last)
        for begin, end in pairwise([0, *spaces, len(tokens)])
        for word, first, last in _spelled(tokens[begin:end], tokenizer)
    ]


def _spelled(tokens: list[int], tokenizer: Tokenizer) -> Iterator[tuple[str, int, int]]:
    """The same of a few tokens: one ends where the text decoded up to it ends, which is all of it again for each."""
    ends = [len(tokenizer.decode(tokens[: position + 1])) for position in range(len(tokens))]
    # Part of a character may decode to more signs of replacement than the whole has characters.
    ends = list(accumulate(reversed(ends), min))[::-1]
    for match in re.finditer(r"\S+", tokenizer.decode(tokens)):
        first = bisect_right(ends, match.start())
        # The text may reach its end with the first byte of its last character: take them all.
        last = bisect_right(ends, ends[bisect_left(ends, match.end())]) - 1
        yield match.group(), first, last
