"""The pruned transducer loss: its lattice against enumeration, its ranges, and the whole loss as its limit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from isogloss.nn.lattice import forward_backward, log_likelihood
from isogloss.nn.pruned import likely_starts, pruned_transducer_loss, simple_arcs, two_step_loss
from isogloss.nn.transducer import fused_transducer_loss, transducer_loss
from test_nn_transducer import paths

TOKENS = torch.tensor([[1, 2, 6, 4], [5, 5, 0, 0], [3, 0, 0, 0]])
LENGTHS = torch.tensor([6, 5, 1]), torch.tensor([4, 2, 1])


def parts(*widths: int) -> list[Tensor]:
    """Audio (3, 6, W) and text (3, 5, W) for each width, in double precision."""
    generator = torch.Generator().manual_seed(1)
    shapes = [shape for width in widths for shape in ((3, 6, width), (3, 5, width))]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def joiner() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = (7, 8), (7,)
    return parts(8) + [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    ]


def test_the_simple_loss_is_that_of_the_summed_logits() -> None:
    audio, text = parts(7)
    logits = audio[:, :, None] + text[:, None]
    expected = transducer_loss(logits, TOKENS, *LENGTHS, reduction="none")
    found = -log_likelihood(*simple_arcs(audio, text, TOKENS, LENGTHS[1]), LENGTHS)
    assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x.sum(), (audio, text)) for x in (found, expected)), strict=True):
        assert_close(one, other)


def test_the_simple_arcs_stay_finite_where_the_joined_symbols_exclude_each_other() -> None:
    audio, text = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    audio[..., 1], text[..., 1] = 300.0, -300.0
    arcs = simple_arcs(audio, text, torch.tensor([[1]]), torch.tensor([1]))
    assert all(arc.isfinite().all() for arc in arcs)


def test_with_room_for_all_symbols_it_is_the_whole_loss() -> None:
    states = joiner()
    starts = torch.zeros(3, 6, dtype=torch.int64)
    expected = fused_transducer_loss(*states, TOKENS, *LENGTHS, reduction="none")
    found = pruned_transducer_loss(*states, TOKENS, LENGTHS, starts, width=5)
    assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x.sum(), states) for x in (found, expected)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_pruned_loss_sums_the_paths_within_its_ranges(width: int) -> None:
    states = joiner()
    audio, text, weight, bias = (x.detach() for x in states)
    scores = ((audio[:, :, None] + text[:, None]).tanh() @ weight.T + bias).log_softmax(dim=-1)
    nodes = torch.rand(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
    starts = likely_starts(nodes, LENGTHS, width)
    found = pruned_transducer_loss(*states, TOKENS, LENGTHS, starts, width)
    for row, (frames, symbols) in enumerate(zip(*map(Tensor.tolist, LENGTHS), strict=True)):
        inside = [
            torch.stack([scores[row, t, u, TOKENS[row, u] if is_label else 0] for t, u, is_label in path]).sum()
            for path in paths(frames, symbols)
            if all(starts[row, t] <= u < starts[row, t] + width for t, u, _ in path)
        ]
        assert_close(found[row], -torch.stack(inside).logsumexp(dim=0))
    assert (found >= fused_transducer_loss(*states, TOKENS, *LENGTHS, reduction="none") - 1e-9).all()
    assert torch.autograd.gradcheck(lambda *x: pruned_transducer_loss(*x, TOKENS, LENGTHS, starts, width), states)


@given(st.integers(1, 20), st.integers(0, 19), st.integers(2, 6), st.integers(0, 2**31))
@settings(max_examples=200)
def test_ranges_lead_from_beginning_to_end(frames: int, symbols: int, width: int, seed: int) -> None:
    symbols = min(symbols, (width - 1) * frames)
    most = max(symbols, width) + 3  # of the longest utterance in the batch
    nodes = torch.rand(1, frames + 4, most + 1, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([frames]), torch.tensor([symbols])
    start = likely_starts(nodes, lengths, width)[0]
    assert start[0] == 0 and start[frames - 1] == max(symbols + 1 - width, 0)
    steps = start.diff()
    assert (steps >= 0).all() and (steps < width).all() and start[-1] + width <= most + 1
    window = start[:, None] + torch.arange(width)
    flat = torch.full((1, frames + 4, most + 1), -torch.inf).scatter(2, window[None], -1.0)
    assert log_likelihood(flat, flat, lengths).isfinite()


def test_ranges_hold_the_mass_of_a_sure_alignment() -> None:
    """One symbol every second frame: a range of three always holds all of it."""
    score = torch.full((1, 12, 7), -20.0)
    label = score.clone()
    for u in range(6):
        label[0, 2 * u, u] = 0.0
        score[0, 2 * u : 2 * u + 2, u + 1] = 0.0
    lengths = torch.tensor([12]), torch.tensor([6])
    nodes = forward_backward(score, label, lengths).node
    start = likely_starts(nodes, lengths, 3)
    held = nodes.gather(2, start[..., None] + torch.arange(3)).sum(dim=2)
    assert_close(held, nodes.sum(dim=2), atol=1e-6, rtol=0)


def test_the_simple_joiner_learns_where_the_other_looks() -> None:
    states, simple = joiner(), parts(7)
    loss = two_step_loss(tuple(simple), tuple(states), TOKENS, LENGTHS, width=3)
    assert loss.shape == (3,)
    loss.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() and x.grad.any() for x in (*simple, *states))
