"""Quiet around and between speech: what added silence and noise cost, with and without voice activity.

    python benchmarks/quiet.py --model NAME=DIR… --data DIR… --clips DIR… --json benchmarks/results/quiet.json
        --plot docs/quiet.svg                                              (in the project's environment)

Held-out clips, as many a language as asked for, with so many seconds of digital zeros (-inf) or white noise of some
level in dB of full scale on each side; and joined, in one language, to recordings of ten with as long a pause between
them; and with pink noise or four other voices under the whole clip, so many dB below it. The language is not given, as
in most use. `no vad` is `transcribe --no-vad`: everything goes to the encoder,
recordings over 30 s in stretches of 30 s. CER in % with the 95 % interval of the bootstrap over recordings; language
is the share of recordings whose language is guessed right.

`missed`: of short real clips (letters, syllables, words), as they are, 40 dB fainter, and with a second of zeros
on each side, the share in which no speech is found. `found`: of sounds of nobody (zeros, constants, noise, tones, hum)
of 0.5 to 30 s the share in which some is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, percent, pink, table
from lhotse.cut import MonoCut
from matplotlib.figure import Figure
from numpy.typing import NDArray

import isogloss
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.audio.vad import segment
from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, source_of, text_of
from isogloss.errors import AudioError
from isogloss.metrics.error_rates import error_counts
from isogloss.model.recogniser import Recogniser
from isogloss.text.normalise import normalise

Waveform = NDArray[np.float32]
Recording = tuple[Waveform, str, str]
"""Samples, what is said, and in which language."""

SECONDS = (0.2, 0.5, 1.0, 2.0)
LEVELS = (-np.inf, -80.0, -60.0, -40.0)
RATIOS = (20.0, 10.0)
VOICES = 4
JOINED = 10
FAINT = 0.01


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", nargs="+", required=True, metavar="NAME=DIR", help="isogloss model folders")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--limit", type=int, default=40, help="clips a language")
    arguments.add_argument("--seconds", type=float, nargs="+", default=SECONDS, help="of silence or noise")
    arguments.add_argument("--clips", type=Path, nargs="*", default=[], help="prepared corpora of short clips")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the first model's CER there, as SVG")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for name, _, folder in (assignment.partition("=") for assignment in options.model):
        recogniser = isogloss.load(folder)
        recordings = list(chosen(options.data, options.limit, recogniser))
        for how, level, seconds, changed in conditions(recordings, options.seconds):
            about = {"model": name, "where": how, "dB": str(level), "s": seconds}
            rows.append(about | figures(recogniser, changed, "no vad", vad=False) | figures(recogniser, changed, "vad"))
    table(f"{len(recordings)} clips: CER in %, language right in %", rows)
    missed = [row for folder in options.clips for row in misses(folder)]
    table("short clips in which no speech is found, in %", missed)
    found = false_alarms()
    table("sounds of nobody in which speech is found, in %", found)
    if options.plot:
        draw([row for row in rows if row["model"] == rows[0]["model"]], options.plot)
    about = {"data": [folder.name for folder in options.data], "clips": len(recordings)}
    finish(options.json, environment() | about | {"rows": rows, "missed": missed, "found": found})


def chosen(folders: list[Path], limit: int, recogniser: Recogniser) -> Iterator[Recording]:
    """Held-out clips in the languages that the model writes, in a fixed order."""
    taken: dict[str, int] = {}
    for cut in sorted((cut for folder in folders for cut in read_cuts(folder, "test")), key=lambda cut: cut.id):
        language, text = language_of(cut), normalise(text_of(cut) or "", language_of(cut))
        if text and language in recogniser.model.config.alphabets and taken.get(language, 0) < limit:
            taken[language] = taken.get(language, 0) + 1
            yield waveform(cut), text, language


def conditions(
    recordings: list[Recording], seconds: list[float]
) -> Iterator[tuple[str, float, float, list[Recording]]]:
    """Where, at what level and for how long there is quiet, and the recordings with it."""
    yield "nowhere", -np.inf, 0.0, recordings
    for ratio in RATIOS:
        yield "pink noise under", ratio, 0.0, [over_noise(one, ratio, n) for n, one in enumerate(recordings)]
        yield "voices under", ratio, 0.0, [over_voices(recordings, n, ratio) for n in range(len(recordings))]
    for level in LEVELS:
        for length in seconds:
            yield "around", level, length, [surrounded(one, length, level) for one in recordings]
    for level in LEVELS:
        for length in seconds:
            yield "between", level, length, list(joined(recordings, length, level))


def surrounded(recording: Recording, seconds: float, level: float) -> Recording:
    samples, text, language = recording
    return np.concatenate([quiet(seconds, level, 0), samples, quiet(seconds, level, 1)]), text, language


def over_noise(recording: Recording, ratio: float, seed: int) -> Recording:
    samples, text, language = recording
    return mixed(samples, pink(len(samples), np.random.default_rng(seed)), ratio), text, language


def over_voices(recordings: list[Recording], place: int, ratio: float) -> Recording:
    """A clip over the clips that stand behind it in the list, each repeated for as long as it lasts."""
    samples, text, language = recordings[place]
    others = [recordings[(place + n) % len(recordings)][0] for n in range(1, 1 + VOICES)]
    voices = [np.resize(other / max(float(other.std()), 1e-9), len(samples)) for other in others]
    return mixed(samples, np.sum(voices, axis=0), ratio), text, language


def mixed(samples: Waveform, noise: NDArray[np.floating], ratio: float) -> Waveform:
    """Samples with noise `ratio` dB below them."""
    level = float(samples.std()) / max(float(noise.std()), 1e-9) * 10 ** (-ratio / 20)
    return (samples + level * noise).astype(np.float32)


def joined(recordings: list[Recording], seconds: float, level: float) -> Iterator[Recording]:
    """Clips of one language in recordings of ten, or what is left."""
    for language in sorted({language for _, _, language in recordings}):
        own = [one for one in recordings if one[2] == language]
        for start in range(0, len(own), JOINED):
            group = own[start : start + JOINED]
            parts = [group[0][0]]
            for place, (samples, _, _) in enumerate(group[1:], start=start + 1):
                parts += [quiet(seconds, level, place), samples]
            yield np.concatenate(parts), " ".join(text for _, text, _ in group), language


def quiet(seconds: float, level: float, seed: int) -> Waveform:
    """Zeros, or noise."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE), dtype=np.float32)
    return noise * np.float32(10 ** (level / 20))


