"""Does text that nobody spoke help where little speech is transcribed?

    python benchmarks/injection.py --start runs/heard/model --data data/tuxpaint data/fillets data/drascula
        data/festvox-ru --languages cs es nl ru --minutes 15 --runs runs/injection
        --json benchmarks/results/injection.json                                   (in the project's environment)

Every arm starts from the same encoder, which has only heard speech, and takes the same steps over the same pairs
(injection.yaml): `fine-tune` never sees the unspoken text, `most` and `maestro` see it in their second stage; `pairs
alone` is `most` without it. Unspoken text is the transcripts of the clips that are not labelled, less every
sentence of dev and test, in any language. CER in % of the test clips, the language told, with the 95 % interval of
the bootstrap over clips; `± fine-tune` is the difference on the same clips (paired bootstrap), below 0 the arm
is better, and `relative` its share of the first. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from low_resource import with_few_labels

from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.figures import Evaluation, errors
from isogloss.metrics.bootstrap import paired_difference
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import load_recipe

RECIPE = Path(__file__).with_suffix(".yaml")
ALONE = ["stages.1.seconds={paired: 24}"]
MASKS = "augment: {freq_width: 12, time_share: 0.05}"
ARMS = {
    "fine-tune": [
        *ALONE,
        "model.text=null",
        "stages.0.objectives=[{name: recognition}]",
        f"stages.1.objectives=[{{name: recognition, {MASKS}}}]",
    ],
    "pairs alone": [*ALONE, f"stages.1.objectives=[{{name: most, {MASKS}}}]"],
    "most": [],
    "maestro": [
        "stages.0.objectives=[{name: maestro, aligner: 0.99, mask: null}]",
        f"stages.1.objectives.0={{name: maestro, aligner: 0.99, {MASKS}}}",
    ],
}
"""What each arm changes in the recipe."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--start", type=Path, required=True, help="a model that has only heard speech")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 60], help="transcribed a language")
    arguments.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--runs", type=Path, required=True, help="where data and models are, or will be")
    arguments.add_argument("--processes", type=int, default=2)
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for minutes in options.minutes:
        first: dict[int, Evaluation] = {}
        for arm in options.arms:
            for seed in options.seeds:
                found = trained(options, minutes, arm, seed)
                rows.append({"minutes": minutes, "arm": arm, "seed": seed} | row(found, first.setdefault(seed, found)))
                table("text injection", rows)
    finish(options.json, environment() | {"languages": options.languages, "rows": rows})


def trained(options: Namespace, minutes: float, arm: str, seed: int) -> Evaluation:
    """The test clips as an arm reads them; its model is made if it is not there."""
    limits = dict.fromkeys(options.languages, minutes)
    data = with_few_labels(options.data, options.runs / f"data-{minutes:g}", options.languages, limits)
    run: Path = options.runs / f"{arm.replace(' ', '-')}-{minutes:g}-{seed}"
    if not (run / "model").is_dir():
        given = [f"model.start_from={options.start}", f"data.folders=[{data}]", f"seed={seed}"]
        train_in_processes(load_recipe(RECIPE, [*given, *ARMS[arm]]), run, options.processes)
    return evaluate(run / "model", [data], languages=options.languages, tell_language=True)


def row(found: Evaluation, first: Evaluation) -> dict[str, Any]:
    """Error rates of an arm, and the difference from the first one on the same clips."""
    assert found.mean_cer is not None and first.mean_cer is not None
    mean, base = found.mean_cer, first.mean_cer
    figures: dict[str, Any] = {
        language: round(100 * recognition.cer.value, 1)
        for language, recognition in sorted(found.languages.items())
        if recognition.cer is not None
    }
    figures |= {"CER": round(100 * mean.value, 1), "95 %": f"{100 * mean.low:.1f} – {100 * mean.high:.1f}"}
    if found is not first:
        mine, theirs = (errors([p for p in each.predictions if p.scored]) for each in (found, first))
        gain = paired_difference(mine.errors, theirs.errors, mine.totals)
        figures["± fine-tune"] = round(100 * gain.difference, 1)
        figures["± 95 %"] = f"{100 * gain.interval.low:.1f} – {100 * gain.interval.high:.1f}"
        figures["relative"] = round(100 * (mean.value / base.value - 1), 1)
    return figures


if __name__ == "__main__":
    main()
