"""`isogloss lm`: sentences -> an n-gram language model over a model's own symbols."""

from __future__ import annotations

from collections.abc import Container, Iterator
from math import inf
from pathlib import Path
from typing import Any

from isogloss.data.clips import joined, open_corpus
from isogloss.data.manifests import language_of, text_of
from isogloss.decoding.beam import Beam
from isogloss.errors import IsoglossError
from isogloss.model.calibration import calibrate
from isogloss.model.folder import load_model
from isogloss.model.searcher import bonus_for
from isogloss.text.corpus import read_text_lines
from isogloss.text.ngram import save_ngram, train_ngram
from isogloss.text.tokenizers import digest
from isogloss.training.development import load_batches, select
from isogloss.training.recipe import DataRecipe
from isogloss.training.source import opened, read_data, read_texts, transcribed

HELD_OUT = 20
"""Each so-many-th sentence is held out to measure how well the others predict it."""


def train_language_model(
    model_folder: Path,
    out: Path,
    *,
    texts: list[Path],
    data: list[Path],
    language: str | None = None,
    order: int = 6,
) -> dict[str, Any]:
    """Train and write a language model; returns what is known of it.

    texts: .txt or .jsonl files. data: prepared corpora, of which the transcripts of the train split, their
    translations and the unspoken text count, in languages that the model writes; held-out sentences never do, but the
    dev clips say how sure to be of words found with it. language: of plain text.
    perplexity: a symbol's, on sentences held out while it was measured; the model written has seen all.
    """
    model = load_model(model_folder)
    if model.tokenizer is None:
        raise IsoglossError(f"{model_folder} has no symbols: it was pre-trained on speech alone; fine-tune it first.")
    sentences, unknown = [], 0
    written = model.config.alphabets
    for text, tag in sorted({*_given(texts, language), *_prepared(data, written)}):
        try:
            tokens = model.processor.tokens(text, tag)
        except IsoglossError:
            unknown += 1
            continue
        if tokens:
            sentences.append(tokens)
    size = model.tokenizer.size
    held, rest = sentences[::HELD_OUT], [s for place, s in enumerate(sentences) if place % HELD_OUT]
    notes: dict[str, Any] = {
        "sentences": len(sentences),
        "symbols": sum(map(len, sentences)),
        "sentences with unknown symbols, left out": unknown,
        "order": order,
        "perplexity": round(train_ngram(rest, size, order).perplexity(held), 3) if rest else None,
    }
    ngram = train_ngram(sentences, size, order)
    clips = joined([open_corpus(folder) for folder in data])
    dev = transcribed(clips.select(clips.in_split("dev") & clips.of_languages(written.__contains__)))
    if dev:
        search = Beam(language_model=ngram, bonus=bonus_for(model))
        ngram.calibration = calibrate(model, load_batches(select(dev)), search)
    save_ngram(ngram, out, digest(model_folder), notes)
    return notes


def _prepared(data: list[Path], languages: Container[str]) -> Iterator[tuple[str, str]]:
    """(text, language) of corpora."""
    recipe = DataRecipe(folders=tuple(data), translations=True, shortest=0.0, longest=inf)
    folders = opened(recipe)
    for cut in [*read_data(recipe, "train", folders=folders), *read_texts(recipe, folders)]:
        if (text := text_of(cut)) and language_of(cut) in languages:
            yield text, language_of(cut)


def _given(texts: list[Path], language: str | None) -> Iterator[tuple[str, str]]:
    """(text, language) of files."""
    for path in texts:
        for line in read_text_lines(path, language):
            yield line.text, line.language
