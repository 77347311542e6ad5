"""Where there is speech: silero-vad's weights and thresholds, and recordings cut at pauses.

    (S,) ── windows of 32 ms ── probability of speech ── spans ── pieces of at most max_seconds

The network of silero-vad (snakers4/silero-vad, MIT) is spelled out here, because the package loads
it only as TorchScript, which is pickle, or through onnxruntime; its safetensors need neither, and many
recordings are one pass instead of a Python loop over windows. Those safetensors are of an earlier
training than the TorchScript beside them: the two agree on about 97 % of windows, and this one
calls a little more speech.

Three rules are ours. A faint recording is made louder first, because the network misses faint speech. What is steady
(a tone, hum, noise) is no speech, however much its beginning sounds like it. And in a recording of less than two
seconds, which somebody cut for a reason, less suffices. `benchmarks/quiet.py --clips` counts what is missed.
"""

import functools
import threading
from collections.abc import Iterator
from collections.abc import Sequence as ListOf
from contextlib import contextmanager
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from isogloss.audio.levels import levels
from isogloss.audio.reading import SAMPLE_RATE, Waveform
from isogloss.errors import IsoglossError

Span = tuple[float, float]
"""Start and end in seconds."""

SURE, UNSURE = 0.5, 0.15
"""Probabilities that start speech; the second in a short recording where the first finds none."""
SHORT = 2.0
"""Seconds."""
LOUD = 0.2
"""Root mean square of the loudest window of a faint recording, once it has been made louder."""
STEADY = 1.25
"""Decibels of the loudest window above the mean of all within 20 dB of it. Tones and noise have 1.2 at most."""
WINDOW = 512  # samples of a window, 32 ms
_CONTEXT = 64  # samples of the previous window that a window also sees
_BLOCK = 4096  # windows of recordings side by side, 2 minutes: bounds the memory
_CACHED = 256  # windows whose spectra stay in the processor's cache
_SMOOTH = 9  # windows over which a cut looks for the quietest place, 0.3 s
_AROUND = 6  # windows on each side of a stretch that show whether it is steady, 0.2 s
_SUREST = 8  # windows that decide whether anybody speaks, 0.26 s
_lock = threading.Lock()


class _SileroVad(nn.Module):
    """Windows of some recordings, (n, 64 + 512) each -> probabilities of speech, (n,) each."""

    hann: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.hann: Tensor
        self.register_buffer("hann", torch.hann_window(256), persistent=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, windows: list[Tensor]) -> list[Tensor]:
        lengths = [len(item) for item in windows]
        hidden = torch.cat([self._spectral(block) for block in torch.cat(windows).split(_CACHED)])
        with _one_thread():
            states, _ = self.lstm(nn.utils.rnn.pad_sequence(hidden.split(lengths)))  # (n, recordings, 128)
        found = nn.functional.linear(states.relu(), self.final_conv.weight[..., 0], self.final_conv.bias).sigmoid()
        return [found[:length, place, 0] for place, length in enumerate(lengths)]

    def _spectral(self, windows: Tensor) -> Tensor:
        """(n, 64 + 512) -> (n, 128): what is in each window alone."""
        padded = nn.functional.pad(windows, (0, 64), mode="reflect")
        hidden = torch.fft.rfft(padded.unfold(1, 256, 128) * self.hann).abs().transpose(1, 2)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = layer(hidden).relu()
        return hidden[..., 0]


