"""The order of training: a pure function of a seed and a position."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.perturb import PerturbConfig
from isogloss.data.loading import Loader
from isogloss.data.manifests import Utterance, language_of, text_of, to_cut
from isogloss.data.plan import ROUND, BatchPlan, Position, shares
from isogloss.errors import IsoglossError


def corpus(sizes: list[int], seed: int = 0, longest: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Durations and groups of clips, shuffled."""
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return random.uniform(0.3, longest, len(groups)), groups


def plan(sizes: list[int], batch_seconds: float = 40.0, temperature: float = 1.0, seed: int = 0) -> BatchPlan:
    durations, groups = corpus(sizes)
    return BatchPlan(durations, groups, batch_seconds=batch_seconds, temperature=temperature, seed=seed)


def flat(batches: list[np.ndarray]) -> list[int]:
    return np.concatenate(batches).tolist()


cases = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 40), min_size=1, max_size=4),
        "batch_seconds": st.floats(1.0, 80.0),
        "temperature": st.floats(1.0, 5.0),
        "seed": st.integers(0, 2**31),
    }
)


@given(case=cases, round=st.integers(0, 50))
@settings(max_examples=60)
def test_a_round_is_a_function_of_its_number(case: dict, round: int) -> None:
    first, second = plan(**case), plan(**case)
    second.round(round + 3)  # What was asked before leaves no trace.
    once, again = first.round(round), second.round(round)
    assert len(once) == len(again)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


@given(case=cases, cut=st.integers(0, 60), data=st.data())
@settings(max_examples=60)
def test_any_position_resumes_exactly(case: dict, cut: int, data: st.DataObject) -> None:
    whole = list(islice(plan(**case).batches(Position()), 80))
    position = Position() if cut == 0 else whole[cut - 1][1]
    resumed = list(islice(plan(**case).batches(position), 80 - cut))
    for (a, at), (b, bt) in zip(whole[cut:], resumed, strict=True):
        assert np.array_equal(a, b) and at == bt


@given(case=cases)
@settings(max_examples=60)
def test_batches_keep_to_their_seconds(case: dict) -> None:
    subject = plan(**case)
    for batch in subject.round(2):
        padded = float(subject.durations[batch].max()) * len(batch)
        assert len(batch) == 1 or padded <= case["batch_seconds"] + 1e-9


@given(case=cases)
@settings(max_examples=40)
def test_within_a_group_no_clip_is_ahead_by_two(case: dict) -> None:
    """At the end of each round, a clip was drawn at most once more than any other of its group."""
    subject = plan(**case)
    counts = np.zeros(len(subject.durations), dtype=int)
    for number in range(6):
        np.add.at(counts, flat(subject.round(number)), 1)
        for shards, quota in zip(subject.members, subject.quotas, strict=True):
            member = np.concatenate(shards)
            assert counts[member].max() - counts[member].min() <= 1
            assert counts[member].sum() == quota * (number + 1)


sharded = st.fixed_dictionaries(
    {
        "shards": st.lists(st.integers(1, 30), min_size=1, max_size=60),
        "loose": st.integers(0, 20),
        "lanes": st.integers(1, 4),
        "seed": st.integers(0, 2**31),
    }
)


def in_shards(shards: list[int], loose: int, lanes: int, seed: int) -> BatchPlan:
    """A plan over shards of two languages and clips that lie by themselves, all in a random order."""
    random = np.random.default_rng(seed)
    place = random.permutation(np.repeat(np.arange(-1, len(shards)), [loose, *shards]))
    durations = random.uniform(0.3, 12.0, len(place))
    return BatchPlan(durations, place % 2, batch_seconds=40.0, shards=place, lanes=lanes, seed=seed)


@given(case=sharded)
@settings(max_examples=60)
def test_a_corpus_in_shards_is_drawn_as_evenly(case: dict) -> None:
    """But for what longer lanes leave over."""
    subject = in_shards(**case)
    counts = np.zeros(len(subject.durations), dtype=int)
    for group, shards in enumerate(subject.members):
        for number in range(4):
            np.add.at(counts, subject._draw(group, number), 1)
        member = np.concatenate(shards)
        assert counts[member].max() - counts[member].min() <= 1
        assert counts[member].sum() == 4 * subject.quotas[group]


@given(case=sharded, cut=st.integers(1, 30))
@settings(max_examples=40)
def test_a_corpus_in_shards_resumes_exactly(case: dict, cut: int) -> None:
    whole = list(islice(in_shards(**case).batches(Position()), 40))
    resumed = list(islice(in_shards(**case).batches(whole[cut - 1][1]), 40 - cut))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(whole[cut:], resumed, strict=True))


