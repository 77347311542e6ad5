"""Log-mel: parity with independent implementations, and what must not change a frame."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isogloss.audio.log_mel import LogMel, LogMelConfig
from isogloss.audio.reading import read
from isogloss.data.manifests import Utterance
from isogloss.sequence import Sequence

FLAVOURS = ("plain", "kaldi")


def batch(*waveforms: np.ndarray) -> Sequence:
    return Sequence.from_list([torch.from_numpy(np.asarray(wave, dtype=np.float32)) for wave in waveforms])


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def kaldi_fbank(waveform: np.ndarray, bins: int) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = bins
    options.mel_opts.high_freq = 8000
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16000, waveform.tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("bins", [40, 80, 128])
def test_kaldi_flavour_agrees_with_kaldi(bins: int) -> None:
    waveform = noise(24000) + 0.05
    waveform[:8000] *= 1e-3
    waveform[8000:12000] = 0
    features = LogMel(LogMelConfig(bins=bins, flavour="kaldi"))(batch(waveform))
    assert np.abs(features.values[0].numpy() - kaldi_fbank(waveform, bins)).max() < 1e-3


@pytest.mark.parametrize("amplitude", [0.1, 1e-6, 0.0])
def test_a_full_scale_of_16_bits_is_kaldi_with_16_bit_samples(amplitude: float) -> None:
    """Its floor lies under what is heard, and above digital silence."""
    waveform = amplitude * noise(16000)
    features = LogMel(LogMelConfig(flavour="kaldi", full_scale=32768))(batch(waveform))
    assert np.abs(features.values[0].numpy() - kaldi_fbank(32768 * waveform, 80)).max() < 2e-3


def test_kaldi_flavour_agrees_with_kaldi_on_speech(clips: list[Utterance]) -> None:
    for clip in clips[:4]:
        waveform = read(clip.audio, start=clip.start, duration=clip.duration)
        features = LogMel(LogMelConfig(flavour="kaldi"))(batch(waveform))
        assert np.abs(features.values[0].numpy() - kaldi_fbank(waveform, 80)).max() < 1e-3


@pytest.mark.parametrize("bins", [80, 128])
def test_plain_flavour_agrees_with_the_definition(bins: int) -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    config = LogMelConfig(bins=bins)
    waveform = noise(8000) + 0.05
    expected = spectrogram(
        waveform.astype(np.float64),
        window_function(400, "hann", periodic=True),
        frame_length=400,
        hop_length=160,
        fft_length=config.fft,
        power=2.0,
        center=False,
        remove_dc_offset=True,
        mel_filters=mel_filter_bank(config.fft // 2 + 1, bins, 20.0, 8000.0, 16000, None, "htk"),
        log_mel="log",
        dtype=np.float64,
    )
    features = LogMel(config)(batch(waveform))
    assert features.values.shape == (1, expected.shape[1], bins)
    assert np.abs(features.values[0].numpy() - expected.T).max() < 1e-3


@given(st.integers(0, 5000))
def test_length_arithmetic(samples: int) -> None:
    config = LogMelConfig()
    counted = sum(1 for start in range(0, samples, 160) if start + 400 <= samples)
    assert config.framing.frames(samples) == counted
    assert config.framing.frames(torch.tensor([samples])).tolist() == [counted]


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.integers(0, 900), st.sampled_from(FLAVOURS))
def test_padding_and_company_change_nothing(lengths: list[int], extra: int, flavour: str) -> None:
    log_mel = LogMel(LogMelConfig.model_validate({"flavour": flavour}))
    waves = [noise(n, seed) for seed, n in enumerate(lengths)]
    values = torch.full((len(lengths), max(lengths) + extra), torch.nan)
    for row, wave in zip(values, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    together = log_mel(Sequence(values, torch.tensor(lengths)))
    assert together.values.isfinite().all()
    assert together.values.shape[1] == log_mel.config.framing.frames(values.shape[1])
    assert (together.values[~together.valid] == 0).all()
    for wave, item in zip(waves, together.unpad(), strict=True):
        alone = log_mel(batch(wave)).values[0]
        assert alone.shape == item.shape
        torch.testing.assert_close(item, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_chunks_leave_no_seam(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_mel = LogMel(LogMelConfig.model_validate({"flavour": flavour}))
    waves = batch(noise(20000), noise(15000, 1))
    whole = log_mel(waves)
    monkeypatch.setattr("isogloss.audio.log_mel._CHUNK", {"cpu": 7 * 512})
    torch.testing.assert_close(log_mel(waves).values, whole.values, atol=1e-4, rtol=0)


def test_float32_under_autocast_and_after_a_cast() -> None:
    waves = batch(noise(16000))
    expected = LogMel()(waves).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LogMel()(waves).values, expected)
    assert torch.equal(LogMel().bfloat16()(waves).values, expected)
    assert expected.dtype == torch.float32


def test_built_on_the_meta_device_it_still_works() -> None:
    with torch.device("meta"):
        log_mel = LogMel(LogMelConfig(bins=33))
    assert log_mel(batch(noise(800))).values.isfinite().all()


def test_a_constant_level_is_no_feature() -> None:
    silence = LogMel()(batch(np.zeros(4000))).values
    level = LogMel()(batch(np.full(4000, 0.25))).values
    assert (silence == np.float32(np.log(1e-10))).all()
    assert (level - silence).abs().max() < 2


def test_every_plain_filter_holds_a_bin() -> None:
    for bins in (23, 40, 64, 80, 128, 256):
        assert (LogMel(LogMelConfig(bins=bins))(batch(noise(4000))).values > np.log(1e-10)).all()


def test_gradients_reach_the_waveform() -> None:
    wave = torch.from_numpy(noise(1000)).double().requires_grad_()

    def loudness(samples: torch.Tensor) -> torch.Tensor:
        return LogMel()(Sequence(samples[None], torch.tensor([1000]))).values.mean()

    loudness(wave).backward()
    assert wave.grad is not None
    with torch.no_grad():
        step = 1e-3 * wave.grad / wave.grad.norm()
        change = (loudness(wave + step) - loudness(wave - step)) / 2e-3
    assert float(change) == pytest.approx(float(wave.grad.norm()), rel=0.02)


def test_inference_mode_first_does_not_poison_training() -> None:
    config = LogMelConfig(bins=37)
    with torch.inference_mode():
        LogMel(config)(batch(noise(800)))
    wave = torch.from_numpy(noise(800)).requires_grad_()
    LogMel(config)(Sequence(wave[None], torch.tensor([800]))).values.sum().backward()
    assert wave.grad is not None


@pytest.mark.parametrize("wrong", [{"bin": 80}, {"bins": 0}, {"low_hz": 9000}, {"high_hz": 9000}])
def test_wrong_configurations(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LogMelConfig.model_validate(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees() -> None:
    waves = batch(noise(16000), noise(9000, 1))
    torch.testing.assert_close(
        LogMel()(waves.to("cuda")).values.cpu(), LogMel()(waves).values, atol=1e-3, rtol=0
    )
