"""Normalisers: exact statistics, blind to padding, finite where there is nothing to measure."""

import numpy as np
import pytest
import torch
from torch import nn

from isogloss.audio.normalise import FLOOR, UTTERANCE_FLOOR, CorpusNormaliser, RunningNormaliser, build_normaliser
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

NAMES = ("utterance", "frames", "running", "corpus", "none")


def features(*lengths: int, bins: int = 5, seed: int = 0) -> Sequence:
    rng = np.random.default_rng(seed)
    return Sequence.from_list(
        [torch.from_numpy(rng.normal(-8, 3, (n, bins)).astype(np.float32)) for n in lengths]
    )


def with_nan(sequence: Sequence) -> Sequence:
    values = torch.nn.functional.pad(sequence.values, (0, 0, 0, 3), value=torch.nan)
    values[~Sequence(values, sequence.lengths).valid] = torch.nan
    return Sequence(values, sequence.lengths)


def built(name: str, bins: int = 5) -> nn.Module:
    normaliser = build_normaliser(name, bins)
    if isinstance(normaliser, CorpusNormaliser):
        normaliser.fit([features(40, 30, seed=9)])
    return normaliser


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(name: str, training: bool) -> None:
    batch = features(20, 7, 1, 0)
    clean = built(name).train(training)(batch)
    dirty = built(name).train(training)(with_nan(batch))
    assert torch.equal(dirty.values[:, :20], clean.values)
    assert (dirty.values[~dirty.valid] == 0).all()
    assert clean.values.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_alone_is_as_in_a_batch(name: str) -> None:
    batch = features(20, 7, 12)
    normaliser = built(name).eval()
    for alone, item in zip(batch.unpad(), normaliser(batch).unpad(), strict=True):
        torch.testing.assert_close(normaliser(Sequence.from_list([alone])).values[0], item, atol=1e-5, rtol=0)


def test_utterance_has_zero_mean_and_unit_variance() -> None:
    speech = features(200, 50).map(lambda x: x.clamp(-13, -3))  # no frame is quiet, no bin is at the floor
    for item in built("utterance")(speech).unpad():
        assert item.mean(0).abs().max() < 1e-5
        assert (item.var(0, unbiased=False) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("silence", [-23.0, -21.0])
def test_silence_around_and_inside_an_utterance_changes_nothing(silence: float) -> None:
    """Digital zeros and a faint noise lie 50 dB and more below speech."""
    speech = features(200).values[0]
    pause = torch.full((150, 5), silence)
    surrounded = torch.cat([pause, speech[:80], pause, speech[80:], pause])
    alone, found = (built("utterance")(Sequence.from_list([item])).values[0] for item in (speech, surrounded))
    kept = torch.cat([found[150:230], found[380:500]])
    torch.testing.assert_close(kept, alone, atol=1e-5, rtol=0)
    assert found.min() >= UTTERANCE_FLOOR and (found[:150].mean() < -2).all()


def test_statistics_of_an_utterance_do_not_depend_on_its_level() -> None:
    batch = features(200)
    louder = batch.map(lambda x: x + 4.6)  # 20 dB
    torch.testing.assert_close(built("utterance")(louder).values, built("utterance")(batch).values, atol=1e-4, rtol=0)


def test_utterance_statistics_are_float32_under_autocast() -> None:
    batch = features(300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = built("utterance")(batch)
    assert torch.equal(found.values, built("utterance")(batch).values)


def test_one_frame_and_constant_utterances_are_zero() -> None:
    batch = Sequence.from_list([torch.full((1, 5), -23.0), torch.full((9, 5), 0.1)])
    assert built("utterance")(batch).values.abs().max() < 1e-3


def test_corpus_statistics_are_exact() -> None:
    batches = [features(20, 7, 0, seed=1), features(31, seed=2), features(1, seed=3)]
    normaliser = CorpusNormaliser(5)
    normaliser.fit(with_nan(batch) for batch in batches)
    frames = torch.cat([item for batch in batches for item in batch.unpad()]).double()
    torch.testing.assert_close(normaliser.mean.double(), frames.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(normaliser.variance.double(), frames.var(0, unbiased=False), atol=1e-4, rtol=0)
    assert int(normaliser.count) == len(frames)
    restored = CorpusNormaliser(5)
    restored.load_state_dict(normaliser.state_dict())
    assert torch.equal(restored(batches[0]).values, normaliser(batches[0]).values)


def test_corpus_without_statistics_says_so() -> None:
    with pytest.raises(IsoglossError, match="fit"):
        CorpusNormaliser(5)(features(3))


def test_running_learns_in_training_only() -> None:
    batches = [features(20, 7, seed=1), features(31, seed=2)]
    running, corpus = RunningNormaliser(5), CorpusNormaliser(5)
    corpus.fit(batches)
    for batch in batches:
        running(batch)
    torch.testing.assert_close(running.mean, corpus.mean)
    torch.testing.assert_close(running.variance, corpus.variance)
    running.eval()(features(9, seed=5))
    assert torch.equal(running.mean, corpus.mean)


def test_running_forgets_beyond_its_horizon() -> None:
    running = RunningNormaliser(2, horizon=100)
    for _ in range(20):
        running(Sequence(torch.zeros(1, 50, 2), torch.tensor([50])))
    for _ in range(20):
        running(Sequence(torch.ones(1, 50, 2), torch.tensor([50])))
    assert running.mean.min() > 0.99


@pytest.mark.parametrize("name", ["corpus", "running"])
def test_what_is_far_below_a_corpus_is_as_near_silence_as_anything(name: str) -> None:
    """Bands that a telephone cut off lie at the floor of the logarithm."""
    normaliser = built(name).train()
    normaliser(features(500))
    batch = features(50)
    cut = batch.map(lambda x: x.index_fill(2, torch.tensor([3, 4]), -23.0))
    found = normaliser.eval()(cut).values
    assert found[..., 3:].eq(FLOOR).all()
    above = (batch.values - normaliser.mean) / normaliser.variance.sqrt()
    torch.testing.assert_close(found[..., :3], above[..., :3].clamp(min=FLOOR), atol=1e-4, rtol=0)
