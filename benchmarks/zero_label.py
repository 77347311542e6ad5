"""Languages of which not one clip is transcribed, or few: how far do their text and untranscribed speech go?

    python benchmarks/zero_label.py --start runs/pretrained/model --data data/tuxpaint --labelled bg es fr ro ru
        --zero be ca el --runs runs/zero-label --json benchmarks/results/zero_label.json
                                                                                   (in the project's environment)

Every arm starts from the same recogniser of the labelled languages, made of an encoder that was pre-trained on speech
of all languages, and takes the same steps over the same pairs (zero_label.yaml). `without text` gets
untranscribed speech of all languages beside them. The next read unspoken text of all languages too, as phonemes, its
symbols spelled in Latin letters, or in bytes as in Maestro-U, and have an adapter for each language in the blocks
that speech and text share; `phonemes of pairs alone` has all that and no unspoken text. Others change one thing: they
leave out the adapters, matching's gradient on the speech side, that the text encoder is not told the language, the
refiner or durations of single symbols; or add noise to what is read, or stretch it otherwise. With `own labels` the
recogniser transcribes the untranscribed train clips, with the n-gram model that --search uses and the bonus a symbol
with which it writes about as fast as people speak, and trains on with these beside the transcripts. `oracle` has the
transcripts of the zero-label languages from the beginning, and adapters, instead of text. No sentence of dev or test,
in any language, is in the text, and dev transcripts of the zero-label languages choose nothing. CER in % of test
clips, the language told, with the 95 % interval of the bootstrap. `±` is the difference from the first of --arms on
the same clips (paired bootstrap), below 0 the arm is better, `relative` its share of the first arm's rate, and `gap
closed` = (first - arm) / (first - oracle). `one sentence` gets no audio and always says the train text that is
nearest to the others. With --few 1 5 the same languages have so many transcribed minutes instead of none; with
--search arms are measured once more, decoded with an n-gram model of all that the train split says and of the unspoken
text, which every arm may read. Runs that are there are not made again.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from low_resource import Rates, draw_rates, evaluated, text_encoder, with_few_labels
from runs import add_options, some_stages, trained

from isogloss.adaptation.pseudo_labels import OwnTeacher, bonus_for_pace, label
from isogloss.data.clips import open_corpus
from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, split_of, text_of
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.predictions import by_language, errors
from isogloss.evaluation.results import Evaluation
from isogloss.metrics.bootstrap import bootstrap_interval, paired_difference
from isogloss.metrics.error_rates import error_counts, nearest_to_others
from isogloss.model.recogniser import Recogniser, load
from isogloss.text.espeak import phonemes
from isogloss.text.languages import language_name
from isogloss.text.normalise import normalise
from isogloss.training.language_model import train_language_model
from isogloss.training.recipe import DataRecipe
from isogloss.training.source import read_texts, transcribed

RECIPE = Path(__file__).with_suffix(".yaml")
PAIRS = "{name: recognition, augment: {freq_width: 12, time_share: 0.05}}"
NO_TEXT = [
    "stages.0.seconds={speech: 8, paired: 16}",
    "stages.0.temperatures={speech: 3}",
    f"stages.0.objectives=[{{name: best_rq}}, {PAIRS}]",
]
ENTRY = 2
ADAPTERS = f"model.adapters={{share: language, after: {ENTRY}}}"
STILL = "stages.0.objectives.1.both_sides=false"


def reading(units: str, **changes: object) -> list[str]:
    """Text that is read so, with an adapter for each language."""
    spoken = ["model.heads.phonemes={}"] if units == "phonemes" else []
    return [text_encoder(**{"entry": ENTRY, "units": units, "languages": False} | changes), ADAPTERS, *spoken]


PHONEMES = reading("phonemes")
MATCHED = "{name: most, both_sides: true, augment: {freq_width: 12, time_share: 0.05}}"
ARMS: dict[str, list[str]] = {
    "without text": NO_TEXT,
    "oracle": [*NO_TEXT, ADAPTERS],
    "phonemes": PHONEMES,
    "latin": reading("latin"),
    "bytes": reading("bytes"),
    "phonemes of pairs alone": [*PHONEMES, *NO_TEXT[:2], f"stages.0.objectives=[{{name: best_rq}}, {MATCHED}]"],
    "phonemes, no adapters": [change for change in PHONEMES if change != ADAPTERS],
    "phonemes, speech side still": [*PHONEMES, STILL],
    "phonemes, text told the language": reading("phonemes", languages=True),
    "phonemes, noise": [*PHONEMES, "stages.0.objectives.2.noise=2"],
    "phonemes, no refiner": reading("phonemes", refiner=0),
    "phonemes, every symbol lasts alike": reading("phonemes", duration_layers=0),
    "phonemes, learned upsampling": reading("phonemes", upsampling="learned"),
    "latin, both of these": [*reading("latin", languages=True), STILL],
    "phonemes, own labels": [],
    "phonemes, own labels twice": [],
}
"""What each arm changes in the recipe."""
PACED = 60
"""Clips by which the bonus of a search is chosen."""
TEACHERS = {"phonemes, own labels": "phonemes", "phonemes, own labels twice": "phonemes, own labels"}
"""Arms that go on from another, and learn from what that one makes of the speech, too."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--start", type=Path, required=True, help="a model that was pre-trained on speech alone")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--labelled", nargs="+", required=True, help="languages with transcripts")
    arguments.add_argument("--zero", nargs="+", required=True, help="languages without")
    arguments.add_argument("--minutes", type=float, default=60, help="transcribed a language, at most")
    arguments.add_argument("--few", type=float, nargs="+", default=[0.0], help="minutes transcribed in those without")
    arguments.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments.add_argument("--encoder-rate", type=float, help="learning rate of the encoder: lower for an imported one")
    arguments.add_argument("--sure", type=float, default=0.3, help="confidence of an own label, at least")
    arguments.add_argument("--search", action="store_true", help="measure with an n-gram model too")
    add_options(arguments)
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw the error rates there, as SVG")
    options = arguments.parse_args()
    searches = [False, True] if options.search else [False]
    ways = list(product(options.few, searches, options.seeds, options.arms))
    found = {way: result(options, *way) for way in ways}
    rows = [{"minutes": "", "n-gram model": "", "arm": "one sentence", "seed": ""} | one_sentence(options)]
    for (*conditions, arm), evaluation in found.items():
        base, oracle = found[(*conditions, options.arms[0])], found.get((*conditions, "oracle"))
        few, searched, seed = conditions
        known = {"minutes": few, "n-gram model": "yes" if searched else "no", "arm": arm, "seed": seed}
        rows.append(known | row(evaluation, base, oracle, options.zero))
    table("languages without transcripts", rows)
    languages = {"labelled": options.labelled, "zero": options.zero}
    finish(options.json, environment() | languages | {"rows": rows})
    if options.plot:
        draw_rates(panels(found, options.zero), options.plot)


