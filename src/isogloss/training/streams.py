"""The micro-batches of each step, read and prepared ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil

import numpy as np
from torch import Tensor

from isogloss.data.ahead import made_ahead
from isogloss.data.clips import Clips
from isogloss.data.loading import REMEMBERED_BYTES, Batch, Loader, with_tensors
from isogloss.data.needs import Needs
from isogloss.data.plan import BatchPlan, Indices, Position
from isogloss.errors import AudioError
from isogloss.training.recipe import DataRecipe, StageRecipe

Micro = dict[str, Batch]
"""The batch of every objective in one micro-batch, by name."""
Prepare = Callable[[Batch, bool], Batch]


@dataclass(frozen=True)
class Stream:
    """Clips that some objectives of a stage draw from, and what these need of them."""

    clips: Clips
    needs: Needs


@dataclass(frozen=True)
class Work:
    """What one process does in one step.

    micro: the micro-batches. positions: where the plans stand after the step. seconds: of audio in it.
    """

    micro: list[Micro]
    positions: dict[str, Position]
    seconds: float


@dataclass(frozen=True)
class Request:
    """Which clips a micro-batch is made of, by stream."""

    indices: dict[str, Indices]
    seed: int


@dataclass(frozen=True)
class Part:
    """A micro-batch as it was read and prepared, with the broken clips of each stream that are not in it."""

    micro: Micro
    seconds: float
    broken: dict[str, dict[str, AudioError]]

    def pin_memory(self) -> Part:
        """In memory from which a GPU copies while it computes."""
        return replace(self, micro=with_tensors(self.micro, Tensor.pin_memory))


class Source:
    """Yields the work of one process, step by step, read and prepared ahead by processes of its own.

    A step has `stage.seconds[stream]` seconds of audio of each stream, in as many micro-batches as memory asks for,
    `alone`; in some more where the processes do not divide them, so that none waits for another: then the batches
    differ from those of one process. Process r takes every world-th from r on.

    prepare: of each objective, with its stream. workers: processes that read. pinned: for a GPU.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        prepare: Mapping[str, tuple[str, Prepare]],
        recipe: DataRecipe,
        stage: StageRecipe,
        *,
        labels: Mapping[str, Mapping[str, Tensor]] | None = None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pinned: bool = False,
    ):
        largest = max(stage.seconds.values())
        self.alone = ceil(largest / stage.batch_seconds)
        self.micro_batches = ceil(self.alone / world) * world
        self.rank, self.world, self.seed = rank, world, seed
        self.workers, self.pinned = workers, pinned
        self.prepare = dict(prepare)
        self.loaders = {
            name: Loader(
                stream.clips,
                max_bad=recipe.max_bad,
                speeds=recipe.speeds,
                # What is predicted of speech alone is the speech itself, which noise would change.
                perturbed=stage.perturb if stream.needs.text else None,
                views=stream.needs.views,
                labels={label: (labels or {})[label] for label in sorted(stream.needs.labels)},
                remembered=REMEMBERED_BYTES // max(1, workers),
            )
            for name, stream in streams.items()
        }
        self.plans = {
            name: build_plan(
                stream.clips,
                recipe,
                stage.seconds[name] / self.micro_batches,
                stage.temperatures.get(name, stage.temperature),
                seed,
                self.micro_batches,
            )
            for name, stream in streams.items()
        }
        self.positions: dict[str, Position] = {name: Position() for name in self.plans}
        self._parts: Generator[Part] | None = None
        self._step = 0
        self._after: dict[int, dict[str, Position]] = {}

    def work(self, step: int) -> Work:
        """The micro-batches of a step; steps must be asked for in order from where the source stands."""
        if self._parts is None or step != self._step:
            self.close()
            self._parts = made_ahead(self._read, self._requests(step), self.workers, pinned=self.pinned)
        parts = list(islice(self._parts, self.micro_batches // self.world))
        for part in parts:
            for name, broken in part.broken.items():
                self.loaders[name].count(broken)
        self.positions = self._after.pop(step)
        self._step = step + 1
        return Work([part.micro for part in parts], self.positions, sum(part.seconds for part in parts))

    def largest(self) -> Micro:
        """The largest micro-batch of the first round, by padded seconds."""
        found = {}
        for name, plan in self.plans.items():
            indices = max(plan.round(0), key=lambda batch: float(plan.durations[batch].max()) * len(batch))
            found[name] = self.loaders[name].load(indices)
        return self.prepared(found)

    def prepared(self, batches: Mapping[str, Batch], training: bool = True) -> Micro:
        """The batches of streams as the objectives want them."""
        return {name: prepare(batches[stream], training) for name, (stream, prepare) in self.prepare.items()}

    def bad_clips(self) -> dict[str, str]:
        """Why clips could not be read so far, by id."""
        return {name: error.cause for loader in self.loaders.values() for name, error in loader.bad.items()}

    def rounding(self) -> str:
        """That the number of processes changes the batches, where it does; to be put behind another remark."""
        if self.micro_batches == self.alone:
            return ""
        return (
            f"; a step is {self.micro_batches} micro-batches instead of {self.alone}, to divide by {self.world} "
            "processes: its batches are not those of one process"
        )

    def close(self) -> None:
        """End the processes that read."""
        if self._parts is not None:
            self._parts.close()
        self._parts = None

    def _requests(self, step: int) -> Iterator[Request]:
        """What this process is to read from a step on; remembers where the plans stand after each."""
        positions = self.positions
        while True:
            requests = [Request({}, batch_seed(self.seed, step, n)) for n in range(self.micro_batches)]
            for name, plan in self.plans.items():
                for request, (indices, after) in zip(requests, plan.batches(positions[name]), strict=False):
                    request.indices[name], positions = indices, positions | {name: after}
            self._after[step] = positions
            yield from requests[self.rank :: self.world]
            step += 1

    def _read(self, request: Request) -> Part:
        """Read and prepare a micro-batch, in whichever process."""
        read = {name: self.loaders[name].read(indices, request.seed) for name, indices in request.indices.items()}
        seconds = sum(batch.seconds for batch in read.values())
        return Part(self.prepared(read), seconds, {name: batch.broken for name, batch in read.items()})


def build_plan(
    clips: Clips, recipe: DataRecipe, batch_seconds: float, temperature: float, seed: int, lanes: int
) -> BatchPlan:
    """A plan that balances languages by temperature and corpora by weight."""
    return BatchPlan(
        clips.durations,
        clips.pairs,
        batch_seconds=batch_seconds,
        temperature=temperature,
        weights=np.array([recipe.weights.get(source, 1.0) for source, _ in clips.names]),
        shards=clips.shards,
        lanes=lanes,
        seed=seed,
    )


def batch_seed(seed: int, step: int, number: int) -> int:
    """The seed of everything random in one micro-batch."""
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint32)[0])
