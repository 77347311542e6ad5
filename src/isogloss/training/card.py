"""The model card that a run writes about itself."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from isogloss.data.clips import Clips
from isogloss.errors import counted
from isogloss.text.languages import language_name
from isogloss.text.normalise import NORMALISER_VERSION
from isogloss.training.recipe import FitRecipe, Recipe, StageRecipe


def describe(
    recipe: Recipe, cards: list[dict[str, Any]], train: Clips, paired: Clips, texts: Clips
) -> str:
    """Markdown: the training data, the stages and the limits. Evaluation adds its figures.

    cards: of the recipe's data folders. train, paired: the clips trained on, and those of them with a transcript;
    texts: the unspoken sentences.
    """
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for column, clips in enumerate((train, paired)):
        for (_, tag), seconds in clips.seconds().items():
            hours[tag][column] += seconds / 3600
    rows = "\n".join(
        f"| {language_name(tag)} (`{tag}`) | {speech:.2f} | {with_texts:.2f} |"
        for tag, (speech, with_texts) in sorted(hours.items())
    )
    corpora = "\n".join(
        f"| {card.get('name', folder.name)} | {card.get('licence') or 'unknown'} | `{card.get('fingerprint')}` |"
        for folder, card in zip(recipe.data.folders, cards, strict=True)
    )
    unspoken = f"| {counted(len(texts), 'unspoken sentence')} | `{texts.fingerprint()}` |\n" if texts else ""
    stages = "\n".join(
        f"{number}. **{stage.name}**: {_done(stage)}" for number, stage in enumerate(recipe.stages, start=1)
    )
    return f"""# {recipe.name}

A speech model trained with isogloss.

## Data

| language | hours of speech | of these transcribed |
|---|---|---|
{rows}

| corpus | licence | fingerprint of all its clips |
|---|---|---|
{corpora}

| trained on | fingerprint of these |
|---|---|
| {counted(len(train), "clip")} of {", ".join(sorted(train.sources()))} | `{train.fingerprint()}` |
{unspoken}
A fingerprint is the SHA-256 of ids, texts and durations, in a corpus as here: who trains on the whole of one
corpus finds the same one in both tables. Text normalisation {NORMALISER_VERSION}.

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
