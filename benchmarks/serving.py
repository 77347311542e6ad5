"""How a server bears load: many clients, each with one recording after another, for some minutes.

    python benchmarks/serving.py --model DIR --data DIR… --json benchmarks/results/serving.json

Clients send clips of prepared corpora to `isogloss serve` on the loopback, each the next as soon as it has its answer,
and tell the language with `--language told`. Latency is from the first byte sent to the last received. `audio s/s`:
seconds of audio answered in a second. Memory is that of the server's process in MiB: the most, and the median of each
tenth of the time. `--peer DIR` also loads, with the same clients and clips,
thirty lines of FastAPI around faster-whisper, whose CTranslate2 folder DIR is; `--peer-python` is a Python with both.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import soundfile as sf
from common import environment, finish, parser, table

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, language_of, read_cuts
from isogloss.serving.server import bound

PEER = '''
import sys, tempfile
import uvicorn
from fastapi import FastAPI, Form, UploadFile
from faster_whisper import WhisperModel

model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=int(sys.argv[3]))
app = FastAPI()

@app.get("/health")
def health():
    return {"status": "ok"}

@app.post("/v1/audio/transcriptions")
def transcriptions(file: UploadFile, model_name: str = Form("", alias="model"), language: str | None = Form(None)):
    segments, _ = model.transcribe(file.file, language=language, beam_size=1)
    return {"text": "".join(segment.text for segment in segments).strip()}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
'''


@dataclass(frozen=True)
class Clip:
    """A recording as it is sent."""

    content: bytes
    seconds: float
    language: str | None


@dataclass
class Load:
    """What the clients saw of one server."""

    latencies: list[float] = field(default_factory=list)
    audio: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--language", choices=("told", "guessed"), default="told")
    arguments.add_argument("--clients", type=int, default=16)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--limit", type=int, default=200, help="clips")
    arguments.add_argument("--threads", type=int, default=2, help="of each server")
    arguments.add_argument("--peer", type=Path, metavar="DIR", help="CTranslate2 folder of a Whisper")
    arguments.add_argument("--peer-python", default=sys.executable, help="a Python with faster-whisper and FastAPI")
    options = arguments.parse_args()
    clips = read_clips(options)
    commands = {"isogloss serve": [sys.executable, "-m", "isogloss", "serve", "--model", str(options.model)]}
    if options.peer:
        commands["faster-whisper in FastAPI"] = [options.peer_python, "-c", PEER, str(options.peer)]
    rows = []
    for name, command in commands.items():
        with server(name, command, options) as (port, process):
            rows.append(figures(name, under_load(port, process.pid, clips, options), options))
    if options.peer:
        rows[-1]["of ours"] = round(rows[0]["audio s/s"] / max(rows[-1]["audio s/s"], 1e-9), 2)
    table(f"{options.clients} clients for {options.minutes:g} min, {len(clips)} clips, {options.threads} threads", rows)
    finish(options.json, environment() | {"language": options.language, "clips": len(clips), "rows": rows})


def read_clips(options: Namespace) -> list[Clip]:
    """Clips evenly spread over the split, as FLAC."""
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    places = np.unique(np.linspace(0, len(cuts) - 1, min(options.limit, len(cuts))).round().astype(int))
    clips = []
    for cut in (cuts[place] for place in places):
        content = BytesIO()
        sf.write(content, waveform(cut), SAMPLE_RATE, format="FLAC")
        told = language_of(cut) if options.language == "told" else None
        clips.append(Clip(content.getvalue(), cut.duration, told))
    return clips


@contextlib.contextmanager
def server(name: str, command: list[str], options: Namespace) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server in a process of its own, and its port, once it answers."""
    with bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    threads = str(options.threads)
    more = ["--port", str(port)] if name.startswith("isogloss") else [str(port), threads]
    variables = os.environ | {"OMP_NUM_THREADS": threads}
    process = subprocess.Popen([*command, *more], env=variables, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} does not start: {' '.join(command[:4])} …")
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait(60)


def under_load(port: int, pid: int, clips: list[Clip], options: Namespace) -> Load:
    """Let the clients loose until the time is over; the first answer of each warms up and is not counted."""
    load, lock = Load(), threading.Lock()
    ready = threading.Barrier(options.clients + 1)
    ends = [0.0]

    def client(number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as connection:
            send(connection, draw.choice(clips))
            ready.wait()
            while time.monotonic() < ends[0]:
                clip = draw.choice(clips)
                began = time.monotonic()
                status = send(connection, clip)
                with lock:
                    load.statuses[status] += 1
                    if status == "200":
                        load.latencies.append(time.monotonic() - began)
                        load.audio += clip.seconds

    threads = [threading.Thread(target=client, args=(number,)) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    ends[0] = time.monotonic() + 3600  # nobody stops before the clock is set
    ready.wait()
    ends[0] = time.monotonic() + 60 * options.minutes
    while any(thread.is_alive() for thread in threads):
        load.memory.append(resident_mib(pid))
        time.sleep(min(1.0, 60 * options.minutes / 10))
    return load


def send(connection: httpx.Client, clip: Clip) -> str:
    """The status of an answer, or what happened instead."""
    fields = {"model": "", "language": clip.language or ""} if clip.language else {}
    try:
        answer = connection.post("/v1/audio/transcriptions", files={"file": ("a.flac", clip.content)}, data=fields)
    except httpx.TransportError as error:
        return type(error).__name__
    json.loads(answer.content)
    return str(answer.status_code)


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def figures(name: str, load: Load, options: Namespace) -> dict[str, Any]:
    """Throughput, latency in ms, memory in MiB."""
    if not load.latencies:
        raise SystemExit(f"{name} answered nothing: {dict(load.statuses)}")
    tenths = [statistics.median(part) for part in np.array_split(load.memory, 10) if len(part)]
    quantiles = {f"{q} %": round(1000 * float(np.quantile(load.latencies, q / 100))) for q in (50, 90, 99)}
    return {
        "server": name,
        "answers": sum(load.statuses.values()),
        "failed": sum(count for status, count in load.statuses.items() if status != "200"),
        "5xx": sum(count for status, count in load.statuses.items() if not status.startswith(("2", "4"))),
        "audio s/s": round(load.audio / (60 * options.minutes), 2),
        **{f"latency: {share}": value for share, value in quantiles.items()},
        "memory": round(max(load.memory)),
        "memory by tenths": " ".join(f"{size:.0f}" for size in tenths),
    }


if __name__ == "__main__":
    main()
