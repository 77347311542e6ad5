"""Their names of weights into ours, by patterns; queries, keys and values become one matrix."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.interop.arrays import Tensors

Rule = tuple[str, str]
"""A regular expression for a part of their name, and what stands for it in ours."""


def renamed(theirs: Mapping[str, Tensor], rules: Iterable[Rule]) -> Tensors:
    """Tensors under the names that all rules together make of theirs, as float32."""
    compiled = [(re.compile(pattern), name) for pattern, name in rules]
    found = {}
    for key, value in theirs.items():
        for pattern, name in compiled:
            key = pattern.sub(name, key)
        found[key] = value.float()
    return found


def joined(tensors: Tensors, parts: tuple[str, str, str], name: str) -> Tensors:
    """Queries, keys and values (D, D) each, named `parts`, as one matrix (3 D, D), `name`; a missing bias is zero."""
    found = dict(tensors)
    for key in [key for key in tensors if key.endswith(f".{parts[0]}.weight")]:
        start = key.removesuffix(f"{parts[0]}.weight")
        weights = [found.pop(f"{start}{part}.weight") for part in parts]
        zero = torch.zeros(len(weights[0]))
        biases = [found.pop(f"{start}{part}.bias", zero) for part in parts]
        found[f"{start}{name}.weight"], found[f"{start}{name}.bias"] = torch.cat(weights), torch.cat(biases)
    return found


def layers_in(tensors: Iterable[str], pattern: str) -> int:
    """How many layers there are: one more than the largest number that a pattern finds in the names."""
    numbers = [int(match[1]) for name in tensors if (match := re.search(pattern, name))]
    if not numbers:
        raise IsoglossError("The weights name no layer of an encoder; is it a model of another kind?")
    return 1 + max(numbers)
