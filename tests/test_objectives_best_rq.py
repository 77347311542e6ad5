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
from isogloss.objectives.best_rq import BestRQ, BestRQConfig, perplexity
from isogloss.sequence import Sequence


def objective(normalisation: str = "utterance", dropout: float = 0.0, **values: object) -> BestRQ:
    torch.manual_seed(0)
    encoder = preset("test")
    blocks = encoder.blocks.model_copy(update={"dropout": dropout})
    config = ModelConfig(
        features=LogMelConfig(normalisation=normalisation),
        encoder=encoder.model_copy(update={"blocks": blocks}),
    )
    return BestRQConfig.parse(values, "test").build(Model(config)).eval()


def noise(samples: int, seed: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def batch(lengths: list[int], pad: int = 0, seed: int = 3) -> Batch:
    audio = Sequence.from_list([noise(n, i) for i, n in enumerate(lengths)])
    audio = audio.with_values(torch.nn.functional.pad(audio.values, (0, pad)))
    return Batch([str(i) for i in range(len(lengths))], audio, [None] * len(lengths), ["und"] * len(lengths), seed)


def codes(rq: BestRQ, audio: Sequence) -> list[Tensor]:
    """The labels of all whole frames of each clip, (T/4, K) each."""
    features = rq.features(audio)
    stacked = stack(features, 4)
    labels = rq.quantizer(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])
    return [row[: n // 4] for row, n in zip(labels, features.lengths.tolist(), strict=True)]


def masked(rq: BestRQ, features: Sequence, seed: int = 3) -> Tensor:
    return rq.mask(features.lengths, features.values.shape[1], seed)


def test_labels_do_not_change_with_padding_or_batch() -> None:
    rq = objective(books=4)
    clips = [noise(n, i) for i, n in enumerate((16000, 9000, 401, 24000))]
    alone = [codes(rq, Sequence.from_list([clip]))[0] for clip in clips]
    for together in (codes(rq, Sequence.from_list(clips)), codes(rq, Sequence.from_list(clips[::-1]))[::-1]):
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    for pad in (1, 159, 640, 16000):
        values = torch.cat([clips[0], torch.full((pad,), torch.nan)])[None]
        assert torch.equal(codes(rq, Sequence(values, torch.tensor([16000])))[0], alone[0])


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
    rq = objective()
    for seed in range(20):
        mask = rq.mask(torch.tensor([203, 90, 0]), 203, seed)
        targets = rq.target_mask(mask)
        assert targets.shape == (3, 51)
        for row in range(3):
            for i in range(51):
                four = mask[row, 4 * i : 4 * i + 4]
                assert bool(targets[row, i]) == (len(four) == 4 and bool(four.all()))
    assert not rq.target_mask(mask)[1, 22:].any()


def test_the_encoder_sees_noise_on_masked_frames_only() -> None:
    rq = objective()
    features = rq.features(batch([48000, 30000]).audio)
    mask = masked(rq, features)
    corrupted = rq.corrupt(features, mask)
    assert mask.any() and not mask.all()
    assert torch.equal(corrupted.lengths, features.lengths)
    differs = (corrupted.values != features.values).any(dim=-1)
    assert torch.equal(differs, mask)
    hidden = corrupted.values[mask]
    assert abs(float(hidden.std()) - 0.1) < 0.005 and abs(float(hidden.mean())) < 0.005
    # Fresh noise for every frame and clip, not one vector for all.
    assert len(hidden.unique(dim=0)) == len(hidden)


def test_what_is_under_the_mask_does_not_leak() -> None:
    """Other content there changes the targets, and not what the encoder gets or makes of it."""
    rq = objective()
    features = rq.features(batch([48000, 30000]).audio)
    mask = masked(rq, features)
    other = features.with_values(torch.where(mask[..., None], torch.randn_like(features.values), features.values))
    targets = rq.target_mask(mask)
    assert (rq.quantizer(stack(features, 4)[targets]) != rq.quantizer(stack(other, 4)[targets])).float().mean() > 0.9
    inputs = []
    for content in (features, other):
        torch.manual_seed(7)
        inputs.append(rq.corrupt(content, mask))
    assert torch.equal(inputs[0].values, inputs[1].values)
    states = [rq.encoder(content).final.values for content in inputs]
    assert torch.equal(states[0], states[1])


def test_forward_does_what_its_steps_do() -> None:
    """Targets from the clean features, states from the corrupted, cross-entropy averaged over books."""
    rq, clips = objective(books=3, codes=50), batch([48000, 30000, 16000])
    torch.manual_seed(5)
    with torch.no_grad():
        loss = rq(clips)
    features = rq.features(clips.audio)
    mask = masked(rq, features)
    torch.manual_seed(5)
    states = rq.encoder(rq.corrupt(features, mask)).final.values
    total, count = 0.0, 0
    for row, i in rq.target_mask(mask).nonzero().tolist():
        four = features.values[row, 4 * i : 4 * i + 4].flatten()
        labels = rq.quantizer(four[None])[0]
        scores = rq.softmax(states[row, i]).detach().view(3, 50).log_softmax(dim=-1)
        total -= sum(float(scores[book, labels[book]]) for book in range(3)) / 3
        count += 1
    assert loss.count == count > 10
    assert float(loss.total) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("books", [1, 16])
def test_the_loss_starts_at_the_logarithm_of_the_codes(books: int) -> None:
    rq, clips = objective(books=books), batch([64000, 48000])
    loss = rq(clips)
    assert loss.total.item() / loss.count == pytest.approx(math.log(8192), abs=0.3)
    assert rq.config.codes == 8192 and rq.config.code_width == 16 and rq.config.mask_ms == 400
    assert rq.config.start_probability == 0.01 and rq.config.noise == 0.1


def test_count_is_that_of_the_loss() -> None:
    rq = objective(codes=16)
    generator = torch.Generator().manual_seed(0)
    for seed in range(25):
        lengths = torch.randint(1, 40000, (1 + seed % 4,), generator=generator).tolist()
        clips = batch(lengths, pad=(seed % 3) * 700, seed=seed)
        if int(clips.audio.lengths.max()) < 400:
            continue
        assert rq.count(clips) == rq(clips).count


def test_a_batch_without_targets_has_a_loss_of_zero_with_a_gradient() -> None:
    rq = objective(start_probability=1e-6)
    loss = rq(batch([8000, 500]))
    assert loss.count == 0 and loss.total.item() == 0.0
    loss.total.backward()
    assert all(torch.isfinite(value) for value in loss.parts.values())
    assert all(torch.isfinite(p.grad).all() for p in rq.parameters() if p.grad is not None)


@pytest.mark.parametrize("samples", [400, 401, 560, 719, 720, 1040, 6800])
def test_short_clips_train(samples: int) -> None:
    rq = objective(start_probability=0.9, codes=16)
    loss = rq(batch([samples, 5000]))
    assert torch.isfinite(loss.total) and loss.count > 0


def test_the_loss_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same masks, a batch is the sum of its halves: loss, count and additive parts."""
    rq, lengths = objective(noise=0.0, codes=64), [40000, 32000, 24000, 16000]
    clips = batch(lengths)
    features = rq.features(clips.audio)
    whole_mask = masked(rq, features)

    def rows(first: int, last: int) -> Batch:
        audio = Sequence.from_list([noise(n, i) for i, n in enumerate(lengths)][first:last])
        return Batch(clips.ids[first:last], audio, clips.texts[first:last], clips.languages[first:last], 3)

    losses = []
    for first, last in ((0, 4), (0, 2), (2, 4)):
        part = whole_mask[first:last]
        monkeypatch.setattr(rq, "mask", lambda lengths, frames, seed, part=part: part[:, :frames])
        losses.append(rq(rows(first, last)))
    whole, *halves = losses
    assert whole.count == sum(half.count for half in halves) > 0
    assert whole.total.item() == pytest.approx(sum(half.total.item() for half in halves), rel=1e-5)
    accuracy = sum(float(half.parts["accuracy"]) for half in halves)
    assert float(whole.parts["accuracy"]) == pytest.approx(accuracy, abs=1e-5)


def test_the_quantizer_is_frozen_and_in_the_checkpoint() -> None:
    rq = objective(codes=64, dropout=0.1).train()
    before = {name: buffer.clone() for name, buffer in rq.quantizer.named_buffers()}
    softmax = rq.softmax.weight.detach().clone()
    optimizer = torch.optim.AdamW(rq.parameters(), lr=1e-2, weight_decay=0.5)
    for step in range(20):
        loss = rq(batch([12000, 9000], seed=step))
        optimizer.zero_grad()
        (loss.total / max(1, loss.count)).backward()
        optimizer.step()
    assert not torch.equal(rq.softmax.weight, softmax)
    for name, buffer in rq.quantizer.named_buffers():
        assert torch.equal(buffer, before[name])
        assert torch.equal(rq.state_dict()[f"quantizer.{name}"], before[name])


def test_masks_come_from_the_batch_seed_alone() -> None:
    rq, lengths = objective(), torch.tensor([300, 200])
    torch.manual_seed(1)
    first = rq.mask(lengths, 300, 9)
    torch.manual_seed(2)
    assert torch.equal(first, rq.mask(lengths, 300, 9))
    assert not torch.equal(first, rq.mask(lengths, 300, 10))
    streaming = objective(mask_ms=300, start_probability=0.02)
    long = streaming.mask(torch.tensor([1500] * 200), 1500, 0)
    assert abs(float(long.float().mean()) - (1 - 0.98**30)) < 0.02


def test_every_trained_parameter_gets_a_gradient() -> None:
    rq = objective(codes=64).train()
    rq(batch([48000, 30000])).total.backward()
    assert [name for name, p in rq.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_it_learns_to_tell_two_tones_apart() -> None:
    """Masked stretches of a constant sound can be told from what surrounds them."""
    rq = objective(normalisation="none", codes=32, start_probability=0.05).train()
    seconds = torch.arange(24000) / SAMPLE_RATE
    tones = [torch.sin(2 * math.pi * hertz * seconds) + 0.01 * noise(24000, i) for i, hertz in enumerate((300, 2000))]
    audio = Sequence.from_list(tones)
    optimizer = torch.optim.AdamW(rq.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss = rq(Batch(["a", "b"], audio, [None] * 2, ["und"] * 2, step + 1))
        optimizer.zero_grad()
        (loss.total / max(1, loss.count)).backward()
        optimizer.step()
        losses.append(float(loss.total.detach()) / max(1, loss.count))
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
        rq = objective(normalisation=normalisation)
        assert isinstance(rq.quantizer, RandomProjectionQuantizer)
        labels = torch.cat(codes(rq, audio))
        use[normalisation] = float(perplexity(labels, 8192)) / min(8192, len(labels))
    # 140 codes against 13, of 664 frames with much silence.
    assert use["utterance"] > 0.15
    assert use["utterance"] > 5 * use["none"]
