"""What all figures ask of what they are given.

Nothing to measure gives NaN; numbers that are NaN or infinite, as of a model whose training has diverged, are refused
by an IsoglossError, for comparisons with them would count for or against it; lists that do not belong together and
parameters that mean nothing are a ValueError.
"""

from collections.abc import Sized

import numpy as np
import numpy.typing as npt

from isogloss.errors import IsoglossError


def finite(what: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The values as float64; raises IsoglossError that says of what kind they are where some are NaN or infinite."""
    numbers = np.asarray(values, dtype=np.float64)
    if broken := numbers.size - np.count_nonzero(np.isfinite(numbers)):
        raise IsoglossError(f"{broken} of {numbers.size} {what} are NaN or infinite; check the model that gave them.")
    return numbers


def require_pairs(references: Sized, hypotheses: Sized, names: tuple[str, str] = ("references", "hypotheses")) -> None:
    """Raise ValueError unless there are as many of the one as of the other."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} {names[0]} and {len(hypotheses)} {names[1]}")


def require_level(level: float) -> None:
    """Raise ValueError unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
