"""Promises that every module over time keeps, written once and inherited by the tests of each room.

@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract): ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from isogloss.sequence import Sequence

STEPS = (1, 2, 3, 7, 50, 333)
PADS = (0, 1, 17, 400)


@dataclass(frozen=True)
class Subject:
    """A module under contract.

    call: (module, padded batch) -> one tensor a row, without padding. shape: of one step.
    poison: what stands in the padding; NaN for whatever takes a `Sequence`, a large number for inner
    modules, which are promised finite padding by their stack. samples: input steps of n time steps.
    """

    name: str
    build: Callable[[], nn.Module]
    call: Callable[[nn.Module, Sequence], list[Tensor]]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-10
    poison: float = float("nan")
    samples: Callable[[int], int] = lambda n: n

    def __str__(self) -> str:
        return self.name

    def module(self, seed: int = 0) -> nn.Module:
        """In evaluation mode, with random values also where a fresh module has zeros or ones."""
        torch.manual_seed(seed)
        module = self.build().to(self.dtype).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return module

    def item(self, steps: int, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.samples(steps), *self.shape, generator=generator, dtype=self.dtype)

    def batch(self, items: list[Tensor], pad: int = 0) -> Sequence:
        """Poison after each item, `pad` steps after the longest."""
        batch = Sequence.from_list(items)
        values = torch.cat([batch.values, batch.values.new_zeros(len(items), pad, *self.shape)], dim=1)
        batch = Sequence(values, batch.lengths)
        valid = batch.valid.reshape(*batch.valid.shape, *[1] * len(self.shape))
        return batch.map(lambda x: torch.where(valid, x, self.poison))


class Contract:
    """The promises; a subclass names the subjects."""

    @pytest.mark.parametrize("steps", STEPS)
    def test_padding_means_nothing(self, subject: Subject, steps: int) -> None:
        module, item = subject.module(), subject.item(steps)
        plain, gradients = _run(subject, module, subject.batch([item]))
        for pad in PADS:
            padded, padded_gradients = _run(subject, module, subject.batch([item], pad))
            _close(padded[0], plain[0], subject.tolerance)
            for name, gradient in gradients.items():
                scale = max(1.0, float(gradient.abs().max()))
                _close(padded_gradients[name], gradient, subject.tolerance * scale)

    def test_alone_equals_in_a_batch(self, subject: Subject) -> None:
        module = subject.module()
        steps = (7, 50, 1, 33, 2, 101)
        items = [subject.item(n, seed=n) for n in steps]
        empty = subject.item(1)[:0]
        together, gradients = _run(subject, module, subject.batch([*items[:3], empty, *items[3:]], pad=5))
        rows = [row for i, row in enumerate(together) if i != 3]
        for item, row in zip(items, rows, strict=True):
            _close(row, _run(subject, module, subject.batch([item]))[0][0], subject.tolerance)
        assert torch.isfinite(together[3]).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())

    def test_evaluation_repeats_and_survives_safetensors(self, subject: Subject, tmp_path: Path) -> None:
        module, batch = subject.module(), subject.batch([subject.item(50)], pad=3)
        with torch.no_grad():
            first, second = subject.call(module, batch)[0], subject.call(module, batch)[0]
            assert torch.equal(first, second)
            safetensors.torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
            other = subject.module(seed=99)
            if list(module.parameters()):
                assert not torch.equal(subject.call(other, batch)[0], first)
            other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
            assert torch.equal(subject.call(other, batch)[0], first)

    def test_bf16_autocast_is_close(self, subject: Subject) -> None:
        module = subject.module().float()
        batch = subject.batch([subject.item(50)], pad=3)
        batch = batch.map(Tensor.float)
        with torch.no_grad():
            exact = subject.call(module, batch)[0]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = subject.call(module, batch)[0]
        cosine = nn.functional.cosine_similarity(exact.float().flatten(), rounded.float().flatten(), dim=0)
        assert cosine > 0.99

    def test_every_parameter_gets_a_gradient(self, subject: Subject) -> None:
        module = subject.module().train()
        _, gradients = _run(subject, module, subject.batch([subject.item(50), subject.item(20)]))
        gradients.pop("input", None)
        assert gradients.keys() == dict(module.named_parameters()).keys()
        # A gradient that is only rounding noise is none.
        still = [name for name, gradient in gradients.items() if gradient.abs().max() < 1e-6]
        assert still == []


def _run(subject: Subject, module: nn.Module, batch: Sequence) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs by row, and the gradients of a random projection of them; "input" is that of valid steps."""
    module.zero_grad()
    values = batch.values.clone().requires_grad_()
    rows = subject.call(module, batch.with_values(values))
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows:
        weight = torch.randn(row.shape, generator=generator, dtype=torch.float64)
        loss = loss + (row.double() * weight).sum()
    loss.backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    assert values.grad is not None
    gradients["input"] = torch.cat(batch.with_values(values.grad).unpad())
    return [row.detach() for row in rows], gradients


def _close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert torch.isfinite(actual).all()
    assert_close(actual, expected, atol=tolerance, rtol=0.0)
