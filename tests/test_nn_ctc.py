"""CTC's best path against enumeration of every path."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from isogloss.nn.ctc import ctc_best_path, frames_needed
from isogloss.sequence import Sequence

TARGETS = [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 1], [1, 1, 1]]


def scores(frames: int, symbols: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, symbols, generator=generator, dtype=torch.float64).log_softmax(dim=-1)


def best(values: Tensor, tokens: list[int]) -> tuple[float, list[tuple[int, int]]]:
    """Of all V^T paths that say the tokens the likeliest: its score, and the frames of each symbol."""
    found = (-float("inf"), [(-1, -1)] * len(tokens))
    for path in itertools.product(range(values.shape[1]), repeat=len(values)):
        runs, frame = [], 0
        for symbol, run in itertools.groupby(path):
            length = len(list(run))
            if symbol:
                runs.append((symbol, (frame, frame + length)))
            frame += length
        if [symbol for symbol, _ in runs] == tokens:
            score = float(sum(values[t, s] for t, s in enumerate(path)))
            found = max(found, (score, [span for _, span in runs]))
    return found


def test_the_best_path_is_the_best_of_all() -> None:
    lengths = [1, 2, 3, 4, 5]
    items = [scores(frames, 3, seed=frames) for frames in lengths for _ in TARGETS]
    batch = Sequence.from_list(items)
    batch = Sequence(batch.values.masked_fill(~batch.valid[..., None], float("nan")), batch.lengths)
    tokens = Sequence.from_list([torch.tensor(t, dtype=torch.int64) for _ in lengths for t in TARGETS])
    spans, total = ctc_best_path(batch, tokens)
    for row, item in enumerate(items):
        target = TARGETS[row % len(TARGETS)]
        score, expected = best(item, target)
        assert_close(float(total[row]), score)
        assert [tuple(span) for span in spans[row, : len(target)].tolist()] == expected
        assert (spans[row, len(target) :] == -1).all()


@given(st.lists(st.integers(1, 4), max_size=20), st.integers(0, 60), st.integers(0, 2**31))
@settings(max_examples=80)
def test_spans_are_in_order_and_apart(tokens: list[int], more: int, seed: int) -> None:
    frames = max(1, frames_needed(tokens) + more)
    batch = Sequence.from_list([scores(frames, 5, seed)])
    spans, total = ctc_best_path(batch, Sequence.from_list([torch.tensor(tokens, dtype=torch.int64)]))
    assert total.isfinite().all()
    before, previous = 0, None
    for token, (start, end) in zip(tokens, spans[0].tolist(), strict=True):
        assert before + (token == previous) <= start < end <= frames
        before, previous = end, token


def test_too_few_frames_are_no_path() -> None:
    spans, total = ctc_best_path(
        Sequence.from_list([scores(2, 3, 0)] * 2), Sequence.from_list([torch.tensor([1, 1]), torch.tensor([1, 2])])
    )
    assert total[0] == -torch.inf and (spans[0] == -1).all()
    assert spans[1].tolist() == [[0, 1], [1, 2]]
