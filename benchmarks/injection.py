"""Does text that nobody spoke help where little speech is transcribed?

    python benchmarks/injection.py --start runs/heard/model --data data/tuxpaint data/fillets
        --languages bg es ro ru --minutes 15 --runs runs/injection
        --json benchmarks/results/injection.json                                   (in the project's environment)

Every arm starts from the same recogniser, made of an encoder that has only heard speech, and takes the same steps over
the same pairs (injection.yaml): `fine-tune` never sees the unspoken text; `most`, `maestro`, `mslam` and `tts4pretrain`
(espeak-ng speaks it) see it in their middle stage; `pairs alone` is `most` without it. `no pre-training` is
`fine-tune` from random weights. Unspoken text is the transcripts of the clips that are not labelled and what train
clips say in these languages by their translations, less every sentence of dev and test, in any language. CER in % of
the test clips, the language told, with the 95 % interval of the bootstrap over clips; `± fine-tune` is the
difference on the same clips (paired bootstrap), below 0 the arm is better, and `relative` its share of the first.
`+ n-gram`: searched with a 6-gram model of the same transcripts and text. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from low_resource import trained, with_few_labels

from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.figures import Evaluation, errors
from isogloss.metrics.bootstrap import paired_difference
from isogloss.training.language_model import train_language_model

RECIPE = Path(__file__).with_suffix(".yaml")
MASKS = "augment: {freq_width: 12, time_share: 0.05}"
ALONE = "stages.0.seconds={paired: 24}"
READ = f"{{name: recognition, {MASKS}}}"
TEXT = "model.text={entry: 2, layers: 2, refiner: 1, duration_layers: 2, dropout: 0.0}"
UNSTRETCHED = "model.text={entry: 2, layers: 0, convolutions: 0, refiner: 0, upsampling: none, dropout: 0.0}"
ARMS = {
    "fine-tune": [ALONE, f"stages.0.objectives=[{READ}]"],
    "pairs alone": [TEXT, ALONE, f"stages.0.objectives=[{{name: most, {MASKS}}}]"],
    "most": [TEXT],
    "maestro": [TEXT, f"stages.0.objectives.0={{name: maestro, aligner: 0.99, {MASKS}}}"],
    "mslam": [UNSTRETCHED, "stages.0.objectives=[{name: mslam}, {name: masked_text}]"],
    "tts4pretrain": [f"stages.0.objectives=[{READ}, {{name: tts4pretrain, masked: 0, {MASKS}}}]"],
    "no pre-training": [ALONE, f"stages.0.objectives=[{READ}]"],
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
                found, searched = read_by(options, minutes, arm, seed)
                figures = row(found, first.setdefault(seed, found)) | with_search(searched)
                rows.append({"minutes": minutes, "arm": arm, "seed": seed} | figures)
                table("text injection", rows)
    finish(options.json, environment() | {"languages": options.languages, "rows": rows})


def read_by(options: Namespace, minutes: float, arm: str, seed: int) -> tuple[Evaluation, Evaluation]:
    """The test clips as an arm reads them, without and with an n-gram model; its model is made if it is not there."""
    limits = dict.fromkeys(options.languages, minutes)
    folder = options.runs / f"data-{minutes:g}"
    data = with_few_labels(options.data, folder, options.languages, limits, translations=True)
    given = [f"data.folders=[{data}]", f"seed={seed}"]
    heard = arm != "no pre-training"
    name = f"settled-{'heard' if heard else 'random'}-{minutes:g}-{seed}"
    start = [f"model.start_from={options.start}"] if heard else []
    settled = trained(RECIPE, slice(1), options.runs / name, [*given, *start], options.processes)
    run: Path = options.runs / f"{arm.replace(' ', '-')}-{minutes:g}-{seed}"
    kept = [f"model.start_from={settled}", "model.keep=all", "model.tokenizer=null"]
    model = trained(RECIPE, slice(1, None), run, [*given, *kept, *ARMS[arm]], options.processes)
    if not (run / "lm").is_dir():
        train_language_model(model, run / "lm", texts=[], data=[data])
    asked: dict[str, Any] = {"languages": options.languages, "tell_language": True}
    return evaluate(model, [data], **asked), evaluate(model, [data], language_model=run / "lm", **asked)


def with_search(found: Evaluation) -> dict[str, Any]:
    """The mean error rate of what was searched with a language model."""
    assert found.mean_cer is not None
    mean = found.mean_cer
    return {
        "+ n-gram": round(100 * mean.value, 1),
        "+ n-gram, 95 %": f"{100 * mean.low:.1f} – {100 * mean.high:.1f}",
    }


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
