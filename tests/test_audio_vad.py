"""Voice activity: the network equals silero-vad's own, and cutting loses no speech."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio import vad
from isogloss.audio.levels import levels
from isogloss.audio.reading import SAMPLE_RATE, read
from isogloss.data.manifests import Utterance
from isogloss.errors import IsoglossError


@pytest.fixture(scope="module")
def speech(clips: list[Utterance]) -> np.ndarray:
    """About half a minute: the clips with a second of silence between them."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    parts = [read(clip.audio, start=clip.start, duration=clip.duration) for clip in clips[:6]]
    return np.concatenate([pause, *[sound for part in parts for sound in (part, pause)]])


def probabilities_of(waveform: np.ndarray) -> np.ndarray:
    (found,) = vad.speech_probabilities([waveform])
    return found


def speech_in(waveform: np.ndarray) -> list[vad.Span]:
    """The stretches of speech, not padded and not joined."""
    return vad.segment(waveform, 1e6, max_pause=0, pad=(0, 0))


def packages_own(waveform: np.ndarray) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Probabilities by silero-vad's TorchScript, window by window, and its weights."""
    import silero_vad

    reference = silero_vad.load_silero_vad()
    padded = torch.from_numpy(np.pad(waveform, (0, -len(waveform) % vad.WINDOW)))
    with torch.no_grad():
        expected = [float(reference(window, SAMPLE_RATE)) for window in padded.split(vad.WINDOW)]
    return np.array(expected), reference._model.state_dict()


def renamed(name: str) -> str:
    name = name.replace("decoder.decoder.2", "final_conv")
    if name.startswith("decoder.rnn."):
        return name.replace("decoder.rnn", "lstm") + "_l0"
    for layer in range(4):
        name = name.replace(f"encoder.{layer}.reparam_conv", f"conv{layer + 1}")
    return name


