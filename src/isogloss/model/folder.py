"""A model as one folder that loads offline, by path, without executing anything.

    config.json         format version, configuration, SHA-256 of itself and of weights and tokenizer
    model.safetensors   the weights
    pretraining.safetensors   what objectives learned for themselves, if anything: quantizers, softmaxes
    tokenizer.*         the tokenizer's files, if the model has one
    README.md           the model card
    lm/                 its n-gram language model, if one was made there (`isogloss lm --out MODEL/lm`)

A model that was adapted from another may leave out the weights the two share. Its folder is then small,
names the base and is bound to the very files of it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, read_json, sha256, write_json
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.text.tokenizers import digest, load_tokenizer

FORMAT = 2
CONFIG, WEIGHTS, PRETRAINING, CARD = "config.json", "model.safetensors", "pretraining.safetensors", "README.md"
LANGUAGE_MODEL = "lm"


def save_model(
    model: Model,
    folder: Path,
    card: str,
    recipe: dict[str, Any] | None = None,
    base: Path | None = None,
    pretraining: dict[str, Tensor] | None = None,
) -> None:
    """Write the folder, whole or not at all.

    recipe: the resolved recipe of the run. base: a model folder whose weights need not be written again.
    pretraining: what objectives learned for themselves, as `OBJECTIVE/NAME`.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if base is not None:
        shared = _as_stored_in(load_model(base), model.config).state_dict()
        weights = {name: w for name, w in weights.items() if name not in shared or not w.equal(shared[name])}
    origin = None if base is None else {"folder": str(base.absolute()), "digest": model_digest(base)}
    with atomic_folder(folder, CONFIG) as temporary:
        write_tensors(temporary / WEIGHTS, weights)
        if pretraining:
            write_tensors(temporary / PRETRAINING, {n: t.detach().cpu().contiguous() for n, t in pretraining.items()})
        if model.tokenizer is not None:
            model.tokenizer.save(temporary)
        (temporary / CARD).write_text(card, encoding="utf-8")
        config = {
            "format": FORMAT,
            "model": model.config.plain(),
            "recipe": recipe,
            "base": origin,
            # The card is prose that people and later evaluations add to.
            "files": {file.name: sha256(file) for file in sorted(temporary.iterdir()) if file.name != CARD},
        }
        write_json(temporary / CONFIG, config | {"digest": _digest(config)})


def quantise_model(folder: Path, out: Path) -> None:
    """Write a model folder again with int8 weights; its card stays, for what was measured belongs to it."""
    if out.absolute() == folder.absolute():
        raise IsoglossError(f"{out} is the model itself, which would be lost; choose another folder.")
    model = load_model(folder)
    if model.config.weights == "int8":
        raise IsoglossError(f"{folder} has int8 weights already.")
    title, _, rest = read_card(folder).partition("\n")
    note = f"Weights rounded to int8 from those of {folder.absolute()}; figures were measured before that."
    save_model(model.quantised(), out, f"{title}\n\n{note}\n{rest}", read_json(folder / CONFIG)["recipe"])
    if (folder / LANGUAGE_MODEL).is_dir():
        shutil.copytree(folder / LANGUAGE_MODEL, out / LANGUAGE_MODEL)


