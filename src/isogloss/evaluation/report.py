"""`report.html`: a run and its evaluation as one page that works anywhere, and the same as `report.json`.

run/log.jsonl ─ curves ─┐
run/recipe.yaml ────────┤
run/model ── posteriors ┼── report.html.j2 ──> report.html
evaluation ─ figures ───┤
audio of a few clips ───┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from isogloss.data.manifests import CARD, SPLITS, language_of, read_card, read_cuts, text_of
from isogloss.errors import IsoglossError
from isogloss.evaluation import alignment_plot, plots, posteriors
from isogloss.evaluation.examples import LONGEST, Example, examples
from isogloss.evaluation.figures import ALL, FEW, OTHER, SAME, Evaluation, Identification, errors
from isogloss.evaluation.history import StageHistory, read_history
from isogloss.evaluation.shared_space import SharedSpace, shared_space
from isogloss.evaluation.tables import CONFUSIONS, confusions, limits, name_of, percent, span, where
from isogloss.files import write_json, write_text
from isogloss.metrics.bootstrap import PairedDifference, paired_difference
from isogloss.model.model import Model
from isogloss.model.recogniser import load
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.run import RECIPE

TEMPLATE = "report.html.j2"
COMPARED = 100
"""Clips whose speech and text are compared, about."""


Hours = dict[str, dict[str, float]]
"""{language: {split: hours}}"""


@dataclass(frozen=True)
class System:
    """One row of the comparison; difference: CER of the reported system minus this one's, same clips."""

    name: str
    evaluation: Evaluation
    difference: PairedDifference | None


@dataclass(frozen=True)
class Shared:
    """Speech and text in a model that has both: figures of many clips, the blocks, and one clip in pictures."""

    space: SharedSpace
    blocks: Markup
    clip: tuple[Example, Markup] | None


@dataclass(frozen=True)
class Tile:
    """One headline figure."""

    value: str
    what: str
    note: str


