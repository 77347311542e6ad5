"""The objectives and fits that a recipe may name: every file in this folder adds its own."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_origin

from pydantic import Field

from isogloss.config import Config
from isogloss.objectives.base import BaseConfig
from isogloss.objectives.fit import FitConfig

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")


def _named(base: type[Config]) -> Iterator[type[Config]]:
    """The configurations below `base` that have a fixed name."""
    for kind in base.__subclasses__():
        if get_origin(kind.model_fields["name"].annotation) is Literal:
            yield kind
        yield from _named(kind)


def _union(base: type[Config]) -> Any:
    kinds = tuple(sorted(set(_named(base)), key=lambda kind: kind.model_fields["name"].default))
    return Annotated[Union[kinds], Field(discriminator="name")]  # noqa: UP007


if TYPE_CHECKING:
    ObjectiveConfig = BaseConfig
    AnyFit = FitConfig
else:
    ObjectiveConfig = _union(BaseConfig)
    AnyFit = _union(FitConfig)
