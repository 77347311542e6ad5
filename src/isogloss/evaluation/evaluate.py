"""`isogloss evaluate`: a model on held-out speech -> tables.

DIR/cuts ── choose ── Data ──┬── task ── Table ──┐
model folder ── Recogniser ──┴── task ── Table ──┴── Evaluation
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isogloss import __version__
from isogloss.config import override
from isogloss.data.manifests import fingerprint, language_of, read_cuts, source_of
from isogloss.decoding.beam import Beam
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.evaluation.data import Data, Key, key_of
from isogloss.evaluation.predictions import predict
from isogloss.evaluation.results import Conditions, Evaluation
from isogloss.evaluation.table import Table
from isogloss.evaluation.task import Task
from isogloss.evaluation.tasks import find_task, task_names
from isogloss.files import read_json
from isogloss.model.folder import CONFIG
from isogloss.model.recogniser import Recogniser, load
from isogloss.text.languages import normalise_language
from isogloss.training.recipe import DataRecipe
from isogloss.training.source import read_data

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Progress = Callable[[str, int, int], None]
"""Told the name of a task, clips done and clips in all."""


def evaluate(
    model_folder: Path,
    data: list[Path],
    *,
    tasks: Sequence[str] = (),
    options: Sequence[str] = (),
    split: str = "test",
    languages: list[str] | None = None,
    tell_language: bool = False,
    beam: int | None = None,
    language_model: Path | None = None,
    weight: float = Beam.weight,
    system: str | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a split of prepared corpora.

    tasks: what to measure, by the names of the files in `tasks/`; by default everything that the model and the data
    are fit for. options: of tasks, as in `retrieval.pool=200`. languages: only clips in these. tell_language: the
    model is told what is spoken instead of guessing it; only symbols of that language are then written. beam,
    language_model, weight: of the search, as in `Recogniser.search`. system: the name in tables, by default that of
    the model.

    Raises IsoglossError for a folder that is no model or no corpus, where there is no clip to evaluate, for a task
    that is asked for and cannot be run, and where none can.
    """
    chosen = _tasks(tasks, options)
    recogniser = load(model_folder, device)
    search = recogniser.search(beam, language_model=language_model, weight=weight)
    cuts = _select([cut for folder in data for cut in read_cuts(folder, split)], languages, data, split)
    trained = trained_clips(model_folder)
    measured = Data(
        cuts=cuts,
        trained=None if trained is None else frozenset(trained),
        told=tell_language,
        beam=search,
    )
    tables, left_out = _run(chosen, recogniser, measured, on_progress, demanded=bool(tasks))
    kept = [cut for cut in cuts if key_of(cut) not in measured.broken]
    conditions = Conditions(
        system=system or _name(model_folder),
        data=tuple(map(str, data)),
        split=split,
        fingerprint=fingerprint(cuts),
        clips=dict(sorted(Counter(map(source_of, kept)).items())),
        seconds=sum(cut.duration for cut in kept),
        versions=versions(),
        language_told=tell_language,
        search=_searched(search, language_model),
        known_languages=recogniser.languages,
        trained_sources=None if trained is None else tuple(sorted({source for source, _ in trained})),
        trained_clips=None if trained is None else sum(key_of(cut) in trained for cut in kept),
        broken=measured.causes,
        working_seconds=measured.working_seconds,
    )
    predictions = measured.known(predict) or ()
    return Evaluation(conditions=conditions, tables=tables, left_out=left_out, predictions=predictions)


def trained_clips(model_folder: Path) -> set[Key] | None:
    """The clips that the model was trained on, also those of the model it started from.

    None if that is not known: the model carries no recipe, or its data lie here no more.
    """
    recipe: dict[str, Any] | None = read_json(model_folder / CONFIG).get("recipe")
    if recipe is None:
        return None
    try:
        cuts = read_data(DataRecipe.parse(recipe["data"], str(model_folder / CONFIG)), "train")
        start = recipe["model"].get("start_from")
        before = trained_clips(Path(start)) if start else set()
    except IsoglossError:
        return None
    return None if before is None else before | {key_of(cut) for cut in cuts}


def versions() -> dict[str, str]:
    """What a figure may depend on besides model and data."""
    return {"isogloss": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _tasks(names: Sequence[str], options: Sequence[str]) -> list[Task]:
    """The tasks with their options, in the order to run and show them."""
    given = override({}, list(options))
    kinds = {name: find_task(name) for name in dict.fromkeys(names or task_names())}
    for name in given:
        if name not in kinds:
            find_task(name)
            raise IsoglossError(f"An option is given for {name}, which is not measured; add --task {name}.")
    tasks = [kind.parse(given.get(name, {}), name) for name, kind in kinds.items()]
    return sorted(tasks, key=lambda task: (task.place, task.name()))


def _run(
    tasks: list[Task], recogniser: Recogniser, data: Data, on_progress: Progress | None, *, demanded: bool
) -> tuple[tuple[Table, ...], dict[str, str]]:
    """The tables, and why others are missing; demanded: that is an error."""
    tables, left_out = [], {}
    for task in tasks:
        name = task.name()
        if on_progress is not None:
            data.on_progress = partial(on_progress, name)
        try:
            if reason := task.why_not(recogniser, data):
                raise IsoglossError(reason)
            table = task.run(recogniser, data)
            if not table.rows:
                raise IsoglossError("Nothing that was found can be scored.")
            tables.append(table)
        except IsoglossError as error:
            if demanded:
                raise IsoglossError(f"Cannot measure {name}: {error}") from None
            left_out[name] = str(error)
    if not tables:
        reasons = dict.fromkeys(left_out.values())
        raise IsoglossError(f"Nothing can be measured. {' '.join(reasons)}")
    return tuple(tables), left_out


def _searched(beam: Beam | None, given: Path | None) -> str:
    """How texts were decided on, in words; nothing where it was frame by frame."""
    if beam is None:
        return ""
    name = "of the model" if given is None else given.name
    return f"beam {beam.width}" + (f", language model {name} at weight {beam.weight:g}" if beam.language_model else "")


def _select(cuts: list[MonoCut], languages: list[str] | None, data: list[Path], split: str) -> list[MonoCut]:
    where = ", ".join(str(folder) for folder in data)
    present = sorted({language_of(cut) for cut in cuts})
    wanted = [normalise_language(tag) for tag in languages or []]
    for tag in wanted:
        if tag not in present:
            raise IsoglossError(
                f'The {split} split of {where} holds no "{tag}".{did_you_mean(tag, present)} '
                f"It holds: {', '.join(present) or 'nothing'}."
            )
    chosen = [cut for cut in cuts if not wanted or language_of(cut) in wanted]
    if not chosen:
        raise IsoglossError(f"The {split} split of {where} holds no clips; choose another split or other data.")
    return chosen


def _name(model_folder: Path) -> str:
    recipe = read_json(model_folder / CONFIG).get("recipe") or {}
    return str(recipe.get("name") or model_folder.resolve().name)
