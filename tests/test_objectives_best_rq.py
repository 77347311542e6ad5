"""The laws of BEST-RQ."""

import math

import pytest
import torch
from torch import Tensor

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.reading import SAMPLE_RATE, read
from isogloss.data.loading import Batch
from isogloss.data.manifests import Utterance
from isogloss.encoders.presets import preset
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.quantizers import RandomProjectionQuantizer
from isogloss.nn.subsampling import stack
from isogloss.objectives.base import Loss
from isogloss.objectives.best_rq import BestRQ, BestRQConfig
from isogloss.objectives.collapse import perplexity
from isogloss.sequence import Sequence
from small_objectives import START, gradients, rows, take


def build(normalisation: str = "utterance", dropout: float = 0.0, **values: object) -> tuple[BestRQ, Model]:
    """The objective and the model it is for."""
    torch.manual_seed(0)
    encoder = preset("test")
    blocks = encoder.blocks.model_copy(update={"dropout": dropout})
    config = ModelConfig(
        features=LogMelConfig(normalisation=normalisation),
        encoder=encoder.model_copy(update={"blocks": blocks}),
    )
    model = Model(config)
    return BestRQConfig.parse(values, "test").build(model.spec).eval(), model.eval()


def learning(rq: BestRQ, model: Model) -> list[torch.nn.Parameter]:
    """All that learns, in training mode."""
    used = [*model.features.parameters(), *model.encoder.train().parameters()]
    return [*rq.train().parameters(), *used]


