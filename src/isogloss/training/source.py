"""The data of a run: cuts in memory, and the micro-batches of each step."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from isogloss.data.loading import as_cut, language_of
from isogloss.data.manifests import TEXT, read_cuts, source_of, split_of, text_of, translations_of
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.text.corpus import TextLine, clean_text, read_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.recipe import DataRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

def read_data(recipe: DataRecipe, split: str) -> list[MonoCut]:
    """The cuts of a split of all folders, within the recipe's languages and lengths."""
    cuts = [cut for folder in recipe.folders for cut in read_cuts(folder, split)]
    present = {language_of(cut) for cut in cuts}
    for language in recipe.languages:
        if cuts and language not in present:
            raise IsoglossError(
                f'data.languages: the data hold no "{language}".{did_you_mean(language, present)} '
                f"They hold: {', '.join(sorted(present))}."
            )
    wanted = set(recipe.languages) or present
    return [cut for cut in cuts if language_of(cut) in wanted and recipe.shortest <= cut.duration <= recipe.longest]


def read_texts(recipe: DataRecipe) -> list[MonoCut]:
    """The unspoken text of all folders as cuts without recordings, in the recipe's languages, `longest` at most.

    With `recipe.translations`, also what train clips say in other languages, as far as the recipe names them or
    somebody speaks them in the data. No sentence of any folder's dev or test split is among them, in any language.
    """
    clips = [cut for folder in recipe.folders for cut in read_cuts(folder)]
    wanted = set(recipe.languages)
    lines = [line for path in unspoken(recipe.folders) for line in read_text_lines(path)]
    if recipe.translations:
        spoken = wanted or {language_of(cut) for cut in clips}
        lines += [line for line in translated(clips) if line.language in spoken]
    cleaned = clean_text(lines, Counter(), exclude=held_out_texts(clips))
    cuts = [as_cut(line) for line in cleaned if not wanted or line.language in wanted]
    return [cut for cut in cuts if cut.duration <= recipe.longest]


def translated(cuts: Iterable[MonoCut]) -> Iterator[TextLine]:
    """What the train clips say, in the languages into which the corpus translates it."""
    for cut in cuts:
        if split_of(cut) == "train":
            for tag, text in translations_of(cut).items():
                yield TextLine(text, tag, source_of(cut))


def forget_held_out(cuts: list[MonoCut], recipe: DataRecipe) -> None:
    """Take out of the translations of train cuts what a dev or test split of any folder says, in any language."""
    held_out = held_out_texts(cut for folder in recipe.folders for cut in read_cuts(folder))
    for cut in cuts:
        if told := translations_of(cut):
            kept = {tag: text for tag, text in told.items() if normalise(text, tag) not in held_out}
            cut.custom = (cut.custom or {}) | {"translations": kept}


def transcribed(cuts: list[MonoCut]) -> list[MonoCut]:
    """The cuts with a text of which something is left after normalisation."""
    return [cut for cut in cuts if (text := text_of(cut)) and normalise(text, language_of(cut))]


def unspoken(folders: Iterable[Path]) -> list[Path]:
    """The files of unspoken text that prepared corpora have."""
    return [folder / TEXT for folder in folders if (folder / TEXT).exists()]


def fingerprint(cuts: list[MonoCut]) -> str:
    """A digest of which clips with which texts are trained on."""
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(f"{cut.id}\t{cut.duration:.3f}\t{text_of(cut)}\n".encode())
    return digest.hexdigest()
