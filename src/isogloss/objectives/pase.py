"""PASE and PASE+: solve many small tasks at once.

Pascual et al. 2019 (arXiv 1904.03416), Ravanelli et al. 2020 (arXiv 2001.09239).

The idea: what serves a dozen workers at once (the waveform, its spectra, cepstra and prosody, who speaks) is of use for
any task. The encoder hears a distorted clip, and all that is to be predicted is of the clean one.

    clip ─ a crop, the anchor ─ distorted ─ encoder ─> states (B, T, D) ─┬─ regression: ŷ of the clean anchor
         └ another crop, near ───────────── encoder ─> states ───────────┴─ binary: near, or of another clip?

    wave                     mean |x - x̂|
    lps … prosody            mean (y_{t-3} … y_{t+3} - ŷ_t)²          seven frames of 10 ms jointly, with Δ and ΔΔ
    lim, gim, spc            -log σ(g(a, right)) - log(1 - σ(g(a, wrong)))                  start at 2 ln 2 = 1.39
    L = mean over workers

lim judges states one by one: an anchor's with one of the near crop or one of another clip; gim the means over crops;
spc what comes 0.16 s or more after a state or before it, five states of it. `workers` names those that take part.

Differs from the papers: other clips are those of the micro-batch; clips shorter than a crop are taken whole; gim is
asked both ways round, for PASE too; binary losses are sums, as the papers write them, and not means of their two terms,
as in the published code; states at the ends of a crop, around which some frames lie outside, have no regression; mean
and variance of what is predicted, of the waveform too, are found while training; energy is a logarithm; distortions
are made without recordings (audio/distort.py), features as ours are (audio/spectra.py, audio/prosody.py).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.audio.distort import DistortConfig, distort
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.audio.spectra import Grid
from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places, on_device
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, spread
from isogloss.objectives.pase_workers import JUDGES, SEEN, WIDTHS, Decoder, Regression, Worker, features, lead
from isogloss.sequence import Sequence

FRAME = SAMPLE_RATE // 100
"""Samples from one frame of features to the next, where the encoder's frames are a multiple of it apart."""
APART = 0.16
"""Seconds that lie at least between a state and those that spc asks about."""
WORKERS: tuple[Worker, ...] = ("wave", "lps", "mfcc_20", "prosody", "lim", "gim", "spc")
PLUS_WORKERS: tuple[Worker, ...] = (
    *("wave", "lps", "lps_long", "fbank", "fbank_long", "gammatone", "gammatone_long"),
    *("mfcc_13", "mfcc_20_long", "prosody", "lim", "gim"),
)


class PASEConfig(BaseConfig):
    """PASE+ on speech alone; the defaults are the paper's."""

    paper = "Pascual et al. 2019, arXiv 1904.03416; Ravanelli et al. 2020, arXiv 2001.09239"
    recipe = "pase-tiny"
    presets: ClassVar = {
        "pase": ("pase", {"workers": WORKERS, "context": 1, "changes": 0, "crop": 1.0, "distort": None}),
        "pase_plus": ("pase_plus", {}),
    }

    name: Literal["pase"] = "pase"
    workers: tuple[Worker, ...] = Field(PLUS_WORKERS, min_length=1, description="tasks, all with the same weight")
    context: int = Field(7, ge=1, description="frames of features that are predicted jointly, odd; PASE 1")
    changes: int = Field(2, ge=0, le=2, description="how often the change from frame to frame is added; PASE 0")
    hidden: int = Field(256, ge=1, description="width of the layer inside a worker")
    decoder: tuple[int, int, int] = Field((512, 256, 128), description="channels of the worker that writes waveforms")
    crop: float = Field(2.0, gt=0, description="seconds of a clip that are taken; PASE 1")
    distort: DistortConfig | None = Field(
        default_factory=DistortConfig, description="how anchors are distorted; null = not at all, as in PASE"
    )

    def build(self, spec: ModelSpec) -> PASE:
        """The objective for a model; raises IsoglossError for settings that do not fit."""
        return PASE(self, spec)


