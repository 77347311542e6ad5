"""From cuts to batches: reading clips, skipping and counting the broken ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as ListOf
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.perturb import PerturbConfig, change_speed, perturb
from isogloss.audio.reading import read
from isogloss.data.manifests import audio_of, channel_of, language_of, speaker_of, text_of, translations_of
from isogloss.data.plan import Indices
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
    distortions of its own, (B, S) each. extras: what an objective has prepared, by name. broken: why clips that should
    be in it could not be read, by id.
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
    broken: dict[str, AudioError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            drawn = np.random.SeedSequence(self.seed).generate_state(len(self.ids), np.uint32)
            object.__setattr__(self, "seeds", drawn.tolist())

    def pin_memory(self) -> Batch:
        """In memory from which a GPU copies while it computes."""
        return with_tensors({"": self}, Tensor.pin_memory)[""]

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

    def to(self, device: torch.device | str) -> Batch:
        """On another device."""
        return with_tensors({"": self}, lambda tensor: tensor.to(device))[""]


def with_tensors(batches: Mapping[str, Batch], change: Callable[[Tensor], Tensor]) -> dict[str, Batch]:
    """The batches with every tensor changed; what several of them share is changed once, and shared again."""
    changed: dict[int, Tensor] = {}

    def new(value: Any) -> Any:
        if isinstance(value, Sequence):
            return Sequence(new(value.values), new(value.lengths))
        if not isinstance(value, Tensor):
            return value
        if id(value) not in changed:
            changed[id(value)] = change(value)
        return changed[id(value)]

    return {
        name: replace(
            batch,
            audio=new(batch.audio),
            labels={key: new(value) for key, value in batch.labels.items()},
            views=[new(view) for view in batch.views],
            extras={key: new(value) for key, value in batch.extras.items()},
        )
        for name, batch in batches.items()
    }


def as_cut(line: TextLine) -> MonoCut:
    """A sentence that nobody spoke as a cut without a recording, as long as it would take to say."""
    from lhotse import MonoCut, SupervisionSegment

    name = f"text-{blake2b(f'{line.language} {line.text}'.encode(), digest_size=8).hexdigest()}"
    seconds = len(line.text) / CHARACTERS_A_SECOND
    said = SupervisionSegment(name, name, 0.0, seconds, text=line.text, language=line.language)
    return MonoCut(name, 0.0, seconds, 0, supervisions=[said], custom={"source": line.source})


def waveform(cut: MonoCut) -> NDArray[np.float32]:
    """The clip of a cut at 16 kHz, (S,), wherever lhotse says it lies (a file, a place in one, or bytes in memory)."""
    if cut.recording is None:
        raise AudioError(f"The cut {cut.id} has no recording.", "missing")
    inside = cut.recording.sources[0].source
    source = inside if isinstance(inside, bytes) else audio_of(cut)
    return read(source, start=cut.start, duration=cut.duration, channel=channel_of(cut))


class Loader:
    """Reads batches of cuts.

    Broken clips are left out; `bad` says why, by id. Above `max_bad` of all clips (and more than three),
    or when a whole batch is broken, it stops with the causes and an example.
    Each clip is played at one of `speeds` and perturbed, drawn from the seed of its batch and its place in it; but as
    it is where it has labels, which count its frames. A cut without a recording is text alone (`as_cut`). views: of
    each clip, each with a speed and perturbations of its own. labels: by name and clip, (T,) int64. remembered: bytes
    of decoded audio that are kept, so that a small corpus is decoded once and not once a round.
    """

    def __init__(
        self,
        cuts: ListOf[MonoCut],
        *,
        max_bad: float = 0.01,
        speeds: tuple[float, ...] = (1.0,),
        perturbed: PerturbConfig | None = None,
        views: int = 1,
        labels: Mapping[str, Mapping[str, Tensor]] | None = None,
        remembered: int = REMEMBERED_BYTES,
    ):
        self.cuts = cuts
        self.labels = labels or {}
        self.speeds = (1.0,) if labels else speeds
        self.perturbed = None if labels else perturbed
        self.views = views
        self.max_bad = max_bad
        self.bad: dict[str, AudioError] = {}
        self._remembered: dict[int, NDArray[np.float32]] = {}
        self._room = remembered

    def load(self, indices: ListOf[int] | Indices, seed: int = 0) -> Batch:
        """The batch of the cuts at `indices`, without the broken ones, which are counted."""
        batch = self.read(indices, seed)
        self.count(batch.broken)
        return batch

    def read(self, indices: ListOf[int] | Indices, seed: int = 0) -> Batch:
        """The batch as `load` gives it, with the broken clips to be counted: what another process may do."""
        kept: list[tuple[int, MonoCut, NDArray[np.float32]]] = []
        broken: dict[str, AudioError] = {}
        for place, index in enumerate(indices):
            name = f"clip {index}"  # where not even its cut can be read
            try:
                cut = self.cuts[int(index)]
                name = cut.id
                clip = self._play(int(index), cut, (seed, place))
            except AudioError as error:
                broken[name] = error
            else:
                kept.append((int(index), cut, clip))
        if not kept:
            self._refuse(broken)
        return Batch(
            ids=[cut.id for _, cut, _ in kept],
            audio=_padded([clip for _, _, clip in kept]),
            texts=[text_of(cut) for _, cut, _ in kept],
            languages=[language_of(cut) for _, cut, _ in kept],
            seed=seed,
            translations=[translations_of(cut) for _, cut, _ in kept],
            speakers=[speaker_of(cut) for _, cut, _ in kept],
            labels={
                name: Sequence.from_list([known[cut.id] for _, cut, _ in kept]) for name, known in self.labels.items()
            },
            views=[
                _padded(
                    [
                        self._play(index, cut, (seed, place, view))
                        for place, (index, cut, _) in enumerate(kept)
                    ]
                )
                for view in range(1, self.views)
            ],
            broken=broken,
        )

    def count(self, broken: Mapping[str, AudioError]) -> None:
        """Take note of broken clips, by id."""
        self.bad |= broken
        if broken and len(self.bad) > max(3, self.max_bad * len(self.cuts)):
            self._refuse(self.bad)

    def _refuse(self, bad: Mapping[str, AudioError]) -> NoReturn:
        causes = ", ".join(f"{cause} {count}" for cause, count in Counter(e.cause for e in bad.values()).most_common())
        raise IsoglossError(
            f"{len(bad)} of {len(self.cuts)} clips could not be read ({causes}); the first: "
            f"{next(iter(bad.values()))} Prepare the data again to drop them."
        )

    def _play(self, index: int, cut: MonoCut, seed: tuple[int, ...]) -> NDArray[np.float32]:
        """A clip at the speed and with the perturbation that are drawn this time."""
        clip = self._clip(index, cut)
        if not len(clip) or (self.speeds == (1.0,) and self.perturbed is None):
            return clip
        random = np.random.default_rng(seed)
        speed = float(random.choice(self.speeds))
        if speed != 1.0:
            clip = change_speed(clip, speed)
        return clip if self.perturbed is None else perturb(clip, self.perturbed, random)

    def _clip(self, index: int, cut: MonoCut) -> NDArray[np.float32]:
        clip = self._remembered.get(index)
        if clip is None:
            clip = np.zeros(0, np.float32) if cut.recording is None else waveform(cut)
            if self._room >= clip.nbytes:
                self._remembered[index] = clip
                self._room -= clip.nbytes
        return clip


def _padded(clips: list[NDArray[np.float32]]) -> Sequence:
    return Sequence.from_list([torch.from_numpy(clip) for clip in clips])
