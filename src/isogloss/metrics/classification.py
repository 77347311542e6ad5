"""Figures for a classifier, such as language identification."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from isogloss.metrics.bootstrap import Interval
from isogloss.metrics.checks import require_level, require_pairs


@dataclass(frozen=True)
class Classification:
    """What a classifier did on labelled items.

    accuracy with its Wilson `interval`; NaN without items.
    macro_f1: the mean F1 of the labels that occur in the references. A label that is only predicted
    has no F1 of its own: its errors already lower the recall of the labels it was mistaken for.
    labels: all labels that occur, sorted. confusion: (len(labels), len(labels)) int64 counts,
    row = reference, column = prediction, in the order of `labels`.
    """

    accuracy: float
    interval: Interval
    macro_f1: float
    labels: tuple[str, ...]
    confusion: npt.NDArray[np.int64]


def classification(
    references: Sequence[str], predictions: Sequence[str], *, level: float = 0.95
) -> Classification:
    """Accuracy, macro-F1 and confusion matrix.

    Raises ValueError if the lists differ in length, or for a level outside (0, 1).
    """
    require_pairs(references, predictions, ("references", "predictions"))
    require_level(level)
    if not references:
        nothing = Interval(math.nan, math.nan)
        return Classification(math.nan, nothing, math.nan, (), np.zeros((0, 0), dtype=np.int64))
    from sklearn.metrics import f1_score

    labels = sorted({*references, *predictions})
    place = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, ([place[label] for label in references], [place[label] for label in predictions]), 1)
    correct = int(np.trace(confusion))
    macro_f1 = f1_score(
        references, predictions, labels=sorted(set(references)), average="macro", zero_division=0
    )
    return Classification(
        accuracy=correct / len(references),
        interval=wilson_interval(correct, len(references), level=level),
        macro_f1=float(macro_f1),
        labels=tuple(labels),
        confusion=confusion,
    )


def wilson_interval(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """The score interval of a proportion (Wilson 1927): sound for few items and near 0 and 1.

    Both ends are NaN if total is 0. Raises ValueError unless 0 <= successes <= total and 0 < level < 1.
    """
    require_level(level)
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
    if total == 0:
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return Interval(max(0.0, centre - reach), min(1.0, centre + reach))
