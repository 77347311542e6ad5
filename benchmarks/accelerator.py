"""What a GPU does with isogloss, in one command of about four minutes; on a CPU it runs too, and says little.

    python benchmarks/accelerator.py --data packed/tuxpaint --json benchmarks/results/accelerator.json
                                                                                   (in the project's environment)

Kernels: the tests that use a GPU, with kernels in real Triton. Losses: `transducer.py` at B 16, T 250, U 50, V 512,
beside torchaudio where it is installed. Throughput: `throughput.py`, audio in memory; `model FLOP utilisation` is the
share of the rate of a large matrix product in the same precision. Training: `--recipe` (usm-small) with the encoder
`--encoder` from the folders; its first stage for `--profiled` steps under torch's profiler, which tells for how long no
kernel ran (`idle`), then all its stages within `--minutes`. Parts that fail are told, and the others run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from common import environment, finish, first_line, parser, table
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import train

HERE = Path(__file__).parent
TESTS = [f"tests/test_{name}.py" for name in ("nn_kernels", "audio_log_mel", "nn_transducer", "nn_pruned")]
PATIENCE = 120.0
"""Seconds a part may take."""


def main() -> None:
    arguments = parser(__doc__, repetitions=5)
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="prepared or packed corpora")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--recipe", default="usm-small")
    arguments.add_argument("--encoder", default="small")
    arguments.add_argument("--seconds", type=float, default=400.0, help="of audio in a step of the training")
    arguments.add_argument("--batch-seconds", type=float, default=400.0, help="of it at once")
    arguments.add_argument("--profiled", type=int, default=40, help="steps under the profiler")
    arguments.add_argument("--minutes", type=float, default=1.5, help="of real training")
    arguments.add_argument("--presets", nargs="+", default=["small", "base", "usm_600m"])
    arguments.add_argument("--clips", type=int, default=32, help="of 10 s in a step of throughput.py")
    arguments.add_argument("--loss", nargs=4, type=int, default=[16, 250, 50, 512], metavar=("B", "T", "U", "V"))
    arguments.add_argument("--without", nargs="*", default=[], choices=list(PARTS), help="leave out")
    options = arguments.parse_args()
    figures: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, part in PARTS.items():
        if name in options.without:
            continue
        began, failed = time.monotonic(), ""
        try:
            figures[name] = part(options)
        except (IsoglossError, RuntimeError, subprocess.SubprocessError, OSError) as error:
            failed = first_line(error)
        rows.append({"part": name, "took s": round(time.monotonic() - began, 1), "failed": failed})
    table(f"isogloss on {options.device}", rows)
    finish(options.json, environment(options.device) | figures | {"rows": rows})


def kernels(options: Namespace) -> dict[str, Any]:
    """The closing line of the tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=PATIENCE)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    table("kernels", [{"tests": last}])
    return {"tests": last, "code": done.returncode}


def losses(options: Namespace) -> dict[str, Any]:
    """What `transducer.py` finds."""
    names = ("--batch", "--frames", "--symbols", "--vocabulary")
    shape = [part for name, size in zip(names, options.loss, strict=True) for part in (name, str(size))]
    return _script("transducer.py", options, shape)


def throughput(options: Namespace) -> dict[str, Any]:
    """What `throughput.py` finds, with the share of the rate of a large matrix product."""
    found = _script("throughput.py", options, ["--clips", str(options.clips), "--presets", *options.presets])
    for row in found["rows"]:
        row["model FLOP utilisation"] = round(1 / row["of the limit"], 3)
    return found


def training(options: Namespace) -> dict[str, Any]:
    """How busy the device is with real data, and what a short training comes to."""
    recipe = load_recipe(options.recipe)
    stages = []
    for stage in recipe.plain()["stages"]:
        largest = max(stage["seconds"].values())
        seconds = {name: options.seconds * share / largest for name, share in stage["seconds"].items()}
        stages.append(stage | {"seconds": seconds, "batch_seconds": options.batch_seconds})
    changed = recipe.plain() | {"stages": stages, "device": options.device}
    changed["model"] |= {"encoder": options.encoder}
    changed["data"] |= {"folders": [str(folder.absolute()) for folder in options.data], "languages": []}
    with tempfile.TemporaryDirectory() as folder:
        short = changed | {"stages": [stages[0] | {"steps": options.profiled, "evaluate_every": options.profiled}]}
        idle = _idle(Recipe.parse(short, "profiled"), Path(folder) / "profiled", options)
        train(Recipe.parse(changed, options.recipe), Path(folder) / "run", minutes=options.minutes, console=Console())
        rows = [row | {"idle": idle.get(row["stage"], "")} for row in _stages(Path(folder) / "run" / "log.jsonl")]
    table(f"training {options.recipe}, {options.encoder}, {options.seconds:g} s a step", rows)
    return {"rows": rows}


def _idle(recipe: Recipe, run: Path, options: Namespace) -> dict[str, Any]:
    """By stage, the share of the time from the first kernel to the last in which none ran; nothing on a CPU."""
    if not options.device.startswith("cuda"):
        train(recipe, run, console=Console())
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        train(recipe, run, console=Console())
    device = torch.autograd.DeviceType.CUDA
    spans = sorted(
        (event.time_range.start, event.time_range.end) for event in profiler.events() if event.device_type == device
    )
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {recipe.stages[0].name: round(1 - busy / (end - spans[0][0]), 3)}


def _stages(log: Path) -> list[dict[str, Any]]:
    """What the log says of each stage; the first ten steps, which compile and fill caches, do not count."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = []
    for name in dict.fromkeys(line["stage"] for line in lines):
        every = [line for line in lines if line["stage"] == name and line["event"] == "step"]
        steps = every[10:] or every
        took = sum(line["seconds"] / line["speed"] for line in steps)
        dev = [line for line in lines if line["stage"] == name and line["event"] == "dev"]
        rows.append(
            {
                "stage": name,
                "steps": len(every),
                "hours": round(sum(line["seconds"] for line in every) / 3600, 2),
                "hours an hour": round(sum(line["seconds"] for line in steps) / took),
                "waited for data": round(sum(line["waited"] for line in steps) / took, 3),
                "loss": round(every[-1]["loss"], 3),
                "dev CER": round(dev[-1]["cer"], 3) if dev and "cer" in dev[-1] else "",
            }
        )
    return rows


def _script(name: str, options: Namespace, arguments: list[str]) -> dict[str, Any]:
    """The figures of another script, whose tables are shown."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        shared = {key: getattr(options, key) for key in ("repetitions", "threads", "rest", "product", "device")}
        told = [part for key, value in shared.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, str(HERE / name), *told, *arguments, "--json", str(file)]
        subprocess.run(command, check=True, timeout=PATIENCE)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


PARTS = {"kernels": kernels, "losses": losses, "throughput": throughput, "training": training}

if __name__ == "__main__":
    main()
