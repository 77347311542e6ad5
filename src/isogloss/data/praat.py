"""Praat's TextGrids, in the long and the short text form.

Praat itself reads both by one rule, and so does this: only what stands free counts, that is numbers, texts in
quotation marks and <flags>; `xmin =` and `intervals [2]:` are there for people.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from isogloss.data.tiers import Segment, Tier, is_alignment, speaker_named
from isogloss.errors import IsoglossError
from isogloss.files import numbered_lines

_FREE = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?<!\S)(?P<number>[+-]?\d[\d.]*(?:[eE][+-]?\d+)?)(?!\S)|<\w+>|(?P<open>")'
)
_BINARY = b"ooBinaryFile"


def read_textgrid(path: Path) -> list[Tier]:
    """The tiers of intervals, without those that are empty; names count from 1: `1-3` is the third of the first tier.

    Raises IsoglossError, with the line where it can, for what is no TextGrid or breaks off.
    """
    if path.read_bytes()[: len(_BINARY)] == _BINARY:
        raise IsoglossError(f"{path} is a binary TextGrid; save it as a text file in Praat.")
    reader = _Reader(path)
    if reader.text() != "ooTextFile" or not reader.text().startswith("TextGrid"):
        raise IsoglossError(f"{path} is no TextGrid; save it as a text file in Praat.")
    reader.number(), reader.number()
    if reader.flag() == "<absent>":
        return []
    found = [_read_tier(reader, number) for number in range(1, round(reader.number()) + 1)]
    return [tier for tier in found if tier is not None]


def _read_tier(reader: "_Reader", number: int) -> Tier | None:
    """A tier of intervals; None for one of points, which say nothing about a stretch."""
    kind, name, _, _, count = reader.text(), reader.text(), reader.number(), reader.number(), round(reader.number())
    if kind == "TextTier":
        for _ in range(count):
            reader.number(), reader.text()
        return None
    segments = [Segment(f"{number}-{n}", reader.number(), reader.number(), reader.text()) for n in range(1, count + 1)]
    spoken = [segment for segment in segments if segment.text.strip()]
    return Tier(name, spoken, speaker_named(name), is_transcript=not is_alignment(name))


class _Reader:
    """The tokens of a file, one after the other, each of the kind that is asked for."""

    def __init__(self, path: Path):
        self.path = path
        self.content = "\n".join(line for _, line in numbered_lines(path))
        self.tokens: Iterator[re.Match[str]] = _FREE.finditer(self.content)
        self.last: list[re.Match[str]] = []  # two tokens at most

    def text(self) -> str:
        token = self._next('a text in quotation marks, with "" for a quotation mark inside')
        text = token["text"]
        return self._refuse(token, "a text in quotation marks") if text is None else text.replace('""', '"')

    def number(self) -> float:
        token = self._next("a number")
        try:
            return float(token["number"])
        except (TypeError, ValueError):
            return self._refuse(token, "a number")

    def flag(self) -> str:
        return self._next("<exists>")[0]

    def _next(self, expected: str) -> re.Match[str]:
        token = next(self.tokens, None)
        if token is None:
            raise IsoglossError(f"{self.path} breaks off: {expected} should follow its last line; restore the file.")
        self.last = [*self.last[-1:], token]
        return self._refuse(token, expected) if token["open"] else token

    def _refuse(self, token: re.Match[str], expected: str) -> NoReturn:
        found = " ".join(token[0].split())[:30]
        raise IsoglossError(
            f"{self.path}, line {self._line(token)}: {found} where {expected} should be; mend it, or what stands "
            f"before it in line {self._line(self.last[0])}, where a quotation mark in a text may not be doubled."
        )

    def _line(self, token: re.Match[str]) -> int:
        return self.content.count("\n", 0, token.start()) + 1
