"""Contrastive learning of vectors of utterances: crops, the formulas of each method, MoCo's queue, and whole runs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from isogloss.adaptation.finetune import plan
from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model, load_pretraining
from isogloss.model.model import Model
from isogloss.model.recogniser import Recogniser
from isogloss.model.space import embed_speech
from isogloss.model.spec import ModelConfig
from isogloss.nn.contrastive import cosines, info_nce, info_nce_among, info_nce_both_ways
from isogloss.nn.dropout import Dropout
from isogloss.objectives.base import BaseConfig, Objective
from isogloss.objectives.cola import COLA, COLAConfig
from isogloss.objectives.crops import first_and_second
from isogloss.objectives.moco import MoCo, MoCoConfig
from isogloss.objectives.multi_format import MultiFormat, MultiFormatConfig
from isogloss.objectives.simclr import SimCLR, SimCLRConfig, nt_xent
from isogloss.objectives.time_contrastive import TimeContrastive, TimeContrastiveConfig, triplets
from isogloss.objectives.triplet import Triplet, TripletConfig, semi_hard
from isogloss.sequence import Sequence
from isogloss.training import checkpoint as checkpoints
from isogloss.training import development
from isogloss.training.checkpoint import read_checkpoint
from isogloss.training.hardware import gathered_rows
from isogloss.training.health import WINDOW, Health
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe, StageRecipe, load_recipe
from isogloss.training.stage import Stage
from isogloss.training.stage_run import StageRun
from isogloss.training.trainer import begin, train
from launched import steps
from small_models import small_recipe, sound
from small_objectives import START, gradients, joint_model, pairs, take, with_teacher

OTHER = {
    "encoder": {"embed": {"kind": "identity"}, "blocks": {"kind": "rnn", "layers": 1, "width": 16, "dropout": 0.0}},
    "features": {"kind": "waveform", "channels": 8, "norm": "layer", "bias": True},
}
SAMPLES = [30000, 9000, 22000, 40000]
"""The second clip is shorter than a crop."""


def noise(count: int = 4, **how: Any) -> Batch:
    samples = how.pop("samples", [SAMPLES[row % 4] + 7 * row for row in range(count)])
    return pairs(texts=["a"] * count, languages=["ro"] * count, samples=samples, **how)


def built(config: BaseConfig, model: Model) -> Objective:
    torch.manual_seed(2)
    return with_teacher(config.build(model.spec).eval(), model)


def vector(model: Model, crop: Tensor) -> Tensor:
    """The mean of the states of one crop alone, (D,)."""
    states = model.encoder(model.features(Sequence.from_list([crop]))).final
    return states.values[0, : int(states.lengths[0])].mean(dim=0)


def vectors(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """Those of the first crops and of the second ones, one by one, (B, D)."""
    first, second = (torch.stack([vector(model, crop) for crop in each.unpad()]) for each in first_and_second(batch))
    return first, second


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other) / (one.norm() * other.norm())


def of_right(scores: Tensor, place: int) -> Tensor:
    """-log softmax at a place, by the formula."""
    return -(scores[place].exp() / scores.exp().sum()).log()


# Crops


@pytest.mark.parametrize("training", [True, False], ids=["training", "dev"])
def test_crops_are_parts_of_the_clip(training: bool) -> None:
    """On the dev split its beginning and its end; a clip shorter than a crop is taken whole."""
    objective = built(SimCLRConfig(crop_ms=1000), joint_model())
    batch = noise()
    crops = objective.prepare(batch, training).extras["crops"]
    assert crops.lengths.tolist() == [min(n, 16000) for n in batch.audio.lengths.tolist()]
    for clip, two in zip(batch.audio.unpad(), crops.unpad(), strict=True):
        found = [start_of(crop, clip) for crop in two.unbind(dim=1)]
        assert training or found == [0, max(0, len(clip) - 16000)]


def start_of(crop: Tensor, clip: Tensor) -> int:
    """Where in a clip a crop begins; fails where it is no part of it."""
    (start,) = (n for n in range(len(clip) - len(crop) + 1) if torch.equal(clip[n : n + len(crop)], crop))
    return start


def test_crops_begin_anywhere_each_by_itself() -> None:
    """Two crops of 1 s of a clip of 5 s overlap as often as two independent ones do: 1 - (3/4)² of the time."""
    objective = built(SimCLRConfig(crop_ms=1000), joint_model())
    ramp = torch.arange(80000, dtype=torch.float32)
    batch = Batch(["a"] * 2000, Sequence(ramp.expand(2000, -1), torch.full((2000,), 80000)), ["a"], ["ro"], 3)
    starts = objective.prepare(batch, True).extras["crops"].values[:, 0]
    assert starts.min() < 200 and starts.max() > 63800 and starts.max() <= 64000
    for column in starts.T:
        assert np.histogram(column, 8, (0, 64000))[0] / 2000 == pytest.approx(1 / 8, abs=0.03)
    assert abs(np.corrcoef(starts.T.numpy())[0, 1]) < 0.07
    overlapping = (starts[:, 0] - starts[:, 1]).abs() < 16000
    assert float(overlapping.float().mean()) == pytest.approx(1 - 0.75**2, abs=0.04)


def test_distortions_are_of_both_crops_but_of_colas_second_alone() -> None:
    """And of none on the dev split; a crop stays as long, though pauses are put in."""
    changed = {"perturb": {"pauses": 1.0, "noise": 1.0, "rooms": 1.0}}
    batch = noise()
    for kind, expected in ((SimCLRConfig, (True, True)), (COLAConfig, (False, True))):
        plain, other = (built(kind.parse(values, "test"), joint_model()) for values in ({}, changed))
        for training in (True, False):
            as_is, found = (objective.prepare(batch, training).extras["crops"] for objective in (plain, other))
            assert torch.equal(as_is.lengths, found.lengths)
            for row in range(4):
                differ = [not torch.equal(as_is.values[row, :, n], found.values[row, :, n]) for n in (0, 1)]
                assert differ == [training and so for so in expected]


def test_clips_without_a_frame_are_filled_up_with_silence() -> None:
    model = joint_model().eval()
    objective = built(MultiFormatConfig.parse({"other": OTHER}, "test"), model)
    batch = noise(samples=[0, 3, 200, 20000])
    crops = objective.prepare(batch, True).extras["crops"]
    assert crops.lengths.tolist() == [400, 400, 400, 15360]
    assert math.isfinite(take(objective, model, batch).value.item())


# The formulas


def test_info_nce_among_candidates_is_that_of_right_and_wrong_ones() -> None:
    torch.manual_seed(0)
    scores, right = torch.randn(5, 7), torch.tensor([3, 0, 6, 3, 1])
    others = torch.stack([torch.cat([row[:place], row[place + 1 :]]) for row, place in zip(scores, right, strict=True)])
    assert_close(info_nce_among(scores, right), info_nce(scores.gather(1, right[:, None])[:, 0], others))
    square = scores[:, :5]
    expected = [(of_right(square[i], i) + of_right(square[:, i], i)) / 2 for i in range(5)]
    assert_close(info_nce_both_ways(square), torch.stack(expected))


def test_cosines_are_as_exact_under_autocast() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(4, 64), torch.randn(5, 64)
    plain = cosines(one, other)
    assert_close(plain, torch.stack([torch.stack([cosine(a, b) for b in other]) for a in one]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosines(one, other), plain)


def test_nt_xent_is_its_formula() -> None:
    torch.manual_seed(0)
    z, temperature = torch.randn(10, 8), 0.3
    losses, found = nt_xent(z, temperature)
    for i in range(10):
        j = (i + 5) % 10
        terms = {k: (cosine(z[i], z[k]) / temperature).exp() for k in range(10) if k != i}
        assert_close(losses[i], -(terms[j] / sum(terms.values())).log())
        assert bool(found[i]) == (max(terms, key=lambda k: float(terms[k])) == j)


def test_simclr_is_nt_xent_of_the_means_of_all_crops() -> None:
    model, batch = joint_model().eval(), noise()
    objective = built(SimCLRConfig(), model)
    assert isinstance(objective, SimCLR)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    losses, found = nt_xent(objective.head(torch.cat(vectors(model, prepared))), 0.1)
    assert_close(loss.terms["contrastive"].total, losses.sum() / 2, rtol=1e-4, atol=1e-4)
    assert float(loss.stats["found"].total) == float(found.sum() / 2)


@pytest.mark.parametrize("similarity", ["bilinear", "cosine"])
def test_cola_is_its_formula(similarity: Any) -> None:
    model, batch = joint_model().eval(), noise()
    objective = built(COLAConfig(similarity=similarity, width=24, temperature=0.2), model)
    assert isinstance(objective, COLA)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    linear = objective.head if similarity == "cosine" else objective.get_submodule("head.0")
    first, second = (linear(h) for h in vectors(model, prepared))
    if similarity == "bilinear":
        assert objective.bilinear is not None
        first, second = ((g - g.mean(1, keepdim=True)) / (g.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
                         for g in (first, second))  # fmt: skip
        first, second = first.tanh(), second.tanh()
        weight = objective.bilinear.weight
    total = torch.zeros(())
    for i in range(4):
        row = [
            first[i] @ weight @ second[j] if similarity == "bilinear" else cosine(first[i], second[j]) / 0.2
            for j in range(4)
        ]
        total = total + of_right(torch.stack(row), i)
    assert_close(loss.terms["contrastive"].total, total, rtol=1e-4, atol=1e-4)


def test_multi_format_compares_a_crop_with_the_other_format_of_another() -> None:
    model, batch = joint_model().eval(), noise()
    objective = built(MultiFormatConfig.parse({"other": OTHER}, "test"), model)
    assert isinstance(objective, MultiFormat)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    first, second = first_and_second(prepared)
    mine = objective.head(torch.stack([vector(model, crop) for crop in first.unpad()]))
    theirs = []
    for crop in second.unpad():
        states = objective.encoder(objective.features(Sequence.from_list([crop]))).final.values[0]
        theirs.append(objective.other_head(states.mean(dim=0)))
    total = torch.zeros(())
    for i in range(4):
        total = total + of_right(torch.stack([cosine(mine[i], z) / 0.1 for z in theirs]), i) / 2
        total = total + of_right(torch.stack([cosine(z, theirs[i]) / 0.1 for z in mine]), i) / 2
    assert_close(loss.terms["contrastive"].total, total, rtol=1e-4, atol=1e-4)


def test_multi_format_wants_two_formats() -> None:
    with pytest.raises(IsoglossError, match=r"multi_format\.other hears log_mel, as the model does; .* such as cpc"):
        MultiFormatConfig.parse({"other": "test"}, "test").build(joint_model().spec)
    with pytest.raises(IsoglossError, match='no encoder preset "cpd"'):
        MultiFormatConfig.parse({"other": "cpd"}, "test")
    again = MultiFormatConfig.parse(MultiFormatConfig().plain(), "test")
    assert again.other.features.kind == "waveform" and again == MultiFormatConfig()


@given(seed=st.integers(0, 10_000), anchors=st.integers(1, 6), count=st.integers(2, 8), tied=st.booleans())
def test_semi_hard_negatives_are_those_of_the_definition(seed: int, anchors: int, count: int, tied: bool) -> None:
    """The nearest of those farther than the positive; the farthest of all where none is."""
    random = np.random.default_rng(seed)
    distances = random.integers(0, 4, (anchors, count)) / 1.0 if tied else random.random((anchors, count))
    near = distances[:, 0] if tied else random.random(anchors) * 1.5
    others = random.random((anchors, count)) < 0.7
    others[:, 1] = True
    chosen = semi_hard(*(torch.from_numpy(np.asarray(values)) for values in (near, distances, others)))
    for row, place in enumerate(chosen.tolist()):
        allowed = [distances[row, n] for n in range(count) if others[row, n]]
        farther = [distance for distance in allowed if distance > near[row]]
        assert others[row, place]
        assert distances[row, place] == (min(farther) if farther else max(allowed))


def test_triplets_are_their_formula() -> None:
    """Of every crop with the other of its clip, and with a negative that is mined among crops of other clips."""
    model, batch = joint_model().eval(), noise(6)
    objective = built(TripletConfig(margin=0.05), model)
    assert isinstance(objective, Triplet)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    z = normalize(objective.head(torch.cat(vectors(model, prepared))), dim=-1)
    total, found = torch.zeros(()), 0
    for a in range(12):
        positive = (z[a] - z[(a + 6) % 12]).square().sum()
        others = [(z[a] - z[n]).square().sum() for n in range(12) if n % 6 != a % 6]
        farther = [distance for distance in others if distance > positive]
        negative = min(farther) if farther else max(others)
        total = total + (positive - negative + 0.05).clamp(min=0) / 2
        found += all(positive < other for other in others)
    assert_close(loss.terms["triplet"].total, total, rtol=1e-3, atol=1e-4)
    assert float(loss.stats["found"].total) == found / 2


@pytest.mark.parametrize(
    "config",
    [SimCLRConfig(), COLAConfig(), TripletConfig(), MultiFormatConfig.parse({"other": OTHER}, "test")],
    ids=lambda config: config.name,
)
def test_a_clip_alone_has_nothing_to_be_told_from(config: BaseConfig) -> None:
    model = joint_model().eval()
    objective = built(config, model)
    loss = take(objective, model, noise(1))
    assert loss.value.item() == pytest.approx(0.0, abs=1e-6)
    found = gradients(loss, model, objective).values()
    assert all(bool(slope.isfinite().all()) and float(slope.norm()) < 1e-5 for slope in found)
    assert loss.stats["spread"].count == 0  # of one clip no alarm is raised


# Time-contrastive


@given(frames=st.integers(0, 40), near=st.integers(1, 6), more=st.integers(1, 6), seed=st.integers(0, 1000))
def test_near_frames_are_near_and_far_ones_far(frames: int, near: int, more: int, seed: int) -> None:
    far = near + more
    chosen = triplets(frames, near, far, np.random.default_rng(seed))
    assert chosen[0] == [t for t in range(frames) if t >= far or t + far < frames]
    for t, like, unlike in zip(*chosen, strict=True):
        assert 1 <= abs(like - t) <= near and 0 <= like < frames
        assert abs(unlike - t) >= far and 0 <= unlike < frames


def test_near_and_far_frames_are_drawn_evenly() -> None:
    draw = np.random.default_rng(0)
    seen = [dict(zip(t, zip(like, unlike, strict=True), strict=True))[4]
            for t, like, unlike in (triplets(10, 2, 3, draw) for _ in range(4000))]  # fmt: skip
    like, unlike = (np.bincount(column, minlength=10) / 4000 for column in zip(*seen, strict=True))
    assert like == pytest.approx([0, 0, 0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0], abs=0.03)
    assert unlike == pytest.approx([0.2, 0.2, 0, 0, 0, 0, 0, 0.2, 0.2, 0.2], abs=0.03)


def test_time_contrast_is_its_formula() -> None:
    """Clip by clip; the second one is too short to have anything far away, and has no loss."""
    model, batch = joint_model().eval(), noise()
    objective = built(TimeContrastiveConfig(near_ms=120, far_ms=600), model)
    assert isinstance(objective, TimeContrastive) and (objective.near, objective.far) == (3, 15)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    total, count = torch.zeros(()), 0
    for row, clip in enumerate(batch.audio.unpad()):
        z = objective.head(model.encoder(model.features(Sequence.from_list([clip]))).final.values[0])
        z = z / z.norm(dim=1, keepdim=True)
        for t, p, n in zip(*(prepared.extras[of][row] for of in ("targets", "near", "far")), strict=True):
            total = total + ((z[t] - z[p]).square().sum() - (z[t] - z[n]).square().sum() + 0.2).clamp(min=0)
            count += 1
    assert not prepared.extras["targets"][1] and loss.terms["triplet"].count == count > 50
    assert_close(loss.terms["triplet"].total, total, rtol=1e-4, atol=1e-3)
    with pytest.raises(IsoglossError, match=r"far_ms 210 is no more frames than near_ms 200; raise it"):
        TimeContrastiveConfig(far_ms=210).build(model.spec)


# MoCo


def moco(model: Model, **values: Any) -> MoCo:
    found = built(MoCoConfig(**{"queue": 10, "width": 16} | values), model)
    assert isinstance(found, MoCo) and found.ema is not None
    return found


def test_moco_is_its_formula() -> None:
    """The query of the first crop by the model, its key of the second one by the slow copy, and the queue."""
    model, batch = joint_model().eval(), noise()
    objective = moco(model)
    with torch.no_grad():  # the model has moved on
        for parameter in [*model.encoder.parameters(), *objective.head.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert objective.ema is not None
    slow = objective.ema.copy
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    first, second = first_and_second(prepared)
    total, keys = torch.zeros(()), []
    for one, other in zip(first.unpad(), second.unpad(), strict=True):
        query = objective.head(vector(model, one))
        features = slow.get_submodule("features")(Sequence.from_list([other]))
        states = slow.get_submodule("encoder")(features).final.values[0]
        keys.append(normalize(slow.get_submodule("head")(states.mean(dim=0)), dim=0))
        total = total + of_right(torch.stack([cosine(query, k) / 0.07 for k in [keys[-1], *objective.queue]]), 0)
    assert_close(loss.terms["contrastive"].total, total, rtol=1e-4, atol=1e-4)
    assert loss.kept is not None
    assert_close(loss.kept, torch.stack(keys), rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_queries_alone() -> None:
    """They are those of the loss with keys that are given."""
    model, batch = joint_model().eval(), noise()
    objective = moco(model)
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    assert loss.kept is not None and not loss.kept.requires_grad
    found = gradients(loss, model, objective)
    first, _ = vectors(model, prepared)
    queries = normalize(objective.head(first), dim=1)
    right, wrong = (queries * loss.kept).sum(dim=1) / 0.07, queries @ objective.queue.T / 0.07
    named = dict(model.named_parameters()) | {f"own.{name}": p for name, p in objective.named_parameters()}
    expected = torch.autograd.grad(info_nce(right, wrong).mean(), list(named.values()), allow_unused=True)
    for name, slope in zip(named, expected, strict=True):
        assert (slope is None) == (name not in found)
        if slope is not None:
            assert_close(found[name], slope, rtol=1e-3, atol=1e-4)
    assert all(name.startswith("head.") for name, _ in objective.named_parameters())  # none of the slow copy


def test_the_queue_is_first_in_first_out_and_wraps() -> None:
    objective = moco(joint_model())
    keys = torch.arange(60.0)[:, None].expand(-1, 16)
    waiting: list[Tensor] = [*objective.queue.clone()]  # the oldest first
    taken = 0
    for count in (3, 4, 5, 1, 10, 13, 6):
        objective.remember(keys[taken : taken + count])
        waiting = [*waiting, *keys[taken : taken + count]][-10:]
        taken += count
        oldest = int(objective.oldest)
        assert torch.equal(torch.cat([objective.queue[oldest:], objective.queue[:oldest]]), torch.stack(waiting))


def test_the_queue_changes_after_a_step_alone() -> None:
    """Not in a forward pass, of which a trial, a look at the dev split and measurements have some too."""
    stage = stage_with(MoCoConfig(queue=10, width=16), joint_model())
    objective = stage.objectives["moco"]
    assert isinstance(objective, MoCo)
    before, batch = objective.queue.clone(), noise()
    assert_close(before.norm(dim=1), torch.ones(10))
    micro = {"moco": objective.prepare(batch, True)}
    sums = stage(micro, stage.counts(micro))
    assert torch.equal(objective.queue, before)
    stage.after_step({name: gathered_rows([sums.kept[name], 2 * sums.kept[name]]) for name in sums.kept})
    assert torch.equal(objective.queue[:8], torch.cat([sums.kept["moco"], 2 * sums.kept["moco"]]))
    assert torch.equal(objective.queue[8:], before[8:]) and int(objective.oldest) == 8


def test_the_slow_copy_follows_encoder_features_and_head() -> None:
    """By the stated share from the first step on, dropout off in it, and no parameter of it for an optimizer."""
    torch.manual_seed(0)
    encoder = preset("test").model_copy(
        update={"blocks": preset("test").blocks.model_copy(update={"layers": 1, "dropout": 0.5})}
    )
    features = {"kind": "waveform", "channels": 8}
    model = Model(ModelConfig.parse({"encoder": encoder, "features": features, "heads": {}}, "test"))
    stage = stage_with(MoCoConfig(queue=4, width=8, decay=0.9), model).train()
    objective = stage.objectives["moco"]
    assert objective.ema is not None and not list(objective.ema.parameters())
    assert any(isinstance(part, Dropout) for part in objective.ema.modules())
    assert not any(part.training for part in objective.ema.modules())
    before = {name: value.clone() for name, value in objective.ema.copy.state_dict().items()}
    kinds = {name.partition(".")[0] for name in before}
    assert kinds == {"features", "encoder", "head"}
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(1.0)
    stage.after_step({})
    names = dict(objective.followed(model).named_parameters())
    for name, value in objective.ema.copy.state_dict().items():
        assert_close(value, before[name] + (0.1 if name in names else 0), rtol=1e-4, atol=1e-5)
    assert MoCo.teacher(objective, START) == 0.9 and MoCoConfig().decay == 0.999  # type: ignore[arg-type]


# First losses, sizes, collapse, precision


EVERY = pytest.mark.parametrize(
    "config",
    [
        SimCLRConfig(), COLAConfig(), MoCoConfig(queue=8), TripletConfig(),
        MultiFormatConfig.parse({"other": OTHER}, "test"), TimeContrastiveConfig(),
    ],
    ids=lambda config: config.name,
)  # fmt: skip


@EVERY
def test_losses_are_float32_under_autocast(config: BaseConfig) -> None:
    """And what bf16 rounds of the encoder moves them little."""
    model, batch = joint_model().eval(), voices(8)
    objective = built(config, model)
    plain = take(objective, model, batch).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = take(objective, model, batch)
    assert all(term.total.dtype == torch.float32 for term in loss.terms.values())
    assert loss.kept is None or loss.kept.dtype == torch.float32
    assert loss.value.item() == pytest.approx(plain.item(), rel=0.2, abs=0.02)
    assert all(bool(slope.isfinite().all()) for slope in gradients(loss, model, objective).values())


def voices(count: int) -> Batch:
    clips = [torch.from_numpy(sound(2 + 0.05 * n, n)) for n in range(count)]
    return Batch([str(n) for n in range(count)], Sequence.from_list(clips), [None] * count, ["ro"] * count, 3)


@pytest.mark.parametrize(
    ("config", "expected", "within"),
    [
        (SimCLRConfig(), math.log(31), 0.3),
        (COLAConfig(), math.log(16), 0.5),
        (COLAConfig(similarity="cosine"), math.log(16), 0.3),
        (MultiFormatConfig.parse({"other": OTHER}, "test"), math.log(16), 0.3),
        (TripletConfig(margin=0.2), 0.2, 0.02),
        (TimeContrastiveConfig(margin=0.2), 0.2, 0.05),
    ],
    ids=["simclr", "cola", "cola cosine", "multi_format", "triplet", "time_contrastive"],
)
def test_first_losses_are_those_of_guessing(config: BaseConfig, expected: float, within: float) -> None:
    model = joint_model().eval()
    loss = take(built(config, model), model, voices(16))
    assert loss.value.item() == pytest.approx(expected, abs=within)


def test_mocos_first_loss_is_that_of_guessing_once_the_queue_is_full() -> None:
    """Before that, random vectors are easily told from keys."""
    model = joint_model().eval()
    objective, batch = moco(model, queue=64, width=128), voices(16)
    assert take(objective, model, batch).value.item() < 0.1
    for seed in range(4):
        kept = take(objective, model, replace(batch, seed=seed, seeds=[])).kept
        assert kept is not None
        objective.remember(kept)
    assert take(objective, model, batch).value.item() == pytest.approx(math.log(65), abs=0.3)


@pytest.mark.parametrize(
    ("config", "number"),
    [
        (SimCLRConfig(), 144 * 144 + 144 + 144 * 128 + 128),
        (COLAConfig(), 144 * 512 + 512 + 2 * 512 + 512 * 512),
        (COLAConfig(similarity="cosine"), 144 * 512 + 512),
        (MoCoConfig(), 144 * 144 + 144 + 144 * 128 + 128),
        (MultiFormatConfig(), 1_843_456 + 144 * 144 + 144 + 144 * 128 + 128 + 256 * 256 + 256 + 256 * 128 + 128),
    ],
    ids=["simclr", "cola", "cola cosine", "moco", "multi_format"],
)
def test_what_only_pre_training_needs_is_as_large_as_stated(config: BaseConfig, number: int) -> None:
    """Heads of the papers' widths behind the encoder of the tiny recipes; CPC's encoder has its published size."""
    with torch.device("meta"):
        objective = config.build(Model(ModelConfig(encoder=preset("tiny"), heads={})).spec)
    assert sum(parameter.numel() for parameter in objective.parameters()) == number
    assert config.name != "moco" or objective.get_buffer("queue").shape == (65_536, 128)


def stage_with(config: BaseConfig, model: Model) -> Stage:
    plain = {"name": "test", "steps": 10, "seconds": {"speech": 1.0}, "objectives": [config.plain()]}
    stage = Stage(StageRecipe.parse(plain, "test"), model)
    stage.begin()
    return stage


@EVERY
def test_equal_vectors_raise_the_alarm(config: BaseConfig) -> None:
    """And those of an untrained encoder do not."""
    model = joint_model().eval()
    stage = stage_with(config, model).eval()
    objective = stage.objectives[config.name]
    micro = {config.name: objective.prepare(voices(4), True)}
    alarms = {config.name: objective.health()}

    def watched(step: Callable[[], dict[str, float]]) -> None:
        health = Health(alarms)
        for number in range(WINDOW + 1):
            health.check(number, 0.0, step())

    def means() -> dict[str, float]:
        stats = stage(micro, stage.counts(micro)).stats
        return {name: float(mean.total) / max(1.0, float(mean.count)) for name, mean in stats.items()}

    healthy = means()
    watched(lambda: healthy)
    with torch.no_grad():  # the last norm of the last block
        for part in model.encoder.stack.blocks[-1].modules():
            if isinstance(part, nn.LayerNorm):
                part.weight.zero_()
    collapsed = means()
    said = f"^{config.name}: Representation collapse: .* are equal"
    with pytest.raises(IsoglossError, match=said):
        watched(lambda: collapsed)


# Whole runs


RECIPES = {
    "cola": ["objectives.0.crop_ms=400"],
    "simclr": ["objectives.0.crop_ms=400"],
    "moco": ["objectives.0.crop_ms=400", "objectives.0.queue=32", "steps=120", "optimizer.peak=2e-3"],
    "triplet": ["objectives.0.crop_ms=400"],
    "multi-format": ["objectives.0.crop_ms=400", f"objectives.0.other={OTHER}"],
    "time-contrastive": ["objectives.0.near_ms=50", "objectives.0.far_ms=300"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_and_what_they_made_goes_on(name: str, letters: Path, tmp_path: Path) -> None:
    """On real clips losses fall; the model embeds, encodes, and is fine-tuned. What ends with pre-training is left out.
    """
    sizes = [f"data.folders=[{letters}]", "data.shortest=0.3", "model.encoder=test"]
    changes = ["steps=24", "evaluate_every=12", "seconds.speech=12", *RECIPES[name]]
    recipe = load_recipe(f"{name}-tiny", [*sizes, *(f"stages.0.{change}" for change in changes)])
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    losses = [record["loss"] for record in read_log(tmp_path / "run") if record["event"] == "step"]
    third = len(losses) // 3
    full = 8 if name == "moco" else 0  # steps after which no random vector is in the queue
    assert sum(losses[-third:]) < sum(losses[full : full + third])
    folder = tmp_path / "run/model"
    model, clip = load_model(folder), sound(2.0)
    states = Recogniser(model).encode(clip)
    assert states.shape[1] == model.encoder.width
    _, found = embed_speech(model, [clip])
    assert_close(found.last[0], normalize(states.mean(dim=0), dim=0), rtol=1e-4, atol=1e-5)
    begin(plan(folder, [letters]).recipe, tmp_path / "tuned", resume=False)
    ended = ("ema.", "queue", "oldest")
    assert not any(key.partition("/")[2].startswith(ended) for key in load_pretraining(folder))


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "CLIPS", 2)


def run_recipe(letters: Path, objectives: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    stage = {
        "name": "pretrain", "steps": steps, "seconds": {"speech": 8}, "batch_seconds": 4, "objectives": objectives,
        "freeze": ["heads"], "best": "last", "evaluate_every": 2, "save_every": 2,
    }  # fmt: skip
    return small_recipe(letters, [stage], tokenizer=None)


def means(run: Path) -> list[dict[str, float]]:
    """What a run logged of its steps."""
    taken = [record for record in steps(run) if record["event"] == "step"]
    return [{name: value for name, value in record.items() if not isinstance(value, str)} for record in taken]


def objectives_at(run: Path, step: int) -> dict[str, Tensor]:
    return read_checkpoint(run, step).tensors("objectives")


@pytest.mark.usefixtures("_quick")
def test_a_resumed_run_has_the_queue_that_it_had(
    letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the slow copy: the same losses and the same tensors, to the bit."""
    values = [{"name": "moco", "queue": 21, "crop_ms": 300, "perturb": {}}]
    recipe = Recipe.parse(run_recipe(letters, values, 6), "test")
    train(recipe, tmp_path / "whole", console=Console(quiet=True))
    with monkeypatch.context() as patch:
        step = StageRun._step

        def failing(run: StageRun) -> None:
            if run.done == 3:
                raise RuntimeError("the power fails")
            step(run)

        patch.setattr(StageRun, "_step", failing)
        with pytest.raises(RuntimeError, match="the power fails"):
            train(recipe, tmp_path / "cut", console=Console(quiet=True))
    assert checkpoints.newest_checkpoint(tmp_path / "cut").state["step"] == 2  # type: ignore[union-attr]
    train(recipe, tmp_path / "cut", resume=True, console=Console(quiet=True))
    assert means(tmp_path / "whole") == means(tmp_path / "cut")
    whole, cut = (objectives_at(tmp_path / run, 6) for run in ("whole", "cut"))
    assert {"moco/queue", "moco/oldest", "moco/ema.copy.head.0.weight"} <= whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert not torch.equal(objectives_at(tmp_path / "whole", 4)["moco/queue"], whole["moco/queue"])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_are_one(letters: Path, sharding: str, tmp_path: Path) -> None:
    """The same terms and statistics of every step; and the same queue, in the same order, which has wrapped."""
    crops = {"crop_ms": 300}
    values: list[dict[str, Any]] = [
        {"name": "moco", "queue": 21, **crops},
        {"name": "simclr", **crops},
        {"name": "cola", **crops},
        {"name": "triplet", **crops},
        {"name": "multi_format", "other": OTHER, **crops},
        {"name": "time_contrastive", "near_ms": 50, "far_ms": 300},
    ]
    recipe = run_recipe(letters, values, 4)
    train(Recipe.parse(recipe, "test"), tmp_path / "one", console=Console(quiet=True))
    train_in_processes(Recipe.parse(recipe | {"sharding": sharding}, "test"), tmp_path / "two", 2)
    one, two = (means(tmp_path / run) for run in ("one", "two"))
    assert len(one) == len(two) == 4
    for alone, shared in zip(one, two, strict=True):
        assert {"moco/contrastive", "triplet/spread", "multi_format/found", "norm"} <= alone.keys()
        assert shared == pytest.approx(alone, rel=2e-3, abs=1e-3)
    mine, theirs = (objectives_at(tmp_path / run, 4) for run in ("one", "two"))
    assert mine.keys() == theirs.keys() and int(mine["moco/oldest"]) == int(theirs["moco/oldest"])
    for name, value in mine.items():
        assert_close(theirs[name], value, rtol=1e-3, atol=1e-3, msg=lambda said, name=name: f"{name}: {said}")
