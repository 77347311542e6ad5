"""Hidden states of a model beside those that the library of the original computes with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.interop.arrays import one_model_file, read_settings
from isogloss.interop.families import FAMILIES
from isogloss.interop.family import Family
from isogloss.interop.whisper import SECONDS, WHISPER
from isogloss.model.model import Model
from isogloss.sequence import Sequence

BOUNDS = {"hf": 1e-4, "ct2": 1e-2}
"""Largest difference of hidden states, as a share of their root mean square: float32 sums in another order; CTranslate2
approximates functions besides."""
LIBRARIES = {"hf": "transformers", "ct2": "ctranslate2"}
PROBE_SECONDS = 4.0


def difference(
    form: str, folder: Path, model: Model, samples: NDArray[np.float32], adapter: str | None = None
) -> float | None:
    """The root mean square of the differences of the last states on a waveform (S,), as a share of the states'.

    form, folder: where the original lies, "hf" or "ct2". adapter: of which language, as it calls it. None where the
    original's library is not installed, or none reads it.
    """
    if _is_whisper(model):
        samples = samples[: SECONDS * SAMPLE_RATE]
        samples = np.pad(samples, (0, SECONDS * SAMPLE_RATE - len(samples)))
    with torch.inference_mode():
        features = model.features(Sequence.from_list([torch.from_numpy(samples)]))
        ours = model.encode(features).final.values
        try:
            theirs = _states(form, folder, samples, features.values, adapter)
        except ImportError:
            return None
    if theirs is None:
        return None
    return float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


def made_sound() -> NDArray[np.float32]:
    """A sound that sweeps over the frequencies of speech, with noise under it."""
    time = np.arange(round(PROBE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    sweep = np.sin(2 * np.pi * (100 * time + 450 * time**2)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.1 * sweep + 0.005 * noise).astype(np.float32)


def _is_whisper(model: Model) -> bool:
    return model.config.encoder.embed.kind == "convolutions"


def _states(
    form: str, folder: Path, samples: NDArray[np.float32], features: Tensor, adapter: str | None
) -> Tensor | None:
    """What the original makes of a waveform (S,), or CTranslate2 of Whisper's features (1, T, F): states (1, T', D)."""
    if form == "ct2":
        return _ctranslate2_states(folder, features)
    config = read_settings(folder, "config.json")
    if "model_type" not in config:
        return None  # under OpenAI's names no library reads it offline
    import transformers

    family = FAMILIES[config["model_type"]]
    extractor = getattr(transformers, family.extractor)
    if (folder / "preprocessor_config.json").exists():
        prepare = extractor.from_pretrained(folder, local_files_only=True)
    else:
        prepare = extractor(**family.written(family.read(config, {}))[1])
    inputs = prepare(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
    with _quiet():
        states: Tensor = _original(folder, config, family, adapter)(**inputs).last_hidden_state
    return states


def _original(folder: Path, config: dict[str, Any], family: Family, adapter: str | None) -> Any:
    """The encoder as transformers loads it."""
    from transformers import AutoModel, AutoModelForCTC
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    settings: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if family.model in config.get("architectures", ()) and family is WHISPER:
        return WhisperEncoder.from_pretrained(folder, **settings).eval()
    if adapter is not None:
        named = {"target_lang": adapter, "ignore_mismatched_sizes": True}
        return AutoModelForCTC.from_pretrained(folder, **settings, **named).eval().base_model
    whole = AutoModel.from_pretrained(folder, **settings).eval()
    return whole.encoder if family is WHISPER else whole


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers without its bars and its report of what it does not load, as a head."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _ctranslate2_states(folder: Path, features: Tensor) -> Tensor:
    import ctranslate2

    with one_model_file(folder) as whole:
        original = ctranslate2.models.Whisper(str(whole), compute_type="float32")
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features.mT.numpy()))
        return torch.from_numpy(np.array(original.encode(view)))
