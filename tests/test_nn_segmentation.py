"""Segmentation against all segmentations there are, and merging against its definition."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from isogloss.nn.segmentation import Segment, best_segments, distances, merged_segments

Costs = NDArray[np.float64]


def random_costs(frames: int, codes: int, seed: int) -> Costs:
    draw = np.random.default_rng(seed)
    return distances(draw.standard_normal((frames, 3)), draw.standard_normal((codes, 3)))


costs = st.builds(random_costs, st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000))


def cost(costs: Costs, segments: list[Segment], bonus: float) -> float:
    return sum(float(costs[s.start : s.end, s.code].sum()) - bonus * (s.end - s.start - 1) for s in segments)


def every_segmentation(costs: Costs) -> list[list[Segment]]:
    """Into all runs of frames, each with its best code: whichever codes are taken, none is better."""
    frames, found = len(costs), []
    for count in range(frames):
        for inner in combinations(range(1, frames), count):
            spans = pairwise([0, *inner, frames])
            found.append([Segment(a, b, int(costs[a:b].sum(axis=0).argmin())) for a, b in spans])
    return found


def whole(segments: list[Segment], frames: int) -> bool:
    """Whether they follow each other without a gap from the first frame to the last."""
    bounds = [0, *(segment.end for segment in segments)]
    return [segment.start for segment in segments] == bounds[:-1] and bounds[-1] == frames


def test_distances_are_squared() -> None:
    draw = np.random.default_rng(0)
    states, codes = draw.standard_normal((5, 3)), draw.standard_normal((4, 3))
    expected = [[np.square(z - e).sum() for e in codes] for z in states]
    np.testing.assert_allclose(distances(states, codes), expected)
    assert (distances(1e4 + codes, 1e4 + codes).diagonal() >= 0).all()


@given(costs=costs, bonus=st.floats(0, 10), longest=st.integers(1, 9))
def test_no_segmentation_is_better(costs: Costs, bonus: float, longest: int) -> None:
    found = best_segments(costs, bonus, longest)
    assert whole(found, len(costs)) and max(s.end - s.start for s in found) <= longest
    allowed = [one for one in every_segmentation(costs) if max(s.end - s.start for s in one) <= longest]
    assert cost(costs, found, bonus) == pytest.approx(min(cost(costs, one, bonus) for one in allowed), abs=1e-9)


@given(costs=costs)
def test_the_bonus_goes_from_the_code_of_each_frame_to_one_segment(costs: Costs) -> None:
    frames = len(costs)
    assert cost(costs, best_segments(costs, 0.0, frames), 0.0) == pytest.approx(costs.min(axis=1).sum())
    codes = costs.argmin(axis=1).tolist()
    bounds = [0, *(frame for frame in range(1, frames) if codes[frame] != codes[frame - 1]), frames]
    assert best_segments(costs, 0.0, frames) == [Segment(a, b, codes[a]) for a, b in pairwise(bounds)]
    assert best_segments(costs, 1e6, frames) == [Segment(0, frames, int(costs.sum(axis=0).argmin()))]


@given(costs=costs, count=st.integers(1, 9))
def test_merging_takes_the_pair_that_costs_least(costs: Costs, count: int) -> None:
    spans = [(frame, frame + 1) for frame in range(len(costs))]
    while len(spans) > count:
        rises = [
            costs[a:c].sum(axis=0).min() - costs[a:b].sum(axis=0).min() - costs[b:c].sum(axis=0).min()
            for (a, b), (_, c) in pairwise(spans)
        ]
        place = int(np.argmin(np.round(rises, 9)))
        spans[place : place + 2] = [(spans[place][0], spans[place + 1][1])]
    found = merged_segments(costs, count)
    assert whole(found, len(costs)) and len(found) == min(count, len(costs))
    expected = [Segment(a, b, int(costs[a:b].sum(axis=0).argmin())) for a, b in spans]
    assert cost(costs, found, 0.0) == pytest.approx(cost(costs, expected, 0.0))
    of_as_many = [cost(costs, one, 0.0) for one in every_segmentation(costs) if len(one) == len(found)]
    assert cost(costs, found, 0.0) >= min(of_as_many) - 1e-9


def test_of_no_frames_there_are_no_segments() -> None:
    nothing = np.zeros((0, 4))
    assert best_segments(nothing, 1.0, 5) == merged_segments(nothing, 3) == []


def test_a_minute_of_many_codes_is_segmented() -> None:
    """States that stay with a code for a while, and stray from it, are given back their segments."""
    draw = np.random.default_rng(0)
    codes = draw.standard_normal((512, 64))
    bounds = pairwise([0, *np.cumsum(draw.integers(3, 20, 260)).tolist()])
    truth = [Segment(*span, code) for span, code in zip(bounds, draw.permutation(512).tolist(), strict=False)]
    states = np.concatenate([np.repeat(codes[[s.code]], s.end - s.start, axis=0) for s in truth])
    costs = distances(states + 0.5 * draw.standard_normal(states.shape), codes)
    assert best_segments(costs, 20.0, 50) == merged_segments(costs, len(truth)) == truth
