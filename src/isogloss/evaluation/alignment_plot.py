"""Where speech and text of one clip meet, in a picture: durations and states."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isogloss.evaluation.posteriors import name_of_symbol
from isogloss.evaluation.svg import INK, QUIET, SERIES, draw
from isogloss.model.alignment import Aligner, align
from isogloss.model.model import Model
from isogloss.sequence import Sequence


@dataclass(frozen=True)
class Meeting:
    """One clip and its text. names: of the units, silence first. aligned, predicted: their frames, (U+1,).

    speech, text: states after the last block in their two main directions, (T, 2). units: which one each frame says,
    (T,).
    """

    names: tuple[str, ...]
    aligned: NDArray[np.int64]
    predicted: NDArray[np.int64]
    speech: NDArray[np.float32]
    text: NDArray[np.float32]
    units: NDArray[np.int64]
    frame_seconds: float


@torch.inference_mode()
def meet(model: Model, samples: NDArray[np.float32], text: str, language: str) -> Meeting | None:
    """A waveform (S,) and what it says through the shared blocks; None where the two cannot be aligned."""
    device = next(model.parameters()).device
    tokens = model.processor.unit_ids([text], [language]).to(device)
    symbols = tokens.values[0].tolist()
    audio = Sequence.from_list([torch.from_numpy(samples)]).to(device)
    from_speech = model.encode(model.features(audio), languages=[language]).final
    lasting, found = align(Aligner.of(model, from_speech), tokens)
    if not symbols or not bool(found.all()):
        return None
    from_text = model.encode_shared(model.encode_text(tokens, [language], lasting), languages=[language]).final
    speech, text_states = from_speech.unpad()[0].float().cpu(), from_text.unpad()[0].float().cpu()
    both = torch.cat([speech, text_states])
    centred = both - both.mean(dim=0)
    flat = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T
    aligned = lasting.unpad()[0].cpu().numpy()
    predicted = model.text_encoder.durations(model.text_encoder.embed(tokens, [language])).unpad()[0].cpu().numpy()
    return Meeting(
        names=("", *(name_of_symbol(model.processor.unit_name(symbol), symbol) for symbol in symbols)),
        aligned=aligned,
        predicted=predicted,
        speech=flat[: len(speech)].numpy(),
        text=flat[len(speech) :].numpy(),
        units=np.repeat(np.arange(len(aligned)), aligned),
        frame_seconds=model.frame_seconds,
    )


def plot(meeting: Meeting, name: str) -> Markup:
    """Durations as aligned and as predicted from the text, above the states of both."""

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, height_ratios=(1, 3.2))
        for row, frames in enumerate((meeting.aligned, meeting.predicted)):
            ends = np.cumsum(frames) * meeting.frame_seconds
            for unit, (end, count) in enumerate(zip(ends, frames, strict=True)):
                width = count * meeting.frame_seconds
                colour = SERIES[unit % len(SERIES)] if unit else QUIET
                above.barh(row, width, left=end - width, height=0.7, color=colour, alpha=0.35, linewidth=0)
                if width > 0:
                    style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "fontsize": 8}
                    above.text(end - width / 2, row, meeting.names[unit], **style)
        above.set_yticks([0, 1], ["aligned", "predicted"])
        above.invert_yaxis()
        above.set_xlabel("time (s)")
        above.grid(visible=False)
        colours = [SERIES[unit % len(SERIES)] if unit else QUIET for unit in meeting.units]
        for states, text in zip(meeting.speech, meeting.text, strict=True):
            below.plot(*zip(states, text, strict=True), color=QUIET, linewidth=0.4)
        below.scatter(*meeting.speech.T, c=colours, s=22, marker="o", linewidths=0, label="speech")
        below.scatter(*meeting.text.T, c=colours, s=22, marker="x", linewidths=1, label="text")
        below.legend(loc="best")
        below.set_xticks([])
        below.set_yticks([])
        below.set_title("states after the last block, their two main directions; a line joins a frame", loc="left")

    return draw(name, "Durations and states of speech and text of one clip", paint, width=7.8, height=5.2)
