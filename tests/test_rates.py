"""Whatever a trained model can do it can do on any encoder: ours at 25 Hz, Whisper's and wav2vec 2.0's at 50 Hz.

Each encoder comes as a model folder, the imported ones written by transformers with random weights.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import isogloss
from isogloss.adaptation.finetune import plan
from isogloss.errors import IsoglossError
from isogloss.interop.importing import import_model
from isogloss.model.alignment import Aligner, align, locate
from isogloss.model.calibration import calibrate
from isogloss.model.folder import WEIGHTS, load_model, quantise_model, read_tensors, save_model
from isogloss.model.index import Index, Item
from isogloss.model.model import Model
from isogloss.model.space import embed_query, embed_speech, embed_text
from isogloss.model.streaming import WindowedWordStream
from isogloss.objectives.base import Objective
from isogloss.objectives.maestro import AlignedMLMConfig, MaestroConfig
from isogloss.objectives.most import MostConfig
from isogloss.sequence import Sequence
from isogloss.training.language_model import train_language_model
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import train
from small_models import build, small_recipe, sound
from small_objectives import gradients, pairs, sentences, take, with_teacher

transformers = pytest.importorskip("transformers")

TEXT = {"entry": 1, "convolutions": 1, "layers": 1, "duration_layers": 1, "refiner": 1, "dropout": 0.0}
RATES = {"ours": 25, "whisper": 50, "wav2vec2": 50}
MOST = {"name": "inject", "steps": 2, "seconds": {"paired": 8, "text": 2}, "objectives": [
    {"name": "most"}, {"name": "aligned_mlm"}]}  # fmt: skip


def whisper(folder: Path) -> str:
    sizes = {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 512}
    others = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 51865}
    transformers.WhisperModel(transformers.WhisperConfig(**sizes, **others)).save_pretrained(folder)
    return f"hf:{folder}"


def wav2vec2(folder: Path) -> str:
    sizes = {"conv_dim": [12] * 7, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    others = {"intermediate_size": 128, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**sizes, **others)).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module", params=RATES)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder without heads, symbols or languages."""
    scratch, name = tmp_path_factory.mktemp("encoder"), request.param
    torch.manual_seed(0)
    folder = scratch / name
    if name == "ours":
        save_model(build(languages=(), recognises=False), folder, "# Ours\n")
    else:
        source: Callable[[Path], str] = {"whisper": whisper, "wav2vec2": wav2vec2}[name]
        import_model(source(scratch / "theirs"), folder)
    assert round(1 / load_model(folder).frame_seconds) == RATES[name]
    return folder


@pytest.fixture(scope="module")
def trained(encoder: Path, letters: Path) -> Path:
    """A recogniser with a text encoder and a language head that started from the encoder."""
    recipe = small_recipe(letters, [MOST], start_from=str(encoder), text=TEXT)
    model = load_model(run(Recipe.parse(recipe, "test"), encoder.parent / "run"))
    _make_talk(model)
    save_model(model, encoder.parent / "trained", "# Trained\n")
    return encoder.parent / "trained"


@torch.no_grad()
def _make_talk(model: Model) -> None:
    """After two steps it would write nothing but blank: now no symbol is favoured, and 3 frames in 10 say space.

    And symbols last long enough for CTC to write them.
    """
    assert model.tokenizer is not None and model.text is not None and model.text.duration is not None
    model.text.duration.output.bias.add_(2)
    output, found, space = model.ctc_head().output, states(model, 5).values[0], model.tokenizer.encode("a a")[1]
    output.weight.mul_(8)
    output.bias.copy_(-output.weight @ found.mean(dim=0))
    scores = output(found)
    others = scores.index_fill(1, torch.tensor(space), -torch.inf).amax(dim=1)
    output.bias[space] += (others - scores[:, space]).quantile(0.3)


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load_model(trained)


def run(recipe: Recipe, folder: Path) -> Path:
    return train(recipe, folder, console=Console(file=io.StringIO()))


def states(model: Model, *seconds: float) -> Sequence:
    audio = Sequence.from_list([torch.from_numpy(sound(length, seed)) for seed, length in enumerate(seconds)])
    return model.encode(model.features(audio)).final


def test_a_recipe_has_the_encoder_that_it_starts_from(encoder: Path, trained: Path) -> None:
    """Though it names a preset, and without the size of anything."""
    start, model = load_model(encoder), load_model(trained)
    assert model.config.encoder == start.config.encoder and model.config.features == start.config.features
    assert model.config.languages == ("es", "it")


