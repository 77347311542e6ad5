"""Minutes of speech in one language: adapters on a frozen encoder against training everything.

    python benchmarks/finetuning.py --model runs/usm-small/model --data data/gcompris --languages de gd pt-BR fr
        --before data/tuxpaint --runs runs/little --json benchmarks/results/finetuning.json
                                                                           (in the project's environment)

`isogloss finetune` as it is, once a way and language, on the train clips; CER on the test clips with the 95 % interval
of the bootstrap. `± adapters` is whole minus adapters on the same clips (paired bootstrap): above 0 they are better.
`before` is the CER of the base on test clips of corpora and languages it was trained on, `after` that of the fine-tuned
model: what was forgotten; adapters leave the base as it is, and what they do not serve is read by it. Runs that are
there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from common import environment, finish, parser, rate, table
from runs import add_options, trained

from isogloss.adaptation.finetune import plan
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.predictions import errors
from isogloss.metrics.bootstrap import paired_difference
from isogloss.metrics.error_rates import ErrorCounts
from isogloss.model.folder import load_model

WAYS = ("adapters", "whole")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a model that recognises")
    arguments.add_argument("--data", type=Path, required=True, help="folder made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True, help="one model each")
    arguments.add_argument("--before", type=Path, nargs="+", required=True, help="corpora the model was trained on")
    add_options(arguments)
    options = arguments.parse_args()
    known = list(load_model(options.model).config.alphabets)
    before = counts(options.model, options.before, known)
    rows: list[dict[str, Any]] = []
    for language in options.languages:
        found = {way: adapted(options, language, way) for way in WAYS}
        by_way = {way: counts(folder, [options.data], [language]) for way, folder in found.items()}
        gain = paired_difference(by_way["whole"].errors, by_way["adapters"].errors, by_way["whole"].totals)
        for way, folder in found.items():
            row: dict[str, Any] = {"language": language, "known": language in known, "way": way}
            row |= {"clips": len(by_way[way].totals)} | rate(by_way[way])
            if way == "whole":
                row["± adapters"] = round(100 * gain.difference, 1)
                row["± 95 %"] = f"{100 * gain.interval.low:.1f} – {100 * gain.interval.high:.1f}"
                row["before"] = rate(before)["CER"]
                row["after"] = rate(counts(folder, options.before, known))["CER"]
            rows.append(row)
    table("fine-tuning on minutes of speech", rows)
    finish(options.json, environment() | {"data": options.data.name, "rows": rows})


def adapted(options: Namespace, language: str, way: Any) -> Path:
    """The model folder of a run, which is made if it is not there."""
    recipe = plan(options.model, [options.data], languages=(language,), way=way).recipe
    return trained(recipe, options.runs / f"{language}-{way}", options)


def counts(folder: Path, data: list[Path], languages: list[str]) -> ErrorCounts:
    """Errors of each test clip, the language told."""
    found = evaluate(folder, data, tasks=["recognition"], languages=languages, tell_language=True, beam=1)
    return errors([prediction for prediction in found.predictions if prediction.scored])


if __name__ == "__main__":
    main()
