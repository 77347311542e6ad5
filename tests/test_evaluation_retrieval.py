"""Retrieval between speech and text: controls are worth nothing, a space that is one is worth everything."""

from pathlib import Path

import pytest
import torch

from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.evaluation import retrieval
from isogloss.evaluation.retrieval import own, retrieve, spoken_too, translated
from isogloss.model.model import Model
from isogloss.model.space import Vectors
from isogloss.model.spec import ModelConfig
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from test_encoders_text import SMALL


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=preset("test"), text=SMALL.model_copy(update={"heads": 4}), text_languages=("es", "it"),
        alphabets={"es": (1,), "it": (1,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(unknown=True), ["abcdefghijklmnopqrstuvwxyz "]))


def test_rows_of_every_shared_layer_and_of_the_controls(letters: Path, model: Model) -> None:
    cuts = read_cuts(letters, "train")
    rows = retrieve(model, own(cuts), size=20, resamples=3)
    ways = ["block 1", "block 2", "random weights", "shuffled pairs", "length alone", "chance"]
    assert [row.way for row in rows[::2]] == ways
    assert {row.direction for row in rows} == {"speech → text", "text → speech"}
    assert all(len(row.pools) == 3 and row.pools[0].queries == 20 for row in rows)
    plain = {(row.way, row.direction): row.plain() for row in rows}
    assert plain["chance", "speech → text"]["R@1"] == 5.0 and plain["chance", "speech → text"]["± R@1"] == 0.0
    assert all(0 <= figures["R@1"] <= figures["R@5"] <= 100 for figures in plain.values())


def test_one_space_is_found_and_shuffled_pairs_are_not(
    letters: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both sides have the same vector, every layer is perfect, and shuffling spoils it."""
    cuts = read_cuts(letters, "train")

    def same(_: Model, chosen: list, layers: range) -> tuple[Vectors, Vectors]:
        assert len({line.text for _, line in chosen}) > 10
        vectors = Vectors({n: torch.nn.functional.normalize(torch.randn(len(chosen), 64)) for n in layers})
        vectors.frames = torch.arange(len(chosen)) % 3
        return vectors, vectors

    monkeypatch.setattr(retrieval, "_both", same)
    found = {row.way: row.plain() for row in retrieve(model, own(cuts))}
    assert found["block 2"]["R@1"] == 100.0 and found["shuffled pairs"]["R@1"] < 20
    assert found["length alone"]["R@1"] < 15  # many are as long


def test_across_languages_each_sentence_is_there_once(letters: Path, model: Model) -> None:
    cuts = read_cuts(letters)
    spanish = [cut for cut in cuts if language_of(cut) == "es"]
    italian = [cut for cut in cuts if language_of(cut) == "it"]
    for cut, other in zip(spanish, italian, strict=False):
        cut.custom["translations"] = {"it": text_of(other), "oc": "lo"}
    pairs = translated(cuts, "it")
    assert all(language_of(cut) == "es" and line.language == "it" for cut, line in pairs)
    assert len(pairs) == len({line.text for _, line in pairs}) > 10 and len(translated(cuts, "oc")) == 1
    both = spoken_too(cuts, "it")
    assert {language_of(cut) for cut, _ in both} == {"es"} and {language_of(cut) for _, cut in both} == {"it"}
    assert all(text_of(other) == cut.custom["translations"]["it"] for cut, other in both) and len(both) > 10
    found = retrieve(model, both, size=10, resamples=2)
    assert {row.direction for row in found} == {"speech → other speech", "other speech → speech"}
    for cut in cuts[:3]:
        cut.custom["concept"] = "same"
    spanish[0].custom["concept"] = italian[0].custom["concept"] = "hello"
    assert (spanish[0], italian[0]) in spoken_too(cuts, "it")
    italian[0].custom["source"] = "another corpus"  # whose "hello" may be anything
    assert (spanish[0], italian[0]) not in spoken_too(cuts, "it")
    assert translated(cuts, "ru") == spoken_too(cuts, "ru") == []


def test_nothing_transcribed_is_told(model: Model) -> None:
    with pytest.raises(IsoglossError, match="needs transcribed clips"):
        retrieve(model, own([]))
