"""Steps that fit into a time: shares of what is left, at the speed of the stage before."""

import pytest

from isogloss.training import budget
from isogloss.training.budget import LEAST, Budget, scaled
from isogloss.training.recipe import StageRecipe

STAGE = {"seconds": {"speech": 1.0}, "objectives": [{"name": "best_rq"}]}
STEPS = {"a": 100, "b": 200, "c": 50}
STAGES = tuple(StageRecipe.model_validate(STAGE | {"name": name, "steps": count}) for name, count in STEPS.items())


def steps(stages: tuple[StageRecipe, ...]) -> list[int]:
    return [stage.steps for stage in stages]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    return now


def test_every_stage_gets_its_share(clock: list[float]) -> None:
    found = Budget(minutes=5, costs=[1.0, 2.0, 2.0], began=1000.0, stage_began=1000.0)  # 600 s as planned
    assert steps(scaled(STAGES, 0, found.share(STAGES, 0))) == [50, 100, 25]


def test_what_follows_a_slow_stage_is_shortened_to_end_in_time(clock: list[float]) -> None:
    found = Budget(minutes=10, costs=[1.0, 2.0, 2.0], began=1000.0, stage_began=1000.0)
    found.share(STAGES, 0)
    clock[0] += 200  # twice as long as the first stage was to take: 400 s are left for what would now take 1000 s
    after = scaled(STAGES, 1, found.share(STAGES, 1))
    assert steps(after) == [100, 80, 20]
    clock[0] += 160  # the second stage at its old speed: 240 s are left for 40 s
    assert steps(scaled(after, 2, found.share(after, 2))) == [100, 80, 120]


def test_some_steps_are_taken_however_late_it_is(clock: list[float]) -> None:
    found = Budget(minutes=1, costs=[1.0, 1.0, 1.0], began=1000.0, stage_began=1000.0)
    clock[0] += 500
    assert steps(scaled(STAGES, 1, found.share(STAGES, 1))) == [100, LEAST, LEAST]
