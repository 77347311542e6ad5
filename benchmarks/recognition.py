"""Held-out clips: CER, WER and language identification of isogloss models beside Whisper base.

    python benchmarks/recognition.py --data DIR… --model pretrained=DIR random=DIR
        --hypotheses whisper-base.json --json benchmarks/results/recognition.json
                                                                           (in the project's environment)

The hypotheses are made beforehand by `whisper_base.py` in the peers' environment. Recognition: every
system is told which language is spoken; both texts are normalised alike; each language is scored on the
clips that all systems which know it have transcribed. `± first` is the CER minus that of the first model on
the same clips, with the 95 % interval of the paired bootstrap: an interval above 0 means that the first
model is better. Means are over the languages all systems know. Identification: nobody is told. The
clips are those in languages that the first model and Whisper know; Whisper chooses among these
languages (`open`: among its 99), a model among all it was trained on. Sources that the first model was
not trained on are shown apart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, finish, parser, table

from isogloss.data.manifests import SPLITS
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.figures import Figure
from isogloss.evaluation.predictions import Prediction, errors
from isogloss.evaluation.results import Conditions, Evaluation
from isogloss.evaluation.tasks.recognition import MEAN, score
from isogloss.metrics.bootstrap import paired_difference
from isogloss.metrics.classification import classification
from isogloss.text.normalise import NORMALISER_VERSION

Key = tuple[str, str]
Predictions = dict[Key, Prediction]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--data", nargs="+", type=Path, required=True, help="folders made by isogloss prepare"
    )
    arguments.add_argument(
        "--model", nargs="+", required=True, metavar="NAME=DIR", help="isogloss model folders"
    )
    arguments.add_argument(
        "--lm", nargs="*", default=[], metavar="NAME=DIR", help="language models to search with; NAME+LM is added"
    )
    arguments.add_argument("--hypotheses", nargs="*", type=Path, default=[], help="files of whisper_base.py")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--languages", nargs="+", help="only these")
    options = arguments.parse_args()
    peers = joined(json.loads(file.read_text(encoding="utf-8")) for file in options.hypotheses)
    told: dict[str, Predictions] = {}
    guessed: dict[str, Predictions] = {}
    conditions: dict[str, Conditions] = {}
    for assignment in options.model:
        name, _, folder = assignment.partition("=")
        for known, store in ((True, told), (False, guessed)):
            found = evaluate(
                Path(folder),
                options.data,
                split=options.split,
                tasks=["recognition"] if known else ["recognition", "language"],
                languages=options.languages,
                tell_language=known,
                beam=1,
            )
            store[name] = keyed(found)
            conditions[name] = found.conditions
    first = next(iter(conditions.values()))
    models = dict(assignment.split("=", 1) for assignment in options.model)
    for name, _, folder in (assignment.partition("=") for assignment in options.lm):
        found = evaluate(
            Path(models[name]),
            options.data,
            split=options.split,
            tasks=["recognition"],
            languages=options.languages,
            tell_language=True,
            language_model=Path(folder),
        )
        told[f"{name}+LM"] = keyed(found)
    told |= {peer["system"]: from_file(peer) for peer in peers}
    recognition = compare(told)
    table(f"recognition, {options.split} split: CER in %", recognition)
    closed = closed_set(first, peers)
    identification = identify(guessed, peers, closed, first.trained_sources)
    table(f"language identification among {len(closed)}: {', '.join(closed)}", identification)
    finish(
        options.json,
        environment()
        | {
            "normaliser": NORMALISER_VERSION,
            "data": [str(folder.name) for folder in options.data],
            "fingerprint": first.fingerprint,
            "split": options.split,
            "recognition": recognition,
            "identification": identification,
            "closed_set": closed,
            "unknown_to_peers": {peer["system"]: peer["unknown_languages"] for peer in peers},
            "clips_trained_on": {name: condition.trained_clips for name, condition in conditions.items()},
        },
    )


def keyed(evaluation: Evaluation) -> Predictions:
    return {prediction.key: prediction for prediction in evaluation.predictions}


def joined(files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each system made of the clips, from as many files as it was written to."""
    systems: dict[str, dict[str, Any]] = {}
    for found in files:
        known = systems.setdefault(found["system"], found | {"clips": [], "unknown_languages": []})
        known["clips"] += found["clips"]
        known["unknown_languages"] = sorted({*known["unknown_languages"], *found["unknown_languages"]})
    return list(systems.values())


def from_file(peer: dict[str, Any]) -> Predictions:
    """What `whisper_base.py` wrote, as predictions."""
    fields = ("id", "source", "language", "seconds", "reference")
    made = [
        Prediction(**{key: clip[key] for key in fields}, hypothesis=clip["text"]) for clip in peer["clips"]
    ]
    return {prediction.key: prediction for prediction in made}


