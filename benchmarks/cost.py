"""What pre-training costs from one GPU to a cluster: computing, reading and communicating, counted and not measured.

    python benchmarks/cost.py --json benchmarks/results/cost.json                  (in the project's environment)

One pass over the speech. `TFLOP an hour`: matrix products and convolutions of the encoder for an hour of audio in clips
of 16 s, forward and backward (three times forward, four with recomputed activations). `GPU hours`: at the share
`--share` of `--peak`. `reading cores`: so many keep one GPU supplied at `--read` ms a clip. `communicating`: the share
of a step that its gradients take over the network, if nothing of it is hidden behind computing: a ring sends them
twice, sharding also gathers the weights twice. `storage`: FLAC, 16 kHz. Kernels too small to keep a GPU busy are not
counted: see what was measured with `small` in docs/scale.md.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch
from common import environment, finish, parser, table

from isogloss.encoders.presets import preset, preset_features
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.training.footprint import operations

CLIP = 16.0
FLAC = 20_000
"""Bytes a second, of tuxpaint."""


@dataclass(frozen=True)
class Plan:
    """How much speech trains which encoder on how many GPUs; seconds: of audio in a step of each."""

    hours: float
    encoder: str
    gpus: int
    seconds: float
    sharded: bool = False


PLANS = (
    Plan(1_000, "small", 1, 640),
    Plan(1_000, "base", 1, 640),
    Plan(100_000, "usm_600m", 8, 320),
    Plan(100_000, "usm_600m", 64, 320),
    Plan(12_000_000, "usm_600m", 256, 320),
    Plan(12_000_000, "usm_2b", 256, 128, sharded=True),
    Plan(12_000_000, "usm_2b", 1024, 128, sharded=True),
)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of a GPU in bf16 (H100: 989)")
    arguments.add_argument("--share", type=float, default=0.4, help="of it that training reaches")
    arguments.add_argument("--read", type=float, default=2.0, help="ms that a core reads a clip in")
    arguments.add_argument("--network", type=float, default=50.0, help="GB/s that a GPU sends")
    options = arguments.parse_args()
    rows = [row(plan, options) for plan in PLANS]
    table(f"one pass at {options.share:.0%} of {options.peak:g} TFLOP/s", rows)
    assumed = {name: getattr(options, name) for name in ("peak", "share", "read", "network")}
    finish(options.json, environment() | assumed | {"rows": rows})


def row(plan: Plan, options: Namespace) -> dict[str, Any]:
    encoder = preset(plan.encoder)
    with torch.device("meta"):
        model = Model(ModelConfig(encoder=encoder, features=preset_features(plan.encoder), heads={}))
    weights = sum(parameter.numel() for parameter in model.parameters())
    a_second = (4 if plan.sharded else 3) * operations(encoder, preset_features(plan.encoder), CLIP) / CLIP
    rate = options.share * options.peak * 1e12 / a_second  # seconds of audio a second, of one GPU
    step = plan.seconds / rate
    sent = 0.0 if plan.gpus == 1 else (4 if plan.sharded else 2) * 4 * weights / (options.network * 1e9)
    days = plan.hours / rate / plan.gpus / 24
    return {
        "hours": f"{plan.hours:,.0f}",
        "encoder": plan.encoder,
        "M": round(weights / 1e6),
        "GPUs": plan.gpus,
        "TFLOP an hour": round(3600 * a_second / 1e12, 1),
        "hours an hour": round(rate * plan.gpus),
        "GPU hours": round(plan.hours / rate, 2),
        "days": round(days, 2),
        "steps": round(3600 * plan.hours / plan.seconds / plan.gpus),
        "reading cores": round(rate / CLIP * options.read / 1000, 2),
        "communicating": round(sent / (sent + step), 3),
        "storage TB": round(3600 * plan.hours * FLAC / 1e12, 2),
    }


if __name__ == "__main__":
    main()