@pytest.mark.parametrize("config", [MostConfig(), MaestroConfig(), MostConfig(both_sides=True), AlignedMLMConfig()])
def test_text_trains_what_speech_uses(model: Model, config: Any) -> None:
    torch.manual_seed(0)
    objective: Objective = config.build(model.spec)
    objective = with_teacher(objective.train(), model)
    batch = sentences if isinstance(config, AlignedMLMConfig) else pairs
    languages = ["es", "it", "es"]
    loss = take(objective, model, batch(texts=["da nu da", "ok", "a b c d e"], languages=languages))
    assert torch.isfinite(loss.value)
    found = gradients(loss, model)
    reached = {name for name, slope in found.items() if slope.abs().sum() > 0}
    assert any(name.startswith("text.convolutions") for name in reached)
    assert any(name.startswith("encoder.stack.blocks.1") for name in reached)
    speech = any(name.startswith(("encoder.embed", "encoder.stack.blocks.0")) for name in reached)
    assert speech == (not isinstance(config, AlignedMLMConfig))


@torch.inference_mode()
def test_a_text_is_stretched_to_the_frames_of_its_speech(model: Model) -> None:
    speech = states(model, 3, 1.7)
    units = model.processor.unit_ids(["hola que tal", "ciao"], ["es", "it"])
    lasting, found = align(Aligner.of(model, speech), units)
    assert found.all() and lasting.values.sum(dim=1).tolist() == speech.lengths.tolist()
    assert speech.lengths.tolist() == [model.spec.frames(48000), model.spec.frames(27200)]
    read = model.encode_text(units, ["es", "it"], lasting)
    assert read.lengths.tolist() == speech.lengths.tolist()
    assert model.encode_shared(read).final.values.shape[-1] == model.spec.width
    # An untrained network may ask for hours, and a text lasts no longer than anybody would speak.
    assert model.text is not None and model.text.duration is not None
    model.text.duration.output.bias.data.add_(20)
    slow = model.encode_text(units, ["es", "it"]).lengths * model.frame_seconds
    model.text.duration.output.bias.data.sub_(20)
    assert slow.tolist() == pytest.approx([0.64 * 13, 0.64 * 5], abs=0.02 * 13)


def test_speech_and_text_are_embedded_and_found(trained: Path, model: Model) -> None:
    clips, lines = [sound(3), sound(1, seed=1), sound(2, seed=2)], [("hola", "es"), ("ciao", "it")]
    _, speech = embed_speech(model, list(clips))
    assert speech.frames.tolist() == [model.spec.frames(len(clip)) for clip in clips]
    text = embed_text(model, [line for line, _ in lines], [tag for _, tag in lines])
    items = [Item("speech", str(number)) for number in range(3)]
    items += [Item("text", line, language=tag) for line, tag in lines]
    index = Index(items, [*speech.last, *text.last], trained)
    _, query = embed_speech(model, [clips[1]])
    assert index.nearest(query.last[0], 1, "speech")[0].item.name == "1"
    assert index.nearest(embed_query(model, "ciao", "it").last[0], 1)[0].item == items[4]


def test_adapters_leave_the_encoder_bit_for_bit(encoder: Path, letters: Path, tmp_path: Path) -> None:
    recipe = plan(encoder, [letters], way="adapters").recipe
    stages = tuple(stage.model_copy(update={"steps": 2, "evaluate_every": 2}) for stage in recipe.stages)
    data = recipe.data.model_copy(update={"shortest": 0.1})
    changes = {"data": data, "stages": stages, "precision": "fp32", "device": "cpu"}
    folder = run(recipe.model_copy(update=changes), tmp_path / "run")
    before, after = load_model(encoder).state_dict(), load_model(folder).state_dict()
    assert all(after[name].equal(tensor) for name, tensor in before.items())
    assert after["encoder.adapters.up"].abs().sum() > 0
    assert all(name.startswith(("heads.", "encoder.adapters.")) for name in read_tensors(folder / WEIGHTS))
    assert isogloss.load(folder).transcribe(sound(2), language="es").language == "es"
    reader = isogloss.load(encoder, adapters=[folder])
    assert reader.transcribe(sound(2), language="it").language == "it"


@torch.inference_mode()
def test_a_frame_is_where_its_sound_is(model: Model) -> None:
    """A louder moment moves the frames around it; a frame begins at its number times the seconds of a frame."""
    quiet = 0.05 * torch.randn(3 * 16000, generator=torch.Generator().manual_seed(0))
    plain = model.embed(model.features(Sequence.from_list([quiet]))).values[0]
    for second in (0.5, 1.03, 2.21):
        louder = quiet.clone()
        place = round(second * 16000)
        louder[place - 400 : place + 400] *= 3
        moved = (model.embed(model.features(Sequence.from_list([louder]))).values[0] - plain).norm(dim=-1)
        moved = torch.where(moved > moved.max() / 2, moved, 0)  # statistics of the whole move everything a little
        middle = float((moved * torch.arange(len(moved))).sum() / moved.sum() + 0.5) * model.frame_seconds
        assert middle == pytest.approx(second, abs=0.06)


