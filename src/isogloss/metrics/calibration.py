"""Whether a system is right as often as it claims to be."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isogloss.metrics.checks import finite, require_pairs

BINS = 15
EPSILON = 1e-6
RIDGE = 1e-3
"""Keeps the fit finite where every word, or none, is right."""


def expected_calibration_error(claimed: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Σ n_b/N |share right - mean claim| over bins of equal width (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    claimed: probabilities, (N,). NaN without items. Raises ValueError if the lists differ in length or claims are no
    probabilities, and IsoglossError for claims that are NaN.
    """
    claims, hits = _checked(claimed, right)
    if not len(claims):
        return float("nan")
    place = np.minimum((claims * bins).astype(int), bins - 1)
    gaps = np.bincount(place, claims - hits, bins)
    return float(np.abs(gaps).sum() / len(claims))


def fit_log_odds(claimed: Sequence[float], right: Sequence[bool], steps: int = 50) -> tuple[float, float]:
    """Platt scaling (1999): slope and offset of the log-odds under which the outcomes are likeliest.

    claimed: probabilities, (N,). Newton's method on the logistic loss, held near (1, 0) by a small ridge; (1, 0), which
    changes nothing, without items. Raises as `expected_calibration_error` does.
    """
    claims, hits = _checked(claimed, right)
    claims = np.clip(claims, EPSILON, 1 - EPSILON)
    inputs: npt.NDArray[np.float64] = np.stack([np.log(claims / (1 - claims)), np.ones_like(claims)], axis=1)
    start = np.array([1.0, 0.0])
    weights = start.copy()
    for _ in range(steps):
        found = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (found - hits) + RIDGE * (weights - start)
        curvature = (inputs * (found * (1 - found))[:, None]).T @ inputs + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        # A full step from far away may overshoot where the loss is flat.
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def _checked(
    claimed: Sequence[float], right: Sequence[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Both as numbers, (N,)."""
    require_pairs(claimed, right, ("claims", "items"))
    claims = finite("claims", claimed)
    if len(claims) and not 0 <= claims.min() <= claims.max() <= 1:
        raise ValueError(f"claims from {claims.min():g} to {claims.max():g} are no probabilities")
    return claims, np.asarray(right, dtype=np.float64)
