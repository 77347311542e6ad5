"""What a step on speech, pairs and text costs, against its parts, and what alignment and stretching take of it.

    python benchmarks/joint_step.py --model runs/most/model --data data/tuxpaint --languages bg es ro ru
        --json benchmarks/results/joint_step.json --plot docs/joint_step.svg       (in the project's environment)

Forward and backward without the optimizer, on real clips of about median length in memory. A joint step has BEST-RQ on
speech, matching and recognition on pairs, masked text; `over the sum` compares it with the three alone, one after the
other, in several mixtures of speech, pairs and text. `recognition` is the pairs without matching. `align` and
`stretch` are measured by themselves on the pairs. Text counts 14 characters a second.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from common import Timing, environment, finish, interleaved, measure_limits, parser, table
from matplotlib.figure import Figure

from isogloss.data.loading import Batch, Loader, as_cut
from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.model.alignment import Aligner, align
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.text.corpus import TextLine
from isogloss.training.recipe import StageRecipe
from isogloss.training.stage import Stage, trainable

KINDS = ("speech", "paired", "text")
SECONDS = (6, 12, 24)
MIXTURES = ((12, 12, 12), (24, 6, 6), (6, 24, 6), (6, 6, 24))
"""Seconds of speech, pairs and text."""


def main() -> None:
    arguments = parser(__doc__, repetitions=9)
    arguments.add_argument("--model", type=Path, required=True, help="a model with a text encoder that stretches")
    arguments.add_argument("--data", type=Path, required=True, help="folder made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--matching", choices=("most", "maestro"), default="most")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the costs there, as SVG")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model).train()
    batches = drawn(options)
    names = {"speech": "best_rq", "paired": options.matching, "text": "aligned_mlm"}
    steps: dict[str, Callable[[], object]] = {
        f"{kind} {seconds}": step(model, {kind: batches[kind, seconds]}, [names[kind]])
        for kind in KINDS
        for seconds in SECONDS
    }
    for mixture in MIXTURES:
        mixed = {kind: batches[kind, seconds] for kind, seconds in zip(KINDS, mixture, strict=True)}
        steps[f"joint {mixture}"] = step(model, mixed, list(names.values()))
    steps["recognition 12"] = step(model, {"paired": batches["paired", 12]}, ["recognition"])
    found = interleaved(steps | inside(model, batches["paired", 12], options.matching), options)
    mixtures = [row_of(found, mixture) for mixture in MIXTURES]
    table("a step against its parts", mixtures)
    joint = mixtures[0]["joint, s"]
    medians = {name: timing.median for name, timing in found.items()}
    rows = [{"what": name, "s": round(s, 4), "of joint": round(s / joint, 3)} for name, s in medians.items()]
    table(f"parts; `of joint`: of the step of {MIXTURES[0]} s", rows)
    limits = measure_limits(options.product)
    machine = environment() | {"gflops_fp32": limits.fp32 / 1e9, "matching": options.matching}
    finish(options.json, machine | {"mixtures": mixtures, "rows": rows})
    if options.plot:
        draw(found, mixtures, options.plot)


def row_of(found: dict[str, Timing], mixture: tuple[int, ...]) -> dict[str, Any]:
    """A joint step, and its parts alone."""
    parts = [found[f"{kind} {seconds}"].median for kind, seconds in zip(KINDS, mixture, strict=True)]
    joint = found[f"joint {mixture}"].median
    alone = {f"{kind} alone, s": round(part, 3) for kind, part in zip(KINDS, parts, strict=True)}
    seconds = "speech {}, pairs {}, text {}".format(*mixture)
    over = {"over the sum": round(joint / sum(parts) - 1, 3)}
    return {"seconds": seconds, "joint, s": round(joint, 3)} | alone | over


def draw(found: dict[str, Timing], mixtures: list[dict[str, Any]], path: Path) -> None:
    """Cost over the length of each kind of data; and joint steps beside their parts, one on the other."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    lines, bars = figure.subplots(1, 2)
    for kind, style in zip(KINDS, ("o-", "s--", "^:"), strict=True):
        lines.plot(SECONDS, [found[f"{kind} {seconds}"].median for seconds in SECONDS], style, label=kind)
    lines.set(xlabel="seconds of one kind in a step", title="one kind alone, s", xticks=SECONDS, ylim=(0, None))
    lines.legend(frameon=False)
    places = range(len(mixtures))
    below = [0.0] * len(mixtures)
    for kind in KINDS:
        heights = [row[f"{kind} alone, s"] for row in mixtures]
        bars.bar([place - 0.2 for place in places], heights, 0.38, bottom=below, label=f"{kind} alone")
        below = [low + height for low, height in zip(below, heights, strict=True)]
    bars.bar([place + 0.2 for place in places], [row["joint, s"] for row in mixtures], 0.38, color="0.4", label="joint")
    bars.set_xticks(list(places), ["·".join(map(str, mixture)) for mixture in MIXTURES])
    bars.set(xlabel="seconds of speech · pairs · text", title="a joint step and its parts, s")
    bars.set_ylim(0, 1.35 * bars.get_ylim()[1])  # room for the legend
    bars.legend(frameon=False, fontsize=7, ncols=2, loc="upper center")
    figure.savefig(path, metadata={"Date": None})


