"""The quantizers against their definitions."""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from isogloss.nn.quantizers import GumbelQuantizer, RandomProjectionQuantizer, VectorQuantizer


def quantizer(seed: int = 0, books: int = 3) -> RandomProjectionQuantizer:
    return RandomProjectionQuantizer(width=320, books=books, codes=512, code_width=16, seed=seed)


def vectors(count: int = 400) -> torch.Tensor:
    return torch.randn(count, 320, generator=torch.Generator().manual_seed(7))


def test_codes_are_the_nearest_normalised_vectors() -> None:
    module, x = quantizer(), vectors()
    codes = module(x)
    for book in range(3):
        projected = normalize(x.double() @ module.projection[book].double(), dim=-1)
        distance = torch.cdist(projected, module.codebooks[book].double())
        nearest = distance.min(dim=-1).values
        chosen = distance.gather(1, codes[:, book, None])[:, 0]
        assert codes.dtype == torch.int64
        assert float((chosen - nearest).max()) < 1e-6
        assert float((codes[:, book] == distance.argmin(dim=-1)).float().mean()) > 0.99


def test_codes_do_not_depend_on_chunks_scale_or_autocast() -> None:
    module, x = quantizer(), vectors()
    codes = module(x)
    assert torch.equal(module(x, chunk=7), codes)
    assert torch.equal(module(4 * x), codes)
    assert torch.equal(torch.cat([module(x[:1]), module(x[1:])]), codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x), codes)
    assert module(x[:0]).shape == (0, 3)


def test_the_seed_is_the_quantizer() -> None:
    torch.manual_seed(11)
    first = quantizer(seed=5)
    torch.manual_seed(12)
    second, third = quantizer(seed=5), quantizer(seed=6)
    x = vectors()
    assert torch.equal(first(x), second(x))
    assert float((first(x) == third(x)).float().mean()) < 0.02
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_books_differ_and_use_many_codes() -> None:
    codes = quantizer()(vectors(2000))
    assert float((codes[:, 0] == codes[:, 1]).float().mean()) < 0.02
    for book in codes.unbind(dim=1):
        assert len(book.unique()) > 400  # of 512, on noise


def test_it_is_frozen_stored_and_of_the_stated_distribution() -> None:
    module = quantizer()
    assert list(module.parameters()) == []
    assert set(module.state_dict()) == {"projection", "codebooks"}
    assert not module(vectors().requires_grad_()).requires_grad
    torch.testing.assert_close(module.codebooks.norm(dim=-1), torch.ones(3, 512))
    bound = (6 / (320 + 16)) ** 0.5
    assert module.projection.abs().max() <= bound
    assert abs(float(module.projection.std()) - bound / 3**0.5) < 0.002  # uniform


def test_gumbel_codes_are_vectors_of_the_book_and_learn() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(8, 2, 5, 8)
    x = torch.randn(50, 8, requires_grad=True)
    quantised, codes, likely = quantizer(x, temperature=1.0)
    assert codes.shape == (50, 2) and codes.max() < 5
    assert quantised.shape == (50, 8) and likely.shape == (50, 2, 5)
    assert len(quantised.detach().unique(dim=0)) <= 25
    torch.testing.assert_close(likely, quantizer.choose(x).view(50, 2, 5).softmax(dim=-1))
    quantised.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())
    assert x.grad is not None and x.grad.abs().sum() > 0  # straight through
    quantizer.eval()
    still = quantizer(x, temperature=1.0)[0]
    assert torch.equal(still, quantizer(x, temperature=0.1)[0])  # without noise it is the likeliest
    best = quantizer.choose(x).view(50, 2, 5).argmax(dim=-1)
    chosen = torch.stack([quantizer.codes[group][best[:, group]] for group in range(2)], dim=1).flatten(1)
    torch.testing.assert_close(still, quantizer.project(chosen))
    with pytest.raises(ValueError, match="does not divide"):
        GumbelQuantizer(7, 2, 5, 7)


