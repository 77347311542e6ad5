"""The clips and sentences of a run: which of those that its folders hold are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from isogloss.data.loading import as_cut
from isogloss.data.manifests import TEXT, language_of, read_cuts, source_of, split_of, text_of, translations_of
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError, counted, did_you_mean
from isogloss.text.corpus import TextLine, clean_text, read_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.recipe import DataRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def read_data(recipe: DataRecipe, split: str, left_out: Counter[str] | None = None) -> list[MonoCut]:
    """The cuts of a split of all folders, within the recipe's languages and lengths.

    No train clip says what the dev or test split of another folder says, in whatever language; within a folder that is
    the matter of `isogloss prepare`. left_out: counts the clips in the recipe's languages that are not among them, by
    the reason.
    """
    folders = [read_cuts(folder) for folder in recipe.folders]
    present = {language_of(cut) for clips in folders for cut in clips if split_of(cut) == split}
    for language in recipe.languages:
        if split == "train" and present and language not in present:
            raise IsoglossError(
                f'data.languages: the data hold no "{language}".{did_you_mean(language, present)} '
                f"They hold: {', '.join(sorted(present))}."
            )
    wanted = set(recipe.languages) or present
    kept = []
    for clips, elsewhere in zip(folders, _held_out_elsewhere(folders), strict=True):
        for cut in clips:
            if split_of(cut) == split and language_of(cut) in wanted:
                reason = _unfit(cut, recipe, elsewhere if split == "train" else frozenset())
                if not reason:
                    kept.append(cut)
                elif left_out is not None:
                    left_out[reason] += 1
    return kept


def tell_apart(cuts: Iterable[MonoCut]) -> None:
    """Give every cut an id of its own: of folders that share ids, the later ones get `id#2`, `id#3`, …

    Labels and broken clips of a run are known by id, and ids are unique within a folder only.
    """
    count: Counter[str] = Counter()
    for cut in cuts:
        count[cut.id] += 1
        if (number := count[cut.id]) > 1:
            cut.id = f"{cut.id}#{number}"  # no folder has such ids: see `Utterance`


def _held_out_elsewhere(folders: list[list[MonoCut]]) -> Iterator[set[str]]:
    """For each folder the normalised texts that dev and test clips of the others say, in whatever language."""
    held_out = [held_out_texts(clips) for clips in folders]
    holders = Counter(text for texts in held_out for text in texts)
    for own in held_out:
        yield {text for text, count in holders.items() if count > (text in own)}


def _unfit(cut: MonoCut, recipe: DataRecipe, held_out: AbstractSet[str]) -> str:
    """Why a clip is left out, in words that follow its number; empty if it is not."""
    if cut.duration < recipe.shortest:
        return f"shorter than {recipe.shortest:g} s (data.shortest)"
    if cut.duration > recipe.longest:
        return f"longer than {recipe.longest:g} s (data.longest)"
    if held_out and normalise(text_of(cut) or "", language_of(cut)) in held_out:
        return "whose text another folder holds out for dev or test"
    return ""


def summary(train: list[MonoCut], paired: list[MonoCut], left_out: Counter[str]) -> str:
    """What is trained on and what is not, in one line."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    without = f"; left out: {reasons}" if reasons else ""
    return f"{counted(len(train), 'training clip')}, {len(paired)} of them transcribed{without}"


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
        if translations := translations_of(cut):
            kept = {tag: text for tag, text in translations.items() if normalise(text, tag) not in held_out}
            cut.custom = (cut.custom or {}) | {"translations": kept}


def transcribed(cuts: list[MonoCut]) -> list[MonoCut]:
    """The cuts with a text of which something is left after normalisation."""
    return [cut for cut in cuts if (text := text_of(cut)) and normalise(text, language_of(cut))]


def unspoken(folders: Iterable[Path]) -> list[Path]:
    """The files of unspoken text that prepared corpora have."""
    return [folder / TEXT for folder in folders if (folder / TEXT).exists()]


