"""`isogloss finetune`: a model and some transcribed speech -> a recipe that fits both, in words and as YAML.

    pre-trained on speech alone ──> new symbols; first the head on a frozen encoder, then everything; or adapters
    recogniser, little speech   ──> adapters and heads on a frozen encoder: a small folder beside the model
    recogniser, more speech     ──> everything, the encoder at a lower rate
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isogloss.data.manifests import language_of, text_of
from isogloss.errors import IsoglossError, counted, lasting
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.text.languages import normalise_language
from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import CharacterTokenizer
from isogloss.training.recipe import AdamWRecipe, DataRecipe, Recipe
from isogloss.training.source import read_data, transcribed

Way = Literal["adapters", "whole"]

LITTLE_HOURS = 0.1
"""Below this much transcribed speech the encoder of a recogniser stays as it is. With 10 and 24 minutes of a new
language training everything was better by 7 and 3 points of CER (benchmarks/results/finetuning.json), at the price of
the others."""
STEP_SECONDS = 24
PASSES = 40
"""Passes over the data, if their number of steps lies within `STEPS`."""
STEPS = (600, 20_000)
ENCODER = ("features", "encoder.embed", "encoder.stack")
LARGE = 10_000_000
"""Parameters of an encoder from which it is trained at a tenth of the rate: it knows more, and forgets it sooner."""
SYMBOLS = {"kind": "characters", "unknown": True}
GENTLE = {"freq_width": 12, "time_share": 0.05}


@dataclass(frozen=True)
class Plan:
    """A recipe, and why it is as it is: a sentence for each choice."""

    recipe: Recipe
    reasons: list[str]


def plan(
    model_folder: Path,
    data: list[Path],
    *,
    languages: tuple[str, ...] = (),
    way: Way | None = None,
    name: str | None = None,
    minutes: float | None = None,
) -> Plan:
    """Choose how to fine-tune a model on the transcribed train clips of prepared corpora.

    languages: only these. way: what is trained of a recogniser, instead of what the amount of data
    suggests. minutes: into which training is to fit. Raises IsoglossError where there is nothing transcribed.
    """
    start = load_model(model_folder)
    languages = tuple(map(normalise_language, languages))
    chosen = DataRecipe(folders=tuple(data), languages=languages, longest=30.0)
    paired = transcribed(read_data(chosen, "train"))
    if not paired:
        where = ", ".join(map(str, data))
        raise IsoglossError(f"The train split of {where} holds no transcribed clips; fine-tuning needs transcripts.")
    hours = sum(paired.seconds().values()) / 3600
    spoken = sorted(paired.languages())
    reasons = [f"{_amount(hours)} of transcribed speech in {', '.join(spoken)}, {counted(len(paired), 'clip')}."]
    steps = min(max(round(PASSES * hours * 3600 / STEP_SECONDS), STEPS[0]), STEPS[1])
    if start.tokenizer is None:
        if way == "adapters":
            model, stages = _adapters(start, steps)
            reasons.append("The model is pre-trained on speech alone: it gets symbols, a head and adapters, and stays.")
        else:
            model, stages = _from_speech_alone(start, steps, len(spoken) > 1)
            reasons.append("The model is pre-trained on speech alone: it gets symbols and a head, trained first.")
    else:
        _add_symbols(start, [normalise(text_of(cut) or "", language_of(cut)) for cut in paired], reasons)
        if way is None:
            way = "adapters" if hours < LITTLE_HOURS else "whole"
            reasons.append(_why(way))
        knows = bool(start.spec.heads_for("language"))
        identifies = knows and set(spoken) == set(start.config.languages)
        model, stages = _adapters(start, steps) if way == "adapters" else _whole(start, steps, identifies)
        if way == "whole" and knows and not identifies:
            reasons.append("It will no longer identify languages: the data lack some of those it knows.")
    if minutes is None:
        passes = steps * STEP_SECONDS / (hours * 3600)
        reasons.append(f"{steps} steps of {STEP_SECONDS} s: each clip is used about {passes:.0f} times.")
    else:
        reasons.append(f"As many steps of {STEP_SECONDS} s as fit into {lasting(minutes * 60)}.")
    values: dict[str, Any] = {
        "name": name or f"{Path(model_folder).resolve().parent.name}-{'-'.join(spoken[:4])}",
        "model": {"start_from": str(model_folder), **model},
        "data": chosen.plain(),
        "stages": stages,
    }
    return Plan(Recipe.parse(values, "the plan"), reasons)


def _from_speech_alone(start: Model, steps: int, identifies: bool) -> tuple[dict[str, Any], list[Any]]:
    """A new CTC head, alone at first: gradients of a random head would undo the pre-training."""
    head = max(1, steps // 10)
    peak, muon = (1e-4, 0.0) if _is_large(start) else (1e-3, AdamWRecipe().muon)
    # Convolutions over the waveform stay as pre-training left them (wav2vec 2.0, arXiv 2006.11477 §4.3).
    kept = ("features",) if any(True for _ in start.features.parameters()) else ()
    model = {
        "tokenizer": SYMBOLS,
        "heads": ["ctc", "language"] if identifies else ["ctc"],
    }
    stages = [
        _stage("head", head, [_recognition()], freeze=ENCODER) | {"optimizer": {"peak": 2e-3}},
        _stage("train", 3 * head, [_recognition()], kept)
        | _rates(peak, muon, ema=0.98, schedule="constant"),
        _stage("refine", max(1, steps - 4 * head), [_recognition(GENTLE)], kept)
        | _rates(peak, muon, ema=0.99, warmup=0.02)
        | {"perturb": {}},
    ]
    return model, stages


def _adapters(start: Model, steps: int) -> tuple[dict[str, Any], list[Any]]:
    """Adapters and heads, new ones where there are none; the encoder stays bit for bit."""
    kept = tuple(f"heads.{name}" for name in start.spec.heads_for("language"))
    untrained = _language_heads(start)
    model: dict[str, Any] = {"keep": "all"}
    if start.tokenizer is None:
        # Whoever is told the language by its adapter would learn to say that it was told.
        model, untrained = {"tokenizer": SYMBOLS, "heads": ["ctc"]}, ()
    stage = _stage("adapt", steps, [_recognition(GENTLE, untrained)], (*ENCODER, *kept, *_unreached(start)))
    return model | {"adapters": {}}, [stage | {"perturb": {}, "optimizer": {"peak": 3e-3, "ema": 0.99}}]


def _whole(start: Model, steps: int, identifies: bool) -> tuple[dict[str, Any], list[Any]]:
    """All of a recogniser; the encoder, which knows much already, at a third of the rate or less."""
    untrained = () if identifies else _language_heads(start)
    stage = _stage("finetune", steps, [_recognition(GENTLE, untrained)], _unreached(start))
    return {"keep": "all"}, [stage | _rates(1e-4 if _is_large(start) else 3e-4, 0.0, ema=0.99) | {"perturb": {}}]


def _is_large(start: Model) -> bool:
    """Whether the encoder is; int8 weights, which are no parameters, count too."""
    return sum(tensor.numel() for tensor in start.encoder.state_dict().values()) >= LARGE


def _rates(encoder: float, muon: float, ema: float, **both: Any) -> dict[str, Any]:
    """What is new at the usual rate, the encoder at one of its own.

    muon: for the encoder; what knows much already learns more carefully by AdamW (docs/recognition.md).
    """
    own = {"peak": encoder, "muon": muon, **both}
    return {"optimizer": {"peak": 1e-3, "ema": ema, **both}, "optimizers": {"encoder": own}}


def _unreached(start: Model) -> tuple[str, ...]:
    """Parts of a model that recognition does not train."""
    return ("text",) * (start.text is not None) + tuple(f"heads.{name}" for name in start.spec.heads_for("features"))


def _language_heads(start: Model) -> tuple[str, ...]:
    """Heads of a model that predict the language, also where it has too few languages for them."""
    return tuple(name for name, head in start.config.heads.items() if head.target == "language")


def _recognition(augment: dict[str, float] | None = None, untrained: tuple[str, ...] = ()) -> dict[str, Any]:
    weights = {"head_weights": dict.fromkeys(untrained, 0.0)} if untrained else {}
    return {"name": "recognition", "augment": augment} | weights


def _stage(name: str, steps: int, objectives: list[Any], freeze: tuple[str, ...] = ()) -> dict[str, Any]:
    looks = max(1, min(500, steps // 4))
    return {
        "name": name,
        "steps": steps,
        "seconds": {"paired": STEP_SECONDS},
        "batch_seconds": STEP_SECONDS / 2,
        "temperature": 2,
        "objectives": objectives,
        "freeze": list(freeze),
        "evaluate_every": looks,
        "save_every": looks,
    }


def _add_symbols(start: Model, texts: list[str], reasons: list[str]) -> None:
    """Reason: which symbols are new to the model."""
    if isinstance(start.tokenizer, CharacterTokenizer):
        new = start.tokenizer.unknown("".join(texts))
        reasons.append(f"Symbols it did not know: {' '.join(new)}" if new else "It knows all symbols of the texts.")


def _why(way: Way) -> str:
    limit = _amount(LITTLE_HOURS)
    if way == "adapters":
        return f"Less than {limit}: only adapters and heads are trained (--way whole trains everything)."
    return (
        f"{limit} or more: everything is trained, the encoder at a lower rate; languages that are not in the data may "
        "be forgotten (--way adapters leaves the model as it is)."
    )


def _amount(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else counted(round(hours * 60), "minute")
