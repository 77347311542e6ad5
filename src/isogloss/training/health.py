"""Checks that name what is wrong with a run and stop it, rather than let it burn hours."""

from collections import deque
from dataclasses import dataclass, field

from isogloss.errors import IsoglossError

WINDOW = 50
BLANK_PATIENCE = 1500
"""Steps a CTC model may emit blanks only; all start so, small ones for several hundred steps."""


@dataclass
class Health:
    """Watches the averages of recent steps; `check` raises with the name of the trouble."""

    unusable: int = 0
    recent: dict[str, deque[float]] = field(default_factory=dict)

    def check(self, step: int, parts: dict[str, float]) -> None:
        """Look at the parts of one step (see the objectives)."""
        for name, value in parts.items():
            self.recent.setdefault(name, deque(maxlen=WINDOW)).append(value)
        perplexity = self._mean("code_perplexity")
        if perplexity is not None and perplexity < 2.0:
            raise IsoglossError(
                f"Codebook collapse: the targets use {perplexity:.1f} codes on average at step {step}; "
                "are the features normalised (model.features.normalisation)?"
            )
        spread = self._mean("spread")
        if spread is not None and spread < 1e-3:
            raise IsoglossError(
                f"Representation collapse: hidden states of different frames are equal at step {step} "
                f"(spread {spread:.1e}); lower the learning rate or lengthen the warm-up."
            )
        blank = self._mean("blank")
        if step >= BLANK_PATIENCE and blank is not None and blank > 0.999:
            raise IsoglossError(
                f"All-blank CTC: after {step} steps nothing but blank is recognised; check that texts belong to "
                "their clips (isogloss inspect), raise the learning rate, or train with more steps."
            )

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

    def _mean(self, name: str) -> float | None:
        """Mean over the window, None until it is full."""
        values = self.recent.get(name, ())
        return sum(values) / WINDOW if len(values) == WINDOW else None


def require_gradients(norms: dict[str, float], step: int) -> None:
    """Every trained parameter must have received a gradient at the first step."""
    silent = [name for name, norm in norms.items() if norm == 0.0]
    if len(silent) == len(norms):
        raise IsoglossError(f"Empty gradients: no parameter received one at step {step}; is everything frozen?")
