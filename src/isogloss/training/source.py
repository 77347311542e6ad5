"""The clips and sentences of a run: which of those that its folders hold are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as ListOf
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isogloss.data.clips import Clips, joined, open_corpus, told_apart
from isogloss.data.loading import as_cut
from isogloss.data.manifests import TEXT, hash_of, source_of, translations_of
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError, counted, did_you_mean
from isogloss.text.corpus import TextLine, clean_text, read_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.recipe import DataRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def opened(recipe: DataRecipe) -> list[Clips]:
    """All clips of each folder of a recipe."""
    return [open_corpus(folder) for folder in recipe.folders]


def read_data(
    recipe: DataRecipe, split: str, left_out: Counter[str] | None = None, folders: ListOf[Clips] | None = None
) -> Clips:
    """The clips of a split of all folders, within the recipe's languages and lengths.

    No train clip says what the dev or test split of another folder says, in whatever language; within a folder that is
    the matter of `isogloss prepare`. left_out: counts the clips in the recipe's languages that are not among them, by
    the reason. folders: those of the recipe, where they are open.
    """
    folders = opened(recipe) if folders is None else folders
    of_split = [clips.select(clips.in_split(split)) for clips in folders]
    present = {tag for clips in of_split for tag in clips.languages()}
    for language in recipe.languages:
        if split == "train" and present and language not in present:
            raise IsoglossError(
                f'data.languages: the data hold no "{language}".{did_you_mean(language, present)} '
                f"They hold: {', '.join(sorted(present))}."
            )
    wanted = set(recipe.languages) or present
    elsewhere: Iterable[set[str]] = _held_out_elsewhere(folders) if split == "train" else repeat(set())
    fit = [
        _fit(clips.select(clips.of_languages(wanted.__contains__)), recipe, held_out, left_out)
        for clips, held_out in zip(of_split, elsewhere, strict=False)
    ]
    return joined(told_apart(fit))


def _fit(clips: Clips, recipe: DataRecipe, held_out: set[str], left_out: Counter[str] | None) -> Clips:
    """The clips that are used; each of the others is counted once, by the reason in words that follow its number."""
    known = np.fromiter(map(hash_of, held_out), np.int64)
    unfit = {
        f"shorter than {recipe.shortest:g} s (data.shortest)": clips.durations < recipe.shortest,
        f"longer than {recipe.longest:g} s (data.longest)": clips.durations > recipe.longest,
        "whose text another folder holds out for dev or test": np.isin(clips.said, known),
    }
    kept = np.ones(len(clips), dtype=bool)
    for reason, mask in unfit.items():
        if left_out is not None and (count := int((mask & kept).sum())):
            left_out[reason] += count
        kept &= ~mask
    return clips.select(kept)


def _held_out_elsewhere(folders: ListOf[Clips]) -> Iterator[set[str]]:
    """For each folder the normalised texts that dev and test clips of the others say, in whatever language."""
    held_out = [held_out_texts(_held_out(clips)) for clips in folders]
    holders = Counter(text for texts in held_out for text in texts)
    for own in held_out:
        yield {text for text, count in holders.items() if count > (text in own)}


def _held_out(clips: Clips) -> Clips:
    """Those for dev and test."""
    return clips.select(clips.in_split("dev") | clips.in_split("test"))


def summary(train: Clips, paired: Clips, left_out: Counter[str]) -> str:
    """What is trained on and what is not, in one line."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    without = f"; left out: {reasons}" if reasons else ""
    return f"{counted(len(train), 'training clip')}, {len(paired)} of them transcribed{without}"


def read_texts(recipe: DataRecipe, folders: ListOf[Clips] | None = None) -> Clips:
    """The unspoken text of all folders as cuts without recordings, in the recipe's languages, `longest` at most.

    With `recipe.translations`, also what train clips say in other languages, as far as the recipe names them or
    somebody speaks them in the data. No sentence of any folder's dev or test split is among them, in any language.
    folders: as of `read_data`.
    """
    folders = opened(recipe) if folders is None else folders
    wanted = set(recipe.languages)
    lines = [line for path in unspoken(recipe.folders) for line in read_text_lines(path)]
    if recipe.translations:
        spoken = wanted or {tag for clips in folders for tag in clips.languages()}
        found = (line for clips in folders for line in translated(clips.select(clips.in_split("train"))))
        lines += [line for line in found if line.language in spoken]
    cleaned = clean_text(lines, Counter(), exclude=all_held_out(folders))
    cuts = [as_cut(line) for line in cleaned if not wanted or line.language in wanted]
    return Clips.of(cut for cut in cuts if cut.duration <= recipe.longest)


def all_held_out(folders: Iterable[Clips]) -> set[str]:
    """The normalised texts that dev and test clips of any folder say, in whatever language."""
    return {text for clips in folders for text in held_out_texts(_held_out(clips))}


def translated(clips: Iterable[MonoCut]) -> Iterator[TextLine]:
    """What clips say in the languages into which the corpus translates it."""
    for cut in clips:
        for tag, text in translations_of(cut).items():
            yield TextLine(text, tag, source_of(cut))


def without_held_out(clips: Clips, folders: Iterable[Clips]) -> Clips:
    """The clips without translations that a dev or test split of any folder says, in any language."""
    held_out = all_held_out(folders)

    def change(cut: MonoCut) -> MonoCut:
        kept = {tag: text for tag, text in translations_of(cut).items() if normalise(text, tag) not in held_out}
        return replace(cut, custom=(cut.custom or {}) | {"translations": kept})

    return clips.changed(change)


def transcribed(clips: Clips) -> Clips:
    """Those with a text of which something is left after normalisation."""
    return clips.select(clips.said != 0)


def unspoken(folders: Iterable[Path]) -> list[Path]:
    """The files of unspoken text that prepared corpora have."""
    return [folder / TEXT for folder in folders if (folder / TEXT).exists()]