class PASE(Objective):
    """Regressions and binary tasks; needs audio only."""

    batchwise = frozenset({"lim", "gim"})

    def __init__(self, config: PASEConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        stride, width, hidden = spec.framing.stride, spec.width, config.hidden
        if config.context % 2 == 0:
            raise IsoglossError(f"pase.context {config.context} is even; a state stands in the middle of odd numbers.")
        if len(set(config.workers)) < len(config.workers):
            raise IsoglossError("pase.workers names a worker twice; name each once, for all have the same weight.")
        if "wave" in config.workers and stride % 16:
            raise IsoglossError(
                f"The worker wave writes a multiple of 16 samples for each state, but the encoder's are {stride} "
                "apart; take it out of pase.workers."
            )
        # As near to 10 ms as divides the encoder's frames evenly.
        self.ratio = next(parts for parts in range(max(1, round(stride / FRAME)), 0, -1) if stride % parts == 0)
        first = (spec.framing.receptive_field - 1) // 2 - spec.framing.padding
        self.grid, self.samples = Grid(first, stride // self.ratio), Grid(first, stride)
        self.lead = lead(config.context, self.ratio)
        self.regressions = nn.ModuleDict(
            {
                name: Regression(width, WIDTHS[name] * (1 + config.changes), hidden, config.context, self.ratio)
                for name in config.workers
                if name in WIDTHS
            }
        )
        self.wave = Decoder(width, config.decoder, max(1, hidden // 4), stride) if "wave" in config.workers else None
        self.judges = nn.ModuleDict(
            {name: JUDGES[name][0](JUDGES[name][1] * width, hidden) for name in config.workers if name in JUDGES}
        )
        self.compares = bool(self.batchwise & self.judges.keys())

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """Crops, (B, S) each: `clean` and `heard`, the anchor as it is and distorted, and `near`.

        And `frames` of each; `chance`, by which another clip is drawn; `order`, three places in the anchor: a state,
        the first of those after it that spc asks about, and the first of those before it; -1 where it is too short.
        """
        crops: dict[str, list[Tensor]] = {"clean": [], "heard": [], "near": []}
        asked: dict[str, list[Any]] = {"frames": [], "chance": [], "order": []}
        distortion = self.config.distort if training else None
        for clip, draw in zip(batch.audio.unpad(), batch.draws("crops"), strict=True):
            length = min(len(clip), round(self.config.crop * SAMPLE_RATE))
            last = len(clip) - length
            starts = draw.integers(0, last + 1, 2).tolist() if training else (0, last)
            clean, near = (clip[start : start + length] for start in starts)
            frames = self.spec.frames(length)
            for name, value in (("frames", frames), ("chance", draw.random()), ("order", self._order(frames, draw))):
                asked[name].append(value)
            heard = clean if distortion is None else torch.from_numpy(distort(clean.numpy(), distortion, draw))
            for name, crop in (("clean", clean), ("heard", heard), ("near", near)):
                crops[name].append(crop)
        return batch.with_extras({name: Sequence.from_list(part) for name, part in crops.items()} | asked)

    def _order(self, frames: int, draw: np.random.Generator) -> tuple[int, int, int]:
        apart = max(1, round(APART / self.spec.frame_seconds))
        first, last = apart + SEEN, frames - SEEN - apart
        if first > last:
            return -1, -1, -1
        state = int(draw.integers(first, last + 1))
        after, before = draw.integers(state + apart, frames - SEEN + 1), draw.integers(0, state - apart - SEEN + 1)
        return state, int(after), int(before)

    def counts(self, batch: Batch) -> dict[str, int]:
        """States, of lim and gim those of clips beside which there is another; of gim and spc, clips."""
        frames = batch.extras["frames"]
        asked = [count for count, other in zip(frames, others(batch), strict=True) if other is not None]
        known = {"wave": sum(frames), "lim": sum(asked), "gim": len(asked)}
        known["spc"] = sum(state >= 0 for state, *_ in batch.extras["order"])
        known |= {name: sum(max(0, count - 2 * self.lead) for count in frames) for name in self.regressions}
        return {name: known[name] for name in self.config.workers}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Crops (B, S) -> losses summed over states and clips."""
        anchors, near = self._states(model, batch)
        clean, width = batch.extras["clean"], anchors.values.shape[1]
        lengths = ((anchors.lengths - 1) * self.ratio + 1).clamp(min=0)
        frames, changes = (width - 1) * self.ratio + 1, self.config.changes
        wanted = features(self.regressions, clean, self.grid, lengths, frames, changes)
        totals = {name: worker(anchors, wanted[name]) for name, worker in self.regressions.items()}
        if self.wave is not None:
            totals["wave"] = self.wave(anchors, self.samples.framed(clean, self.samples.hop, width))
        judged = self._judged(batch, anchors, near)
        totals |= {name: losses for name, (losses, _) in judged.items()}
        counts, share = self.counts(batch), 1 / len(self.config.workers)
        known = flat_places([range(count) for count in batch.extras["frames"]], width, anchors.device)
        deviation = spread(anchors.values.detach().flatten(0, 1)[known])
        return Loss(
            {name: Term(totals[name], counts[name], share) for name in self.config.workers},
            {f"{name}_accuracy": Mean(right, counts[name]) for name, (_, right) in judged.items()}
            | {"spread": Mean(deviation * len(known), len(known))},
        )

    def _states(self, model: Model, batch: Batch) -> tuple[Sequence, Sequence]:
        """States of the distorted anchors, and of the crops near them if any worker asks for these, (B, T, D)."""
        asked = [batch.extras["heard"], batch.extras["near"]] if self.compares else [batch.extras["heard"]]
        audio = Sequence(torch.cat([part.values for part in asked]), torch.cat([part.lengths for part in asked]))
        states = model.encoder(model.features(audio), languages=batch.languages * len(asked)).final.zero_padding()
        parts = zip(states.values.chunk(len(asked)), states.lengths.chunk(len(asked)), strict=True)
        found = [Sequence(*part) for part in parts]
        return found[0], found[-1]

    def _judged(self, batch: Batch, anchors: Sequence, near: Sequence) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each binary worker the sum of its losses, and how often it was right."""
        device, chosen = anchors.device, others(batch)
        asked = on_device(torch.tensor([place is not None for place in chosen]), device)
        places = on_device(torch.tensor([place or 0 for place in chosen]), device)
        order = on_device(torch.tensor(batch.extras["order"]), device)
        other = Sequence(near.values[places], near.lengths[places])
        inputs = {"lim": (anchors, near, other), "gim": (anchors, near, other), "spc": (anchors, order)}
        counted = {"lim": anchors.valid & asked[:, None], "gim": asked, "spc": order[:, 0] >= 0}
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, judge in self.judges.items():
            losses, right = judge(*inputs[name])
            found[name] = torch.where(counted[name], losses, 0.0).sum(), torch.where(counted[name], right, 0.0).sum()
        return found

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)


def others(batch: Batch) -> list[int | None]:
    """For each clip with a state another such clip of the micro-batch; None where there is none."""
    found: list[int | None] = []
    for row, (frames, chance) in enumerate(zip(batch.extras["frames"], batch.extras["chance"], strict=True)):
        able = [other for other, count in enumerate(batch.extras["frames"]) if count and other != row]
        found.append(able[int(chance * len(able))] if frames and able else None)
    return found
