"""An index: vectors of recordings and sentences, among which the nearest are found.

    folder/items.json            what the vectors stand for, the model that made them
    folder/vectors.safetensors   (N, D) of length 1, so that a product is the cosine

A plain product with all of them: a million vectors are searched in a fraction of a second.
"""

from collections.abc import Sequence as ListOf
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, read_json, write_json
from isogloss.model.folder import model_digest, read_tensors, write_tensors

Kind = Literal["speech", "text"]
FORMAT = 1
ITEMS, VECTORS = "items.json", "vectors.safetensors"


@dataclass(frozen=True)
class Item:
    """A stretch of a recording, from `start` to `end` in seconds, or a sentence in a language."""

    kind: Kind
    name: str
    start: float = 0.0
    end: float = 0.0
    language: str | None = None


@dataclass(frozen=True)
class Found:
    """An item and its cosine to the query."""

    score: float
    item: Item

    def plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {"score": round(self.score, 4)} | asdict(self.item)


class Index:
    """Items and their vectors, (D,) each, made by the model in a folder."""

    def __init__(self, items: list[Item], vectors: ListOf[Tensor], model: Path):
        if not items:
            raise IsoglossError("There is nothing to index: no speech was found, and no text was given.")
        self.items, self.vectors, self.model = items, torch.stack(list(vectors)), model

    def nearest(self, query: Tensor, most: int, kind: Kind | None = None) -> list[Found]:
        """The items nearest to a vector (D,), the nearest first; what is there twice, once.

        kind: only these. Without it a sentence finds sentences first: each kind lies nearest to its own.
        """
        scores = self.vectors @ normalize(query.cpu(), dim=0)
        found: dict[Item, Found] = {}
        for place in scores.argsort(descending=True, stable=True).tolist():
            item = self.items[place]
            if kind in (None, item.kind):
                found.setdefault(item, Found(float(scores[place]), item))
            if len(found) == most:
                break
        return list(found.values())

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all."""
        about = {"format": FORMAT, "model": str(self.model.absolute()), "digest": model_digest(self.model)}
        with atomic_folder(folder, ITEMS) as temporary:
            write_tensors(temporary / VECTORS, {"vectors": self.vectors.contiguous()})
            write_json(temporary / ITEMS, about | {"items": [asdict(item) for item in self.items]})


def load_index(folder: Path, model: Path | None = None) -> Index:
    """Read an index; model: where its model lies now, if not where it lay. Raises IsoglossError for another model."""
    if not (folder / ITEMS).is_file():
        raise IsoglossError(f"{folder} is no index: it holds no {ITEMS}; make one with isogloss embed.")
    about = read_json(folder / ITEMS)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise IsoglossError(f"{folder / ITEMS} is not that of an index this isogloss reads.")
    place = model or Path(about["model"])
    if not place.is_dir():
        raise IsoglossError(f"{folder} was made by the model {place}, which is not there; give it with --model.")
    if model_digest(place) != about["digest"]:
        raise IsoglossError(f"{folder} was made by another model than {place}; make the index again.")
    vectors = read_tensors(folder / VECTORS).get("vectors", torch.zeros(0, 0))
    items = [Item(**item) for item in about["items"]]
    if len(vectors) != len(items):
        raise IsoglossError(f"{folder / VECTORS} and {ITEMS} disagree on how much they hold; make the index again.")
    return Index(items, vectors.unbind(), place)
