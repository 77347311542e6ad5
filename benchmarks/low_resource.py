"""What the experiments with text share: corpora with few transcripts, the text encoder, evaluations that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from isogloss.data.manifests import (
    TEXT,
    count_cuts,
    language_of,
    read_card,
    read_cuts,
    split_of,
    text_of,
    write_card,
    write_cuts,
)
from isogloss.data.splits import held_out_texts
from isogloss.evaluation.results import Evaluation
from isogloss.files import read_json, write_json
from isogloss.text.corpus import TextLine, write_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.source import translated

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def with_few_labels(
    folders: list[Path], out: Path, languages: list[str], minutes: dict[str, float], *, translations: bool = False
) -> Path:
    """Write the clips of these languages with `minutes` of transcripts in each train split, 0 where not given.

    The other train clips keep their sound and lose their text, which becomes unspoken text of the corpus; with
    `translations` so does what train clips of any language of the folders say in these. A language of 0 minutes has
    no transcripts in dev either, so that none chooses its weights. Otherwise dev and test stay as they are; train
    clips that say what is said in them, or in a translation, are left out. Fewer minutes are part of more: clips are
    taken in the order of a hash of their names.
    """
    if (out / TEXT).exists():
        return out
    every = [cut for folder in folders for cut in read_cuts(folder)]
    cuts = [cut for cut in every if language_of(cut) in languages]
    held_out = held_out_texts(cuts)
    kept = [cut for cut in cuts if split_of(cut) in ("dev", "test") or _said(cut) not in held_out]
    left = {language: 60 * minutes.get(language, 0.0) for language in languages}
    lines = [line for line in translated(every) if translations and line.language in languages]
    for cut in sorted(kept, key=lambda cut: blake2b(cut.id.encode()).digest()):
        text = text_of(cut)
        if split_of(cut) == "dev" and text and not minutes.get(language_of(cut)):
            cut.supervisions[0].text = None
        if split_of(cut) != "train" or not text:
            continue
        left[language_of(cut)] -= cut.duration
        if left[language_of(cut)] < 0:
            lines.append(TextLine(text, language_of(cut), "captions"))
            cut.supervisions[0].text = None
    out.mkdir(parents=True, exist_ok=True)
    write_cuts(out, kept)
    write_card(out, read_card(folders[0]) | {"name": out.name, "languages": count_cuts(kept)})
    write_text_lines(lines, out / TEXT)
    return out


def text_encoder(**changes: object) -> str:
    """A change to a recipe: the text encoder that both experiments begin with, with changes."""
    values = {"entry": 2, "layers": 2, "refiner": 1, "duration_layers": 2, "dropout": 0.0} | changes
    return f"model.text={json.dumps(values)}"


def evaluated(file: Path, evaluate: Callable[[], Evaluation]) -> Evaluation:
    """What is kept in a file; evaluated and written there if it is not there."""
    if not file.exists():
        write_json(file, evaluate().plain())
    return Evaluation.parse(read_json(file), str(file))


Rates = dict[str, dict[str, dict[str, tuple[float, float, float]]]]
"""Error rates in % with their intervals, by panel, series and arm."""


def draw_rates(rates: Rates, path: Path) -> None:
    """Panels side by side with a line for each arm, as SVG."""
    arms = list(dict.fromkeys(arm for panel in rates.values() for series in panel.values() for arm in series))
    figure = Figure(figsize=(2 + 2.6 * len(rates), 1.2 + 0.25 * len(arms)), layout="constrained")
    axes = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for ax, (title, panel) in zip(axes, rates.items(), strict=True):
        for mark, (name, series) in zip("oDs^", panel.items(), strict=False):
            value, low, high = np.array(list(series.values())).T
            places = [arms.index(arm) for arm in series]
            ax.errorbar(value, places, xerr=[value - low, high - value], fmt=mark, markersize=4, label=name)
        ax.set(title=title, xlabel="CER, %", yticks=range(len(arms)), yticklabels=arms)
        ax.grid(axis="x", color="0.9")
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _said(cut: MonoCut) -> str:
    """The normalised text of a cut."""
    return normalise(text_of(cut) or "", language_of(cut)) or cut.id