def panels(found: dict[tuple[float, bool, int, str], Evaluation], zero: list[str]) -> Rates:
    """Error rates by language, transcribed minutes, search and arm; of the last seed."""
    rates: Rates = {}
    for (few, searched, _, arm), evaluation in found.items():
        name = f"{few:g} min transcribed{', n-gram model' if searched else ''}"
        for language in zero:
            sure = evaluation.table("recognition").figure("CER", language=language)
            series = rates.setdefault(language_name(language), {}).setdefault(name, {})
            series[arm] = (100 * sure.value, 100 * sure.low, 100 * sure.high)
    return rates


def result(options: Namespace, few: float, searched: bool, seed: int, arm: str) -> Evaluation:
    """Figures of an arm on the test clips; its models of speech and of language are made if they are not there."""
    data = corpus(options, options.minutes if arm == "oracle" else few)
    model = recogniser(options, data, seed, arm)
    languages = [*options.labelled, *options.zero]
    asked: dict[str, Any] = {"tasks": ["recognition"], "languages": languages, "tell_language": True}
    if not searched:
        return evaluated(model.parent / "plain.json", lambda: evaluate(model, [data], **asked, beam=1))
    add_language_model(model, data)
    return evaluated(model.parent / "searched.json", lambda: evaluate(model, [data], **asked))


def recogniser(options: Namespace, data: Path, seed: int, arm: str) -> Path:
    """The model of an arm; made if it is not there."""
    run: Path = options.runs / f"{arm.replace(', ', '-').replace(' ', '-')}{data.name.removeprefix('data')}-{seed}"
    if teacher := TEACHERS.get(arm):
        start = recogniser(options, data, seed, teacher)
        folders = [data, own_labels(options, data, start)]
    else:
        start, folders = settled(options, data, seed), [data]
    changes = [
        f"model.start_from={start}",
        "model.keep=all",
        "model.tokenizer=null",
        f"data.folders={[str(folder) for folder in folders]}",
        f"seed={seed}",
        *ARMS[arm],
        *own_rate(options, "cosine", adapters=ADAPTERS in ARMS[TEACHERS.get(arm, arm)]),
    ]
    return trained(some_stages(RECIPE, slice(1, None), changes), run, options)


def add_language_model(model: Path, data: Path) -> None:
    """Give a recogniser an n-gram model of what it may read, if it has none."""
    if not (model / "lm").is_dir():
        train_language_model(model, model / "lm", texts=[], data=[data])


def own_labels(options: Namespace, data: Path, model: Path) -> Path:
    """What a recogniser makes of the untranscribed train clips; made if it is not there."""
    folder = model.parent / "labels"
    if not folder.is_dir():
        add_language_model(model, data)
        asked: dict[str, Any] = {"languages": tuple(options.zero), "confidence": options.sure, "shortest": 0.3}
        teacher = OwnTeacher(recogniser := load(model), bonuses(options, data, recogniser))
        print(f"{model.parent.name}: nats a symbol by language for its labels: {dict(teacher.bonus)}", flush=True)
        label(data, teacher, folder, name=model.parent.name, **asked)
    return folder


