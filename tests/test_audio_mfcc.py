"""MFCCs are Kaldi's formula on the log-mel energies that are proven elsewhere, clip by clip."""

import numpy as np
import torch
from scipy.fft import dct
from torch.testing import assert_close

from isogloss.audio.log_mel import LogMel
from isogloss.audio.mfcc import MFCCConfig, change
from isogloss.sequence import Sequence

RAW = MFCCConfig(normalisation="none")


def noise(*lengths: int) -> Sequence:
    generator = torch.Generator().manual_seed(0)
    return Sequence.from_list([0.1 * torch.randn(n, generator=generator) for n in lengths])


def test_coefficients_are_the_liftered_cosines_of_the_energies() -> None:
    audio = noise(8000)
    energies = LogMel(RAW.log_mel)(audio).values[0].numpy()
    expected = dct(energies, type=2, norm="ortho", axis=1)[:, :13] * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    found = RAW.build()(audio).values[0, :, :13].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_changes_are_slopes() -> None:
    line = torch.arange(10.0)[None, :, None] * torch.tensor([1.0, -2.0])
    slopes = change(Sequence(line, torch.tensor([10])))
    assert_close(slopes[0, 2:8], torch.tensor([1.0, -2.0]).expand(6, 2))
    assert_close(slopes[0, 0], torch.tensor([0.5, -1.0]))  # (1 + 4) / 10: nothing changes before
    constant = torch.ones(1, 4, 3)
    assert not change(Sequence(constant, torch.tensor([4]))).any()


def test_a_clip_in_a_batch_is_as_it_is_alone() -> None:
    for config in (RAW, MFCCConfig()):
        features = config.build()
        audio = noise(16000, 9000, 401, 100)
        together = features(audio)
        assert together.values.shape[2] == config.width == 39
        for row, clip in enumerate(audio.unpad()):
            alone = features(Sequence.from_list([clip]))
            assert_close(together.unpad()[row], alone.unpad()[0], rtol=1e-4, atol=1e-4)
        dirty = torch.where(audio.valid, audio.values, torch.nan)
        assert torch.equal(features(audio.with_values(dirty)).values, together.values)
