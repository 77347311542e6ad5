"""The transducer's lattice and loss: against enumeration of all paths, finite differences and each other."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from isogloss.nn.lattice import best_path, expected_cost, forward_backward, log_likelihood, weighted_cost
from isogloss.nn.transducer import PIECE, fused_transducer_loss, transducer_loss

NAN = float("nan")


def paths(frames: int, symbols: int) -> list[list[tuple[int, int, bool]]]:
    """All alignments as arcs (t, u, is_label); the last arc is always the blank of the last node."""
    found = []
    for labels in itertools.combinations_with_replacement(range(frames), symbols):
        arcs, u = [], 0
        for t in range(frames):
            while u < symbols and labels[u] == t:
                arcs.append((t, u, True))
                u += 1
            arcs.append((t, u, False))
        found.append(arcs)
    return found


def enumerated(blank: Tensor, label: Tensor, frames: int, symbols: int) -> tuple[Tensor, list[int]]:
    """log P by adding up every path, and the frames of the symbols of the best one."""
    scores = torch.stack([
        sum((label if is_label else blank)[t, u] for t, u, is_label in arcs) for arcs in paths(frames, symbols)
    ])
    best = paths(frames, symbols)[int(scores.argmax())]
    return scores.logsumexp(dim=0), [t for t, _, is_label in best if is_label]


def arcs(batch: int, frames: int, symbols: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, symbols + 1)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) - 1 for _ in range(2))


def lengths(*pairs: tuple[int, int]) -> tuple[Tensor, Tensor]:
    frames, symbols = zip(*pairs, strict=True)
    return torch.tensor(frames), torch.tensor(symbols)


ALL = list(itertools.product(range(1, 6), range(4)))


def test_a_batch_without_any_symbol_has_a_best_path_of_blanks() -> None:
    blank, label = arcs(2, 3, 0)
    frames, score = best_path(blank, label, lengths((3, 0), (1, 0)))
    assert frames.shape == (2, 0)
    assert_close(score, torch.stack([blank[0, :, 0].sum(), blank[1, 0, 0]]))


def test_sums_and_best_paths_equal_enumeration_for_every_small_lattice() -> None:
    blank, label = arcs(len(ALL), 5, 3)
    for row, (frames, symbols) in enumerate(ALL):  # what is not in the lattice means nothing
        blank[row, frames:], label[row, frames:] = NAN, NAN
        blank[row, :, symbols + 1 :], label[row, :, symbols:] = NAN, NAN
    sizes = lengths(*ALL)
    found = forward_backward(blank, label, sizes)
    written, score = best_path(blank, label, sizes)
    for row, (frames, symbols) in enumerate(ALL):
        total, best = enumerated(blank[row], label[row], frames, symbols)
        assert_close(found.log_likelihood[row], total)
        assert written[row].tolist() == best + [-1] * (3 - symbols)
        path = sum(label[row, t, u] for u, t in enumerate(best))
        path = path + sum(blank[row, t, sum(b <= t for b in best)] for t in range(frames))
        assert_close(score[row], path)


def test_posteriors_are_the_gradient_and_flow_through_every_frame() -> None:
    blank, label = arcs(3, 7, 4)
    sizes = lengths((7, 4), (3, 2), (5, 0))
    found = forward_backward(blank, label, sizes)
    blank.requires_grad_(), label.requires_grad_()
    log_likelihood(blank, label, sizes).sum().backward()
    assert_close(blank.grad, found.blank)
    assert_close(label.grad, found.label)
    for row, (frames, symbols) in enumerate(zip(*map(Tensor.tolist, sizes), strict=True)):
        assert_close(found.blank[row, :frames].sum(dim=1), torch.ones(frames, dtype=torch.float64))
        assert_close(found.label[row, :, :symbols].sum(dim=0), torch.ones(symbols, dtype=torch.float64))
        assert not found.node[row, frames:].any() and not found.node[row, :, symbols + 1 :].any()


@pytest.mark.parametrize("sizes", [(4, 3), (3, 1), (2, 2), (1, 0)])
def test_costs_along_alignments_are_those_of_every_path(sizes: tuple[int, int]) -> None:
    frames, symbols = sizes
    blank, label = arcs(1, 5, 4)
    cost = arcs(1, 5, 4, seed=7)[0].abs()
    whole = lengths(sizes)
    logs, sums = [], []
    for path in paths(frames, symbols):
        logs.append(sum((label if is_label else blank)[0, t, u] for t, u, is_label in path))
        sums.append(sum((cost[0, t, u] for t, u, is_label in path if is_label), start=torch.zeros(()).double()))
    shares, costs = torch.stack(logs).softmax(dim=0), torch.stack(sums)
    assert_close(expected_cost(blank, label, cost, whole)[0], (shares * costs).sum() / max(1, symbols))
    assert_close(weighted_cost(blank, label, cost, whole)[0], -(shares.log() - costs).logsumexp(dim=0))


def test_costs_pass_gradcheck_and_only_the_soft_form_moves_the_alignment() -> None:
    sizes = lengths((4, 3), (2, 1))
    inputs = [x.requires_grad_() for x in (*arcs(2, 4, 3), arcs(2, 4, 3, seed=7)[0].abs())]
    assert torch.autograd.gradcheck(lambda *x: weighted_cost(*x, sizes), inputs)
    assert torch.autograd.gradcheck(lambda cost: expected_cost(inputs[0], inputs[1], cost, sizes), inputs[2:])
    expected_cost(*inputs, sizes).sum().backward()
    assert inputs[0].grad is None and inputs[1].grad is None and inputs[2].grad.any()


def test_a_single_alignment_costs_what_viterbi_pays() -> None:
    """A one-hot posterior: every frame writes its symbol, as with Maestro's durations."""
    blank, label = arcs(1, 3, 3)
    label[:] = -1e4
    for t in range(3):
        label[0, t, t] = 0.0
    cost, sizes = arcs(1, 3, 3, seed=7)[0].abs(), lengths((3, 3))
    path = best_path(blank, label, sizes)[0][0]
    paid = cost[0, path, torch.arange(3)]
    assert_close(expected_cost(blank, label, cost, sizes)[0], paid.mean())
    assert_close(weighted_cost(blank, label, cost, sizes)[0], paid.sum())


