"""What is probed: hidden states of a model by layer, features, and an encoder that has learned nothing."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.mfcc import MFCCConfig
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.encoders.presets import PRESETS, preset, preset_features
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence

FEATURES: dict[str, type[FeaturesConfig]] = {"log_mel": LogMelConfig, "mfcc": MFCCConfig}
RANDOM = "random:"


class Representation(Protocol):
    """Audio (B, S) -> frames (B, T, D) of each layer, all of one width and rate."""

    @property
    def name(self) -> str: ...

    @property
    def frame_seconds(self) -> float:
        """From one frame to the next."""

    def layers(self, audio: Sequence) -> list[Sequence]:
        """What each layer has of the audio."""


def representation(name: str, device: torch.device | str = "cpu") -> Representation:
    """By the folder of a model, `log_mel`, `mfcc`, or `random:PRESET`, an encoder with random weights.

    Raises IsoglossError for anything else.
    """
    if name in FEATURES:
        config = FEATURES[name]()
        return Features(name, config.framing.stride / SAMPLE_RATE, config.build().eval().to(device))
    if name.startswith(RANDOM):
        size = name.removeprefix(RANDOM)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Model(ModelConfig(encoder=preset(size), features=preset_features(size), heads={}))
        return States(name, model.eval().to(device))
    if not Path(name).is_dir():
        known = [*FEATURES, *(f"{RANDOM}{size}" for size in PRESETS)]
        raise IsoglossError(
            f'"{name}" is no model folder.{did_you_mean(name, known)} Give one, log_mel, mfcc, or random:PRESET.'
        )
    return States(name, load_model(Path(name)).eval().to(device))


@dataclass(frozen=True)
class Features:
    """Features of a kind, a single layer."""

    name: str
    frame_seconds: float
    module: nn.Module

    @torch.inference_mode()
    def layers(self, audio: Sequence) -> list[Sequence]:
        found: Sequence = self.module(audio)
        return [found]


@dataclass(frozen=True)
class States:
    """Of a model: what enters its first block, if it is as wide, and what leaves each; adapters take no part."""

    name: str
    model: Model

    @property
    def frame_seconds(self) -> float:
        return self.model.spec.frame_seconds

    @torch.inference_mode()
    def layers(self, audio: Sequence) -> list[Sequence]:
        encoder = self.model.encoder
        numbers = tuple(range(encoder.layers + 1))
        found = self.model.encode(self.model.features(audio), layers=numbers).layers
        every: ListOf[Sequence] = [found[number] for number in numbers]
        return [states for states in every if states.values.shape[-1] == encoder.width]