@torch.inference_mode()
def test_words_lie_in_order_within_the_clip(model: Model) -> None:
    speech = states(model, 3)
    assert len(model.words(model.decode(speech)[0])) > 1
    for hypothesis in (*locate(model, speech, ["hola que tal"], ["es"]), *model.decode(speech)):
        found = model.words(hypothesis, start=10.0, end=13.0)
        bounds = [time for word in found for time in (word.start, word.end)]
        assert bounds == sorted(bounds) and all(10.0 <= time <= 13.0 for time in bounds)
    assert [word.text for word in model.words(locate(model, speech, ["hola que tal"], ["es"])[0])] == [
        "hola", "que", "tal",
    ]  # fmt: skip


def test_searching_with_a_language_model_and_hotwords(trained: Path, letters: Path, tmp_path: Path) -> None:
    train_language_model(trained, tmp_path / "lm", texts=[], data=[letters], order=2)
    recogniser = isogloss.load(trained)
    beam = recogniser.beam(4, most=2, language_model=tmp_path / "lm", hotwords=["hola"])
    found = recogniser.transcribe(sound(2), language="es", beam=beam, vad=False)
    bounds = [time for word in found.words for time in (word.start, word.end)]
    assert len(found.segments[0].alternatives) == 2
    assert bounds == sorted(bounds) and all(0 <= time <= 2 for time in bounds)
    favoured = recogniser.beam(8, hotwords=["z"], hotword_bonus=50.0)
    assert "z" in recogniser.transcribe(sound(2), language="es", beam=favoured, vad=False).text


def test_the_language_and_the_calibration(trained: Path) -> None:
    recogniser = isogloss.load(trained)
    found = recogniser.identify([sound(2), sound(3, seed=1)], vad=False)
    assert all(set(item.probabilities) == {"es", "it"} for item in found)
    slope, offset = calibrate(recogniser.model, [pairs(languages=["es", "it", "es"], samples=[48000] * 3)] * 10)
    assert (slope, offset) != (1.0, 0.0) and math.isfinite(slope) and math.isfinite(offset)


def test_int8_weights_give_nearly_the_same_states(trained: Path, tmp_path: Path) -> None:
    quantise_model(trained, tmp_path / "small")
    small, whole = isogloss.load(tmp_path / "small"), isogloss.load(trained)
    ours, theirs = small.encode(sound(2)), whole.encode(sound(2))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min() > 0.98
    assert (tmp_path / "small" / WEIGHTS).stat().st_size < 0.8 * (trained / WEIGHTS).stat().st_size


@torch.inference_mode()
def test_words_while_they_are_said(trained: Path) -> None:
    stream = isogloss.load(trained).word_stream(language="es")
    assert isinstance(stream, WindowedWordStream) and not stream.exact
    audio = torch.from_numpy(sound(12))
    fed = [word for piece in audio.split(1600) for word in stream.feed(piece)]
    found = fed + stream.finish()
    assert len(fed) > 3
    bounds = [time for word in found for time in (word.start, word.end)]
    assert bounds == sorted(bounds) and all(0 <= time <= 12 for time in bounds)
    assert stream.final <= stream.model.spec.frames(len(audio))


@pytest.mark.parametrize("name", ["most-tiny", "maestro-u-tiny"])
def test_shipped_recipes_start_from_any_encoder(name: str, encoder: Path, letters: Path, tmp_path: Path) -> None:
    few = ["model.text.entry=1", f"model.start_from={encoder}", f"data.folders=[{letters}]", "data.shortest=0.1"]
    few += ["model.adapters.after=1"] if name == "maestro-u-tiny" else []
    recipe = load_recipe(name, few)
    short = {"steps": 1, "evaluate_every": 1, "batch_seconds": 4.0}
    stages = tuple(
        stage.model_copy(update=short | {"seconds": dict.fromkeys(stage.seconds, 4.0)}) for stage in recipe.stages
    )
    folder = run(recipe.model_copy(update={"stages": stages, "device": "cpu", "precision": "fp32"}), tmp_path / "run")
    assert load_model(folder).config.encoder.blocks == load_model(encoder).config.encoder.blocks
    with pytest.raises(IsoglossError, match=r"text\.entry 2 leaves no block for text to share; the encoder has 2"):
        run(load_recipe(name, few[1:4]), tmp_path / "none")