def test_log_likelihood_passes_gradcheck() -> None:
    sizes = lengths((4, 3), (2, 1))
    inputs = [x.requires_grad_() for x in arcs(2, 4, 3)]
    assert torch.autograd.gradcheck(lambda blank, label: log_likelihood(blank, label, sizes), inputs)


def test_no_path_has_no_probability_and_no_gradient() -> None:
    blank, label = arcs(3, 4, 2)
    label[0, :, 0] = -torch.inf  # the first symbol cannot be written
    sizes = lengths((4, 2), (0, 1), (4, 2))
    found = forward_backward(blank, label, sizes)
    assert found.log_likelihood[:2].tolist() == [-torch.inf] * 2 and found.log_likelihood[2].isfinite()
    assert not found.node[:2].any() and found.node.isfinite().all()
    assert best_path(blank, label, sizes)[0][:2].tolist() == [[-1, -1]] * 2
    for price in (expected_cost, weighted_cost):
        assert not price(blank, label, torch.ones_like(blank), sizes)[:2].any()


def test_posteriors_of_a_long_alignment_are_exact() -> None:
    """Over 4000 frames the sums reach thousands of nats, where float32 knows three decimals."""
    blank, label = (x.float() * 3 for x in arcs(1, 4000, 60))
    found = forward_backward(blank, label, lengths((4000, 60)))
    assert_close(found.blank.sum(dim=2), torch.ones(1, 4000, dtype=torch.float64), atol=1e-9, rtol=0)


def logits(batch: int, frames: int, symbols: int, vocabulary: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, symbols + 1, vocabulary, generator=generator, dtype=torch.float64)


def plain_loss(values: Tensor, tokens: Tensor, frames: int, symbols: int, blank: int = 0) -> Tensor:
    """The definition, through autograd."""
    scores = values.log_softmax(dim=-1)
    label = torch.stack([scores[:, u, tokens[u]] for u in range(symbols)] + [scores[:, 0, 0]], dim=1)
    return -enumerated(scores[..., blank], label, frames, symbols)[0]


@pytest.mark.parametrize("blank", [0, 2, -1])
def test_the_loss_and_its_gradient_equal_enumeration(blank: int) -> None:
    values = logits(len(ALL), 5, 3, 6)
    tokens = torch.tensor([[1, 3, 3]]).repeat(len(ALL), 1)
    sizes = lengths(*ALL)
    values.requires_grad_()
    weights = torch.linspace(-1, 2, len(ALL), dtype=torch.float64)  # also negative and zero
    weights[3] = 0
    (transducer_loss(values, tokens, *sizes, blank, "none") * weights).sum().backward()
    found, values.grad = values.grad, None
    expected = torch.stack([
        plain_loss(values[row, :t, : u + 1], tokens[row], t, u, blank) for row, (t, u) in enumerate(ALL)
    ])
    (expected * weights).sum().backward()
    assert_close(transducer_loss(values, tokens, *sizes, blank, "none"), expected)
    assert_close(found, values.grad)


def test_reductions() -> None:
    values, tokens, sizes = logits(2, 4, 3, 5), torch.tensor([[1, 2, 3], [4, 4, 4]]), lengths((4, 3), (3, 1))
    each = transducer_loss(values, tokens, *sizes, reduction="none")
    assert_close(transducer_loss(values, tokens, *sizes), each.mean())
    assert_close(transducer_loss(values, tokens, *sizes, reduction="sum"), each.sum())


