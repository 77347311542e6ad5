"""wav2vec 2.0, HuBERT and APC: sizes, first losses, what may not be seen, and the losses of `transformers`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch.testing import assert_close

from commands import Run
from isogloss.adaptation.finetune import plan
from isogloss.audio.waveform import WaveformConfig
from isogloss.data.loading import Batch
from isogloss.encoders.embed import ProjectionConfig
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.files import read_json
from isogloss.interop.wav2vec2 import WAV2VEC2
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.contrastive import info_nce
from isogloss.nn.ema import EMA
from isogloss.nn.quantizers import unused_share
from isogloss.objectives.apc import APCConfig
from isogloss.objectives.base import BaseConfig, Clock, Objective
from isogloss.objectives.best_rq import BestRQConfig
from isogloss.objectives.cpc import CPCConfig
from isogloss.objectives.data2vec import Data2VecConfig
from isogloss.objectives.hubert import HuBERTConfig
from isogloss.objectives.mockingjay import MockingjayConfig
from isogloss.objectives.w2v_bert import W2VBERTConfig
from isogloss.objectives.wav2vec2 import Wav2Vec2, Wav2Vec2Config, other_places
from isogloss.sequence import Sequence
from isogloss.training.journal import read_log
from isogloss.training.recipe import FitRecipe, load_recipe
from isogloss.training.trainer import begin, train
from small_objectives import START, causal_model, joint_model, pairs, rows, take


def whole(encoder: str, config: BaseConfig | None) -> int:
    """Parameters of features, encoder and what only pre-training needs; nothing is computed."""
    with torch.device("meta"):
        model = Model(ModelConfig(encoder=preset(encoder), features=preset_features(encoder), heads={}))
        parts = [model] if config is None else [model, config.build(model.spec)]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


@pytest.mark.parametrize(
    ("encoder", "config", "number"),
    [
        ("wav2vec2_base", Wav2Vec2Config(), 95_044_608),
        ("wav2vec2_large", Wav2Vec2Config(code_width=768), 317_390_592),
        ("apc", APCConfig(), 4_105_296),
        ("cpc", None, 1_843_456),  # without what predicts
    ],
    ids=["wav2vec 2.0 base", "wav2vec 2.0 large", "APC", "CPC"],
)
def test_models_have_the_published_number_of_parameters(encoder: str, config: BaseConfig | None, number: int) -> None:
    assert whole(encoder, config) == number


def test_hubert_is_as_large_as_its_paper_says() -> None:
    assert whole("wav2vec2_base", HuBERTConfig(clusters=504)) / 1e6 == pytest.approx(94.7, abs=0.05)


def labelled(batch: Batch, model: Model, clusters: int) -> Batch:
    random = torch.Generator().manual_seed(0)
    frames = model.spec.frames(batch.audio.lengths).tolist()
    labels = Sequence.from_list([torch.randint(clusters, (n,), generator=random) for n in frames])
    return Batch(batch.ids, batch.audio, batch.texts, batch.languages, batch.seed, labels={"clusters": labels})


def test_first_losses_are_those_of_guessing() -> None:
    model = joint_model().eval()
    batch = pairs(samples=[64000, 48000, 80000])
    hidden: dict[str, Any] = {"start_probability": 0.2}
    contrastive = take(Wav2Vec2Config(**hidden).build(model.spec).eval(), model, batch).terms["contrastive"]
    assert float(contrastive.total.detach() / contrastive.count) == pytest.approx(math.log(101), abs=0.6)
    config = HuBERTConfig(clusters=500, **hidden)
    clusters = take(config.build(model.spec).eval(), model, labelled(batch, model, 500)).terms["clusters"]
    assert float(clusters.total.detach() / clusters.count) == pytest.approx(math.log(500), abs=0.6)


@given(frames=st.integers(0, 30), seed=st.integers(0, 1000))
def test_other_frames_are_never_the_frame_itself(frames: int, seed: int) -> None:
    places = other_places(frames, 20, np.random.default_rng(seed))
    assert places.shape == (frames, 20)
    if frames > 1:
        assert (places != np.arange(frames)[:, None]).all() and places.min() >= 0 and places.max() < frames


def test_others_are_drawn_evenly() -> None:
    places = other_places(5, 20_000, np.random.default_rng(0))
    for frame, row in enumerate(places):
        shares = np.bincount(row, minlength=5) / len(row)
        assert np.allclose(np.delete(shares, frame), 0.25, atol=0.02)


def test_info_nce_is_its_formula() -> None:
    torch.manual_seed(0)
    right, wrong = torch.randn(6), torch.randn(6, 9)
    excluded = torch.rand(6, 9) < 0.3
    expected = []
    for one, others, out in zip(right, wrong, excluded, strict=True):
        kept = [one, *others[~out]]
        expected.append(-(one.exp() / torch.stack(kept).exp().sum()).log())
    assert_close(info_nce(right, wrong, excluded), torch.stack(expected))
    assert_close(info_nce(right, wrong, torch.ones_like(excluded)), torch.zeros(6))  # alone with itself


def test_unused_share_is_its_formula() -> None:
    even, one = torch.full((2, 320), 1 / 320), torch.eye(320)[:2]
    assert float(unused_share(even)) == pytest.approx(0, abs=1e-5)
    assert float(unused_share(one)) == pytest.approx((640 - 2) / 640)


def test_diversity_is_that_of_codes_without_noise() -> None:
    """In training, where the codes that are taken are drawn, as on the dev split."""
    model = joint_model()
    objective = Wav2Vec2Config(start_probability=0.2).build(model.spec)
    losses = []
    for training in (True, False):
        objective.train(training)
        torch.manual_seed(5)
        losses.append(take(objective, model.eval(), pairs()).terms["diversity"].total)
    assert_close(*losses)


def test_equal_codes_are_no_distractors() -> None:
    """Where all frames have one code, nothing is left to be told apart from."""
    model = joint_model().eval()
    objective = Wav2Vec2Config(start_probability=0.2, codes=2).build(model.spec).eval()
    with torch.no_grad():
        objective.quantizer.choose.weight.zero_()
    assert float(take(objective, model, pairs()).terms["contrastive"].total.detach()) == 0.0


def test_temperature_falls_and_stays() -> None:
    objective = Wav2Vec2Config().build(joint_model().spec)
    assert isinstance(objective, Wav2Vec2)
    at = [objective.temperature(type(START)(step, 100)) for step in (0, 35, 70, 100)]
    assert at == pytest.approx([2.0, 1.0, 0.5, 0.5])


class Hidden:
    """A twin of `transformers` for pre-training with random weights, and ours with the same."""

    def __init__(self, size: str):
        from transformers import Wav2Vec2Config as TheirConfig
        from transformers import Wav2Vec2ForPreTraining

        large = size == "large"
        config = TheirConfig(
            conv_dim=[12] * 7,
            conv_bias=large,
            feat_extract_norm="layer" if large else "group",
            do_stable_layer_norm=large,
            hidden_size=32,
            num_attention_heads=4,
            num_hidden_layers=2,
            intermediate_size=128,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            num_codevectors_per_group=10,
            codevector_dim=16,
            proj_codevector_dim=16,
        )
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        self.theirs: Any = Wav2Vec2ForPreTraining(config).eval()
        with torch.no_grad():
            for parameter in self.theirs.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        blocks = TransformerConfig(
            layers=2, width=32, heads=4, norm="pre" if large else "post", position="none",
            convolution=ConvolutionalPositionConfig(kernel=16, groups=4),
        )  # fmt: skip
        features = WaveformConfig(channels=12, norm="layer" if large else "group", bias=large)
        encoder = SpeechEncoderConfig(embed=ProjectionConfig(), blocks=blocks)
        ours = ModelConfig(features=features, encoder=encoder, heads={})
        self.model = Model(ours).eval()
        self.model.load_state_dict(WAV2VEC2.to_ours(ours, self.theirs.wav2vec2.state_dict()))
        values: dict[str, Any] = {"codes": 10, "code_width": 16, "distractors": 7, "start_probability": 0.1}
        self.objective = Wav2Vec2Config(**values).build(self.model.spec).eval()
        theirs = self.theirs.state_dict()
        self.objective.load_state_dict(
            {
                "masked.vector": theirs["wav2vec2.masked_spec_embed"],
                "quantizer.choose.weight": theirs["quantizer.weight_proj.weight"],
                "quantizer.choose.bias": theirs["quantizer.weight_proj.bias"],
                "quantizer.codes": theirs["quantizer.codevectors"].view(2, 10, 8),
                "quantizer.project.weight": theirs["project_q.weight"],
                "quantizer.project.bias": theirs["project_q.bias"],
                "project.weight": theirs["project_hid.weight"],
                "project.bias": theirs["project_hid.bias"],
            }
        )


@pytest.mark.parametrize("size", ["base", "large"])
def test_losses_are_those_of_transformers(size: str) -> None:
    """With the same hidden frames and the same distractors."""
    pytest.importorskip("transformers")
    twins = Hidden(size)
    batch = pairs(samples=[24000, 24000, 24000])
    prepared = twins.objective.prepare(batch, True)
    loss = twins.objective(twins.model, prepared, START)
    mask, targets = prepared.extras["mask"], prepared.extras["targets"]
    rows, frames = mask.shape
    negatives = torch.zeros(rows, frames, 7, dtype=torch.int64)
    for row, (places, others) in enumerate(zip(targets, prepared.extras["others"], strict=True)):
        where = torch.tensor(places)
        negatives[row, where] = row * frames + where[others[: len(places)]]
    asked = {"mask_time_indices": mask, "sampled_negative_indices": negatives}
    with torch.no_grad():
        found = twins.theirs(batch.audio.values, **asked)
        twins.theirs.quantizer.train()  # else theirs takes the codes themselves for their probabilities
        trained = twins.theirs(batch.audio.values, **asked)
    count = int(mask.sum())
    assert_close(loss.terms["contrastive"].total, found.contrastive_loss, rtol=1e-4, atol=1e-4)
    assert_close(loss.terms["diversity"].total, trained.diversity_loss, rtol=1e-4, atol=1e-4)
    assert loss.terms["contrastive"].count == loss.terms["diversity"].count == count > 20


def test_hubert_takes_the_labels_that_fall_on_its_frames() -> None:
    """Of its own states, of its features at four times the rate, and of MFCCs where the features come otherwise."""
    model = joint_model().eval()
    objective = HuBERTConfig(clusters=400, start_probability=0.3).build(model.spec)
    batch = pairs()
    found = []
    for frames, rate in ((model.spec.frames, 1), (model.spec.feature_frames, 4)):
        lengths = frames(batch.audio.lengths)
        labels = Sequence.from_list([torch.arange(n) // rate for n in lengths.tolist()])
        given = Batch(batch.ids, batch.audio, batch.texts, batch.languages, 3, labels={"clusters": labels})
        prepared = objective.prepare(given, True)
        found.append(prepared.extras["clusters"])
        assert prepared.extras["clusters"] == prepared.extras["targets"]
    assert found[0] == found[1]
    waveform = preset("wav2vec2_base").model_copy(update={"blocks": TransformerConfig(layers=1, width=32, heads=4)})
    with torch.device("meta"):
        spec = Model(ModelConfig(encoder=waveform, features=WaveformConfig(channels=8), heads={})).spec
    assert HuBERTConfig().build(spec)._rate(98, 16000) == 2  # 49 frames of its own
    with pytest.raises(IsoglossError, match=r"has fitted more than hubert\.clusters"):
        HuBERTConfig(clusters=2, start_probability=0.3).build(model.spec).prepare(given, True)


def test_apc_sees_nothing_of_what_it_predicts() -> None:
    """States before a change of the audio stay, and the distances of what comes after it do not."""
    model, batch = causal_model().eval(), pairs(samples=[16000])
    objective: Objective = APCConfig(ahead=3).build(model.spec).eval()
    features = model.features(batch.audio)
    changed = features.values.clone()
    changed[:, 50:] += 1.0
    before, after = (model.encoder(features.with_values(v)).final.values for v in (features.values, changed))
    assert torch.equal(before[:, :50], after[:, :50]) and not torch.equal(before[:, 50:], after[:, 50:])
    loss = take(objective, model, batch)
    predicted = objective.get_submodule("predict")(before[:, :-3])
    expected = (predicted - features.values[:, 3:]).abs().mean(dim=-1).sum()
    assert_close(loss.terms["distance"].total, expected)
    for encoder in ("tiny", "wav2vec2_base"):
        with torch.device("meta"):
            spec = Model(ModelConfig(encoder=preset(encoder), features=preset_features(encoder), heads={})).spec
        with pytest.raises(IsoglossError, match="sees nothing of the future"):
            APCConfig().build(spec)


def test_cpc_is_its_formula_and_sees_nothing_of_what_it_predicts() -> None:
    model, batch = causal_model().eval(), pairs(samples=[16000, 9000, 700])
    objective = CPCConfig(ahead=3, distractors=6).build(model.spec).eval()
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    z = model.features(batch.audio)
    expected = []
    for row, (clip, c) in enumerate(zip(z.unpad(), model.encoder(z).final.unpad(), strict=True)):
        for t in range(len(clip) - 3):
            losses = []
            for k in (1, 2, 3):
                guess = objective.get_submodule(f"predict.{k - 1}")(c[t])
                others = [int(n) for n in prepared.extras["others"][row, t] if n != t + k]
                scores = torch.stack([guess @ clip[n] for n in [t + k, *others]])
                losses.append(torch.logsumexp(scores, 0) - scores[0])
            expected.append(torch.stack(losses).mean())
    assert_close(loss.terms["contrastive"].total, torch.stack(expected).sum(), rtol=1e-4, atol=1e-3)
    assert loss.terms["contrastive"].count == len(expected)
    with torch.device("meta"):
        spec = Model(ModelConfig(encoder=preset("tiny"), heads={})).spec
    with pytest.raises(IsoglossError, match="sees nothing of the future"):
        CPCConfig().build(spec)


def test_w2v_bert_predicts_codes_without_moving_them() -> None:
    model, batch = joint_model().eval(), pairs(samples=[64000, 48000, 80000])
    objective = W2VBERTConfig(codes=64, start_probability=0.2, layer=1).build(model.spec).eval()
    loss = take(objective, model, batch)
    codes = loss.terms["codes"]
    assert float(codes.total.detach() / codes.count) == pytest.approx(math.log(64), abs=0.3)
    named = dict(objective.named_parameters()) | {f"model.{name}": p for name, p in model.named_parameters()}
    found = torch.autograd.grad(codes.total, list(named.values()), allow_unused=True)
    reached = {name for name, slope in zip(named, found, strict=True) if slope is not None}
    assert not any(name.startswith(("quantizer", "project")) for name in reached)
    assert {"classes.weight", "masked.vector"} <= reached
    contrastive = torch.autograd.grad(
        take(objective, model, batch).terms["contrastive"].total, list(named.values()), allow_unused=True
    )
    above = [slope for name, slope in zip(named, contrastive, strict=True) if "stack.blocks.2." in name]
    assert all(slope is None for slope in above)  # the loss is taken below them
    with pytest.raises(IsoglossError, match="leaves no block"):
        W2VBERTConfig(layer=3).build(model.spec)


def test_data2vec_averages_the_normalised_branches_of_the_slow_copy() -> None:
    torch.manual_seed(0)
    blocks = TransformerConfig(layers=3, width=32, heads=4, dropout=0.0)
    model = Model(ModelConfig(encoder=preset("test").model_copy(update={"blocks": blocks}), heads={})).eval()
    batch = pairs(samples=[32000, 24000, 9000])
    objective = Data2VecConfig(blocks=2, start_probability=0.2).build(model.spec).eval()
    objective.ema = EMA(model.encoder.stack)
    with torch.no_grad():  # the student has moved on
        for parameter in model.encoder.stack.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    stack = objective.ema.copy
    assert isinstance(stack, Stack)
    total = torch.zeros(())
    for row, clip in enumerate(batch.audio.unpad()):
        states = model.encoder.embed(model.features(Sequence.from_list([clip])))
        x, valid, averaged = states.values, states.valid, []
        for block in stack.blocks:
            x = x + block.attention(block.norm_attention(x), None, None, None)
            branch = block.feed(x, None)
            averaged.append(torch.nn.functional.instance_norm(branch.transpose(1, 2)).transpose(1, 2))
            x = x + branch
        wanted = torch.stack(averaged[-2:]).mean(dim=0)[0]
        mask = prepared.extras["mask"][row : row + 1, : len(wanted), None]
        student = model.encoder.contextualise(
            states.with_values(torch.where(mask, objective.get_parameter("masked.vector"), states.values))
        )
        found = objective.get_submodule("predict")(student.final.values[0])
        places = prepared.extras["targets"][row]
        total = total + ((found - wanted)[places].square().sum(dim=-1) / 32**0.5).sum()
        assert valid.all()
    assert_close(loss.terms["distance"].total, total, rtol=1e-4, atol=1e-3)
    named = [p for p in objective.ema.parameters()]
    assert not named  # no gradient, no optimizer
    assert [objective.teacher(Clock(step)) for step in (0, 15_000, 30_000, 60_000)] == pytest.approx(
        [0.999, 0.99945, 0.9999, 0.9999]
    )


def test_mockingjay_writes_what_is_hidden_and_sees_none_of_it() -> None:
    model, batch = joint_model().eval(), pairs(samples=[32000, 24000, 9000])
    objective = MockingjayConfig(start_probability=0.02, mask_ms=200).build(model.spec).eval()
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    features, mask = model.features(batch.audio), prepared.extras["mask"]
    zeroed = features.with_values(features.values.masked_fill(mask[..., None], 0.0))
    written = objective.get_submodule("predict")(model.encoder(zeroed).final.values)
    total = torch.zeros(())
    for row, frames in enumerate(prepared.extras["targets"]):
        for frame in frames:
            four = features.values[row, 4 * frame : 4 * frame + 4].flatten()
            total = total + (written[row, frame] - four).abs().mean()
    assert loss.terms["distance"].count > 20
    assert_close(loss.terms["distance"].total, total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "term"),
    [
        (BestRQConfig(start_probability=0.05, noise=0), "codes"),
        (MockingjayConfig(mask_ms=200), "distance"),
        (Wav2Vec2Config(), "contrastive"),
    ],
    ids=["best_rq", "mockingjay", "wav2vec2"],
)
def test_targets_are_of_the_right_frames_where_a_rest_is_left_out(config: BaseConfig, term: str) -> None:
    """An encoder that puts two frames side by side has no state for the last of an odd number of them."""
    blocks = TransformerConfig(layers=1, width=32, heads=4, dropout=0.0)
    encoder = SpeechEncoderConfig(embed=ProjectionConfig(stack=2, dropout=0.0), blocks=blocks)
    torch.manual_seed(0)
    model = Model(ModelConfig(encoder=encoder, heads={})).eval()
    objective = config.build(model.spec).eval()
    batch = pairs(samples=[400 + 160 * frames for frames in (100, 80, 60)])  # 101, 81 and 61 frames

    def total(clips: Batch) -> float:
        with torch.no_grad():
            return float(take(objective, model, clips).terms[term].total)

    assert total(batch) == pytest.approx(sum(total(rows(batch, slice(row, row + 1))) for row in range(3)), rel=1e-4)


def test_clips_too_short_to_hide_anything_have_no_loss() -> None:
    model = joint_model().eval()
    batch = pairs(samples=[800, 401, 900])
    for config in (Wav2Vec2Config(), HuBERTConfig()):
        objective = config.build(model.spec).eval()
        loss = take(objective, model, labelled(batch, model, 10))
        assert float(loss.value.detach()) == 0.0 and not any(term.count for term in loss.terms.values())


RECIPES = ["apc", "cpc", "data2vec", "hubert", "mockingjay", "w2v-bert", "wav2vec2"]


@pytest.mark.parametrize("name", [f"{method}-tiny" for method in RECIPES])
def test_recipes_of_speech_alone_train_and_what_they_made_is_fine_tuned(
    name: str, letters: Path, tmp_path: Path
) -> None:
    """On real clips; losses fall, and a recogniser starts from the encoder."""
    sizes = [f"data.folders=[{letters}]", "data.shortest=0.3"]
    sizes += ["model.encoder.blocks.width=32"] if name in ("apc-tiny", "cpc-tiny") else ["model.encoder=test"]
    shipped = load_recipe(name)
    for number, stage in enumerate(shipped.stages):
        if isinstance(stage, FitRecipe):
            layer = ["layer=1"] if number else []
            sizes += [f"stages.{number}.fit.{change}" for change in ["clusters=12", "starts=1", "share=1", *layer]]
        else:
            sizes += [f"stages.{number}.{change}" for change in ("steps=24", "evaluate_every=12", "seconds.speech=12")]
            if name == "data2vec-tiny":
                sizes.append(f"stages.{number}.objectives.0.blocks=2")
            if name == "hubert-tiny":
                sizes.append(f"stages.{number}.objectives.0.clusters=12")
    train(load_recipe(name, sizes), tmp_path / "run", console=Console(quiet=True))
    log = read_log(tmp_path / "run")
    for stage in shipped.training:
        losses = [record["loss"] for record in log if record["event"] == "step" and record["stage"] == stage.name]
        assert len(losses) == 24 and sum(losses[-8:]) < sum(losses[:8])
    recipe = plan(tmp_path / "run/model", [letters]).recipe
    begin(recipe, tmp_path / "tuned", resume=False)


def test_methods_are_listed_with_exact_sizes(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("methods", "--json", tmp_path / "methods.json")
    assert code == 0 and "arXiv 2006.11477" in out and "95 044 608" in out
    found = {method["name"]: method for method in read_json(tmp_path / "methods.json")}
    for name, method in found.items():
        trained = {objective.name for stage in load_recipe(method["recipe"]).training for objective in stage.objectives}
        assert name in trained and method["paper"]
    assert found["apc"]["presets"]["paper"]["parameters"] == 4_105_296
    sizes = found["wav2vec2"]["presets"]
    assert (sizes["base"]["parameters"], sizes["large"]["parameters"]) == (95_044_608, 317_390_592)
    assert sizes["base"]["encoder_parameters"] == 94_371_712 - 768  # without the vector that hides frames
