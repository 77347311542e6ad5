"""How sure a model may be of its words: fitted on clips whose words are known."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from isogloss.data.loading import Batch
from isogloss.decoding.beam import Beam
from isogloss.metrics.calibration import fit_log_odds
from isogloss.metrics.error_rates import right_words
from isogloss.model.model import Model
from isogloss.text.normalise import normalise

ENOUGH = 50
"""Words without which confidence is not calibrated."""


@torch.no_grad()
def calibrate(
    model: Model,
    batches: Iterable[Batch],
    beam: Beam | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[float, float]:
    """Slope and offset that make the confidence of words true on transcribed clips; (1, 0) for want of words.

    beam: how words are searched for, if not greedily. autocast: in which precision they are.
    """
    references, hypotheses, claims = [], [], []
    if not model.decoders:
        return 1.0, 0.0
    model.eval()
    device = next(model.parameters()).device
    for batch in batches:
        with autocast():
            features = model.features(batch.audio.to(device))
            states = model.encode(features, languages=batch.languages).final
            found = [best for best, *_ in model.search(states, beam)] if beam else model.decode(states)
        for text, language, hypothesis in zip(batch.texts, batch.languages, found, strict=True):
            spoken = model.words(hypothesis, calibration=(1.0, 0.0))
            references.append(normalise(text or "", language))
            hypotheses.append(" ".join(word.text for word in spoken))
            claims += [word.confidence for word in spoken]
    right = [hit for row in right_words(references, hypotheses) for hit in row]
    return fit_log_odds(claims, right) if len(right) >= ENOUGH else (1.0, 0.0)
