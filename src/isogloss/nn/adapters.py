"""Residual adapters: small networks beside the feed-forward modules of a frozen encoder (USM §2.6, arXiv 2303.01037).

    x ─┬─ feed-forward ─────────────── + ─>          added before a Conformer's residual weight of ½
       └─ LN ─ W_down ─ ReLU ─ W_up ───┘             W_up is zero at first: nothing changes

The LayerNorm has no weights of its own: W_down and its bias hold them. A bank holds an adapter for each
group of languages and each feed-forward module; an utterance goes through those of its group (Kannan
et al. 2019, arXiv 1909.05330).

`BlockAdapter` is the older form, one behind a block and for whoever speaks, as MMS has them for each language.
"""

import math
from collections.abc import Callable, Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from isogloss.config import Config
from isogloss.text.families import family

Branch = Callable[[Tensor], Tensor]
"""(B, T, D) -> (B, T, D), added to what a feed-forward module makes of the same input."""


class AdapterConfig(Config):
    """A bank of adapters."""

    bottleneck: int = Field(ge=1, description="inner width, between W_down and W_up")
    after: int = Field(0, ge=0, description="number of first blocks without adapters")
    groups: dict[str, tuple[str, ...]] = Field(min_length=1, description="languages that share an adapter, by name")


class Adapters(nn.Module):
    """`places` feed-forward modules of a width, an adapter a group for each. Parameters: G P (2 D + 1) b."""

    def __init__(self, config: AdapterConfig, places: int, width: int):
        super().__init__()
        self.groups = config.groups
        bank = places, len(config.groups)
        self.down = nn.Parameter(torch.empty(*bank, width, config.bottleneck))
        self.bias = nn.Parameter(torch.zeros(*bank, 1, config.bottleneck))
        self.up = nn.Parameter(torch.zeros(*bank, config.bottleneck, width))
        nn.init.uniform_(self.down, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, languages: Iterable[str | None]) -> list[Branch]:
        """The branches of each place for a batch of utterances in these languages, (B, T, D) -> (B, T, D) each.

        An unknown language has the adapter of its family, else none.
        """
        chosen = [self.group(language) for language in languages]
        index = torch.tensor(chosen, device=self.up.device)
        share = (index >= 0)[:, None, None]
        index = index.clamp(min=0)

        def branch(place: int) -> Branch:
            down, bias, up = self.down[place, index], self.bias[place, index], self.up[place, index] * share
            return lambda x: torch.relu(layer_norm(x, x.shape[-1:]) @ down + bias) @ up

        return [branch(place) for place in range(len(self.up))]

    def group(self, language: str | None) -> int:
        """The place of a language's group; of its family's first if it is in none; else -1."""
        return nearest(language, list(self.groups.values()))


def nearest(language: str | None, groups: list[tuple[str, ...]]) -> int:
    """The first group of languages that holds this one, else the first that holds one of its family; else -1."""
    if language is None:
        return -1
    own = family(language)
    kin = [own is not None and own in map(family, members) for members in groups]
    return next((n for n, members in enumerate(groups) if language in members), kin.index(True) if any(kin) else -1)


class BlockAdapter(nn.Module):
    """x + W_up ReLU(W_down LN(x)) behind a whole block (Houlsby et al. 2019, arXiv 1902.00751; MMS, arXiv 2305.13516).

    W_up is zero at first.
    """

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        changed: Tensor = x + self.up(torch.relu(self.down(self.norm(x))))
        return changed
