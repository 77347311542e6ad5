"""Does text that nobody spoke help where little speech is transcribed, and what of it does?

    python benchmarks/injection.py --start runs/pretrained/model --data data/tuxpaint data/fillets
        --languages bg es ro ru --minutes 5 15 --runs runs/injection --json benchmarks/results/injection.json
        --plot docs/injection.svg                                                  (in the project's environment)

Every arm starts from the same recogniser, made of an encoder that was pre-trained on speech alone, and takes the same
steps over the same pairs (injection.yaml): `fine-tune` never sees the unspoken text; `most`, `maestro`, `mslam` and
`tts4pretrain` (espeak-ng speaks it) see it in their middle stage; `pairs alone` is `most` without it. Others are
`most` with one thing changed: `no pre-training` begins with random weights, `text from the start` has no steps before
text, `text to the end` none after it. Unspoken text is the transcripts of the clips that are not labelled and what
train clips say in these languages by their translations, less every sentence of dev and test, in any language. CER in
% of all characters of the test clips, the language told, all seeds together, with the 95 % interval of the bootstrap
over clips; `seeds` is that of each. `± fine-tune` is the difference from the first arm on the same clips (paired
bootstrap), below 0 the arm is better, and `relative` its share of the first arm's rate. `+ n-gram`: searched with a
6-gram model of the same transcripts and text; `+ n-gram of transcripts` leaves out the text, so that the two say what
is in it. Runs that are there are not made again."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, finish, parser, percent, rate, table
from low_resource import Rates, draw_rates, evaluated, text_encoder, with_few_labels
from runs import add_options, some_stages, trained

from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.predictions import by_language, errors
from isogloss.evaluation.results import Evaluation
from isogloss.metrics.bootstrap import paired_difference
from isogloss.metrics.error_rates import ErrorCounts
from isogloss.text.corpus import TextLine, write_text_lines
from isogloss.training.language_model import train_language_model

RECIPE = Path(__file__).with_suffix(".yaml")
MASKS = "augment: {freq_width: 12, time_share: 0.05}"
ALONE = "stages.0.seconds={paired: 24}"
READ = f"{{name: recognition, {MASKS}}}"
MOST = f"{{name: most, {MASKS}}}"
TEXT = text_encoder()
LEAVE_TEXT = "stages.1.freeze=[text]"
"""The last stage of the recipe trains on pairs alone, which the text encoder has no part in."""
UNSTRETCHED = text_encoder(layers=0, convolutions=0, refiner=0, upsampling="none")
FROM_THE_START = "text from the start"
WITH_TEXT, WITHOUT_TEXT = ", + n-gram", ", + n-gram of transcripts"
RANDOM = "no pre-training"
FINE_TUNE = [ALONE, f"stages.0.objectives=[{READ}]"]
ARMS = {
    "fine-tune": FINE_TUNE,
    "pairs alone": [TEXT, LEAVE_TEXT, ALONE, f"stages.0.objectives=[{MOST}]"],
    "most": [TEXT, LEAVE_TEXT],
    "maestro": [TEXT, LEAVE_TEXT, f"stages.0.objectives.0={{name: maestro, aligner: 0.99, {MASKS}}}"],
    "mslam": [UNSTRETCHED, LEAVE_TEXT, "stages.0.objectives=[{name: mslam}, {name: masked_text}]"],
    "tts4pretrain": [f"stages.0.objectives=[{READ}, {{name: tts4pretrain, masked: 0, {MASKS}}}]"],
    RANDOM: FINE_TUNE,
    f"most, {RANDOM}": [TEXT, LEAVE_TEXT],
    "no noise": [TEXT, LEAVE_TEXT, "stages.0.objectives.1.noise=0"],
    "text to the end": [
        TEXT,
        "stages.1.seconds={paired: 24, text: 24}",
        f"stages.1.objectives=[{READ}, {{name: aligned_mlm, noise: 1}}]",
        "stages.1.freeze=[text.duration]",
    ],
    FROM_THE_START: [
        TEXT,
        "stages.0.seconds={paired: 24, text: 24}",
        "stages.0.objectives=[{name: most}, {name: aligned_mlm, noise: 1}]",
        "stages.1.objectives.1={name: aligned_mlm, noise: 1}",
        "stages.2.freeze=[text]",
    ],
}
"""What each arm changes in the recipe, of which stage 0 is the one after `settle` except in `text from the start`."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--start", type=Path, required=True, help="a model that was pre-trained on speech alone")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--minutes", type=float, nargs="+", default=[5, 15], help="transcribed a language")
    arguments.add_argument("--settle", type=int, help="steps of the recogniser all start from")
    arguments.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    add_options(arguments)
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the error rates there, as SVG")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    rates: Rates = {}
    for minutes in options.minutes:
        panel = rates.setdefault(f"{minutes:g} minutes a language", {})
        first: dict[str, list[Evaluation]] = {}
        for arm in options.arms:
            read = [read_by(options, minutes, arm, seed) for seed in options.seeds]
            ways = {way: [one[way] for one in read] for way in read[0]}
            first = first or ways
            for way in ("", WITH_TEXT):
                panel.setdefault(way.removeprefix(", ") or "frame by frame", {})[arm] = percent(together(ways[way]))
            figures = {way: row(found, first[way]) for way, found in ways.items()}
            named = {f"{key}{way}": value for way, columns in figures.items() for key, value in columns.items()}
            rows.append({"minutes": minutes, "arm": arm} | named)
        table("text injection", rows)
    finish(options.json, environment() | {"languages": options.languages, "seeds": options.seeds, "rows": rows})
    if options.plot:
        draw_rates(rates, options.plot)


