"""espeak-ng: the same words from the same seed."""

import numpy as np
import pytest

from isogloss.data.synthesis import speak
from isogloss.errors import IsoglossError

pytest.importorskip("espeakng_loader")


def test_the_same_seed_says_the_same_and_another_differs() -> None:
    first = speak("Bună ziua, ce mai faceți?", "ro", 1)
    speak("altceva", "ro", 5)
    assert np.array_equal(first, speak("Bună ziua, ce mai faceți?", "ro", 1))
    other = speak("Bună ziua, ce mai faceți?", "ro", 2)
    assert other.shape != first.shape or not np.array_equal(first, other)
    assert first.dtype == np.float32 and 0.05 < np.abs(first).max() <= 1.0
    assert 1.0 < len(first) / 16000 < 4.0


def test_an_empty_text_is_silence() -> None:
    assert np.abs(speak("", "ro", 1)).sum() == 0


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(IsoglossError, match='has no rules for "oc"'):
        speak("bonjorn", "oc")
