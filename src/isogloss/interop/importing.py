"""`isogloss import`: a folder of another toolkit -> a model folder, compared with the original on a clip.

hf:FOLDER     transformers: Whisper's encoder, wav2vec 2.0, HuBERT, the latter two with their CTC heads; also
              Whisper under OpenAI's names
ct2:FOLDER    CTranslate2: Whisper's encoder (whole, or model.bin in parts)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE, as_waveform
from isogloss.errors import IsoglossError
from isogloss.files import read_json, sha256
from isogloss.interop import hub, wav2vec2, whisper
from isogloss.interop.arrays import model_files, read_ctranslate2, read_safetensors_folder
from isogloss.model.folder import save_model
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import Tokenizer

FORMATS = ("hf", "ct2")
BOUNDS = {"hf": 1e-4, "ct2": 1e-2}
"""Largest difference of hidden states, as a share of their root mean square: float32 sums in another order; CTranslate2
approximates functions besides."""
WHISPER_SECONDS = 30
PROBE_SECONDS = 4.0


@dataclass(frozen=True)
class Imported:
    """A model, and how far its states are from the original's: the root mean square of the differences as a share.

    difference: None where the original's library is not installed, which `library` names.
    """

    model: Model
    kind: str
    difference: float | None
    library: str


def is_foreign(source: str) -> bool:
    """Whether a name says that a model is of another toolkit."""
    return source.partition(":")[0] in FORMATS and ":" in source


def import_model(source: str, out: Path, probe: Path | None = None) -> Imported:
    """Write a model of another toolkit as a model folder; nothing is written where it differs from the original.

    source: FORMAT:FOLDER. probe: a clip to compare on; by default a made sound. Raises IsoglossError for what cannot
    be imported.
    """
    form, _, place = source.partition(":")
    folder = Path(place)
    if form not in FORMATS or not place:
        raise IsoglossError(f'"{source}" names no format. Write hf:FOLDER (transformers) or ct2:FOLDER.')
    if not folder.is_dir():
        raise IsoglossError(f"There is no folder {folder}; give the one that holds the model's files.")
    model, kind = _from_transformers(folder) if form == "hf" else _from_ctranslate2(folder)
    samples = made_sound() if probe is None else as_waveform(probe)[: WHISPER_SECONDS * SAMPLE_RATE]
    library, difference = _compared(form, kind, folder, model, samples)
    if difference is not None and not difference <= BOUNDS[form]:
        raise IsoglossError(
            f"The states of {source} differ by {difference:.1e} from those that {library} computes, more than "
            f"{BOUNDS[form]:g}; nothing was written. Please report the model."
        )
    save_model(model, out, _card(folder, kind, library, difference))
    return Imported(model, kind, difference, library)


def _from_transformers(folder: Path) -> tuple[Model, str]:
    tensors = read_safetensors_folder(folder)
    config = _json(folder, "config.json")
    kind = config.get("model_type", "whisper" if "encoder.blocks.0.attn.query.weight" in tensors else "")
    if kind == "whisper":
        own = "encoder.blocks.0.attn.query.weight" in tensors
        return _built(*(whisper.from_openai(tensors) if own else whisper.from_transformers(tensors))), "Whisper"
    if kind in wav2vec2.FAMILIES:
        others = _json(folder, "preprocessor_config.json"), _json(folder, "vocab.json")
        return _built(*wav2vec2.from_transformers(config, *others, tensors)), kind
    known = ", ".join(("whisper", *wav2vec2.FAMILIES))
    what = f'The model type "{kind}"' if kind else f"A folder whose config.json states no model_type ({folder})"
    raise IsoglossError(f"{what} cannot be imported; these can: {known}.")


def _from_ctranslate2(folder: Path) -> tuple[Model, str]:
    name, arrays = read_ctranslate2(folder)
    if name != "WhisperSpec":
        raise IsoglossError(f"{folder} holds a CTranslate2 model of the kind {name}; only WhisperSpec can be imported.")
    return _built(*whisper.from_ctranslate2(arrays)), "Whisper"


def _built(config: Any, weights: dict[str, Tensor], tokenizer: Tokenizer | None = None) -> Model:
    model = Model(config, tokenizer).eval()
    expected = {name: value.shape for name, value in model.state_dict().items()}
    for name in sorted(expected.keys() ^ weights.keys()):
        held = "lack" if name in expected else "hold besides"
        raise IsoglossError(f"The weights {held} {name} (as it is called here); the model is of another shape.")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise IsoglossError(f"{name} has the shape {tuple(weights[name].shape)}, and {tuple(shape)} is wanted.")
    model.load_state_dict(weights)
    return model


def _compared(
    form: str, kind: str, folder: Path, model: Model, samples: NDArray[np.float32]
) -> tuple[str, float | None]:
    """The library of the original, and the difference of states; None where it is not installed."""
    library = "transformers" if form == "hf" else "ctranslate2"
    if kind == "Whisper":
        samples = samples[: WHISPER_SECONDS * SAMPLE_RATE]
        samples = np.pad(samples, (0, WHISPER_SECONDS * SAMPLE_RATE - len(samples)))
    with torch.inference_mode():
        features = model.features(Sequence.from_list([torch.from_numpy(samples)]))
        ours = model.encode(features).final.values
        try:
            theirs = _states(form, kind, folder, samples, features.values)
        except ImportError:
            return library, None
    if theirs is None:
        return library, None
    return library, float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


def _states(form: str, kind: str, folder: Path, samples: NDArray[np.float32], features: Tensor) -> Tensor | None:
    """What the original makes of a waveform (S,) or of its features (1, T, F): states (1, T', D)."""
    if form == "ct2":
        import ctranslate2

        with _in_one_file(folder) as whole:
            original = ctranslate2.models.Whisper(str(whole), compute_type="float32")
            view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features.mT.numpy()))
            return torch.from_numpy(np.array(original.encode(view)))
    if not (folder / "config.json").exists():
        return None  # under OpenAI's names no library reads it offline
    from transformers import AutoModel

    original = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    if kind == "Whisper":
        states: Tensor = original.encoder(features.mT).last_hidden_state
        return states
    audio = torch.from_numpy(samples)[None]
    if _json(folder, "preprocessor_config.json").get("do_normalize", False):
        audio = (audio - audio.mean()) / (audio.var(correction=0) + 1e-7).sqrt()
    states = original(audio).last_hidden_state
    return states