def vector_quantizer(**how: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(**{"codes": 5, "width": 3, "decay": 0.9} | how)


def test_vectors_are_the_nearest_codes_and_their_gradient_goes_straight_through() -> None:
    module, x = vector_quantizer(), torch.randn(40, 3, requires_grad=True)
    found = module(x)
    book = module.codebooks[0]
    assert torch.equal(found.codes[:, 0], torch.cdist(x, book).argmin(dim=1))
    torch.testing.assert_close(found.vectors, book[found.codes[:, 0]])
    weight = torch.randn(40, 3)
    (slope,) = torch.autograd.grad((found.vectors * weight).sum(), x, retain_graph=True)
    assert torch.equal(slope, weight)
    # Commitment: mean over E of (z - sg e)², whose gradient is 2 (z - e) / E.
    torch.testing.assert_close(found.error, (x - book[found.codes[:, 0]]).square().mean(dim=1))
    (slope,) = torch.autograd.grad(found.error.sum(), x)
    torch.testing.assert_close(slope, 2 * (x - book[found.codes[:, 0]]) / 3)
    assert list(module.parameters()) == [] and not found.given.requires_grad
    assert set(module.state_dict()) == {"codebooks", "uses", "sums", "idle"}


def test_codes_follow_by_the_formula() -> None:
    """Over three steps, in parts or at once; codes that are used or not."""
    module, parted = vector_quantizer(patience=1000), vector_quantizer(patience=1000)
    uses, sums = torch.ones(5, dtype=torch.float64), module.sums[0].double()
    for step in range(3):
        x = torch.randn(60, 3) + step
        codes = module(x).codes[:, 0]
        for code in range(5):
            uses[code] = 0.9 * uses[code] + 0.1 * (codes == code).sum()
            sums[code] = 0.9 * sums[code] + 0.1 * x[codes == code].double().sum(dim=0)
        smoothed = (uses + 1e-5) / (uses.sum() + 5e-5) * uses.sum()
        parts = [parted.kept(parted(part)) for part in (x[:0], x[:13], x[13:])]
        parted.follow(torch.cat(parts))
        module.follow(module.kept(module(x)))
        torch.testing.assert_close(module.codebooks[0].double(), sums / smoothed[:, None], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parted.codebooks, module.codebooks)
    assert torch.equal(module.uses[0].double().round(decimals=4), uses.round(decimals=4))


def test_codes_that_nothing_has_begin_anew_as_vectors_of_the_step() -> None:
    module = vector_quantizer(patience=2, decay=0.5)
    x = torch.randn(30, 3)
    module.follow(module.kept(module(x)))  # at first all but those that are used
    assert not module.idle.any() and bool((module.uses > 0).all())
    far = 100 + torch.randn(30, 3)
    used = module(far).codes.unique()
    before = module.codebooks.clone()
    module.follow(module.kept(module(far)))
    others = [code for code in range(5) if code not in used]
    assert others and (module.idle[0, others] == 1).all()
    assert float((module.codebooks - before)[0, others].abs().max()) < 1e-3  # unused, they stay where they are
    module.follow(module.kept(module(far)))
    assert not module.idle.any()
    for code in others:
        assert float((far - module.codebooks[0, code]).abs().amax(dim=1).min()) < 0.01


def test_nothing_to_follow_changes_nothing() -> None:
    module, x = vector_quantizer(), torch.randn(20, 3)
    module.follow(module.kept(module(x)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    spoiled = x.clone()
    spoiled[3] = math.nan
    for vectors in (x[:0], spoiled):
        module.follow(module.kept(module(vectors)))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(x)  # nor does merely quantising
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_vectors_are_quantised_alike_alone_in_training_and_in_bf16() -> None:
    module, x = vector_quantizer(codes=64, width=16), torch.randn(200, 16)
    found = module.eval()(x)
    assert torch.equal(found.vectors, module(x).vectors)
    assert torch.equal(module.train()(x).codes, found.codes)
    assert torch.equal(torch.cat([module(x[:1]).codes, module(x[1:]).codes]), found.codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x).codes, found.codes)
    assert module(x[:0]).vectors.shape == (0, 16)


def test_more_books_leave_less() -> None:
    """Residual: each book quantises what those before leave, and the error falls with every one."""
    torch.manual_seed(0)
    module, x = VectorQuantizer(32, 8, books=4, decay=0.8), torch.randn(2000, 8)
    for _ in range(30):
        module.follow(module.kept(module(x)))
    found = module(x.requires_grad_())
    left, errors = x.detach(), []
    for book, codes in zip(module.codebooks, found.codes.T, strict=True):
        assert torch.equal(codes, torch.cdist(left, book).argmin(dim=1))
        left = left - book[codes]
        errors.append(float(left.square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[3] < 0.3 * errors[0]
    torch.testing.assert_close(found.vectors, x - left, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(float(found.error.detach().mean()), sum(errors), rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(found.vectors.sum(), x)
    assert torch.equal(slope, torch.ones_like(x))
