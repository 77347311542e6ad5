"""SpecAugment's laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.augment import SpecAugment, SpecAugmentConfig
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

POLICIES = ("LB", "LD", "SM", "SS", "conformer", "adaptive")


def ones(*lengths: int, bins: int = 80) -> Sequence:
    return Sequence.from_list([torch.ones(n, bins) for n in lengths])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60)
@given(
    st.sampled_from(POLICIES), st.lists(st.integers(0, 700), min_size=1, max_size=4), st.integers(0, 10**6)
)
def test_masks_stay_within_their_bounds(name: str, lengths: list[int], seed: int) -> None:
    config = SpecAugmentConfig.preset(name)
    masked = SpecAugment(config)(ones(*lengths), generator(seed))
    assert masked.lengths.tolist() == lengths
    assert (masked.values[~masked.valid] == 0).all()
    for item in masked.unpad():
        frames = len(item)
        assert ((item == 0) | ((item - 1).abs() < 1e-6)).all()
        bins_hidden = (item == 0).all(0).sum() if frames else 0
        frames_hidden = int((item == 0).all(1).sum())
        widest = int(config.time_share * frames)
        if config.time_width is not None:
            widest = min(widest, config.time_width)
        masks = config.time_masks
        if config.time_masks_share is not None:
            masks = min(masks, int(config.time_masks_share * frames))
        assert frames_hidden <= masks * widest
        if frames_hidden < frames:
            assert bins_hidden <= config.freq_masks * config.freq_width


def test_every_width_and_place_occurs() -> None:
    config = SpecAugmentConfig(freq_width=3, freq_masks=1, time_masks=0)
    values = SpecAugment(config)(ones(*[1] * 4000, bins=6), generator(0)).values[:, 0]
    widths = (values == 0).sum(1)
    assert set(widths.tolist()) == {0, 1, 2, 3}
    assert ((values == 0).float().mean(0) > 0.1).all()
    share = torch.bincount(widths) / len(widths)
    assert (share - 0.25).abs().max() < 0.03


def test_conformer_hides_the_expected_share_of_time() -> None:
    config = SpecAugmentConfig(freq_masks=0, time_masks=10, time_share=0.05)
    values = SpecAugment(config)(ones(*[1000] * 200, bins=1), generator(1)).values
    # Ten independent masks of mean width 25 of 1000 frames: 1 − 0.975¹⁰ = 0.22.
    assert float((values == 0).float().mean()) == pytest.approx(0.22, abs=0.02)


def test_draws_do_not_depend_on_padding_and_follow_the_generator() -> None:
    augment = SpecAugment(SpecAugmentConfig.preset("LD"))
    rng = np.random.default_rng(0)
    batch = Sequence.from_list(
        [torch.from_numpy(rng.normal(size=(n, 80)).astype(np.float32)) for n in (400, 190)]
    )
    padded = Sequence(torch.nn.functional.pad(batch.values, (0, 0, 0, 50), value=torch.nan), batch.lengths)
    padded.values[~padded.valid] = torch.nan
    one, two = augment(batch, generator(3)), augment(padded, generator(3))
    assert torch.equal(one.values, two.values[:, :400])
    assert (two.values[~two.valid] == 0).all()
    torch.manual_seed(3)
    assert torch.equal(augment(batch).values, one.values)
    assert not torch.equal(augment(batch).values, one.values)


def test_nothing_happens_in_evaluation() -> None:
    batch = ones(100)
    assert SpecAugment(SpecAugmentConfig.preset("LD")).eval()(batch) is batch


def test_time_warp_moves_time_only() -> None:
    config = SpecAugmentConfig(time_warp=20, freq_masks=0, time_masks=0)
    ramp = torch.arange(300.0)[:, None].expand(-1, 3)
    batch = Sequence.from_list([ramp, ramp[:41], ramp[:200]])
    warped = SpecAugment(config)(batch, generator(5)).unpad()
    assert torch.equal(warped[1], ramp[:41])  # too short for W = 20
    for item in (warped[0], warped[2]):
        steps = item.diff(dim=0)
        assert (steps > 0).all()
        assert item[0, 0] == 0 and item[-1, 0] == len(item) - 1
        shift = (item[:, 0] - torch.arange(len(item))).abs().max()
        assert 0.5 < shift <= 20
        assert len({round(float(step), 3) for step in steps[:, 0]}) <= 3  # two slopes and the bend


def test_policies_by_name_in_a_recipe() -> None:
    assert SpecAugmentConfig.parse("SM", "recipe").time_share == 0.2
    assert SpecAugmentConfig.parse({"time_masks": 3}, "recipe").time_masks == 3
    assert SpecAugmentConfig.preset("LD").time_width == 100
    with pytest.raises(IsoglossError, match='Did you mean "adaptive"'):
        SpecAugmentConfig.preset("adaptiv")