@contextmanager
def _in_one_file(folder: Path) -> Iterator[Path]:
    """A folder of CTranslate2 with its model.bin whole: itself, or a copy for as long as it is needed."""
    parts = model_files(folder)
    if len(parts) == 1:
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.iterdir():
            if file.is_file() and file not in parts:
                shutil.copy(file, copy)
        with (Path(copy) / "model.bin").open("wb") as whole:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
        yield Path(copy)


def made_sound() -> NDArray[np.float32]:
    """A sound that sweeps over the frequencies of speech, with noise under it."""
    time = np.arange(round(PROBE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    sweep = np.sin(2 * np.pi * (100 * time + 450 * time**2)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.1 * sweep + 0.005 * noise).astype(np.float32)


def _json(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name) if (folder / name).exists() else {}


def _card(folder: Path, kind: str, library: str, difference: float | None) -> str:
    files = [
        file for file in sorted(folder.iterdir()) if file.suffix == ".safetensors" or file.name.startswith("model.bin")
    ]
    rows = "\n".join(f"| `{file.name}` | `{sha256(file)}` |" for file in files)
    compared = f"Not compared with the original: {library} is not installed."
    if difference is not None:
        compared = f"Hidden states differ from those that {library} computes by {difference:.1e} of their size."
    pulled = hub.origin(folder)
    title = pulled.name if pulled else folder.resolve().name
    source = f" The original is {pulled.name} at commit {pulled.commit}." if pulled else ""
    return f"""# {title}

{kind} as an isogloss model, imported from weights that others trained. Their licence is that of the original.{source}

| file | SHA-256 |
|---|---|
{rows}

{compared}
"""
