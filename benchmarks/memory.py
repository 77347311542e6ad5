"""What pre-training takes of the memory of each process: counted, not measured, for models of any size.

    python benchmarks/memory.py            (in the project's environment)

GiB of weights, gradients, the optimizer's moments, a moving average, and of the activations that the encoder keeps of a
micro-batch in bf16, on one GPU and on several among which the model is sharded, without and with recomputed
activations. `gathered` is an estimate of what lies whole on each of them for a moment. What the allocator wastes, and
logits, come on top.
"""

from __future__ import annotations

from typing import Any

import torch
from common import environment, finish, parser, table
from torch import nn

from isogloss.encoders.presets import preset, preset_features
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.objectives.best_rq import BestRQConfig
from isogloss.training.footprint import GIB, activations, footprint
from isogloss.training.stage import hidden_matrices

WORLDS = (1, 8, 64)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--preset", default="usm_2b", help="the encoder")
    arguments.add_argument("--clips", type=int, default=4, help="clips of a micro-batch")
    arguments.add_argument("--seconds", type=float, default=16.0, help="length of each")
    options = arguments.parse_args()
    found = rows(options.preset, options.clips, options.seconds)
    table(f"{options.preset}, {options.clips} × {options.seconds:g} s, GiB in each process", found)
    finish(options.json, environment() | {"rows": found})


def rows(name: str, clips: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each number of processes, without and with recomputed activations."""
    features = preset_features(name)
    with torch.device("meta"):
        model = Model(ModelConfig(encoder=preset(name), features=features, heads={}))
        modules = nn.ModuleList([model, BestRQConfig().build(model.spec)])
    parameters = dict(model.named_parameters())
    matrices = [parameters[name] for name in hidden_matrices(model)]
    made = []
    for recompute in (False, True):
        encoder = preset(name).model_copy(update={"recompute": recompute})
        kept = activations(encoder, features, clips, seconds, torch.bfloat16)
        for world in WORLDS:
            found = footprint(
                modules, matrices=matrices, world=world, sharded=world > 1, average=True, activations=kept
            )
            kinds = {kind: size / GIB for kind, size in vars(found).items() if kind != "copies"}
            about = {"processes": world, "recompute": "yes" if recompute else "no"}
            made.append(about | {kind: round(size, 1) for kind, size in (kinds | {"total": found.total / GIB}).items()})
    return made


if __name__ == "__main__":
    main()
