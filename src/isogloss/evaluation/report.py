"""`report.html`: a run and its evaluation as one page that works anywhere, and the same as `metrics.json`.

run/log.jsonl ─ curves ─┐
run/recipe.yaml ────────┤
run/model ── posteriors ┼── report.html.j2 ──> report.html
evaluation ─ figures ───┤
audio of a few clips ───┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from isogloss.data.manifests import CARD, SPLITS, read_card
from isogloss.evaluation import plots, posteriors
from isogloss.evaluation.examples import Example, examples
from isogloss.evaluation.figures import ALL, FEW, OTHER, SAME, Evaluation, errors
from isogloss.evaluation.history import StageHistory, read_history
from isogloss.evaluation.tables import confusions, limits, name_of, percent, span
from isogloss.files import write_json, write_text
from isogloss.metrics.bootstrap import PairedDifference, paired_difference
from isogloss.model.recogniser import load
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import RECIPE

TEMPLATE = "report.html.j2"
METRICS = "metrics.json"
MISTAKES = 5


Hours = dict[str, dict[str, float]]
"""{language: {split: hours}}"""


@dataclass(frozen=True)
class System:
    """One row of the comparison; difference: CER of the reported system minus this one's, same clips."""

    name: str
    evaluation: Evaluation
    difference: PairedDifference | None


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    value: str
    what: str
    note: str


def write_report(
    run: Path, evaluation: Evaluation, out: Path, *, systems: Mapping[str, Evaluation] | None = None
) -> None:
    """Write the page `out` and `metrics.json` beside it.

    run: what `train` wrote (log, recipe, model). evaluation: of its model. systems: other systems on
    the same clips, by the name to show.

    Raises IsoglossError if `run` is no finished run, or the evaluated data are gone.
    """
    recipe, history = load_recipe(run / RECIPE), read_history(run)
    compared = [System(name, other, difference(evaluation, other)) for name, other in (systems or {}).items()]
    hours, folders = _hours(recipe, evaluation)
    shown = examples(evaluation)
    page = _template().render(
        evaluation=evaluation,
        conditions=evaluation.conditions,
        tiles=_tiles(evaluation),
        systems=[System(evaluation.conditions.system, evaluation, None), *compared],
        error_rates=_error_rates(evaluation, compared),
        confusions=_confusions(evaluation),
        mistakes=confusions(evaluation.identification[ALL])[:MISTAKES] if evaluation.identification else [],
        examples=shown,
        inside=_inside(run, evaluation, shown),
        stages=[(stage, _stage_plots(stage, number)) for number, stage in enumerate(history)],
        hours=hours,
        corpora=folders,
        limits=limits(evaluation),
        recipe=recipe,
        recipe_text=(run / RECIPE).read_text(encoding="utf-8"),
        run=run.name,
    )
    write_text(out, page)
    write_json(out.with_name(METRICS), _metrics(recipe, history, evaluation, compared, hours))


def difference(ours: Evaluation, theirs: Evaluation) -> PairedDifference | None:
    """Our CER minus theirs over the clips both transcribed, resampled together; None if there are none."""
    others = {(p.source, p.id): p for p in theirs.predictions if p.scored}
    pairs = [
        (p, others[p.source, p.id])
        for p in ours.predictions
        if p.scored and (p.source, p.id) in others and others[p.source, p.id].said == p.said
    ]
    if not pairs:
        return None
    counts = errors([p for p, _ in pairs])
    return paired_difference(counts.errors, errors([q for _, q in pairs]).errors, counts.totals)


def _confusions(evaluation: Evaluation) -> dict[str, Markup]:
    """A matrix for each group of sources; that of all sources only where it is the only one."""
    groups = evaluation.identification
    shown = [name for name in groups if name != ALL] or list(groups)
    return {name: plots.confusion(groups[name], f"confusion-{number}") for number, name in enumerate(shown)}


