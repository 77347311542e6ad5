"""Perturbed waveforms: nothing of the clip is lost, and what is added is as loud as it is to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.perturb import (
    PerturbConfig,
    Waveform,
    change_speed,
    coloured_noise,
    in_a_room,
    perturb,
    sounding_like,
    with_pauses,
    with_tone,
)
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.errors import IsoglossError

ALWAYS = PerturbConfig(pauses=1, longest_pause=0.5, noise=1, snr=(10, 10), level=0)
NOTHING = PerturbConfig(pauses=0, noise=0, level=0)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def decibels(waveform: Waveform) -> float:
    return float(10 * np.log10(np.square(waveform, dtype=np.float64).mean()))


@pytest.fixture(scope="module")
def clip() -> Waveform:
    """Two words with a faint noise between them."""
    random = draws(0)
    word, gap = random.normal(0, 0.1, 8000), random.normal(0, 1e-4, 4800)
    return np.concatenate([word, gap, word]).astype(np.float32)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 4000))
def test_the_same_draws_give_the_same_and_every_clip_is_kept(seed: int, samples: int) -> None:
    waveform = draws(1).normal(0, 0.1, samples).astype(np.float32)
    config = PerturbConfig(rooms=0.5, tone=6)
    first, again = (perturb(waveform, config, draws(seed)) for _ in range(2))
    assert np.array_equal(first, again) and first.dtype == np.float32
    assert len(waveform) <= len(first) <= len(waveform) + 1.5 * SAMPLE_RATE and np.isfinite(first).all()


def test_nothing_is_done_where_nothing_is_wanted(clip: Waveform) -> None:
    assert np.array_equal(perturb(clip, NOTHING, draws(0)), clip)


def test_pauses_stand_before_inside_where_it_is_quiet_and_after(clip: Waveform) -> None:
    kinds = set()
    for seed in range(20):
        found = with_pauses(clip, ALWAYS, draws(seed))
        loud = np.flatnonzero(np.abs(found) > 0.01)
        first, last = loud[0], loud[-1] + 1
        assert len(found) > len(clip) and last - first > len(clip)
        # Nothing of the two words is cut or moved against itself.
        assert np.array_equal(found[first : first + 7000], clip[np.flatnonzero(np.abs(clip) > 0.01)[0] :][:7000])
        assert np.array_equal(found[last - 7000 : last], clip[: np.flatnonzero(np.abs(clip) > 0.01)[-1] + 1][-7000:])
        pause = found[: first - 100]
        kinds.add("silent" if not pause.any() else round(decibels(pause) / 5) * 5)
    assert kinds == {"silent", -80}  # the quietest part of the clip lies at -80 dB


def test_a_clip_without_a_gap_is_not_torn() -> None:
    word = draws(0).normal(0, 0.1, 12000).astype(np.float32)
    found = with_pauses(word, ALWAYS, draws(3))
    start = int(np.flatnonzero(found == word[0])[0])
    assert np.array_equal(found[start : start + len(word)], word)


def test_noise_is_as_loud_as_it_is_to_be(clip: Waveform) -> None:
    config = ALWAYS.model_copy(update={"pauses": 0.0})
    for seed in range(10):
        added = perturb(clip, config, draws(seed)) - clip
        assert decibels(clip) - decibels(added) == pytest.approx(10, abs=2)
    assert not perturb(np.zeros(8000, np.float32), config, draws(0)).any()  # silence has no ratio to noise


def test_the_level_changes_within_its_bounds(clip: Waveform) -> None:
    config = NOTHING.model_copy(update={"level": 6.0})
    changes = [decibels(perturb(clip, config, draws(seed))) - decibels(clip) for seed in range(50)]
    assert -6 <= min(changes) < -4 and 4 < max(changes) <= 6


def test_noise_has_its_colour() -> None:
    tilts = set()
    for seed in range(20):
        power = np.square(np.abs(np.fft.rfft(coloured_noise(SAMPLE_RATE, draws(seed)))))
        low, high = power[90:110].mean(), power[3600:4400].mean()
        tilts.add(round(float(np.log(low / high) / np.log(40))))
    assert tilts == {0, 1, 2}


def test_noise_like_a_sample_has_its_level_and_its_pitch() -> None:
    time = np.arange(1600) / SAMPLE_RATE
    sample = (0.01 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)
    found = sounding_like(sample, 16000, draws(0))
    assert len(found) == 16000 and decibels(found) == pytest.approx(decibels(sample), abs=3)
    assert abs(int(np.abs(np.fft.rfft(found)).argmax()) - 500) < 20


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    wave = np.sin(2 * np.pi * 500 * np.arange(16000) / 16000).astype(np.float32)
    faster = change_speed(wave, factor)
    assert abs(len(faster) - 16000 / factor) <= 1 and faster.dtype == np.float32
    peak = np.abs(np.fft.rfft(faster, 16000)).argmax()
    assert abs(peak - 500 * factor) <= 1


def test_speed_out_of_range() -> None:
    with pytest.raises(IsoglossError):
        change_speed(np.zeros(10, np.float32), 0)


@pytest.mark.parametrize("reverberation", [0.1, 0.5])
def test_a_room_adds_what_decays_by_60_decibels_in_its_reverberation_time(reverberation: float) -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[0] = 1
    power = np.mean([np.square(in_a_room(click, reverberation, draws(seed))) for seed in range(200)], axis=0)
    assert np.isclose(power[0], 1) and power[1:40].max() < 1e-12  # the sound itself, then nothing for 2.5 ms
    assert not power[round(reverberation * SAMPLE_RATE) + 1 :].max() > 1e-9
    assert 0.1 < power[1:].sum() < 1
    early, late = (slice(round(at * reverberation * SAMPLE_RATE) - 100, None) for at in (0.25, 0.75))
    fall = 10 * np.log10(power[early][:200].mean() / power[late][:200].mean())
    assert abs(fall - 30) < 2  # half the time, half the decibels


def test_another_tone_gains_what_it_says_where_it_says() -> None:
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for hertz, gain in ((200, -6.0), (2000, 6.0)):
        tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
        middle = slice(4000, 12000)
        found = with_tone(tone, np.array([0.0, -6.0, 0.0, 6.0, 0.0]))
        assert abs(decibels(found[middle]) - decibels(tone[middle]) - gain) < 0.1
    noise = draws(0).normal(0, 0.1, 5001).astype(np.float32)
    assert np.allclose(with_tone(noise, np.zeros(5)), noise, atol=1e-6)
