"""From symbols with frames to words with seconds."""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from isogloss.decoding.hypothesis import Hypothesis
from isogloss.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Word:
    """A word and where it is said, in seconds from the start of the audio."""

    text: str
    start: float
    end: float


def words(
    hypothesis: Hypothesis, tokenizer: Tokenizer, frame_seconds: float, start: float = 0.0, end: float = inf
) -> list[Word]:
    """The words of a hypothesis, each from the first frame of its first symbol to the last of its last.

    start, end: of the decoded audio in the recording, in seconds; the last frame may hold some padding,
    so no word ends after it.
    """
    return [
        Word(
            text,
            start + hypothesis.frames[first][0] * frame_seconds,
            min(end, start + hypothesis.frames[last][1] * frame_seconds),
        )
        for text, first, last in spelled(hypothesis.tokens, tokenizer)
    ]


def spelled(tokens: list[int], tokenizer: Tokenizer) -> list[tuple[str, int, int]]:
    """The words that tokens spell, and the places of each one's first and last token.

    Works for any tokenizer: a token ends where the text decoded up to it ends.
    """
    ends = [len(tokenizer.decode(tokens[: position + 1])) for position in range(len(tokens))]
    # Part of a character may decode to more signs of replacement than the whole has characters.
    ends = list(accumulate(reversed(ends), min))[::-1]
    found = []
    for match in re.finditer(r"\S+", tokenizer.decode(tokens)):
        first = bisect_right(ends, match.start())
        # The text may reach its end with the first byte of its last character: take them all.
        last = bisect_right(ends, ends[bisect_left(ends, match.end())]) - 1
        found.append((match.group(), first, last))
    return found
