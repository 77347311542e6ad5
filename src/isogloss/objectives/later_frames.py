"""Later features told from others of the same utterance: what CPC, wav2vec and vq-wav2vec share.

    features z (B, T, F) ─ causal encoder ─> c (B, T, D) ─ h_k ─> (B, T, F)        k = 1 … K frames ahead
    h_k(c_t) · z_{t+k}  against  h_k(c_t) · z_n, n ∈ N frames of the utterance  ─ losses ─> (M,) for each k

M are the frames that have K frames after them. The N frames are the same for all k; where one of them is t + k itself,
it is marked as such.
"""

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.nn.masking import flat_places
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.objectives.collapse import EQUAL_STATES, require_causal, spread


class LaterFramesConfig(BaseConfig):
    """Which frames are predicted, and among how many others they are to be found."""

    ahead: int = Field(12, ge=1, description="number K of later frames that are predicted")
    distractors: int = Field(128, ge=1, description="number N of other frames")


class LaterFrames(Objective):
    """Contrastive prediction of later features; needs audio only.

    method, example: for the error of an encoder that sees the future: who needs another, and one that will do.
    """

    def __init__(self, config: LaterFramesConfig, spec: ModelSpec, method: str, example: str, bias: bool):
        super().__init__(config, spec)
        self.ahead, self.distractors = config.ahead, config.distractors
        require_causal(spec, method, example)
        self.predict = nn.ModuleList(nn.Linear(spec.width, spec.bins, bias=bias) for _ in range(config.ahead))

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """`targets`: frames of each clip with K frames after them; `others` (B, T, N): places of frames of the clip."""
        lengths = self.spec.frames(batch.audio.lengths).tolist()
        width = max(1, self.spec.frames(batch.audio.values.shape[1]))
        others = torch.zeros(len(lengths), width, self.distractors, dtype=torch.int64)
        for row, length, draw in zip(others, lengths, batch.draws("others"), strict=True):
            if length:
                row[:length] = torch.from_numpy(draw.integers(0, length, (length, self.distractors)))
        targets = [list(range(length - self.ahead)) for length in lengths]
        return batch.with_extras({"targets": targets, "others": others})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Frames with K frames after them."""
        return {"contrastive": sum(map(len, batch.extras["targets"]))}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses averaged over K and summed over frames."""
        features = model.features(batch.audio).zero_padding()
        states = model.encoder(features, languages=batch.languages).final.values
        return self.compared(features.values, states, batch)

    def compared(self, z: Tensor, states: Tensor, batch: Batch) -> Loss:
        """What the states c (B, T, D) say of z (B, T, F), which is finite in the padding too."""
        places = flat_places(batch.extras["targets"], states.shape[1], states.device)
        others = batch.extras["others"]
        found = [self._ahead(k, states, z, others, places) for k in range(1, self.ahead + 1)]
        frames = len(places)
        stats = {
            "accuracy": Mean(torch.stack([right for _, right in found]).mean(dim=0).sum(), frames),
            "spread": Mean(spread(states.detach().flatten(0, 1)[places]) * frames, frames),
        }
        mean = torch.stack([losses for losses, _ in found]).mean(dim=0)
        return Loss({"contrastive": Term(mean.sum(), frames)}, stats)

    @abstractmethod
    def losses(self, right: Tensor, wrong: Tensor, itself: Tensor) -> Tensor:
        """Scores of the right frame (M,) and of others (M, N), which of these are the right one (M, N) bool -> (M,)."""

    def _ahead(self, k: int, states: Tensor, z: Tensor, others: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the frames at `places`, k frames ahead, and whether each found the right one: (M,), (M,)."""
        with torch.autocast(states.device.type, enabled=False):
            scores = self.predict[k - 1](states.float()) @ z.float().transpose(1, 2)  # (B, T, T)
        later = (torch.arange(z.shape[1], device=z.device) + k).clamp(max=z.shape[1] - 1)
        found = scores.take_along_dim(later[None, :, None], dim=2)[..., 0].flatten()[places]
        wrong = scores.gather(2, others).flatten(0, 1)[places]
        itself = (others == later[None, :, None]).flatten(0, 1)[places]
        best = wrong.detach().masked_fill(itself, -torch.inf).amax(dim=1)
        return self.losses(found, wrong, itself), (found.detach() > best).float()

    def health(self) -> tuple[Alarm, ...]:
        """States that are all alike."""
        return (EQUAL_STATES,)
