"""data2vec: predict what a slow copy of the encoder makes of the whole clip (Baevski et al. 2022, arXiv 2202.03555).

The idea: targets that are contextual themselves. A teacher, the slow average of the blocks, encodes the clip as it is;
the student, from which spans are hidden, predicts the mean of the teacher's last K blocks.

    states (B, T, D) ─┬─ a learned vector on spans ─ blocks ─ W ─────────────────────────────────────> ŷ (M, D)
                      └─ teacher's blocks ─ output of the feed-forward branch of the last K, each ───> y (M, D)
                         normalised over the frames of the clip, averaged

    L = mean over hidden frames of ‖y - ŷ‖² / √D
    teacher ← τ teacher + (1 - τ) blocks after each step, τ from 0.999 to 0.9999 over the first `decay_steps`

What is averaged is a branch before it is added to what goes past it, as in the published code; of a Conformer block it
is that of its second feed-forward module. Embedding and features are the student's own for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.encoders.stack import Stack
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import spread
from isogloss.objectives.masked_states import MaskedStates, SpansConfig
from isogloss.sequence import Sequence

EPSILON = 1e-5


class Data2VecConfig(BaseConfig, SpansConfig):
    """data2vec on speech alone; the defaults are those of base."""

    paper = "Baevski et al. 2022, arXiv 2202.03555"
    recipe = "data2vec-tiny"
    presets: ClassVar = {
        "tiny": ("tiny", {"blocks": 4}),
        "base": ("wav2vec2_base", {}),
        "large": ("wav2vec2_large", {}),
    }

    name: Literal["data2vec"] = "data2vec"
    blocks: int = Field(8, ge=1, description="number K of the teacher's last blocks that are averaged")
    decay: tuple[float, float] = Field((0.999, 0.9999), description="first and last τ of the teacher")
    decay_steps: int = Field(30_000, ge=1, description="steps in which τ rises")

    def build(self, spec: ModelSpec) -> Data2Vec:
        """The objective for a model; raises IsoglossError for an encoder with fewer blocks, or recurrent ones."""
        return Data2Vec(self, spec)


class Data2Vec(Objective):
    """Regression of a teacher's states; needs audio only."""

    teacher_of = "encoder.stack"

    def __init__(self, config: Data2VecConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        if config.blocks > spec.layers:
            raise IsoglossError(f"data2vec.blocks {config.blocks} is more than the encoder has, {spec.layers}.")
        if not spec.config.encoder.blocks.feeds:
            raise IsoglossError("data2vec averages feed-forward branches, of which recurrent blocks have none.")
        self.masked = MaskedStates(config, spec)
        self.needs = self.masked.needs
        self.predict = nn.Linear(spec.width, spec.width)

    def teacher(self, clock: Clock) -> float | None:
        """τ, which rises with the steps."""
        first, last = self.config.decay
        return first + (last - first) * min(1.0, clock.step / self.config.decay_steps)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`mask` (B, T) and `targets`, the hidden frames of each clip."""
        return batch.with_extras(self.masked.hidden(batch))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Hidden frames."""
        return {"distance": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> squared distances summed over hidden frames."""
        states = model.encoder.embed(model.features(batch.audio))
        hidden = self.masked.encode(model, states, batch)
        wanted = self._targets(model, states).flatten(0, 1)[hidden.places]
        found = self.predict(hidden.final).float()
        distances = (found - wanted).square().sum(dim=-1) / wanted.shape[-1] ** 0.5
        frames = len(wanted)
        stats = {
            "spread": Mean(spread(found.detach()) * frames, frames),
            "target_spread": Mean(spread(wanted) * frames, frames),
        }
        return Loss({"distance": Term(distances.sum(), frames)}, stats)

    @torch.no_grad()
    def _targets(self, model: Model, states: Sequence) -> Tensor:
        """y (B, T, D) float32 of the states that enter the blocks, without a gradient."""
        stack = model.encoder.stack if self.ema is None else self.ema.copy
        assert isinstance(stack, Stack)
        with branches(stack, self.config.blocks) as found:
            stack(states, model.encoder.config.context)
        return torch.stack([over_frames(states.with_values(branch.float())) for branch in found]).mean(dim=0)

    def health(self) -> tuple[Alarm, ...]:
        """Targets or predictions that are all alike."""
        said = (
            "Representation collapse: {what} of different frames are equal at step {{step}} (spread {{value:.1e}}); "
            "lower the learning rate, or raise decay."
        )
        return (
            Alarm("spread", said.format(what="predictions"), least=0.01, patience=1000),
            Alarm("target_spread", said.format(what="targets"), least=0.1, patience=1000),
        )


@contextmanager
def branches(stack: Stack, count: int) -> Iterator[list[Tensor]]:
    """Collect what the last feed-forward module of each of the last blocks puts out while the stack runs."""
    found: list[Tensor] = []

    def collect(module: nn.Module, arguments: Any, output: Tensor) -> None:
        found.append(output)

    last = [dict(block.named_children()) for block in stack.blocks[-count:]]
    handles = [(parts.get("feed_out") or parts["feed"]).register_forward_hook(collect) for parts in last]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def over_frames(states: Sequence) -> Tensor:
    """(B, T, D) with mean 0 and variance 1 of each channel over the frames of each clip (instance norm)."""
    values = states.zero_padding().values
    count = states.lengths.clamp(min=1)[:, None, None]
    mean = values.sum(dim=1, keepdim=True) / count
    centred = torch.where(states.valid[..., None], values - mean, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred * (variance + EPSILON).rsqrt()
