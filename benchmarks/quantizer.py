"""Random-projection labels of 8 × 250 vectors from 1 and 16 codebooks: isogloss and speechbrain.

    python benchmarks/quantizer.py --json benchmarks/results/quantizer.json      (in the peers' environment)

`of ours` is the time over isogloss's with as many books; `of the limit` the time over what the two
matrix products take at the rate of a large one measured in the same run. speechbrain knows one book, so
16 are sixteen of its modules. Its weights are copied from isogloss's and the codes must be the same;
where two codes are equally near to within rounding either is right, and any other difference stops the
script.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from common import Peers, Work, environment, finish, interleaved, measure_limits, parser, table, timing_rows
from torch import Tensor, nn
from torch.nn.functional import normalize

from isogloss.nn.quantizers import RandomProjectionQuantizer

BOOKS = (1, 16)
TIE = 1e-5  # of the cosine between a vector and its code


def main() -> None:
    arguments = parser(__doc__, repetitions=10)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--frames", type=int, default=250)
    arguments.add_argument("--width", type=int, default=320)
    arguments.add_argument("--codes", type=int, default=8192)
    arguments.add_argument("--code-width", type=int, default=16)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    vectors = torch.randn(options.batch, options.frames, options.width)
    limits = measure_limits(options.product)
    peers = Peers()
    rows: dict[str, Work] = {}
    base: dict[str, str] = {}
    least: dict[str, float] = {}
    agreement: dict[str, float] = {}
    for books in BOOKS:
        ours = RandomProjectionQuantizer(options.width, books, options.codes, options.code_width, seed=0)
        name = f"isogloss, {counted(books)}"
        rows[name] = partial(ours, vectors.flatten(0, 1))
        peer = f"speechbrain, {counted(books)}"
        peers.add(rows, peer, partial(speechbrain, ours, vectors))
        if peer in rows:
            agreement[counted(books)] = same_codes(ours, vectors.flatten(0, 1), rows[peer]())
        operations = 2 * options.code_width * (options.width + options.codes)
        seconds = limits.seconds(books * options.batch * options.frames * operations)
        base |= {name: name, peer: name}
        least |= {name: seconds, peer: seconds}
    with torch.inference_mode():
        found = timing_rows(interleaved(rows, options), base, least)
    shape = f"{options.batch} × {options.frames} × {options.width}, {options.codes} codes"
    table(f"random-projection labels, {shape} (matrix product: {limits.fp32 / 1e9:.0f} GFLOP/s)", found)
    table("codes equal to speechbrain's", [{"what": k, "share": f"{v:.4%}"} for k, v in agreement.items()])
    finish(
        options.json,
        environment()
        | {
            "gflops_fp32": limits.fp32 / 1e9,
            "rows": found,
            "same_codes": agreement,
            "missing": peers.missing,
        },
    )


def counted(books: int) -> str:
    return f"{books} book{'s' if books > 1 else ''}"


def speechbrain(ours: RandomProjectionQuantizer, vectors: Tensor) -> Work:
    """speechbrain's quantizer with the projection and codebooks of ours, one module a book."""
    from speechbrain.nnet.quantisers import RandomProjectionQuantizer as Quantizer

    modules: list[nn.Module] = []
    for projection, codebook in zip(ours.projection, ours.codebooks, strict=True):
        module = Quantizer(*projection.shape, len(codebook))
        module.load_state_dict({"P": projection, "CB": codebook})
        modules.append(module)
    return lambda: torch.stack([module(vectors).flatten() for module in modules], dim=1)


def same_codes(ours: RandomProjectionQuantizer, vectors: Tensor, theirs: Any) -> float:
    """Share of codes equal to `theirs` (N, K); ends the script where a difference is more than a tie."""
    mine = ours(vectors)
    for book in range(mine.shape[1]):
        differ = mine[:, book] != theirs[:, book]
        direction = normalize(vectors[differ].double() @ ours.projection[book].double(), dim=-1)
        codebook = ours.codebooks[book].double()
        gap = (direction * (codebook[mine[differ, book]] - codebook[theirs[differ, book]])).sum(dim=-1)
        if (gap.abs() > TIE).any():
            sys.exit(f"{int(differ.sum())} codes of book {book} differ by more than rounding.")
    return (mine == theirs).double().mean().item()


if __name__ == "__main__":
    main()
