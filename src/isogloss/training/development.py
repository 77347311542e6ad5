"""Looks at the dev split during training, by all processes together."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as ListOf
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isogloss.data.clips import readable
from isogloss.data.loading import Batch, Loader
from isogloss.data.manifests import language_of
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.objectives.base import Mean, Objective
from isogloss.training.data import Data
from isogloss.training.hardware import Machine, summed
from isogloss.training.recipe import StageRecipe
from isogloss.training.stage import Stage

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

CLIPS = 30
"""Dev clips of each language that are looked at, spread evenly over the split."""
TOGETHER = 16
"""Clips of like length in a batch."""


WEIGHT = "weight of "
"""Before the name of a term: processes that had no clip for it do not know its weight."""


class Development:
    """A fixed selection of dev clips, kept in memory; each process looks at its share of them.

    labels: that stages have fitted, by name and clip.
    """

    def __init__(self, data: Data, machine: Machine, labels: Mapping[str, Mapping[str, Tensor]]):
        self.data, self.machine, self.labels = data, machine, labels
        self._batches: dict[Needs, list[Batch]] = {}
        self._prepared: dict[Objective, list[Batch]] = {}

    @torch.no_grad()
    def evaluate(self, stage: Stage) -> dict[str, float]:
        """Losses of the stage's objectives, each at its full weight, and their figures. {} without dev data.

        Full weights, for a weight that climbs would raise the figure while every loss falls.
        """
        stage.eval()
        figures: dict[str, float] = {}
        losses: list[float] = []
        for name in stage.objectives:
            if own := self._losses(stage, name):
                figures |= {f"{name}/{key}": value for key, value in own.items()}
                losses.append(stage.configs[name].weight * own["loss"])
            figures |= self._figures(stage, name)
        return figures | ({"loss": sum(losses)} if losses else {})

    def finish(self, stage: Stage) -> None:
        """Let the objectives fit on the selected dev clips what is fitted when a stage has ended."""
        stage.eval()
        for objective in stage.objectives.values():
            batches = [batch.to(self.machine.device) for batch in self._load(objective.dev_needs)]
            with torch.no_grad(), self.machine.autocast():
                objective.finish(stage.model, batches)
            self._prepared.pop(objective, None)  # which would keep it, and its slow copy of the model, to the end

    def _losses(self, stage: Stage, name: str) -> dict[str, float]:
        """The means of an objective's terms and statistics, and its `loss`."""
        objective = stage.objectives[name]
        terms: dict[str, Mean] = {}
        stats: dict[str, Mean] = {}
        if objective not in self._prepared:  # at every look the same
            self._prepared[objective] = [objective.prepare(batch, False) for batch in self._mine(objective.needs)]
        for batch in self._prepared[objective]:
            torch.manual_seed(batch.seed)
            with self.machine.autocast():
                loss = objective(stage.model, batch.to(self.machine.device), stage.clock)
            for key, term in loss.terms.items():
                terms[key] = _plus(terms.get(key), term)
                terms[f"{WEIGHT}{key}"] = Mean(torch.tensor(term.weight), 1.0)
            for key, mean in loss.stats.items():
                stats[key] = _plus(stats.get(key), mean)
        found = {key: total / max(1.0, count) for key, (total, count) in summed(terms).items()}
        if not found:
            return {}
        own = {key: value for key, value in found.items() if not key.startswith(WEIGHT)}
        whole = sum(found[f"{WEIGHT}{key}"] * value for key, value in own.items())
        return own | {key: total / max(1.0, count) for key, (total, count) in summed(stats).items()} | {"loss": whole}

    def _figures(self, stage: Stage, name: str) -> dict[str, float]:
        """An objective's own figures, and of those by language (`cer/ro`) the mean (`cer`)."""
        objective = stage.objectives[name]
        batches = [batch.to(self.machine.device) for batch in self._mine(objective.dev_needs)]
        with self.machine.autocast():
            found = summed(objective.figures(stage.model, batches))
        figures = {key: total / count for key, (total, count) in found.items() if count}
        groups: dict[str, list[float]] = {}
        for key, value in figures.items():
            if "/" in key:
                groups.setdefault(key.partition("/")[0], []).append(value)
        return {group: sum(values) / len(values) for group, values in groups.items()} | figures

    def _mine(self, needs: Needs) -> list[Batch]:
        """The share of this process."""
        return self._load(needs)[self.machine.rank :: self.machine.world]

    def _load(self, needs: Needs) -> list[Batch]:
        """Batches of the selected clips, read once."""
        if needs not in self._batches:
            labels = {name: self.labels[name] for name in sorted(needs.labels)}
            cuts = [cut for cut in self.data.dev_clips(needs) if all(cut.id in known for known in labels.values())]
            self._batches[needs] = load_batches(select(cuts), needs.views, labels)
        return self._batches[needs]


def _plus(before: Mean | None, mean: Mean) -> Mean:
    return mean if before is None else Mean(before.total + mean.total, before.count + mean.count)


def select(cuts: ListOf[MonoCut]) -> list[MonoCut]:
    """Up to `CLIPS` clips of each language, spread evenly over the ids."""
    groups: dict[str, list[MonoCut]] = {}
    for cut in sorted(readable(cuts), key=lambda cut: cut.id):
        groups.setdefault(language_of(cut), []).append(cut)
    chosen = []
    for group in groups.values():
        places = np.unique(np.linspace(0, len(group) - 1, CLIPS).round().astype(int))
        chosen += [group[place] for place in places]
    return chosen


def load_batches(
    cuts: list[MonoCut], views: int = 1, labels: Mapping[str, Mapping[str, Tensor]] | None = None
) -> list[Batch]:
    """Batches of clips of like length; views and labels as a `Loader` has them."""
    loader = Loader(cuts, views=views, labels=labels)
    order = np.argsort([cut.duration for cut in cuts], kind="stable")
    groups = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
    return [loader.load(group, seed=number) for number, group in enumerate(groups)]


def chosen_by(recipe: StageRecipe, figures: dict[str, float]) -> float | None:
    """What decides which weights are the best, the lower the better; None where the last ones are."""
    if recipe.best == "last" or not figures:
        return None
    name = recipe.best or ("cer" if "cer" in figures else "loss")
    if name not in figures:
        raise IsoglossError(
            f'The stage "{recipe.name}" chooses its weights by {name}, which is not measured on the dev split.'
            f"{did_you_mean(name, figures)} There are: {', '.join(sorted(figures))}, last."
        )
    return -figures[name] if recipe.highest else figures[name]


def sentence(stage: str, step: int, figures: dict[str, float]) -> str:
    """What a look at the dev split found, in one line; what is measured by language is a rate."""
    said = []
    for name in [key for key in figures if "/" not in key and key != "loss"]:
        tags = {key.removeprefix(f"{name}/"): value for key, value in figures.items() if key.startswith(f"{name}/")}
        detail = f" ({', '.join(f'{tag} {value:.1%}' for tag, value in sorted(tags.items()))})" if tags else ""
        said.append(f"{name.upper()} {figures[name]:.1%}{detail}" if tags else f"{name} {figures[name]:.4g}")
    losses = [f"dev loss {figures['loss']:.3f}"] if "loss" in figures else []
    return f"{stage} step {step}: {' · '.join([*losses, *said])}"
