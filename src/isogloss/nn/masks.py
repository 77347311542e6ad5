"""Which key each query may attend to: one builder for every context policy.

Policies (USM, arXiv 2303.01037 §2.4), for query i and key j, both in encoder frames:
    full     every valid key
    local    -left <= j - i <= right: receptive fields add up over layers
    chunk    chunk(i) - left_chunks <= chunk(j) <= chunk(i): bounded whatever the depth
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from isogloss.config import Config


class FullContext(Config):
    """Every frame attends to every frame."""

    kind: Literal["full"] = "full"
    chunk: ClassVar[int] = 1
    history: ClassVar[int | None] = None


class LocalContext(Config):
    """A sliding window; USM pre-trains with left = right = 128."""

    kind: Literal["local"] = "local"
    left: int = Field(128, ge=0, description="frames of context before the query")
    right: int = Field(128, ge=0, description="frames of context after the query")
    chunk: ClassVar[int] = 1

    @property
    def history(self) -> int | None:
        """Frames before its own that a chunk may attend to; None where frames after it are seen as well."""
        return self.left if self.right == 0 else None


class ChunkContext(Config):
    """Frames attend to their own chunk and `left_chunks` before it; USM fine-tunes with 200 frames = 8 s."""

    kind: Literal["chunk"] = "chunk"
    size: int = Field(200, ge=1, description="frames of a chunk")
    left_chunks: int = Field(0, ge=0, description="whole chunks of context before it")

    @property
    def chunk(self) -> int:
        """Frames that must be there before the first of them is known."""
        return self.size

    @property
    def history(self) -> int | None:
        """Frames before its own that a chunk may attend to."""
        return self.left_chunks * self.size


Context = Annotated[FullContext | LocalContext | ChunkContext, Field(discriminator="kind")]


def attention_mask(valid: Tensor, context: Context, past: int = 0) -> Tensor | None:
    """Who may look at whom, for `scaled_dot_product_attention`.

    valid: (B, T) bool. past: frames remembered from before, all valid; with chunks whole ones. Returns
    (B, 1, T, past + T) bool (queries × keys), True = may attend; or None when nothing is to be masked.
    Every position may attend to itself, so that no row of the softmax is empty: rows of padding stay
    finite and are zeroed by whoever mixes time next.
    """
    allowed = _policy(valid.shape[1], past, context, valid.device)
    # A graph that is exported serves batches of all lengths, and cannot ask; a GPU that trains would stand still.
    may_ask = valid.device.type == "cpu" or not torch.is_grad_enabled()
    if not torch.compiler.is_exporting() and may_ask and bool(valid.all()):
        return None if allowed is None else allowed[None, None]
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    keys, itself = functional.pad(valid, (past, 0), value=True), functional.pad(itself, (past, 0))
    mask = keys[:, None, None, :]
    return (mask if allowed is None else mask & allowed) | itself


def _policy(frames: int, past: int, context: Context, device: torch.device) -> Tensor | None:
    """(T, past + T) bool of the policy alone, None for full context."""
    key = torch.arange(past + frames, device=device)
    query = key[past:, None]
    if isinstance(context, LocalContext):
        return (key - query >= -context.left) & (key - query <= context.right)
    if isinstance(context, ChunkContext):
        behind = query // context.size - key // context.size
        return (behind >= 0) & (behind <= context.left_chunks)
    return None