def noise(samples: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def batch(lengths: list[int], pad: int = 0, seed: int = 3) -> Batch:
    audio = Sequence.from_list([noise(n, i) for i, n in enumerate(lengths)])
    audio = audio.with_values(torch.nn.functional.pad(audio.values, (0, pad)))
    return Batch([str(i) for i in range(len(lengths))], audio, [None] * len(lengths), ["und"] * len(lengths), seed)


def mask(rq: BestRQ, clips: Batch) -> Tensor:
    """(B, T) bool, as it was prepared."""
    prepared: Tensor = rq.prepare(clips, True).extras["mask"]
    return prepared


def targets_of(rq: BestRQ, clips: Batch) -> Tensor:
    """(B, ⌈T / 4⌉) bool, as they were prepared."""
    found = rq.prepare(clips, True).extras
    rows, frames = found["mask"].shape
    whole = torch.zeros(rows, -(-frames // 4), dtype=torch.bool)
    for row, targets in enumerate(found["targets"]):
        whole[row, targets] = True
    return whole


def codes(rq: BestRQ, model: Model, audio: Sequence) -> list[Tensor]:
    """The labels of all whole frames of each clip, (T/4, K) each."""
    features = model.features(audio)
    rows, frames = stack(features, model.spec.stride).shape[:2]
    labels = rq.masked.codes(features, torch.arange(rows * frames)).unflatten(0, (rows, frames))
    return [row[: n // 4] for row, n in zip(labels, features.lengths.tolist(), strict=True)]


def count(loss: Loss) -> float:
    return float(loss.terms["codes"].count)


def test_labels_do_not_change_with_padding_or_batch() -> None:
    rq, model = build(books=4)
    clips = [noise(n, i) for i, n in enumerate((16000, 9000, 401, 24000))]
    alone = [codes(rq, model, Sequence.from_list([clip]))[0] for clip in clips]
    in_order, turned = codes(rq, model, Sequence.from_list(clips)), codes(rq, model, Sequence.from_list(clips[::-1]))
    for together in (in_order, turned[::-1]):
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    for pad in (1, 159, 640, 16000):
        values = torch.cat([clips[0], torch.full((pad,), torch.nan)])[None]
        assert torch.equal(codes(rq, model, Sequence(values, torch.tensor([16000])))[0], alone[0])


def test_stacks_are_four_frames_side_by_side_with_zeros_after_the_length() -> None:
    values = torch.randn(2, 10, 3)
    values[1, 5:] = torch.nan
    stacked = stack(Sequence(values, torch.tensor([10, 5])), 4)
    assert stacked.shape == (2, 3, 12)
    clean = torch.nn.functional.pad(values, (0, 0, 0, 2)).nan_to_num(0.0)
    for row in range(2):
        for i in range(3):
            assert torch.equal(stacked[row, i], clean[row, 4 * i : 4 * i + 4].flatten())


def test_targets_are_frames_whose_four_inputs_are_all_masked() -> None:
    rq, model = build()
    samples = [400 + 160 * (frames - 1) for frames in (203, 90)] + [100]
    assert model.spec.feature_frames(torch.tensor(samples)).tolist() == [203, 90, 0]
    for seed in range(20):
        clips = batch(samples, seed=seed)
        hidden, targets = mask(rq, clips), targets_of(rq, clips)
        assert targets.shape == (3, 51)
        for row in range(3):
            for i in range(51):
                four = hidden[row, 4 * i : 4 * i + 4]
                assert bool(targets[row, i]) == (len(four) == 4 and bool(four.all()))
        assert not targets[1, 22:].any() and not targets[2].any()


def test_the_encoder_sees_noise_on_masked_frames_only() -> None:
    rq, model = build()
    clips = batch([48000, 30000])
    features, hidden = model.features(clips.audio), mask(rq, clips)
    corrupted = rq.masked.corrupt(features, hidden)
    assert hidden.any() and not hidden.all()
    assert torch.equal(corrupted.lengths, features.lengths)
    differs = (corrupted.values != features.values).any(dim=-1)
    assert torch.equal(differs, hidden)
    drawn = corrupted.values[hidden]
    assert abs(float(drawn.std()) - 0.1) < 0.005 and abs(float(drawn.mean())) < 0.005
    # Fresh noise for every frame and clip, not one vector for all.
    assert len(drawn.unique(dim=0)) == len(drawn)


def test_what_is_under_the_mask_does_not_leak() -> None:
    """Other content there changes the targets, and not what the encoder gets or makes of it."""
    rq, model = build()
    clips = batch([48000, 30000])
    features, hidden = model.features(clips.audio), mask(rq, clips)
    other = features.with_values(torch.where(hidden[..., None], torch.randn_like(features.values), features.values))
    targets = targets_of(rq, clips).flatten().nonzero()[:, 0]
    assert (rq.masked.codes(features, targets) != rq.masked.codes(other, targets)).float().mean() > 0.9
    inputs = []
    for content in (features, other):
        torch.manual_seed(7)
        inputs.append(rq.masked.corrupt(content, hidden))
    assert torch.equal(inputs[0].values, inputs[1].values)
    states = [model.encoder(content).final.values for content in inputs]
    assert torch.equal(states[0], states[1])


def test_forward_does_what_its_steps_do() -> None:
    """Targets from the clean features, states from the corrupted, cross-entropy averaged over books."""
    rq, model = build(books=3, codes=50)
    clips = batch([48000, 30000, 16000])
    torch.manual_seed(5)
    with torch.no_grad():
        loss = take(rq, model, clips)
    features, hidden = model.features(clips.audio), mask(rq, clips)
    torch.manual_seed(5)
    states = model.encoder(rq.masked.corrupt(features, hidden)).final.values
    total, frames = 0.0, 0
    for row, i in targets_of(rq, clips).nonzero().tolist():
        four = features.values[row, 4 * i : 4 * i + 4].flatten()
        labels = rq.masked.quantizer(four[None])[0]
        scores = rq.masked.softmax(states[row, i]).detach().view(3, 50).log_softmax(dim=-1)
        total -= sum(float(scores[book, labels[book]]) for book in range(3)) / 3
        frames += 1
    assert count(loss) == frames > 10
    assert float(loss.terms["codes"].total) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("books", [1, 16])
def test_the_loss_starts_at_the_logarithm_of_the_codes(books: int) -> None:
    rq, model = build(books=books)
    assert take(rq, model, batch([64000, 48000])).value.item() == pytest.approx(math.log(8192), abs=0.3)
    config = rq.masked.config
    assert config.codes == 8192 and config.code_width == 16 and config.mask_ms == 400
    assert config.start_probability == 0.01 and config.noise == 0.1


def test_counts_are_those_of_the_loss() -> None:
    rq, model = build(codes=16)
    generator = torch.Generator().manual_seed(0)
    for seed in range(25):
        lengths = torch.randint(1, 40000, (1 + seed % 4,), generator=generator).tolist()
        clips = rq.prepare(batch(lengths, pad=(seed % 3) * 700, seed=seed), True)
        if int(clips.audio.lengths.max()) < 400:
            continue
        assert rq.counts(clips) == {"codes": count(rq(model, clips, START))}


def test_a_batch_without_targets_has_a_loss_of_zero_with_a_gradient() -> None:
    rq, model = build(start_probability=1e-6)
    loss = take(rq, model, batch([8000, 500]))
    assert count(loss) == 0 and loss.value.item() == 0.0
    assert all(torch.isfinite(mean.total) for mean in loss.stats.values())
    found = gradients(loss, model, rq)
    assert found and all(torch.isfinite(slope).all() for slope in found.values())


@pytest.mark.parametrize("samples", [400, 401, 560, 719, 720, 1040, 6800])
def test_short_clips_train(samples: int) -> None:
    rq, model = build(start_probability=0.9, codes=16)
    loss = take(rq, model, batch([samples, 5000]))
    assert torch.isfinite(loss.value) and count(loss) > 0


def test_the_loss_adds_up() -> None:
    """A batch is the sum of its halves: loss, count and additive statistics."""
    rq, model = build(noise=0.0, codes=64)
    clips = batch([40000, 32000, 24000, 16000])
    whole, *halves = (take(rq, model, rows(clips, part)) for part in (slice(0, 4), slice(0, 2), slice(2, 4)))
    assert count(whole) == sum(map(count, halves)) and all(count(half) > 0 for half in halves)
    total = sum(half.terms["codes"].total.item() for half in halves)
    assert whole.terms["codes"].total.item() == pytest.approx(total, rel=1e-5)
    accuracy = sum(float(half.stats["accuracy"].total) for half in halves)
    assert float(whole.stats["accuracy"].total) == pytest.approx(accuracy, abs=1e-5)


def test_the_quantizer_is_frozen_and_in_the_checkpoint() -> None:
    rq, model = build(codes=64, dropout=0.1)
    quantizer = rq.masked.quantizer
    before = {name: buffer.clone() for name, buffer in quantizer.named_buffers()}
    softmax = rq.masked.softmax.weight.detach().clone()
    optimizer = torch.optim.AdamW(learning(rq, model), lr=1e-2, weight_decay=0.5)
    for step in range(20):
        loss = take(rq, model, batch([12000, 9000], seed=step))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    assert not torch.equal(rq.masked.softmax.weight, softmax)
    for name, buffer in quantizer.named_buffers():
        assert torch.equal(buffer, before[name])
        assert torch.equal(rq.state_dict()[f"masked.quantizer.{name}"], before[name])


def test_masks_come_from_the_seeds_of_the_clips_alone() -> None:
    rq, _ = build()
    clips = batch([48000, 32000], seed=9)
    torch.manual_seed(1)
    first = mask(rq, clips)
    torch.manual_seed(2)
    assert torch.equal(first, mask(rq, clips))
    assert not torch.equal(first, mask(rq, batch([48000, 32000], seed=10)))
    alone, longer = mask(rq, rows(clips, slice(1, 2))), mask(rq, batch([48000, 32000], pad=16000, seed=9))
    assert torch.equal(alone[0], first[1, : alone.shape[1]])
    assert torch.equal(longer[:, : first.shape[1]], first) and not longer[:, first.shape[1] :].any()
    streaming, _ = build(mask_ms=300, start_probability=0.02)
    long = mask(streaming, batch([240_240] * 200, seed=0))
    assert long.shape == (200, 1500) and abs(float(long.float().mean()) - (1 - 0.98**30)) < 0.02


def test_every_trained_parameter_gets_a_gradient() -> None:
    rq, model = build(codes=64)
    learning(rq, model)
    found = gradients(take(rq, model, batch([48000, 30000])), model, rq)
    trained = {name for name, _ in model.named_parameters()} | {f"own.{name}" for name, _ in rq.named_parameters()}
    assert found.keys() == trained and all(slope.abs().max() > 0 for slope in found.values())


def test_it_learns_to_tell_two_tones_apart() -> None:
    """Masked stretches of a constant sound can be told from what surrounds them."""
    rq, model = build(normalisation="none", codes=32, start_probability=0.05)
    seconds = torch.arange(24000) / SAMPLE_RATE
    tones = [torch.sin(2 * math.pi * hertz * seconds) + 0.01 * noise(24000, i) for i, hertz in enumerate((300, 2000))]
    audio = Sequence.from_list(tones)
    optimizer = torch.optim.AdamW(learning(rq, model), lr=3e-3)
    losses = []
    for step in range(25):
        loss = take(rq, model, Batch(["a", "b"], audio, [None] * 2, ["und"] * 2, step + 1)).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_perplexity_counts_codes_in_use() -> None:
    assert float(perplexity(torch.arange(64)[:, None].repeat(1, 2), 64)) == pytest.approx(64, rel=1e-4)
    assert float(perplexity(torch.zeros(50, 3, dtype=torch.int64), 64)) == pytest.approx(1)
    mixed = torch.stack([torch.arange(64), torch.zeros(64, dtype=torch.int64)], dim=1)
    assert float(perplexity(mixed, 64)) == pytest.approx(32.5, rel=1e-4)  # the mean over books
    assert float(perplexity(torch.zeros(0, 3, dtype=torch.int64), 64)) == 0.0


def test_real_speech_uses_many_codes_only_when_normalised(clips: list[Utterance]) -> None:
    """Without normalisation all frames point the same way and fall on a few codes."""
    audio = Sequence.from_list(
        [torch.from_numpy(read(clip.audio, start=clip.start, duration=clip.duration)) for clip in clips]
    )
    use = {}
    for normalisation in ("utterance", "none"):
        rq, model = build(normalisation=normalisation)
        assert isinstance(rq.masked.quantizer, RandomProjectionQuantizer)
        labels = torch.cat(codes(rq, model, audio))
        use[normalisation] = float(perplexity(labels, 8192)) / min(8192, len(labels))
    # 140 codes against 13, of 664 frames with much silence.
    assert use["utterance"] > 0.15
    assert use["utterance"] > 5 * use["none"]
