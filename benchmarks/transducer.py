"""The transducer loss, forward and backward: isogloss, torchaudio, and a log-softmax of the same logits.

    python benchmarks/transducer.py --json benchmarks/results/transducer.json    (in the peers' environment)

`of ours` is the time over that of `isogloss.transducer_loss`. A log-softmax with its gradient is the
least that a loss of normalised logits can cost that way; isogloss writes the gradient only. `fused`
makes the logits itself, twice, so that its time contains four matrix products of the joiner; beside it the same
joiner by torch and isogloss's loss on its logits. `pruned` adds a second, trivial joiner and works at 5 symbol counts
a frame; its time contains both losses, and it is another loss. Losses of isogloss and torchaudio must agree;
gradients are compared in float32, in which torchaudio sums its lattice. Memory is the peak of a process
above what it held before the first step, over the size of the logits.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

import torch
from common import Peers, Work, environment, finish, in_process, interleaved, parser, peak_gib, table, timing_rows
from torch import Tensor

from isogloss.nn.pruned import two_step_loss
from isogloss.nn.transducer import fused_transducer_loss, transducer_loss

OURS, PEER, BOUND = "isogloss", "torchaudio rnnt_loss", "log_softmax alone"
FUSED, UNFUSED = "isogloss fused, from states", "torch joiner + isogloss, from states"
PRUNED = "isogloss pruned, from states"


def main() -> None:
    arguments = parser(__doc__, repetitions=7)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--frames", type=int, default=250)
    arguments.add_argument("--symbols", type=int, default=50)
    arguments.add_argument("--vocabulary", type=int, default=512)
    arguments.add_argument("--large-vocabulary", type=int, default=4096, help="for the memory of the fused form")
    arguments.add_argument("--joiner", type=int, default=320, help="width of the joiner in the fused form")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--one", choices=MEMORY, help="measure the memory of this one, here")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.one:
        finish(options.json, memory(options.one, options))
        return
    peers = Peers()
    logits, targets = problem(options)
    rows: dict[str, Work] = {OURS: partial(step, transducer_loss, logits, *targets)}
    peers.add(rows, PEER, partial(torchaudio_step, logits, targets))
    slope = torch.randn_like(logits)
    rows[BOUND] = partial(log_softmax_step, logits, slope)
    states = joiner_states(options, options.vocabulary)
    rows[FUSED] = partial(step, fused_transducer_loss, *states, *targets)
    rows[UNFUSED] = partial(step, unfused, *states, *targets)
    rows[PRUNED] = partial(step, pruned, *states, *simple_states(options), *targets)
    difference = agreement(rows, logits)
    base = {name: OURS for name in (OURS, PEER, BOUND)} | {name: FUSED for name in (FUSED, UNFUSED, PRUNED)}
    found = timing_rows(interleaved(rows, options, options.device), base)
    shape = f"B {options.batch}, T {options.frames}, U {options.symbols}, V {options.vocabulary}"
    table(f"transducer loss, forward and backward, {shape}", found)
    peaks = [in_process(__file__, [name], options) for name in MEMORY]
    table(f"peak memory at V {options.large_vocabulary}", peaks)
    figures = {"rows": found, "memory": peaks, "difference": difference, "missing": peers.missing}
    finish(options.json, environment(options.device) | figures)


def problem(options: Namespace) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits (B, T, U+1, V), and tokens with their lengths: all of full length."""
    shape = options.batch, options.frames, options.symbols + 1, options.vocabulary
    return torch.randn(shape, device=options.device).requires_grad_(), tokens(options, options.vocabulary)


def tokens(options: Namespace, vocabulary: int) -> tuple[Tensor, ...]:
    written = torch.randint(1, vocabulary, (options.batch, options.symbols), device=options.device)
    counts = (torch.full((options.batch,), n, device=options.device) for n in (options.frames, options.symbols))
    return written, *counts


def joiner_states(options: Namespace, vocabulary: int) -> tuple[Tensor, ...]:
    """Encoder and predictor states, weight and bias of the last layer."""
    batch, width = options.batch, options.joiner
    shapes = (batch, options.frames, width), (batch, options.symbols + 1, width), (vocabulary, width), (vocabulary,)
    return tuple(torch.randn(shape, device=options.device).div_(width**0.5).requires_grad_() for shape in shapes)


def step(loss: Any, *arguments: Tensor) -> Tensor:
    """Forward and backward; the gradients are made anew each time."""
    for argument in arguments:
        argument.grad = None
    value = loss(*arguments)
    value.backward()
    return value.detach()


def unfused(audio: Tensor, text: Tensor, weight: Tensor, bias: Tensor, *targets: Tensor) -> Tensor:
    logits = (audio[:, :, None] + text[:, None]).tanh() @ weight.T + bias
    return transducer_loss(logits, *targets)


def simple_states(options: Namespace) -> tuple[Tensor, ...]:
    """Encoder and predictor states as the trivial joiner adds them."""
    shapes = ((options.batch, steps, options.vocabulary) for steps in (options.frames, options.symbols + 1))
    return tuple(torch.randn(shape, device=options.device).requires_grad_() for shape in shapes)


def pruned(
    audio: Tensor, text: Tensor, weight: Tensor, bias: Tensor, frames: Tensor, symbols: Tensor, *targets: Tensor
) -> Tensor:
    written, *lengths = targets
    return two_step_loss((frames, symbols), (audio, text, weight, bias), written, tuple(lengths), 5).mean()


def torchaudio_step(logits: Tensor, targets: tuple[Tensor, ...]) -> Work:
    from torchaudio.functional import rnnt_loss

    return partial(step, partial(rnnt_loss, blank=0), logits, *(target.int() for target in targets))


def log_softmax_step(logits: Tensor, slope: Tensor) -> None:
    logits.grad = None
    logits.log_softmax(dim=-1).backward(slope)


def agreement(rows: dict[str, Work], logits: Tensor) -> dict[str, float]:
    """The loss, and how far torchaudio's loss and gradient are from ours."""
    ours = rows[OURS]()
    found = {"loss": float(ours)}  # type: ignore[arg-type]
    if PEER in rows:
        gradient = logits.grad
        theirs = rows[PEER]()
        assert isinstance(ours, Tensor) and isinstance(theirs, Tensor) and logits.grad is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
        found["largest difference of gradients"] = float((gradient - logits.grad).abs().max())
    return found


MEMORY = {FUSED: fused_transducer_loss, UNFUSED: unfused}


def memory(name: str, options: Namespace) -> dict[str, Any]:
    """Peak of this process over one step, as a share of the logits' size."""
    device = torch.device(options.device)
    vocabulary = options.large_vocabulary
    arguments = *joiner_states(options, vocabulary), *tokens(options, vocabulary)
    before = peak_gib(device)
    step(MEMORY[name], *arguments)
    above = peak_gib(device) - before
    size = 4 * options.batch * options.frames * (options.symbols + 1) * vocabulary / 2**30
    return {"what": name, "peak GiB": round(above, 3), "of the logits": round(above / size, 3)}


if __name__ == "__main__":
    main()