def read_by(options: Namespace, minutes: float, arm: str, seed: int) -> dict[str, Evaluation]:
    """The test clips as an arm reads them, by how it searches; its model is made if it is not there."""
    limits = dict.fromkeys(options.languages, minutes)
    folder = options.runs / f"data-{minutes:g}"
    data = with_few_labels(options.data, folder, options.languages, limits, translations=True)
    run: Path = options.runs / f"{arm.replace(', ', '-').replace(' ', '-')}-{minutes:g}-{seed}"
    given = [f"data.folders=[{data}]", f"seed={seed}"]
    weights = "random" if RANDOM in arm else "pre-trained"
    start = [f"model.start_from={options.start}"] if weights == "pre-trained" else []
    start += [f"stages.0.steps={options.settle}"] if options.settle else []
    stages = slice(None)
    if arm != FROM_THE_START:
        name = f"settled-{weights}-{minutes:g}-{seed}"
        settled = trained(some_stages(RECIPE, slice(1), [*given, *start]), options.runs / name, options)
        start = [f"model.start_from={settled}", "model.keep=all", "model.tokenizer=null"]
        stages = slice(1, None)
    model = trained(some_stages(RECIPE, stages, [*given, *start, *ARMS[arm]]), run, options)
    said = options.runs / f"said-{minutes:g}.jsonl.gz"
    write_text_lines(transcripts(data), said)
    sources: dict[str, dict[str, list[Path]]] = {
        WITH_TEXT: {"texts": [], "data": [data]},
        WITHOUT_TEXT: {"texts": [said], "data": []},
    }
    asked: dict[str, Any] = {"tasks": ["recognition"], "languages": options.languages, "tell_language": True}
    found = {"": evaluated(run / "plain.json", partial(evaluate, model, [data], **asked))}
    for way, source in sources.items():
        lm = run / ("lm" if way == WITH_TEXT else "lm-said")
        if not lm.is_dir():
            train_language_model(model, lm, **source)
        found[way] = evaluated(lm.with_suffix(".json"), partial(evaluate, model, [data], language_model=lm, **asked))
    return found


def transcripts(data: Path) -> Iterator[TextLine]:
    """What is said in the train clips that are transcribed."""
    for cut in read_cuts(data, "train"):
        if text := text_of(cut):
            yield TextLine(text, language_of(cut), "transcripts")


def row(found: list[Evaluation], first: list[Evaluation]) -> dict[str, Any]:
    """Error rates of an arm with all seeds, and the difference from the first arm on the same clips."""
    figures: dict[str, Any] = {}
    for language in sorted(by_language(found[0].predictions)):
        figures[language] = rate(together(found, language))["CER"]
    mine = together(found)
    figures |= rate(mine)
    figures["seeds"] = " ".join(str(rate(together([one]))["CER"]) for one in found)
    if found is not first:
        theirs = together(first)
        gain = paired_difference(mine.errors, theirs.errors, mine.totals)
        figures["± fine-tune"] = round(100 * gain.difference, 1)
        figures["± 95 %"] = f"{100 * gain.interval.low:.1f} – {100 * gain.interval.high:.1f}"
        figures["relative"] = round(100 * (mine.errors.sum() / theirs.errors.sum() - 1), 1)
    return figures


def together(found: list[Evaluation], language: str | None = None) -> ErrorCounts:
    """Errors of each clip, summed over the seeds: clips are what is drawn again, and seeds are no more clips."""
    counts = [errors([p for p in one.predictions if p.scored and language in (None, p.language)]) for one in found]
    return ErrorCounts(*(np.sum([getattr(one, field.name) for one in counts], axis=0) for field in fields(ErrorCounts)))


if __name__ == "__main__":
    main()
