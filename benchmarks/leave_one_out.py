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
from runs import add_options, some_stages, trained

from isogloss.data.clips import open_corpus
from isogloss.evaluation.evaluate import evaluate
from isogloss.files import read_json
from isogloss.training.source import transcribed


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--recipe", type=Path, required=True)
    arguments.add_argument("--start", type=Path, required=True, help="the model it starts from")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--hold-out", nargs="+", required=True, metavar="NAME", help="names of folders among --data")
    arguments.add_argument("--minutes", type=float, required=True, help="of training each")
    add_options(arguments)
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
    known = languages(others, "train")
    common = sorted(known & languages([held], "test"))
    if not common:
        raise SystemExit(f"The other corpora have no transcripts in a language of {name}.")
    changes = [f"model.start_from={options.start}", f"data.folders={[str(folder) for folder in others]}"]
    recipe = some_stages(options.recipe, slice(None), [*changes, f"data.languages={sorted(known)}"])
    model = trained(recipe, options.runs / name, options, options.minutes)
    found = evaluate(model, [held], tasks=["recognition"], languages=common, tell_language=True, beam=1)
    systems = {"without this corpus": keyed(found)}
    if options.hypotheses:
        peer = read_json(options.hypotheses / f"{name}.json")
        systems[peer["system"]] = from_file(peer)
    return compare(systems)


def languages(folders: list[Path], split: str) -> set[str]:
    """Those of which there are transcripts."""
    corpora = map(open_corpus, folders)
    return {tag for clips in corpora for tag in transcribed(clips.select(clips.in_split(split))).languages()}


if __name__ == "__main__":
    main()
