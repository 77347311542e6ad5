"""`isogloss evaluate`: a model on held-out speech -> figures.

DIR/cuts ── read (broken clips counted) ── transcribe, identify ── predictions ── score
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from isogloss import __version__
from isogloss.audio.reading import Audio
from isogloss.data.loading import language_of, text_of, waveform
from isogloss.data.manifests import fingerprint, read_cuts, source_of
from isogloss.decoding.beam import Beam, width_for
from isogloss.errors import AudioError, IsoglossError, did_you_mean
from isogloss.evaluation.figures import Conditions, Evaluation, Prediction, score
from isogloss.files import read_json
from isogloss.model.folder import CONFIG
from isogloss.model.recogniser import Recogniser, load
from isogloss.model.results import Transcript
from isogloss.text.languages import normalise_language
from isogloss.training.recipe import DataRecipe
from isogloss.training.source import read_data

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Progress = Callable[[int, int], None]
Clip = tuple["MonoCut", NDArray[np.float32]]

GROUP_SECONDS = 240.0
"""Seconds of audio that are in memory at once."""


def evaluate(
    model_folder: Path,
    data: list[Path],
    *,
    split: str = "test",
    languages: list[str] | None = None,
    tell_language: bool = False,
    beam: int = 1,
    language_model: Path | None = None,
    weight: float = 0.5,
    system: str | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> Evaluation:
    """Transcribe and identify every clip of a split of prepared corpora, and score the result.

    languages: only clips in these. tell_language: the model is told what is spoken instead of
    guessing it; only symbols of that language are then written. beam: texts to keep while searching, 1
    decides frame by frame, and with a language model means 8; language_model: made by `isogloss lm`, of this
    weight. system: the name in tables, by default that of the model. on_progress: told clips done and clips
    in all.

    Raises IsoglossError for a folder that is no model or no corpus, for a model that neither
    transcribes nor identifies, and where there is no clip left to evaluate.
    """
    recogniser = load(model_folder, device)
    if not recogniser.model.decoders and recogniser.model.language is None:
        raise IsoglossError(
            f"{model_folder} was pre-trained on speech alone and predicts nothing yet; fine-tune it first."
        )
    width = width_for(beam, language_model)
    search = recogniser.beam(width, language_model=language_model, weight=weight) if width > 1 else None
    cuts = _select([cut for folder in data for cut in read_cuts(folder, split)], languages, data, split)
    broken: Counter[str] = Counter()
    found: dict[tuple[str, str], Prediction] = {}
    worked = 0.0
    for group in _groups(cuts, recogniser if tell_language else None):
        clips = list(_read(group, broken))
        began = time.perf_counter()
        heard = _hear(recogniser, clips, tell_language, search)
        worked += time.perf_counter() - began
        for (cut, _), (transcript, probabilities) in zip(clips, heard, strict=True):
            found[_key(cut)] = _prediction(cut, transcript, probabilities)
        if on_progress is not None:
            on_progress(len(found) + broken.total(), len(cuts))
    if not found:
        raise IsoglossError(f"None of the {len(cuts)} clips could be read ({_causes(broken)}); prepare the data again.")
    trained = trained_clips(model_folder)
    return score(
        [found[_key(cut)] for cut in cuts if _key(cut) in found],
        Conditions(
            system=system or _name(model_folder),
            data=tuple(map(str, data)),
            split=split,
            fingerprint=fingerprint(cuts),
            versions=versions(),
            language_told=tell_language,
            search=_searched(width, language_model, weight),
            known_languages=recogniser.languages,
            trained_sources=None if trained is None else tuple(sorted({source for source, _ in trained})),
            trained_clips=None if trained is None else len(trained & found.keys()),
            broken=dict(sorted(broken.items())),
            working_seconds=worked,
        ),
    )


def trained_clips(model_folder: Path) -> set[tuple[str, str]] | None:
    """(source, id) of each clip the model heard in training, also that of the model it started from.

    None if that is not known: the model carries no recipe, or its data lie here no more.
    """
    recipe: dict[str, Any] | None = read_json(model_folder / CONFIG).get("recipe")
    if recipe is None:
        return None
    try:
        cuts = read_data(DataRecipe.parse(recipe["data"], str(model_folder / CONFIG)), "train")
        start = recipe["model"].get("start_from")
        before = trained_clips(Path(start)) if start else set()
    except IsoglossError:
        return None
    return None if before is None else before | {_key(cut) for cut in cuts}


def _searched(width: int, language_model: Path | None, weight: float) -> str:
    """How texts were decided on, in words; nothing where it was frame by frame."""
    if width == 1:
        return ""
    return f"beam {width}" + (f", language model {language_model.name} at weight {weight:g}" if language_model else "")


def versions() -> dict[str, str]:
    """What a figure may depend on besides model and data."""
    return {"isogloss": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def _select(cuts: list[MonoCut], languages: list[str] | None, data: list[Path], split: str) -> list[MonoCut]:
    where = ", ".join(str(folder) for folder in data)
    present = sorted({language_of(cut) for cut in cuts})
    wanted = [normalise_language(tag) for tag in languages or []]
    for tag in wanted:
        if tag not in present:
            raise IsoglossError(
                f'The {split} split of {where} holds no "{tag}".{did_you_mean(tag, present)} '
                f"It holds: {', '.join(present) or 'nothing'}."
            )
    chosen = [cut for cut in cuts if not wanted or language_of(cut) in wanted]
    if not chosen:
        raise IsoglossError(f"The {split} split of {where} holds no clips; choose another split or other data.")
    return chosen


def _groups(cuts: Sequence[MonoCut], told: Recogniser | None) -> Iterator[list[MonoCut]]:
    """Clips of similar length together, each group of one language where the language is told."""
    tag = language_of if told else (lambda cut: "")
    group: list[MonoCut] = []
    seconds = 0.0
    for cut in sorted(cuts, key=lambda cut: (tag(cut), cut.duration)):
        if group and (seconds + cut.duration > GROUP_SECONDS or tag(cut) != tag(group[0])):
            yield group
            group, seconds = [], 0.0
        group.append(cut)
        seconds += cut.duration
    if group:
        yield group


def _read(cuts: Iterable[MonoCut], broken: Counter[str]) -> Iterator[Clip]:
    """The clips that can be read; the others are counted by cause."""
    with ThreadPoolExecutor(2) as threads:
        for cut, clip in zip(cuts, threads.map(_waveform, cuts), strict=True):
            if isinstance(clip, str):
                broken[clip] += 1
            else:
                yield cut, clip


def _waveform(cut: MonoCut) -> NDArray[np.float32] | str:
    try:
        return waveform(cut)
    except AudioError as error:
        return error.cause


def _hear(
    recogniser: Recogniser, clips: list[Clip], told: bool, search: Beam | None
) -> list[tuple[Transcript | None, dict[str, float]]]:
    """What is said in each clip and in which language, as far as the model has the heads for it."""
    waveforms: list[Audio] = [waveform for _, waveform in clips]
    if not recogniser.model.decoders:
        return [(None, {} if told else found.probabilities) for found in recogniser.identify(waveforms)]
    language = language_of(clips[0][0]) if told and clips else None
    known = language if language in recogniser.model.config.alphabets else None
    transcripts = recogniser.transcribe(waveforms, language=known, beam=search)
    return [(transcript, {} if told else transcript.probabilities) for transcript in transcripts]


def _prediction(cut: MonoCut, transcript: Transcript | None, probabilities: dict[str, float]) -> Prediction:
    guess = next(iter(probabilities), None)
    return Prediction(
        id=cut.id,
        source=source_of(cut),
        language=language_of(cut),
        seconds=cut.duration,
        reference=text_of(cut),
        hypothesis=None if transcript is None else transcript.text,
        confidences=() if transcript is None else tuple(round(word.confidence, 4) for word in transcript.words),
        guess=guess,
        probability=None if guess is None else round(probabilities[guess], 4),
    )


def _key(cut: MonoCut) -> tuple[str, str]:
    return source_of(cut), cut.id


def _causes(broken: Counter[str]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in broken.most_common())


def _name(model_folder: Path) -> str:
    recipe = read_json(model_folder / CONFIG).get("recipe") or {}
    return str(recipe.get("name") or model_folder.resolve().name)
