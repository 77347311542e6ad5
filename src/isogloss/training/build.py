"""A model from a recipe and the data it will learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from isogloss.data.clips import Clips, joined, readable
from isogloss.data.manifests import language_of, text_of
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.errors import IsoglossError
from isogloss.heads import HeadConfig
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.adapters import AdapterConfig
from isogloss.text.espeak import phonemes
from isogloss.text.families import family
from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import CharacterTokenizer, Tokenizer, build_tokenizer
from isogloss.training.recipe import ModelRecipe, Recipe

SENTENCES = 100_000
"""Sentences of a corpus and a language from which symbols are made, at least, where there are more."""
SHARE = 0.02
"""Parameters of an adapter as a share of the encoder's blocks (USM §2.6)."""


def build_model(recipe: Recipe, train: Clips, paired: Clips, texts: Clips) -> Model:
    """The model with random weights, or those of `model.start_from`; symbols and languages from the data.

    train: all clips; paired: those with transcripts; texts: sentences that nobody spoke.
    """
    written = joined([paired, texts])
    start = load_model(recipe.model.start_from).trainable() if recipe.model.start_from else None
    if recipe.model.keep == "all":
        return _grown(start, recipe, written)
    tokenizer, alphabets = None, {}
    sentences: list[tuple[str, str]] = []
    if recipe.model.tokenizer is not None:
        sentences = _texts(written)
        if not paired:
            raise IsoglossError("model.tokenizer needs transcribed clips; the data hold none, prepare them with texts.")
        tokenizer = build_tokenizer(recipe.model.tokenizer, [text for text, _ in sentences])
        alphabets = _alphabets(tokenizer, sentences)
    languages = tuple(sorted(train.languages() - {"und"}))
    encoder, features = recipe.model.encoder, recipe.model.features
    if start is not None:
        encoder, features = encoder or start.config.encoder, features or start.config.features
    assert encoder is not None and features is not None
    config = ModelConfig(
        features=features,
        encoder=_completed(encoder, recipe.model, written),
        heads=recipe.model.heads,
        phonemes=_phonemes(sentences) if _pronounces(recipe.model.heads) else (),
        text=recipe.model.text,
        text_languages=tuple(alphabets) if recipe.model.text else (),
        languages=languages if len(languages) > 1 and _identifies(recipe, recipe.model.heads) else (),
        alphabets=alphabets,
    )
    model = Model(config, tokenizer)
    if start is not None:
        _take_over(model, start, recipe.model)
    return model


def _grown(start: Model | None, recipe: Recipe, written: Clips) -> Model:
    """`start` with its symbols and heads, new symbols where the texts need them, and what else is asked for."""
    if start is None or recipe.model.tokenizer is not None:
        raise IsoglossError("model.keep: all keeps the symbols of model.start_from; give that, and no model.tokenizer.")
    tokenizer, texts = start.tokenizer, _texts(written)
    if isinstance(tokenizer, CharacterTokenizer):
        tokenizer = tokenizer.extended(text for text, _ in texts)
    alphabets = dict(start.config.alphabets)
    if tokenizer is not None:
        for language, symbols in _alphabets(tokenizer, texts).items():
            alphabets[language] = tuple(sorted({*symbols, *alphabets.get(language, ())}))
    encoder = _completed(start.config.encoder, recipe.model, written)
    parts = _parts(start, recipe.model)
    # On an encoder that changes, a language head that does not would guess.
    languages = start.config.languages if recipe.model.adapters or _identifies(recipe, parts["heads"]) else ()
    pronounced = _pronounces(parts["heads"])
    changes = parts | {
        "encoder": encoder,
        "alphabets": alphabets,
        "phonemes": tuple(dict.fromkeys([*start.config.phonemes, *_phonemes(texts)])) if pronounced else (),
        "text_languages": tuple(dict.fromkeys([*start.config.text_languages, *alphabets])) if parts["text"] else (),
        "languages": languages,
        "calibration": (1.0, 0.0),
    }
    model = Model(start.config.model_copy(update=changes), tokenizer)
    weights = model.state_dict()  # what is new keeps its random weights
    for name, tensor in start.state_dict().items():
        if name in weights:
            weights[name][tuple(slice(size) for size in tensor.shape)].copy_(tensor)
    return model


