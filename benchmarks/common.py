"""What every benchmark shares: interleaved timing, the machine's limits, its description, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.metrics.error_rates import ErrorCounts

Work = Callable[[], object]
REST = 0.2
"""Seconds before each call: threads of the call before may still be spinning."""


def parser(docstring: str | None, repetitions: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options of every script; the module's docstring is its help."""
    made = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    if repetitions:
        made.add_argument(
            "--repetitions", type=int, default=repetitions, help="rounds; each runs every row once"
        )
        made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
        made.add_argument("--rest", type=float, default=REST, help="seconds before each call")
        made.add_argument("--product", type=int, default=2048, help="size of the matrices that measure the machine")
    return made


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over the repetitions."""

    median: float
    fastest: float
    slowest: float


def interleaved(rows: dict[str, Work], options: argparse.Namespace, device: str = "cpu") -> dict[str, Timing]:
    """Time every row once a round, in random order, so that neighbours and the machine's load fall on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    shuffled = random.Random(0)
    for turn in range(-1, options.repetitions):  # the first round warms up
        for name in shuffled.sample(list(rows), len(rows)):
            time.sleep(options.rest)
            taken = _seconds(rows[name], device)
            if turn >= 0:
                seconds[name].append(taken)
    return {name: Timing(statistics.median(s), min(s), max(s)) for name, s in seconds.items()}


def _seconds(work: Work, device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: str) -> None:
    """Wait for what was queued on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def floating_point_operations(work: Work) -> int:
    """Operations of the matrix products and convolutions in one call; the rest is not counted."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Limits:
    """What this machine reaches now: FLOP/s of a large matrix product, bytes/s of a copy (read + written)."""

    fp32: float
    bf16: float
    bandwidth: float

    def seconds(self, operations: float, moved: float = 0.0, dtype: torch.dtype = torch.float32) -> float:
        """The roofline: no less time than the operations take, nor than the bytes moved take."""
        rate = self.bf16 if dtype == torch.bfloat16 else self.fp32
        return max(operations / rate, moved / self.bandwidth)


def measure_limits(size: int, device: str = "cpu", repetitions: int = 5) -> Limits:
    """Measured with the threads in use, in the run whose figures are compared with it; size: of the matrices."""

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / min(_seconds(lambda: a @ b, device) for _ in range(repetitions))

    source = torch.ones(1 << 26, device=device)  # 256 MiB, beyond any cache
    target = torch.empty_like(source)
    copied = min(_seconds(lambda: target.copy_(source), device) for _ in range(repetitions))
    return Limits(product(torch.float32), product(torch.bfloat16), 2 * source.nbytes / copied)


def bf16_hardware(device: str = "cpu") -> bool:
    """Whether bf16 products are computed by the hardware and not emulated."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = _processor_field("flags", "Features").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def environment(device: str = "cpu") -> dict[str, Any]:
    """When, where and on which version of the code the figures were made."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *map(_without_root, sys.argv[1:])]),
        "processor": _processor_field("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "bf16_hardware": bf16_hardware(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _without_root(argument: str) -> str:
    """`/home/me/data` -> `…/data`: where a folder lies on this machine says nothing elsewhere."""
    return re.sub(r"(^|=)/(?:[^/]+/)*(?=[^/]+/?$)", r"\1…/", argument)


def _commit() -> str:
    """The commit, with `+changes` where the working tree differs from it; `unknown` outside git."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor_field(*names: str) -> str:
    """The first of these fields in /proc/cpuinfo, or an empty string."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in names), "")


class Peers:
    """Rows of a table that may not be had here; what is missing is named with the reason, not dropped."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.torchaudio = _torchaudio_problem()

    def add(self, rows: dict[str, Work], name: str, build: Callable[[], Work]) -> None:
        """Add the row that `build` makes, unless its package does not import."""
        try:
            rows[name] = build()
        except (ImportError, OSError) as error:
            halted = isinstance(error, ImportError) and (error.name or "").startswith("torchaudio")
            self.leave_out(name, self.torchaudio if halted and self.torchaudio else first_line(error))

    def leave_out(self, name: str, reason: str) -> None:
        """Say that a row is missing, and why."""
        self.missing[name] = reason
        print(f"{name}: not measured here ({reason})")


def _torchaudio_problem() -> str | None:
    """Why torchaudio does not import, if so; it is then hidden from packages that could do without it."""
    try:
        import_module("torchaudio")
    except (ImportError, OSError) as error:
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
        return f"torchaudio does not import: {first_line(error)}"
    return None


def pink(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """So many samples of noise whose power falls as 1/f, of power 1."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return noise / noise.std()


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0].replace(sys.prefix, '…')}"


def timing_rows(
    timings: dict[str, Timing], base: dict[str, str], limits: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    """Rows for `table`: milliseconds, times the row named in `base`, times the machine's limit."""
    rows = []
    for name, timing in timings.items():
        row: dict[str, Any] = {"what": name, "ms": round(timing.median * 1e3, 3)}
        row["fastest"], row["slowest"] = round(timing.fastest * 1e3, 3), round(timing.slowest * 1e3, 3)
        if name in base:
            row["of ours"] = round(timing.median / timings[base[name]].median, 2)
        if limits and name in limits:
            row["of the limit"] = round(timing.median / limits[name], 2)
        rows.append(row)
    return rows


def percent(counts: ErrorCounts) -> tuple[float, float, float]:
    """Errors in % of all units, and the 95 % interval of the bootstrap over clips."""
    sure = bootstrap_interval(counts.errors, counts.totals)
    return 100 * float(counts.errors.sum() / counts.totals.sum()), 100 * sure.low, 100 * sure.high


def rate(counts: ErrorCounts, name: str = "CER", digits: int = 1) -> dict[str, Any]:
    """`percent` as columns."""
    value, low, high = percent(counts)
    return {name: round(value, digits), f"{name} 95 %": f"{low:.1f} – {high:.1f}"}


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows, if any, under their keys: those of all rows, in order of appearance."""
    if not rows:
        return
    print(f"\n{title}")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        print(first[0].ljust(first[1]), *(text.rjust(width) for text, width in others), sep="  ")


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def peak_gib(device: torch.device) -> float:
    """The most memory so far, of the process (CPU) or of its tensors (GPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell the peak of the parent process, which exec does not reset
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def in_process(
    script: str, what: list[str], options: argparse.Namespace, patience: float | None = None
) -> dict[str, Any]:
    """The figures that `script --one WHAT…` finds in a process of its own, told the other options.

    patience: seconds after which it is ended, and subprocess.TimeoutExpired raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        told = {key: value for key, value in vars(options).items() if not isinstance(value, list) and key != "one"}
        told["json"] = file
        arguments = [part for key, value in told.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        command = [sys.executable, script, *arguments, "--one", *what]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=patience)
        return json.loads(file.read_text(encoding="utf-8"))


def finish(path: Path | None, figures: dict[str, Any]) -> None:
    """Write the figures as JSON where asked."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {path}")
