"""Training throughput (hours of audio an hour) and peak memory of the presets.

    python benchmarks/throughput.py --json benchmarks/results/throughput.json
                                                                           (in the project's environment)

Every preset and objective runs in a process of its own, so that its peak memory is its own: that of the
whole process on a CPU, of the allocated tensors on a GPU. A step is forward and backward over one batch
of 10 s clips, clipping and AdamW; synthetic audio, already in memory (reading goes on beside training).
`of the limit` is the time of a step over what its matrix products and convolutions take at the rate of
a large matrix product in the same precision.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from common import (
    bf16_hardware,
    environment,
    finish,
    floating_point_operations,
    in_process,
    interleaved,
    measure_limits,
    parser,
    peak_gib,
    table,
)
from torch import nn

from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import BytesConfig, build_tokenizer
from isogloss.training.hardware import autocast, choose_precision
from isogloss.training.recipe import StageRecipe
from isogloss.training.schedule import build_optimizer
from isogloss.training.stage import Stage, trainable

OBJECTIVES = {"best_rq": "speech", "recognition": "paired"}
LANGUAGES = ("cs", "nl", "ro", "ru")
SYMBOLS_A_SECOND = 12


def main() -> None:
    arguments = parser(__doc__, repetitions=5)
    arguments.add_argument("--presets", nargs="+", default=["tiny", "small", "base"])
    arguments.add_argument("--clips", type=int, default=8, help="clips in a batch")
    arguments.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    arguments.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--one", nargs=2, metavar=("PRESET", "OBJECTIVE"), help="measure this one, here")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        name, objective = options.one
        finish(options.json, one(name, objective, options))
        return
    limits = measure_limits(options.product, options.device)
    rows = []
    for name in options.presets:
        for objective in OBJECTIVES:
            found = in_process(__file__, [name, objective], options)
            dtype = getattr(torch, found.pop("dtype"))
            least = limits.seconds(found.pop("operations"), dtype=dtype)
            rows.append(found | {"of the limit": round(found["s a step"] / least, 2)})
    title = f"training on {options.clips} × {options.seconds:g} s a step, {options.device}"
    bf16 = "in hardware" if bf16_hardware(options.device) else "emulated"
    rates = f"{limits.fp32 / 1e9:.0f} GFLOP/s in fp32, {limits.bf16 / 1e9:.0f} in bf16 ({bf16})"
    table(f"{title}; matrix products: {rates}", rows)
    rates_found = {"gflops_fp32": limits.fp32 / 1e9, "gflops_bf16": limits.bf16 / 1e9}
    finish(options.json, environment(options.device) | rates_found | {"rows": rows})


def one(name: str, objective: str, options: Namespace) -> dict[str, Any]:
    """Time and memory of one kind of step in this process."""
    device = torch.device(options.device)
    precision = choose_precision(options.precision, device)
    torch.manual_seed(0)
    model = Model(ModelConfig(encoder=preset(name), languages=LANGUAGES), build_tokenizer(BytesConfig(), []))
    seconds = {OBJECTIVES[objective]: 1.0}
    values = {"name": name, "steps": 1, "objectives": [{"name": objective}], "seconds": seconds}
    recipe = StageRecipe.parse(values, "benchmark")
    stage = Stage(recipe, model.to(device)).to(device).train()
    parameters = trainable(stage)
    optimizer = build_optimizer(recipe, parameters)
    read = batch(options.clips, round(options.seconds * 16000))
    micro = {objective: stage.objectives[objective].prepare(read, training=True).to(device)}

    def step() -> None:
        counts = stage.counts(micro)
        with autocast(device, precision):
            total = stage(micro, counts).total
        total.backward()
        nn.utils.clip_grad_norm_(parameters.values(), recipe.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    median = interleaved({name: step}, options, options.device)[name].median
    memory = peak_gib(device)
    return {
        "preset": name,
        "objective": objective,
        "precision": "bf16" if precision == torch.bfloat16 else "fp32",
        "M parameters": round(sum(p.numel() for p in parameters.values()) / 1e6, 2),
        "s a step": round(median, 4),
        "hours an hour": round(options.clips * options.seconds / median, 1),
        "peak GiB": round(memory, 2),
        "operations": floating_point_operations(step),
        "dtype": str(precision).removeprefix("torch."),
    }


def batch(clips: int, samples: int) -> Batch:
    """Noise with made-up transcripts of ordinary length."""
    generator = torch.Generator().manual_seed(0)
    audio = Sequence(0.1 * torch.randn(clips, samples, generator=generator), torch.full((clips,), samples))
    letters = torch.randint(97, 123, (clips, SYMBOLS_A_SECOND * samples // 16000), generator=generator)
    texts: list[str | None] = [bytes(row).decode() for row in letters.tolist()]
    languages = [LANGUAGES[i % len(LANGUAGES)] for i in range(clips)]
    return Batch([str(i) for i in range(clips)], audio, texts, languages)


if __name__ == "__main__":
    main()
