"""Quantizers: vectors -> discrete codes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax, normalize, one_hot

# Vectors scored at once.
_CHUNK = {"cpu": 512}
_LARGE_CHUNK = 8192


class RandomProjectionQuantizer(nn.Module):
    """The frozen quantizer of BEST-RQ (arXiv 2202.01855 §3.1; K books: USM, arXiv 2303.01037 §2.2.1).

        label = argmin_c ‖ C_c/‖C_c‖ − P x/‖P x‖ ‖ = argmax_c C_c · P x

    P (K, F, E) is Xavier-uniform, the codebooks C (K, C, E) are normal with rows of unit length.
    Both are buffers: no gradient, no weight decay, stored in every checkpoint. Dividing by ‖P x‖
    does not change the argmax and is left out.
    """

    projection: Tensor
    codebooks: Tensor

    def __init__(self, width: int, books: int, codes: int, code_width: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6 / (width + code_width)) ** 0.5
        projection = (torch.rand(books, width, code_width, generator=generator) * 2 - 1) * bound
        codebooks = normalize(torch.randn(books, codes, code_width, generator=generator), dim=-1)
        self.register_buffer("projection", projection)
        self.register_buffer("codebooks", codebooks)

    @torch.no_grad()
    def forward(self, x: Tensor, chunk: int | None = None) -> Tensor:
        """(N, F) vectors -> (N, K) int64 codes.

        Works in chunks of vectors, so that the (chunk, C) scores stay in the cache. Always in
        float32: labels must not depend on autocast.
        """
        codes = torch.empty(len(x), len(self.codebooks), dtype=torch.int64, device=x.device)
        chunk = chunk or _CHUNK.get(x.device.type, _LARGE_CHUNK)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for book, (projection, codebook) in enumerate(zip(self.projection, self.codebooks, strict=True)):
                projected = x @ projection
                for start in range(0, len(x), chunk):
                    part = slice(start, start + chunk)
                    codes[part, book] = _argmax(projected[part] @ codebook.T)
        return codes


class Quantised(NamedTuple):
    """What a quantizer makes of M vectors.

    vectors: (M, E). codes: (M, G) int64, which of each group. likely: (M, G, V) float32, how likely each is without
    noise.
    """

    vectors: Tensor
    codes: Tensor
    likely: Tensor


class GumbelQuantizer(nn.Module):
    """The learned quantizer of wav2vec 2.0 (arXiv 2006.11477 §2): G groups, in each one of V codes, side by side.

    Which code: l = W x; while training argmax(l + Gumbel noise), with the gradient of softmax((l + noise) / τ)
    (straight through); otherwise argmax l. As in fairseq, W is drawn from N(0, 1) and the codes from U(0, 1).
    """

    def __init__(self, inputs: int, groups: int, codes: int, width: int):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} does not divide into {groups} groups")
        self.groups = groups
        self.choose = nn.Linear(inputs, groups * codes)
        nn.init.normal_(self.choose.weight)
        nn.init.zeros_(self.choose.bias)
        self.codes = nn.Parameter(torch.empty(groups, codes, width // groups).uniform_())
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, temperature: float) -> Quantised:
        """(M, D) and τ -> vectors (M, E) with their codes."""
        logits = self.choose(x).float().unflatten(-1, (self.groups, -1))
        if self.training:
            chosen = gumbel_softmax(logits, tau=temperature, hard=True)
        else:
            chosen = one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
        vectors = torch.einsum("ngv,gvd->ngd", chosen, self.codes.float()).flatten(1)
        return Quantised(self.project(vectors.to(x.dtype)), chosen.argmax(dim=-1), logits.softmax(dim=-1))


def unused_share(likely: Tensor) -> Tensor:
    """L_d of wav2vec 2.0: (G V - Σ_g exp H(p_g)) / (G V), 0 where all codes are alike, for p (G, V) -> scalar."""
    perplexity = torch.special.entr(likely).sum(dim=-1).exp()
    return 1 - perplexity.sum() / likely.numel()


def _argmax(scores: Tensor) -> Tensor:
    """(N, C) -> (N,), as `scores.argmax(dim=-1)`, ties to the first as well, in a third of the time.

    The maximum alone runs on vector instructions where the argmax does not: first the maxima of
    blocks of 64, then the argmax over the blocks and inside the best one.
    """
    blocks = scores.unflatten(1, (-1, math.gcd(scores.shape[1], 64)))
    best = blocks.amax(dim=-1).argmax(dim=-1)
    inside = blocks.take_along_dim(best[:, None, None], dim=1)[:, 0].argmax(dim=-1)
    return best * blocks.shape[2] + inside
