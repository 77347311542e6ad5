"""Their names of tensors and ours: one table a family, read in one direction by the import, in the other by the export.

    "encoder.stack.blocks.*.attention.out": "encoder.layers.*.attention.out_proj"      * is the number of a layer

What follows the name of a module (weight, bias) is the same on both sides.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.interop.arrays import Tensors


@dataclass(frozen=True)
class Theirs:
    """How they hold what is one module or tensor here, where more than the name differs.

    names: several, whose rows stand below one another in ours. form: pointwise = they have a convolution of width one
    for our linear layer; heads = ours, one vector a head, has an axis for frames. unbiased: which of the names have
    no bias, though our one module has: of keys, where it adds the same to all scores of a query and changes nothing.
    """

    names: tuple[str, ...]
    form: Literal["same", "pointwise", "heads"] = "same"
    unbiased: str | None = None

    def to_ours(self, value: Tensor) -> Tensor:
        """A tensor of theirs in our shape."""
        if self.form == "pointwise" and value.dim() == 3:
            return value.squeeze(2)
        return value.unsqueeze(1) if self.form == "heads" else value

    def from_ours(self, value: Tensor) -> Tensor:
        """A tensor of ours in their shape."""
        if self.form == "pointwise" and value.dim() == 2:
            return value.unsqueeze(2)
        return value.squeeze(1) if self.form == "heads" else value


Names = Mapping[str, str | Theirs]
"""By our name of a module or tensor, theirs."""


def renamed(theirs: Mapping[str, Tensor], names: Names) -> tuple[Tensors, list[str]]:
    """Tensors under our names, floating-point ones as float32; and the names that the table does not have.

    A bias that only some of several joined modules have is zero in the others.
    """
    rules = [
        (_pattern(name), ours, held, place)
        for ours, held in _held(names)
        for place, name in enumerate(held.names)
    ]
    parts: dict[str, tuple[Theirs, dict[int, Tensor]]] = {}
    unknown = []
    for key, value in theirs.items():
        for pattern, ours, held, place in rules:
            if match := pattern.fullmatch(key):
                found = parts.setdefault(_filled(ours, match), (held, {}))[1]
                found[place] = held.to_ours(value.float() if value.is_floating_point() else value)
                break
        else:
            unknown.append(key)
    return {key: _joined(key, *found) for key, found in parts.items()}, unknown


def original(ours: Mapping[str, Tensor], names: Names) -> Tensors:
    """Tensors under their names; what the table does not have is left out."""
    rules = [(_pattern(name), held) for name, held in _held(names)]
    found = {}
    for key, value in ours.items():
        for pattern, held in rules:
            if match := pattern.fullmatch(key):
                count = len(held.names)
                for name, rows in zip(held.names, value.chunk(count) if count > 1 else [value], strict=True):
                    if name != held.unbiased or match["rest"] != ".bias":
                        found[_filled(name, match)] = held.from_ours(rows).contiguous()
                break
    return found


def named(held: str | Theirs) -> tuple[str, ...]:
    """The names in an entry of the table."""
    return (held,) if isinstance(held, str) else held.names


def layers_in(tensors: Iterable[str], pattern: str) -> int:
    """How many layers there are: one more than the largest number that a pattern finds in the names."""
    numbers = [int(match[1]) for name in tensors if (match := re.search(pattern, name))]
    if not numbers:
        raise IsoglossError("The weights name no layer of an encoder; is it a model of another kind?")
    return 1 + max(numbers)


def _held(names: Names) -> list[tuple[str, Theirs]]:
    return [(ours, held if isinstance(held, Theirs) else Theirs(named(held))) for ours, held in names.items()]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"(?P<number>\d+)") + r"(?P<rest>(\..+)?)")


def _filled(name: str, match: re.Match[str]) -> str:
    return name.replace("*", match.groupdict().get("number", "")) + match["rest"]


def _joined(key: str, held: Theirs, parts: dict[int, Tensor]) -> Tensor:
    if len(held.names) == 1:
        return parts[0]
    known = next(iter(parts.values()))
    if key.endswith(".bias"):
        zero = torch.zeros_like(known)
        return torch.cat([parts.get(place, zero) for place in range(len(held.names))])
    for place, name in enumerate(held.names):
        if place not in parts:
            raise IsoglossError(f"The weights lack {name} of a layer ({key} here); copy the folder again.")
    return torch.cat([parts[place] for place in range(len(held.names))])