def drawn(options: Namespace) -> dict[tuple[str, int], Batch]:
    """A batch of so many seconds of each kind: clips of the train split whose length is about the median."""
    cuts = [cut for cut in read_cuts(options.data, "train") if language_of(cut) in options.languages and text_of(cut)]
    cuts.sort(key=lambda cut: cut.duration)
    texts = [as_cut(TextLine(text_of(cut) or "", language_of(cut), "text")) for cut in cuts]
    texts.sort(key=lambda cut: cut.duration)
    sources = {"speech": cuts, "paired": cuts[1:], "text": texts}
    batches = {}
    for kind in KINDS:
        middle = sources[kind][len(cuts) // 2 :: 2]
        for seconds in SECONDS:
            chosen = middle[: max(1, round(seconds / middle[0].duration))]
            loader = Loader(chosen)
            batches[kind, seconds] = loader.load(range(len(chosen)))
    return batches


def stage_of(model: Model, kinds: Iterable[str], names: list[str]) -> Stage:
    """A stage that draws these kinds of data for objectives that leave the language head alone."""
    alone = {"head_weights": {"language": 0}}
    objectives = [{"name": name} | ({} if name in ("best_rq", "aligned_mlm") else alone) for name in names]
    values = {"name": "step", "steps": 1, "seconds": dict.fromkeys(kinds, 1.0), "objectives": objectives}
    return Stage(StageRecipe.parse(values, "benchmark"), model)


def step(model: Model, batches: dict[str, Batch], names: list[str]) -> Callable[[], None]:
    """Forward and backward of an objective on each batch."""
    stage = stage_of(model, batches, names).train()
    stage.begin()
    prepared = {name: stage.objectives[name].prepare(batches[stage.streams[name]], training=True) for name in names}
    counts = stage.counts(prepared)

    def run() -> None:
        parameters = trainable(stage)
        stage(prepared, counts).total.backward()
        for parameter in parameters.values():
            parameter.grad = None

    return run


def inside(model: Model, pairs: Batch, name: str) -> dict[str, Callable[[], object]]:
    """Alignment, and stretching forward and backward, by themselves."""
    objective = stage_of(model, ["paired"], [name]).objectives[name]
    tokens = objective.prepare(pairs, training=True).extras["units"]
    with torch.no_grad():
        aligner = Aligner.of(model, model.encode(model.features(pairs.audio), languages=pairs.languages).final)
        lasting, _ = align(aligner, tokens)
        units = model.text_encoder.embed(tokens, pairs.languages)

    def stretch() -> None:
        free = units.map(lambda values: values.detach().requires_grad_())
        assert model.text_encoder.upsampler is not None
        model.text_encoder.upsampler(free, lasting).values.sum().backward()

    return {"align": lambda: align(aligner, tokens), "stretch": stretch}


if __name__ == "__main__":
    main()
