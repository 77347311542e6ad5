"""Time-contrastive learning: frames near in time lie near each other, and those far in time do not.

After Sermanet et al. 2018 (arXiv 1704.06888, of one view), with frames of speech in place of those of video. The idea:
what is said and how changes slowly next to the frame rate.

    features ─ encoder ─> states (B, T, D) ─ linear, ReLU, linear ─ / length ─> z (B, T, E)

    L = mean over frames t of max(0, ‖z_t - z_p‖² - ‖z_t - z_n‖² + m)                          starts at about m

p is drawn from the frames at most `near_ms` before or after t, n from those of the same clip at least `far_ms` away.
Frames without any so far away have no loss, and so clips shorter than that have none.

What blocks that attend to the whole clip know of a frame's place may serve them in place of what is said.

Differs from the paper: vectors of length 1, and a head that ends with pre-training.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch.nn.functional import normalize

from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.contrastive import triplet_loss
from isogloss.nn.masking import flat_places
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, spread
from isogloss.objectives.crops import projection


class TimeContrastiveConfig(BaseConfig):
    """Triplets of frames of speech alone."""

    paper = "Sermanet et al. 2018, arXiv 1704.06888"
    recipe = "time-contrastive-tiny"
    presets: ClassVar = {"tiny": ("tiny", {}), "small": ("small", {})}

    name: Literal["time_contrastive"] = "time_contrastive"
    near_ms: int = Field(200, ge=1, description="how far away a frame that is alike is at most, ms; one frame at least")
    far_ms: int = Field(1000, ge=1, description="how far away a frame that is unlike is at least, ms")
    margin: float = Field(0.2, gt=0, description="m, by which the squared distance to the far frame is to be larger")
    width: int = Field(128, ge=1, description="width E of the vectors that are compared")

    def build(self, spec: ModelSpec) -> TimeContrastive:
        """The objective for a model; raises IsoglossError where what is far is not farther than what is near."""
        return TimeContrastive(self, spec)


class TimeContrastive(Objective):
    """Hinge of squared distances of frames; needs audio only."""

    def __init__(self, config: TimeContrastiveConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.near, self.far = (max(1, round(ms / 1000 / spec.frame_seconds)) for ms in (config.near_ms, config.far_ms))
        if self.far <= self.near:
            raise IsoglossError(
                f"time_contrastive.far_ms {config.far_ms} is no more frames than near_ms {config.near_ms}; raise it."
            )
        self.head = projection(spec.width, config.width)

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`targets` of each clip: frames with others far away; `near` and `far`, the two that each is compared with."""
        rows = zip(self.spec.frames(batch.audio.lengths).tolist(), batch.draws("frames"), strict=True)
        targets, near, far = zip(*(triplets(length, self.near, self.far, draw) for length, draw in rows), strict=True)
        return batch.with_extras({"targets": list(targets), "near": list(near), "far": list(far)})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames with others far away."""
        return {"triplet": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses summed over frames."""
        states = model.encoder(model.features(batch.audio), languages=batch.languages).final.zero_padding().values
        projected = normalize(self.head(states).float(), dim=-1).flatten(0, 1)
        places = [flat_places(batch.extras[of], states.shape[1], states.device) for of in ("targets", "near", "far")]
        frame, near, far = (projected[place] for place in places)
        near, far = (frame - near).square().sum(dim=1), (frame - far).square().sum(dim=1)
        losses, frames = triplet_loss(near, far, self.config.margin), len(places[0])
        stats = {
            "found": Mean((near < far).detach().float().sum(), frames),
            "spread": Mean(spread(states.detach().flatten(0, 1)[places[0]]) * frames, frames),
        }
        return Loss({"triplet": Term(losses.sum(), frames)}, stats)

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)


def triplets(frames: int, near: int, far: int, draw: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    """Of so many frames those with others far away, and for each one of the near and one of the far ones."""
    t = np.arange(frames)
    before, after = np.maximum(0, t - far + 1), np.maximum(0, frames - far - t)
    t, before, after = (values[before + after > 0] for values in (t, before, after))
    place = draw.integers(before + after)
    unlike = np.where(place < before, place, place - before + t + far)
    before = np.minimum(near, t)
    place = draw.integers(before + np.minimum(near, frames - 1 - t))
    like = np.where(place < before, t - 1 - place, t + 1 + place - before)
    return t.tolist(), like.tolist(), unlike.tolist()
