"""What a task measures on: chosen clips, read in groups, and what was found on them already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, source_of, text_of
from isogloss.errors import AudioError
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

    from isogloss.decoding.beam import Beam
    from isogloss.model.recogniser import Recogniser

GROUP_SECONDS = 240.0
"""Seconds of audio that are in memory at once."""
SAME, OTHER, UNKNOWN = "same", "other", "unknown"
"""Whether other clips of a corpus were trained on; its voices were then trained on, or may have been."""

Key = tuple[str, str]
"""(corpus, id) of a clip; an id is unique within its corpus."""
Clip = tuple["MonoCut", NDArray[np.float32]]
Found = TypeVar("Found")


@dataclass
class Data:
    """Clips to measure on, and how the model is to be used on them.

    trained: clips trained on; None if that is not known. told: the model is told which language is spoken. beam: how
    it searches, if it does not decode greedily. on_progress: told clips done and clips in all.
    broken: why a clip could not be read, by its key; filled while reading. working_seconds: time spent transcribing.
    """

    cuts: list[MonoCut]
    trained: frozenset[Key] | None = None
    told: bool = False
    beam: Beam | None = None
    on_progress: Callable[[int, int], None] = lambda done, total: None
    broken: dict[Key, str] = field(default_factory=dict)
    working_seconds: float = 0.0
    _found: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @property
    def trained_sources(self) -> frozenset[str] | None:
        """Corpora trained on; None if that is not known."""
        return None if self.trained is None else frozenset(source for source, _ in self.trained)

    @property
    def causes(self) -> dict[str, int]:
        """Clips that could not be read, by cause."""
        return dict(sorted(Counter(self.broken.values()).items()))

    def read(self, cuts: Sequence[MonoCut]) -> Iterator[list[Clip]]:
        """The clips that can be read, in groups of similar length."""
        done = 0
        with ThreadPoolExecutor(2) as threads:
            for group in _groups(cuts):
                clips = []
                for cut, clip in zip(group, threads.map(_waveform, group), strict=True):
                    if isinstance(clip, AudioError):
                        self.broken[key_of(cut)] = clip.cause
                    else:
                        clips.append((cut, clip))
                if clips:
                    yield clips
                done += len(group)
                self.on_progress(done, len(cuts))

    def once(self, find: Callable[[Recogniser, Data], Found], model: Recogniser) -> Found:
        """What `find` finds of a model on these clips; tasks that need the same thing share it."""
        if find not in self._found:
            self._found[find] = find(model, self)
        found: Found = self._found[find]
        return found

    def known(self, find: Callable[[Recogniser, Data], Found]) -> Found | None:
        """What `once` found before; None if no task asked for it."""
        return self._found.get(find)


def key_of(cut: MonoCut) -> Key:
    """(corpus, id) of a clip; ids of a run of several folders have the folder's number behind (`told_apart`)."""
    return source_of(cut), cut.id.partition("#")[0]


def said_in(cut: MonoCut) -> str:
    """The normalised transcript of a clip; empty if it has none."""
    return normalise(text_of(cut) or "", language_of(cut))


def voices(source: str, trained: frozenset[str] | None) -> str:
    """Whether other clips of a corpus were trained on."""
    if trained is None:
        return UNKNOWN
    return SAME if source in trained else OTHER


def _groups(cuts: Sequence[MonoCut]) -> Iterator[list[MonoCut]]:
    group: list[MonoCut] = []
    seconds = 0.0
    for cut in sorted(cuts, key=lambda cut: cut.duration):
        if group and seconds + cut.duration > GROUP_SECONDS:
            yield group
            group, seconds = [], 0.0
        group.append(cut)
        seconds += cut.duration
    if group:
        yield group


def _waveform(cut: MonoCut) -> NDArray[np.float32] | AudioError:
    try:
        return waveform(cut)
    except AudioError as error:
        return error
