"""When does CTC leave its all-blank phase? Ways to make it sooner, by size of encoder and of step.

    python benchmarks/blank_phase.py --data data/tuxpaint data/fillets --encoders tiny small --seconds 24 200
        --hours 3 --runs runs/blank --json benchmarks/results/blank_phase.json          (in the project's environment)

Every run trains a recogniser on so many hours of transcribed speech from random weights, or from --start; each of
--ways changes one thing. `symbols after` are the steps, and the hours heard, until fewer than 90 % of the frames are
blank, on average over ten steps; `CER` is that of the dev clips, after shares of the hours, and `hours an hour` the
median over the steps. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from common import environment, finish, parser, table
from runs import add_options, trained

from isogloss.training.journal import read_log
from isogloss.training.recipe import Recipe

MASKS = {"time_masks": 10, "time_share": 0.05}
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "Muon × 1": {"optimizer.muon": 1.0},
    "Muon × 6": {"optimizer.muon": 6.0},
    "masks at once": {"objective.augment": MASKS},
    "AdamW": {"optimizer.muon": 0.0},
    "AdamW, rate × 2": {"optimizer.muon": 0.0, "optimizer.peak": 2e-3},
    "AdamW, rate × 4": {"optimizer.muon": 0.0, "optimizer.peak": 4e-3},
    "AdamW, warm-up of 20 steps": {"optimizer.muon": 0.0, "optimizer.warmup": 20},
    "AdamW, masks at once": {"optimizer.muon": 0.0, "objective.augment": MASKS},
    "short clips": {"data.longest": 3.0},
    "no loss in the middle": {"objective.intermediate": 0.0},
    "half of the loss in the middle": {"objective.intermediate": 0.5},
    "attention beside": {"heads.attention": {}},
    "transducer beside": {"heads.transducer": {}},
}
"""What each changes."""
FRAMES = 0.9
"""Share of blank frames below which symbols are written."""
ALL_BLANK = 0.99
"""Share above which nothing is written."""
TOGETHER = 10
"""Steps over which both are averaged."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--encoders", nargs="+", default=["tiny"], help="presets")
    arguments.add_argument("--seconds", type=float, nargs="+", default=[24.0], help="of audio a step")
    arguments.add_argument("--memory", type=float, default=24.0, help="seconds of audio in memory at once")
    arguments.add_argument("--hours", type=float, required=True, help="of audio in a run")
    arguments.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments.add_argument("--start", type=Path, help="a model that was pre-trained, instead of --encoders")
    add_options(arguments)
    options = arguments.parse_args()
    rows = [row(options, *case) for case in product(options.encoders, options.seconds, options.ways)]
    table("CTC's all-blank phase", rows)
    finish(options.json, environment() | {"hours": options.hours, "rows": rows})


def row(options: Namespace, encoder: str, seconds: float, way: str) -> dict[str, Any]:
    """What a run came to; it is made if it is not there."""
    steps = round(options.hours * 3600 / seconds)
    run: Path = options.runs / f"{encoder}-{seconds:g}-{way.replace(', ', ' ').replace(' ', '-')}"
    trained(recipe(options, encoder, seconds, steps, WAYS[way]), run, options)
    log = read_log(run)
    taken = [record for record in log if record["event"] == "step"]
    blank = [record["recognition/blank"] for record in taken]
    left = steps_until_symbols(blank)
    looks = [record["cer"] for record in log if record["event"] == "dev"]
    return {
        "encoder": encoder,
        "seconds a step": seconds,
        "way": way,
        "symbols after, steps": left,
        "hours": None if left is None else round(sum(record["seconds"] for record in taken[:left]) / 3600, 2),
        "CER, % after a third": round(100 * looks[len(looks) // 3 - 1], 1),
        "after two": round(100 * looks[2 * len(looks) // 3 - 1], 1),
        "at the end": round(100 * looks[-1], 1),
        "hours an hour": round(median(record["speed"] for record in taken)),
        "steps": len(taken),
    }


def steps_until_symbols(blank: list[float]) -> int | None:
    """After how many steps fewer than `FRAMES` are blank, once nearly all were; None if they stay so.

    blank: share of blank frames in each step. Before it writes blanks a model writes whatever its weights say.
    """
    means = [sum(blank[n - TOGETHER : n]) / TOGETHER for n in range(TOGETHER, len(blank) + 1)]
    began = next((n for n, mean in enumerate(means) if mean > ALL_BLANK), len(means))
    return next((n + TOGETHER for n, mean in enumerate(means) if n > began and mean < FRAMES), None)


def recipe(options: Namespace, encoder: str, seconds: float, steps: int, changes: dict[str, Any]) -> Recipe:
    """One stage of recognition with changes."""
    objective = {"name": "recognition"} | _of(changes, "objective")
    optimizer = {"peak": 1e-3, "warmup": 70, "schedule": "constant", "ema": 0.98} | _of(changes, "optimizer")
    start = {"start_from": str(options.start)} if options.start else {"encoder": encoder}
    heads = {"ctc": {}, "language": {}} | _of(changes, "heads")
    stage = {
        "name": "recognise",
        "steps": steps,
        "seconds": {"paired": seconds},
        "batch_seconds": min(options.memory, seconds / options.processes),
        "objectives": [objective],
        "optimizer": optimizer | {"warmup": min(1.0, optimizer["warmup"] / steps)},
        "evaluate_every": -(-steps // 6),
        "save_every": steps,
    }
    values = {
        "name": "blank-phase",
        "model": start | {"tokenizer": {"kind": "characters", "unknown": True}, "heads": heads},
        "data": {"folders": [str(folder) for folder in options.data], "longest": 15.0} | _of(changes, "data"),
        "stages": [stage],
    }
    return Recipe.parse(values, "blank_phase")


def _of(changes: dict[str, Any], part: str) -> dict[str, Any]:
    """The changes of a part, by the rest of their names."""
    return {name.removeprefix(f"{part}."): value for name, value in changes.items() if name.startswith(f"{part}.")}


if __name__ == "__main__":
    main()
