"""PASE and PASE+: sizes, what each worker's loss is, clip by clip, what the encoder hears, and that a recipe trains."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from isogloss.adaptation.finetune import plan
from isogloss.audio.mfcc import change
from isogloss.audio.spectra import log_mel
from isogloss.encoders.presets import preset, preset_features
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.objectives.base import Loss
from isogloss.objectives.pase import PASE, PASEConfig, others
from isogloss.objectives.pase_workers import WIDTHS, Decoder
from isogloss.sequence import Sequence
from isogloss.training.journal import read_log
from isogloss.training.recipe import load_recipe
from isogloss.training.stage import only_trying
from isogloss.training.trainer import begin, train
from small_objectives import START, causal_model, joint_model, pairs, rows, take

SMALL: dict[str, Any] = {"hidden": 8, "decoder": (4, 4, 4), "distort": None}


def objective(model: Model, *workers: str, **changes: Any) -> PASE:
    torch.manual_seed(0)
    config = PASEConfig.parse(SMALL | ({"workers": workers} if workers else {}) | changes, "test")
    return config.build(model.spec).eval()


def size(encoder: str, **values: Any) -> tuple[int, int]:
    """Parameters of features and encoder, and of the workers."""
    with torch.device("meta"):
        model = Model(ModelConfig(encoder=preset(encoder), features=preset_features(encoder), heads={}))
        workers = PASEConfig.parse(values, "test").build(model.spec)
    return sum(p.numel() for p in model.parameters()), sum(p.numel() for p in workers.parameters())


def test_the_encoder_of_pase_plus_is_as_large_as_published() -> None:
    """7.83 million; the published code has 1856 more, the biases that batch norms take off again."""
    kernels, channels = (20, *[11] * 6), (64, 64, 128, 128, 256, 256, 512, 512)
    convolutions = sum(k * a * b for k, a, b in zip(kernels, channels, channels[1:], strict=False))
    norms = 3 * sum(channels)  # with PReLU
    skips, recurrent, last = 256 * sum(channels[:-1]), 3 * 512 * (2 * 512 + 1), 256 * (512 + 1)
    expected = 2 * 64 + convolutions + norms + skips + recurrent + last
    assert size("pase_plus")[0] == expected == 7_831_040
    assert expected + sum(channels[1:]) == 7_832_896
    assert size("pase", **PASEConfig.presets["pase"][1])[0] == 2 * 64 + convolutions + norms + 100 * 513 == 5_816_164


def test_workers_are_as_large_as_their_configuration_says() -> None:
    """Of PASE+: 3075 log powers, 120 filters, 39 and 60 cepstra and 12 of prosody, in seven frames each."""
    width, outputs = 256, 7 * (2 * 3075 + 4 * 120 + 39 + 60 + 12)
    regressions = 9 * (width * 256 + 2 * 256) + outputs * 257
    decoder = sum(30 * a * b + 2 * b for a, b in ((256, 512), (512, 256), (256, 128))) + 128 * 64 + 2 * 64 + 65
    judges = 2 * (2 * width * 256 + 2 * 256 + 257)
    assert size("pase_plus")[1] == regressions + decoder + judges
    assert [WIDTHS[name] for name in ("lps", "mfcc_20", "prosody")] == [1025, 20, 4]


def encoded(model: Model, clip: Tensor) -> Tensor:
    """The states of a clip alone, (T, D)."""
    return model.encoder(model.features(Sequence.from_list([clip]))).final.values[0]


def of(loss: Loss, name: str) -> Tensor:
    return loss.terms[name].total.detach()


@torch.no_grad()
def test_regression_is_the_mean_square_of_seven_frames_and_their_changes() -> None:
    model, batch = causal_model().eval(), pairs(samples=[16000, 9000, 1500])
    made = objective(model, "fbank", "prosody")
    loss = take(made, model, batch)
    assert loss.terms["fbank"].weight == 0.5
    expected, count = torch.zeros(()), 0
    for clip in batch.audio.unpad():
        one, states = Sequence.from_list([clip]), encoded(model, clip)
        frames = len(states)
        # Frame t of the features has samples 160 t to 160 t + 399, of which 160 t + 199.5 is the middle.
        mel = log_mel(made.grid.power(one, 400, frames))
        first = change(Sequence(mel, torch.tensor([frames])))
        second = change(Sequence(first, torch.tensor([frames])))
        wanted = torch.cat([mel, first, second], dim=-1)[0] / (1 + 1e-5) ** 0.5
        found = made.regressions["fbank"].predict(states).view(frames, 120, 7)
        for t in range(3, frames - 3):
            expected += (found[t] - wanted[t - 3 : t + 4].T).square().mean()
            count += 1
    assert made.grid.first == 199 and made.grid.hop == 160
    assert loss.terms["fbank"].count == loss.terms["prosody"].count == count
    assert_close(of(loss, "fbank"), expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_at_lower_rates_each_state_predicts_the_frames_around_it() -> None:
    """Four frames of 10 ms to one of 40: state i stands for frame 4 i."""
    model, batch = joint_model().eval(), rows(pairs(), slice(0, 1))
    made = objective(model, "fbank", changes=0)
    assert made.ratio == 4 and made.grid.hop == 160 and made.lead == 1
    loss = take(made, model, batch)
    states = encoded(model, batch.audio.values[0])
    frames = len(states)
    mel = log_mel(made.grid.power(batch.audio, 400, 4 * frames - 3))[0] / (1 + 1e-5) ** 0.5
    found = made.regressions["fbank"].predict(states).view(frames, 40, 7)
    parts = [(found[i] - mel[4 * i - 3 : 4 * i + 4].T).square().mean() for i in range(1, frames - 1)]
    assert loss.terms["fbank"].count == len(parts)
    assert_close(of(loss, "fbank"), torch.stack(parts).sum(), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_binary_losses_are_their_formula() -> None:
    model = causal_model().eval()
    made = objective(model, "lim", "gim", "spc", crop=0.6)
    batch = made.prepare(pairs(samples=[16000, 9000, 22000]), True)
    loss = made(model, batch, START)
    anchors, near = (
        [encoded(model, clip) for clip in batch.extras[name].unpad()] for name in ("heard", "near")
    )

    def judged(name: str, anchor: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        score = made.judges[name].score
        found = score(torch.stack([torch.cat([anchor, other]) for other in (right, wrong)]))[:, 0]
        return -logsigmoid(found[0]) - (1 - found[1].sigmoid()).log()

    totals: dict[str, list[Tensor]] = {"lim": [], "gim": [], "spc": []}
    chosen = others(batch)
    assert all(other is not None and other != row for row, other in enumerate(chosen))
    for row, other in enumerate(chosen):
        a, p, n = anchors[row], near[row], near[other or 0]
        totals["lim"] += [judged("lim", a[t], p[t], n[t % len(n)]) for t in range(len(a))]
        one, two, wrong = a.mean(dim=0), p.mean(dim=0), n.mean(dim=0)
        totals["gim"].append((judged("gim", one, two, wrong) + judged("gim", two, one, wrong)) / 2)
        state, after, before = batch.extras["order"][row]
        if state >= 0:
            assert after - state >= 16 and state - before - 5 >= 16 and before >= 0 and after + 5 <= len(a)
            following, preceding = (a[place : place + 5].flatten() for place in (after, before))
            totals["spc"].append(judged("spc", a[state], following, preceding))
    for name, parts in totals.items():
        assert parts and loss.terms[name].count == len(parts)
        assert_close(of(loss, name), torch.stack(parts).sum(), rtol=1e-4, atol=1e-4)
        assert float(of(loss, name)) / len(parts) == pytest.approx(2 * math.log(2), abs=0.3)


@torch.no_grad()
def test_the_waveform_is_written_sample_by_sample_at_the_place_of_each_state() -> None:
    torch.manual_seed(0)
    decoder = Decoder(6, (5, 4, 3), 4, 160).eval()
    states = Sequence.from_list([torch.randn(9, 6), torch.randn(4, 6)])
    waveforms = torch.randn(2, 9, 160)
    together = decoder(states, waveforms)
    clips = zip(states.unpad(), waveforms, strict=True)
    alone = [decoder(Sequence.from_list([clip]), waveform[None, : len(clip)]) for clip, waveform in clips]
    assert_close(together, torch.stack(alone).sum())
    x = states.values[:1].transpose(1, 2)
    for layer in decoder.layers:
        x = layer.activation(layer.convolution(x))
    written = decoder.write(x.transpose(1, 2))[0, :, 0]
    expected = (written - waveforms[0].flatten() / (1 + 1e-5) ** 0.5).abs().mean()
    assert_close(alone[0], 9 * expected)
    for stride in (16, 80, 320, 640):
        assert decoder_writes(stride) == 7 * stride


def decoder_writes(stride: int) -> int:
    x = Sequence.from_list([torch.randn(7, 6)])
    for layer in Decoder(6, (5, 4, 3), 4, stride).layers:
        x = layer(x)
    assert int(x.lengths) == x.values.shape[1]
    return x.values.shape[1]


def test_the_encoder_hears_what_is_distorted_and_predicts_what_is_clean() -> None:
    model = causal_model().eval()
    always = {"noise": 1.0, "snr": (0.0,), "rooms": 0.0, "overlap": 0.0, "gaps": 0.0, "clip": 0.0}
    made = objective(model, "fbank", crop=0.25, distort=always | {"band_drop": 0.0, "narrow": 0.0})
    batch = pairs(samples=[16000, 9000, 2000])
    prepared = made.prepare(batch, True).extras
    for row, clip in enumerate(batch.audio.unpad()):
        clean, heard, near = (prepared[name].unpad()[row] for name in ("clean", "heard", "near"))
        assert len(clean) == len(heard) == len(near) == min(len(clip), 4000)
        text = clip.numpy().tobytes()
        assert clean.numpy().tobytes() in text and near.numpy().tobytes() in text
        added = (heard - clean).square().mean() / clip.square().mean()
        assert 0.5 < float(added) < 2
    unchanged = made.prepare(batch, False).extras
    assert torch.equal(unchanged["clean"].values, unchanged["heard"].values)
    assert torch.equal(unchanged["near"].unpad()[0], batch.audio.unpad()[0][-4000:])


def test_a_clip_without_another_is_compared_with_none() -> None:
    model = causal_model().eval()
    made = objective(model, "lim", "gim", "fbank")
    batch = made.prepare(pairs(samples=[16000, 100, 9000]), True)
    assert [other is None for other in others(batch)] == [False, True, False]
    alone = take(made, model, rows(pairs(), slice(0, 1)))
    assert (alone.terms["lim"].count, alone.terms["gim"].count) == (0, 0)
    assert float(of(alone, "lim")) == float(of(alone, "gim")) == 0.0 < float(of(alone, "fbank"))
    for samples in ([0, 100, 399], [0, 0, 0]):
        short = take(objective(model), model, pairs(samples=samples))
        assert float(short.value.detach()) == 0.0 and not any(term.count for term in short.terms.values())


def test_others_are_drawn_evenly() -> None:
    model = causal_model().eval()
    made = objective(model, "gim")
    batch = pairs(["a"] * 4, ["ro"] * 4, [800] * 4)
    drawn = [others(made.prepare(replace(batch, seed=seed, seeds=[]), True))[1] for seed in range(900)]
    shares = np.bincount([place for place in drawn if place is not None], minlength=4) / 900
    assert shares == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.06)


def test_targets_have_mean_0_and_variance_1_over_all_that_was_heard() -> None:
    """The first losses of a worker that predicts nothing are 1; what is only tried leaves no trace."""
    model, batch = causal_model().eval(), pairs(samples=[16000, 9000, 22000])
    made = objective(model, "fbank", "gammatone_long", "mfcc_13").train()
    with torch.no_grad():
        for worker in made.regressions.values():
            worker.predict.leave.weight.zero_()
            worker.predict.leave.bias.zero_()
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    with only_trying(made):
        take(made, model, batch)
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())
    loss = take(made, model, batch)
    for term in loss.terms.values():
        assert float(term.total.detach()) / float(term.count) == pytest.approx(1.0, abs=0.1)
    assert any(not torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())


def test_losses_are_finite_and_float32_under_bf16() -> None:
    model = causal_model()
    made = objective(model).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = take(made, model, pairs())
    loss.value.backward()
    assert loss.value.dtype == torch.float32 and bool(loss.value.isfinite())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())


def test_wrong_settings_are_one_sentence() -> None:
    model = causal_model()
    with pytest.raises(IsoglossError, match=r"pase\.context 4 is even"):
        objective(model, context=4)
    with pytest.raises(IsoglossError, match="names a worker twice"):
        objective(model, "lim", "lim")
    with pytest.raises(IsoglossError, match=r"\"workers\.0\" is 'lpc'"):
        objective(model, "lpc")
    odd = model.config.model_copy(update={"features": model.config.features.model_copy(update={"shift_ms": 12.6})})
    with torch.device("meta"):
        spec = Model(odd).spec
    with pytest.raises(IsoglossError, match=r"but the encoder's are 202 apart; take it out of pase\.workers"):
        PASEConfig().build(spec)
    assert objective(Model(odd), "fbank").grid.hop == 202


def test_the_recipe_trains_every_worker_and_what_it_made_is_fine_tuned(letters: Path, tmp_path: Path) -> None:
    """On real clips: each loss falls, and a recogniser starts from the encoder."""
    sizes = [f"data.folders=[{letters}]", "data.shortest=0.3", "stages.0.steps=30", "stages.0.evaluate_every=15"]
    sizes += ["stages.0.seconds.speech=12", "model.features.channels=[8, 8, 8, 8, 16, 16, 16, 16]"]
    sizes += ["model.features.skips=16", "model.encoder.blocks.width=16", "model.encoder.blocks.hidden=16"]
    sizes += ["stages.0.objectives.0.hidden=16", "stages.0.objectives.0.decoder=[8, 8, 8]"]
    sizes += ["stages.0.optimizer.peak=0.005"]
    recipe = load_recipe("pase-tiny", sizes)
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    steps = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    assert len(steps) == 30
    (config,) = recipe.training[0].objectives
    assert isinstance(config, PASEConfig)
    for name in ("loss", *(f"pase/{worker}" for worker in config.workers if worker in WIDTHS), "pase/wave"):
        losses = [step[name] for step in steps]
        assert sum(losses[-10:]) < sum(losses[:10]), name
    begin(plan(tmp_path / "run/model", [letters]).recipe, tmp_path / "tuned", resume=False)
