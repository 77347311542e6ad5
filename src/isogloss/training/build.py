"""A model from a recipe and the data it will learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isogloss.data.loading import language_of, text_of
from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model
from isogloss.model.model import Model, ModelConfig
from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import Tokenizer, build_tokenizer
from isogloss.training.recipe import ModelRecipe, Recipe

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def build_model(recipe: Recipe, train: list[MonoCut], paired: list[MonoCut]) -> Model:
    """The model with random weights, or those of `model.start_from`; symbols and languages from the data."""
    tokenizer, alphabets = None, {}
    if recipe.model.tokenizer is not None:
        texts = [(normalise(text_of(cut) or "", language_of(cut)), language_of(cut)) for cut in paired]
        if not texts:
            raise IsoglossError("model.tokenizer needs transcribed clips; the data hold none, prepare them with texts.")
        tokenizer = build_tokenizer(recipe.model.tokenizer, [text for text, _ in texts])
        alphabets = _alphabets(tokenizer, texts)
    languages = tuple(sorted({language_of(cut) for cut in train} - {"und"}))
    config = ModelConfig(
        frontend=recipe.model.frontend,
        encoder=recipe.model.encoder,
        transducer=recipe.model.transducer,
        attention=recipe.model.attention,
        languages=languages if len(languages) > 1 and _identifies(recipe) else (),
        alphabets=alphabets,
    )
    model = Model(config, tokenizer)
    if recipe.model.start_from is not None:
        _take_over(model, load_model(recipe.model.start_from), recipe.model)
    return model


def _identifies(recipe: Recipe) -> bool:
    """Whether any stage trains the language head; a model must not carry one that guesses at random."""
    return any(objective.identifies for stage in recipe.stages for objective in stage.objectives)


def _alphabets(tokenizer: Tokenizer, texts: list[tuple[str, str]]) -> dict[str, tuple[int, ...]]:
    """The symbols that occur in each language's transcripts."""
    found: dict[str, set[int]] = {}
    for text, language in texts:
        found.setdefault(language, set()).update(tokenizer.encode(text))
    return {language: tuple(sorted(symbols)) for language, symbols in sorted(found.items())}


def _take_over(model: Model, start: Model, recipe: ModelRecipe) -> None:
    """Copy front end and encoder; heads stay new, for symbols and languages may differ."""
    for part in ("frontend", "encoder"):
        mine, theirs = getattr(model, part), getattr(start, part)
        try:
            mine.load_state_dict(theirs.state_dict())
        except RuntimeError:
            raise IsoglossError(
                f"model.start_from: the {part} of {recipe.start_from} has another shape than model.{part} of the "
                "recipe; give the recipe the same configuration (it is in the folder's config.json)."
            ) from None
