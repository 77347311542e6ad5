"""Audio that a caller already holds, as arrays and tensors of the field's libraries give it."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.blocks import Block
from isogloss.errors import AudioError

RATES = range(1000, 1_000_001)
"""Hz."""
MOST_CHANNELS = 8
"""Of an array; more rows or columns than that are taken for time, or for a batch."""


def unpacked(audio: Any, default: int) -> tuple[Block, float]:
    """(frames, channels) float32 and the rate in Hz of an array or tensor, of (array, rate), or of what
    Hugging Face datasets give: {"array": array, "sampling_rate": rate}, or a decoder of torchcodec.

    A bare array is at the `default` rate. Raises AudioError for what cannot be understood.
    """
    rate: Any = default
    if isinstance(audio, tuple) and len(audio) == 2:
        audio, rate = audio
    elif isinstance(audio, Mapping):
        if not {"array", "sampling_rate"} <= audio.keys():
            keys = ", ".join(map(repr, audio)) or "nothing"
            raise AudioError(f'Audio in a dict needs "array" and "sampling_rate"; this one has {keys}.', "unreadable")
        audio, rate = audio["array"], audio["sampling_rate"]
    elif hasattr(audio, "get_all_samples"):
        samples = audio.get_all_samples()
        audio, rate = samples.data, samples.sample_rate
    array = _as_numpy(audio)
    if isinstance(rate, bool) or not isinstance(rate, Real) or not RATES[0] <= float(rate) <= RATES[-1]:
        raise AudioError(f"{rate!r} is not a sample rate in Hz; give (array, rate).", "unreadable")
    return scaled(_frames_first(array)), float(rate)


def scaled(array: NDArray[Any]) -> Block:
    """Samples as float32; integers scaled by their type's full range."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
            return array.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - np.float32(128)) / np.float32(128)
    if array.dtype in (np.int8, np.int16, np.int32):
        # The range is a power of two: a float32 is rounded once at most, whether before or after it is scaled.
        return np.multiply(array, np.float32(-1 / np.iinfo(array.dtype).min), dtype=np.float32)
    raise AudioError(
        f"Samples of type {array.dtype} have no known scale; convert them to float32 in [-1, 1].",
        "unreadable",
    )


def _as_numpy(array: Any) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    import torch

    if not isinstance(array, torch.Tensor):
        raise AudioError(
            f"Audio of type {type(array).__name__} is not understood; give a path, bytes, an array, a tensor, "
            'or one of them with its rate: (array, rate) or {"array": array, "sampling_rate": rate}.',
            "unreadable",
        )
    array = array.detach().cpu()
    values: NDArray[Any] = (array.float() if array.is_floating_point() else array).numpy()
    return values


def _frames_first(array: NDArray[Any]) -> NDArray[Any]:
    """(S,), (S, C) as soundfile has it, or (C, S) as torchaudio has it -> (S, C)."""
    if array.ndim == 1:
        return array[:, None]
    if array.ndim == 2:
        rows, columns = array.shape
        if columns <= MOST_CHANNELS < rows or columns == 1 < rows:
            return array
        if rows <= MOST_CHANNELS < columns or rows == 1:
            return array.T
    raise AudioError(
        f"An array of shape {array.shape} is neither (samples,), (samples, channels) nor (channels, samples) "
        f"of at most {MOST_CHANNELS} channels; give a batch as a list.",
        "unreadable",
    )