def test_nan_in_the_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """… and gets no gradient; in pieces of one frame as in one."""
    tokens, sizes = torch.tensor([[1, 2, 3], [4, 0, -7], [0, 0, 0]]), lengths((5, 3), (3, 1), (4, 0))
    clean = logits(3, 5, 3, 5).requires_grad_()
    dirty = clean.detach().clone()
    for row, (frames, symbols) in enumerate(zip(*map(Tensor.tolist, sizes), strict=True)):
        dirty[row, frames:], dirty[row, :, symbols + 1 :] = NAN, NAN
    dirty.requires_grad_()
    one = transducer_loss(clean, tokens, *sizes)
    one.backward()
    monkeypatch.setitem(PIECE, "cpu", 1)
    other = transducer_loss(dirty, tokens, *sizes)
    other.backward()
    assert_close(one, other)
    assert_close(dirty.grad, clean.grad)


def fused_parts(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = (3, 6, 8), (3, 5, 8), (7, 8), (7,)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


FUSED = torch.tensor([[1, 2, 6, 4], [5, 5, 0, 0], [3, 0, 0, 0]]), *lengths((6, 4), (5, 2), (1, 1))


def joined(audio: Tensor, text: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (audio[:, :, None] + text[:, None]).tanh() @ weight.T + bias


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_the_fused_loss_equals_the_loss_of_its_logits(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIECE, "cpu", piece)
    parts = fused_parts()
    expected = transducer_loss(joined(*parts), *FUSED)
    gradients = torch.autograd.grad(expected, parts)
    found = fused_transducer_loss(*parts, *FUSED)
    assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, parts), gradients, strict=True):
        assert_close(one, other)


def test_the_fused_loss_passes_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda *parts: fused_transducer_loss(*parts, *FUSED), fused_parts())


def test_the_fused_loss_under_autocast_is_close() -> None:
    parts = fused_parts(torch.float32)
    exact = fused_transducer_loss(*parts, *FUSED)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fused_transducer_loss(*parts, *FUSED)
    assert rounded.dtype == torch.float32 and abs(rounded - exact) < 0.02 * abs(exact)
    one, other = (torch.autograd.grad(loss, parts) for loss in (exact, rounded))
    for a, b in zip(one, other, strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_any_floating_type(dtype: torch.dtype) -> None:
    tokens, sizes = torch.tensor([[1, 2, 3]], dtype=torch.int32), [x.int() for x in lengths((5, 3))]
    values = logits(1, 5, 3, 6).to(dtype).requires_grad_()
    exact = values.detach().double().requires_grad_()
    for x in (values, exact):
        transducer_loss(x, tokens, *sizes).backward()
    assert values.grad.dtype == dtype
    assert_close(values.grad.double(), exact.grad, atol=4 * torch.finfo(dtype).eps, rtol=0)


@given(st.integers(1, 12), st.integers(0, 6), st.integers(0, 2**31))
@settings(max_examples=60)
def test_a_symbol_more_or_less_is_the_same_in_and_out_of_a_batch(frames: int, symbols: int, seed: int) -> None:
    values = logits(2, frames + 3, symbols + 2, 5, seed)
    tokens = torch.randint(1, 5, (2, symbols + 2), generator=torch.Generator().manual_seed(seed))
    sizes = lengths((frames, symbols), (frames + 3, symbols + 2))
    together = transducer_loss(values, tokens, *sizes, reduction="none")
    alone = transducer_loss(
        values[:1, :frames, : symbols + 1], tokens[:1, :symbols], *lengths((frames, symbols)), reduction="none"
    )
    assert_close(together[:1], alone)
    assert (together >= -1e-12).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": torch.zeros(2, 4, 3)}, "are not"),
        ({"logits": torch.zeros(2, 4, 5, 5)}, "are not"),
        ({"tokens": torch.tensor([[1, 0, 3], [1, 1, 1]])}, "blank"),
        ({"tokens": torch.tensor([[1, 9, 3], [1, 1, 1]])}, "below 5"),
        ({"logit_lengths": torch.tensor([4, 5])}, "between 0 and 4"),
        ({"logit_lengths": torch.tensor([4])}, "2 integers"),
        ({"token_lengths": torch.tensor([4, 3])}, "between 0 and 3"),
        ({"token_lengths": torch.tensor([0.5, 1.0])}, "integers"),
        ({"blank": 5}, "blank 5"),
        ({"reduction": "median"}, "median"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    good = {
        "logits": torch.zeros(2, 4, 4, 5),
        "tokens": torch.tensor([[1, 2, 3], [4, 0, 0]]),
        "logit_lengths": torch.tensor([4, 2]),
        "token_lengths": torch.tensor([3, 1]),
    }
    assert transducer_loss(**good).isfinite()
    with pytest.raises(ValueError, match=said):
        transducer_loss(**good | change)