def require_report(run: Path, out: Path) -> None:
    """Raise IsoglossError where no report can be written, before anything is measured."""
    if out.is_dir():
        raise IsoglossError(f"{out} is a folder; name a file in it, as {out / 'report.html'}.")
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

    run: what `train` wrote (log, recipe, model). evaluations: of its model; the headline, the
    examples and the comparison are on the first. systems: other systems on the clips of the first, by
    the name to show.

    Raises IsoglossError if `run` is no finished run, or the evaluated data are gone.
    """
    evaluations = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    first = evaluations[0]
    recipe, history = load_recipe(run / RECIPE), read_history(run)
    compared = [System(name, other, difference(first, other)) for name, other in (systems or {}).items()]
    hours, cards = _hours(recipe, evaluations)
    identified, shown = _identified(evaluations), examples(first)
    model = load(run / "model").model
    shared = _shared(model, first, shown)
    page = _template().render(
        evaluation=first,
        evaluations=evaluations,
        conditions=first.conditions,
        tiles=_tiles(evaluations, identified),
        systems=[System(first.conditions.system, first, None), *compared],
        error_rates=_error_rates(first, compared),
        identified=identified,
        confusions={
            name: plots.confusion(figures, f"confusion-{number}")
            for number, (name, figures) in enumerate(identified.items())
        },
        examples=shown,
        inside=_inside(model, first, shown),
        shared=shared,
        stages=[(stage, _stage_plots(stage, number)) for number, stage in enumerate(history)],
        hours=hours,
        corpora=cards,
        limits=_limits(evaluations),
        recipe=recipe,
        recipe_text=(run / RECIPE).read_text(encoding="utf-8"),
        run=run.name,
    )
    write_text(out, page)
    write_json(out.with_suffix(".json"), _metrics(recipe, history, evaluations, compared, hours, shared))


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


def _identified(evaluations: list[Evaluation]) -> dict[str, Identification]:
    """Language identification by group of sources; all sources together only where groups are not known."""
    found: dict[str, Identification] = {}
    for evaluation in evaluations:
        groups = evaluation.identification
        for group in [name for name in (OTHER, SAME) if name in groups] or list(groups):
            name = "all sources" if group == ALL else group
            found[f"{name}: {where(evaluation)}" if name in found else name] = groups[group]
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith(OTHER)))


def _limits(evaluations: list[Evaluation]) -> list[str]:
    if len(evaluations) == 1:
        return limits(evaluations[0])
    return [f"{where(evaluation)}: {sentence}" for evaluation in evaluations for sentence in limits(evaluation)]


def _tiles(evaluations: list[Evaluation], identified: dict[str, Identification]) -> list[Tile]:
    first = evaluations[0]
    tiles = []
    if first.mean_cer is not None:
        note = f"95 %: {span(first.mean_cer)}"
        tiles.append(Tile(percent(first.mean_cer), f"mean CER over {len(first.languages)} languages", note))
    for group, figures in identified.items():
        note = f"95 %: {span(figures)} · chance {percent(figures.chance)}"
        tiles.append(Tile(percent(figures.accuracy), f"languages identified, {group}", note))
    minutes = sum(evaluation.seconds for evaluation in evaluations) / 60
    clips = sum(evaluation.clips for evaluation in evaluations)
    tiles.append(Tile(str(clips), f"clips of the {first.conditions.split} split", f"{minutes:.1f} minutes"))
    speed = first.real_time_factor
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
    for objective in ("most", "maestro"):
        if stage.curve(f"{objective}/matching") is not None:
            key, label = f"{objective}/matching", "squared distance of speech and text"
            drawn.append(plots.curve(stage, key, f"matching-{number}", label))
    if stage.curve("recognition/language_accuracy") is not None:
        label, name = "languages identified in training batches", f"language-{number}"
        drawn.append(plots.curve(stage, "recognition/language_accuracy", name, label, share=True))
    return drawn


def _inside(model: Model, evaluation: Evaluation, shown: list[Example]) -> tuple[Example, Markup] | None:
    """Of the shown clips that fit a figure, the one whose error rate is nearest to that of all clips."""
    if evaluation.overall is None or evaluation.overall.cer is None or not shown:
        return None
    fitting = [example for example in shown if 1 <= example.prediction.seconds <= 6] or shown
    typical = evaluation.overall.cer.value
    chosen = min(fitting, key=lambda example: (abs(example.cer - typical), example.prediction.id))
    inside = posteriors.look_inside(model, chosen.samples, chosen.prediction.language)
    return chosen, posteriors.plot(inside, "inside")


def _shared(model: Model, evaluation: Evaluation, shown: list[Example]) -> Shared | None:
    """How speech and text lie to each other, in a model that stretches texts; None for others."""
    if model.text is None or model.text.duration is None:
        return None
    known, conditions = model.config.text_languages, evaluation.conditions
    cuts = [cut for folder in conditions.data for cut in read_cuts(Path(folder), conditions.split)]
    cuts = [cut for cut in cuts if text_of(cut) and language_of(cut) in known and cut.duration <= LONGEST]
    if not cuts:
        return None
    space = shared_space(model, cuts[:: -(-len(cuts) // COMPARED)])
    clips = [example for example in shown if example.prediction.said and example.prediction.language in known]
    said = ((clip, clip.samples, clip.prediction.said, clip.prediction.language) for clip in clips)
    met = ((clip, alignment_plot.meet(model, samples, text, tag)) for clip, samples, text, tag in said)
    pictures = ((clip, alignment_plot.plot(found, "meeting")) for clip, found in met if found is not None)
    return Shared(space, alignment_plot.blocks(space, "blocks"), next(pictures, None))


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
    compared: list[System],
    hours: Hours,
    shared: Shared | None,
) -> dict[str, Any]:
    return {
        "evaluations": [evaluation.plain() for evaluation in evaluations],
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
        "shared": shared and shared.space.plain(),
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
    environment.filters |= {
        "confusions": confusions,
        "where": where,
        "percent": percent,
        "span": span,
        "language": name_of,
        "signed": _signed,
    }
    environment.globals |= {
        "CONFUSIONS": CONFUSIONS,
        "FEW": FEW,
        "NUMBERED": plots.NUMBERED,
        "SPLITS": SPLITS,
    }
    return environment.get_template(TEMPLATE)


def _signed(value: float) -> str:
    """A difference in percent points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")