def _tiles(evaluation: Evaluation) -> list[Tile]:
    tiles = []
    if evaluation.mean_cer is not None:
        count = len(evaluation.languages)
        note = f"95 %: {span(evaluation.mean_cer)}"
        tiles.append(Tile(percent(evaluation.mean_cer), f"mean CER over {count} languages", note))
    groups = evaluation.identification
    for group in [name for name in (OTHER, SAME) if name in groups] or list(groups):
        found = groups[group]
        where = "" if group == ALL else f", {group}"
        note = f"95 %: {span(found)} · chance {percent(found.chance)}"
        tiles.append(Tile(percent(found.accuracy), f"languages identified{where}", note))
    minutes = f"{evaluation.seconds / 60:.1f} minutes"
    tiles.append(Tile(str(evaluation.clips), f"clips of the {evaluation.conditions.split} split", minutes))
    speed = evaluation.real_time_factor
    if speed:
        tiles.append(Tile(f"{1 / speed:.0f} ×", "as fast as real time", "transcribing, where evaluated"))
    return tiles


def _error_rates(evaluation: Evaluation, compared: list[System]) -> Markup | None:
    if not evaluation.languages:
        return None
    named = {evaluation.conditions.system: evaluation}
    return plots.error_rates(named | {system.name: system.evaluation for system in compared}, "error-rates")


def _stage_plots(stage: StageHistory, number: int) -> list[Markup]:
    drawn = [plots.losses(stage, f"loss-{number}")]
    if stage.curve("best_rq/code_perplexity") is not None:
        label = "codes in use (perplexity of the targets)"
        drawn.append(plots.curve(stage, "best_rq/code_perplexity", f"codes-{number}", label))
        label = "masked codes predicted right"
        drawn.append(plots.curve(stage, "best_rq/accuracy", f"accuracy-{number}", label, share=True))
    if stage.languages():
        drawn.append(plots.dev_error_rates(stage, f"dev-{number}"))
    if stage.curve("recognition/language_accuracy") is not None:
        label, name = "languages identified in training batches", f"language-{number}"
        drawn.append(plots.curve(stage, "recognition/language_accuracy", name, label, share=True))
    return drawn


def _inside(run: Path, evaluation: Evaluation, shown: list[Example]) -> tuple[Example, Markup] | None:
    """Of the shown clips that fit a figure, the one whose error rate is nearest to that of all clips."""
    if evaluation.overall is None or evaluation.overall.cer is None or not shown:
        return None
    fitting = [example for example in shown if 1 <= example.prediction.seconds <= 6] or shown
    typical = evaluation.overall.cer.value
    chosen = min(fitting, key=lambda example: (abs(example.cer - typical), example.prediction.id))
    inside = posteriors.look_inside(load(run / "model").model, chosen.samples)
    return chosen, posteriors.plot(inside, "inside")


def _hours(recipe: Recipe, evaluation: Evaluation) -> tuple[Hours, list[dict[str, Any]]]:
    """Hours trained and evaluated on, and the cards of these corpora, where they are still there.

    Of a corpus, or a language, that was not trained on only the evaluated split counts.
    """
    trained = {_fingerprint(folder) for folder in recipe.data.folders}
    folders = [*recipe.data.folders, *map(Path, evaluation.conditions.data)]
    # A folder may be named in two ways, relative and absolute.
    known = {_fingerprint(folder): folder for folder in folders if (folder / CARD).exists()}
    cards = {mark: read_card(folder) for mark, folder in known.items()}
    hours: Hours = {}
    for mark, card in cards.items():
        for language, splits in card["languages"].items():
            learned = mark in trained and language in (recipe.data.languages or [language])
            for split, counts in splits.items():
                if learned or split == evaluation.conditions.split:
                    hours.setdefault(language, dict.fromkeys(SPLITS, 0.0))[split] += counts["hours"]
    return dict(sorted(hours.items())), list(cards.values())


def _fingerprint(folder: Path) -> str | None:
    return read_card(folder)["fingerprint"] if (folder / CARD).exists() else None


def _metrics(
    recipe: Recipe,
    history: list[StageHistory],
    evaluation: Evaluation,
    compared: list[System],
    hours: Hours,
) -> dict[str, Any]:
    return {
        "evaluation": evaluation.plain(),
        "systems": {
            system.name: {
                "evaluation": system.evaluation.plain(),
                "cer_difference": system.difference
                and {
                    "value": system.difference.difference,
                    "low": system.difference.interval.low,
                    "high": system.difference.interval.high,
                },
            }
            for system in compared
        },
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
    environment.filters |= {"percent": percent, "span": span, "language": name_of, "signed": _signed}
    environment.globals |= {"FEW": FEW, "NUMBERED": plots.NUMBERED, "SPLITS": SPLITS}
    return environment.get_template(TEMPLATE)


def _signed(value: float) -> str:
    """A difference in percent points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")
