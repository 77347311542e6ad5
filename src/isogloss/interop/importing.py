"""`isogloss import`: a folder of another toolkit -> a model folder, compared with the original on a clip.

hf:FOLDER     transformers: the encoders of `families`, with their CTC heads; also Whisper under OpenAI's names
ct2:FOLDER    CTranslate2: Whisper's encoder (whole, or model.bin in parts)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE, as_waveform
from isogloss.errors import IsoglossError
from isogloss.files import sha256
from isogloss.heads.ctc import CTCConfig
from isogloss.interop import hub, whisper
from isogloss.interop.arrays import (
    adapter_names,
    read_adapter,
    read_ctranslate2,
    read_safetensors_folder,
    read_settings,
)
from isogloss.interop.comparing import BOUNDS, LIBRARIES, difference, made_sound
from isogloss.interop.families import FAMILIES
from isogloss.interop.vocabulary import language_of_vocabulary, read_vocabulary
from isogloss.model.folder import save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.text.tokenizers import Tokenizer

FORMATS = ("hf", "ct2")
OPENAI = "encoder.blocks.0.attn.query.weight"
"""A tensor by which Whisper under OpenAI's names is known."""


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


def import_model(
    source: str, out: Path, probe: Path | None = None, language: str | None = None, base: Path | None = None
) -> Imported:
    """Write a model of another toolkit as a model folder; nothing is written where it differs from the original.

    source: FORMAT:FOLDER. probe: a clip to compare on; by default a made sound. language: whose adapter and letters are
    taken, of a model that has them by language (MMS). base: a model folder whose weights need not be written again, as
    that of another language. Raises IsoglossError for what cannot be imported.
    """
    form, _, place = source.partition(":")
    folder = Path(place)
    if form not in FORMATS or not place:
        raise IsoglossError(f'"{source}" names no format. Write hf:FOLDER (transformers) or ct2:FOLDER.')
    if not folder.is_dir():
        raise IsoglossError(f"There is no folder {folder}; give the one that holds the model's files.")
    files = (read_settings(folder, "vocab.json"), adapter_names(folder)) if form == "hf" else ({}, [])
    name = language_of_vocabulary(*files, language)
    model, kind = _from_transformers(folder, name) if form == "hf" else _from_ctranslate2(folder)
    samples = made_sound() if probe is None else as_waveform(probe)[: whisper.SECONDS * SAMPLE_RATE]
    library, found = LIBRARIES[form], difference(form, folder, model, samples, name)
    if found is not None and not found <= BOUNDS[form]:
        raise IsoglossError(
            f"The states of {source} differ by {found:.1e} from those that {library} computes, more than "
            f"{BOUNDS[form]:g}; nothing was written. Please report the model."
        )
    save_model(model, out, _card(folder, kind, library, found), base=base)
    return Imported(model, kind, found, library)


def _from_transformers(folder: Path, adapter: str | None) -> tuple[Model, str]:
    tensors = read_safetensors_folder(folder)
    vocabulary = read_settings(folder, "vocab.json")
    if adapter is not None:
        tensors |= read_adapter(folder, adapter)
        vocabulary = vocabulary.get(adapter, vocabulary)
    config = read_settings(folder, "config.json")
    if "model_type" not in config and OPENAI in tensors:
        return _built(*whisper.from_openai(tensors)), "Whisper"
    kind = config.get("model_type", "")
    if kind not in FAMILIES:
        what = f'The model type "{kind}"' if kind else f"A folder whose config.json states no model_type ({folder})"
        raise IsoglossError(f"{what} cannot be imported; these can: {', '.join(FAMILIES)}.")
    family = FAMILIES[kind]
    ours = family.read(config, read_settings(folder, "preprocessor_config.json"))
    weights = family.to_ours(ours, tensors)
    tokenizer = None
    if "lm_head.weight" in tensors and vocabulary:
        tokenizer, rows = read_vocabulary(vocabulary, read_settings(folder, "tokenizer_config.json"))
        ours = ours.model_copy(update={"heads": {"ctc": CTCConfig()}})
        for part in ("weight", "bias"):
            weights[f"heads.ctc.output.{part}"] = tensors[f"lm_head.{part}"].float()[rows]
    return _built(ours, weights, tokenizer), kind


def _from_ctranslate2(folder: Path) -> tuple[Model, str]:
    name, arrays = read_ctranslate2(folder)
    if name != "WhisperSpec":
        raise IsoglossError(f"{folder} holds a CTranslate2 model of the kind {name}; only WhisperSpec can be imported.")
    return _built(*whisper.from_ctranslate2(arrays)), "Whisper"


def _built(config: ModelConfig, weights: dict[str, Tensor], tokenizer: Tokenizer | None = None) -> Model:
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


def _card(folder: Path, kind: str, library: str, found: float | None) -> str:
    files = [
        file for file in sorted(folder.iterdir()) if file.suffix == ".safetensors" or file.name.startswith("model.bin")
    ]
    rows = "\n".join(f"| `{file.name}` | `{sha256(file)}` |" for file in files)
    compared = f"Not compared with the original: {library} is not installed."
    if found is not None:
        compared = f"Hidden states differ from those that {library} computes by {found:.1e} of their size."
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
