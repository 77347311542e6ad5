"""Alignment: where in the audio a known text is said, by the best path through a head that knows the text's units."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from isogloss.decoding.ctc_beam import aligned
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.heads.ctc import CTCHead
from isogloss.heads.transducer import TransducerHead
from isogloss.model.model import Model
from isogloss.nn.durations import durations, spread
from isogloss.sequence import Sequence


@dataclass(frozen=True)
class Aligner:
    """Encoder states (B, T, D) and the head that says where in them the units of the text encoder are."""

    states: Sequence
    head: CTCHead | TransducerHead

    @classmethod
    def of(cls, model: Model, states: Sequence) -> "Aligner":
        """A model on its own states, (B, T, D): by its transducer, if that writes the units; else by its CTC head.

        Raises IsoglossError for a model that has neither.
        """
        if model.processor.units == "phonemes":
            return cls(states, model.ctc_head("phonemes"))
        transducers = [head for head in model.heads.values() if isinstance(head, TransducerHead)]
        return cls(states, transducers[0] if transducers else model.ctc_head())


@torch.no_grad()
def align(aligner: Aligner, units: Sequence) -> tuple[Sequence, Tensor]:
    """Durations of the units (B, U+1), which sum to the frames, and whether there is a path, (B,) bool.

    Unit 0 is the silence before the text (nn/durations.py). Where there is no path, the units share the frames evenly.
    """
    states = aligner.states
    starts = aligner.head.align(states, units)
    found = (starts >= 0).sum(dim=1) == units.lengths
    evenly = spread(units.lengths, states.lengths, starts.shape[1])
    starts = torch.where(found[:, None], starts, evenly)
    return durations(starts, units.lengths, states.lengths), found


@torch.no_grad()
def locate(
    model: Model, states: Sequence, texts: Iterable[str], languages: Iterable[str | None]
) -> list[Hypothesis]:
    """Transcripts as if they had been decoded from states (B, T, D): the frames of each symbol, by the CTC head.

    They are spread evenly where there is no path. Raises IsoglossError for a model without a CTC head.
    """
    scores = model.ctc_head()(states)
    rows = zip(scores.values, scores.lengths.tolist(), texts, languages, strict=True)
    return [aligned(values, n, [(model.processor.tokens(text, tag), 0.0)])[0] for values, n, text, tag in rows]
