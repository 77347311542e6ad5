"""Tensors of which each process may hold a part (`DTensor`): as all of them, and as parts."""

from torch import Tensor


def is_parted(tensor: Tensor) -> bool:
    """Whether each process holds a part of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself; where each process holds a part of it, all of it, which all processes must ask for."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def parted_like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of `other`; of the same shape, and that one parted, as the same part of it."""
    if not is_parted(other) or value.shape != other.shape:
        return value.to(other.device)
    from torch.distributed.tensor import DTensor, distribute_tensor  # takes seconds to import

    assert isinstance(other, DTensor)
    return distribute_tensor(value, other.device_mesh, other.placements, src_data_rank=None)


def part(tensor: Tensor) -> Tensor:
    """The tensor itself; where each process holds a part of it, that part, which shares its memory."""
    found: Tensor = tensor.to_local() if is_parted(tensor) else tensor  # type: ignore[attr-defined]
    return found


def whole_of(own: Tensor, like: Tensor) -> Tensor:
    """All of what each process holds a part of as it does of `like`, which all processes must ask for."""
    if not is_parted(like):
        return own
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    laid_out = like.device_mesh, like.placements
    return DTensor.from_local(own, *laid_out, shape=like.shape, stride=like.stride()).full_tensor()
