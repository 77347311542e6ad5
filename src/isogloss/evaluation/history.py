"""What a run's log says, ready to plot: per stage, thinned training curves and looks at the dev split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.errors import IsoglossError
from isogloss.training.journal import LOG, read_log

POINTS = 90
"""Points of a training curve; more would be a wider file and no more to see."""


@dataclass(frozen=True)
class Curve:
    """One quantity over the steps of the whole run: means of bins, and where 80 % of their steps lie."""

    steps: NDArray[np.float64]
    means: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class StageHistory:
    """One stage of a run; records as the journal wrote them, oldest first."""

    name: str
    steps: list[dict[str, Any]]
    dev: list[dict[str, Any]]

    def curve(self, key: str) -> Curve | None:
        """The training curve of a key, None where the stage has none."""
        pairs = [(record["step"], record[key]) for record in self.steps if _finite(record.get(key))]
        if not pairs:
            return None
        bins = np.array_split(np.array(pairs, dtype=np.float64), min(POINTS, len(pairs)))
        return Curve(
            steps=np.array([part[:, 0].mean() for part in bins]),
            means=np.array([part[:, 1].mean() for part in bins]),
            low=np.array([np.quantile(part[:, 1], 0.1) for part in bins]),
            high=np.array([np.quantile(part[:, 1], 0.9) for part in bins]),
        )

    def looks(self, key: str) -> list[tuple[int, float]]:
        """(step, value) at each look at the dev split."""
        return [(record["step"], record[key]) for record in self.dev if _finite(record.get(key))]

    def languages(self) -> list[str]:
        """Languages whose dev error rate was taken."""
        keys = {key for record in self.dev for key in record}
        return sorted(key.removeprefix("cer/") for key in keys if key.startswith("cer/"))

    def plain(self) -> dict[str, Any]:
        """In short: where the curves began and ended, and every look at the dev split."""
        parts = [key for key in (self.steps[0] if self.steps else {}) if key == "loss" or "/" in key]
        return {
            "name": self.name,
            "steps": len(self.steps),
            "hours": round(sum(record.get("seconds", 0.0) for record in self.steps) / 3600, 3),
            "skipped_steps": sum(bool(record.get("skipped")) for record in self.steps),
            "first": {key: self.steps[0][key] for key in parts if _finite(self.steps[0][key])},
            "last": {key: self.steps[-1][key] for key in parts if _finite(self.steps[-1].get(key))},
            "dev": [{key: value for key, value in record.items() if key != "time"} for record in self.dev],
        }


def read_history(run: Path) -> list[StageHistory]:
    """The stages of a run in order; raises IsoglossError for a folder that is no run or has no steps."""
    stages: dict[str, StageHistory] = {}
    for record in read_log(run):
        stage = stages.setdefault(record["stage"], StageHistory(record["stage"], [], []))
        {"dev": stage.dev, "step": stage.steps}.get(record["event"], []).append(record)
    if not stages:
        raise IsoglossError(f"{run / LOG} is empty: the run has not taken a step yet.")
    return list(stages.values())


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
