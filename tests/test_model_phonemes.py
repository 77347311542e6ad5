"""Phonemes beside graphemes: a second head, and a text encoder that reads pronunciations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCConfig
from isogloss.model.alignment import Aligner, align
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.model.recogniser import Recogniser
from isogloss.model.spec import ModelConfig
from isogloss.objectives.maestro import AlignedMLMConfig
from isogloss.objectives.most import MostConfig
from isogloss.objectives.recognition import RecognitionConfig
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from isogloss.training.journal import read_log
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_models import small_recipe, sound
from small_objectives import gradients, pairs, sentences, take

pytest.importorskip("espeakng_loader")

HEADS = {"ctc": CTCConfig(), "phonemes": CTCConfig(target="phonemes")}
IPA = tuple(sorted("abcdeiknouə "))


def build(text: bool = True, phonemes: tuple[str, ...] = IPA) -> Model:
    from isogloss.encoders.presets import preset

    torch.manual_seed(0)
    reads = TextEncoderConfig(entry=1, units="phonemes", convolutions=1, layers=1, duration_layers=1, refiner=0)
    config = ModelConfig(
        encoder=preset("test"), heads=HEADS, phonemes=phonemes, text=reads if text else None,
        text_languages=("ro", "ru"), alphabets={"ro": (1,), "ru": (2,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(), ["da nu ok", "a b c d e"])).eval()


def test_a_text_is_read_as_it_is_pronounced() -> None:
    model = build()
    units = model.processor.unit_ids(["Da, nu!", None], ["ro", "ro"])
    assert "".join(model.processor.unit_name(unit) for unit in units.unpad()[0].tolist()) == "da nu"
    assert units.lengths.tolist() == [5, 0]
    assert model.ctc_head("phonemes") is model.heads["phonemes"] and model.text.symbols.num_embeddings == 1 + len(IPA)
    assert model.processor.phonemes(["șarpe"], ["ro"]).lengths.item() == 2  # of ʃarpe, ʃ, r and p are in no head
    with pytest.raises(IsoglossError, match='has no rules for "oc"'):
        model.processor.unit_ids(["bonjorn"], ["oc"])


def test_the_head_learns_beside_the_graphemes() -> None:
    model = build(text=False)
    half, more = (RecognitionConfig(head_weights={"phonemes": w}).build(model.spec) for w in (0.5, 1.5))
    loss, plain = take(half, model, pairs()), take(more, model, pairs())
    term = loss.terms["phonemes"]
    assert (plain.value - loss.value).item() == pytest.approx(term.total.item() / 3, rel=1e-4)
    assert gradients(loss, model)["heads.phonemes.output.weight"].abs().sum() > 0
    features = model.features(pairs().audio)
    said = model.ipa(model.encode(features).final)
    assert len(said) == 3 and set("".join(said)) <= set(IPA)
    with pytest.raises(IsoglossError, match="no CTC head for phonemes"):
        build(text=False, phonemes=()).ipa(model.encode(features).final)


def test_durations_are_those_of_phonemes() -> None:
    model = build()
    objective = MostConfig().build(model.spec).eval()
    batch = objective.prepare(pairs(), True)
    units = batch.extras["units"]
    states = model.encode(model.features(batch.audio)).final
    lasting, found = align(Aligner.of(model, states), units)
    assert bool(found.all()) and torch.equal(lasting.values.sum(dim=1), states.lengths)
    assert torch.equal(lasting.lengths, units.lengths + 1)
    model.text.duration.output.bias.data.fill_(1.5)  # about three frames each, enough for CTC
    for subject, given in ((objective, pairs()), (AlignedMLMConfig().build(model.spec), sentences())):
        slopes = gradients(take(subject, model, given), model)
        assert slopes["text.symbols.weight"].abs().sum() > 0 and slopes["heads.ctc.output.weight"].abs().sum() > 0


def test_without_the_head_nothing_is_pronounced() -> None:
    with pytest.raises(IsoglossError, match=r"add model\.heads\.phonemes"):
        build(phonemes=())


def test_a_run_finds_its_phonemes_in_the_data(letters: Path, tmp_path: Path) -> None:
    text = {"entry": 1, "units": "phonemes", "convolutions": 1, "layers": 1, "duration_layers": 1, "refiner": 0}
    stage: dict[str, Any] = {"name": "join", "steps": 2, "seconds": {"paired": 8}, "objectives": [{"name": "most"}]}
    recipe = Recipe.parse(small_recipe(letters, [stage], heads=["ctc", "phonemes", "language"], text=text), "test")
    train(recipe, tmp_path, console=Console(quiet=True))
    model = load_model(tmp_path / "model")
    assert set(model.config.phonemes) >= set("aeio") and "phonemes" in model.heads
    looks = [record for record in read_log(tmp_path) if record["event"] == "dev"]
    rated = {key.removeprefix("cer") for key in looks[-1] if key.startswith("cer")}
    assert len(rated) > 1 and rated == {key.removeprefix("per") for key in looks[-1] if key.startswith("per")}


def test_a_transcript_tells_how_it_sounds() -> None:
    model = build(text=False)
    with torch.no_grad():  # writes "a" in both alphabets, always
        model.ctc_head().output.bias[model.processor.tokens("a")[0]] = 100.0
        model.ctc_head("phonemes").output.bias[1 + IPA.index("a")] = 100.0
    clip = sound(2, 1)
    assert Recogniser(model).transcribe(clip).segments[0].phonemes == "a"