def bonuses(options: Namespace, data: Path, recogniser: Recogniser) -> dict[str, float]:
    """In languages without transcripts, the bonus of a search that writes as fast as people there are likely to speak.

    Phonemes a second are those of the labelled languages, characters a phoneme those of the language's own text.
    """
    clips = open_corpus(data)
    train = clips.select(clips.in_split("train"))
    spoken, seconds = 0, 0.0
    for tag in options.labelled:
        said = transcribed(train.select(train.of_languages(tag.__eq__)))
        spoken += sum(map(len, phonemes([normalise(text_of(cut) or "", tag) for cut in said], tag)))
        seconds += sum(said.seconds().values())
    texts = read_texts(DataRecipe(folders=(data,), translations=True))
    found = {}
    for tag in options.zero:
        written = [normalise(text_of(cut) or "", tag) for cut in texts.select(texts.of_languages(tag.__eq__))]
        pace = spoken / seconds * sum(map(len, written)) / sum(map(len, phonemes(written, tag)))
        heard = train.select(train.of_languages(tag.__eq__))[:PACED]
        found[tag] = bonus_for_pace(recogniser, [waveform(cut) for cut in heard], tag, pace)
    return found


def settled(options: Namespace, data: Path, seed: int) -> Path:
    """The recogniser of what is transcribed in the data, from which arms start; made if it is not there."""
    start = [f"model.start_from={options.start}", *own_rate(options, "constant")]
    changes = [*start, f"data.folders=[{data}]", f"seed={seed}"]
    return trained(some_stages(RECIPE, slice(1), changes), options.runs / f"settled-{data.name}-{seed}", options)


def own_rate(options: Namespace, schedule: str, *, adapters: bool = False) -> list[str]:
    """The encoder's own learning rate, if it has one, on the schedule of the rest; its new adapters have that of these.
    """
    if options.encoder_rate is None:
        return []
    known = f"schedule: {schedule}, warmup: 0.02"
    new = f", encoder.adapters: {{{known}}}" if adapters else ""
    return [f"stages.0.optimizers={{encoder: {{peak: {options.encoder_rate}, muon: 0, {known}}}{new}}}"]


def corpus(options: Namespace, few: float) -> Path:
    """All clips, with transcripts in the labelled languages, and of so many minutes in the others."""
    languages = [*options.labelled, *options.zero]
    given = dict.fromkeys(options.labelled, options.minutes) | dict.fromkeys(options.zero if few else [], few)
    name = {0.0: "data", options.minutes: "data-oracle"}.get(few, f"data-{few:g}")
    return with_few_labels(options.data, options.runs / name, languages, given)


def one_sentence(options: Namespace) -> dict[str, Any]:
    """Error rates of always the same: of what is said in the train split, the text that is nearest to the others."""
    languages = [*options.labelled, *options.zero]
    said: dict[str, dict[str, list[str]]] = {language: defaultdict(list) for language in languages}
    for cut in (cut for folder in options.data for cut in read_cuts(folder)):
        if (tag := language_of(cut)) in said and (text := normalise(text_of(cut) or "", tag)):
            said[tag][split_of(cut) or "train"].append(text)
    figures = {}
    for language, splits in sorted(said.items()):
        always = [nearest_to_others(splits["train"])] * len(splits["test"])
        counts = error_counts(splits["test"], always, unit="character")
        sure = bootstrap_interval(counts.errors, counts.totals)
        rate = counts.errors.sum() / counts.totals.sum()
        figures[language] = f"{100 * rate:.1f} [{100 * sure.low:.1f} – {100 * sure.high:.1f}]"
    return figures


def row(found: Evaluation, base: Evaluation, oracle: Evaluation | None, zero: list[str]) -> dict[str, Any]:
    """Error rates of an arm; in each language without transcripts what the base is worse by, and the gap closed."""
    figures: dict[str, Any] = {}
    for language, rate in rates(found).items():
        sure = found.table("recognition").figure("CER", language=language)
        figures[language] = f"{rate:.1f} [{100 * sure.low:.1f} – {100 * sure.high:.1f}]"
    for language in zero if found is not base else []:
        high, own = rates(base)[language], rates(found)[language]
        mine, theirs = (errors([p for p in one.predictions if p.language == language]) for one in (found, base))
        gain = paired_difference(mine.errors, theirs.errors, mine.totals)
        low, most = 100 * gain.interval.low, 100 * gain.interval.high
        figures[f"±, {language}"] = f"{100 * gain.difference:.1f} [{low:.1f} – {most:.1f}]"
        figures[f"relative, {language}"] = round(100 * (own / high - 1), 1)
        if oracle is not None:
            figures[f"gap closed, {language}"] = round(100 * (high - own) / (high - rates(oracle)[language]), 1)
    return figures


def rates(found: Evaluation) -> dict[str, float]:
    """CER by language in %."""
    rates = found.table("recognition")
    return {tag: 100 * rates.figure("CER", language=tag).value for tag in sorted(by_language(found.predictions))}


if __name__ == "__main__":
    main()
