"""What self-supervised methods learn from the same speech, as far as linear probes find it.

    python benchmarks/methods.py --data data/tuxpaint data/fillets --other data/gcompris --phones data/festvox-ru
        --speakers data/fillets --hours 2 --runs runs/methods --json benchmarks/results/methods.json
                                                                                   (in the project's environment)

Every method's shipped recipe is trained on so many hours of audio, all stages together, in steps and with rates as the
recipe has them; then `isogloss probe` is asked: languages, learned on the clips of --data and tested on --other, of
other voices; phones of --phones, frame by frame; speakers of --speakers. Log-mel features, MFCCs and random weights
stand beside, and --models that are trained already. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from runs import add_options, trained

from isogloss.evaluation.probing import Parts, parts_of, probe
from isogloss.evaluation.representations import Representation, representation
from isogloss.training.recipe import Recipe, StageRecipe, load_recipe

METHODS = ("apc", "mockingjay", "cpc", "wav2vec2", "hubert", "w2v-bert", "data2vec", "usm")
BASELINES = ("log_mel", "mfcc", "random:tiny")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--other", type=Path, nargs="*", default=[], help="such folders, of other voices")
    arguments.add_argument("--phones", type=Path, help="such a folder, with phones")
    arguments.add_argument("--speakers", type=Path, help="such a folder, with several speakers")
    arguments.add_argument("--hours", type=float, required=True, help="of audio that each method is trained on")
    arguments.add_argument("--methods", nargs="+", default=METHODS, help="names of shipped recipes, without -tiny")
    arguments.add_argument("--models", nargs="*", default=[], help="what else is probed, as for isogloss probe")
    arguments.add_argument("--overrides", nargs="*", default=[], help="of every recipe")
    arguments.add_argument("--seeds", type=int, default=3, help="of probes")
    add_options(arguments)
    options = arguments.parse_args()
    folders = {method: trained(recipe(options, method), options.runs / method, options) for method in options.methods}
    named: list[tuple[str, Representation]] = [(name, representation(name)) for name in (*BASELINES, *options.models)]
    named += [(method, representation(str(folder))) for method, folder in folders.items()]
    columns = {task: accuracies(options, task, parts, named) for task, parts in asked(options).items()}
    rows = [{"representation": name} | {task: found[place] for task, found in columns.items()}
            for place, (name, _) in enumerate(named)]  # fmt: skip
    table(f"accuracy of linear probes, %, after {options.hours:g} h", rows)
    finish(options.json, environment() | {"hours": options.hours, "rows": rows})


def recipe(options: Namespace, method: str) -> Recipe:
    """A shipped recipe without what follows pre-training, for so many hours of the data."""
    where = f"data.folders=[{','.join(map(str, options.data))}]"
    shipped = load_recipe(f"{method}-tiny", [where, *options.overrides])
    stages = [stage for stage in shipped.stages if not isinstance(stage, StageRecipe) or "speech" in stage.seconds]
    hours = options.hours / sum(isinstance(stage, StageRecipe) for stage in stages)
    kept = (shortened(stage, hours) if isinstance(stage, StageRecipe) else stage for stage in stages)
    return shipped.model_copy(update={"stages": tuple(kept)})


def shortened(stage: StageRecipe, hours: float) -> StageRecipe:
    """The stage for so many hours, with one look at its end."""
    steps = max(1, round(hours * 3600 / stage.seconds["speech"]))
    return stage.model_copy(update={"steps": steps, "evaluate_every": steps, "save_every": steps})


def asked(options: Namespace) -> dict[str, Parts]:
    """The clips of each task."""
    found = {"language": parts_of(options.data, options.other)}
    if options.phones:
        found["phones"] = parts_of([options.phones])
    if options.speakers:
        found["speaker"] = parts_of([options.speakers])
    return found


def accuracies(options: Namespace, task: str, parts: Parts, named: list[tuple[str, Representation]]) -> list[Any]:
    """`47.1 [45.0, 49.3]` of each representation."""
    found, _ = probe([one for _, one in named], [task], parts, seeds=options.seeds)
    figures = [row.figures["accuracy"] for row in found.rows]
    return [" ".join([f"{100 * f.value:.1f}", f"[{100 * f.low:.1f}, {100 * f.high:.1f}]"]) for f in figures]


if __name__ == "__main__":
    main()
