"""Attention one product after another is torch's fused attention, in value and gradient."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from isogloss.nn import attention
from isogloss.nn.attention import attend
from isogloss.training.footprint import FUSED

EVERY = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def inputs(frames: int = 7, keys: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, count, 8) for count in (frames, keys, keys)]
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in shapes]


def masks(kind: str, frames: int = 7, keys: int = 9) -> Tensor | None:
    allowed = torch.rand(2, 1, frames, keys, generator=torch.Generator().manual_seed(1)) < 0.7
    allowed[..., 0] = True
    if kind == "bool":
        return allowed
    bias = torch.randn(2, 3, frames, keys, generator=torch.Generator().manual_seed(2))
    return bias.masked_fill(~allowed, -torch.inf).bfloat16() if kind == "float" else None


@pytest.mark.parametrize("kind", ["bool", "float", "none"])
def test_values_and_gradients_are_those_of_exact_attention(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, exact = inputs(), [value.detach().float().requires_grad_() for value in inputs()]
    mask = masks(kind)
    whole = mask.float() if mask is not None and mask.is_floating_point() else mask
    with monkeypatch.context() as patched:
        patched.setattr(attention, "scaled_dot_product_attention", None)  # not asked
        found = attend(*ours, mask)
    wanted = scaled_dot_product_attention(*exact, attn_mask=whole)
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(3))
    slopes = torch.autograd.grad(found, ours, slope.bfloat16())
    for mine, theirs in zip(slopes, torch.autograd.grad(wanted, exact, slope), strict=True):
        assert (mine.float() - theirs).norm() < 0.02 * theirs.norm()


def test_a_row_that_may_attend_to_nothing_is_finite() -> None:
    values = inputs()
    nothing = torch.zeros(2, 1, 7, 9, dtype=torch.bool)
    assert attend(*values, nothing).isfinite().all()


@pytest.mark.parametrize("why", ["no gradient", "float32", "long", "asked for"])
def test_all_else_is_fused(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = inputs()
    if why == "no gradient":
        values = [value.detach() for value in values]
    if why == "float32":
        values = [value.float() for value in values]
    if why == "long":
        monkeypatch.setattr(attention, "IN_STEPS", 62)
    with sdpa_kernel(FUSED if why == "asked for" else EVERY):
        fused = scaled_dot_product_attention(*values)
        assert torch.equal(attend(*values, None), fused)
