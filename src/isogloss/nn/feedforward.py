"""The position-wise network of every block."""

from torch import Tensor, nn

from isogloss.nn.adapters import Branch
from isogloss.nn.dropout import Dropout


class FeedForward(nn.Module):
    """LN → D→4D → activation → dropout → 4D→D → dropout, for a residual branch; without the LN where it comes after."""

    def __init__(
        self,
        width: int,
        dropout: float,
        activation: type[nn.Module] = nn.SiLU,
        expansion: int = 4,
        norm_first: bool = True,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.expand = nn.Linear(width, expansion * width)
        self.activation = activation()
        self.project = nn.Linear(expansion * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, adapter: Branch | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); an adapter works beside it on the same input."""
        hidden = self.dropout(self.activation(self.expand(self.norm(x))))
        found = self.dropout(self.project(hidden))
        return found if adapter is None else found + adapter(x)
