"""Voice activity: the network equals silero-vad's own, and cutting loses no speech."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio import vad
from isogloss.audio.reading import SAMPLE_RATE, read
from isogloss.data.manifests import Utterance
from isogloss.errors import IsoglossError


@pytest.fixture(scope="module")
def speech(clips: list[Utterance]) -> np.ndarray:
    """About half a minute: the clips with a second of silence between them."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    parts = [read(clip.audio, start=clip.start, duration=clip.duration) for clip in clips[:6]]
    return np.concatenate([pause, *[sound for part in parts for sound in (part, pause)]])


def packages_own(waveform: np.ndarray) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Probabilities by silero-vad's TorchScript, window by window, and its weights."""
    import silero_vad

    reference = silero_vad.load_silero_vad()
    padded = torch.from_numpy(np.pad(waveform, (0, -len(waveform) % vad.WINDOW)))
    with torch.no_grad():
        expected = [float(reference(window, SAMPLE_RATE)) for window in padded.split(vad.WINDOW)]
    return np.array(expected), reference._model.state_dict()


def renamed(name: str) -> str:
    name = name.replace("stft.forward_basis_buffer", "stft_conv.weight").replace(
        "decoder.decoder.2", "final_conv"
    )
    if name.startswith("decoder.rnn."):
        return name.replace("decoder.rnn", "lstm") + "_l0"
    for layer in range(4):
        name = name.replace(f"encoder.{layer}.reparam_conv", f"conv{layer + 1}")
    return name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_is_the_packages_own(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, weights = packages_own(speech[: 12 * SAMPLE_RATE + 100])
    assert max(expected) > 0.9 and min(expected) < 0.1
    network = vad._SileroVad().eval()
    network.load_state_dict({renamed(name): value for name, value in weights.items()})
    monkeypatch.setattr(vad, "_model", lambda: network)
    assert np.abs(vad.speech_probabilities(speech[: 12 * SAMPLE_RATE + 100]) - expected).max() < 1e-4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_packaged_safetensors_lose_no_speech(speech: np.ndarray) -> None:
    """They are of an earlier training than the TorchScript: the decisions must agree nevertheless."""
    expected, _ = packages_own(speech)
    found = vad.speech_probabilities(speech)
    assert ((found > 0.5) == (expected > 0.5)).mean() > 0.93
    assert ((found < 0.35) & (expected > 0.5)).mean() < 0.005


def test_blocks_leave_no_seam(speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vad.speech_probabilities(speech)
    monkeypatch.setattr(vad, "_BLOCK", 50)
    assert np.abs(vad.speech_probabilities(speech) - whole).max() < 1e-4


def test_threads_are_left_alone() -> None:
    torch.set_num_threads(threads := 2)
    vad._silero.cache_clear()
    vad._silero()
    vad.speech_probabilities(np.zeros(1000, np.float32))
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == threads


def test_speech_is_found_and_silence_is_not(speech: np.ndarray) -> None:
    found = vad.speech_segments(speech)
    assert len(found) >= 3
    assert found[0][0] > 0.5  # the leading second of silence
    assert vad.speech_segments(np.zeros(5 * SAMPLE_RATE, np.float32)) == []
    assert vad.segment(np.zeros(5 * SAMPLE_RATE, np.float32)) == []
    assert vad.segment(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("longest", [2.0, 5.0, 30.0])
def test_pieces_cover_all_speech(speech: np.ndarray, longest: float) -> None:
    check(vad.segment(speech, longest), vad.speech_segments(speech), longest, len(speech) / SAMPLE_RATE)


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
        patch.setattr(vad, "speech_probabilities", lambda _: probabilities)
        pieces = vad.segment(waveform, longest)
        speech = vad.speech_segments(waveform, min_speech=0, pad=0)
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


def test_continuous_speech_is_cut_where_it_is_quietest(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.full(2000, 0.9, np.float32)
    probabilities[700:715] = 0.45  # a dip that is no pause, at 22.6 s
    monkeypatch.setattr(vad, "speech_probabilities", lambda _: probabilities)
    pieces = vad.segment(np.zeros(2000 * vad.WINDOW, np.float32), 30.0)
    assert pieces[0][1] == pytest.approx(707 * 0.032, abs=0.3)


def test_pieces_too_short_to_ask_for() -> None:
    with pytest.raises(IsoglossError):
        vad.segment(np.zeros(16000, np.float32), 0.5)
