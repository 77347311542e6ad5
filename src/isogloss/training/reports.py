"""What steps came to: read from the device for several at once, averaged over processes, checked, and written."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from isogloss.objectives.base import Mean
from isogloss.training.hardware import Machine, sum_over_group
from isogloss.training.health import Health
from isogloss.training.journal import Journal
from isogloss.training.stage import Stage, Sums
from isogloss.training.streams import Work


@dataclass(frozen=True)
class _Step:
    """One step, as far as it is known without waiting for the device.

    step: of the run. done: of the stage. weights: of the objectives that took part, and of their terms. counts: over
    how much each mean is taken; None where the device knows. seconds: of audio. waited: seconds for data.
    """

    step: int
    done: int
    weights: dict[str, float]
    term_weights: dict[str, float]
    names: list[str]
    counts: list[float | None]
    on_device: Tensor
    rate: float
    began: float
    seconds: float
    waited: float
    ids: list[str]


class Reports:
    """The steps of a stage that are yet to be written.

    A device that computes beside the host is asked once in so many steps (`Machine.steps_between_reports`): to read
    a number is to wait until all that was asked of the device is done.
    """

    def __init__(self, stage: Stage, journal: Journal, health: Health, machine: Machine):
        self.stage, self.journal, self.health, self.machine = stage, journal, health, machine
        self._hours = stage.hours(1)
        self._steps: list[_Step] = []

    def add(
        self,
        step: int,
        done: int,
        work: Work,
        sums: list[Sums],
        norm: Tensor,
        *,
        rate: float,
        began: float,
        waited: float,
    ) -> None:
        """A step that was taken, which began then (`time.perf_counter`); writes what there is when it is time."""
        names = [*sums[0].terms, *sums[0].stats]
        means = [_sum([{**micro.terms, **micro.stats}[name] for micro in sums]) for name in names]
        counts = [None if isinstance(mean.count, Tensor) else float(mean.count) for mean in means]
        device = [mean.total for mean in means] + [m.count for m in means if isinstance(m.count, Tensor)] + [norm]
        self._steps.append(
            _Step(
                step,
                done,
                {name: weight for name in self.stage.objectives if (weight := self.stage.weight(name))},
                {name: term.weight for name, term in sums[0].terms.items()},
                names,
                counts,
                torch.stack([value.detach().to(torch.float64) for value in device]),
                rate,
                began,
                work.seconds,
                waited,
                [name for micro in work.micro for batch in micro.values() for name in batch.ids],
            )
        )
        if len(self._steps) >= self.machine.steps_between_reports:
            self.write()

    def write(self) -> None:
        """Write all steps that were taken since the last time.

        Raises IsoglossError where health says that the run should stop.
        """
        if not self._steps:
            return
        taken, self._steps = self._steps, []
        values = torch.cat([step.on_device for step in taken]).tolist()
        each = (time.perf_counter() - taken[0].began) / len(taken)
        for step in taken:
            own, values = values[: len(step.on_device)], values[len(step.on_device) :]
            self._write(step, own, each)

    def _write(self, step: _Step, values: list[float], took: float) -> None:
        totals, *rest = values[: len(step.names)], *values[len(step.names) : -1]
        norm, on_device = values[-1], iter(rest)
        counts = [next(on_device) if count is None else count for count in step.counts]
        usable = self.health.usable(step.step, norm, step.ids)
        # Equal in all processes, as the norm is: none waits here for one that stopped.
        local = torch.tensor([*totals, *counts, step.seconds], dtype=torch.float64)
        *summed, audio = sum_over_group(local).tolist()
        means = {name: summed[n] / max(1.0, summed[n + len(step.names)]) for n, name in enumerate(step.names)}
        losses = dict.fromkeys((f"{name}/loss" for name in step.weights), 0.0)
        for name, weight in step.term_weights.items():
            losses[f"{name.partition('/')[0]}/loss"] += weight * means[name]
        loss = sum(step.weights[name.partition("/")[0]] * value for name, value in losses.items())
        if usable:
            for warning in self.health.check(step.done, step.done * self._hours, means):
                self.journal.say(warning)
        self.journal.step(
            {"event": "step", "stage": self.stage.recipe.name, "step": step.step, "loss": loss}
            | losses
            | means
            | {"norm": norm, "rate": step.rate, "seconds": audio, "speed": audio / took, "waited": step.waited}
            | {"skipped": not usable}
        )


def _sum(means: list[Mean]) -> Mean:
    """Of micro-batches; the count stays a number where all are."""
    return Mean(torch.stack([mean.total for mean in means]).sum(), sum(mean.count for mean in means))
