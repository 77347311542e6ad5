"""Calibration of words: what is claimed and what is right, clip by clip."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from isogloss.data.loading import Batch
from isogloss.decoding.beam import Beam
from isogloss.metrics.calibration import fit_log_odds
from isogloss.metrics.error_rates import right_words
from isogloss.model import calibration
from isogloss.model.calibration import calibrate
from isogloss.sequence import Sequence
from small_models import build, sound


def clips(count: int = 6) -> list[Batch]:
    """Of which the model is told what it writes itself of one half, and something else of the other."""
    model = build()
    batches = []
    for number in range(count):
        audio = Sequence.from_list([torch.from_numpy(sound(2, number))])
        with torch.inference_mode():
            states = model.encode(model.features(audio)).final
        text = " ".join(word.text for word in model.words(model.decode(states)[0]))
        words = text.split()
        said = " ".join(word if place % 2 else "eee" for place, word in enumerate(words))
        batches.append(Batch([str(number)], audio, [said.upper()], ["ro"]))
    return batches


@pytest.mark.parametrize("beam", [None, Beam(width=2)])
def test_the_fit_is_that_of_every_word_and_its_claim(beam: Beam | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "ENOUGH", 5)
    model, batches = build().train(), clips()
    entered = []

    @contextmanager
    def precision() -> Iterator[None]:
        entered.append(True)
        yield

    found = calibrate(model, batches, beam, precision)
    assert len(entered) == len(batches) and not model.training
    references, hypotheses, claims = [], [], []
    with torch.inference_mode():
        for batch in batches:
            states = model.encode(model.features(batch.audio), languages=batch.languages).final
            best = model.search(states, beam)[0][0] if beam else model.decode(states)[0]
            words = model.words(best, calibration=(1.0, 0.0))
            references.append((batch.texts[0] or "").lower())
            hypotheses.append(" ".join(word.text for word in words))
            claims += [word.confidence for word in words]
    right = [hit for row in right_words(references, hypotheses) for hit in row]
    assert 0 < sum(right) < len(right)
    assert found == fit_log_odds(claims, right) and found != (1.0, 0.0)


def test_few_words_and_no_recogniser_leave_confidence_as_it_is() -> None:
    assert calibrate(build(), clips(1)[:0]) == (1.0, 0.0)
    assert calibrate(build(recognises=False), clips(1)) == (1.0, 0.0)
