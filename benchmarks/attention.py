"""Attention in training on a CPU: torch's fused one, and ours, which in bf16 is products and softmax one by one.

    python benchmarks/attention.py --json benchmarks/results/attention.json          (in the project's environment)

Forward and backward of clips of 25 frames a second, as many as make --seconds of audio, with a mask; `ratio` is the
time of the fused one over ours. In fp32 both are the same: there `attend` is fused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import environment, finish, interleaved, parser, table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from isogloss.nn.attention import attend

RATE = 25
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    arguments = parser(__doc__, repetitions=7)
    arguments.add_argument("--seconds", type=float, default=96.0, help="of audio")
    arguments.add_argument("--clips", type=float, nargs="+", default=[1.5, 6.0, 16.0], help="length of each, seconds")
    arguments.add_argument("--heads", type=int, default=4)
    arguments.add_argument("--width", type=int, default=64, help="of a head")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for length in options.clips:
            shape = max(1, round(options.seconds / length)), options.heads, round(RATE * length), options.width
            inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
            mask = torch.ones(shape[0], 1, shape[2], shape[2], dtype=torch.bool)
            works = {name: partial(step, way, inputs, mask) for name, way in {"ours": attend, "fused": fused}.items()}
            found = interleaved(works, options)
            row: dict[str, Any] = {"precision": str(dtype).removeprefix("torch."), "clips": shape[0], "seconds": length}
            row |= {f"{name}, ms": round(1000 * timing.median, 2) for name, timing in found.items()}
            rows.append(row | {"ratio": round(found["fused"].median / found["ours"].median, 2)})
    table("attention, forward and backward", rows)
    finish(options.json, environment() | {"heads": options.heads, "width": options.width, "rows": rows})


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """As torch computes it where nothing else is allowed."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return attend(query, key, value, mask)


def step(way: Attention, inputs: list[Tensor], mask: Tensor) -> None:
    """Forward and backward."""
    way(*inputs, mask).sum().backward()


if __name__ == "__main__":
    main()
