"""The model card that a run writes about itself."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from isogloss.data.loading import language_of
from isogloss.data.manifests import source_of
from isogloss.text.languages import language_name
from isogloss.text.normalise import NORMALISER_VERSION
from isogloss.training.recipe import FitRecipe, Recipe, StageRecipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def describe(
    recipe: Recipe, corpora: list[dict[str, Any]], train: list[MonoCut], paired: list[MonoCut], fingerprint: str
) -> str:
    """Markdown: what was learned from, how, and what is not known yet. Evaluation adds its figures.

    corpora: the cards of the recipe's data folders.
    """
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with_text = {cut.id for cut in paired}
    for cut in train:
        hours[language_of(cut)][0] += cut.duration / 3600
        hours[language_of(cut)][1] += cut.duration / 3600 * (cut.id in with_text)
    rows = "\n".join(
        f"| {language_name(tag)} (`{tag}`) | {heard:.2f} | {read:.2f} |" for tag, (heard, read) in sorted(hours.items())
    )
    licences = "\n".join(
        f"- {card.get('name', folder.name)}: {card.get('licence') or 'licence unknown'}"
        for folder, card in zip(recipe.data.folders, corpora, strict=True)
    )
    stages = "\n".join(
        f"{number}. **{stage.name}**: {_done(stage)}" for number, stage in enumerate(recipe.stages, start=1)
    )
    return f"""# {recipe.name}

A speech model trained with isogloss.

## Data

| language | hours heard | of these transcribed |
|---|---|---|
{rows}

Corpora: {", ".join(sorted({source_of(cut) for cut in train}))}. Fingerprint of the training clips and
texts: `{fingerprint}`. Text normalisation {NORMALISER_VERSION}.

{licences}

The licence of the training data may bind what you do with this model; isogloss itself is Apache-2.0.

## Training

{stages}

Seed {recipe.seed}. The resolved recipe is in `config.json`.

## Limits

Languages, speakers and recording conditions other than those above were not trained on. Where a
language has one speaker only, its figures say nothing about other speakers.
"""


def _done(stage: StageRecipe | FitRecipe) -> str:
    """What a stage does, in a few words."""
    if isinstance(stage, FitRecipe):
        return f"{stage.fit.name}, fitted"
    return f"{', '.join(objective.name for objective in stage.objectives)}, {stage.steps} steps"
