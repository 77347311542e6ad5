"""Checks that name what is wrong with a run and stop it, rather than let it burn hours."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from isogloss.errors import IsoglossError
from isogloss.objectives.base import Alarm

WINDOW = 50


@dataclass
class Health:
    """Watches the averages of recent steps; `check` raises with the name of the trouble.

    alarms: of each objective, by its name. said: statistics of which was warned.
    """

    alarms: Mapping[str, tuple[Alarm, ...]] = field(default_factory=dict)
    unusable: int = 0
    recent: dict[str, deque[float]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def check(self, step: int, hours: float, means: Mapping[str, float]) -> list[str]:
        """Look at the `OBJECTIVE/STATISTIC` means of one step; returns what should be said.

        step, hours: taken and heard in the stage so far.
        """
        watched = [(f"{name}/{alarm.stat}", name, alarm) for name, alarms in self.alarms.items() for alarm in alarms]
        for stat in means.keys() & {stat for stat, _, _ in watched}:  # once, however many alarms watch it
            self.recent.setdefault(stat, deque(maxlen=WINDOW)).append(means[stat])
        warnings = []
        for stat, name, alarm in watched:
            if stat not in means or (step < alarm.patience and hours < alarm.hours):
                continue
            seen = self.recent[stat]
            if len(seen) < WINDOW:
                continue
            value = sum(seen) / len(seen)
            if alarm.least <= value <= alarm.most:
                continue
            sentence = f"{name}: {alarm.said.format(value=value, step=step, hours=hours)}"
            if not alarm.only_warns:
                raise IsoglossError(sentence)
            if stat not in self.said:
                warnings.append(sentence)
            self.said.add(stat)
        return warnings

    def usable(self, step: int, norm: float, ids: list[str]) -> bool:
        """False if the gradient is not finite (the step is skipped); the third in a row stops the run."""
        if norm == norm and norm != float("inf"):
            self.unusable = 0
            return True
        self.unusable += 1
        if self.unusable == 3:
            raise IsoglossError(
                f"Three steps in a row gave a gradient that is not finite, the last at step {step} on "
                f"{', '.join(ids[:5])}; lower the learning rate, or look at these clips."
            )
        return False

    def restore(self, unusable: int, recent: dict[str, list[float]]) -> None:
        """Take over what an interrupted run had seen."""
        self.unusable = unusable
        self.recent = {name: deque(values, maxlen=WINDOW) for name, values in recent.items()}


def require_gradients(silent: set[str], trained: set[str], stage: str) -> None:
    """Every parameter that a stage trains must be reached by one of its objectives.

    silent: the names of those that got no gradient.
    """
    if not silent:
        return
    if silent == trained:
        raise IsoglossError(f'Empty gradients: no parameter of the stage "{stage}" received one; is everything frozen?')
    parts = sorted({_part(name, trained - silent) for name in silent})
    shown = ", ".join(sorted(silent)[:3]) + (", …" if len(silent) > 3 else "")
    raise IsoglossError(
        f'No objective of the stage "{stage}" reaches {len(silent)} of the parameters that it should train ({shown}); '
        f"freeze them (freeze: [{', '.join(parts)}]), or add an objective that trains them."
    )


def _part(name: str, reached: set[str]) -> str:
    """The largest part of the model that a parameter is in and nothing reaches: text.duration."""
    places = name.split(".")
    parts = [".".join(places[:count]) for count in range(1, len(places) + 1)]
    return next(part for part in parts if not any(f"{other}.".startswith(f"{part}.") for other in reached))
