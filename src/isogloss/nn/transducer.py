"""The transducer loss (RNN-T; Graves 2012, arXiv 1211.3711): -log of the sum over all alignments.

    logits (B, T, U+1, V) ── log-softmax, of which two of V entries are kept: blank and the next symbol
                          ── nn/lattice.py ──> log P and the posteriors γ of the arcs
    gradient: (γ_blank + γ_label)(t, u) · softmax(t, u, v) - γ_blank [v = blank] - γ_label [v = y_{u+1}]

Two forms with the same result. `transducer_loss` takes the logits; `fused_transducer_loss` takes what
they are made of and makes them piece by piece, once forward and once backward, so that the
(B, T, U+1, V) tensor never exists. Both go through the valid part of each utterance in pieces that
stay in the processor's cache, and backward only where paths go: in a trained model a narrow band.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from isogloss.nn.lattice import Lengths, forward_backward, kernels_for

Reduction = Literal["none", "mean", "sum"]
Piece = tuple[int, slice, slice]
"""Some nodes of one utterance: its row, frames t and symbols written u."""

PIECE = {"cpu": 2**21, "cuda": 2**26}
"""Logits that are worked on at once."""


def transducer_loss(
    logits: Tensor,
    tokens: Tensor,
    logit_lengths: Tensor,
    token_lengths: Tensor,
    blank: int = 0,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log P(tokens) of each utterance, in nats; arguments and results as in torchaudio's `rnnt_loss`, but for `blank`.

    logits: (B, T, U+1, V), finite, not normalised, of any floating type. tokens: (B, U), symbols other
    than blank. logit_lengths, token_lengths: (B,); what stands after them means nothing and gets no
    gradient. blank: its index, from the end if negative; 0 by default, where torchaudio has -1, the last symbol.
    reduction: "none" gives (B,), "sum" their sum, "mean" their mean. Differentiable once.

    Raises ValueError for shapes, lengths or symbols that do not fit together.
    """
    blank = _checked(logits.shape, tokens, logit_lengths, token_lengths, blank)
    losses = _Loss.apply(logits, tokens.long(), logit_lengths.long(), token_lengths.long(), blank)
    return _reduced(losses, reduction)