def speech_probabilities(waveforms: ListOf[Waveform]) -> list[NDArray[np.float32]]:
    """(S,) each at 16 kHz -> for each, the probability of speech in its windows of 32 ms, (⌈S / 512⌉,).

    Stretches that are steady have none. A faint recording is judged as a louder one would be.
    """
    found = [np.zeros(0, np.float32)] * len(waveforms)
    with torch.inference_mode():
        for places in _together([-(-len(waveform) // WINDOW) for waveform in waveforms]):
            probabilities = _model()([_windows(waveforms[place]) for place in places])
            for place, values in zip(places, probabilities, strict=True):
                found[place] = _without_steady(values.numpy(), waveforms[place])
    return found


def no_speech(probabilities: NDArray[np.float32], span: Span | None = None) -> float:
    """The probability that nobody speaks in windows (n,), or in a span of them.

    One minus the highest mean probability of speech over a quarter of a second.
    """
    if span is not None:
        first, last = (t * SAMPLE_RATE / WINDOW for t in span)
        probabilities = probabilities[int(first) : max(int(first) + 1, round(last))]
    if not len(probabilities):
        return 1.0
    width = min(_SUREST, len(probabilities))
    return float(1 - np.convolve(probabilities, np.full(width, 1 / width), mode="valid").max())


def segment(
    waveform: Waveform,
    max_seconds: float = 30.0,
    *,
    max_pause: float = 2.0,
    pad: tuple[float, float] = (0.2, 0.2),
    probabilities: NDArray[np.float32] | None = None,
) -> list[Span]:
    """Cut a 16 kHz waveform (S,) at pauses: pieces in order, disjoint, of at most `max_seconds`.

    Every stretch of speech, however short, lies in the pieces, with up to `pad` seconds before and after it; only
    pauses are left out. A piece is as long as `max_seconds` allows, unless a pause of more than `max_pause` parts it;
    speech without any pause is cut where speech is least probable. probabilities: of the windows, if they
    are known. Raises IsoglossError for max_seconds below 1.
    """
    if max_seconds < 1:
        raise IsoglossError(f"Pieces of at most {max_seconds} s are too short; use 1 s or more.")
    if probabilities is None:
        (probabilities,) = speech_probabilities([waveform])
    spans = _spans(probabilities, len(waveform), SURE)
    if not spans and len(waveform) <= SHORT * SAMPLE_RATE:
        spans = _spans(probabilities, len(waveform), UNSURE)
    longest = max(max_seconds / 2, max_seconds - sum(pad))
    pieces: list[Span] = []
    for start, end in _cut_long(spans, probabilities, longest):
        if pieces and start - pieces[-1][1] <= max_pause and end - pieces[-1][0] <= longest:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return _padded(pieces, pad, len(waveform) / SAMPLE_RATE)


def _padded(pieces: list[Span], pad: tuple[float, float], seconds: float) -> list[Span]:
    """With so many seconds before and after, or half of the pause where two pieces would meet."""
    ends = [-2 * pad[0], *(end for _, end in pieces)]
    starts = [*(start for start, _ in pieces), seconds + 2 * pad[1]]
    return [
        (max(0.0, start - min(pad[0], (start - before) / 2)), min(seconds, end + min(pad[1], (after - end) / 2)))
        for (start, end), before, after in zip(pieces, ends[:-1], starts[1:], strict=True)
    ]


def _cut_long(spans: list[Span], probabilities: NDArray[np.float32], max_seconds: float) -> list[Span]:
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


def _spans(probabilities: NDArray[np.float32], samples: int, threshold: float) -> list[Span]:
    """Stretches of speech by silero-vad's rules; a tenth of a second without ends one."""
    if not (probabilities >= threshold).any():
        return []
    found = _silero().get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=threshold,
        min_speech_duration_ms=0,
        min_silence_duration_ms=100,
        speech_pad_ms=0,
        audio_length_samples=samples,
    )
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in found]


def _without_steady(probabilities: NDArray[np.float32], waveform: Waveform) -> NDArray[np.float32]:
    """Probabilities (n,) that are 0 in steady stretches."""
    spans = _spans(probabilities, len(waveform), UNSURE)
    loudness = levels(waveform, WINDOW) if spans else probabilities
    for start, end in spans:
        first, last = int(start * SAMPLE_RATE / WINDOW), round(end * SAMPLE_RATE / WINDOW)
        around = loudness[max(0, first - _AROUND) : last + _AROUND]
        if len(around) and around.max() - around[around >= around.max() - 20].mean() < STEADY:
            probabilities[first : last + 1] = 0
    return probabilities


def _windows(waveform: Waveform) -> Tensor:
    """(S,) -> (⌈S / 512⌉, 64 + 512), at the level of speech; the last one filled with zeros."""
    padded = np.zeros(_CONTEXT + -(-len(waveform) // WINDOW) * WINDOW, dtype=np.float32)
    padded[_CONTEXT : _CONTEXT + len(waveform)] = waveform
    power = np.square(padded[_CONTEXT:].reshape(-1, WINDOW)).mean(axis=1).max()
    padded *= max(1.0, LOUD / max(float(np.sqrt(power)), 1e-6))
    return torch.from_numpy(padded).unfold(0, _CONTEXT + WINDOW, WINDOW)


def _together(counts: list[int]) -> Iterator[list[int]]:
    """Places of recordings of similar length, of so many windows each, that go through the network at once."""
    group: list[int] = []
    for place in sorted((place for place, count in enumerate(counts) if count), key=counts.__getitem__):
        if group and counts[place] * (len(group) + 1) > _BLOCK:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


@functools.cache
def _model() -> _SileroVad:
    _silero()
    weights = load(resources.files("silero_vad.data").joinpath("silero_vad_16k.safetensors").read_bytes())
    del weights["stft_conv.weight"]  # the Fourier transform as a convolution
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
    """One thread for what is inside: many small recurrent steps are slower, at worst far slower, on more.

    The number is of the whole process: of two callers at once, the second would take the one thread for the rule.
    """
    with _lock:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
