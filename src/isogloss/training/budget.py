"""As many steps as fit into a time: measured before the first step, corrected from stage to stage.

A machine is seldom as fast for ten minutes as it was for ten steps: others use it, looks at the dev split and
checkpoints take time. So when a stage has ended, those after it share what is left, at the speed that it had.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from isogloss.training.recipe import StageRecipe

Stages = tuple[StageRecipe, ...]
LEAST = 10
"""Steps of a stage, however little time is left."""


@dataclass
class Budget:
    """costs: seconds a step of each stage took when it was measured."""

    minutes: float
    costs: list[float]
    began: float = field(default_factory=time.monotonic)
    stage_began: float = field(default_factory=time.monotonic)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count: its time was taken off beforehand."""
        before = time.monotonic()
        yield
        gone = time.monotonic() - before
        self.began += gone
        self.stage_began += gone

    def share(self, stages: Stages, ended: int) -> float:
        """What the steps of the stages after the first `ended` ones must be multiplied with to end in time."""
        now = time.monotonic()
        slowness = 1.0
        if ended:
            slowness = (now - self.stage_began) / (stages[ended - 1].steps * self.costs[ended - 1])
        self.stage_began = now
        left = self.minutes * 60 - (now - self.began)
        planned = sum(stage.steps * cost for stage, cost in list(zip(stages, self.costs, strict=True))[ended:])
        return max(0.0, left) / (planned * slowness)


def scaled(stages: Stages, ended: int, share: float) -> Stages:
    """The stages, with so many times the steps in those after the first `ended` ones."""
    return tuple(
        stage if number < ended else stage.model_copy(update={"steps": max(LEAST, round(stage.steps * share))})
        for number, stage in enumerate(stages)
    )