def compare(systems: dict[str, Predictions]) -> list[dict[str, Any]]:
    """One row a language and system, then the means over the languages that all systems know."""
    by_language: dict[str, dict[str, Predictions]] = defaultdict(lambda: defaultdict(dict))
    for name, predictions in systems.items():
        for key, prediction in predictions.items():
            if prediction.scored:
                by_language[prediction.language][name][key] = prediction
    rows: list[dict[str, Any]] = []
    pooled: dict[str, list[Prediction]] = defaultdict(list)
    first = next(iter(systems))
    for language, of_system in sorted(by_language.items()):
        if first not in of_system:
            continue
        common = sorted(set.intersection(*(set(predictions) for predictions in of_system.values())))
        chosen = {name: [predictions[key] for key in common] for name, predictions in of_system.items()}
        if common:
            rows += language_rows(language, chosen)
        if common and len(of_system) == len(systems):
            for name in systems:
                pooled[name] += chosen[name]
    for name, clips in pooled.items():
        figures = {"language": "mean", "system": name, "clips": len(clips), "minutes": minutes(clips)}
        rows.append(figures | sure("CER", score(clips).figure("CER", MEAN)))
    return rows


def language_rows(language: str, systems: dict[str, list[Prediction]]) -> list[dict[str, Any]]:
    """The systems on the same clips of one language."""
    rows: list[dict[str, Any]] = []
    first = next(iter(systems.values()))
    base = errors(first)
    for name, predictions in systems.items():
        figures = score(predictions)
        row = {"language": language, "system": name, "clips": len(predictions), "minutes": minutes(predictions)}
        row |= sure("CER", figures.figure("CER", language=language))
        words = figures.figure("WER", language=language).value
        row["WER"] = "–" if words is None else round(100 * words, 1)
        if predictions is not first:
            paired = paired_difference(errors(predictions).errors, base.errors, base.totals)
            row |= interval("± first", paired.difference, paired.interval.low, paired.interval.high)
        rows.append(row)
    return rows


def closed_set(conditions: Conditions, peers: list[dict[str, Any]]) -> list[str]:
    """The languages among which everybody chooses: the first model's, as far as every peer knows them."""
    missing = {tag for peer in peers for tag in peer["unknown_languages"]}
    told = [{clip["language"] for clip in peer["clips"]} for peer in peers]
    known = [tag for tag in conditions.known_languages if tag not in missing]
    return [tag for tag in known if all(tag in languages for languages in told)]


def identify(
    models: dict[str, Predictions],
    peers: list[dict[str, Any]],
    closed: list[str],
    trained: tuple[str, ...] | None,
) -> list[dict[str, Any]]:
    """Accuracy and macro-F1 of the models and the peers on the clips that all of them were given."""
    guesses: dict[str, dict[Key, str]] = {
        name: {key: prediction.guess or "" for key, prediction in predictions.items()}
        for name, predictions in models.items()
    }
    for peer in peers:
        guesses[peer["system"]] = peer_guesses(peer, closed)
        guesses[f"{peer['system']}, open"] = peer_guesses(peer, None)
    spoken = {key: p.language for p in next(iter(models.values())).values() for key in [(p.source, p.id)]}
    common = set.intersection(*map(set, guesses.values())) if guesses else set()
    keys = sorted(key for key in common if spoken[key] in closed)
    groups = {"all sources": keys}
    if trained is not None:
        groups["sources not trained on"] = [key for key in keys if key[0] not in trained]
    return [
        {"clips of": group, "system": name}
        | classified([spoken[k] for k in chosen], [found[k] for k in chosen])
        for group, chosen in groups.items()
        if chosen
        for name, found in guesses.items()
    ]


def peer_guesses(peer: dict[str, Any], closed: list[str] | None) -> dict[Key, str]:
    """The most probable language of each clip, as a tag; regional variants of one code count as that code."""
    codes = {clip["language"]: clip["code"] for clip in peer["clips"]}
    allowed = None if closed is None else {codes[tag] for tag in closed}
    guesses = {}
    for clip in peer["clips"]:
        shares = {c: p for c, p in clip["probabilities"].items() if allowed is None or c in allowed}
        best = max(shares, key=lambda code: shares[code])
        tags = [tag for tag, code in codes.items() if code == best]
        right = best == clip["code"]
        guesses[clip["source"], clip["id"]] = clip["language"] if right else (sorted(tags) or [best])[0]
    return guesses


def classified(spoken: list[str], guessed: list[str]) -> dict[str, Any]:
    figures = classification(spoken, guessed)
    found = {"clips": len(spoken)} | interval(
        "accuracy", figures.accuracy, figures.interval.low, figures.interval.high
    )
    return found | {"macro-F1": round(100 * figures.macro_f1, 1)}


def interval(name: str, value: float, low: float, high: float) -> dict[str, Any]:
    """A rate in % and its 95 % interval, under two columns."""
    value, low, high = (float(np.round(100 * figure, 1)) for figure in (value, low, high))
    return {name: value, f"{name} 95 %": f"{low:.1f} – {high:.1f}"}


def sure(name: str, figure: Figure) -> dict[str, Any]:
    """A figure that is defined, as `interval`."""
    assert figure.value is not None and figure.low is not None and figure.high is not None
    return interval(name, figure.value, figure.low, figure.high)


def minutes(predictions: list[Prediction]) -> float:
    return round(sum(prediction.seconds for prediction in predictions) / 60, 1)


if __name__ == "__main__":
    main()
