"""The Triton kernels against what they stand for, by Triton's interpreter where there is no GPU.

The interpreter goes through the programs one by one: a lattice here has some nodes and not thousands.
"""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

import test_nn_transducer as lattices
from isogloss.nn import kernels, lattice, transducer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [(1, 0), (1, 2), (4, 0), (4, 3), (2, 3), (0, 2), (0, 0)]
NAN = float("nan")


def lengths() -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(column, device=DEVICE) for column in zip(*SIZES, strict=True))


def padded(values: Tensor) -> Tensor:
    """NaN where nothing means anything."""
    values = values.clone()
    for row, (frames, symbols) in enumerate(SIZES):
        values[row, frames:], values[row, :, symbols + 1 :] = NAN, NAN
    return values


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_lattice(scale: float) -> None:
    torch.manual_seed(0)
    blank, label = (padded(scale * torch.randn(len(SIZES), 4, 4, device=DEVICE) - 1) for _ in range(2))
    blank[3, 2, 0] = label[3, 0, 1] = -torch.inf
    label[4, :, 0] = -torch.inf  # no path
    for row, (_, symbols) in enumerate(SIZES):
        label[row, :, symbols:] = NAN
    total, blanks, labels = kernels.forward_backward(blank, label, lengths())
    expected = lattice.forward_backward(blank.cpu(), label.cpu(), tuple(n.cpu() for n in lengths()))
    assert_close(total.cpu(), expected.log_likelihood)
    assert_close(blanks.cpu(), expected.blank, atol=1e-12, rtol=0)
    assert_close(labels.cpu(), expected.label, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "blank"),
    [(5, torch.float32, 4), (1100, torch.float64, 0), (5, torch.bfloat16, 0)],
)
def test_the_loss_and_its_gradient(vocabulary: int, dtype: torch.dtype, blank: int) -> None:
    torch.manual_seed(0)
    exact = transducer.exact(dtype)
    logits = padded(3 * torch.randn(len(SIZES), 4, 4, vocabulary, device=DEVICE).to(dtype))
    tokens = torch.randint(1, 4, (len(SIZES), 3), device=DEVICE)
    weights = torch.linspace(-1, 2, len(SIZES), dtype=exact, device=DEVICE)
    following = transducer.successors(tokens, lengths()[1])
    blanks, labels, normaliser = kernels.arcs(logits, following, lengths(), blank, exact)
    total, *posteriors = kernels.forward_backward(blanks, labels, lengths())
    found = kernels.slopes(logits, following, normaliser, posteriors, weights, lengths(), blank)

    reference = logits.cpu().to(exact).requires_grad_()
    losses = transducer.transducer_loss(reference, tokens.cpu(), *(n.cpu() for n in lengths()), blank, "none")
    possible = losses.isfinite()
    (losses[possible] * weights.cpu()[possible]).sum().backward()
    assert_close(-total.cpu().to(exact), losses)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert found.dtype == dtype
    assert_close(found.cpu().to(exact), reference.grad, atol=tolerance, rtol=0)


@pytest.mark.skipif(DEVICE == "cuda", reason="these make their tensors on the CPU")
@pytest.mark.parametrize(
    "law",
    [
        lattices.test_no_path_has_no_probability_and_no_gradient,
        lattices.test_posteriors_are_the_gradient_and_flow_through_every_frame,
        lattices.test_reductions,
    ],
)
def test_laws_of_the_transducer(law: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss and its lattice by way of the kernels."""
    for module in (lattice, transducer):
        monkeypatch.setattr(module, "kernels_for", lambda device: kernels)
    law()
