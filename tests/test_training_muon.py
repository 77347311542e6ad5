"""Muon: matrices made orthogonal, its step beside torch's, and steps that must change nothing."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isogloss.training import muon
from isogloss.training.muon import MOMENTUM, MuonAdamW, orthogonal


def matrices(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(2, 40), st.integers(0, 99))
def test_singular_values_are_about_one_and_singular_vectors_stay(count: int, rows: int, columns: int, seed: int):
    given_matrices = matrices(count, rows, columns, seed=seed).double()
    found = orthogonal(given_matrices)
    left, values, right = torch.linalg.svd(given_matrices, full_matrices=False)
    inside = left.mT @ found @ right.mT
    diagonal = inside.diagonal(dim1=1, dim2=2)
    assert (inside - torch.diag_embed(diagonal)).abs().max() < 1e-6
    # Directions that are next to nothing beside the others take more than five iterations.
    strong = values / values.norm(dim=1, keepdim=True) > 0.01
    assert ((diagonal > 0.5) & (diagonal < 1.3))[strong].all()


def test_nothing_stays_nothing():
    assert (orthogonal(torch.zeros(2, 3, 5)) == 0).all()


def stepped(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for step in range(steps):
        for number, parameter in enumerate(parameters):
            parameter.grad = matrices(*parameter.shape, seed=10 * step + number)
        optimizer.step()


def ours(parameters: list[nn.Parameter], **changes: object) -> MuonAdamW:
    group = {"params": parameters, "lr": 0.01, "betas": (0.9, 0.98), "weight_decay": 0.1, "muon": 1.0}
    optimizer = MuonAdamW([group | changes], torch.bfloat16)
    optimizer.found_inf = torch.zeros(())
    return optimizer


def test_a_step_is_that_of_torch():
    mine = [nn.Parameter(matrices(*shape)) for shape in [(24, 16), (24, 16), (16, 48)]]
    theirs = copy.deepcopy(mine)
    stepped(mine, ours(mine))
    peer = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.1, momentum=MOMENTUM, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    stepped(theirs, peer)
    for own, other in zip(mine, theirs, strict=True):
        moved, should = own - matrices(*own.shape), other - matrices(*own.shape)
        assert (moved - should).norm() < 0.02 * should.norm()  # both compute in bf16, in another order


def test_groups_without_muon_are_trained_by_adamw():
    mine = [nn.Parameter(matrices(8, 6))]
    theirs = copy.deepcopy(mine)
    stepped(mine, ours(mine, muon=0.0))
    stepped(theirs, torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.98), weight_decay=0.1))
    torch.testing.assert_close(mine, theirs)


def test_an_unusable_step_changes_nothing():
    parameters = [nn.Parameter(matrices(8, 6)), nn.Parameter(matrices(8, 6, seed=1))]
    optimizer = ours(parameters)
    stepped(parameters, optimizer)
    before = copy.deepcopy((parameters, [optimizer.state[parameter] for parameter in parameters]))
    optimizer.found_inf = torch.ones(())
    for parameter in parameters:
        parameter.grad = torch.full((8, 6), torch.nan)
    optimizer.step()
    after = parameters, [optimizer.state[parameter] for parameter in parameters]
    torch.testing.assert_close(after, before, atol=0, rtol=0)


def test_few_at_once_are_as_many_at_once(monkeypatch: pytest.MonkeyPatch):
    mine = [nn.Parameter(matrices(8, 6, seed=seed)) for seed in range(5)]
    theirs = copy.deepcopy(mine)
    stepped(mine, ours(mine))
    monkeypatch.setattr(muon, "AT_ONCE", 2 * 48)
    stepped(theirs, ours(theirs))
    torch.testing.assert_close(mine, theirs)


def test_what_has_no_gradient_stays():
    parameters = [nn.Parameter(matrices(8, 6)), nn.Parameter(matrices(8, 6, seed=1))]
    optimizer = ours(parameters, weight_decay=0.0)
    parameters[0].grad = matrices(8, 6, seed=2)
    optimizer.step()
    assert torch.equal(parameters[1], matrices(8, 6, seed=1))
    assert not torch.equal(parameters[0], matrices(8, 6))
