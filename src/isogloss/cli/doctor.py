"""`isogloss doctor`: what this machine offers, measured where a promise would not do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isogloss import __version__

if TYPE_CHECKING:
    from rich.table import Table

STACK = ("torch", "numpy", "lhotse", "soundfile", "av", "soxr", "silero-vad", "sentencepiece", "safetensors")
EXTRAS = {"tensorboard": "tensorboard", "pyarrow": "datasets"}
FORMATS = ("WAV", "FLAC", "OGG")
GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One line. A `problem` is something isogloss cannot work with; a `note` costs comfort or speed."""

    what: str
    value: str
    verdict: Literal["good", "note", "problem"] = "good"


def examine() -> list[Finding]:
    """Everything there is to tell; takes seconds, for PyTorch is loaded and measured."""
    return [
        Finding("isogloss", __version__),
        Finding("Python", f"{platform.python_version()} in {sys.prefix}"),
        Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        *_packages(),
        *_if_installed(_compute),
        _memory(),
        *_if_installed(_audio_formats),
        _debian(),
        _cache(),
    ]


def render(findings: list[Finding]) -> Table:
    """The findings as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    signs = {"good": "[green]✓", "note": "[yellow]·", "problem": "[red]✗"}
    table = Table.grid(padding=(0, 2))
    for found in findings:
        table.add_row(signs[found.verdict], found.what, escape(found.value))
    return table


def _packages() -> Iterator[Finding]:
    found = {name: _version(name) for name in STACK}
    yield Finding("packages", ", ".join(f"{name} {number}" for name, number in found.items() if number))
    for name, number in found.items():
        if not number:
            yield Finding(name, "not installed: pip install -U isogloss", "problem")
    for name, extra in EXTRAS.items():
        if number := _version(name):
            yield Finding(name, number)
        else:
            yield Finding(name, f"not installed; if needed: pip install isogloss[{extra}]", "note")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _if_installed(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds that needs packages, unless one cannot be imported."""
    try:
        yield from look()
    except ImportError as error:
        yield Finding(error.name or "a package", f"cannot be imported ({error}): pip install -U isogloss", "problem")


def _compute() -> Iterator[Finding]:
    import torch

    from isogloss.training.hardware import bf16_is_faster, choose_device

    yield Finding(
        "processor", f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    )
    if bf16_is_faster(torch.device("cpu")):
        yield Finding("bf16 on it", "measured faster than fp32: precision auto takes it")
    else:
        yield Finding("bf16 on it", "measured slower than fp32: precision auto takes fp32", "note")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that this PyTorch can use; small models train on the processor", "note")
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if bf16_is_faster(choose_device(f"cuda:{index}")) else "no bf16"
        yield Finding(f"GPU {index}", f"{card.name}, {card.total_memory / GIB:.0f} GiB, {bf16}")


def _processor() -> str:
    """The model name; Python itself knows only the architecture on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> Finding:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page / GIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    return Finding("memory", f"{total:.1f} GiB, {free:.1f} GiB unused", "good" if total >= 4 else "note")


def _audio_formats() -> Iterator[Finding]:
    import av
    import soundfile

    missing = [name for name in FORMATS if name not in soundfile.available_formats()]
    if "OPUS" not in soundfile.available_subtypes("OGG"):
        missing.append("Opus")
    if missing:
        yield Finding("audio", f"this libsndfile cannot read {', '.join(missing)}; update soundfile", "problem")
    else:
        yield Finding(
            "audio",
            f"WAV, FLAC, Ogg Vorbis and Opus (libsndfile {soundfile.__libsndfile_version__}); "
            f"MP3, m4a, mp4, webm, AMR, WMA (FFmpeg {av.ffmpeg_version_info})",
        )


def _debian() -> Finding:
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        said = f"{', '.join(missing)} missing: use your own speech, isogloss demo --data FOLDER"
        return Finding("Debian corpora", said, "note")
    return Finding("Debian corpora", "can be fetched with apt-get; root is not needed")


def _cache() -> Finding:
    from isogloss.data.fetch import cache_folder

    folder = cache_folder()
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(parent, os.W_OK):
        return Finding(
            "cache", f"{folder} cannot be written; set ISOGLOSS_CACHE to another folder", "problem"
        )
    free = shutil.disk_usage(parent).free / GIB
    return Finding("cache", f"{folder}, {free:.0f} GiB free", "good" if free >= 2 else "note")
