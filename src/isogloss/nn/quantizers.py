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


class VectorQuantised(NamedTuple):
    """What a `VectorQuantizer` makes of M vectors.

    vectors: (M, E) float32, the codes; their gradient goes to what they stand for. codes: (M, N) int64, one of each
    book. error: (M,) float32, mean square of what each book leaves, summed over books. given: (N, M, E) float32 without
    a gradient, what each book was to quantise.
    """

    vectors: Tensor
    codes: Tensor
    error: Tensor
    given: Tensor

    def at(self, places: Tensor) -> "VectorQuantised":
        """Those at (P,) places alone."""
        return VectorQuantised(self.vectors[places], self.codes[places], self.error[places], self.given[:, places])


class VectorQuantizer(nn.Module):
    """The nearest of K codes, which follow the mean of what they stand for (VQ-VAE, arXiv 1711.00937 §3.2, appendix A).

        k = argmin_k ‖z - e_k‖²        ẑ = e_k, whose gradient is passed on to z (straight through)

    With several books each quantises what those before leave (residual; SoundStream, arXiv 2107.03312 §III-C), and ẑ is
    the sum of their codes. Codes are buffers, with no gradient. After a step in which n_k vectors z had code k

        N_k ← γ N_k + (1 - γ) n_k    m_k ← γ m_k + (1 - γ) Σ z    e_k = m_k / Ñ_k,  Ñ_k = (N_k + ε) / (ΣN + K ε) · ΣN

    A code that nothing had for `patience` steps begins anew as a vector of the step; so do all at first that the first
    step does not use. Always in float32.
    """

    codebooks: Tensor
    uses: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(
        self, codes: int, width: int, books: int = 1, decay: float = 0.999, patience: int = 100, epsilon: float = 1e-5
    ):
        super().__init__()
        self.decay, self.patience, self.epsilon = decay, patience, epsilon
        codebooks = 0.1 * torch.randn(books, codes, width)
        self.register_buffer("codebooks", codebooks)
        self.register_buffer("uses", torch.ones(books, codes))
        self.register_buffer("sums", codebooks.clone())
        self.register_buffer("idle", torch.full((books, codes), patience))

    def forward(self, x: Tensor) -> VectorQuantised:
        """(M, E) -> the nearest codes of each."""
        with torch.autocast(x.device.type, enabled=False):
            z = x.float()
            left, vectors, error = z, torch.zeros_like(z), z.new_zeros(len(z))
            codes, given = [], []
            for book in self.codebooks:
                given.append(left.detach())
                codes.append(nearest(given[-1], book))
                chosen = book[codes[-1]]
                left, vectors = left - chosen, vectors + chosen
                error = error + left.square().mean(dim=-1)
            return VectorQuantised(z + (vectors - z).detach(), torch.stack(codes, dim=1), error, torch.stack(given))

    @torch.no_grad()
    def kept(self, found: VectorQuantised) -> Tensor:
        """What `follow` wants of some vectors, a row for each code: (K, N (1 + 2 E)).

        Of each book: how many of what it was given have the code, their sum, and one of all at random.
        """
        books, codes, width = self.codebooks.shape
        count, given = len(found.codes), found.given
        with torch.autocast(given.device.type, enabled=False):
            numbers = torch.arange(codes, device=given.device)
            # A product, as sums by index are in no certain order on a GPU.
            taken = (found.codes.T[..., None] == numbers).float()
            sums = taken.transpose(1, 2) @ given
        places = torch.randint(max(1, count), (codes,), device=given.device)
        drawn = given[:, places] if count else given.new_zeros(books, codes, width)
        return torch.cat([taken.sum(dim=1)[..., None], sums, drawn], dim=-1).transpose(0, 1).flatten(1)

    @torch.no_grad()
    def follow(self, kept: Tensor) -> None:
        """Let codes follow what they stood for in a step, of which each part has `kept` K rows: (P K, N (1 + 2 E)).

        A step without vectors, or with some that are not finite, changes nothing.
        """
        books, codes, width = self.codebooks.shape
        parts = kept.view(-1, codes, books, 1 + 2 * width).transpose(1, 2)
        counts, sums, drawn = parts.split([1, width, width], dim=-1)
        first = (counts.sum(dim=(1, 2, 3)) > 0).int().argmax(keepdim=True)
        uses, new = counts.sum(dim=0)[..., 0], drawn.index_select(0, first)[0]
        usable = kept.isfinite().all() & (uses.sum() > 0)
        idle = torch.where(uses > 0, 0, self.idle + 1)
        dead = idle >= self.patience
        uses = torch.where(dead, 1.0, self.uses.lerp(uses, 1 - self.decay))
        means = torch.where(dead[..., None], new, self.sums.lerp(sums.sum(dim=0), 1 - self.decay))
        total = uses.sum(dim=1, keepdim=True)
        smoothed = (uses + self.epsilon) / (total + codes * self.epsilon) * total
        idle, codebooks = idle.masked_fill(dead, 0), means / smoothed[..., None]
        for name, value in {"uses": uses, "sums": means, "idle": idle, "codebooks": codebooks}.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.where(usable, value, buffer))


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """The nearest code of each vector: (M, E), (K, E) -> (M,) int64."""
    # |z - e|² without |z|², which is the same for all e.
    return (codes.square().sum(dim=1) - 2 * vectors @ codes.T).argmin(dim=1)


def mean_likely(likely: Tensor) -> Tensor:
    """How likely codes are on average: (M, G, V) -> (G, V); all alike where there is no vector."""
    return likely.mean(dim=0) if len(likely) else likely.new_ones(likely.shape[1:])


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
