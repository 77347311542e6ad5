"""Channels: averaged, or one of them; what cancels is noticed, said once, and read all the same."""

import io
import logging

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from isogloss.audio.channels import Mixer, _warn_once, parse_channel
from isogloss.audio.pcm import PCM, pieces
from isogloss.audio.reading import SAMPLE_RATE, as_waveform, read
from isogloss.errors import AudioError, IsoglossError

RNG = np.random.default_rng(0)
LEFT, RIGHT = RNG.normal(0, 0.1, (2, SAMPLE_RATE)).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    _warn_once.cache_clear()


def wav(*channels: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    file = io.BytesIO()
    sf.write(file, np.stack(channels, axis=1), rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def instead(*channels: np.ndarray) -> int | None:
    mixer = Mixer("x", "mix", len(channels))
    mixer(np.stack(channels, axis=1).astype(np.float32))
    return mixer.instead


def test_one_channel_or_the_mean() -> None:
    content = wav(LEFT, RIGHT)
    assert np.array_equal(read(content, channel=1), LEFT)
    assert np.array_equal(read(content, channel=2, start=0.5), RIGHT[8000:])
    assert np.allclose(read(content), (LEFT + RIGHT) / 2)
    stereo = np.stack([LEFT, RIGHT])
    assert np.array_equal(as_waveform(stereo, channel=2), RIGHT)
    assert np.array_equal(as_waveform(stereo.T, channel=2), RIGHT)
    assert np.array_equal(read(wav(LEFT), channel=1), LEFT)


@pytest.mark.parametrize("channel", [0, 3, -1, "left", 1.0])
def test_a_channel_that_is_not_there(channel: object) -> None:
    with pytest.raises(AudioError, match=f"no channel {channel}: there are 2 channels"):
        read(wav(LEFT, RIGHT), channel=channel)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="no channel 2: there is 1 channel"):
        as_waveform(LEFT, channel=2)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_channels_out_of_phase_are_heard(rate: int, caplog: pytest.LogCaptureFixture) -> None:
    content = wav(LEFT, -0.95 * LEFT, rate=rate)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read(content), read(wav(LEFT, rate=rate)))
        part = read(content, start=0.1, duration=0.2)
        assert np.array_equal(part, read(wav(LEFT, rate=rate), start=0.1, duration=0.2))
        assert np.array_equal(as_waveform(np.stack([LEFT, -LEFT])), LEFT)
    assert [record.getMessage().partition(":")[2] for record in caplog.records] == [
        " its channels cancel when averaged (out of phase?); channel 1 is read alone."
    ] * 3


def test_what_cancels_and_what_does_not() -> None:
    silence, offset = np.zeros_like(LEFT), np.full_like(LEFT, 0.3)
    assert instead(LEFT, -LEFT) == instead(LEFT + offset, -LEFT + offset) == instead(LEFT, -LEFT, silence, silence) == 1
    assert instead(0.01 * LEFT, RIGHT, -RIGHT) == 2
    for channels in (
        (LEFT, LEFT),
        (LEFT, RIGHT),
        (LEFT, -0.5 * LEFT),
        (LEFT, *[silence] * 7),
        (silence, silence),
        (offset, offset),
        (offset, -offset),
        (np.full_like(LEFT, np.nan), LEFT),
        (LEFT[:100], -LEFT[:100]),
    ):
        assert instead(*channels) is None


@given(st.integers(1, 4), st.lists(st.integers(0, SAMPLE_RATE), max_size=6))
def test_mixed_in_blocks_as_at_once(channels: int, cuts: list[int]) -> None:
    block = RNG.normal(0, 1, (SAMPLE_RATE, channels)).astype(np.float32)
    mixer = Mixer("x", "mix", channels)
    parts = [mixer(part) for part in np.split(block, sorted(cuts))]
    assert np.allclose(np.concatenate(parts), block.mean(axis=1), atol=1e-6)


def test_a_stream_out_of_phase_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    stereo = np.stack([LEFT, -LEFT], axis=1)
    found = np.concatenate(list(pieces(io.BytesIO(stereo.tobytes()), PCM("f32le", channels=2))))
    assert np.array_equal(found, LEFT)
    assert len(caplog.records) == 1 and "The stream: its channels cancel" in caplog.text
    second = np.concatenate(list(pieces(io.BytesIO(stereo.tobytes()), PCM("f32le", channels=2, channel=2))))
    assert np.array_equal(second, -LEFT)
    with pytest.raises(AudioError, match="no channel 3"):
        PCM("f32le", channels=2, channel=3)


def test_every_array_out_of_phase_is_told_of_and_a_file_once(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    (tmp_path / "talk.wav").write_bytes(wav(LEFT, -LEFT))
    for source, times in ((tmp_path / "talk.wav", 1), (wav(LEFT, -LEFT), 2), (np.stack([LEFT, -LEFT]), 2)):
        caplog.clear()
        for _ in range(2):
            as_waveform(source)
        assert len(caplog.records) == times


def test_what_the_command_line_says() -> None:
    assert [parse_channel(text) for text in ("1", "12", "mix", "each")] == [1, 12, "mix", "each"]
    for text in ("0", "-1", "left", "", "1.5", "²", "Mix"):
        with pytest.raises(IsoglossError, match="is no channel; give 1, 2, …, mix"):
            parse_channel(text)