def test_a_lane_has_shards_of_its_own() -> None:
    """A process reads the shards of its lanes alone, and lanes are about as long."""
    subject = in_shards([40] * 100, loose=30, lanes=4, seed=1)
    batches = subject.round(0)
    assert len(batches) % 4 == 0
    found = [set(subject.shards[np.concatenate(batches[lane::4])]) - {-1} for lane in range(4)]
    assert sum(map(len, found)) == len(set.union(*found)) == 100
    heard = sum(float(subject.durations[batch].sum()) for batch in batches)
    assert heard > 0.97 * subject.durations.sum()


def test_a_round_of_a_large_corpus_reads_few_shards() -> None:
    """Half of the clips, half of the shards."""
    place = np.repeat(np.arange(128), 512)
    subject = BatchPlan(np.full(len(place), 2.0), place * 0, batch_seconds=60.0, shards=place)
    chosen = np.concatenate(subject.round(1))
    assert len(chosen) == ROUND == len(set(chosen.tolist()))
    assert len(set(place[chosen])) == 64
    assert not set(chosen.tolist()) & set(np.concatenate(subject.round(0)).tolist())


def test_one_language_at_natural_temperature_is_an_epoch_a_round() -> None:
    subject = plan([57])
    for number in range(3):
        assert sorted(flat(subject.round(number))) == list(range(57))
    assert flat(subject.round(0)) != flat(subject.round(1))


def test_another_seed_is_another_order() -> None:
    assert flat(plan([57], seed=1).round(0)) != flat(plan([57], seed=2).round(0))


def test_a_single_clip_is_heard_every_round() -> None:
    subject = BatchPlan(np.array([3.0]), np.array([7]), batch_seconds=1.0, temperature=3.0)
    assert [flat(subject.round(number)) for number in range(4)] == [[0]] * 4
    assert [tuple(batch) for batch, _ in islice(subject.batches(Position()), 3)] == [(0,)] * 3


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 10.0])
def test_languages_are_heard_in_proportion_to_the_temperature(temperature: float) -> None:
    """Shares of time, p_l ∝ (n_l / N)^(1/T), whatever the mean duration of a language's clips."""
    random = np.random.default_rng(0)
    sizes, mean = [2000, 400, 60], [2.0, 6.0, 4.0]
    durations = np.concatenate([random.uniform(0.5 * m, 1.5 * m, n) for n, m in zip(sizes, mean, strict=True)])
    groups = np.repeat([0, 1, 2], sizes)
    subject = BatchPlan(durations, groups, batch_seconds=60.0, temperature=temperature)
    hours = np.array([durations[groups == g].sum() for g in range(3)])
    expected = (hours / hours.sum()) ** (1 / temperature)
    expected /= expected.sum()
    time = np.zeros(3)
    for number in range(4):
        indices = flat(subject.round(number))
        np.add.at(time, groups[indices], durations[indices])
    np.testing.assert_allclose(time / time.sum(), expected, atol=0.02)
    np.testing.assert_allclose(shares(hours, temperature), expected)


def test_weights_multiply_shares() -> None:
    durations, groups = np.full(200, 2.0), np.repeat([0, 1], 100)
    subject = BatchPlan(durations, groups, batch_seconds=20.0, weights=np.array([3.0, 1.0]))
    found = Counter(groups[flat(subject.round(0))].tolist())
    assert found == {0: 150, 1: 50}


def test_little_of_a_batch_is_padding() -> None:
    subject = plan([3000], batch_seconds=120.0)
    batches = subject.round(0)
    padded = sum(float(subject.durations[b].max()) * len(b) for b in batches)
    assert subject.durations.sum() / padded > 0.85
    seconds = [float(subject.durations[b].mean()) for b in batches]
    assert abs(np.corrcoef(seconds, np.arange(len(seconds)))[0, 1]) < 0.3  # short ones do not come first


def cut(folder: Path, name: str, samples: np.ndarray | bytes, seconds: float, text: str | None = "word") -> object:
    """A cut of a WAV with these samples, or of a file with these bytes."""
    from isogloss.audio.reading import AudioInfo

    path = folder / f"{name}.wav"
    if isinstance(samples, bytes):
        path.write_bytes(samples)
    else:
        soundfile.write(path, samples, 16000)
    info = AudioInfo(seconds, 16000, 1, "WAV/PCM_16", round(seconds * 16000))
    return to_cut(Utterance(name, path, "ro", "test", text=text), info)


def good(folder: Path, count: int) -> list:
    random = np.random.default_rng(0)
    return [
        cut(folder, f"good{n}", 0.1 * random.standard_normal(1600 * (n % 5 + 1)), 0.1 * (n % 5 + 1))
        for n in range(count)
    ]


