"""Checkpoints: tensors as safetensors, the rest as JSON, written whole or not at all.

    RUN/checkpoints/step-00000400/
        model.safetensors  objectives.safetensors  optimizer.safetensors  average.safetensors
        state.json      stage, step, position in the data, seed, figures, SHA-256 of the files

There is no random state to store: every random number of a step is drawn from a seed that is a
function of (recipe seed, stage, step, micro-batch). Tensors are whole, also where each process holds a part of
them: a run goes on with any number of processes, sharded or not.
"""

import copy
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, read_json, sha256, write_json
from isogloss.model.folder import each_tensor, read_tensors, write_tensors
from isogloss.nn.parted import parted_like, whole
from isogloss.training.recipe import Recipe

STATE = "state.json"
FORMAT = 3
FREE = (
    *("device", "sharding", "compile", "tensorboard", "keep", "data.workers"),
    *("model.recompute", "model.encoder.recompute"),
)
"""What may be another when a run is resumed: how it is computed and told, not what is learned."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back."""

    folder: Path
    state: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, e.g. `model`; empty if the checkpoint has none."""
        path = self.folder / f"{name}.safetensors"
        return read_tensors(path) if path.exists() else {}

    def each(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """The same one after another; none if the checkpoint has none."""
        path = self.folder / f"{name}.safetensors"
        yield from each_tensor(path) if path.exists() else ()


def save_checkpoint(run: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Write `RUN/checkpoints/step-N`; where tensors are parted, all other processes do `give_parts` meanwhile."""
    with atomic_folder(_folder(run, step)) as temporary:
        for name, values in tensors.items():
            if values:
                write_tensors(temporary / f"{name}.safetensors", _storable(values))
        digests = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / STATE, state | {"format": FORMAT, "step": step, "files": digests})


def give_parts(tensors: dict[str, dict[str, Tensor]]) -> None:
    """What the other processes have to do for `save_checkpoint`."""
    for values in tensors.values():
        for value in values.values():
            whole(value)


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are whole; damaged ones are passed over."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            state = read_json(folder / STATE)
            if all(sha256(folder / name) == digest for name, digest in state["files"].items()):
                return Checkpoint(folder, state)
        except (IsoglossError, OSError, KeyError, TypeError):
            continue
    return None


def to_resume(run: Path, recipe: dict[str, Any], resume: bool, fitted: bool) -> Checkpoint | None:
    """The checkpoint to go on from; None where a run begins.

    fitted: the steps were made to fit into a time, so that those of the checkpoint count. Raises IsoglossError for a
    folder that holds a run already, and for a run of another recipe, but for what is `FREE`, and `batch_seconds`.
    """
    found = newest_checkpoint(run)
    if found is None:
        return None
    if not resume:
        raise IsoglossError(f"{run} already holds a run; go on with --resume, or choose another --out.")
    if found.state.get("format") != FORMAT:
        raise IsoglossError(
            f"{run} was begun by another version of isogloss, whose checkpoints this one cannot go on from; "
            "choose another --out."
        )
    changed = _differences(_resolved(essence(found.state["recipe"])), _resolved(essence(recipe)))
    if fitted:
        changed = [name for name in changed if not re.fullmatch(r"stages\.\d+\.steps", name)]
    if changed:
        raise IsoglossError(
            f"{run} was trained with another recipe (changed: {', '.join(changed)}); "
            "resume with the old recipe, or choose another --out."
        )
    return found


def essence(recipe: dict[str, Any]) -> dict[str, Any]:
    """A plain recipe without what may be another when its run is resumed."""
    made = copy.deepcopy(recipe)
    for name in (*FREE, *(f"stages.{number}.batch_seconds" for number in range(len(recipe["stages"])))):
        *parents, last = name.split(".")
        node: Any = made
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.get(key) or {}
        node.pop(last, None)
    return made


def resumed(recipe: Recipe, before: Recipe) -> Recipe:
    """The recipe to go on with, of that which is asked for and that of the checkpoint.

    Its steps are those of before, which may have been fitted to a time; it has no more audio at once than before, which
    may have been lowered until it fitted into memory.
    """
    stages = [
        new.model_copy(update={"steps": old.steps, "batch_seconds": min(new.batch_seconds, old.batch_seconds)})
        for new, old in zip(recipe.training, before.training, strict=True)
    ]
    return recipe.with_training(tuple(stages))


def read_checkpoint(run: Path, step: int) -> Checkpoint:
    """The checkpoint of a step."""
    return Checkpoint(_folder(run, step), read_json(_folder(run, step) / STATE))


def prune(run: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and the best one, and what a killed save left."""
    folders = sorted((run / "checkpoints").glob("step-*"))
    for folder in folders[:-keep]:
        if best is None or folder != _folder(run, best):
            shutil.rmtree(folder)
    for rubbish in (run / "checkpoints").glob(".tmp-*"):
        shutil.rmtree(rubbish, ignore_errors=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: `NAME/exp_avg`, `NAME/step`, …"""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    return {
        f"{names[parameter]}/{key}": value
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """The inverse of `optimizer_tensors`; a fused optimizer has all of a parameter's state on its device."""
    for path, value in tensors:
        name, key = path.rsplit("/", 1)
        parameter = parameters[name]
        optimizer.state[parameter][key] = parted_like(value, parameter)


def _storable(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(value.detach()).cpu().contiguous() for name, value in values.items()}


def _folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _resolved(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with one name for each folder, whether it was given relative, absolute or through a link."""
    data, model = recipe["data"], recipe["model"]
    folders = [str(Path(folder).resolve()) for folder in data["folders"]]
    start = model["start_from"] and str(Path(model["start_from"]).resolve())
    return recipe | {"data": data | {"folders": folders}, "model": model | {"start_from": start}}


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted names of the values in which two plain configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return [name for key in keys for name in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [name for place, pair in pairs for name in _differences(*pair, f"{path}.{place}")]
    return [path] if old != new else []
