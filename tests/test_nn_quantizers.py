"""The random-projection quantizer against its definition."""

import pytest
import torch
from torch.nn.functional import normalize

from isogloss.nn.quantizers import GumbelQuantizer, RandomProjectionQuantizer


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
