"""Their weights as they lie on disk: tensors by name, whatever the library that wrote them. Nothing is unpickled."""

import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.files import read_json
from isogloss.model.folder import read_tensors

Tensors = dict[str, Tensor]

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter."
"""What files with the adapter of a language begin with; they are no part of a model without one."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CONVERT = (
    'python -c "from transformers import AutoModel; '
    "AutoModel.from_pretrained('{folder}').save_pretrained('{folder}-safe')\""
)
CT2_VERSIONS = range(5, 7)
"""Versions of CTranslate2's model files in which arrays have a type and aliases follow them."""
CT2_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
BFLOAT16 = 5


def read_safetensors_folder(folder: Path) -> Tensors:
    """All tensors of a folder with one safetensors file, or with several and their index, but those of adapters.

    Raises IsoglossError where there are none; for pickled weights it names the command that converts them.
    """
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    else:
        names = sorted(file.name for file in folder.glob("*.safetensors") if not file.name.startswith(ADAPTER))
    if not names:
        pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
        if pickled:
            raise IsoglossError(
                f"{folder / pickled[0]} is pickled, which could run any code; convert it where you trust it, with "
                f"{CONVERT.format(folder=folder)}, and import the new folder."
            )
        raise IsoglossError(f"{folder} holds no .safetensors file; give the folder of a model.")
    found: Tensors = {}
    for name in names:
        found |= read_tensors(folder / name)
    return found


def adapter_file(name: str) -> str:
    """The file with the adapter of a language."""
    return f"{ADAPTER}{name}.safetensors"


def read_adapter(folder: Path, name: str) -> Tensors:
    """The tensors of the adapter of a language, by its name in the folder; raises IsoglossError where it is pickled."""
    path = folder / adapter_file(name)
    if not path.exists() and (pickled := path.with_suffix(".bin")).exists():
        raise IsoglossError(
            f"{pickled} is pickled, which could run any code; get {path.name}, which its authors publish beside it."
        )
    return read_tensors(path)


def adapter_names(folder: Path) -> list[str]:
    """Of the languages whose adapters lie in a folder."""
    found = [file for end in ("safetensors", "bin") for file in folder.glob(f"{ADAPTER}*.{end}")]
    return sorted({file.name.removeprefix(ADAPTER).rpartition(".")[0] for file in found})


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a folder, such as config.json; {} where there is none."""
    return read_json(folder / name) if (folder / name).exists() else {}


def read_ctranslate2(path: Path) -> tuple[str, Tensors]:
    """The name of the specification and all arrays of a CTranslate2 `model.bin`, int8 ones dequantised to float32.

    path: the file, or a folder that holds it, whole or cut into model.bin.part1, model.bin.part2 … The layout:
    uint32 version, string specification, uint32 revision, uint32 count, then of each array its name, uint8 rank,
    uint32 dimensions, uint8 type, uint32 bytes and data; then aliases. A string is a uint16 length and bytes, with a
    final NUL. Raises IsoglossError for any other file.
    """
    parts = model_files(path)
    with _Joined(parts) as file:
        try:
            name, arrays = file.header(), dict(file.arrays())
            for alias, target in file.aliases():
                arrays[alias] = arrays[target]
        except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
            raise IsoglossError(f"{parts[0]} is no whole CTranslate2 model ({error}); copy it again.") from None
    for key in [key for key in arrays if key.endswith("_scale")]:
        scale, whole = arrays.pop(key).float(), key.removesuffix("_scale")
        arrays[whole] = arrays[whole].float() / scale.reshape(-1, *[1] * (arrays[whole].dim() - 1))
    return name, arrays


def model_files(path: Path) -> list[Path]:
    """The model.bin of a folder, whole or in parts, or the file itself; raises IsoglossError where there is none."""
    if path.is_file():
        return [path]
    if (path / "model.bin").is_file():
        return [path / "model.bin"]
    parts = {file: file.name.removeprefix("model.bin.part") for file in path.glob("model.bin.part*")}
    if not parts or not all(number.isdecimal() for number in parts.values()):
        raise IsoglossError(f"{path} holds no model.bin; give the folder of a CTranslate2 model.")
    return sorted(parts, key=lambda file: int(parts[file]))


@contextmanager
def one_model_file(folder: Path) -> Iterator[Path]:
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


class _Joined:
    """A file, or the parts of one, read from beginning to end."""

    def __init__(self, parts: list[Path]):
        self.parts = parts
        self.files: list[BinaryIO] = []

    def __enter__(self) -> "_Joined":
        self.files = [part.open("rb") for part in self.parts]
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.files:
            file.close()

    def take(self, count: int) -> bytes:
        found = b""
        while self.files and len(found) < count:
            found += self.files[0].read(count - len(found))
            if len(found) < count:
                self.files.pop(0).close()
        if len(found) < count:
            raise ValueError("it ends too early")
        return found

    def numbers(self, kinds: str) -> tuple[int, ...]:
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

    def string(self) -> str:
        return self.take(*self.numbers("H")).rstrip(b"\0").decode()

    def header(self) -> str:
        (version,) = self.numbers("I")
        if version not in CT2_VERSIONS:
            raise ValueError(f"its version is {version}, not {CT2_VERSIONS[0]} or {CT2_VERSIONS[-1]}")
        name = self.string()
        self.numbers("I")  # the revision of the specification
        return name

    def arrays(self) -> Iterator[tuple[str, Tensor]]:
        (count,) = self.numbers("I")
        for _ in range(count):
            name = self.string()
            (rank,) = self.numbers("B")
            shape = self.numbers(f"{rank}I")
            kind, size = self.numbers("BI")
            yield name, _tensor(self.take(size), kind, shape)

    def aliases(self) -> Iterator[tuple[str, str]]:
        (count,) = self.numbers("I")
        for _ in range(count):
            yield self.string(), self.string()


def _tensor(data: bytes, kind: int, shape: tuple[int, ...]) -> Tensor:
    if kind == BFLOAT16:
        return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).reshape(shape)
    values: NDArray[np.generic] = np.frombuffer(data, dtype=CT2_TYPES[kind]).reshape(shape).copy()
    return torch.from_numpy(values)