def fused_transducer_loss(
    audio: Tensor,
    text: Tensor,
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    audio_lengths: Tensor,
    token_lengths: Tensor,
    blank: int = 0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The transducer loss of the logits tanh(audio_t + text_u) weightᵀ + bias, which are never stored.

    audio: (B, T, J) and text: (B, U+1, J), states of encoder and predictor projected to the width J of
    the joiner. weight: (V, J), bias: (V,). The rest as in `transducer_loss`. Differentiable once, by
    the first four. Under autocast the products are taken in its type, the softmax in float32.
    """
    shape = torch.Size((*audio.shape[:2], text.shape[1], len(weight)))
    blank = _checked(shape, tokens, audio_lengths, token_lengths, blank)
    device = audio.device.type
    if torch.is_autocast_enabled(device):
        audio, text, weight, bias = (x.to(torch.get_autocast_dtype(device)) for x in (audio, text, weight, bias))
    lengths = audio_lengths.long(), token_lengths.long()
    return _reduced(_FusedLoss.apply(audio, text, weight, bias, tokens.long(), *lengths, blank), reduction)


def fused_arcs(
    audio: Tensor, text: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor, lengths: Lengths, blank: int = 0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of blank and of the next symbol at every node, (B, T, U+1) each, zero after the lengths.

    Arguments as in `fused_transducer_loss`; outside any graph.
    """
    with torch.no_grad():
        following, pieces = successors(tokens, lengths[1]), _pieces(lengths, len(weight), audio.device)
        return _fused_arcs(audio, text, weight, bias, following, pieces, blank)


def _fused_arcs(
    audio: Tensor, text: Tensor, weight: Tensor, bias: Tensor, following: Tensor, pieces: list[Piece], blank: int
) -> tuple[Tensor, Tensor]:
    """`fused_arcs` of the pieces, whose next symbols are known."""
    shape, dtype = (*audio.shape[:2], text.shape[1]), exact(audio.dtype)
    blanks, labels = (torch.zeros(shape, dtype=dtype, device=audio.device) for _ in range(2))
    for piece in pieces:
        logits = functional.linear(_joined(audio, text, piece), weight, bias).to(dtype)
        normaliser = logits.logsumexp(dim=-1)
        blanks[piece] = logits[..., blank] - normaliser
        labels[piece] = logits.gather(2, _index(following, piece))[..., 0] - normaliser
    return blanks, labels


class _Loss(torch.autograd.Function):
    """Logits (B, T, U+1, V) -> losses (B,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, frames: Tensor, symbols: Tensor, blank: int) -> Tensor:
        following = successors(tokens, symbols)
        lengths = frames, symbols
        gpu = kernels_for(logits.device)
        arcs = gpu.arcs if gpu else _arcs
        blanks, labels, normaliser = arcs(logits, following, lengths, blank, exact(logits.dtype))
        found = forward_backward(blanks, labels, lengths)
        ctx.save_for_backward(logits, following, normaliser, found.blank, found.label)
        ctx.lengths, ctx.blank = lengths, blank
        return -found.log_likelihood.to(normaliser.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, following, normaliser, *posteriors = ctx.saved_tensors
        if gpu := kernels_for(logits.device):
            slopes = gpu.slopes(logits, following, normaliser, posteriors, gradient, ctx.lengths, ctx.blank)
        else:
            slopes = _slopes(logits, _Slope(gradient, ctx.blank, following, *posteriors), ctx.lengths)
        return slopes, None, None, None, None


def _arcs(
    logits: Tensor, following: Tensor, lengths: Lengths, blank: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of blank and of the next symbol, and log-sums of the logits: (B, T, U+1) each."""
    normaliser = torch.zeros(logits.shape[:3], dtype=dtype, device=logits.device)
    for piece in _pieces(lengths, logits.shape[-1], logits.device):
        normaliser[piece] = logits[piece].to(dtype).logsumexp(dim=-1)
    labels = logits.gather(3, following[:, None, :, None].expand(*logits.shape[:3], 1))[..., 0]
    return logits[..., blank] - normaliser, labels - normaliser, normaliser


def _slopes(logits: Tensor, slope: "_Slope", lengths: Lengths) -> Tensor:
    """The gradient by all logits, zero where no path goes."""
    result = torch.empty_like(logits)
    ends = [0] * len(result)
    for piece in map(slope.narrowed, _pieces(lengths, logits.shape[-1], logits.device)):
        row, time, nodes = piece
        result[row, time, : nodes.start] = 0
        result[row, time, nodes.stop :] = 0
        ends[row] = time.stop
        if result.dtype == slope.nodes.dtype:
            slope.of(logits[piece], piece, out=result[piece])
        else:
            result[piece] = slope.of(logits[piece], piece)
    for row, end in enumerate(ends):
        result[row, end:] = 0
    return result


class _FusedLoss(torch.autograd.Function):
    """States (B, T, J) and (B, U+1, J), weight (V, J) and bias (V,) -> losses (B,)."""

    @staticmethod
    def forward(
        ctx: Any,
        audio: Tensor,
        text: Tensor,
        weight: Tensor,
        bias: Tensor,
        tokens: Tensor,
        frames: Tensor,
        symbols: Tensor,
        blank: int,
    ) -> Tensor:
        following = successors(tokens, symbols)
        pieces = _pieces((frames, symbols), len(weight), audio.device)
        blanks, labels = _fused_arcs(audio, text, weight, bias, following, pieces, blank)
        found = forward_backward(blanks, labels, (frames, symbols))
        ctx.save_for_backward(audio, text, weight, bias, following, found.blank, found.label)
        ctx.pieces, ctx.blank = pieces, blank
        return -found.log_likelihood.to(blanks.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        audio, text, weight, bias, *saved = ctx.saved_tensors
        slope = _Slope(gradient, ctx.blank, *saved)
        # What many pieces add to is summed in float32, whatever the type of the products.
        by_audio, by_text, by_weight, by_bias = (
            torch.zeros_like(x, dtype=gradient.dtype) for x in (audio, text, weight, bias)
        )
        for piece in map(slope.narrowed, ctx.pieces):
            row, time, nodes = piece
            joined = _joined(audio, text, piece)
            found = slope.of(functional.linear(joined, weight, bias), piece).to(weight.dtype)
            by_weight += found.flatten(0, 1).T @ joined.flatten(0, 1)
            by_bias += found.sum(dim=(0, 1))
            inner = (found @ weight) * (1 - joined * joined)
            by_audio[row, time] = inner.sum(dim=1).to(by_audio.dtype)
            by_text[row, nodes] += inner.sum(dim=0)
        sums = zip((by_audio, by_text, by_weight, by_bias), (audio, text, weight, bias), strict=True)
        return *(total.to(x.dtype) for total, x in sums), None, None, None, None


class _Slope:
    """The gradient of the losses, times `gradient` (B,), by the logits."""

    def __init__(self, gradient: Tensor, blank: int, following: Tensor, blanks: Tensor, labels: Tensor):
        nodes = blanks + labels
        # Less than this adds nothing to a sum in this type; to multiply with it would give subnormal numbers,
        # which processors are slow at.
        visited = nodes > torch.finfo(gradient.dtype).eps ** 2
        scale = torch.where(visited, gradient[:, None, None], 0.0)
        self.blanks, self.labels, self.nodes = (
            (arcs * scale).to(gradient.dtype)[..., None] for arcs in (blanks, labels, nodes)
        )
        self.first = visited.int().argmax(dim=2).tolist()
        self.after = (visited.shape[2] - visited.flip(2).int().argmax(dim=2)).tolist()
        self.following = following
        self.blank = blank

    def narrowed(self, piece: Piece) -> Piece:
        """The piece without nodes that no path visits, if these are most: what is not contiguous is slower."""
        row, time, nodes = piece
        start, stop = min(self.first[row][time]), max(self.after[row][time])
        return (row, time, slice(start, stop)) if 2 * (stop - start) < nodes.stop else piece

    def of(self, logits: Tensor, piece: Piece, out: Tensor | None = None) -> Tensor:
        """Logits (t, u, V) of a piece -> their gradient, in the type of `gradient`."""
        slope = torch.softmax(logits, dim=-1, dtype=self.nodes.dtype, out=out).mul_(self.nodes[piece])
        slope[..., self.blank, None] -= self.blanks[piece]
        return slope.scatter_add_(2, _index(self.following, piece), -self.labels[piece])


def exact(dtype: torch.dtype) -> torch.dtype:
    """The type in which logarithms of sums are taken."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def successors(tokens: Tensor, symbols: Tensor) -> Tensor:
    """The symbol written next at u = 0 … U, (B, U+1); any where there is none, for that arc is not in the lattice."""
    written = torch.arange(tokens.shape[1], device=tokens.device) < symbols[:, None]
    return functional.pad(torch.where(written, tokens, 0), (0, 1))


def _index(following: Tensor, piece: Piece) -> Tensor:
    """The next symbols in a piece, (t, u, 1)."""
    row, time, nodes = piece
    return following[row, nodes, None].expand(time.stop - time.start, -1, 1)


def _pieces(lengths: Lengths, vocabulary: int, device: torch.device) -> list[Piece]:
    """All nodes of all utterances, some frames at a time."""
    size = PIECE.get(device.type, PIECE["cuda"])
    pieces = []
    for row, (frames, symbols) in enumerate(zip(*map(Tensor.tolist, lengths), strict=True)):
        step = max(1, size // ((symbols + 1) * vocabulary))
        times = (slice(start, min(frames, start + step)) for start in range(0, frames, step))
        pieces += [(row, time, slice(0, symbols + 1)) for time in times]
    return pieces


def _joined(audio: Tensor, text: Tensor, piece: Piece) -> Tensor:
    """tanh(audio_t + text_u), (t, U+1, J)."""
    row, time, nodes = piece
    return (audio[row, time, None] + text[row, None, nodes]).tanh_()


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.mean()
    raise ValueError(f'reduction must be "none", "mean" or "sum", not "{reduction}".')


def _checked(shape: torch.Size, tokens: Tensor, frames: Tensor, symbols: Tensor, blank: int) -> int:
    """The index of blank counted from the start, after a look at everything else."""
    if len(shape) != 4 or tokens.dim() != 2 or (shape[0], shape[2]) != (len(tokens), tokens.shape[1] + 1):
        raise ValueError(f"logits {tuple(shape)} are not (B, T, U+1, V) for tokens (B, U) {tuple(tokens.shape)}.")
    batch, time, width, vocabulary = shape
    if not -vocabulary <= blank < vocabulary:
        raise ValueError(f"blank {blank} is not one of {vocabulary} symbols.")
    blank %= vocabulary
    for name, lengths, most in (("frames", frames, time), ("symbols", symbols, width - 1)):
        if lengths.shape != (batch,) or lengths.is_floating_point():
            raise ValueError(f"The numbers of {name} must be {batch} integers, not {tuple(lengths.shape)}.")
        _require(((lengths >= 0) & (lengths <= most)).all(), f"The numbers of {name} are not all between 0 and {most}.")
    written = torch.arange(width - 1, device=tokens.device) < symbols[:, None]
    symbol = (tokens >= 0) & (tokens < vocabulary) & (tokens != blank)
    _require((symbol | ~written).all(), f"tokens hold a symbol that is blank ({blank}) or not below {vocabulary}.")
    return blank


def _require(holds: Tensor, said: str) -> None:
    """Raises ValueError; on a GPU, which would stand still while it is asked, its kernel ends the program instead."""
    if holds.device.type == "cpu":
        if not bool(holds):
            raise ValueError(said)
    else:
        torch._assert_async(holds, said)
