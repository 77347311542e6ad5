"""How long transcribing takes: real-time factor and peak memory on short and long recordings, beside peers.

    python benchmarks/transcription.py --model DIR --data DIR… --json benchmarks/results/transcription.json

Recordings are clips of the prepared corpora one after another, in one language, with half a second of silence
between, and again from the first clip where they do not suffice. Each system reads one recording, on the same number
of threads, in a process of its own: loading is not counted, a second of audio before warms up. isogloss cuts long
recordings at pauses and reads the pieces in batches; faster-whisper (base, 74 M, int8) goes from window to
window; pocketsphinx is given its own English models, whatever is said. A real-time factor of 0.1 is six seconds a
minute of speech. `of ours` is the time over that of the first row on the same recording. Peak memory is that of
the process above what it held with the model loaded.
"""

from __future__ import annotations

import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Peers, environment, finish, first_line, in_process, parser, peak_gib, table
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts

Waveform = NDArray[np.float32]
Reader = Callable[[Waveform], str]
PAUSE = np.zeros(SAMPLE_RATE // 2, dtype=np.float32)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, required=True, help="folder made by isogloss prepare")
    arguments.add_argument("--split", default="test")
    arguments.add_argument("--language", default="ru", help="of the clips, and told to every system that asks")
    arguments.add_argument("--seconds", type=int, nargs="+", default=[10, 600, 3600], help="lengths of recordings")
    arguments.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    arguments.add_argument("--longest-of-peers", type=int, default=600, help="seconds; peers are spared longer ones")
    arguments.add_argument("--patience", type=int, default=5400, help="seconds after which a system is ended")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--one", nargs=2, metavar=("SYSTEM", "SECONDS"), help="this one, in this process")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        finish(options.json, one(options.one[0], int(options.one[1]), options))
        return
    peers = Peers()
    rows: list[dict[str, Any]] = []
    for seconds in options.seconds:
        first = None
        for name in options.systems:
            if name.startswith("isogloss") or seconds <= options.longest_of_peers:
                try:
                    found = in_process(__file__, [name, str(seconds)], options, options.patience)
                except subprocess.TimeoutExpired:
                    rows.append({"system": name, "audio s": seconds, "ended after s": options.patience})
                    continue
                if "missing" in found:
                    peers.leave_out(name, found["missing"])
                    continue
                first = first or found["s"]
                rows.append(found | {"of ours": round(found["s"] / first, 2)})
    table(f"transcription with {options.threads} threads", rows)
    about = {"data": options.data.name, "language": options.language, "rows": rows, "missing": peers.missing}
    finish(options.json, environment() | about)


def one(name: str, seconds: int, options: Namespace) -> dict[str, Any]:
    """Time and memory of one system on one recording in this process, or why it is missing here."""
    audio = recording(options, seconds)
    device = torch.device("cpu")
    try:
        read = SYSTEMS[name](options)
    except ImportError as error:
        return {"missing": first_line(error)}
    read(audio[:SAMPLE_RATE])
    before = peak_gib(device)
    began = time.perf_counter()
    text = read(audio)
    taken = time.perf_counter() - began
    return {
        "system": name,
        "audio s": seconds,
        "s": round(taken, 3),
        "real-time factor": round(taken / seconds, 4),
        "peak GiB above the model": round(max(0.0, peak_gib(device) - before), 2),
        "words": len(text.split()),
    }


def recording(options: Namespace, seconds: int) -> Waveform:
    """Clips one after another, from the first again, cut to length."""
    cuts = [cut for cut in read_cuts(options.data, options.split) if language_of(cut) == options.language]
    parts: list[Waveform] = []
    length = 0
    while length < seconds * SAMPLE_RATE:
        for cut in cuts:
            parts += [waveform(cut), PAUSE]
            length += len(parts[-2]) + len(PAUSE)
            if length >= seconds * SAMPLE_RATE:
                break
    return np.concatenate(parts)[: seconds * SAMPLE_RATE]


def isogloss_reader(options: Namespace, beam: int = 0) -> Reader:
    import isogloss

    recogniser = isogloss.load(options.model)
    search = recogniser.beam(beam) if beam else None
    return lambda audio: recogniser.transcribe(audio, language=options.language, beam=search).text


def whisper_reader(options: Namespace, beam: int) -> Reader:
    from faster_whisper import WhisperModel
    from whisper_base import CACHE, joined

    model = WhisperModel(str(joined(CACHE)), device="cpu", compute_type="int8", cpu_threads=options.threads)

    def read(audio: Waveform) -> str:
        segments, _ = model.transcribe(audio, language=options.language, beam_size=beam)
        return " ".join(segment.text for segment in segments)

    return read


def pocketsphinx_reader(options: Namespace) -> Reader:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def read(audio: Waveform) -> str:
        decoder.start_utt()
        decoder.process_raw((audio * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return read


SYSTEMS: dict[str, Callable[[Namespace], Reader]] = {
    "isogloss": isogloss_reader,
    "isogloss, beam 8": partial(isogloss_reader, beam=8),
    "faster-whisper base int8, greedy": partial(whisper_reader, beam=1),
    "faster-whisper base int8, beam 5": partial(whisper_reader, beam=5),
    "pocketsphinx (English)": pocketsphinx_reader,
}


if __name__ == "__main__":
    main()
