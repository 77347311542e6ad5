"""Speech and text of the same sentence, block by block: how alike they are, and how well durations are predicted.

    python benchmarks/states.py --model runs/most/model --data data/tuxpaint --languages bg es ro ru
        --json benchmarks/results/states.json --plot docs/states.svg               (in the project's environment)

Held-out clips; the text is stretched by aligned durations, and states of one frame are compared
(isogloss.evaluation.shared_space): linear CKA, and their squared distance as a share of that of any two frames.
`random` is the same network with random weights. Durations are in frames of 40 ms; `median` always says the median.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common import environment, finish, parser, table
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isogloss.data.manifests import SPLITS, language_of, read_cuts
from isogloss.evaluation.data import Data
from isogloss.evaluation.shared_space import SharedSpace, shared_space
from isogloss.model.folder import load_model
from isogloss.model.model import Model


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a model with a text encoder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the blocks there, as SVG")
    options = arguments.parse_args()
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    cuts = [cut for cut in cuts if language_of(cut) in options.languages]
    model = load_model(options.model)
    torch.manual_seed(0)
    found = {
        "trained": shared_space(model, cuts, Data(cuts)),
        "random": shared_space(Model(model.config, model.tokenizer), cuts, Data(cuts)),
    }
    rows = [row for name, space in found.items() for row in rows_of(name, space)]
    table("speech and text, frame by frame", rows)
    trained = found["trained"]
    lasting = {
        "clips": trained.aligned,
        "symbols": len(trained.durations),
        "error": round(trained.duration_error, 2),
        "median": round(trained.trivial_duration_error, 2),
    }
    table("durations of symbols, frames", [lasting])
    finish(options.json, environment() | {"languages": options.languages, "rows": rows, "durations": lasting})
    if options.plot:
        draw(found, options.plot)


def rows_of(name: str, space: SharedSpace) -> list[dict[str, Any]]:
    """A row for each block."""
    return [
        {
            "weights": name,
            "block": layer.number,
            "CKA": round(layer.cka, 3),
            "CKA out of order": round(layer.shuffled, 3),
            "distance": round(layer.distance, 3),
            "variance, text / speech": round(layer.spread, 2),
        }
        for layer in space.layers
    ]


def draw(found: dict[str, SharedSpace], path: Path) -> None:
    """CKA and distance over the blocks."""
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    for ax, (key, title) in zip(
        figure.subplots(1, 2), {"cka": "linear CKA", "distance": "distance / that of any frames"}.items(), strict=True
    ):
        for (name, space), style in zip(found.items(), ("o-", "s--"), strict=True):
            ax.plot([n.number for n in space.layers], [getattr(n, key) for n in space.layers], style, label=name)
        if key == "cka":
            layers = found["trained"].layers
            ax.plot([n.number for n in layers], [n.shuffled for n in layers], "^:", label="out of order")
        ax.set(xlabel="block", title=title, ylim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
