"""Distorted waveforms: each distortion does what it says, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.distort import DistortConfig, distort, second_voice, with_gaps, without_band
from isogloss.audio.reading import Waveform

NEVER = dict.fromkeys(("overlap", "rooms", "noise", "band_drop", "narrow", "clip", "gaps"), 0.0)


def noise(samples: int, level: float = 0.1) -> Waveform:
    return (level * np.random.default_rng(1).standard_normal(samples)).astype(np.float32)


def once(seed: int = 0, samples: int = 16000, **always: object) -> tuple[Waveform, Waveform]:
    clip = noise(samples)
    return clip, distort(clip, DistortConfig.parse(NEVER | always, "test"), np.random.default_rng(seed))


@settings(max_examples=30)
@given(st.sampled_from([0, 1, 5, 700, 16000]), st.integers(0, 10**6))
def test_there_are_as_many_samples_and_the_clip_is_left_alone(samples: int, seed: int) -> None:
    config = DistortConfig.parse(dict.fromkeys(NEVER, 1.0), "test")
    clip = noise(samples)
    kept = clip.copy()
    found = distort(clip, config, np.random.default_rng(seed))
    assert found.shape == clip.shape and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(clip, kept)
    assert np.array_equal(found, distort(clip, config, np.random.default_rng(seed)))
    assert not distort(np.zeros_like(clip), config, np.random.default_rng(seed)).any()


def test_without_any_the_clip_stays_as_it_is() -> None:
    clip, found = once()
    assert np.array_equal(clip, found)


@pytest.mark.parametrize(("kind", "field"), [("noise", "snr"), ("overlap", "overlap_snr")])
def test_what_is_added_is_as_loud_as_it_is_to_be(kind: str, field: str) -> None:
    for seed in range(6):
        clip, found = once(seed, **{kind: 1.0, field: (7.5,)})
        ratio = 10 * np.log10(np.square(clip).mean() / np.square(found - clip).mean())
        assert ratio == pytest.approx(7.5, abs=0.1)


def test_a_band_is_missing_and_the_rest_is_not() -> None:
    clip = noise(16384)
    before, after = (np.abs(np.fft.rfft(x)) for x in (clip, without_band(clip, 1000, 2000)))
    hertz = np.fft.rfftfreq(16384, 1 / 16000)
    inside = (hertz >= 1000) & (hertz < 2000)
    assert after[inside].max() < 1e-2 * before.mean()
    np.testing.assert_allclose(after[~inside], before[~inside], atol=1e-2 * before.mean())
    _, narrow = once(narrow=1.0, samples=16384)
    assert np.abs(np.fft.rfft(narrow))[hertz > 4010].max() < 1e-2 * before.mean()


def test_clipping_cuts_at_a_share_of_the_peak() -> None:
    clip, found = once(clip=1.0, clip_factors=(0.3,))
    most = 0.3 * np.abs(clip).max()
    np.testing.assert_allclose(found, clip.clip(-most, most), rtol=1e-5)


def test_gaps_are_silent_and_short() -> None:
    clip = noise(32000)
    shares = [float((with_gaps(clip, np.random.default_rng(seed)) == 0).mean()) for seed in range(200)]
    assert min(shares) > 0 and max(shares) < 0.25
    assert np.mean(shares) == pytest.approx(1.5 * 0.075 / 2, rel=0.15)  # one or two of 75 ms in 2 s


def test_a_second_voice_is_another_than_the_first() -> None:
    clip = noise(16000)
    other = second_voice(clip, np.random.default_rng(0))
    assert abs(np.corrcoef(clip, other)[0, 1]) < 0.1


def test_probabilities_are_those_of_the_paper() -> None:
    plain = DistortConfig().plain()
    assert [plain[name] for name in NEVER] == [0.1, 0.5, 0.4, 0.35, 0.25, 0.2, 0.2]
    changed = [not np.array_equal(*once(seed, samples=800, noise=0.4)) for seed in range(500)]
    assert np.mean(changed) == pytest.approx(0.4, abs=0.07)
