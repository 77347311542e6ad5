"""A stage whose weights, gradients and moments lie in parts on several devices (FSDP2).

    blocks of encoders     gathered one by one where they are called, forward and backward, and let go of behind it
    all the rest           gathered for the whole step: heads, embeddings, what objectives own

Weights are gathered and gradients summed in float32, also where bf16 computes: autocast then does to them what it does
where nothing is parted. Frozen weights are parted too; slow copies of the model are not: they are buffers, whole on
every device.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from isogloss.encoders.stack import Stack
from isogloss.training.hardware import Machine
from isogloss.training.stage import Stage


def shard(stage: Stage, machine: Machine) -> None:
    """Part the weights of a stage among all processes, in place; they go to the device block by block."""
    gc.collect()  # parts of an earlier stage hold each other
    mesh = init_device_mesh(machine.device.type, (machine.world,))
    for part in stage.model.modules():
        if isinstance(part, Stack):
            for block in part.blocks:
                fully_shard(block, mesh=mesh)
    fully_shard(stage, mesh=mesh)


@contextmanager
def gathered(stage: nn.Module) -> Iterator[None]:
    """All weights lie whole on every device inside, so that each process may do there what the others do not."""
    parted = [part for part in stage.modules() if isinstance(part, FSDPModule)]
    for part in parted:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parted:
        part.set_reshard_after_forward(part is not stage, recurse=False)
        part.reshard()
