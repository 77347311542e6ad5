"""What a step on speech, pairs and text costs, against its parts, and what alignment and stretching take of it.

    python benchmarks/joint_step.py --model runs/most/model --data data/tuxpaint --languages bg es ro ru
        --json benchmarks/results/joint_step.json                                  (in the project's environment)

Forward and backward without the optimizer, on real clips in memory. `speech`, `pairs` and `text` are the three parts
alone: BEST-RQ, recognition of pairs (no matching), and masked text. `joint` is one step of all three with matching;
`over the sum` is what matching costs: the text encoder on pairs, the alignment, the distance. `align` and `stretch`
are measured by themselves on the pairs. Text is also measured at half and at twice its seconds (14 characters are a
second).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import environment, finish, interleaved, measure_limits, parser, table

from isogloss.data.loading import Batch, Loader, as_cut, language_of, text_of
from isogloss.data.manifests import read_cuts
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.objectives.maestro import align
from isogloss.text.corpus import TextLine
from isogloss.training.recipe import StageRecipe
from isogloss.training.stage import Stage, trainable


def main() -> None:
    arguments = parser(__doc__, repetitions=9)
    arguments.add_argument("--model", type=Path, required=True, help="a model with a text encoder that stretches")
    arguments.add_argument("--data", type=Path, required=True, help="folder made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--seconds", type=float, nargs=3, default=[12, 12, 12], help="of speech, pairs and text")
    arguments.add_argument("--matching", choices=("most", "maestro"), default="most")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model).train()
    batches = drawn(options)
    objectives = {"speech": "best_rq", "paired": "recognition", "text": "aligned_mlm"}
    steps: dict[str, Callable[[], object]] = {
        "joint": step(model, batches, ["best_rq", options.matching, "aligned_mlm"]),
        **{f"{kind} alone": step(model, batches, [name]) for kind, name in objectives.items()},
        "text, half": step(model, batches | {"text": batches["half"]}, ["aligned_mlm"]),
        "text, twice": step(model, batches | {"text": batches["twice"]}, ["aligned_mlm"]),
    }
    found = interleaved(steps | inside(model, batches["paired"], options.matching), options.repetitions)
    total = sum(found[f"{kind} alone"].median for kind in objectives)
    joint = found["joint"].median
    times = {name: timing.median for name, timing in found.items()} | {"the three alone": total}
    rows = [{"what": name, "s": round(s, 4), "of joint": round(s / joint, 3)} for name, s in times.items()]
    table(f"a step of {options.seconds} s of speech, pairs and text; over the sum: {joint / total - 1:+.1%}", rows)
    limits = measure_limits("cpu")
    finish(
        options.json,
        environment()
        | {"gflops_fp32": limits.fp32 / 1e9, "matching": options.matching, "seconds": options.seconds}
        | {"over the sum": round(joint / total - 1, 3), "rows": rows},
    )


def drawn(options: Namespace) -> dict[str, Batch]:
    """A batch of each kind from the train split, of about so many seconds, and of text half and twice as much."""
    cuts = [cut for cut in read_cuts(options.data, "train") if language_of(cut) in options.languages and text_of(cut)]
    texts = [as_cut(TextLine(text_of(cut) or "", language_of(cut), "text")) for cut in cuts]
    speech, paired, text = options.seconds
    wanted = {"speech": (cuts, speech), "paired": (cuts[::-1], paired), "text": (texts, text)}
    wanted |= {"half": (texts, text / 2), "twice": (texts, 2 * text)}
    batches = {}
    for kind, (source, seconds) in wanted.items():
        chosen, length = [], 0.0
        for cut in source[:: max(1, len(source) // 60)]:
            if length < seconds:
                chosen.append(cut)
                length += cut.duration
        loader = Loader(chosen)
        batches[kind] = loader.load(range(len(chosen)))
        loader.close()
    return batches


def step(model: Model, batches: dict[str, Batch], names: list[str]) -> Callable[[], None]:
    """Forward and backward of some objectives on the batches of their kinds."""
    kinds = {"best_rq": "speech", "recognition": "paired", "aligned_mlm": "text"}
    seconds = {kinds.get(name, "paired"): 1.0 for name in names}
    objectives = [{"name": name} | ({} if name in ("best_rq", "aligned_mlm") else {"language": 0}) for name in names]
    values = {"name": "step", "steps": 1, "seconds": seconds, "objectives": objectives}
    stage = Stage(StageRecipe.parse(values, "benchmark"), model).train()
    micro: dict[Any, Batch] = {kind: batches[kind] for kind in seconds}
    counts = stage.counts(micro)

    def run() -> None:
        parameters = trainable(stage, (), model)
        stage(micro, counts).total.backward()
        for parameter in parameters.values():
            parameter.grad = None

    return run


def inside(model: Model, pairs: Batch, name: str) -> dict[str, Callable[[], object]]:
    """Alignment, and stretching forward and backward, by themselves."""
    values = {"name": "step", "steps": 1, "seconds": {"paired": 1.0}, "objectives": [{"name": name, "language": 0}]}
    objective: Any = Stage(StageRecipe.parse(values, "benchmark"), model).objectives[name]
    with torch.no_grad():
        features, tokens = objective.frontend(pairs.audio), objective.targets(pairs)
        states = model.shared(model.heard(features, pairs.languages), languages=pairs.languages).final
        reader = objective.reader(features, states, pairs)
        lasting, _ = align(reader, tokens)
        units = model.text_encoder.embed(tokens, pairs.languages)

    def stretch() -> None:
        free = units.map(lambda values: values.detach().requires_grad_())
        assert model.text_encoder.upsampler is not None
        model.text_encoder.upsampler(free, lasting).values.sum().backward()

    return {"align": lambda: align(reader, tokens), "stretch": stretch}


if __name__ == "__main__":
    main()
