"""SpecAugment: features warped in time and partly masked; `perturb` is the same for waveforms.

Park et al. (2019; the adaptive policy: 2020), on each utterance of length τ of a batch:
    time warp   an anchor frame in (W, τ−W) moves by w ~ U[−W, W], the rest follows linearly
    frequency   mF masks of f ~ U{0..F} bins
    time        mT masks of t ~ U{0..T} frames, inside the utterance
"""

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from isogloss.config import Config
from isogloss.errors import did_you_mean
from isogloss.sequence import Sequence

_PRESETS: dict[str, dict[str, Any]] = {
    "LB": {"time_warp": 80, "freq_masks": 1, "time_masks": 1, "time_width": 100},
    "LD": {"time_warp": 80, "time_masks": 2, "time_width": 100},
    "SM": {"time_warp": 40, "freq_width": 15, "time_masks": 2, "time_width": 70, "time_share": 0.2},
    "SS": {"time_warp": 40, "time_masks": 2, "time_width": 70, "time_share": 0.2},
    "conformer": {"time_masks": 10, "time_share": 0.05},
    "adaptive": {"time_masks": 20, "time_masks_share": 0.04, "time_share": 0.04},
}
FRAME_MS = 10.0
"""Milliseconds of the frames in which policies count time."""


class SpecAugmentConfig(Config):
    """A SpecAugment policy in frames of 10 ms, or a name: LB, LD, SM, SS, conformer, adaptive."""

    time_warp: int = Field(default=0, ge=0, description="W, frames; utterances of 2 W or less are not warped")
    freq_width: int = Field(default=27, ge=0, description="F, largest width of a frequency mask, bins")
    freq_masks: int = Field(default=2, ge=0, description="mF, number of frequency masks")
    time_width: int | None = Field(default=None, ge=0, description="T, largest width of a time mask, frames")
    time_share: float = Field(default=1.0, ge=0, le=1, description="p or pS, the same as a share of the length τ")
    time_masks: int = Field(default=2, ge=0, description="mT, largest number of time masks")
    time_masks_share: float | None = Field(
        default=None, ge=0, description="pM, time masks per frame of τ (null: always mT)"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if not isinstance(values, str):
            return values
        if values not in _PRESETS:
            known = ", ".join(_PRESETS)
            raise ValueError(
                f'no SpecAugment policy "{values}"; known: {known}.{did_you_mean(values, _PRESETS)}'
            )
        return _PRESETS[values]

    def at(self, frame_ms: float) -> "SpecAugmentConfig":
        """The same policy where a frame lasts so long: as much time is masked, in as many places."""
        scale = FRAME_MS / frame_ms
        times = {"time_warp": self.time_warp, "time_width": self.time_width}
        changes: dict[str, Any] = {key: round(value * scale) for key, value in times.items() if value is not None}
        if self.time_masks_share is not None:
            changes["time_masks_share"] = self.time_masks_share / scale
        return self.model_copy(update=changes)

    @classmethod
    def preset(cls, name: str) -> "SpecAugmentConfig":
        """The published policy LB, LD, SM, SS, conformer or adaptive (LibriFullAdapt)."""
        return cls.parse(name, "SpecAugment")


class SpecAugment(nn.Module):
    """Features (B, T, F) -> the same shape, warped and masked with zeros in training mode only.

    frame_ms: from one frame to the next; the policy counts time in frames of `FRAME_MS`.
    Zero is the mean of normalised features: normalise first. Draws come from the generator given
    or else the global CPU generator, in a number that depends on B alone, on any device.
    """

    def __init__(self, config: SpecAugmentConfig, frame_ms: float = FRAME_MS):
        super().__init__()
        self.config = config.at(frame_ms)

    def forward(self, features: Sequence, generator: torch.Generator | None = None) -> Sequence:
        if not self.training:
            return features
        if self.config.time_warp:
            features = _warp(features, self.config.time_warp, generator)
        hidden = self._time_mask(features, generator)[:, :, None]
        hidden = hidden | self._freq_mask(features, generator)[:, None, :]
        zero = features.values.new_zeros(())
        return features.map(lambda values: torch.where(hidden, zero, values))

    def _time_mask(self, features: Sequence, generator: torch.Generator | None) -> Tensor:
        """(B, T) bool: at most `time_masks` spans inside each length."""
        config = self.config
        lengths = features.lengths[:, None].double()
        widest = (lengths * config.time_share).floor()
        if config.time_width is not None:
            widest = widest.clamp(max=config.time_width)
        if config.time_masks_share is not None:
            order = torch.arange(config.time_masks, device=features.device)
            widest = widest * (order < (lengths * config.time_masks_share).floor())
        return _spans(features, config.time_masks, widest, lengths, features.values.shape[1], generator)

    def _freq_mask(self, features: Sequence, generator: torch.Generator | None) -> Tensor:
        """(B, F) bool: `freq_masks` spans of bins."""
        bins = features.values.shape[2]
        widest = torch.full((len(features), 1), min(self.config.freq_width, bins), device=features.device)
        size = torch.full_like(widest, bins)
        return _spans(features, self.config.freq_masks, widest, size, bins, generator)


def _spans(
    features: Sequence,
    count: int,
    widest: Tensor,
    sizes: Tensor,
    positions: int,
    generator: torch.Generator | None,
) -> Tensor:
    """(B, positions) bool: `count` spans of width U{0..widest} that begin in U{0..size − width}."""
    draws = _draws(features, (count, 2), generator)
    width = (draws[..., 0] * (widest + 1)).floor()
    start = (draws[..., 1] * (sizes - width + 1)).floor()
    place = torch.arange(positions, device=features.device)
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])
    return inside.any(dim=1)


def _draws(features: Sequence, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """(B, *shape) in [0, 1), drawn on the generator's device so that every device sees the same."""
    device = generator.device if generator is not None else "cpu"
    draws = torch.rand(len(features), *shape, generator=generator, device=device, dtype=torch.float64)
    return draws.to(features.device)


def _warp(features: Sequence, distance: int, generator: torch.Generator | None) -> Sequence:
    """Move an anchor frame of each utterance by up to `distance` frames; first and last frame stay."""
    draws = _draws(features, (2,), generator)
    last = (features.lengths - 1).clamp(min=0).double()
    anchor = distance + draws[:, 0] * (last - 2 * distance)
    target = anchor + (2 * draws[:, 1] - 1) * distance
    long_enough = (features.lengths > 2 * distance + 1)[:, None]
    anchor, target, last = anchor[:, None], target[:, None], last[:, None]
    frame = torch.arange(features.values.shape[1], device=features.device).double()
    before = frame * anchor / target
    after = last - (last - frame) * (last - anchor) / (last - target)
    source = torch.where(frame < target, before, after)
    source = torch.where(long_enough, source, frame).clamp(max=last).clamp(min=0)
    return _interpolate(features, source)


def _interpolate(features: Sequence, source: Tensor) -> Sequence:
    """Values at fractional frames `source` (B, T), linear between neighbours, zeros in the padding."""
    low = source.floor().long()
    high = source.ceil().long()
    share = (source - low)[..., None].to(features.values.dtype)
    clean = features.zero_padding().values

    def at(index: Tensor) -> Tensor:
        return clean.gather(1, index[..., None].expand(-1, -1, clean.shape[2]))

    return features.with_values(torch.lerp(at(low), at(high), share)).zero_padding()
