"""Encoders of 12 layers × 768, and one step of pre-training: isogloss beside its peers.

    python benchmarks/encoder.py --json benchmarks/results/encoder.json          (in the peers' environment)

stack   blocks alone, 8 × 250 frames of 768: Conformers with 12 heads, feed-forward 3072, kernel 31
audio   8 × 10 s of audio -> hidden states, front end and subsampling included; isogloss has 25 frames
        a second, the peers 50, so this compares what a second of audio costs, not the same products
step    pre-training on 2 × 10 s: forward, backward and AdamW; isogloss BEST-RQ on 12 Transformer
        blocks of 768 beside transformers' Wav2Vec2ForPreTraining base (12 such blocks, none dropped)

`of ours` is the time over that of isogloss in fp32 with rotary positions (stack, audio) or BEST-RQ in
fp32 (step). `of the limit` is the time over what the row's own matrix products and convolutions take at
the rate of a large matrix product in the same precision, measured in the same run. In bf16 the weights
are cast for a forward pass, and autocast is used for a step, by peers as well. Without bf16 in the
hardware it would be emulated, which says nothing about hardware that has it: those rows are left out.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch
from common import (
    Limits,
    Peers,
    Work,
    bf16_hardware,
    environment,
    finish,
    floating_point_operations,
    interleaved,
    measure_limits,
    parser,
    table,
    timing_rows,
)
from encoder_peers import AUDIO_PEERS, STACK_PEERS, wav2vec2_step
from torch import Tensor, nn

from isogloss.audio.log_mel import LogMelConfig, LogMelFeatures
from isogloss.data.loading import Batch
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import SubsamplingConfig
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.encoders.transformer import TransformerConfig
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.masks import FullContext
from isogloss.objectives.base import Clock
from isogloss.objectives.best_rq import BestRQConfig
from isogloss.sequence import Sequence

RATE, KERNEL = 16000, 31
Rows = dict[str, Work]
Sizes = dict[str, int]


def main() -> None:
    arguments = parser(__doc__, repetitions=3)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--width", type=int, default=768)
    arguments.add_argument("--heads", type=int, default=12)
    arguments.add_argument(
        "--seconds", type=int, default=10, help="length of an utterance, at 25 frames a second"
    )
    arguments.add_argument("--clips", type=int, default=8, help="utterances in a batch, but for the step")
    arguments.add_argument("--device", default="cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    sizes = {name: getattr(options, name) for name in ("layers", "width", "heads", "seconds", "clips")}
    limits = measure_limits(options.product, options.device)
    peers = Peers()
    figures = environment(options.device) | {
        "gflops_fp32": limits.fp32 / 1e9,
        "gflops_bf16": limits.bf16 / 1e9,
        "missing": peers.missing,
    }
    rates = f"{limits.fp32 / 1e9:.0f} GFLOP/s in fp32, {limits.bf16 / 1e9:.0f} in bf16"
    print(f"matrix products: {rates}")
    if not bf16_hardware(options.device):
        peers.leave_out("rows in bf16", "no bf16 in the hardware")
    for part in options.parts:
        torch.manual_seed(0)
        rows = PARTS[part](sizes, peers, options.device)
        rows = {name: work for name, work in rows.items() if measurable(name, options.device)}
        found = measured(rows, limits, options, training=part == "step")
        table(f"{part}: {sizes['layers']} × {sizes['width']}, {sizes['seconds']} s", found)
        figures[part] = found
    finish(options.json, figures)


def measured(rows: Rows, limits: Limits, options: Namespace, training: bool) -> list[dict[str, object]]:
    """Time the rows; the first is the one the others are compared with."""
    first = next(iter(rows))
    with torch.set_grad_enabled(training):
        operations = {name: floating_point_operations(work) for name, work in rows.items()}
    with torch.inference_mode(not training):
        timings = interleaved(rows, options, options.device)
    least = {name: limits.seconds(count, dtype=dtype_of(name)) for name, count in operations.items()}
    found = timing_rows(timings, dict.fromkeys(rows, first), least)
    return [row | {"GFLOP": round(operations[str(row["what"])] / 1e9, 1)} for row in found]


def measurable(name: str, device: str) -> bool:
    """Whether a row says something here."""
    return dtype_of(name) != torch.bfloat16 or bf16_hardware(device)


def dtype_of(name: str) -> torch.dtype:
    return torch.bfloat16 if name.endswith("bf16") else torch.float32


def stack(sizes: Sizes, peers: Peers, device: str) -> Rows:
    """Blocks alone on (B, 25 frames a second, D)."""
    states = torch.randn(sizes["clips"], 25 * sizes["seconds"], sizes["width"], device=device)
    rows: Rows = {}
    for position, dtype in (
        ("rotary", "fp32"),
        ("rotary", "bf16"),
        ("relative", "fp32"),
        ("relative", "bf16"),
    ):
        name = f"isogloss Conformer {position} {dtype}"
        rows[name] = our_stack(conformer(sizes, position), states.to(dtype_of(name)))
    add_peers(rows, peers, STACK_PEERS, sizes, states)
    return rows


def our_stack(config: ConformerConfig, states: Tensor) -> Work:
    encoder = Stack(config).eval().to(states.device, states.dtype)
    lengths = torch.full((len(states),), states.shape[1], device=states.device)
    return lambda: encoder(Sequence(states, lengths), FullContext())


def conformer(sizes: Sizes, position: str) -> ConformerConfig:
    dimensions = {key: sizes[key] for key in ("layers", "width", "heads")}
    return ConformerConfig.model_validate(dimensions | {"kernel": KERNEL, "position": position})


def transformer(sizes: Sizes) -> TransformerConfig:
    return TransformerConfig(layers=sizes["layers"], width=sizes["width"], heads=sizes["heads"])


def audio(sizes: Sizes, peers: Peers, device: str) -> Rows:
    """Waveforms (B, S) to hidden states."""
    waveforms = 0.1 * torch.randn(sizes["clips"], RATE * sizes["seconds"], device=device)
    rows: Rows = {}
    for kind, blocks in (
        ("Conformer rotary", conformer(sizes, "rotary")),
        ("Transformer", transformer(sizes)),
    ):
        for dtype in ("fp32", "bf16"):
            name = f"isogloss {kind} {dtype}"
            rows[name] = our_encoder(
                SpeechEncoderConfig(embed=SubsamplingConfig(channels=128), blocks=blocks), waveforms, dtype_of(name)
            )
    add_peers(rows, peers, AUDIO_PEERS, sizes, waveforms)
    return rows


def our_encoder(config: SpeechEncoderConfig, waveforms: Tensor, dtype: torch.dtype) -> Work:
    log_mel = LogMelFeatures(LogMelConfig()).eval()
    encoder = SpeechEncoder(config, log_mel.width).eval().to(waveforms.device, dtype)
    lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
    batch = Sequence(waveforms, lengths)
    return lambda: encoder(log_mel(batch).map(lambda features: features.to(dtype)))


def step(sizes: Sizes, peers: Peers, device: str) -> Rows:
    """Forward, backward and AdamW on (2, S)."""
    waveforms = 0.1 * torch.randn(2, RATE * sizes["seconds"], device=device)
    rows: Rows = {}
    for dtype in ("fp32", "bf16"):
        name = f"isogloss BEST-RQ {dtype}"
        rows[name] = train_step(*best_rq(sizes, waveforms), dtype_of(name))
    for dtype in ("fp32", "bf16"):
        name = f"transformers Wav2Vec2ForPreTraining {dtype}"
        peers.add(rows, name, partial(peer_step, sizes, waveforms, dtype_of(name)))
    return rows


def peer_step(sizes: Sizes, waveforms: Tensor, dtype: torch.dtype) -> Work:
    return train_step(*wav2vec2_step(sizes, waveforms), dtype)


def best_rq(sizes: Sizes, waveforms: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    encoder = SpeechEncoderConfig(embed=SubsamplingConfig(channels=128), blocks=transformer(sizes))
    model = Model(ModelConfig(encoder=encoder)).to(waveforms.device)
    objective = BestRQConfig().build(model.spec).to(waveforms.device)
    lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
    count = len(waveforms)
    batch = Batch([""] * count, Sequence(waveforms, lengths), [None] * count, ["und"] * count)
    prepared = objective.prepare(batch, training=True).to(waveforms.device)
    return nn.ModuleList([model, objective]), lambda: objective(model, prepared, Clock()).value


def train_step(model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype) -> Work:
    """One step of training; the same optimizer whoever wrote the model."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, foreach=True)
    device = next(model.parameters()).device.type
    model.train()

    def work() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return work


def add_peers(
    rows: Rows, peers: Peers, known: dict[str, Callable[[Sizes, Tensor], Work]], sizes: Sizes, values: Tensor
) -> None:
    for name, build in known.items():
        peers.add(rows, name, partial(build, sizes, values.to(dtype_of(name))))


PARTS = {"stack": stack, "audio": audio, "step": step}


if __name__ == "__main__":
    main()
