"""Training in processes of its own: started, waited for, killed; and what a run left."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml

from isogloss.training.journal import read_log

VOLATILE = {"time", "speed", "waited"}


def start(
    recipe: dict[str, Any], run: Path, *options: str, processes: int = 1, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """`isogloss train` in a process of its own, or in several by torchrun; launcher: options of that."""
    path = run.parent / f"{run.name}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launcher, "-m"]
    command = [sys.executable, *(launch if processes > 1 else ["-m"]), "isogloss", "train", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", str(run), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What a process said that ends well."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return errors


def steps(run: Path) -> list[dict[str, Any]]:
    """The records of a run without what depends on the clock."""
    return [{k: v for k, v in record.items() if k not in VOLATILE} for record in read_log(run)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def kill_after(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """SIGKILL as soon as the log shows a step."""
    wait_for(process, run, step)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until the log shows a step; what never comes so far is ended."""
    deadline = time.monotonic() + 300
    pattern = re.compile(rf'"event": "step", "stage": "\w+", "step": {step},')
    while time.monotonic() < deadline:
        log = run / "log.jsonl"
        if log.exists() and pattern.search(log.read_text(encoding="utf-8")):
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    for found in (*children(process), process.pid):
        os.kill(found, signal.SIGKILL)
    raise AssertionError("the run never came so far")
