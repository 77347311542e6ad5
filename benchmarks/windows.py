"""What it costs to transcribe as audio arrives with an encoder that wants the whole recording: windows of it.

    python benchmarks/windows.py --model DIR… --data DIR… --json benchmarks/results/windows.json

Clips of a language are joined to recordings of a minute or more. `clips` are written one by one; `whole` is
`isogloss transcribe` on the recording; the others are windows with so many seconds of left context, hop and right
context. CER against the transcripts, and `from whole`: the edits that lead from the text of `whole` to that of a row,
in % of its characters. `latency` is what the stream declares, in seconds; `busy` the time of computing in % of the
audio's. The language is given.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, percent, rate, table
from lhotse.cut import MonoCut
from numpy.typing import NDArray

import isogloss
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, language_of, read_cuts, text_of
from isogloss.metrics.error_rates import error_counts
from isogloss.model.engine import Request
from isogloss.model.recogniser import Recogniser
from isogloss.model.streaming import Window, WindowedWordStream
from isogloss.text.normalise import normalise

PIECE = SAMPLE_RATE // 10


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, nargs="+", required=True, help="models that do not stream exactly")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--seconds", type=float, default=60.0, help="a joined recording has at least")
    arguments.add_argument("--most", type=int, default=2, help="recordings a language")
    arguments.add_argument(
        "--windows", nargs="+", default=["6,1,1"], metavar="LEFT,HOP,RIGHT", help="seconds of each window"
    )
    arguments.add_argument("--decoder", help="a head that writes; by default the first")
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    windows = [Window(*map(float, text.split(","))) for text in options.windows]
    recordings = joined(cuts, options.seconds, options.most)
    rows: list[dict[str, Any]] = []
    for folder in options.model:
        rows += compared(isogloss.load(folder), recordings, windows, options.decoder)
    table(f"recordings of {options.seconds:g} s, {options.threads} threads", rows)
    finish(options.json, environment() | {"rows": rows})


def joined(cuts: list[MonoCut], seconds: float, most: int) -> list[list[MonoCut]]:
    """Up to `most` groups of clips of each language, each of so many seconds."""
    found: list[list[MonoCut]] = []
    for language in sorted({language_of(cut) for cut in cuts}):
        groups: list[list[MonoCut]] = [[]]
        for cut in sorted((cut for cut in cuts if language_of(cut) == language), key=lambda cut: cut.id):
            groups[-1].append(cut)
            if sum(part.duration for part in groups[-1]) >= seconds:
                groups.append([])
        found += groups[:-1][:most]
    return found


def compared(
    recogniser: Recogniser, recordings: list[list[MonoCut]], windows: list[Window], decoder: str | None
) -> list[dict[str, Any]]:
    """A row for each way of transcribing with a model."""
    model = recogniser.model
    recordings = [group for group in recordings if language_of(group[0]) in model.config.alphabets]
    languages = [language_of(group[0]) for group in recordings]
    clips = [[waveform(cut) for cut in group] for group in recordings]
    audio = [np.concatenate(group) for group in clips]
    references = [" ".join(normalise(text_of(cut) or "", language_of(cut)) for cut in group) for group in recordings]
    seconds = sum(map(len, audio)) / SAMPLE_RATE
    name = f"{round(1 / model.frame_seconds)} Hz, {model.encoder.layers} × {model.encoder.width}"

    def row(how: str, texts: list[str], taken: float, latency: float | None = None) -> dict[str, Any]:
        cer = rate(error_counts(references, texts, "character"))
        apart = percent(error_counts(whole, texts, "character"))[0]
        figures = {"latency": latency, "busy %": round(100 * taken / seconds, 1)}
        return {"model": name, "window": how} | cer | {"from whole": round(apart, 1)} | figures

    began = time.perf_counter()
    found = recogniser.transcribe(list(audio), language=list(languages), decoder=decoder)
    taken = time.perf_counter() - began
    whole = [transcript.text for transcript in found]
    each = [
        " ".join(part.text for part in recogniser.transcribe(list(group), language=language, decoder=decoder))
        for group, language in zip(clips, languages, strict=True)
    ]
    rows = [row("clips", each, 0.0), row("whole", whole, taken)]
    for window in windows:
        began = time.perf_counter()
        streamed = [followed(recogniser, *pair, window, decoder) for pair in zip(audio, languages, strict=True)]
        taken = time.perf_counter() - began
        how = f"{window.left:g} + {window.hop:g} + {window.right:g} s"
        rows.append(row(how, streamed, taken, round(window.right + 2 * window.hop, 2)))
    return rows


def followed(
    recogniser: Recogniser, samples: NDArray[np.float32], language: str, window: Window, decoder: str | None
) -> str:
    """What is written of a recording that arrives in pieces of 100 ms."""
    request = Request(language=language)
    model = recogniser.engine.model_for(request)
    stream = WindowedWordStream(model, decoder, recogniser.engine.allowed(model, request), language, window)
    words = [word for piece in torch.from_numpy(samples).split(PIECE) for word in stream.feed(piece)]
    return " ".join(word.text for word in [*words, *stream.finish()])


if __name__ == "__main__":
    main()
