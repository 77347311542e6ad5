"""Pitch, voicing, energy and zero crossings; and spectra of centred frames, with gammatone filters."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor
from torch.testing import assert_close

from isogloss.audio.mfcc import LIFTER
from isogloss.audio.prosody import LOWEST_HZ, fundamental, interpolated, prosody
from isogloss.audio.reading import read
from isogloss.audio.spectra import FFT, Grid, centres, cepstra, gammatone_filters, log_gammatone, log_mel, log_power
from isogloss.data.manifests import Utterance
from isogloss.sequence import Sequence

GRID = Grid(0, 160)
RATE = 16000


def harmonic(hertz: float, seconds: float = 0.5, fall: float = 1.0, missing: bool = False) -> Tensor:
    """A tone whose harmonics up to 3.5 kHz fall as 1 / n^fall, each with a phase of its own."""
    times = torch.arange(round(seconds * RATE)) / RATE
    phases = torch.rand(100, generator=torch.Generator().manual_seed(round(hertz)))
    numbers = range(1 + missing, int(3500 / hertz) + 1)
    parts = [torch.sin(2 * math.pi * (hertz * n * times + phases[n])) / n**fall for n in numbers]
    return 0.05 * torch.stack(parts).sum(dim=0)


def pitch(audio: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """F0 and voicing of the frames all of whose samples lie in the clip."""
    frames = len(audio) // 160
    hertz, voiced = fundamental(Sequence.from_list([audio]), GRID, frames)
    return hertz[0, 3:-3].double().numpy(), voiced[0, 3:-3].numpy()


@pytest.mark.parametrize("fall", [0.5, 1.0, 2.0])
def test_the_pitch_of_tones_is_found(fall: float) -> None:
    for hertz in [*range(80, 401, 10), 111.3, 236.7]:
        found, voiced = pitch(harmonic(hertz, fall=fall))
        assert voiced.all()
        assert np.abs(found / hertz - 1).max() < 0.03, hertz


def test_the_pitch_is_found_without_its_own_harmonic_in_noise_and_as_it_glides() -> None:
    for hertz in (100.0, 180.0, 310.0):
        tone = harmonic(hertz, missing=True)
        noisy = tone + 0.1 * tone.std() * torch.randn(tone.shape)  # 20 dB
        for audio in (tone, noisy):
            found, voiced = pitch(audio)
            assert voiced.all() and np.abs(found / hertz - 1).max() < 0.03
    times = torch.arange(RATE) / RATE
    phase = 2 * math.pi * (120 * times + 40 * times**2)  # 120 to 200 Hz within a second
    found, voiced = pitch(0.05 * (phase.sin() + (2 * phase).sin() + 0.5 * (3 * phase).sin()))
    expected = 120 + 80 * 0.01 * np.arange(3, 97)
    assert voiced.all() and np.abs(found / expected - 1).max() < 0.03


def test_noise_and_silence_have_no_voice() -> None:
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert pitch(noise)[1].mean() < 0.05
    assert not pitch(torch.zeros(RATE))[1].any()
    hum = torch.cat([harmonic(150.0), 1e-3 * harmonic(100.0)])  # 60 dB below the voice
    voiced = pitch(hum)[1]
    assert voiced[:44].all() and not voiced[-44:].any()


def autocorrelated(audio: NDArray[np.float64], frame: int) -> tuple[float, float]:
    """F0 and periodicity of a frame by another way: the autocorrelation of 40 ms over that of their window."""
    window = np.hanning(640)
    centre = 160 * frame
    part = audio[centre - 320 : centre + 320]
    found = np.correlate((part - part.mean()) * window, (part - part.mean()) * window, "full")[639:]
    found = found[:-1] / np.correlate(window, window, "full")[639:-1].clip(1e-9) / max(found[0], 1e-12)
    found *= np.square(window).sum()
    lags = np.arange(RATE // 400, RATE // 70)
    peaks = [lag for lag in lags if found[lag] >= found[lag - 1] and found[lag] >= found[lag + 1]]
    if not peaks:
        return 0.0, 0.0
    best = max(peaks, key=lambda lag: found[lag] - 0.02 * math.log2(lag))
    return RATE / best, float(found[best])


def test_the_pitch_of_speech_is_that_of_its_autocorrelation(clips: list[Utterance]) -> None:
    """On recorded clips, where both find a voice and the frame is clearly periodic."""
    ratios: list[float] = []
    agreed: list[bool] = []
    for clip in clips[:4]:
        audio = read(clip.audio, start=clip.start, duration=clip.duration)
        hertz, voiced = fundamental(Sequence.from_list([torch.from_numpy(audio)]), GRID, len(audio) // 160)
        for frame in range(3, len(audio) // 160 - 3):
            reference, periodic = autocorrelated(audio.astype(np.float64), frame)
            loud = np.square(audio[160 * frame - 320 : 160 * frame + 320]).mean() > 0.05 * np.square(audio).mean()
            if loud and periodic > 0.9:
                agreed.append(bool(voiced[0, frame]))
                ratios.append(float(hertz[0, frame]) / reference)
    assert len(ratios) > 100 and np.mean(agreed) > 0.95
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.01
    assert np.mean(np.abs(np.array(ratios) - 1) < 0.03) > 0.9


def test_prosody_is_pitch_voicing_energy_and_crossings() -> None:
    audio = torch.cat([torch.zeros(4000), harmonic(200.0), torch.zeros(4000), harmonic(100.0)])
    frames = len(audio) // 160
    batch = Sequence.from_list([audio, audio[:12000], audio[:40]])
    lengths = batch.lengths // 160
    found = prosody(batch, GRID, frames, lengths)
    pitch, voiced, energy, crossings = found.values[0].unbind(dim=-1)
    assert pitch[:25].exp() == pytest.approx(200, rel=0.03) and pitch[-20:].exp() == pytest.approx(100, rel=0.03)
    assert (pitch[76:99].diff() < 0).all()  # a line from one to the other
    assert not voiced[:22].any() and voiced[30:70].all() and not voiced[78:97].any()
    part = audio[160 * 50 - 200 : 160 * 50 + 200]
    assert float(energy[50]) == pytest.approx(0.5 * math.log(float(part.square().mean())), abs=1e-4)
    signs = part.numpy() >= 0
    assert float(crossings[50]) == pytest.approx(np.mean(signs[1:] != signs[:-1]))
    assert_close(found.values[1, :40], found.values[0, :40], atol=0.2, rtol=0)  # the ballast is that of the clip
    assert found.values[2].eq(0).all()
    poisoned = batch.map(lambda x: torch.where(batch.valid, x, torch.nan))
    assert torch.equal(prosody(poisoned, GRID, frames, lengths).values, found.values)


def test_between_what_is_known_are_straight_lines() -> None:
    known = torch.tensor([[False, True, False, False, True, False], [False] * 6])
    values = torch.tensor([[9.0, 1.0, 9.0, 9.0, 4.0, 9.0], [9.0] * 6])
    lowest = math.log(LOWEST_HZ)
    assert_close(interpolated(values, known), torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [lowest] * 6]))


def test_frames_are_centred_where_they_are_wanted() -> None:
    audio = Sequence.from_list([torch.arange(1.0, 2001.0), torch.arange(1.0, 301.0)])
    framed = Grid(70, 160).framed(audio, 100, 9)
    assert framed.shape == (2, 9, 100)
    for row, length in enumerate((2000, 300)):
        for frame in range(9):
            centre = 70 + 160 * frame
            places = torch.arange(centre - 50, centre + 50)
            expected = torch.where((places >= 0) & (places < length), places + 1, 0).float()
            assert torch.equal(framed[row, frame], expected)


def test_spectra_are_their_formulas() -> None:
    audio = 0.1 * torch.randn(4000)
    power = Grid(800, 160).power(Sequence.from_list([audio]), 400, 3)
    part = audio[960 - 200 : 960 + 200].double().numpy() * np.hanning(401)[:-1]
    expected = np.abs(np.fft.rfft(part, FFT)) ** 2
    np.testing.assert_allclose(power[0, 1], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(log_power(power)[0, 1], np.log(expected.clip(1e-10)), atol=1e-2)
    mel = log_mel(power)[0, 1].double().numpy()
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(20) / LIFTER)
    np.testing.assert_allclose(cepstra(power, 20)[0, 1], dct(mel, norm="ortho")[:20] * lifter, atol=1e-3)
    assert mel.shape == log_gammatone(power)[0, 1].shape == (40,)


def test_gammatone_filters_peak_at_their_centres() -> None:
    """Where tones are loudest in them; and their centres are evenly spaced in equivalent rectangular bandwidths."""
    middle = centres()
    assert middle[0] == pytest.approx(500) and len(middle) == 40 and middle[-1] < 8000
    bands = 21.4 * np.log10(1 + 4.37e-3 * middle)
    np.testing.assert_allclose(np.diff(bands), np.diff(bands)[0])
    for number in range(0, 40, 3):
        tone = torch.sin(2 * math.pi * float(middle[number]) * torch.arange(4000) / RATE)
        heard = log_gammatone(Grid(2000, 160).power(Sequence.from_list([tone]), 2048, 1))[0, 0]
        assert int(heard.argmax()) == number


def test_gammatone_filters_weigh_power_as_their_impulse_responses_do() -> None:
    """t³ exp(-2π b t) cos(2π f t)."""
    times = np.arange(FFT) / RATE
    for centre in centres()[::6]:
        bandwidth = 1.019 * 24.7 * (1 + 4.37e-3 * centre)
        impulse = times**3 * np.exp(-2 * np.pi * bandwidth * times) * np.cos(2 * np.pi * centre * times)
        response = np.abs(np.fft.rfft(impulse)) ** 2
        weights = gammatone_filters(np.array([centre]))[:, 0]
        strong = weights > 0.02  # below, the sampled impulse response is aliased
        np.testing.assert_allclose(weights[strong], (response / response.max())[strong], rtol=0.1)