def _parts(start: Model, recipe: ModelRecipe) -> dict[str, Any]:
    """The configuration of the parts beside encoder and CTC: those of `start`, and those the recipe adds."""
    known: dict[str, Any] = {f"heads.{name}": head for name, head in start.config.heads.items()}
    known["text"] = start.config.text
    wanted: dict[str, Any] = {f"heads.{name}": head for name, head in recipe.heads.items()}
    wanted = (wanted if "heads" in recipe.model_fields_set else {}) | {"text": recipe.text}
    for name, part in wanted.items():
        if part and known.get(name) and part != known[name]:
            raise IsoglossError(
                f"model.{name} differs from that of {recipe.start_from}, which model.keep: all keeps; leave it out."
            )
    heads = start.config.heads | (recipe.heads if "heads" in recipe.model_fields_set else {})
    return {"heads": heads, "text": start.config.text or recipe.text}


def _pronounces(heads: dict[str, HeadConfig]) -> bool:
    """Whether any head predicts phonemes."""
    return any(head.target == "phonemes" for head in heads.values())


def _completed(encoder: SpeechEncoderConfig, recipe: ModelRecipe, written: Clips) -> SpeechEncoderConfig:
    """The encoder's configuration with what the recipe adds: recomputing, adapters for the languages of the data."""
    encoder = encoder.model_copy(update={"recompute": encoder.recompute or recipe.recompute})
    if recipe.adapters is None:
        return encoder
    if encoder.adapters is not None:
        raise IsoglossError("The encoder has adapters already; leave out model.adapters, or start from one without.")
    groups: dict[str, set[str]] = defaultdict(set)
    for language in written.languages():
        name = {"language": language, "family": family(language) or language, "all": "all"}[recipe.adapters.share]
        groups[name].add(language)
    bank = AdapterConfig(
        bottleneck=recipe.adapters.bottleneck or _bottleneck(encoder),
        after=recipe.adapters.after,
        groups={name: tuple(sorted(groups[name])) for name in sorted(groups)},
    )
    return encoder.model_copy(update={"adapters": bank})


def _bottleneck(encoder: SpeechEncoderConfig) -> int:
    """The width at which the adapters of a language have `SHARE` of the parameters of the blocks."""
    with torch.device("meta"):
        blocks = sum(parameter.numel() for parameter in Stack(encoder.blocks).parameters())
    return max(1, round(SHARE * blocks / (2 * encoder.blocks.width * encoder.blocks.layers * encoder.blocks.feeds)))


def _texts(written: Clips) -> list[tuple[str, str]]:
    """Normalised sentences and their languages: all, or of each corpus and language some that are spread over it."""
    every = np.maximum(1, np.bincount(written.pairs, minlength=len(written.names)) // SENTENCES)
    place = np.zeros(len(written), dtype=np.int64)
    for pair in range(len(written.names)):
        of_pair = written.pairs == pair
        place[of_pair] = np.arange(of_pair.sum())
    chosen = written.select(place % every[written.pairs] == 0)
    return [(normalise(text_of(cut) or "", language_of(cut)), language_of(cut)) for cut in readable(chosen)]


def _phonemes(texts: list[tuple[str, str]]) -> tuple[str, ...]:
    """The IPA characters in which the sentences are pronounced."""
    groups: dict[str, list[str]] = defaultdict(list)
    for text, language in texts:
        groups[language].append(text)
    return tuple(sorted({symbol for tag, group in groups.items() for line in phonemes(group, tag) for symbol in line}))


def _identifies(recipe: Recipe, heads: Mapping[str, HeadConfig]) -> bool:
    """Whether any stage trains a head of the language; a model must not carry one that guesses at random."""
    of_language = [name for name, head in heads.items() if head.target == "language"]
    objectives = [objective for stage in recipe.training for objective in stage.objectives]
    return any(objective.trains(name, "language") for objective in objectives for name in of_language)


def _alphabets(tokenizer: Tokenizer, texts: list[tuple[str, str]]) -> dict[str, tuple[int, ...]]:
    """The symbols that occur in each language's transcripts."""
    found: dict[str, set[int]] = {}
    for text, language in texts:
        found.setdefault(language, set()).update(tokenizer.encode(text))
    return {language: tuple(sorted(symbols)) for language, symbols in sorted(found.items())}


def _take_over(model: Model, start: Model, recipe: ModelRecipe) -> None:
    """Copy features and encoder; heads stay new, for symbols and languages may differ."""
    for part in ("features", "encoder"):
        mine, theirs = getattr(model, part), getattr(start, part)
        try:
            new = {name: tensor for name, tensor in mine.state_dict().items() if name.startswith("adapters.")}
            mine.load_state_dict(theirs.state_dict() | new)
        except RuntimeError:
            raise IsoglossError(
                f"model.start_from: weights of model.{part} in {recipe.start_from} have other shapes than those of the "
                f"recipe; leave model.{part} out, for the folder has its own."
            ) from None
