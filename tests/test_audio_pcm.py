"""Raw samples: any encoding, rate and cut of the bytes gives the same audio."""

import io
import sys

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from isogloss.audio.pcm import ENCODINGS, PCM, microphone, pieces
from isogloss.errors import AudioError, IsoglossError

WAVE = np.random.default_rng(0).uniform(-0.9, 0.9, 1600).astype(np.float32)


def raw(wave: np.ndarray, encoding: str) -> bytes:
    dtype = np.dtype(ENCODINGS[encoding])
    if dtype.kind == "f":
        return wave.astype(dtype).tobytes()
    if dtype.kind == "u":
        return np.round(wave * 128 + 128).astype(dtype).tobytes()
    return np.round(wave.astype(np.float64) * 2 ** (8 * dtype.itemsize - 1)).astype(dtype).tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_the_wave(encoding: str) -> None:
    assert_allclose(PCM(encoding).feed(raw(WAVE, encoding)), WAVE, atol=1 / 128 if encoding == "u8" else 1 / 32768)


@given(st.lists(st.integers(0, 700), max_size=12), st.sampled_from(sorted(ENCODINGS)), st.integers(1, 3))
@settings(max_examples=60)
def test_bytes_may_be_cut_anywhere(cuts: list[int], encoding: str, channels: int) -> None:
    data = raw(WAVE[: 1500 // channels * channels], encoding)
    whole = PCM(encoding, channels=channels).feed(data)
    pcm, found, start = PCM(encoding, channels=channels), [], 0
    for cut in [*cuts, len(data)]:
        found.append(pcm.feed(data[start : start + cut]))
        start += cut
    assert_allclose(np.concatenate(found), whole, atol=0)
    assert len(whole) == 1500 // channels


def test_channels_are_averaged() -> None:
    both = np.stack([WAVE, -WAVE / 2], axis=1)
    assert_allclose(PCM("f32le", channels=2).feed(both.tobytes()), WAVE / 4, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_are_resampled_as_at_once(rate: int) -> None:
    time = np.arange(rate) / rate
    wave = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    found = np.concatenate(list(pieces(io.BytesIO(wave.tobytes()), PCM("f32le", rate))))
    assert abs(len(found) - 16000) <= 1
    expected = soxr.resample(wave, rate, 16000)
    count = min(len(found), len(expected))
    assert_allclose(found[:count], expected[:count], atol=1e-4)


def test_a_stream_that_stops_inside_a_sample_loses_that_sample_only() -> None:
    found = np.concatenate(list(pieces(io.BytesIO(raw(WAVE, "s16le")[:-1]), PCM())))
    assert len(found) == len(WAVE) - 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("s16",), "Did you mean"), (("s16le", 0), "0 Hz"), (("s16le", 16000, 0), "0 channels")],
)
def test_what_cannot_be_is_refused(arguments: tuple, said: str) -> None:
    with pytest.raises(IsoglossError, match=said):
        PCM(*arguments)


def test_not_a_number_is_told() -> None:
    with pytest.raises(AudioError, match="encoding"):
        PCM("f32le").feed(np.float32([0, np.nan]).tobytes())


def test_no_microphone_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(IsoglossError, match="sounddevice"):
        next(microphone())
