"""What is written where nobody speaks: words a minute in silence, noise and music, beside Whisper.

    python benchmarks/no_speech.py --model NAME=DIR… --music DIR --json benchmarks/results/no_speech.json

Ten minutes each of digital silence, of white and pink noise 30 dB below full scale, and of the music in the folder
(instrumental; `fillets-ng-data` has such), from the first piece again where it does not suffice. Nobody is told the
language. `--whisper` adds faster-whisper base, with its own rule for silence and again with its voice activity filter.
Every word is an invented one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Peers, environment, finish, first_line, parser, pink, table
from numpy.typing import NDArray

import isogloss
from isogloss.audio.reading import SAMPLE_RATE, read

Waveform = NDArray[np.float32]
LEVEL = 10 ** (-30 / 20)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", nargs="+", required=True, metavar="NAME=DIR", help="isogloss model folders")
    arguments.add_argument("--music", type=Path, help="folder of instrumental music")
    arguments.add_argument("--minutes", type=float, default=10.0, help="of each kind")
    arguments.add_argument("--whisper", action="store_true", help="faster-whisper base beside it (peers' environment)")
    options = arguments.parse_args()
    sounds = made(round(options.minutes * 60 * SAMPLE_RATE), options.music)
    systems = dict(map(own_reader, options.model))
    peers = Peers()
    if options.whisper:
        try:
            systems |= whisper_readers()
        except ImportError as error:
            peers.leave_out("Whisper base", first_line(error))
    rows = [
        {"system": name} | {kind: round(words(reader(audio)) / options.minutes, 2) for kind, audio in sounds.items()}
        for name, reader in systems.items()
    ]
    table(f"words a minute where nobody speaks, {options.minutes:g} minutes each", rows)
    finish(options.json, environment() | {"minutes": options.minutes, "rows": rows, "missing": peers.missing})


def made(samples: int, music: Path | None) -> dict[str, Waveform]:
    """The recordings, (S,) each."""
    white = np.random.default_rng(0).standard_normal(samples)
    sounds = {
        "silence": np.zeros(samples, dtype=np.float32),
        "white noise": (LEVEL * white).astype(np.float32),
        "pink noise": (LEVEL * pink(samples, np.random.default_rng(0))).astype(np.float32),
    }
    if music is not None:
        pieces = np.concatenate([read(file) for file in sorted(music.glob("*.ogg"))])
        sounds["music"] = np.resize(pieces, samples)
    return sounds


def own_reader(assignment: str) -> tuple[str, Callable[[Waveform], str]]:
    name, _, folder = assignment.partition("=")
    recogniser = isogloss.load(Path(folder))
    return name, lambda audio: str(recogniser.transcribe(audio).text)


def whisper_readers() -> dict[str, Callable[[Waveform], str]]:
    from faster_whisper import WhisperModel
    from whisper_base import CACHE, joined

    model = WhisperModel(str(joined(CACHE)), device="cpu", compute_type="int8")

    def reader(vad: bool) -> Callable[[Waveform], Any]:
        return lambda audio: " ".join(part.text for part in model.transcribe(audio, beam_size=1, vad_filter=vad)[0])

    return {"Whisper base int8": reader(False), "Whisper base int8, voice activity": reader(True)}


def words(text: str) -> int:
    return len(text.split())


if __name__ == "__main__":
    main()
