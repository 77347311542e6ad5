"""From cuts to batches: reading clips side by side, skipping and counting the broken ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as ListOf
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.perturb import PerturbConfig, change_speed, perturb
from isogloss.audio.reading import read
from isogloss.data.manifests import channel_of, language_of, speaker_of, text_of, translations_of
from isogloss.errors import AudioError, IsoglossError
from isogloss.sequence import Sequence
from isogloss.text.corpus import TextLine

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

CHARACTERS_A_SECOND = 14.0
"""Of speech, roughly, in every alphabet; by this text alone is weighed against speech."""
REMEMBERED_BYTES = 2**30
"""Decoded audio a loader keeps: 4.6 hours, so that a small corpus is decoded once and not once a round."""


@dataclass(frozen=True)
class Batch:
    """Clips of one micro-batch; the lists run parallel to the rows of `audio`.

    audio: waveforms at 16 kHz, (B, S) float32; (B, 0) of text alone. texts: None where untranscribed,
    spelled as in the corpus. languages: BCP 47. seed: everything random about this batch is drawn from it. seeds: the
    same of each clip, which go with it into whatever batch; drawn from `seed` where they are not given.
    translations: what they say in other languages, by BCP 47 tag, or no list at all. speakers: None where unknown.
    labels: (B, T) int64 by name, one number a frame. views: further views of the clips, each with a speed and
    distortions of its own, (B, S) each. extras: what an objective has prepared, by name.
    """

    ids: list[str]
    audio: Sequence
    texts: list[str | None]
    languages: list[str]
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    translations: list[dict[str, str]] = field(default_factory=list)
    speakers: list[str | None] = field(default_factory=list)
    labels: dict[str, Sequence] = field(default_factory=dict)
    views: list[Sequence] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            drawn = np.random.SeedSequence(self.seed).generate_state(len(self.ids), np.uint32)
            object.__setattr__(self, "seeds", drawn.tolist())

    @property
    def seconds(self) -> float:
        """Seconds of real audio."""
        return float(self.audio.lengths.sum()) / 16000

    def draws(self, purpose: str) -> list[np.random.Generator]:
        """A generator for each clip, another for every purpose; what it gives depends on no other clip of the batch."""
        return [np.random.default_rng([seed, *purpose.encode()]) for seed in self.seeds]

    def with_extras(self, extras: Mapping[str, Any]) -> Batch:
        """The same clips with more that was prepared."""
        return replace(self, extras={**self.extras, **extras})

    def to(self, device: torch.device | str, moved: dict[int, Any] | None = None) -> Batch:
        """On another device; moved: what is there already, by id, for batches that share their audio."""
        known = {} if moved is None else moved

        def move(value: Any) -> Any:
            if not isinstance(value, Sequence | Tensor):
                return value
            if id(value) not in known:
                known[id(value)] = value.to(device)
            return known[id(value)]

        return replace(
            self,
            audio=move(self.audio),
            labels={name: move(value) for name, value in self.labels.items()},
            views=[move(view) for view in self.views],
            extras={name: move(value) for name, value in self.extras.items()},
        )


def as_cut(line: TextLine) -> MonoCut:
    """A sentence that nobody spoke as a cut without a recording, as long as it would take to say."""
    from lhotse import MonoCut, SupervisionSegment

    name = f"text-{blake2b(f'{line.language} {line.text}'.encode(), digest_size=8).hexdigest()}"
    seconds = len(line.text) / CHARACTERS_A_SECOND
    said = SupervisionSegment(name, name, 0.0, seconds, text=line.text, language=line.language)
    return MonoCut(name, 0.0, seconds, 0, supervisions=[said], custom={"source": line.source})


def waveform(cut: MonoCut) -> NDArray[np.float32]:
    """The clip of a cut at 16 kHz, (S,), wherever lhotse says it lies (a file, or bytes in memory)."""
    if cut.recording is None:
        raise AudioError(f"The cut {cut.id} has no recording.", "missing")
    source = cut.recording.sources[0].source
    return read(source, start=cut.start, duration=cut.duration, channel=channel_of(cut))


class Loader:
    """Reads batches of cuts with a few threads (decoding releases the interpreter lock).

    Broken clips are left out; `bad` has the cause of each, by id. Above `max_bad` of all clips (and more than three),
    or when a whole batch is broken, it stops with the causes and an example.
    Each clip is played at one of `speeds` and perturbed, drawn from the seed of its batch and its place in it; but as
    it is where it has labels, which count its frames. A cut without a recording is text alone (`as_cut`). views: of
    each clip, each with a speed and perturbations of its own. labels: by name and clip, (T,) int64.
    """

    def __init__(
        self,
        cuts: ListOf[MonoCut],
        *,
        workers: int = 2,
        max_bad: float = 0.01,
        speeds: tuple[float, ...] = (1.0,),
        perturbed: PerturbConfig | None = None,
        views: int = 1,
        labels: Mapping[str, Mapping[str, Tensor]] | None = None,
    ):
        self.cuts = cuts
        self.labels = labels or {}
        self.speeds = (1.0,) if labels else speeds
        self.perturbed = None if labels else perturbed
        self.views = views
        self.max_bad = max_bad
        self.bad: dict[str, str] = {}
        self.example = ""
        self._remembered: dict[int, NDArray[np.float32]] = {}
        self._room = REMEMBERED_BYTES
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="read")

    def load(self, indices: ListOf[int] | NDArray[np.int64], seed: int = 0) -> Batch:
        """The batch of the cuts at `indices`, without the broken ones."""
        indices = [int(index) for index in indices]
        cuts = [self.cuts[index] for index in indices]
        draws = [np.random.default_rng([seed, place]) for place in range(len(cuts))]
        kept: list[tuple[int, NDArray[np.float32]]] = []
        for place, clip in enumerate(self._threads.map(self._play, indices, draws)):
            if isinstance(clip, AudioError):
                self.bad[cuts[place].id] = clip.cause
                self.example = self.example or str(clip)
            else:
                kept.append((place, clip))
        broken = len(self.bad)
        if not kept or (broken > 3 and broken > self.max_bad * len(self.cuts)):
            causes = ", ".join(f"{cause} {count}" for cause, count in Counter(self.bad.values()).most_common())
            raise IsoglossError(
                f"{broken} of {len(self.cuts)} clips could not be read ({causes}); the first: {self.example} "
                "Prepare the data again to drop them."
            )
        cuts, indices = [cuts[place] for place, _ in kept], [indices[place] for place, _ in kept]
        return Batch(
            ids=[cut.id for cut in cuts],
            audio=_padded([clip for _, clip in kept]),
            texts=[text_of(cut) for cut in cuts],
            languages=[language_of(cut) for cut in cuts],
            seed=seed,
            translations=[translations_of(cut) for cut in cuts],
            speakers=[speaker_of(cut) for cut in cuts],
            labels={name: Sequence.from_list([known[cut.id] for cut in cuts]) for name, known in self.labels.items()},
            views=[self._view(indices, seed, view) for view in range(1, self.views)],
        )

    def _view(self, indices: list[int], seed: int, view: int) -> Sequence:
        """Another view of clips that can be read, the `view`-th."""
        draws = [np.random.default_rng([seed, place, view]) for place in range(len(indices))]
        clips = [clip for clip in self._threads.map(self._play, indices, draws) if not isinstance(clip, AudioError)]
        return _padded(clips)

    def _play(self, index: int, random: np.random.Generator) -> NDArray[np.float32] | AudioError:
        """A clip at the speed and with the perturbation that are drawn this time."""
        clip = self._clip(index)
        if isinstance(clip, AudioError) or not len(clip):
            return clip
        speed = float(random.choice(self.speeds))
        if speed != 1.0:
            clip = change_speed(clip, speed)
        return clip if self.perturbed is None else perturb(clip, self.perturbed, random)

    def _clip(self, index: int) -> NDArray[np.float32] | AudioError:
        clip: NDArray[np.float32] | AudioError | None = self._remembered.get(index)
        if clip is None:
            clip = _read(self.cuts[index])
            if not isinstance(clip, AudioError) and self._room >= clip.nbytes:
                self._remembered[index] = clip
                self._room -= clip.nbytes
        return clip

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _padded(clips: list[NDArray[np.float32]]) -> Sequence:
    return Sequence.from_list([torch.from_numpy(clip) for clip in clips])


def _read(cut: MonoCut) -> NDArray[np.float32] | AudioError:
    """A clip, or why it cannot be had (counted by the caller, in the order of the batch)."""
    if cut.recording is None:
        return np.zeros(0, dtype=np.float32)
    try:
        return waveform(cut)
    except AudioError as error:
        return error
