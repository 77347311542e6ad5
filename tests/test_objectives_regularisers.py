"""Consistency, virtual adversarial training, guided masks and layer drop: formulas, and that they do what they say."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from isogloss.encoders.presets import preset
from isogloss.encoders.stack import Stack
from isogloss.errors import IsoglossError
from isogloss.model.folder import save_model
from isogloss.nn.masking import guided_mask, span_mask
from isogloss.nn.masks import FullContext
from isogloss.objectives.base import Clock
from isogloss.objectives.best_rq import BestRQConfig
from isogloss.objectives.consistency import ConsistencyConfig, difference, output
from isogloss.objectives.guidance import FULL, ConfidenceConfig, GuideConfig, smoothed
from isogloss.objectives.vat import VATConfig, sized
from isogloss.objectives.wav2vec2 import Wav2Vec2Config
from isogloss.sequence import Sequence
from isogloss.training.fitting import read_artefact
from isogloss.training.journal import read_log
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_objectives import gradients, joint_model, pairs, take


def posteriors(seed: int, lengths: tuple[int, ...] = (4, 2), classes: int = 5) -> Sequence:
    values = torch.randn(len(lengths), max(lengths), classes, generator=torch.Generator().manual_seed(seed)).double()
    return Sequence(values.log_softmax(dim=-1), torch.tensor(lengths))


def test_divergences_are_their_formulas():
    p, q = posteriors(0), posteriors(1)
    for kind in ("kl", "js", "mse", "cosine"):
        for row, found in enumerate(difference(p, q, kind).tolist()):
            frames = []
            for a, b in zip(p.unpad()[row].tolist(), q.unpad()[row].tolist(), strict=True):
                pa, pb = np.exp(a), np.exp(b)
                middle = (pa + pb) / 2
                frames.append(
                    {
                        "kl": (pa * np.log(pa / pb)).sum(),
                        "js": ((pa * np.log(pa / middle)).sum() + (pb * np.log(pb / middle)).sum()) / 2,
                        "mse": ((np.array(a) - b) ** 2).mean(),
                        "cosine": 1 - np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b),
                    }[kind]
                )
            assert found == pytest.approx(np.mean(frames), abs=1e-9)
            assert kind != "js" or 0 <= found <= log(2)


@pytest.mark.parametrize("stop", ["none", "first", "second", "each"])
def test_no_gradient_goes_through_the_side_that_is_stopped(stop: str):
    p, q = (posteriors(seed).map(lambda x: x.clone().requires_grad_()) for seed in (0, 1))
    value = difference(p, q, "js", stop)
    value.sum().backward()
    assert (p.values.grad is None) == (stop == "first") and (q.values.grad is None) == (stop == "second")
    torch.testing.assert_close(value, difference(p, q, "js"))


def test_equal_views_do_not_differ_and_masked_ones_do():
    model = joint_model()
    for values in ({}, {"on": "language", "kind": "js"}, {"on": "states", "kind": "mse"}):
        objective = ConsistencyConfig.parse({"augment": {"time_width": 20}} | values, "test").build(model.spec)
        assert float(take(objective.eval(), model.eval(), pairs()).value.detach()) == pytest.approx(0, abs=1e-6)
        assert float(take(objective.train(), model.eval(), pairs()).value.detach()) > 1e-6


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"on": "ctcc"}, 'consistency.on: the model has no head "ctcc" with posteriors. Did you mean "ctc"?'),
        ({"on": "states"}, "kind kl compares posteriors; give mse or cosine for states"),
    ],
)
def test_what_cannot_be_compared_is_said(values: dict[str, str], said: str):
    with pytest.raises(IsoglossError) as error:
        ConsistencyConfig.parse(values, "test").build(joint_model().spec)
    assert said in str(error.value)


def test_vat_wants_posteriors():
    with pytest.raises(IsoglossError, match=r"vat\.on: the model has no head"):
        VATConfig.parse({"on": "states"}, "test").build(joint_model().spec)


def test_the_change_is_worse_than_a_random_one_of_its_size():
    model = joint_model().eval()
    config = VATConfig(epsilon=0.3)
    objective = config.build(model.spec).eval()
    batch = objective.prepare(pairs(), True)
    features = model.features(batch.audio).zero_padding()
    clean, change = objective._worst(model, features, batch)
    frames = features.lengths.sqrt()
    torch.testing.assert_close(change.square().sum(dim=(1, 2)).sqrt(), 0.3 * frames)
    random = sized(batch.extras["direction"], 0.3)
    lost = [
        difference(clean, output(model, model.encode(features.map(lambda x, r=r: x + r)).final, "ctc"), "kl")
        for r in (change, random)
    ]
    assert (lost[0] > 1.5 * lost[1]).all()
    torch.testing.assert_close(take(objective, model, pairs()).value * 3, lost[0].sum())


def test_vat_leaves_the_model_in_training_and_teaches_it():
    model = joint_model(dropout=0.1).train()
    objective = VATConfig().build(model.spec).train()
    found = gradients(take(objective, model, pairs()), model)
    assert model.training and all(part.training for part in model.modules())
    assert any(slope.abs().sum() > 0 for name, slope in found.items() if name.startswith("encoder.stack"))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_vat_is_measured_without_gradients():
    model = joint_model().eval()
    objective = VATConfig().build(model.spec).eval()
    with torch.no_grad():
        quiet = take(objective, model, pairs()).value
    torch.testing.assert_close(quiet, take(objective, model, pairs()).value.detach())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), st.floats(0, 8), st.integers(0, 99), st.data())
def test_as_many_are_hidden_as_asked_for(frames: int, span: int, sharpness: float, seed: int, data: st.DataObject):
    count = data.draw(st.integers(0, frames))
    scores = np.random.default_rng(seed).random(frames)
    mask = guided_mask(scores, count, span, sharpness, np.random.default_rng(seed))
    assert mask.shape == (frames,) and mask.sum() == count
    np.testing.assert_array_equal(mask, guided_mask(scores, count, span, sharpness, np.random.default_rng(seed)))


def test_equal_scores_hide_as_a_random_mask_does():
    shares, random = np.zeros(100), np.zeros(100)
    for seed in range(600):
        mask = span_mask(100, 0.05, 10, np.random.default_rng(seed))
        random += mask
        shares += guided_mask(np.full(100, 0.4), int(mask.sum()), 10, 2.0, np.random.default_rng([seed, 1]))
    assert shares.sum() == random.sum()
    # Fewer in the first frames, which fewer spans reach, and as many everywhere else.
    assert abs(shares[10:] - shares[10:].mean()).max() < 0.25 * shares[10:].mean()
    assert shares[0] < 0.5 * shares.mean() and random[0] < 0.5 * random.mean()


def test_what_is_sure_is_hidden_more_and_noise_less():
    scores = np.where(np.arange(200) < 100, 0.9, 0.2)
    draws = [guided_mask(scores, 60, 10, 2.0, np.random.default_rng(seed)) for seed in range(50)]
    assert np.mean([mask[:100].mean() for mask in draws]) > 3 * np.mean([mask[100:].mean() for mask in draws])


def test_confidence_is_that_of_the_best_symbol_around_a_frame(tmp_path: Path):
    model = joint_model().eval()
    save_model(model, tmp_path / "model", "a card")
    batch = pairs()
    own = ConfidenceConfig().build(model.spec)
    other = ConfidenceConfig(scorer=tmp_path / "model").build(model.spec)
    artefact = own.fit(model, [batch])
    found = own.label(model, artefact, batch)
    for row, (mine, saved) in enumerate(zip(found, other.label(model, artefact, batch), strict=True)):
        torch.testing.assert_close(mine, saved, atol=1, rtol=0)
        states = model.encode(model.features(batch.audio)).final
        best = model.heads["ctc"](states).unpad()[row].exp().amax(dim=-1)
        wanted = torch.stack([best[max(0, t - 2) : t + 3].mean() for t in range(len(best))])
        torch.testing.assert_close(mine, (wanted * FULL).round().long(), atol=1, rtol=0)
    assert not len(smoothed(torch.zeros(0)))


def test_a_scorer_without_ctc_is_refused():
    model = joint_model()
    bare = model.spec.config.model_copy(update={"heads": {}})
    with pytest.raises(IsoglossError, match="no CTC head"):
        ConfidenceConfig().build(replace(model.spec, config=bare))


@pytest.mark.parametrize("config", [BestRQConfig(), Wav2Vec2Config()], ids=["features", "states"])
@pytest.mark.parametrize("rate", [1, 3])
def test_guided_masks_follow_labels_of_any_rate(config: BestRQConfig | Wav2Vec2Config, rate: int):
    """As many frames are hidden as without, most of them in the half of each clip of which the scorer is sure."""
    model = joint_model()
    batch = pairs(samples=[64000] * 3)
    frames = 100 * rate
    labels = torch.where(torch.arange(frames) < frames // 2, FULL, 1)
    batch = replace(batch, labels={"confidence": Sequence.from_list([labels] * 3)})
    spans = {"mask_ms": 120, "start_probability": 0.03}
    random = config.model_copy(update=spans).build(model.spec).prepare(batch, True).extras["mask"]
    for by in ("high", "low"):
        objective = config.model_copy(update=spans | {"guide": GuideConfig(by=by)}).build(model.spec)
        assert objective.needs.labels == {"confidence"}
        mask = objective.prepare(batch, True).extras["mask"]
        assert (mask.sum(dim=1) == random.sum(dim=1)).all()
        first = mask[:, : mask.shape[1] // 2].sum() / mask.sum()
        assert first > 0.75 if by == "high" else first < 0.25


def test_dropped_layers_change_nothing_and_get_zeros_for_gradients():
    blocks = preset("test").blocks.model_copy(update={"layer_drop": 0.5, "dropout": 0.0})
    torch.manual_seed(0)
    stack = Stack(blocks)
    states = Sequence(torch.randn(2, 7, blocks.width), torch.tensor([7, 4]))
    context = FullContext()
    whole = stack.eval()(states, context).final.values
    seen = set()
    stack.train()
    for seed in range(12):
        torch.manual_seed(seed)
        found = stack(states, context).final.values
        stack.zero_grad(set_to_none=True)
        found.sum().backward()
        slopes = [next(block.parameters()).grad for block in stack.blocks]
        assert all(slope is not None for slope in slopes), "DDP would wait for it"
        seen.add(tuple(bool(slope.abs().sum() > 0) for slope in slopes))
        kept = all(slope.abs().sum() > 0 for slope in slopes)
        assert torch.allclose(found, whole, atol=1e-6) == kept
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_clock_is_not_asked():
    """Neither regulariser depends on how far a stage is."""
    model = joint_model().eval()
    for config in (VATConfig(), ConsistencyConfig()):
        objective = config.build(model.spec).eval()
        first, last = (take(objective, model, pairs(), Clock(step, 10)).value.detach() for step in (0, 9))
        torch.testing.assert_close(first, last)


def test_a_recogniser_scores_what_is_then_hidden_and_both_regularise(letters: Path, tmp_path: Path):
    """On real clips: recognise a little, score, pre-train on what it is sure of, recognise with both regularisers."""
    stage = {"steps": 6, "evaluate_every": 6, "batch_seconds": 12}
    regularisers = [{"name": "vat", "stream": "paired"}, {"name": "consistency", "stream": "paired", "weight": 0.2}]
    guided = {"name": "best_rq", "mask_ms": 120, "start_probability": 0.05, "guide": {"by": "high"}}
    recipe = Recipe.parse(
        {
            "name": "guided",
            "model": {"encoder": "test", "tokenizer": {"kind": "characters"}, "heads": {"ctc": {}}},
            "data": {"folders": [str(letters)], "shortest": 0.3},
            "stages": [
                stage | {"name": "recognise", "seconds": {"paired": 12}, "objectives": [{"name": "recognition"}]},
                {"name": "confidence", "fit": {"name": "confidence"}},
                stage
                | {"name": "pretrain", "seconds": {"speech": 12}, "objectives": [guided], "freeze": ["heads"]},
                stage
                | {
                    "name": "refine",
                    "seconds": {"paired": 12},
                    "objectives": [{"name": "recognition"}, *regularisers],
                },
            ],
        },
        "test",
    )
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    log = read_log(tmp_path / "run")
    steps = [record for record in log if record["event"] == "step" and record["stage"] == "refine"]
    assert all(record["vat/divergence"] > 0 and record["consistency/differ"] > 0 for record in steps)
    assert [record["stage"] for record in log if record["event"] == "fit"] == ["confidence"]
    _, labels = read_artefact(tmp_path / "run/artefacts/confidence")
    assert labels and all(int(row.min()) > 0 and int(row.max()) <= FULL for row in labels.values())
