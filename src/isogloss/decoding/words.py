"""From symbols with frames to words with seconds."""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from isogloss.decoding.greedy import Hypothesis
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
    so no word ends after it. Works for any tokenizer: a token ends where the text decoded up to it ends.
    """
    tokens = hypothesis.tokens
    ends = [len(tokenizer.decode(tokens[: position + 1])) for position in range(len(tokens))]
    # Part of a character may decode to more signs of replacement than the whole has characters.
    ends = list(accumulate(reversed(ends), min))[::-1]
    found = []
    for match in re.finditer(r"\S+", tokenizer.decode(tokens)):
        first = bisect_right(ends, match.start())
        # The text may reach its end with the first byte of its last character: take them all.
        last = bisect_right(ends, ends[bisect_left(ends, match.end())]) - 1
        begins, ends_at = hypothesis.frames[first][0], hypothesis.frames[last][1]
        found.append(Word(match.group(), start + begins * frame_seconds, min(end, start + ends_at * frame_seconds)))
    return found
