"""Long recordings without cutting them: full, local and chunk-wise attention, the deeper the encoder.

    python benchmarks/long_form.py --data data/festvox-ru data/tuxpaint --runs runs/long-form
        --json benchmarks/results/long_form.json --plot docs/long_form.svg        (in the project's environment)

USM's argument (arXiv 2303.01037 §2.4): with a local window the receptive field grows with depth beyond anything
seen in training, so that on long recordings deletions grow with depth; with chunks it is the chunk, at any depth.
Models of long_form.yaml are trained on clips of at most 15 s, as many steps each (runs that are there are not made
again). On such clips a window of 15 s to both sides and a chunk of 15 s are full attention, so that one model has
learned all three. It writes the held-out clips of the first corpus one by one, and joined to recordings of at least two
minutes, which are encoded whole. Deletions, insertions and substitutions are % of the characters; CER with the 95 %
interval of the bootstrap over recordings.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table
from lhotse.cut import MonoCut
from matplotlib.figure import Figure
from numpy.typing import NDArray
from runs import add_options, trained

from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.metrics.error_rates import ErrorCounts, error_counts
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise
from isogloss.training.recipe import load_recipe

RECIPE = Path(__file__).with_suffix(".yaml")
LONGEST = 375
"""Frames of the longest clip seen in training."""
CONTEXTS: dict[str, Context] = {
    "full": FullContext(),
    "local": LocalContext(left=LONGEST, right=LONGEST),
    "chunk": ChunkContext(size=LONGEST),
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    add_options(arguments)
    arguments.add_argument("--longer", type=float, default=120.0, help="seconds a joined recording has at least")
    arguments.add_argument("--depths", nargs="+", type=int, default=[3, 6, 12], help="blocks of the encoders")
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the deletions there, as SVG")
    options = arguments.parse_args()
    languages = load_recipe(RECIPE).data.languages
    clips = [cut for cut in read_cuts(options.data[0], "test") if language_of(cut) in languages]
    recordings = {"clips": [[cut] for cut in clips], "joined": joined(clips, options.longer)}
    rows: list[dict[str, Any]] = []
    for depth in options.depths:
        model = of_depth(options, depth)
        for name, groups in recordings.items():
            for context in CONTEXTS if name == "joined" else ["full"]:
                model.encoder.context = CONTEXTS[context]
                rows.append({"blocks": depth, "recordings": name, "context": context} | errors(model, groups))
    seconds = sorted(sum(cut.duration for cut in group) for group in recordings["joined"])
    table(f"{len(clips)} clips, and joined to {len(seconds)} recordings of {seconds[0]:.0f} s or more", rows)
    if options.plot:
        draw(rows, options.plot)
    about = {"clips": len(clips), "joined": len(seconds), "languages": list(languages)}
    finish(options.json, environment() | about | {"rows": rows})


def of_depth(options: Namespace, depth: int) -> Model:
    """The model with so many blocks."""
    settings = [
        f"name=long-form-{depth}",
        f"data.folders=[{', '.join(map(str, options.data))}]",
        f"model.encoder.blocks.layers={depth}",
    ]
    return load_model(trained(load_recipe(RECIPE, settings), options.runs / f"blocks-{depth}", options))


def joined(clips: list[MonoCut], longer: float) -> list[list[MonoCut]]:
    """Clips of one language in a fixed order, as many as make `longer` seconds; what is left over is left out."""
    found: list[list[MonoCut]] = []
    for language in sorted({language_of(cut) for cut in clips}):
        group: list[MonoCut] = []
        for cut in sorted((cut for cut in clips if language_of(cut) == language), key=lambda cut: cut.id):
            group.append(cut)
            if sum(cut.duration for cut in group) >= longer:
                found.append(group)
                group = []
    return found


@torch.inference_mode()
def errors(model: Model, recordings: list[list[MonoCut]]) -> dict[str, Any]:
    """What CTC writes of each recording, encoded whole."""
    references, hypotheses = [], []
    for group in recordings:
        audio = torch.from_numpy(np.concatenate([waveform(cut) for cut in group]))
        states = model.encode(model.features(Sequence.from_list([audio]))).final
        assert model.tokenizer is not None
        hypotheses.append(model.tokenizer.decode(model.decode(states, "ctc")[0].tokens))
        references.append(" ".join(normalise(text_of(cut) or "", language_of(cut)) for cut in group))
    counts = error_counts(references, hypotheses, unit="character")
    shares = {kind: percent(getattr(counts, kind), counts) for kind in ("deletions", "insertions", "substitutions")}
    sure = bootstrap_interval(counts.errors, counts.totals)
    rate = {"cer": percent(counts.errors, counts)}
    return shares | rate | {"low": round(100 * sure.low, 1), "high": round(100 * sure.high, 1)}


def percent(errors: NDArray[np.int64], counts: ErrorCounts) -> float:
    """Of the characters of the references."""
    return round(100 * float(errors.sum() / counts.totals.sum()), 1)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Deletions over depth: a line for each context on joined recordings, and one for the clips."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    lines = [("joined", context) for context in CONTEXTS] + [("clips", "full")]
    for line, colour in zip(lines, ("#009e73", "#d55e00", "#0072b2", "#888888"), strict=True):
        points = [row for row in rows if (row["recordings"], row["context"]) == line]
        depths, deletions = zip(*((row["blocks"], row["deletions"]) for row in points), strict=True)
        label = f"{line[1]} attention, 2 minutes" if line[0] == "joined" else "clips"
        axes.plot(depths, deletions, "o-" if line[0] == "joined" else "o--", color=colour, markersize=4, label=label)
    axes.set(xlabel="blocks of the encoder", ylabel="deletions, % of characters", ylim=(0, None))
    axes.set_xticks(sorted({row["blocks"] for row in rows}))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
