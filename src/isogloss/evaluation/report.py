"""`report.html`: a run and its evaluation as one page that works anywhere, and the same as `report.json`.

run/log.jsonl ─ curves ─┐
run/recipe.yaml ────────┤
run/model ── posteriors ┼── report.html.j2 ──> report.html
evaluation ─── tables ──┤
audio of a few clips ───┘
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from isogloss.data.manifests import CARD, SPLITS, read_card
from isogloss.errors import IsoglossError
from isogloss.evaluation import alignment_plot, plots, posteriors
from isogloss.evaluation.comparison import compare
from isogloss.evaluation.examples import Example, examples
from isogloss.evaluation.history import StageHistory, read_history
from isogloss.evaluation.layout import Grid, headlines, lay_out, name_of, spread, written
from isogloss.evaluation.pictures import caption, picture
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.table import Table
from isogloss.files import require_writable, write_json, write_text
from isogloss.model.model import Model
from isogloss.model.recogniser import load
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.run import RECIPE

TEMPLATE = "report.html.j2"

Hours = dict[str, dict[str, float]]
"""{language: {split: hours}}"""


@dataclass(frozen=True)
class Part:
    """What a task found on some clips."""

    caption: str
    table: Table
    grid: Grid
    pictures: list[tuple[Markup, str]]


@dataclass(frozen=True)
class Section:
    """One task, on all clips it was run on."""

    task: str
    title: str
    about: str
    parts: list[Part]


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    value: str
    what: str
    note: str


def require_report(run: Path, out: Path) -> None:
    """Raise IsoglossError where no report can be written, before anything is measured."""
    require_writable(out)
    if not (run / RECIPE).is_file():
        raise IsoglossError(f"A report shows how a model was trained, and {run} is no run; use --json.")


def write_report(
    run: Path,
    evaluations: Evaluation | Sequence[Evaluation],
    out: Path,
    *,
    systems: Mapping[str, Evaluation] | None = None,
) -> None:
    """Write the page `out`, and the same figures under its name as `.json`.

    run: what `train` wrote (log, recipe, model). evaluations: of its model; the examples and the comparison are on
    the first. systems: other systems on the clips of the first, by the name to show.

    Raises IsoglossError if `run` is no finished run, or the evaluated data are gone.
    """
    evaluations = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    first, systems = evaluations[0], systems or {}
    recipe, history = load_recipe(run / RECIPE), read_history(run)
    hours, cards = _hours(recipe, evaluations)
    shown = examples(first)
    model = load(run / "model").model
    page = _template().render(
        evaluations=evaluations,
        conditions=first.conditions,
        tiles=list(_tiles(evaluations)),
        sections=list(_sections(evaluations, systems)),
        examples=shown,
        inside=_inside(model, shown),
        aligned=_aligned(model, shown),
        stages=[(stage, _stage_plots(stage, number)) for number, stage in enumerate(history)],
        hours=hours,
        corpora=cards,
        limits=_limits(evaluations),
        recipe=recipe,
        recipe_text=(run / RECIPE).read_text(encoding="utf-8"),
        run=run.name,
    )
    write_json(out.with_suffix(".json"), _metrics(recipe, history, evaluations, systems, hours))
    write_text(out, page)


def _sections(evaluations: list[Evaluation], systems: Mapping[str, Evaluation]) -> Iterator[Section]:
    """A section a task; beside other systems first how they compare."""
    first = evaluations[0]
    if systems:
        compared = compare(first, systems)
        yield Section(compared.task, compared.title, compared.about, [_part(compared, first.conditions.where, {})])
    tables = [(table, evaluation) for evaluation in evaluations for table in evaluation.tables]
    for task in dict.fromkeys(table.task for table, _ in tables):
        found = [(table, evaluation) for table, evaluation in tables if table.task == task]
        peers = {name: table for name, theirs in systems.items() for table in theirs.tables if table.task == task}
        parts: list[Part] = []
        for table, evaluation in found:
            beside = {evaluation.conditions.system: table} | peers if peers and evaluation is first else {}
            parts.append(_part(table, evaluation.conditions.where, beside, len(parts)))
        yield Section(task, found[0][0].title, found[0][0].about, parts)


def _part(table: Table, where: str, beside: Mapping[str, Table], number: int = 0) -> Part:
    names = (f"{table.task.replace('_', '-')}-{number}-{place}" for place in range(len(table.pictures)))
    drawn = [picture(asked, table, name, beside) for asked, name in zip(table.pictures, names, strict=True)]
    grid, captions = lay_out(table), map(caption, table.pictures)
    return Part(", ".join([where, *grid.common]), table, grid, list(zip(drawn, captions, strict=True)))


def _limits(evaluations: list[Evaluation]) -> list[str]:
    if len(evaluations) == 1:
        return evaluations[0].conditions.limits
    return [f"{each.conditions.where}: {sentence}" for each in evaluations for sentence in each.conditions.limits]


def _tiles(evaluations: list[Evaluation]) -> Iterator[Tile]:
    first = evaluations[0].conditions
    for evaluation in evaluations:
        for table in evaluation.tables:
            unit = table.measures[0].unit
            for what, figure, value in headlines(table):
                sure = spread(figure, unit)
                beside = [f"{name} {written(trivial, unit)}" for name, trivial in figure.baselines.items()]
                interval = [f"95 %: {sure}" if figure.deviation is None else sure] if sure else []
                place = [evaluation.conditions.where] if len(evaluations) > 1 else []
                yield Tile(value, f"{table.title}: {what}", " · ".join([*place, *interval, *beside[:2]]))
    minutes = sum(evaluation.conditions.seconds for evaluation in evaluations) / 60
    clips = sum(evaluation.clips for evaluation in evaluations)
    yield Tile(str(clips), f"clips of the {first.split} split", f"{minutes:.1f} minutes")
    if speed := first.real_time_factor:
        yield Tile(f"{1 / speed:.0f} ×", "as fast as real time", "transcribing, where evaluated")


DRAWN = {
    "code_perplexity": ("codes in use (perplexity of the targets)", False),
    "accuracy": ("masked codes predicted right", True),
    "matching": ("squared distance of speech and text", False),
    "language_accuracy": ("languages identified in training batches", True),
}
"""Statistics of objectives that have a plot of their own: its label, and whether they are shares."""


def _stage_plots(stage: StageHistory, number: int) -> list[Markup]:
    drawn = [plots.losses(stage, f"loss-{number}")]
    if stage.languages():
        drawn.append(plots.dev_error_rates(stage, f"dev-{number}"))
    for key in sorted({key for record in stage.steps for key in record}):
        objective, _, stat = key.partition("/")
        if stat in DRAWN:
            label, share = DRAWN[stat]
            drawn.append(plots.curve(stage, key, f"{objective}-{stat}-{number}", f"{objective}: {label}", share=share))
    return drawn


def _inside(model: Model, shown: list[Example]) -> tuple[Example, Markup] | None:
    """Of the shown clips that fit a figure, the one whose error rate is nearest to their mean; None without CTC."""
    if not (shown and model.spec.ctc_heads("symbols")):
        return None
    fitting = [example for example in shown if 1 <= example.prediction.seconds <= 6] or shown
    typical = sum(example.cer for example in shown) / len(shown)
    chosen = min(fitting, key=lambda example: (abs(example.cer - typical), example.prediction.id))
    inside = posteriors.look_inside(model, chosen.samples, chosen.prediction.language)
    return chosen, posteriors.plot(inside, "inside")


def _aligned(model: Model, shown: list[Example]) -> tuple[Example, Markup] | None:
    """One clip and its text in pictures, in a model that stretches texts; None for others."""
    if model.text is None or model.text.duration is None:
        return None
    known = model.config.text_languages
    clips = [example for example in shown if example.prediction.said and example.prediction.language in known]
    said = ((clip, clip.samples, clip.prediction.said, clip.prediction.language) for clip in clips)
    met = ((clip, alignment_plot.meet(model, samples, text, tag)) for clip, samples, text, tag in said)
    return next(((clip, alignment_plot.plot(found, "meeting")) for clip, found in met if found is not None), None)


def _hours(recipe: Recipe, evaluations: list[Evaluation]) -> tuple[Hours, list[dict[str, Any]]]:
    """Hours trained and evaluated on, and the cards of these corpora, where they are still there.

    Of a corpus, or a language, that was not trained on only the evaluated split counts.
    """
    trained = {_fingerprint(folder) for folder in recipe.data.folders}
    evaluated = [Path(folder) for evaluation in evaluations for folder in evaluation.conditions.data]
    folders = [*recipe.data.folders, *evaluated]
    splits_evaluated = {evaluation.conditions.split for evaluation in evaluations}
    # A folder may be named in two ways, relative and absolute.
    known = {_fingerprint(folder): folder for folder in folders if (folder / CARD).exists()}
    cards = {mark: read_card(folder) for mark, folder in known.items()}
    hours: Hours = {}
    for mark, card in cards.items():
        for language, splits in card["languages"].items():
            learned = mark in trained and language in (recipe.data.languages or [language])
            for split, counts in splits.items():
                if learned or split in splits_evaluated:
                    hours.setdefault(language, dict.fromkeys(SPLITS, 0.0))[split] += counts["hours"]
    return dict(sorted(hours.items())), list(cards.values())


def _fingerprint(folder: Path) -> str | None:
    return read_card(folder)["fingerprint"] if (folder / CARD).exists() else None


def _metrics(
    recipe: Recipe,
    history: list[StageHistory],
    evaluations: list[Evaluation],
    systems: Mapping[str, Evaluation],
    hours: Hours,
) -> dict[str, Any]:
    return {
        "evaluations": [evaluation.plain() for evaluation in evaluations],
        "systems": {name: evaluation.plain() for name, evaluation in systems.items()},
        "comparison": compare(evaluations[0], systems).plain() if systems else None,
        "training": [stage.plain() for stage in history],
        "hours": hours,
        "recipe": recipe.plain(),
    }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": written, "language": name_of}
    environment.globals |= {"SPLITS": SPLITS}
    return environment.get_template(TEMPLATE)
