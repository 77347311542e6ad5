"""The micro-batches of each step, read one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from isogloss.data.loading import Batch, Loader
from isogloss.data.manifests import language_of, source_of
from isogloss.data.needs import Needs
from isogloss.data.plan import BatchPlan, Position
from isogloss.training.recipe import DataRecipe, StageRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Micro = dict[str, Batch]
"""The batch of every objective in one micro-batch, by name."""
Prepare = Callable[[Batch, bool], Batch]


@dataclass(frozen=True)
class Stream:
    """Clips that some objectives of a stage draw from, and what these need of them."""

    cuts: list[MonoCut]
    needs: Needs


@dataclass(frozen=True)
class Work:
    """What one process does in one step.

    micro: the micro-batches. positions: where the plans stand after the step. seconds: of audio in it.
    """

    micro: list[Micro]
    positions: dict[str, Position]
    seconds: float


class Source:
    """Yields the work of one process, step by step, reading and preparing one step ahead.

    A step has `stage.seconds[stream]` seconds of audio of each stream, in as many micro-batches as memory asks for,
    `alone`; in some more where the processes do not divide them, so that none waits for another: then the batches
    differ from those of one process. Process r takes every world-th from r on.

    prepare: of each objective, with its stream.
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
    ):
        largest = max(stage.seconds.values())
        self.alone = ceil(largest / stage.batch_seconds)
        self.micro_batches = ceil(self.alone / world) * world
        self.rank, self.world, self.seed = rank, world, seed
        self.prepare = dict(prepare)
        self.loaders = {
            name: Loader(
                stream.cuts,
                workers=recipe.workers,
                max_bad=recipe.max_bad,
                speeds=recipe.speeds,
                # What is predicted of speech alone is the speech itself, which noise would change.
                perturbed=stage.perturb if stream.needs.text else None,
                views=stream.needs.views,
                labels={label: (labels or {})[label] for label in sorted(stream.needs.labels)},
            )
            for name, stream in streams.items()
        }
        self.plans = {
            name: build_plan(
                stream.cuts,
                recipe,
                stage.seconds[name] / self.micro_batches,
                stage.temperatures.get(name, stage.temperature),
                seed,
            )
            for name, stream in streams.items()
        }
        self.positions: dict[str, Position] = {name: Position() for name in self.plans}
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: tuple[int, Future[Work]] | None = None

    def work(self, step: int) -> Work:
        """The micro-batches of a step; steps must be asked for in order from where the source stands."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._ahead.submit(self._read, step, self.positions))
        work = self._next[1].result()
        self.positions = work.positions
        self._next = (step + 1, self._ahead.submit(self._read, step + 1, work.positions))
        return work

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
        return {name: cause for loader in self.loaders.values() for name, cause in loader.bad.items()}

    def rounding(self) -> str:
        """That the number of processes changes the batches, where it does; to be put behind another remark."""
        if self.micro_batches == self.alone:
            return ""
        return (
            f"; a step is {self.micro_batches} micro-batches instead of {self.alone}, to divide by {self.world} "
            "processes: its batches are not those of one process"
        )

    def close(self) -> None:
        self._ahead.shutdown(cancel_futures=True)
        for loader in self.loaders.values():
            loader.close()

    def _read(self, step: int, positions: dict[str, Position]) -> Work:
        read: list[dict[str, Batch]] = [{} for _ in range(self.micro_batches // self.world)]
        after: dict[str, Position] = {}
        for name, plan in self.plans.items():
            batches = plan.batches(positions[name])
            for number in range(self.micro_batches):
                indices, after[name] = next(batches)
                if number % self.world == self.rank:
                    seed = batch_seed(self.seed, step, number)
                    read[number // self.world][name] = self.loaders[name].load(indices, seed)
        seconds = sum(batch.seconds for batches in read for batch in batches.values())
        return Work([self.prepared(batches) for batches in read], after, seconds)


def build_plan(
    cuts: list[MonoCut], recipe: DataRecipe, batch_seconds: float, temperature: float, seed: int
) -> BatchPlan:
    """A plan that balances languages by temperature and corpora by weight."""
    pairs = [(source_of(cut), language_of(cut)) for cut in cuts]
    names = sorted(set(pairs))
    number = {pair: index for index, pair in enumerate(names)}
    return BatchPlan(
        np.array([cut.duration for cut in cuts]),
        np.array([number[pair] for pair in pairs]),
        batch_seconds=batch_seconds,
        temperature=temperature,
        weights=np.array([recipe.weights.get(source, 1.0) for source, _ in names]),
        seed=seed,
    )


def batch_seed(seed: int, step: int, number: int) -> int:
    """The seed of everything random in one micro-batch."""
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint32)[0])
