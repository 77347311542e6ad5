"""Clips as columns: what decides which are drawn is there for all of them, and a cut is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from isogloss.data.manifests import (
    SPLITS,
    combined,
    digest,
    hash_of,
    language_of,
    read_cuts,
    source_of,
    speaker_of,
    split_of,
    text_of,
)
from isogloss.data.shards import KNOWN, Column, Shards, is_packed
from isogloss.errors import AudioError
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Mask = NDArray[np.bool_]


class Clips(Sequence["MonoCut"]):
    """Clips of prepared or packed corpora, in an order that stays.

    names: pairs of a corpus and a language; pairs: (N,) which of them a clip is of. durations: (N,) in seconds.
    splits: (N,) places in SPLITS, -1 for none. said: (N,) a hash of the normalised transcript (`hash_of`), 0 where
    there is none. named: (N,) whether the speaker is known. digests: (N,) of id, text and duration. shards: (N,) files
    of a packed corpus, -1 for clips that lie by themselves.
    """

    def __init__(
        self,
        names: Sequence[tuple[str, str]],
        columns: Mapping[str, Column],
        make: Callable[[int], MonoCut],
        rows: NDArray[np.int32] | None = None,
    ):
        self.names = names
        self._columns, self._make, self._rows = columns, make, rows

    @classmethod
    def of(cls, cuts: Iterable[MonoCut]) -> Clips:
        """Cuts in memory."""
        cuts = list(cuts)
        names = names_of(cuts)
        return cls(names, described(cuts, names), cuts.__getitem__)

    @property
    def durations(self) -> NDArray[np.float64]:
        return self._column("durations")

    @property
    def pairs(self) -> NDArray[np.int32]:
        return self._column("pairs")

    @property
    def said(self) -> NDArray[np.int64]:
        return self._column("said")

    @property
    def shards(self) -> NDArray[np.int32]:
        return self._column("shards")

    @property
    def named(self) -> Mask:
        return self._column("named")

    def __len__(self) -> int:
        return len(self._columns["durations"] if self._rows is None else self._rows)

    @overload
    def __getitem__(self, index: int) -> MonoCut: ...
    @overload
    def __getitem__(self, index: slice) -> list[MonoCut]: ...
    def __getitem__(self, index: int | slice) -> MonoCut | list[MonoCut]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        place = index % len(self)
        return self._make(place if self._rows is None else int(self._rows[place]))

    def select(self, mask: Mask) -> Clips:
        """Those where the mask (N,) is true."""
        rows = np.flatnonzero(mask).astype(np.int32)
        return Clips(self.names, self._columns, self._make, rows if self._rows is None else self._rows[rows])

    def changed(self, change: Callable[[MonoCut], MonoCut]) -> Clips:
        """The same clips, each of them changed when it is asked for in what the columns do not hold."""
        return Clips(self.names, self._columns, lambda row: change(self._make(row)), self._rows)

    def of_languages(self, wanted: Callable[[str], bool]) -> Mask:
        """(N,) whether the clip's language is wanted."""
        return np.array([wanted(language) for _, language in self.names], dtype=bool)[self.pairs]

    def in_split(self, split: str | None) -> Mask:
        """(N,) whether the clip is in a split, or in none."""
        return self._column("splits") == (-1 if split is None else SPLITS.index(split))

    def seconds(self) -> dict[tuple[str, str], float]:
        """How long all clips of a corpus and a language are together."""
        totals = np.bincount(self.pairs, self.durations, len(self.names))
        present = np.bincount(self.pairs, minlength=len(self.names)) > 0
        return {name: float(totals[place]) for place, name in enumerate(self.names) if present[place]}

    def languages(self) -> set[str]:
        """Those that the clips are in."""
        return {language for _, language in self.seconds()}

    def sources(self) -> set[str]:
        """Names of the corpora that the clips are from."""
        return {source for source, _ in self.seconds()}

    def fingerprint(self) -> str:
        """SHA-256 over what the clips are, in any order; see `manifests.fingerprint`."""
        return combined(self._column("digests"))

    def _column(self, name: str) -> Column:
        return self._columns[name] if self._rows is None else self._columns[name][self._rows]


def open_corpus(folder: Path) -> Clips:
    """All clips of a folder that `isogloss prepare` or `isogloss pack` made. Raises IsoglossError for any other."""
    if not is_packed(folder):
        return Clips.of(read_cuts(folder))
    shards = Shards(folder)
    return Clips(shards.names, shards.columns, shards.cut)


def readable(clips: Sequence[MonoCut]) -> Iterator[MonoCut]:
    """The cuts but for those in shards that are missing or damaged, which a `Loader` counts."""
    for place in range(len(clips)):
        with suppress(AudioError):
            yield clips[place]


def joined(parts: Sequence[Clips]) -> Clips:
    """All clips, one part after the other."""
    parts = [part for part in parts if len(part)] or [Clips.of([])]
    if len(parts) == 1:
        return parts[0]
    names = sorted({name for part in parts for name in part.names})
    columns: dict[str, list[Column]] = {name: [] for name in KNOWN}
    shards = 0
    for part in parts:
        for name, values in columns.items():
            values.append(part._column(name))
        place = np.array([names.index(name) for name in part.names], dtype=np.int32)
        columns["pairs"][-1] = place[part.pairs] if len(place) else part.pairs
        own = part.shards
        columns["shards"][-1] = np.where(own < 0, own, own + shards)
        shards += int(own.max(initial=-1)) + 1
    ends = np.cumsum([len(part) for part in parts])

    def make(row: int) -> MonoCut:
        number = int(np.searchsorted(ends, row, side="right"))
        return parts[number][row - int(ends[number])]  # counted from the end of the part

    return Clips(names, {name: np.concatenate(values) for name, values in columns.items()}, make)


def told_apart(folders: Sequence[Clips]) -> list[Clips]:
    """The clips of several folders with ids of their own: those of the second folder end in `#2`, and so on.

    Labels and broken clips of a run are known by id, and ids are unique within a folder only. No folder has such ids
    itself (see `Utterance`).
    """

    def numbered(clips: Clips, number: int) -> Clips:
        return clips.changed(lambda cut: replace(cut, id=f"{cut.id}#{number}"))

    return [numbered(clips, number) if number > 1 else clips for number, clips in enumerate(folders, 1)]


def names_of(cuts: Iterable[MonoCut]) -> list[tuple[str, str]]:
    """The pairs of a corpus and a language that the cuts are of, in order."""
    return sorted({(source_of(cut), language_of(cut)) for cut in cuts})


def described(cuts: Sequence[MonoCut], names: Sequence[tuple[str, str]]) -> dict[str, Column]:
    """The columns of cuts that lie in no shard."""
    number = {name: place for place, name in enumerate(names)}
    split = {name: place for place, name in enumerate(SPLITS)}
    said = (normalise(text_of(cut) or "", language_of(cut)) for cut in cuts)
    values: dict[str, Iterable[float]] = {
        "durations": (cut.duration for cut in cuts),
        "pairs": (number[source_of(cut), language_of(cut)] for cut in cuts),
        "splits": (split.get(split_of(cut) or "", -1) for cut in cuts),
        "said": (hash_of(text) for text in said),
        "named": (speaker_of(cut) is not None for cut in cuts),
        "digests": (digest(cut) for cut in cuts),
        "shards": (-1 for _ in cuts),
    }
    return {name: np.fromiter(column, KNOWN[name], len(cuts)) for name, column in values.items()}

