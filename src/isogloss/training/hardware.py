"""Which device, which precision, which process of how many."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from isogloss.errors import IsoglossError
from isogloss.objectives.base import Mean

READERS = 8
"""Processes that read for one GPU, at most: more are not waited for."""
PATIENCE = timedelta(days=1)
"""How long a process waits for the others: one may fit something while they wait."""


@dataclass(frozen=True)
class Machine:
    """What a process computes with, and which of how many it is."""

    device: torch.device
    precision: torch.dtype
    rank: int = 0
    world: int = 1

    def autocast(self, remember: bool = True) -> AbstractContextManager[None]:
        """The precision of forward passes; remember: keep bf16 copies of weights to the end, for those that recur."""
        return autocast(self.device, self.precision, remember)

    @property
    def pinned(self) -> bool:
        """Whether batches should lie in memory from which the device copies while it computes."""
        return self.device.type == "cuda"

    @property
    def steps_between_reports(self) -> int:
        """Steps after which the device is asked what they came to; a GPU would stand still at each."""
        return 10 if self.device.type == "cuda" else 1

    def readers(self, asked: int | None) -> int:
        """Processes that read audio for this one: as asked; else one beside a CPU, for a GPU its share of the cores."""
        if asked is not None:
            return asked
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(READERS, cores // self.world - 1)) if self.device.type == "cuda" else 1


def choose_device(name: str) -> torch.device:
    """`auto` is this process's GPU if there is one, else the CPU."""
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else every process would talk to the others through the first GPU
    except (RuntimeError, AssertionError) as error:
        raise IsoglossError(f'The device "{name}" cannot be used here ({str(error).splitlines()[0]}).') from None
    return device


def gpu_memory(device: str) -> float:
    """GiB of the GPU that `device` would choose; 0 without one."""
    if not torch.cuda.is_available() or not (device == "auto" or device.startswith("cuda")):
        return 0.0
    return torch.cuda.get_device_properties(choose_device(device)).total_memory / 2**30


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """bf16 where the hardware has it; on a CPU this is measured, because it is emulated on some."""
    if name == "auto":
        name = "bf16" if bf16_is_faster(device) else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def bf16_is_faster(device: torch.device) -> bool:
    """Whether a matrix product takes less time in bf16 than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return _product_seconds(torch.bfloat16) < _product_seconds(torch.float32)


def autocast(device: torch.device, precision: torch.dtype, remember: bool = True) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass; arguments as of `Machine.autocast`."""
    enabled = precision == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=remember)


def start_group() -> tuple[int, int]:
    """Join the group `torchrun` made; returns (rank, world size), (0, 1) without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
        # In torchrun's store the addresses of processes that failed stay (pytorch issue 167288). How often it has
        # started them all knows each node for itself only.
        attempt = _restarts() if os.environ.get("GROUP_WORLD_SIZE", "1") == "1" else 0
        store = PrefixStore(f"attempt {attempt}", store)
        # What lies on the host is shared by gloo also beside GPUs: no number waits for a device.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    return dist.get_rank(), world


def restarted() -> bool:
    """Whether torchrun has started processes anew after one of them failed (`--max-restarts`)."""
    return in_any(_restarts() > 0)


def wait_for_group() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def sum_over_group(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def in_any(so: bool) -> bool:
    """Whether it is so in any process; equal in all of them."""
    if not dist.is_initialized():
        return so
    return bool(sum_over_group(torch.tensor([int(so)])))


def summed(means: Mapping[str, Mean]) -> dict[str, tuple[float, float]]:
    """Totals and counts over all processes, which need not know the same names; equal in all of them."""
    own = {name: (float(mean.total), float(mean.count)) for name, mean in means.items()}
    if not dist.is_initialized():
        return own
    found: dict[str, tuple[float, float]] = {}
    for text in gathered(json.dumps(own)):
        for name, (total, count) in json.loads(text).items():
            before = found.get(name, (0.0, 0.0))
            found[name] = before[0] + total, before[1] + count
    return found


def gathered_rows(parts: list[torch.Tensor]) -> torch.Tensor:
    """Rows (n, E) of the micro-batches of this process -> those of all, in the order of the micro-batches: (N, E).

    Equal in all processes, of which each has as many micro-batches, every world-th of the step.
    """
    if not dist.is_initialized():
        return torch.cat(parts)
    rank = dist.get_rank()
    sizes = torch.zeros(len(parts), dist.get_world_size(), dtype=torch.int64)
    sizes[:, rank] = torch.tensor([len(part) for part in parts])
    ends = sum_over_group(sizes).flatten().cumsum(0).view_as(sizes)
    found = parts[0].new_zeros(int(ends[-1, -1]), parts[0].shape[1])
    for part, end in zip(parts, ends[:, rank].tolist(), strict=True):
        found[end - len(part) : end] = part
    return sum_over_group(found)


def share_buffers(module: torch.nn.Module) -> None:
    """Give all processes the buffers of the first, in place."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gathered(text: str) -> list[str]:
    """A text of every process, as bytes in tensors: nothing is unpickled."""
    if not dist.is_initialized():
        return [text]
    own = torch.tensor(list(text.encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(own)]))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(own)] = own
    texts = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(texts, padded)
    return [bytes(row[: int(size)].tolist()).decode() for row, size in zip(texts, sizes, strict=True)]


def _restarts() -> int:
    """How often torchrun has started the processes of this node anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _product_seconds(dtype: torch.dtype) -> float:
    a = torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)
