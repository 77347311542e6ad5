"""Corpora and voices never trained on: a recipe without one of its corpora, measured on that one.

    python benchmarks/leave_one_out.py --recipe model/recipe.yaml --start DIR --data DIR… --hold-out NAME…
        --minutes 20 --runs runs/without --hypotheses whisper --json benchmarks/results/leave_one_out.json
                                                                                   (in the project's environment)

For each corpus to hold out the recipe is trained from --start on the others, within so many minutes, and transcribes
the held-out test clips, decided frame by frame and told the language, in the languages that the others have. A sentence
of these clips may occur in the other corpora.
--hypotheses is a folder of files that `whisper_base.py` wrote, one a corpus; only clips count that both have
transcribed. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from recognition import compare, from_file, keyed

from isogloss.config import load_yaml, override
from isogloss.data.manifests import language_of, read_cuts
from isogloss.evaluation.evaluate import evaluate
from isogloss.files import read_json
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe
from isogloss.training.source import transcribed


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--recipe", type=Path, required=True)
    arguments.add_argument("--start", type=Path, required=True, help="the model it starts from")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--hold-out", nargs="+", required=True, metavar="NAME", help="names of folders among --data")
    arguments.add_argument("--minutes", type=float, required=True, help="of training each")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--runs", type=Path, required=True, help="where the models are, or will be")
    arguments.add_argument("--hypotheses", type=Path, help="folder with NAME.json of whisper_base.py")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.hold_out:
        found = without(options, name)
        table(f"{name}, of which nothing was trained on", found)
        rows += [{"corpus": name} | row for row in found]
    finish(options.json, environment() | {"minutes": options.minutes, "rows": rows})


def without(options: Namespace, name: str) -> list[dict[str, Any]]:
    """Figures on a corpus of the model that was trained on the others."""
    held = next(folder for folder in options.data if folder.name == name)
    others = [folder for folder in options.data if folder != held]
    run = options.runs / name
    known = languages(others, "train")
    common = sorted(known & languages([held], "test"))
    if not common:
        raise SystemExit(f"The other corpora have no transcripts in a language of {name}.")
    if not (run / "model").is_dir():
        changes = [f"model.start_from={options.start}", f"data.folders={[str(folder) for folder in others]}"]
        values = override(load_yaml(options.recipe), [*changes, f"data.languages={sorted(known)}"])
        recipe = Recipe.parse(values, str(options.recipe))
        train_in_processes(recipe, run, options.processes, minutes=options.minutes)
    found = evaluate(run / "model", [held], tasks=["recognition"], languages=common, tell_language=True, beam=1)
    systems = {"without this corpus": keyed(found)}
    if options.hypotheses:
        peer = read_json(options.hypotheses / f"{name}.json")
        systems[peer["system"]] = from_file(peer)
    return compare(systems)


def languages(folders: list[Path], split: str) -> set[str]:
    """Those of which there are transcripts."""
    return {language_of(cut) for folder in folders for cut in transcribed(read_cuts(folder, split))}


if __name__ == "__main__":
    main()
