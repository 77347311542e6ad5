"""How fast one core reads training data: a corpus as it was prepared, packed in each format, and lhotse beside it.

    python benchmarks/reading.py --data data/tuxpaint --work /tmp/reading --json benchmarks/results/reading.json
                                                                                   (in the project's environment)

Hours of audio an hour, of the train split, in one process with one thread, files in the system's cache; nothing is
remembered between rounds. We read cuts and audio in the order of training and collate batches; `with speeds` plays each
clip at 0.9, 1.0 or 1.1. `lhotse` goes through the same shards from the first clip to the last, decodes, and collates
nothing. `bytes` reads the audio of the WAV shards without decoding it: the limit. `ratio` is to lhotse on the same
format, `ms a clip` what a clip takes.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, interleaved, parser, table
from lhotse import CutSet

from isogloss.data.clips import Clips, open_corpus
from isogloss.data.loading import Loader
from isogloss.data.packing import SUBTYPES, AudioFormat, pack
from isogloss.data.plan import BatchPlan
from isogloss.data.shards import Shards, audio_file, is_packed
from isogloss.data.store import FOLDER

SPEEDS = (0.9, 1.0, 1.1)
BATCH_SECONDS = 100.0


def main() -> None:
    arguments = parser(__doc__, repetitions=3)
    arguments.add_argument("--data", type=Path, required=True, help="folder made by isogloss prepare")
    arguments.add_argument("--work", type=Path, required=True, help="where the packed corpora are, or will be")
    arguments.add_argument("--hours", type=float, default=0.25, help="of audio in a shard, about")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Callable[[], object]] = {"as prepared": batches(options.data)}
    for audio in SUBTYPES:
        folder = packed(options, audio)
        rows[audio] = batches(folder)
        rows[f"{audio}, with speeds"] = batches(folder, SPEEDS)
        rows[f"{audio}, lhotse"] = partial(lhotse, folder)
    rows["bytes"] = partial(raw, packed(options, "wav"))
    found = interleaved(rows, options)
    clips = train(options.data)
    hours, count = clips.durations.sum() / 3600, len(clips)
    shown = []
    for name, timing in found.items():
        peer = found.get(f"{name.partition(',')[0]}, lhotse")
        row: dict[str, Any] = {"reader": name, "hours an hour": round(hours / (timing.median / 3600))}
        row |= {"ms a clip": round(1000 * timing.median / count, 3)}
        row |= {"ratio": round(peer.median / timing.median, 2) if peer else ""}
        shown.append(row | {"fastest": round(timing.fastest, 3), "slowest": round(timing.slowest, 3)})
    table(f"{count} clips, {hours:.2f} h, {1000 * hours * 3.6 / count:.2f} s each", shown)
    finish(options.json, environment() | {"clips": count, "hours": float(hours), "rows": shown})


def packed(options: Namespace, audio: AudioFormat) -> Path:
    """The corpus in shards; made if it is not there."""
    folder: Path = options.work / audio
    if not is_packed(folder):
        pack(options.data, folder, audio=audio, hours=options.hours)
    return folder


def train(folder: Path) -> Clips:
    clips = open_corpus(folder)
    return clips.select(clips.in_split("train"))


def batches(folder: Path, speeds: tuple[float, ...] = (1.0,)) -> Callable[[], None]:
    """One round of training batches."""
    clips = train(folder)
    plan = BatchPlan(clips.durations, clips.pairs, batch_seconds=BATCH_SECONDS, shards=clips.shards)
    loader, order = Loader(clips, speeds=speeds, remembered=0), plan.round(0)

    def read() -> None:
        for number, batch in enumerate(order):
            loader.load(batch, seed=number)

    return read


def lhotse(folder: Path) -> None:
    """Every clip of the train split, as lhotse decodes it."""
    for cut in CutSet.from_shar(in_dir=folder / FOLDER):
        if cut.custom["split"] == "train":
            cut.load_audio()


def raw(folder: Path) -> None:
    """The bytes of every clip of the train split."""
    columns = Shards(folder).columns
    for row in np.flatnonzero(columns["splits"] == 0):
        with audio_file(folder, int(columns["shards"][row])).open("rb", buffering=0) as file:
            os.pread(file.fileno(), int(columns["audio_size"][row]), int(columns["audio_at"][row]))


if __name__ == "__main__":
    main()
