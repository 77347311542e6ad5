"""How loud a waveform is, window by window."""

import numpy as np
from numpy.typing import NDArray


def levels(waveform: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """(S,) -> (⌊S / window⌋,) mean power of each window of so many samples, in decibels of full scale."""
    power = np.square(waveform[: len(waveform) // window * window].reshape(-1, window)).mean(axis=1, dtype=np.float64)
    found: NDArray[np.float64] = 10 * np.log10(power + 1e-12)
    return found
