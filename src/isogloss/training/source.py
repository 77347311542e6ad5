"""The data of a run: cuts in memory, and the micro-batches of each step."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isogloss.data.loading import Batch, Kind, Loader, as_cut, language_of, text_of
from isogloss.data.manifests import TEXT, read_cuts, source_of, split_of, translations_of
from isogloss.data.plan import BatchPlan, Position
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.text.corpus import TextLine, clean_text, read_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.recipe import DataRecipe, StageRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Micro = dict[Kind, Batch]


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


@dataclass(frozen=True)
class Work:
    """What one process does in one step.

    micro: the micro-batches, each with one batch of every kind. positions: where the plans stand
    after the step.
    """

    micro: list[Micro]
    positions: dict[Kind, Position]


class Source:
    """Yields the work of one process, step by step, reading one step ahead.

    A step hears `stage.seconds[kind]` seconds of audio of each kind, in as many micro-batches as
    memory and the number of processes ask for; process r takes every world-th from r on.
    """

    def __init__(
        self,
        cuts: dict[Kind, list[MonoCut]],
        recipe: DataRecipe,
        stage: StageRecipe,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        largest = max(stage.seconds.values())
        self.micro_batches = ceil(largest / stage.batch_seconds / world) * world
        self.rank, self.world, self.seed = rank, world, seed
        self.loaders = {
            kind: Loader(
                cuts[kind],
                workers=recipe.workers,
                max_bad=recipe.max_bad,
                speeds=recipe.speeds,
                perturbed=recipe.perturb if kind == "paired" else None,
            )
            for kind in stage.seconds
        }
        self.plans = {
            kind: build_plan(
                cuts[kind], recipe, seconds / self.micro_batches, stage.temperatures.get(kind, stage.temperature), seed
            )
            for kind, seconds in stage.seconds.items()
        }
        self.positions: dict[Kind, Position] = {kind: Position() for kind in self.plans}
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: tuple[int, Future[Work]] | None = None

    def work(self, step: int) -> Work:
        """The micro-batches of a step; steps must be asked for in order from where the source stands."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._ahead.submit(self._read, step, self.positions))
        work = self._next[1].result()
        self.positions = work.positions
        self._next = (step + 1, self._ahead.submit(self._read, step + 1, work.positions))
        return work

    def bad_clips(self) -> dict[str, int]:
        """Clips that could not be read so far, by cause."""
        return {cause: n for loader in self.loaders.values() for cause, n in loader.bad.items()}

    def close(self) -> None:
        self._ahead.shutdown(cancel_futures=True)
        for loader in self.loaders.values():
            loader.close()

    def _read(self, step: int, positions: dict[Kind, Position]) -> Work:
        micro: list[Micro] = [{} for _ in range(self.micro_batches // self.world)]
        after: dict[Kind, Position] = {}
        for kind, plan in self.plans.items():
            batches = plan.batches(positions[kind])
            for number in range(self.micro_batches):
                indices, after[kind] = next(batches)
                if number % self.world == self.rank:
                    seed = batch_seed(self.seed, step, number)
                    micro[number // self.world][kind] = self.loaders[kind].load(indices, seed)
        return Work(micro, after)


def build_plan(
    cuts: list[MonoCut], recipe: DataRecipe, batch_seconds: float, temperature: float, seed: int
) -> BatchPlan:
    """A plan that balances languages by temperature and corpora by weight."""
    pairs = [(source_of(cut), language_of(cut)) for cut in cuts]
    names = sorted(set(pairs))
    number = {pair: index for index, pair in enumerate(names)}
    return BatchPlan(
        np.array([cut.duration for cut in cuts]),
        np.array([number[pair] for pair in pairs]),
        batch_seconds=batch_seconds,
        temperature=temperature,
        weights=np.array([recipe.weights.get(source, 1.0) for source, _ in names]),
        seed=seed,
    )


def batch_seed(seed: int, step: int, number: int) -> int:
    """The seed of everything random in one micro-batch."""
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint32)[0])
