"""VQ-VAE: its loss term by term, what codes learn from, the same in two processes and after a resume, and its units."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn.functional import gelu
from torch.testing import assert_close

from isogloss.adaptation.finetune import plan
from isogloss.audio.features import FeaturesConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.data.clips import open_corpus
from isogloss.data.loading import Loader
from isogloss.encoders.embed import ProjectionConfig
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.segmentation import Segment
from isogloss.objectives.vq_vae import VQVAE, VQVAEConfig, jittered, load_units
from isogloss.sequence import Sequence
from isogloss.training import development
from isogloss.training.checkpoint import read_checkpoint
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import begin, train
from small_models import small_recipe
from small_objectives import START, joint_model, pairs, rows, take

SMALL: dict[str, Any] = {"codes": 16, "code_width": 8, "voice": 4, "width": 16, "layers": 1}


def built(model: Model, **how: Any) -> VQVAE:
    objective = VQVAEConfig(**SMALL | how).build(model.spec)
    objective.units.quantizer.codebooks.normal_()  # as far apart as states
    return objective.eval()


def pair_model() -> Model:
    """A model that puts two frames side by side, and has no state for the last of an odd number."""
    torch.manual_seed(0)
    encoder = SpeechEncoderConfig(
        embed=ProjectionConfig(stack=2, dropout=0.0),
        blocks=TransformerConfig(layers=1, width=32, heads=4, dropout=0.0),
    )
    return Model(ModelConfig(encoder=encoder, heads={}))


@pytest.mark.parametrize("build", [joint_model, pair_model], ids=["a part at the end", "a rest left out"])
def test_the_loss_is_its_formula(build: Callable[[], Model]) -> None:
    """Clip by clip and frame by frame, with the neighbours that were drawn."""
    model = build().eval()
    objective, stride = built(model, jitter=0.5), model.spec.stride
    batch = pairs(samples=[400 + 160 * frames for frames in (100, 77, 58)])  # 101, 78 and 59 frames
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    written, committed, count, moved = torch.zeros(()), torch.zeros(()), 0, 0
    for row, clip in enumerate(batch.audio.unpad()):
        features = model.features(Sequence.from_list([clip]))
        z = objective.units.project(model.encoder(features).final.values[0])
        book = objective.units.quantizer.codebooks[0]
        codes = torch.cdist(z, book).argmin(dim=1)
        committed = committed + (z - book[codes]).square().mean(dim=1).sum()
        taken = prepared.extras["neighbours"][row, : len(z)]
        moved += int((taken != torch.arange(len(z))).sum())
        voice = objective.pool(features.map(lambda x: gelu(objective.hear(x))))
        guess = objective.decoder(Sequence(book[codes[taken]][None], torch.tensor([len(z)])), voice)
        x = features.values[0, : stride * len(z)]
        written = written + (guess[0].reshape(-1, model.spec.bins)[: len(x)] - x).square().mean(dim=1).sum()
        count += len(x)
    assert moved > 10
    assert loss.terms["distance"].count == count
    assert_close(loss.terms["distance"].total, written, rtol=1e-4, atol=1e-3)
    assert_close(loss.terms["commitment"].total, committed, rtol=1e-4, atol=1e-3)
    assert loss.terms["commitment"].weight == 0.25
    assert loss.kept is None  # only training moves codes


def test_reconstruction_reaches_the_encoder_through_the_codes() -> None:
    model = joint_model().eval()
    objective = built(model, commitment=0.0)
    loss = take(objective, model, pairs())
    weight = model.encoder.embed.get_parameter("project.weight")
    (slope,) = torch.autograd.grad(loss.terms["distance"].total, weight)
    assert float(slope.abs().max()) > 0


def test_codes_are_taken_from_neighbours_of_the_clip() -> None:
    places = jittered(20_000, 0.12, np.random.default_rng(0))
    steps = places - np.arange(20_000)
    assert [np.mean(steps == step) for step in (-1, 0, 1)] == pytest.approx([0.06, 0.88, 0.06], abs=0.005)
    for seed in range(50):
        assert set(jittered(3, 1.0, np.random.default_rng(seed))) <= {0, 1, 2}
    assert jittered(9, 0.0, np.random.default_rng(0)).tolist() == list(range(9))
    objective, batch = built(joint_model(), jitter=1.0), pairs()
    still = objective.prepare(batch, training=False).extras
    for row, frames in zip(still["neighbours"].tolist(), still["targets"], strict=True):
        assert row[: len(frames)] == frames


def test_clips_too_short_for_a_frame_are_nothing() -> None:
    model = joint_model().eval()
    objective = built(model).train()
    batch = pairs(samples=[100, 300, 20])
    loss = take(objective, model, batch)
    assert float(loss.value.detach()) == 0.0 and not any(term.count for term in loss.terms.values())
    before = objective.units.quantizer.codebooks.clone()
    assert loss.kept is not None
    objective.remember(loss.kept)
    assert torch.equal(objective.units.quantizer.codebooks, before)


def test_codes_follow_all_micro_batches_of_a_step() -> None:
    """The same codes whether clips come together or one by one; those that begin anew are states of the first."""
    model, batch = joint_model().eval(), pairs()
    together, apart = (built(model, jitter=0.0).train() for _ in range(2))
    apart.load_state_dict(together.state_dict())
    whole = take(together, model, batch).kept
    torch.manual_seed(0)
    parts = [take(apart, model, rows(batch, slice(row, row + 1))).kept for row in range(3)]
    assert whole is not None
    together.remember(whole)
    apart.remember(torch.cat([part for part in parts if part is not None]))
    mine, theirs = together.units.quantizer, apart.units.quantizer
    used = whole[:, 0].nonzero()[:, 0].tolist()
    assert 1 < len(used) < 16 and torch.equal(mine.idle, theirs.idle)
    assert_close(theirs.codebooks[0, used], mine.codebooks[0, used])
    first = model.encoder(model.features(rows(batch, slice(0, 1)).audio)).final
    states = apart.units.project(first.values[0]).detach()
    anew = torch.cdist(theirs.codebooks[0], states).min(dim=1).values
    assert all(float(anew[code]) < 1e-3 for code in range(16) if code not in used)


def test_learned_features_are_refused() -> None:
    waveform = preset("wav2vec2_base").model_copy(update={"blocks": TransformerConfig(layers=1, width=32, heads=4)})
    features: FeaturesConfig = preset_features("wav2vec2_base")
    assert isinstance(features, WaveformConfig)
    with torch.device("meta"):
        spec = Model(ModelConfig(encoder=waveform, features=features, heads={})).spec
    with pytest.raises(IsoglossError, match=r"vq_vae writes the features .* set model\.features: \{kind: log_mel\}"):
        VQVAEConfig().build(spec)


def small_stage(letters: Path, **how: Any) -> dict[str, Any]:
    stage = {
        "name": "units", "steps": 4, "seconds": {"speech": 8}, "batch_seconds": 4, "evaluate_every": 2, "best": "last",
        "objectives": [{"name": "vq_vae", **SMALL, "decay": 0.9, "restart": 2}],
    }  # fmt: skip
    return small_recipe(letters, [stage | how], heads={}) | {"keep": 10}


def checkpoint(run: Path, step: int) -> dict[str, torch.Tensor]:
    found = read_checkpoint(run, step)
    return found.tensors("model") | found.tensors("objectives")


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_have_the_codes_of_one(
    letters: Path, sharding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(development, "CLIPS", 2)
    recipe = small_stage(letters)
    train(Recipe.parse(recipe, "test"), tmp_path / "one", console=Console(quiet=True))
    train_in_processes(Recipe.parse(recipe | {"sharding": sharding}, "test"), tmp_path / "two", 2)
    mine, theirs = checkpoint(tmp_path / "one", 4), checkpoint(tmp_path / "two", 4)
    assert mine.keys() == theirs.keys() and "vq_vae/units.quantizer.codebooks" in mine
    for name, value in mine.items():
        assert_close(theirs[name], value, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert len(mine["vq_vae/units.quantizer.idle"].unique()) > 1  # of some codes nothing was heard in the last step


def test_codes_go_on_as_they_were(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, with those that were about to begin anew."""
    monkeypatch.setattr(development, "CLIPS", 2)
    recipe = Recipe.parse(small_stage(letters, steps=6, save_every=1), "test")
    run = tmp_path / "run"
    train(recipe, run, console=Console(quiet=True))
    expected = checkpoint(run, 6)
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > 3:
            shutil.rmtree(folder)
    shutil.rmtree(run / "model")
    train(recipe, run, resume=True, console=Console(quiet=True))
    found = checkpoint(run, 6)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_the_recipe_trains_and_gives_units(letters: Path, tmp_path: Path) -> None:
    """On real clips: reconstruction falls, most codes are used, a recogniser starts from the encoder."""
    small = [f"data.folders=[{letters}]", "data.shortest=0.3"]
    small += [f"stages.0.{change}" for change in ("steps=40", "evaluate_every=20", "seconds.speech=12")]
    small += [f"stages.0.objectives.0.{change}" for change in ("codes=64", "restart=10", "layers=1", "width=64")]
    train(load_recipe("vq-vae-tiny", small), tmp_path / "run", console=Console(quiet=True))
    steps = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    distances = [record["vq_vae/distance"] for record in steps]
    assert sum(distances[-8:]) < 0.9 * sum(distances[:8])
    model, finder = load_units(tmp_path / "run/model")
    batch = Loader(open_corpus(letters)).load(range(12))
    with torch.no_grad():
        states = model.eval().encoder(model.features(batch.audio)).final
    alone = finder.units(states, longest=10_000)
    longer, merged = finder.units(states, bonus=20.0), finder.units(states, rate=0.25)
    for own, few, half, frames in zip(alone, longer, merged, states.lengths.tolist(), strict=True):
        assert len(own.codes) == frames == own.segments[-1].end == few.segments[-1].end
        assert own.segments == runs(own.codes)
        assert len(few.segments) < len(own.segments) and len(half.segments) == max(1, round(0.25 * frames))
    assert len(np.unique(np.concatenate([own.codes for own in alone]))) > 32
    begin(plan(tmp_path / "run/model", [letters]).recipe, tmp_path / "tuned", resume=False)


def runs(codes: np.ndarray) -> list[Segment]:
    """Runs of one code as segments."""
    bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    return [Segment(start, end, int(codes[start])) for start, end in pairwise(bounds)]


def test_a_model_without_units_says_so(model: Path) -> None:
    with pytest.raises(IsoglossError, match="has no units; train one with the objective vq_vae"):
        load_units(model)
