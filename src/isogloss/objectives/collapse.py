"""Signs that learning without labels has gone wrong: codes, or states, of different frames that are all alike."""

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.model.spec import ModelSpec
from isogloss.objectives.base import Alarm


def _equal(what: str) -> Alarm:
    said = (
        f"Representation collapse: {what} are equal at step {{step}} (spread {{value:.1e}}); "
        "lower the learning rate or lengthen the warm-up."
    )
    return Alarm("spread", said, least=1e-3)


EQUAL_STATES = _equal("hidden states of different frames")
EQUAL_CLIPS = _equal("vectors of different clips")


def perplexity(codes: Tensor, size: int) -> Tensor:
    """exp(entropy) of the codes in use, averaged over the books: (M, K) int64 -> scalar in 1 … C."""
    if len(codes) == 0:
        return torch.zeros((), device=codes.device)
    per_book = []
    for book in codes.unbind(dim=1):
        share = book.new_zeros(size, dtype=torch.float32).index_add(0, book, torch.ones_like(book, dtype=torch.float32))
        share = share / len(book)
        per_book.append(torch.special.entr(share).sum().exp())
    return torch.stack(per_book).mean()


def spread(states: Tensor) -> Tensor:
    """Standard deviation between frames, or clips, averaged over channels; 0 means collapse. (M, D) -> scalar."""
    return states.float().std(dim=0, correction=0).mean() if len(states) else states.new_ones(())


def require_causal(spec: ModelSpec, method: str, example: str) -> None:
    """Raise IsoglossError for an encoder that sees the future, or has no state for some frames of features.

    It would find in its input what it is to predict. example: an encoder that will do.
    """
    encoder = spec.config.encoder
    if encoder.cannot_stream or encoder.context.chunk > 1 or spec.stride > 1:
        raise IsoglossError(
            f"{method} needs an encoder that sees nothing of the future and has a state for every frame; "
            f"take model.encoder: {example}."
        )
