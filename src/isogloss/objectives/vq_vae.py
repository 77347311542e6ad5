"""VQ-VAE: units of speech are codes from which its features can be written (Chorowski et al. 2019, arXiv 1901.08810).

The idea: a decoder that is told who speaks writes the features from a code a frame; what is left for the few codes to
say is what is said. They are units to be counted, compared and segmented (`load_units`), without any transcript.

    features x (B, T, F) ─┬─ encoder ─ W ─> z (B, T', E) ─ nearest of K codes ─> ẑ ─ jitter ─┐
                          └─ linear, GELU, mean and deviation over time ─> voice (B, 2V) ────┴─ convolutions ─> x̂

    L = mean over feature frames, and over features, of (x - x̂)² + β mean over frames, and over E, of (z - sg e)²

Codes follow the mean of the states that have them (`nn/quantizers.py`), after each step, over all its micro-batches and
processes; the gradient of x̂ passes through them to z. Jitter: while training, a frame takes the code of its left or
right neighbour, with p / 2 each, so that no code can hold what lasts for one frame only.

Differs from the paper: no WaveNet writes samples; convolutions write all log-mel frames of a clip at once, likely as by
a Gaussian of unit variance. There is no table of speakers, for an objective is not told which there are: the voice is
pooled from the features of the clip itself, which needs no labels. The encoder is any; the paper's are convolutions,
which see little around a frame. Those of the preset `local` see a third of a second to each side; what attends to whole
clips is free to put codes where their sounds are not. Codes that are not used begin anew. The numbers are those of
bshall's ZeroSpeech code, but for the jitter, which is the paper's.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model, load_pretraining
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.convolution import ConvolutionModule
from isogloss.nn.masking import flat_places
from isogloss.nn.pooling import AttentiveStatistics
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, perplexity, spread
from isogloss.objectives.masked_features import side_by_side
from isogloss.objectives.units import UnitQuantizer
from isogloss.sequence import Sequence


class VQVAEConfig(BaseConfig):
    """Codes from which the features of speech can be written."""

    paper = "Chorowski et al. 2019, arXiv 1901.08810"
    recipe = "vq-vae-tiny"
    presets: ClassVar = {"tiny": ("local", {})}

    name: Literal["vq_vae"] = "vq_vae"
    codes: int = Field(512, ge=2, description="number K of codes")
    code_width: int = Field(64, ge=1, description="width E of a code")
    decay: float = Field(0.999, ge=0, lt=1, description="γ, with which codes follow the states that have them")
    restart: int = Field(100, ge=1, description="steps after which a code that no frame had begins anew")
    commitment: float = Field(0.25, ge=0, description="β, weight of the distance of states from their codes")
    jitter: float = Field(0.12, ge=0, le=1, description="probability p that a frame takes the code of a neighbour")
    voice: int = Field(32, ge=1, description="width V of what is pooled over the clip to tell who speaks")
    width: int = Field(256, ge=1, description="width of the decoder")
    layers: int = Field(4, ge=1, description="convolutions of the decoder")
    kernel: int = Field(5, ge=1, description="kernel width of each, in frames of the encoder")

    def build(self, spec: ModelSpec) -> VQVAE:
        """The objective for a model; raises IsoglossError for one that learns its features."""
        return VQVAE(self, spec)


class VQVAE(Objective):
    """Reconstruction from codes; needs audio only."""

    def __init__(self, config: VQVAEConfig, spec: ModelSpec):
        super().__init__(config, spec)
        if spec.config.features.kind == "waveform":
            raise IsoglossError(
                "vq_vae writes the features of the model, which must not be learned themselves; "
                "set model.features: {kind: log_mel}."
            )
        self.config = config
        self.units = UnitQuantizer(spec.width, config.codes, config.code_width, config.decay, config.restart)
        self.hear = nn.Linear(spec.bins, config.voice)
        self.pool = AttentiveStatistics(config.voice)
        self.decoder = Decoder(config, spec.stride * spec.bins)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`targets`: frames of each clip; `written`: how many feature frames they are; `neighbours` (B, T').

        These are the frames whose codes are taken, for each frame; on the dev split its own.
        """
        lengths = self.spec.frames(batch.audio.lengths).tolist()
        features = self.spec.feature_frames(batch.audio.lengths).tolist()
        neighbours = torch.zeros(len(lengths), max(1, self.spec.frames(batch.audio.values.shape[1])), dtype=torch.int64)
        for row, length, draw in zip(neighbours, lengths, batch.draws("jitter"), strict=True):
            row[:length] = torch.from_numpy(jittered(length, self.config.jitter if training else 0.0, draw))
        written = [min(own, length * self.spec.stride) for own, length in zip(features, lengths, strict=True)]
        targets = [list(range(length)) for length in lengths]
        return batch.with_extras({"targets": targets, "written": written, "neighbours": neighbours})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames of features and of the encoder."""
        return {"distance": sum(batch.extras["written"]), "commitment": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> (x - x̂)² summed over feature frames, (z - e)² over frames of the encoder."""
        features = model.features(batch.audio).zero_padding()
        states = model.encoder(features, languages=batch.languages).final
        clips, width = states.values.shape[:2]
        places = flat_places(batch.extras["targets"], width, states.device)
        found = self.units(states)
        codes = found.vectors.unflatten(0, (clips, width)).take_along_dim(batch.extras["neighbours"][..., None], dim=1)
        voice = self.pool(features.map(lambda x: gelu(self.hear(x))))
        guess = self.decoder(states.with_values(codes), voice)
        own, frames = found.at(places), len(places)
        terms = {
            "distance": Term(self._distance(guess, features, places), sum(batch.extras["written"])),
            "commitment": Term(own.error.sum(), frames, self.config.commitment),
        }
        stats = {
            "code_perplexity": Mean(perplexity(own.codes, self.config.codes) * frames, frames),
            "spread": Mean(spread(own.given[0]) * frames, frames),
        }
        return Loss(terms, stats, self.units.quantizer.kept(own) if self.training else None)

    def _distance(self, guess: Tensor, features: Sequence, places: Tensor) -> Tensor:
        """(x - x̂)² averaged over features, and summed over feature frames that are there."""
        stride, width = self.spec.stride, guess.shape[1]
        wanted = side_by_side(features, self.spec).flatten(0, 1)[places].detach()
        squares = (guess.flatten(0, 1)[places].float() - wanted.float()).square().unflatten(-1, (stride, -1))
        left = features.lengths[places // width] - stride * (places % width)
        there = torch.arange(stride, device=left.device) < left[:, None]
        return torch.where(there, squares.mean(dim=-1), 0.0).sum()

    def remember(self, kept: Tensor) -> None:
        """Codes follow what a step has kept of its states: rows of K codes for each micro-batch, (N, 1 + 2 E)."""
        self.units.quantizer.follow(kept)

    def health(self) -> tuple[Alarm, ...]:
        """Codes or states that are all alike."""
        return (
            Alarm(
                "code_perplexity",
                "Codebook collapse: frames have {value:.1f} codes on average at step {step}; lower the learning rate, "
                "or restart.",
                least=1.5,
                patience=100,
            ),
            EQUAL_STATES,
        )


class Decoder(nn.Module):
    """Codes and a voice -> features, by convolutions over time."""

    def __init__(self, config: VQVAEConfig, features: int):
        super().__init__()
        self.enter = nn.Linear(config.code_width, config.width)
        self.speak = nn.Linear(2 * config.voice, config.width)
        self.convolutions = nn.ModuleList(
            ConvolutionModule(config.width, config.kernel, "layer", 0.0) for _ in range(config.layers)
        )
        self.write = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, features))

    def forward(self, codes: Sequence, voice: Tensor) -> Tensor:
        """(B, T', E) and (B, 2 V) -> (B, T', stride · F)."""
        valid, x = codes.valid, self.enter(codes.values) + self.speak(voice)[:, None]
        for convolution in self.convolutions:
            x = x + convolution(x, valid)
        return self.write(x)


def jittered(frames: int, probability: float, draw: np.random.Generator) -> np.ndarray:
    """For each frame itself or, with this probability, its left or right neighbour, within the clip: (frames,)."""
    chance = draw.random(frames)
    steps = (chance > 1 - probability / 2).astype(np.int64) - (chance < probability / 2)
    return np.clip(np.arange(frames) + steps, 0, frames - 1)


def load_units(folder: str | Path) -> tuple[Model, UnitQuantizer]:
    """The model in a folder that vq_vae has trained, and what finds its units: `.units(model.encode(…).final)`."""
    start = "vq_vae/units."
    known = load_pretraining(Path(folder))
    own = {name.removeprefix(start): value for name, value in known.items() if name.startswith(start)}
    if not own:
        raise IsoglossError(f"The model in {folder} has no units; train one with the objective vq_vae.")
    codes, width = own["quantizer.codebooks"].shape[1:]
    model = load_model(Path(folder))
    units = UnitQuantizer(model.spec.width, codes, width)
    units.load_state_dict(own)
    return model, units.eval()
