"""Looks at the dev split during training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogloss.data.loading import Batch, Kind, Loader
from isogloss.data.manifests import language_of
from isogloss.decoding.beam import Beam
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.metrics.calibration import fit_log_odds
from isogloss.metrics.error_rates import error_rates, right_words
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise
from isogloss.training.hardware import autocast
from isogloss.training.source import transcribed
from isogloss.training.stage import Stage

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

CLIPS = 30
"""Dev clips of each language that are looked at, spread evenly over the split."""
ENOUGH = 50
"""Words without which confidence is not calibrated."""


class Development:
    """A fixed selection of dev clips, kept in memory."""

    def __init__(self, model: Model, cuts: list[MonoCut], precision: torch.dtype):
        self.model, self.precision = model, precision
        self.device = next(model.parameters()).device
        self.transcribed = _select(transcribed(cuts))
        # A text encoder cannot read the transcripts of a language of which it was given no text.
        reads = model.config.text_languages
        paired = [cut for cut in self.transcribed if not reads or language_of(cut) in reads]
        self.cuts: dict[Kind, list[MonoCut]] = {"speech": _select(cuts), "paired": paired, "text": paired}
        self._batches: dict[tuple[str, ...], list[Batch]] = {}

    @torch.no_grad()
    def evaluate(self, stage: Stage) -> dict[str, float]:
        """Mean losses of the stage's objectives; where one transcribes also error rates. {} without dev data."""
        if not all(self.cuts[objective.kind] for objective in stage.objectives.values()):
            return {}
        stage.eval()
        figures: dict[str, float] = {"loss": 0.0}
        for name, objective in stage.objectives.items():
            sums: dict[str, float] = {}
            count = 0
            for batch in self._load(self.cuts[objective.kind]):
                torch.manual_seed(batch.seed)
                with autocast(self.device, self.precision):
                    loss = objective(batch.to(self.device))
                count += loss.count
                for part, value in {"loss": loss.total, **loss.parts}.items():
                    sums[part] = sums.get(part, 0.0) + float(value)
            figures |= {f"{name}/{part}": value / max(1, count) for part, value in sums.items()}
            figures["loss"] += stage.weight(name) * figures[f"{name}/loss"]
        if any(objective.transcribes for objective in stage.objectives.values()):
            figures |= self._error_rates()
        return figures

    @torch.no_grad()
    def calibration(self, beam: Beam | None = None) -> tuple[float, float]:
        """Slope and offset that make the confidence of words true on the dev split; (1, 0) for want of words.

        beam: how words are searched for, if not greedily.
        """
        pairs, claims = [], []
        if self.model.decoders:
            self.model.eval()
            for batch, states in self._encoded():
                for reference, hypothesis in zip(_said(batch), self._decoded(states, beam), strict=True):
                    spoken = self.model.words(hypothesis, calibration=(1.0, 0.0))
                    pairs.append((reference, " ".join(word.text for word in spoken)))
                    claims += [word.confidence for word in spoken]
        right = [hit for row in right_words([r for r, _ in pairs], [h for _, h in pairs]) for hit in row]
        return fit_log_odds(claims, right) if len(right) >= ENOUGH else (1.0, 0.0)

    def _error_rates(self) -> dict[str, float]:
        """Error rates by language and their mean: `cer` of characters, `per` of phonemes if the model writes them."""
        if self.model.tokenizer is None:
            return {}
        pairs: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for batch, states in self._encoded():
            found = {"cer": (_said(batch), [self.model.tokenizer.decode(h.tokens) for h in self._decoded(states)])}
            if self.model.phonemes is not None:
                sounds = self.model.pronounced(batch.texts, batch.languages).unpad()
                with autocast(self.device, self.precision):
                    heard = self.model.ipa(states)
                found["per"] = [self.model.spelled(row.tolist()) for row in sounds], heard
            for name, both in found.items():
                for language, said, written in zip(batch.languages, *both, strict=True):
                    pairs.setdefault(name, {}).setdefault(language, []).append((said, written))
        return {key: rate for name, found in pairs.items() for key, rate in _by_language(name, found).items()}

    def _decoded(self, states: Sequence, beam: Beam | None = None) -> list[Hypothesis]:
        """What the model makes of states (B, T, D)."""
        with autocast(self.device, self.precision):
            return [best for best, *_ in self.model.search(states, beam)] if beam else self.model.decode(states)

    def _encoded(self) -> Iterator[tuple[Batch, Sequence]]:
        """Transcribed clips, and their states."""
        for batch in self._load(self.transcribed):
            with autocast(self.device, self.precision):
                features = self.model.frontend(batch.audio.to(self.device))
                states = self.model.encode(features, languages=batch.languages).final
            yield batch, states

    def _load(self, cuts: list[MonoCut]) -> list[Batch]:
        """Batches of cuts, read once."""
        names = tuple(cut.id for cut in cuts)
        if names not in self._batches:
            loader = Loader(cuts)
            order = np.argsort([cut.duration for cut in cuts], kind="stable")
            groups = [order[start : start + 16] for start in range(0, len(order), 16)]
            self._batches[names] = [loader.load(group, seed=number) for number, group in enumerate(groups)]
            loader.close()
        return self._batches[names]


def _said(batch: Batch) -> list[str]:
    """The normalised transcripts."""
    return [normalise(text or "", language) for text, language in zip(batch.texts, batch.languages, strict=True)]


def _by_language(name: str, pairs: dict[str, list[tuple[str, str]]]) -> dict[str, float]:
    """Error rates of pairs (said, written) by language, as `NAME/TAG`, and their mean as `NAME`."""
    rates = {
        f"{name}/{language}": error_rates([r for r, _ in both], [h for _, h in both], unit="character").rate
        for language, both in sorted(pairs.items())
    }
    return {name: sum(rates.values()) / len(rates)} | rates


def sentence(stage: str, step: int, figures: dict[str, float]) -> str:
    """What a look at the dev split found, in one line."""
    rates = ", ".join(f"{k.removeprefix('cer/')} {v:.1%}" for k, v in figures.items() if k.startswith("cer/"))
    error = f" · CER {figures['cer']:.1%} ({rates})" if "cer" in figures else ""
    error += f" · PER {figures['per']:.1%}" if "per" in figures else ""
    return f"{stage} step {step}: dev loss {figures['loss']:.3f}{error}"


def _select(cuts: list[MonoCut]) -> list[MonoCut]:
    groups: dict[str, list[MonoCut]] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        groups.setdefault(language_of(cut), []).append(cut)
    chosen = []
    for group in groups.values():
        places = np.unique(np.linspace(0, len(group) - 1, CLIPS).round().astype(int))
        chosen += [group[place] for place in places]
    return chosen
