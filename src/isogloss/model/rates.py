"""Hidden states for those who count in the frames of log-mel features, such as acoustic models of HMMs.

An encoder with a state every 20 ms gives each of them twice, so that frame t has state ⌊t / 2⌋ (arXiv 2109.14357).
"""

import torch
from torch import Tensor

from isogloss.audio.log_mel import LogMelConfig
from isogloss.errors import IsoglossError
from isogloss.model.spec import ModelSpec


def repeats(spec: ModelSpec, frame_ms: float) -> int:
    """How many frames of so many ms a state lasts; raises IsoglossError where that is no whole number."""
    own = 1000 * spec.frame_seconds
    times = round(own / frame_ms) if frame_ms >= 1 else 0
    if times < 1 or abs(times * frame_ms - own) > 1e-6:
        raise IsoglossError(
            f"frame_ms {frame_ms:g} is impossible: states of this model last {own:g} ms and can only be repeated; "
            f"give {own:g} or a whole part of it, 1 at least."
        )
    return times


def synchronous_frames(spec: ModelSpec, frame_ms: float, samples: int) -> int:
    """Log-mel frames of so many samples, one every frame_ms: those of the model, if it has such."""
    features = spec.config.features
    own = features.kind == "log_mel" and features.shift_ms == frame_ms
    return spec.feature_frames(samples) if own else LogMelConfig(shift_ms=frame_ms).framing.frames(samples)


def repeated(states: Tensor, times: int, frames: int) -> Tensor:
    """Each state so many times: (T, D) -> (frames, D); the last as often as it takes."""
    places = (torch.arange(frames) // times).clamp(max=len(states) - 1)
    return states[places] if len(states) else states
