"""The pruned transducer loss (Kuang et al. 2022, arXiv 2206.13236): the joiner works only where paths are likely.

    audio (B, T, V) + text (B, U+1, V) ── a sum for a joiner; its log-softmax is a matrix product (§3.1)
                                       ── nn/lattice.py ──> posteriors γ(t, u)
    γ ── for each frame the S neighbouring u with most of it, moving 0 … S-1 from frame to frame (§3.2)
    the joiner at these B·T·S nodes instead of B·T·(U+1) ── nn/lattice.py ──> the loss (§3.3)
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isogloss.nn.lattice import Lengths, forward_backward, log_likelihood
from isogloss.nn.transducer import PIECE, exact, fused_transducer_loss, successors


def simple_arcs(audio: Tensor, text: Tensor, tokens: Tensor, token_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the arcs, (B, T, U+1) each, of the logits audio_t + text_u, which are never made.

    audio: (B, T, V), text: (B, U+1, V), tokens: (B, U); symbol 0 is blank.
    """
    audio, text = (x.to(exact(x.dtype)) for x in (audio, text))
    normaliser = _log_sums(audio, text)
    symbols = successors(tokens, token_lengths)
    label = audio.gather(2, symbols[:, None].expand(-1, audio.shape[1], -1)) + text.gather(2, symbols[..., None]).mT
    return audio[..., :1] + text[..., 0][:, None] - normaliser, label - normaliser


def _log_sums(audio: Tensor, text: Tensor) -> Tensor:
    """log Σ_v exp(audio_tv + text_uv): (B, T, V), (B, U+1, V) -> (B, T, U+1).

    The sum is a product of matrices; what is largest in each row is taken out first, so that no factor exceeds 1.
    Where audio and text favour symbols that exclude each other, too little is left of it: there it is done in full.
    """
    loudest, likeliest = (x.amax(dim=-1, keepdim=True) for x in (audio, text))
    # The device's own bf16 product would cost the sum its digits.
    with torch.autocast(audio.device.type, enabled=False):
        total = (audio - loudest).exp() @ (text - likeliest).exp().mT
    # V terms that underflow are rounding errors of a sum above this.
    limits = torch.finfo(total.dtype)
    faint = total < audio.shape[2] * limits.tiny / limits.eps
    sums = total.masked_fill(faint, 1.0).log() + loudest + likeliest.mT
    nodes = faint.nonzero()
    pieces = nodes.split(max(1, PIECE.get(audio.device.type, PIECE["cuda"]) // audio.shape[2]))
    # Their logits are not kept, for there may be as many as of the whole lattice.
    exactly = [checkpoint(_log_sums_at, audio, text, piece, use_reentrant=False) for piece in pieces if len(piece)]
    return sums.index_put(nodes.unbind(1), torch.cat(exactly)) if exactly else sums


def _log_sums_at(audio: Tensor, text: Tensor, nodes: Tensor) -> Tensor:
    """`_log_sums` at nodes (N, 3), each a row, a frame and a count of symbols, by the logits themselves: (N,)."""
    row, time, symbol = nodes.unbind(1)
    return (audio[row, time] + text[row, symbol]).logsumexp(dim=-1)


def likely_starts(nodes: Tensor, lengths: Lengths, width: int) -> Tensor:
    """γ(t, u), (B, T, U+1) -> s_t, (B, T) int64: the first of the `width` symbol counts a path may have at t.

    s_0 = 0, s_{T-1} = max(U + 1 - width, 0) and 0 <= s_{t+1} - s_t < width, so that a path always leads through,
    if U < width + (width - 1) (T - 1).
    """
    frames, symbols = lengths
    most = (symbols + 1 - width).clamp(min=0)[:, None]
    mass = nodes.unfold(2, width, 1).sum(dim=3)
    place = torch.arange(mass.shape[2], device=nodes.device)
    start = mass.masked_fill(place > most[..., None], -1).argmax(dim=2)
    time = torch.arange(nodes.shape[1], device=nodes.device)
    start = torch.where(time < frames[:, None] - 1, start, most)
    # Never back: at most what comes later. Never too far at once: at least what comes later, less the way there.
    start = start.flip(1).cummin(dim=1).values.flip(1)
    slack = (width - 1) * time
    start = (start - slack).flip(1).cummax(dim=1).values.flip(1) + slack
    return torch.minimum(start, slack)


def pruned_transducer_loss(
    audio: Tensor,
    text: Tensor,
    weight: Tensor,
    bias: Tensor,
    tokens: Tensor,
    lengths: Lengths,
    starts: Tensor,
    width: int,
) -> Tensor:
    """-log P of each utterance over the paths that stay in starts_t … starts_t + width - 1, in nats, (B,).

    Arguments as of `fused_transducer_loss`, symbol 0 is blank; starts: (B, T) from `likely_starts`; width: at most
    U + 1. Never less than the whole loss, and equal to it at width U + 1. Infinite where no path is left.
    Differentiable once.
    """
    places = starts[..., None] + torch.arange(width, device=starts.device)  # (B, T, S)
    rows = torch.arange(len(text), device=text.device)[:, None, None]
    logits = torch.nn.functional.linear(torch.tanh(audio[:, :, None] + text[rows, places]), weight, bias)
    scores = logits.log_softmax(dim=-1, dtype=exact(logits.dtype))
    symbols = successors(tokens, lengths[1])[rows, places]
    found = torch.stack([scores[..., 0], scores.gather(3, symbols[..., None])[..., 0]])
    nowhere = found.new_full((2, *audio.shape[:2], text.shape[1]), -torch.inf)
    blank, label = nowhere.scatter(3, places.expand_as(found), found)
    return -log_likelihood(blank, label, lengths)


def two_step_loss(
    simple: tuple[Tensor, Tensor],
    joiner: tuple[Tensor, Tensor, Tensor, Tensor],
    tokens: Tensor,
    lengths: Lengths,
    width: int,
    share: float = 0.5,
) -> Tensor:
    """share · L_simple + L_pruned, (B,): the first learns where the second looks.

    simple: audio (B, T, V) and text (B, U+1, V). joiner: audio (B, T, J), text (B, U+1, J), weight (V, J), bias (V,).
    Of utterances with more than width - 1 symbols a frame, which no path in such ranges gets through, L_pruned is
    the whole loss; their lattices are small.
    """
    width = min(width, tokens.shape[1] + 1)
    arcs = simple_arcs(*simple, tokens, lengths[1])
    nodes = forward_backward(*arcs, lengths).node
    starts = likely_starts(nodes, lengths, width)
    losses = pruned_transducer_loss(*joiner, tokens, lengths, starts, width)
    dense = (lengths[1] > (width - 1) * lengths[0]).nonzero()[:, 0]
    if len(dense):
        audio, text, weight, bias = joiner
        targets = tokens[dense], lengths[0][dense], lengths[1][dense]
        whole = fused_transducer_loss(audio[dense], text[dense], weight, bias, *targets, reduction="none")
        losses = losses.index_put((dense,), whole)
    return losses - share * log_likelihood(*arcs, lengths)