@torch.inference_mode()
def figures(recogniser: Recogniser, recordings: list[Recording], name: str, vad: bool = True) -> dict[str, Any]:
    """CER and accuracy of the language, as columns."""
    found = recogniser.transcribe([samples for samples, _, _ in recordings], vad=vad)
    written = [normalise(one.text, language) for one, (_, _, language) in zip(found, recordings, strict=True)]
    value, low, high = percent(error_counts([text for _, text, _ in recordings], written, unit="character"))
    right = [one.language == language for one, (_, _, language) in zip(found, recordings, strict=True)]
    interval = f"{low:.1f} – {high:.1f}"
    return {name: round(value, 1), f"{name} 95 %": interval, f"{name} language": round(100 * float(np.mean(right)), 1)}


def misses(folder: Path) -> Iterator[dict[str, Any]]:
    """Of each source in a prepared corpus, all splits: how often no speech is found."""
    sources: dict[str, list[MonoCut]] = {}
    for cut in read_cuts(folder):
        sources.setdefault(source_of(cut), []).append(cut)
    second = np.zeros(SAMPLE_RATE, dtype=np.float32)
    ways: dict[str, Callable[[Waveform], Waveform]] = {
        "missed": lambda samples: samples,
        "40 dB fainter": lambda samples: samples * np.float32(FAINT),
        "with silence around": lambda samples: np.concatenate([second, samples, second]),
    }
    for source, cuts in sources.items():
        clips = [samples for cut in cuts if (samples := readable(cut)) is not None]
        lengths = [len(samples) / SAMPLE_RATE for samples in clips]
        about = {"corpus": source, "clips": len(clips), "median s": round(float(np.median(lengths)), 2)}
        shares = {way: [not segment(change(samples)) for samples in clips] for way, change in ways.items()}
        yield about | {way: round(100 * float(np.mean(missed)), 2) for way, missed in shares.items()}


def readable(cut: MonoCut) -> Waveform | None:
    try:
        return waveform(cut)
    except AudioError:
        return None


def false_alarms() -> list[dict[str, Any]]:
    """By kind of sound, at -60, -40 and -20 dB and in lengths of 0.5 to 30 s."""
    rows = []
    for kind, make in SOUNDS.items():
        made = [
            np.float32(10 ** (level / 20)) * make(round(seconds * SAMPLE_RATE), np.random.default_rng(seed))
            for level in (-60, -40, -20)
            for seconds in (0.5, 1, 3, 10, 30)
            for seed in range(3)
        ]
        found = [bool(segment(samples.astype(np.float32))) for samples in made]
        rows.append({"sound": kind, "recordings": len(made), "found": round(100 * float(np.mean(found)), 1)})
    return rows


def tone(count: int, hertz: float) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hertz * np.arange(count) / SAMPLE_RATE)


def hum(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Mains and its harmonics."""
    mains = float(random.choice([50.0, 60.0]))
    return np.sum([tone(count, mains * n) / n for n in range(1, 12)], axis=0)


SOUNDS: dict[str, Callable[[int, np.random.Generator], NDArray[np.float64]]] = {
    "zeros": lambda count, _: np.zeros(count),
    "constant": lambda count, _: np.ones(count),
    "white noise": lambda count, random: random.standard_normal(count),
    "pink noise": pink,
    "tone": lambda count, random: tone(count, float(random.uniform(100, 4000))),
    "hum": hum,
}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """CER over the seconds of quiet: a line for each level; dashed without voice activity."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    plots = figure.subplots(1, 2, sharey=True)
    (start,) = (row for row in rows if row["where"] == "nowhere")
    for axes, where in zip(plots, ("around", "between"), strict=True):
        for level, colour in zip(LEVELS, ("#009e73", "#0072b2", "#d55e00", "#cc79a7"), strict=True):
            own = [row for row in rows if row["where"] == where and row["dB"] == str(level)]
            own = [start, *own] if where == "around" else own
            seconds = [row["s"] for row in own]
            label = "digital zeros" if level == -np.inf else f"noise, {level:g} dB"
            axes.plot(seconds, [row["vad"] for row in own], "o-", color=colour, markersize=3, label=label)
            axes.plot(seconds, [row["no vad"] for row in own], "o--", color=colour, markersize=3, linewidth=0.8)
        axes.set(xlabel=f"seconds {where} the clips", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    plots[0].set_ylabel("CER, %")
    plots[0].legend(frameon=False, fontsize=7, title="dashed: --no-vad", title_fontsize=7)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