def read_card(folder: Path) -> str:
    """The card of a model folder; where it has none, a title."""
    return (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else f"# {folder.name}\n"


def load_model(folder: Path, base: tuple[Path, Model] | None = None) -> Model:
    """Read a model folder, in evaluation mode; every file is checked before it is used.

    base: the model that this one was adapted from, whose weights it then shares in memory; it is
    looked for where it lay if it is needed and not given.
    """
    config = _checked_config(folder)
    model_config = ModelConfig.parse(config["model"], f"{folder / CONFIG}")
    shared = _base_weights(folder, config.get("base"), base, model_config)
    tokenizer = None
    if any(name.startswith("tokenizer") for name in config["files"]):
        same = base is not None and digest(folder) == digest(base[0])
        tokenizer = base[1].tokenizer if base is not None and same else load_tokenizer(folder)
    model = Model(model_config, tokenizer)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {name: tensor for name, tensor in shared.items() if name in expected} | read_tensors(folder / WEIGHTS)
    for name in sorted(expected.keys() ^ weights.keys()):
        raise IsoglossError(f'{folder / WEIGHTS} and {CONFIG} disagree on the tensor "{name}"; export the model again.')
    for name, shape in expected.items():
        found = weights[name].shape
        if found != shape:
            raise IsoglossError(f'{folder / WEIGHTS}: "{name}" has shape {tuple(found)}, not {tuple(shape)}.')
    model.load_state_dict(weights, assign=True)
    return model.eval()


def load_pretraining(folder: Path) -> dict[str, Tensor]:
    """What the objectives that trained a model learned for themselves, as `OBJECTIVE/NAME`; {} if it was left out."""
    config = _checked_config(folder)
    return read_tensors(folder / PRETRAINING) if PRETRAINING in config["files"] else {}


def model_digest(folder: Path) -> str:
    """What tells a model folder from every other, after a look at its files."""
    return _digest(_checked_config(folder))


def _base_weights(
    folder: Path, needed: dict[str, str] | None, given: tuple[Path, Model] | None, config: ModelConfig
) -> dict[str, Tensor]:
    """The weights that a folder leaves out because its base has them; none for a whole model."""
    if needed is None:
        if given is not None:
            raise IsoglossError(f"{folder} is a model of its own and no adapter of {given[0]}; use it with --model.")
        return {}
    place = given[0] if given else Path(needed["folder"])
    if not place.is_dir():
        raise IsoglossError(f"{folder} adapts the model {place}, which is not there; give it with --model.")
    if model_digest(place) != needed["digest"]:
        raise IsoglossError(f"{folder} adapts another model than {place}: it was made for {needed['folder']}.")
    return _as_stored_in(given[1] if given else load_model(place), config).state_dict()


def _as_stored_in(base: Model, config: ModelConfig) -> Model:
    """A base with its weights in the form of a model adapted from it: one trained from int8 weights has others."""
    return base.trainable() if config.weights == "float32" else base


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """A safetensors file; what hinders it is an OSError, as with any other file."""
    try:
        safetensors.torch.save_file(tensors, path, about)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or one sentence on why not."""
    return dict(each_tensor(path))


def each_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The same one after another, so that no more than one need be in memory.

    Copied, for in the file they begin at any multiple of four bytes, on which last bits of products may depend.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                yield name, file.get_tensor(name).clone()
    except FileNotFoundError:
        raise IsoglossError(f"{path} is missing.") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise IsoglossError(f"{path} is not a readable safetensors file ({error}); copy it again.") from None


def _checked_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise IsoglossError(f"There is no model folder {folder}; give the folder that holds {CONFIG}.")
    if not (folder / CONFIG).exists():
        raise IsoglossError(f"{folder} holds no {CONFIG}: it is not a model folder.")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise IsoglossError(f"{folder / CONFIG} is not the configuration of an isogloss model.")
    if config["format"] > FORMAT:
        raise IsoglossError(
            f"{folder} has model format {config['format']}, this isogloss reads {FORMAT}; update isogloss."
        )
    if config["format"] < FORMAT:
        raise IsoglossError(
            f"{folder} has the older model format {config['format']}, this isogloss reads {FORMAT}; train it again."
        )
    digest = config.pop("digest", None)
    if digest != _digest(config):
        raise IsoglossError(f"{folder / CONFIG} was changed or damaged after it was written; copy the model again.")
    for name, expected in config["files"].items():
        if not (folder / name).is_file():
            raise IsoglossError(f"{folder / name} is missing; copy the model again.")
        if sha256(folder / name) != expected:
            raise IsoglossError(f"{folder / name} was changed or damaged after it was written; copy the model again.")
    return config


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