@pytest.fixture(scope="module")
def loud(speech: np.ndarray) -> np.ndarray:
    """As loud as the network is to get it."""
    return speech * (vad.LOUD / 10 ** (levels(speech, vad.WINDOW).max() / 20)).astype(np.float32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_is_the_packages_own(loud: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = loud[: 12 * SAMPLE_RATE + 100]
    expected, weights = packages_own(waveform)
    assert max(expected) > 0.9 and min(expected) < 0.1
    network = vad._SileroVad().eval()
    network.load_state_dict({renamed(n): value for n, value in weights.items() if "stft" not in n})
    monkeypatch.setattr(vad, "_model", lambda: network)
    monkeypatch.setattr(vad, "LOUD", 0.0)  # the level stays as it is
    assert np.abs(probabilities_of(waveform) - expected).max() < 1e-4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_safetensors_lose_no_speech(loud: np.ndarray) -> None:
    """They are of an earlier training than the TorchScript: the decisions must agree nevertheless."""
    expected, _ = packages_own(loud)
    found = probabilities_of(loud)
    assert ((found > 0.5) == (expected > 0.5)).mean() > 0.93
    assert ((found < 0.35) & (expected > 0.5)).mean() < 0.005


def test_blocks_leave_no_seam(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = probabilities_of(speech)
    monkeypatch.setattr(vad, "_CACHED", 50)
    assert np.abs(probabilities_of(speech) - whole).max() < 1e-4


def test_recordings_side_by_side_are_as_one_by_one(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [speech[: 3 * SAMPLE_RATE], speech[:100], np.zeros(0, np.float32), speech, speech[5000:40000]]
    alone = [probabilities_of(waveform) for waveform in some]
    for block in (vad._BLOCK, 200):
        monkeypatch.setattr(vad, "_BLOCK", block)
        for one, other in zip(vad.speech_probabilities(some), alone, strict=True):
            assert len(one) == len(other)
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_threads_are_left_alone() -> None:
    torch.set_num_threads(threads := 2)
    vad._silero.cache_clear()
    vad._silero()
    probabilities_of(np.zeros(1000, np.float32))
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == threads


def test_threads_are_left_alone_by_callers_side_by_side() -> None:
    torch.set_num_threads(2)
    waiting, leave = threading.Event(), threading.Event()

    def call() -> None:
        waiting.set()
        with vad._one_thread():
            leave.wait(10)

    other = threading.Thread(target=call)
    with vad._one_thread():
        other.start()
        waiting.wait(10)
        time.sleep(0.05)  # enough to get in, if it could
    leave.set()
    other.join()
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 2


def test_speech_is_found_and_silence_is_not(speech: np.ndarray) -> None:
    found = speech_in(speech)
    assert len(found) >= 3
    assert found[0][0] > 0.5  # the leading second of silence
    assert vad.segment(np.zeros(0, np.float32)) == []


def made(kind: str, seconds: float, level: float) -> np.ndarray:
    """Sounds of nobody: (S,), so many decibels below full scale."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    draws = np.random.default_rng(0).standard_normal(len(time))
    spectrum = np.fft.rfft(draws) / np.sqrt(np.maximum(np.arange(len(time) // 2 + 1), 1))
    harmonics = [np.sin(2 * np.pi * 60 * n * time + n) / n for n in range(1, 12)]
    sounds = {
        "zeros": np.zeros_like(time),
        "a constant": np.ones_like(time),
        "white noise": draws,
        "pink noise": np.fft.irfft(spectrum, len(time)),
        "a tone": np.sin(2 * np.pi * 250 * time),
        "hum": np.sum(harmonics, axis=0),
        "a chord": sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6)),
    }
    sound = sounds[kind] / max(np.abs(sounds[kind]).max(), 1e-9)
    return (sound * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.5, 8.0, 29.0])
@pytest.mark.parametrize("kind", ["zeros", "a constant", "white noise", "pink noise", "a tone", "hum", "a chord"])
def test_nobody_speaks_where_nobody_speaks(kind: str, seconds: float) -> None:
    for level in (-70.0, -40.0, -6.0):
        waveform = made(kind, seconds, level)
        assert vad.segment(waveform) == []
        assert vad.no_speech(probabilities_of(waveform)) > 0.7


def test_short_clips_are_not_lost(clips: list[Utterance]) -> None:
    """Letters and syllables of a third of a second, also faint and with silence around them."""
    short = [read(clip.audio, start=clip.start, duration=clip.duration) for clip in clips[4:]]
    assert min(map(len, short)) < 0.4 * SAMPLE_RATE
    silence = np.zeros(SAMPLE_RATE, np.float32)
    for waveform in short:
        for other in (waveform, waveform / 1000, np.concatenate([silence, waveform, silence])):
            assert vad.segment(other)


def test_the_level_changes_nothing(speech: np.ndarray) -> None:
    faint = (speech / 300).astype(np.float32)
    np.testing.assert_allclose(probabilities_of(faint), probabilities_of(speech * 0.3), atol=1e-3)


def test_less_suffices_in_short_recordings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, found in ((1.0, 1), (10.0, 0)):
        windows = -(-round(seconds * SAMPLE_RATE) // vad.WINDOW)
        unsure = np.zeros(windows, np.float32)
        unsure[5:15] = 0.3
        assert len(vad.segment(np.zeros(round(seconds * SAMPLE_RATE), np.float32), probabilities=unsure)) == found


def test_how_surely_nobody_speaks() -> None:
    probabilities = np.array([0.0] * 50 + [0.9] * 8 + [0.0] * 50, np.float32)
    assert vad.no_speech(probabilities) == pytest.approx(0.1, abs=1e-6)
    assert vad.no_speech(probabilities, (0.0, 1.0)) == 1
    assert vad.no_speech(probabilities, (52 * 0.032, 54 * 0.032)) == pytest.approx(0.1, abs=1e-6)
    assert vad.no_speech(probabilities[:0]) == 1
    assert vad.no_speech(np.array([0.5], np.float32)) == 0.5


@pytest.mark.parametrize("longest", [2.0, 5.0, 30.0])
def test_pieces_cover_all_speech(speech: np.ndarray, longest: float) -> None:
    check(vad.segment(speech, longest), speech_in(speech), longest, len(speech) / SAMPLE_RATE)


@pytest.mark.parametrize("bound", [0.2, 0.5, 3.0])
def test_no_piece_holds_a_longer_pause_than_is_allowed(speech: np.ndarray, bound: float) -> None:
    pieces = vad.segment(speech, max_pause=bound, pad=(0.1, 0.1))
    for before, after in pairwise(speech_in(speech)):
        joined = any(start <= before[1] and after[0] <= end for start, end in pieces)
        assert joined == (after[0] - before[1] <= bound)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 60), st.floats(1, 10), st.floats(0.02, 0.98))
def test_pieces_cover_any_speech(seed: int, seconds: float, longest: float, share: float) -> None:
    """The same for made-up probabilities: stretches of speech and pauses of random lengths."""
    rng = np.random.default_rng(seed)
    waveform = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    windows = -(-len(waveform) // vad.WINDOW)
    stretches = rng.geometric(0.03, windows + 1)
    probabilities = np.repeat(rng.random(windows + 1) < share, stretches)[:windows] * 0.9
    probabilities = (probabilities + rng.uniform(0, 0.1, windows)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vad, "SHORT", 0.0)
        pieces = vad.segment(waveform, longest, probabilities=probabilities)
        speech = vad.segment(waveform, 1e6, max_pause=0, pad=(0, 0), probabilities=probabilities)
    check(pieces, speech, longest, seconds)


def check(
    pieces: list[tuple[float, float]], speech: list[tuple[float, float]], longest: float, seconds: float
) -> None:
    """Pieces are in order, disjoint, inside the file, at most `longest`, and hold all speech."""
    assert all(0 <= start < end <= seconds + 1e-4 and end - start <= longest + 1e-6 for start, end in pieces)
    assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(pieces))
    for start, end in speech:
        held = sum(max(0.0, min(end, piece[1]) - max(start, piece[0])) for piece in pieces)
        assert held == pytest.approx(end - start, abs=1e-3)


def test_continuous_speech_is_cut_where_it_is_quietest() -> None:
    probabilities = np.full(2000, 0.9, np.float32)
    probabilities[700:715] = 0.45  # a dip that is no pause, at 22.6 s
    pieces = vad.segment(np.zeros(2000 * vad.WINDOW, np.float32), 30.0, probabilities=probabilities)
    assert pieces[0][1] == pytest.approx(707 * 0.032, abs=0.3)


def test_pieces_too_short_to_ask_for() -> None:
    with pytest.raises(IsoglossError):
        vad.segment(np.zeros(16000, np.float32), 0.5)
