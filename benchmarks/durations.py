"""How long each letter lasts: durations that are aligned, and those that a text predicts, beside phones of festvox-ru.

    python benchmarks/durations.py --data data/festvox-ru --model DIR --json benchmarks/results/durations.json

The clips and the phones of each letter are those of word_times.py; a letter lasts from its first phone to the first of
the next, a space as long as the pause. `aligned` is what MAESTRO stretches pairs by: the best path through the model's
own recogniser; `predicted` is what it stretches unspoken text by. `|start|` is how far, in ms, a letter begins from
where it should, `within 50 ms` the share of those that do; `|duration|` the mean error of durations and `correlation`
theirs with the true ones. `spread evenly` gives every symbol the same share of the clip, `always the mean` is the mean
duration of these letters. A frame is 40 ms long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table
from lhotse.cut import MonoCut
from numpy.typing import NDArray
from word_times import NEAR, PAUSE, letters_to_phones, word_spans

from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, read_cuts, text_of
from isogloss.model.alignment import Aligner, align
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise

Starts = NDArray[np.float64]
"""Seconds at which the symbols of a text begin, and the end of the last, (U + 1,)."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="festvox-ru made by isogloss prepare")
    arguments.add_argument("--model", type=Path, required=True, help="a model with a text encoder that knows Russian")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    options = arguments.parse_args()
    model = load_model(options.model)
    cuts = [cut for cut in read_cuts(options.data, options.split) if word_spans(cut)]
    true = [letter_starts(cut) for cut in cuts]
    letters = np.concatenate([[symbol != " " for symbol in said(cut)] for cut in cuts])
    both = [stretched(model, cut) for cut in cuts]
    even = [np.linspace(0, cut.duration, len(starts)) for cut, starts in zip(cuts, true, strict=True)]
    mean = np.full(int(letters.sum()), within(true, letters).mean())
    rows = [
        {"durations": "aligned"} | begun([aligned for aligned, _ in both], true, letters),
        {"durations": "predicted"} | lasting(within([predicted for _, predicted in both], letters), true, letters),
        {"durations": "spread evenly"} | begun(even, true, letters),
        {"durations": "always the mean"} | lasting(mean, true, letters),
    ]
    table(f"{len(cuts)} clips of festvox-ru, {options.split} split, {letters.sum()} letters", rows)
    finish(options.json, environment() | {"split": options.split, "clips": len(cuts), "rows": rows})


def said(cut: MonoCut) -> str:
    """The normalised text."""
    return normalise(text_of(cut) or "", "ru")


def letter_starts(cut: MonoCut) -> Starts:
    """Where the phones have the symbols of the text; a sign without a phone begins and ends with the next letter."""
    phones = [p for p in (cut.supervisions[0].alignment or {}).get("phone", []) if p.symbol != PAUSE]
    starts, done = [], 0
    for symbol, count in counted(said(cut)):
        starts.append(phones[done - 1].end if symbol == " " else phones[min(done, len(phones) - 1)].start)
        done += count
    return np.array([*starts, phones[-1].end])


def counted(text: str) -> list[tuple[str, int]]:
    """The symbols of a text, and how many phones each stands for."""
    counts = [[*letters_to_phones(word), 0] for word in text.split()]
    return list(zip(text, [count for word in counts for count in word], strict=False))


@torch.inference_mode()
def stretched(model: Model, cut: MonoCut) -> tuple[Starts, Starts]:
    """Where the symbols begin by alignment, and by the durations that the text alone predicts."""
    tokens = Sequence.from_list([torch.tensor(model.processor.tokens(text_of(cut) or "", "ru"))])
    states = model.encode(model.features(Sequence.from_list([torch.from_numpy(waveform(cut))])), languages=["ru"]).final
    durations, _ = align(Aligner.of(model, states), tokens)
    predicted = model.text_encoder.durations(model.text_encoder.embed(tokens, ["ru"]))
    frame = model.frame_seconds
    aligned, read = (frame * found.values[0].double().cumsum(dim=0).numpy() for found in (durations, predicted))
    return aligned, read


def within(found: list[Starts], letters: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Durations of the letters, one clip after the other."""
    return np.concatenate([np.diff(starts) for starts in found])[letters]


def begun(found: list[Starts], true: list[Starts], letters: NDArray[np.bool_]) -> dict[str, Any]:
    """How far letters begin from where they should, and their durations."""
    off = np.abs(np.concatenate([a[:-1] - b[:-1] for a, b in zip(found, true, strict=True)])[letters])
    figures = {
        "|start|, median ms": round(1000 * float(np.median(off)), 1),
        "within 50 ms %": round(100 * float((off <= NEAR).mean()), 1),
    }
    return figures | lasting(within(found, letters), true, letters)


def lasting(durations: NDArray[np.float64], true: list[Starts], letters: NDArray[np.bool_]) -> dict[str, Any]:
    """How far durations are from the true ones."""
    right = within(true, letters)
    figures: dict[str, Any] = {"|duration|, mean ms": round(1000 * float(np.abs(durations - right).mean()), 1)}
    if durations.std() > 0:
        figures["correlation"] = round(float(np.corrcoef(durations, right)[0, 1]), 2)
    return figures


if __name__ == "__main__":
    main()
