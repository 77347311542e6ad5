"""Guards: an objective takes part only once figures of the dev split are good enough for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from isogloss.errors import IsoglossError
from isogloss.objectives.base import BaseConfig

WORST = 3
"""Languages that are named where a guard holds."""


class Guards:
    """Which objectives of a stage take part.

    figures: those of the last look, by name; empty before there was one. opened: the steps at which objectives were
    let in.
    """

    def __init__(self, configs: Mapping[str, BaseConfig]):
        self.limits = {name: config.guard for name, config in configs.items() if config.guard}
        self.figures: dict[str, float] = {}
        self.opened: dict[str, int] = {}
        self._lifted = False

    def __bool__(self) -> bool:
        return bool(self.limits)

    def open(self, name: str) -> bool:
        """Whether an objective takes part."""
        limits = self.limits.get(name, {})
        return self._lifted or all(self.figures.get(figure, float("inf")) <= limit for figure, limit in limits.items())

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Every objective takes part inside: for what must be tried before the figures are good enough."""
        self._lifted = True
        yield
        self._lifted = False

    def judge(self, figures: dict[str, float], step: int) -> list[str]:
        """Take in new figures; returns the objectives that they let in or shut out."""
        before = {name: self.open(name) for name in self.limits}
        self.figures = figures
        changed = [name for name, was_open in before.items() if self.open(name) != was_open]
        self.opened |= {name: step for name in changed if self.open(name)}
        return changed

    def relevant(self, stage: str, figures: Mapping[str, float], corpora: Mapping[str, list[str]]) -> dict[str, float]:
        """The figures that guards ask for: means over the languages with transcripts to learn from.

        The others are never aligned: their rates must shut nothing out. corpora: of each such language.
        """
        found = {}
        for name in sorted({figure for limits in self.limits.values() for figure in limits}):
            rates = _by_language(name, figures, corpora)
            if rates or name in figures:
                found[name] = sum(rates.values()) / len(rates) if rates else figures[name]
                continue
            raise IsoglossError(
                f'The stage "{stage}" guards a loss by {name} on the dev split, which holds nothing to measure it on; '
                "prepare the data with a dev split, or leave out guard."
            )
        return found

    def sentence(
        self, name: str, figures: Mapping[str, float], corpora: Mapping[str, list[str]], ended: bool
    ) -> str:
        """Whether an objective's guard lets it take part, in one line."""
        if self.open(name):
            return f"{name} takes part."
        figure, limit = next((f, v) for f, v in self.limits[name].items() if self.figures.get(f, float("inf")) > v)
        rates = _by_language(figure, figures, corpora)
        worst = sorted(rates, key=rates.__getitem__, reverse=True)[:WORST]
        poorest = ", ".join(f"{rates[tag]:.2f} in {tag} of {' and '.join(corpora[tag])}" for tag in worst)
        shown = self.figures[figure]
        left_out = f"{name} is left out: {figure} on the dev split is {shown:.2f} ({poorest}), its guard {limit:.2f}."
        if not ended:
            return left_out
        mend = "Train longer before it; if that does not help, see whether the transcripts there belong to the clips."
        return f"{left_out} {mend}"


def _by_language(name: str, figures: Mapping[str, float], corpora: Mapping[str, list[str]]) -> dict[str, float]:
    return {tag: figures[f"{name}/{tag}"] for tag in corpora if f"{name}/{tag}" in figures}
