"""How long a listener waits: latency of words while somebody speaks.

    python benchmarks/streaming.py --model DIR --data DIR --json benchmarks/results/streaming.json

Clips arrive in pieces of 100 ms, as from a microphone; computing takes its time, and a piece that arrives meanwhile
waits. The latency of a word is the moment it is written less the moment its last symbol ends, by the model's own times:
it holds the encoder's look-ahead (`declared`, at most), the wait for the next word to begin, and computing.
The last word of a clip is written when the stream ends and is shown apart. `busy` is the share of the time in which the
machine computes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table

import isogloss
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, language_of, read_cuts
from isogloss.decoding.words import Word
from isogloss.model.streaming import ExactWordStream, WordStream

PIECE = SAMPLE_RATE // 10


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a model that streams")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--languages", nargs="+", help="only these")
    arguments.add_argument("--clips", type=int, default=100, help="evenly spread over the split")
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = isogloss.load(options.model).model
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    cuts = [cut for cut in cuts if not options.languages or language_of(cut) in options.languages]
    chosen = [cuts[place] for place in np.unique(np.linspace(0, len(cuts) - 1, options.clips).round().astype(int))]
    rows = []
    for decoder in (name for name in model.decoders if name != "attention"):
        followed = [follow(ExactWordStream(model, decoder), torch.from_numpy(waveform(cut))) for cut in chosen]
        rows.append(figures(decoder, followed, ExactWordStream(model, decoder).latency))
    table(f"latency in ms, {len(chosen)} clips in pieces of 100 ms, {options.threads} threads", rows)
    finish(options.json, environment() | {"clips": len(chosen), "rows": rows})


def follow(stream: WordStream, samples: torch.Tensor) -> tuple[list[float], float | None, float]:
    """Latencies of all words but the last and of the last, and the share of the time spent computing."""
    clock = worked = 0.0
    waits: list[float] = []

    def advance(arrived: float, samples: torch.Tensor | None) -> list[Word]:
        nonlocal clock, worked
        began = time.perf_counter()
        found = stream.finish() if samples is None else stream.feed(samples)
        taken = time.perf_counter() - began
        clock, worked = max(clock, arrived) + taken, worked + taken
        return found  # at `clock`, which `waits` reads next

    arrived = 0.0
    for piece in samples.split(PIECE):
        arrived += len(piece) / SAMPLE_RATE
        waits += [clock - word.end for word in advance(arrived, piece)]
    left = advance(arrived, None)
    waits += [clock - word.end for word in left[:-1]]
    return waits, clock - left[-1].end if left else None, worked / arrived


def figures(decoder: str, followed: list[tuple[list[float], float | None, float]], declared: float) -> dict[str, Any]:
    """Medians and 90th percentiles in ms."""
    inner = [wait for waits, _, _ in followed for wait in waits]
    first = [waits[0] for waits, _, _ in followed if waits]
    last = [wait for _, wait, _ in followed if wait is not None]
    row: dict[str, Any] = {"decoder": decoder, "declared": round(1000 * declared), "words": len(inner) + len(last)}
    for name, values in (("word", inner), ("first word", first), ("last word", last)):
        if values:
            row |= {f"{name}: median": round(1000 * float(np.median(values)))}
            row |= {f"{name}: 90 %": round(1000 * float(np.quantile(values, 0.9)))}
    return row | {"busy %": round(100 * float(np.mean([busy for _, _, busy in followed])), 1)}


if __name__ == "__main__":
    main()
