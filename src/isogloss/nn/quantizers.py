"""Quantizers: vectors -> discrete codes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gumbel_softmax, normalize, one_hot

from isogloss.nn.convolution import FrameGroupNorm

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
    """A learned quantizer: G groups, in each one of V codes, side by side.

    Which code: while training argmax(l + Gumbel noise), with the gradient of softmax((l + noise) / τ) (straight
    through); otherwise argmax l. As in fairseq, the codes are drawn from U(0, 1).

        wav2vec 2.0 (arXiv 2006.11477 §2)    l = W x, W from N(0, 1); the codes of all groups go through a linear layer
        vq-wav2vec (arXiv 1910.05453 §3.1)   l = W₂ ReLU(W₁ x), `hidden` between; groups may share their codes (§3.3)
    """

    def __init__(
        self, inputs: int, groups: int, codes: int, width: int, hidden: int | None = None, shared: bool = False
    ):
        super().__init__()
        shape = _book(groups, codes, width, shared)
        self.groups = groups
        self.choose = _logits(inputs, groups * codes, hidden)
        self.codes = nn.Parameter(torch.empty(shape).uniform_())
        self.project = nn.Linear(width, width) if hidden is None else nn.Identity()

    def forward(self, x: Tensor, temperature: float) -> Quantised:
        """(M, D) and τ -> vectors (M, E) with their codes."""
        logits = self.choose(x).float().unflatten(-1, (self.groups, -1))
        if self.training:
            chosen = gumbel_softmax(logits, tau=temperature, hard=True)
        else:
            chosen = one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
        book = self.codes.float().expand(self.groups, -1, -1)
        vectors = torch.einsum("ngv,gvd->ngd", chosen, book).flatten(1)
        return Quantised(self.project(vectors.to(x.dtype)), chosen.argmax(dim=-1), logits.softmax(dim=-1))


class Nearest(NamedTuple):
    """What is near to what. inputs: z (M, E). words: ẑ (M, E), those that are nearest. codes: (M, G) int64."""

    inputs: Tensor
    words: Tensor
    codes: Tensor

    @property
    def copied(self) -> Tensor:
        """ẑ, whose gradient goes to z alone, as it is (straight through)."""
        return self.words.detach() + (self.inputs - self.inputs.detach())


class NearestQuantizer(nn.Module):
    """The k-means quantizer of vq-wav2vec (arXiv 1910.05453 §3.2): of V codewords the nearest, in each of G groups.

        z_g = norm(P_g x_g)        x_g: the channels of a group
        ẑ_g = e_v, v = argmin ‖z_g - e_v‖

    Groups may share their codewords (§3.3). P, the norm and N(0, 0.01²) for codewords are those of fairseq, whose norm
    however is over all frames of a clip; here it is over the channels of one.
    """

    def __init__(self, width: int, groups: int, codes: int, shared: bool = False):
        super().__init__()
        self.groups = groups
        self.codes = nn.Parameter(0.01 * torch.randn(_book(groups, codes, width, shared)))
        self.project = nn.Conv1d(width, width, 1, groups=groups, bias=False)
        self.norm = FrameGroupNorm(width, groups)

    def forward(self, x: Tensor) -> Nearest:
        """(M, E) -> z and ẑ (M, E), codes (M, G)."""
        inputs = self.norm(self.project(x[..., None])[..., 0])
        parts = inputs.detach().unflatten(1, (self.groups, -1)).unbind(dim=1)
        books = self.codes.expand(self.groups, -1, -1)
        codes = [nearest(part, book.detach()) for part, book in zip(parts, books, strict=True)]
        words = [embedding(found, book) for found, book in zip(codes, books, strict=True)]
        return Nearest(inputs, torch.cat(words, dim=1), torch.stack(codes, dim=1))


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each vector: (T, D), (C, D) -> (T,) int64."""
    # |x - c|² without |x|², which is the same for all c.
    return (centroids.square().sum(dim=1) - 2 * vectors @ centroids.T).argmin(dim=1)


def unused_share(likely: Tensor) -> Tensor:
    """L_d of wav2vec 2.0: (G V - Σ_g exp H(p_g)) / (G V), 0 where all codes are alike, for p (G, V) -> scalar."""
    perplexity = torch.special.entr(likely).sum(dim=-1).exp()
    return 1 - perplexity.sum() / likely.numel()


def _logits(inputs: int, outputs: int, hidden: int | None) -> nn.Module:
    """What scores the codes: a layer with large random weights, or two with torch's own."""
    if hidden is not None:
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _book(groups: int, codes: int, width: int, shared: bool) -> tuple[int, int, int]:
    """The shape of codewords that make vectors of a width, side by side."""
    if width % groups:
        raise ValueError(f"width {width} does not divide into {groups} groups")
    return (1 if shared else groups), codes, width // groups


def _argmax(scores: Tensor) -> Tensor:
    """(N, C) -> (N,), as `scores.argmax(dim=-1)`, ties to the first as well, in a third of the time.

    The maximum alone runs on vector instructions where the argmax does not: first the maxima of
    blocks of 64, then the argmax over the blocks and inside the best one.
    """
    blocks = scores.unflatten(1, (-1, math.gcd(scores.shape[1], 64)))
    best = blocks.amax(dim=-1).argmax(dim=-1)
    inside = blocks.take_along_dim(best[:, None, None], dim=1)[:, 0].argmax(dim=-1)
    return best * blocks.shape[2] + inside