def test_a_batch_runs_parallel_to_its_cuts(tmp_path: Path) -> None:
    cuts = good(tmp_path, 6)
    cuts[2].supervisions[0].text = None
    loader = Loader(cuts)
    batch = loader.load([4, 2, 0], seed=11)
    assert batch.ids == ["good4", "good2", "good0"]
    assert batch.texts == ["word", None, "word"] == [text_of(cuts[i]) for i in (4, 2, 0)]
    assert batch.languages == ["ro"] * 3 == [language_of(cuts[i]) for i in (4, 2, 0)]
    assert batch.audio.lengths.tolist() == [8000, 4800, 1600]
    assert batch.audio.values.dtype == torch.float32 and batch.seed == 11
    assert batch.seconds == pytest.approx(0.9)
    for row, index in enumerate((4, 2, 0)):
        written, _ = soundfile.read(tmp_path / f"good{index}.wav", dtype="float32")
        assert torch.equal(batch.audio.unpad()[row], torch.from_numpy(written))


def test_broken_clips_are_left_out_and_counted_by_cause(tmp_path: Path) -> None:
    cuts = good(tmp_path, 300)
    cuts.append(cut(tmp_path, "noise", b"this is no audio", 1.0))
    cuts.append(cut(tmp_path, "gone", np.zeros(1600), 0.1))
    (tmp_path / "gone.wav").unlink()
    cuts.append(cut(tmp_path, "empty", b"", 1.0))
    loader = Loader(cuts)
    loader.load([300, 3])
    batch = loader.load([0, 300, 1, 301, 302, 2])  # met twice, broken once
    assert batch.ids == ["good0", "good1", "good2"]
    assert batch.audio.lengths.tolist() == [1600, 3200, 4800]
    assert sorted(error.cause for error in loader.bad.values()) == ["empty", "missing", "unreadable"]


def test_too_many_broken_clips_stop_with_the_causes(tmp_path: Path) -> None:
    cuts = good(tmp_path, 94)
    cuts += [cut(tmp_path, f"noise{n}", b"this is no audio", 1.0) for n in range(6)]
    loader = Loader(cuts, max_bad=0.05)
    loader.load([0, 94, 95, 96])
    loader.load([1, 97, 98])  # 5 of 100 are allowed
    with pytest.raises(IsoglossError, match=r"^6 of 100 clips could not be read \(unreadable 6\); the first: .*noise0"):
        loader.load([2, 99])


def test_a_batch_of_broken_clips_alone_stops(tmp_path: Path) -> None:
    loader = Loader([*good(tmp_path, 3), cut(tmp_path, "noise", b"this is no audio", 1.0)], max_bad=1.0)
    with pytest.raises(IsoglossError, match="1 of 4 clips"):
        loader.load([3])


def test_speeds_are_drawn_from_the_seed_of_the_batch(tmp_path: Path) -> None:
    loader = Loader(good(tmp_path, 20), speeds=(0.9, 1.0, 1.1))
    indices = list(range(20))
    first, again, other = loader.load(indices, 1), loader.load(indices, 1), loader.load(indices, 2)
    assert torch.equal(first.audio.values, again.audio.values)
    assert first.audio.lengths.tolist() != other.audio.lengths.tolist()
    ratios = {round(1600 * (n % 5 + 1) / int(s), 1) for n, s in enumerate(first.audio.lengths)}
    assert ratios == {0.9, 1.0, 1.1}


def test_perturbed_clips_are_drawn_from_the_seed_of_the_batch_and_their_place(tmp_path: Path) -> None:
    config = PerturbConfig(pauses=1, noise=1)
    loader, plain = Loader(good(tmp_path, 20), perturbed=config), Loader(good(tmp_path, 20))
    first, again, other = loader.load([7, 7, 3], 1), loader.load([7, 7, 3], 1), loader.load([7, 7, 3], 2)
    clips = plain.load([7, 7, 3], 1)
    assert torch.equal(first.audio.values, again.audio.values)
    assert len({*first.audio.lengths[:2].tolist(), *other.audio.lengths[:2].tolist()}) == 4
    assert (first.audio.lengths > clips.audio.lengths).all()
    assert torch.equal(plain.load([7, 7, 3], 2).audio.values, clips.audio.values)  # what is remembered stays as it is


def test_real_clips_load(clips: list[Utterance]) -> None:
    from isogloss.audio.reading import info

    cuts = [to_cut(clip, info(clip.audio)) for clip in clips]
    loader = Loader(cuts)
    batch = loader.load(range(len(cuts)))
    assert batch.ids == [clip.id for clip in clips]
    assert batch.texts == [clip.text for clip in clips]
    assert batch.languages == [clip.language for clip in clips]
    for length, item in zip(batch.audio.lengths.tolist(), cuts, strict=True):
        assert abs(length / 16000 - item.duration) < 0.01
    assert not loader.bad
