"""One clip from the inside: its log-mel spectrogram and, below it, what the CTC head believes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isogloss.audio.log_mel import LogMel, LogMelConfig
from isogloss.decoding.greedy import greedy
from isogloss.errors import IsoglossError
from isogloss.evaluation.svg import INK, QUIET, SERIES, draw
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BLANK, UNKNOWN

VISIBLE = 0.1
"""Symbols that never reach this probability are not drawn."""
SPECTROGRAM = LogMelConfig()
"""What is drawn of the sound, whatever features the model takes."""
TICKS_HZ = (250, 500, 1000, 2000, 4000)


@dataclass(frozen=True)
class Inside:
    """features: (T, F) log-mel; posteriors: (T', V); runs: (symbol, first, last + 1 frame), the best path."""

    features: NDArray[np.float32]
    posteriors: NDArray[np.float32]
    runs: tuple[tuple[int, int, int], ...]
    frame_seconds: float
    names: dict[int, str]


@torch.inference_mode()
def look_inside(model: Model, samples: NDArray[np.float32], language: str | None = None) -> Inside:
    """Run a model on one waveform (S,) in a language; raises IsoglossError for a model without a CTC head."""
    if model.tokenizer is None:
        raise IsoglossError("This model has no CTC head to look into; fine-tune it first.")
    device = next(model.parameters()).device
    audio = Sequence.from_list([torch.from_numpy(samples)]).to(device)
    scores = model.ctc_head()(model.encode(model.features(audio), languages=[language]).final)
    path = greedy(scores)[0]
    posteriors = scores.unpad()[0].exp().cpu().numpy()
    drawn = {int(symbol) for symbol in np.flatnonzero(posteriors.max(axis=0) >= VISIBLE)} | set(path.tokens)
    return Inside(
        features=LogMel(SPECTROGRAM)(audio).unpad()[0].cpu().numpy(),
        posteriors=posteriors,
        runs=tuple((token, *frames) for token, frames in zip(path.tokens, path.frames, strict=True)),
        frame_seconds=model.frame_seconds,
        names={symbol: name_of_symbol(model.tokenizer.decode([symbol]), symbol) for symbol in sorted(drawn - {BLANK})},
    )


def plot(inside: Inside, name: str) -> Markup:
    """Spectrogram and posteriors over the same seconds; a colour a symbol, blank as a thin dotted line."""
    seconds = len(inside.features) * SPECTROGRAM.shift_ms / 1000

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1))
        low, high = np.quantile(inside.features, [0.05, 0.998])
        above.imshow(
            inside.features.T,
            origin="lower",
            aspect="auto",
            cmap="Greys",
            vmin=low,
            vmax=high,
            extent=(0, seconds, -0.5, SPECTROGRAM.bins - 0.5),
            interpolation="nearest",
        )
        ticks = [hertz for hertz in TICKS_HZ if hertz < SPECTROGRAM.high_hz]
        places = [_bin(hertz) for hertz in ticks]
        above.set_yticks(places, [f"{hertz / 1000:g}" for hertz in ticks])
        above.set_title("log-mel energy, frequency in kHz", loc="left")
        above.grid(visible=False)
        _draw_posteriors(below, inside)
        below.set_xlim(0, seconds)
        below.set_xlabel("time (s)")

    return draw(name, "Spectrogram and CTC posteriors of one clip", paint, width=7.8, height=4.0)


def _draw_posteriors(ax: Axes, inside: Inside) -> None:
    # A posterior stands for the middle of its frame.
    times = (np.arange(len(inside.posteriors)) + 0.5) * inside.frame_seconds
    ax.plot(times, inside.posteriors[:, BLANK], color=QUIET, linewidth=0.8, linestyle=(0, (1, 1.5)))
    colours = {symbol: SERIES[number % len(SERIES)] for number, symbol in enumerate(inside.names)}
    for symbol, colour in colours.items():
        values = inside.posteriors[:, symbol]
        ax.fill_between(times, values, color=colour, alpha=0.25, linewidth=0)
        visible = np.convolve(values > 0.005, [1, 1, 1], mode="same") > 0
        ax.plot(times, np.where(visible, values, np.nan), color=colour, linewidth=1.2)
    for symbol, first, last in inside.runs:
        middle = (first + last) / 2 * inside.frame_seconds
        style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": colours[symbol], "fontsize": 9}
        ax.text(middle, 1.06, inside.names[symbol], **style)
    ax.set_ylim(0, 1.25)
    ax.set_yticks([0, 0.5, 1])
    ax.set_title("CTC posterior of each symbol (dotted: blank), best path above", loc="left", color=INK)


def _bin(hertz: float) -> float:
    """Where a frequency lies between the centres of the mel filters."""
    low, at, high = np.log1p(np.array([SPECTROGRAM.low_hz, hertz, SPECTROGRAM.high_hz]) / 700)
    return float((at - low) / (high - low) * (SPECTROGRAM.bins + 1) - 1)


def name_of_symbol(text: str, symbol: int) -> str:
    """How a symbol is written: a space and a byte that is no whole character have no glyph."""
    if text == " ":
        return "␣"
    return f"#{symbol}" if UNKNOWN in text or not text else text
