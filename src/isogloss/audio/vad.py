"""Where there is speech: silero-vad's weights and thresholds, and long files cut at pauses.

    (S,) ── windows of 32 ms ── probability of speech ── spans ── pieces of at most max_seconds

The network of silero-vad (snakers4/silero-vad, MIT) is spelled out here, because the package loads
it only as TorchScript, which is pickle, or through onnxruntime; its safetensors need neither, and a
whole file is one pass instead of a Python loop over windows. Those safetensors are of an earlier
training than the TorchScript beside them: the two agree on about 97 % of windows, and this one
calls a little more speech.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.errors import IsoglossError

WINDOW = 512  # samples of a window, 32 ms
_CONTEXT = 64  # samples of the previous window that a window also sees
_BLOCK = 4096  # windows at once, 2 minutes: bounds the memory
_PAUSE = 2.0  # seconds of silence that always part two pieces
_SMOOTH = 9  # windows over which a cut looks for the quietest place, 0.3 s


class _SileroVad(nn.Module):
    """Windows (n, 64 + 512) -> probability of speech (n,), with the state of the recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, windows: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        padded = nn.functional.pad(windows[:, None], (0, 64), mode="reflect")
        real, imaginary = self.stft_conv(padded).split(129, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = layer(hidden).relu()
        hidden, state = self.lstm(hidden.squeeze(2), state)
        return self.final_conv(hidden.relu()[..., None]).sigmoid().flatten(), state


def speech_probabilities(waveform: np.ndarray) -> np.ndarray:
    """(S,) at 16 kHz -> (⌈S / 512⌉,) probability of speech in each 32 ms."""
    if not len(waveform):
        return np.zeros(0, np.float32)
    count = -(-len(waveform) // WINDOW)
    padded = np.zeros(_CONTEXT + count * WINDOW, dtype=np.float32)
    padded[_CONTEXT : _CONTEXT + len(waveform)] = waveform
    windows = torch.from_numpy(padded).unfold(0, _CONTEXT + WINDOW, WINDOW)
    model, state, found = _model(), None, []
    with torch.inference_mode(), _one_thread():
        for block in torch.split(windows, _BLOCK):
            probabilities, state = model(block, state)
            found.append(probabilities)
    return torch.cat(found).numpy()


def speech_segments(
    waveform: np.ndarray,
    *,
    threshold: float = 0.5,
    min_speech: float = 0.25,
    min_silence: float = 0.1,
    pad: float = 0.03,
) -> list[tuple[float, float]]:
    """(start, end) in seconds of each stretch of speech in a 16 kHz waveform (S,), in order.

    threshold: probability that starts speech (it ends 0.15 below). min_speech: seconds below
    which a stretch is dropped. min_silence: seconds that end a stretch. pad: seconds added on
    each side. The rules are silero-vad's own.
    """
    return _spans(speech_probabilities(waveform), len(waveform), threshold, min_speech, min_silence, pad)


def segment(
    waveform: np.ndarray, max_seconds: float = 30.0, *, threshold: float = 0.5, pad: float = 0.2
) -> list[tuple[float, float]]:
    """Cut a long 16 kHz waveform (S,) at pauses: (start, end) in seconds, in order, disjoint.

    Every stretch of speech, however short, lies in the pieces, with `pad` seconds around it;
    only pauses are left out. Each piece is as long as `max_seconds` allows, unless a pause of two
    seconds parts it; speech without any pause is cut where speech is least probable.
    Raises IsoglossError for max_seconds below 1.
    """
    if max_seconds < 1:
        raise IsoglossError(f"Pieces of at most {max_seconds} s are too short; use 1 s or more.")
    probabilities = speech_probabilities(waveform)
    spans = _spans(probabilities, len(waveform), threshold, 0.0, 0.1, pad)
    pieces: list[tuple[float, float]] = []
    for start, end in _cut_long(spans, probabilities, max_seconds):
        if pieces and start - pieces[-1][1] < _PAUSE and end - pieces[-1][0] <= max_seconds:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


def _cut_long(
    spans: list[tuple[float, float]], probabilities: np.ndarray, max_seconds: float
) -> list[tuple[float, float]]:
    """Spans of at most `max_seconds`: a longer one is cut in its later half, where it is quietest."""
    quiet = np.convolve(probabilities, np.ones(_SMOOTH), mode="same") if spans else probabilities
    parts = []
    for start, end in spans:
        while end - start > max_seconds:
            latest = min(start + max_seconds, end - max_seconds / 4)
            first, last = (int(t * SAMPLE_RATE / WINDOW) for t in (start + max_seconds / 2, latest))
            cut = (first + int(quiet[first : last + 1].argmin())) * WINDOW / SAMPLE_RATE
            parts.append((start, cut))
            start = cut
        parts.append((start, end))
    return parts


def _spans(
    probabilities: np.ndarray,
    samples: int,
    threshold: float,
    min_speech: float,
    min_silence: float,
    pad: float,
) -> list[tuple[float, float]]:
    found = _silero().get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=threshold,
        min_speech_duration_ms=1000 * min_speech,
        min_silence_duration_ms=1000 * min_silence,
        speech_pad_ms=1000 * pad,
        audio_length_samples=samples,
    )
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in found]


@functools.cache
def _model() -> _SileroVad:
    _silero()
    weights = load(resources.files("silero_vad.data").joinpath("silero_vad_16k.safetensors").read_bytes())
    weights = {name.replace("lstm_cell.", "lstm."): value for name, value in weights.items()}
    for name in [name for name in weights if name.startswith("lstm.")]:
        weights[name + "_l0"] = weights.pop(name)
    model = _SileroVad()
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


@functools.cache
def _silero() -> Any:
    """The package; importing it sets torch to one thread for good, which is put right again."""
    with _one_thread():
        import silero_vad
    return silero_vad


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for what is inside: many small recurrent steps are slower, at worst far slower, on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
