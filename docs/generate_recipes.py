"""Write docs/recipes.md from the configuration itself: `make docs`. A test holds the two together."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from isogloss.encoders.presets import PRESETS
from isogloss.training.recipe import SHIPPED, Recipe

PAGE = Path(__file__).with_name("recipes.md")
HEAD = """# Recipes

<!-- Written by docs/generate_recipes.py; change the descriptions in the code and run `make docs`. -->

A recipe is a YAML file that decides a whole run. `isogloss train RECIPE key=value … --out RUN` takes a
file or the name of a shipped one ({shipped}); `key=value` sets any field below by its path, list
positions by number: `stages.0.steps=500`, `data.folders=[data/mine]`, `model.encoder=small`.

An unknown key is an error that names the nearest known one. The resolved recipe is saved as
`RUN/recipe.yaml` and inside the model.

`model.encoder` takes one of the named sizes ({presets}) or the fields of `SpeechEncoderConfig`. A
name brings its features along, unless `model.features` gives others: `wav2vec2_base` learns them from the waveform. A
small recipe to start from is [usm-tiny.yaml](../src/isogloss/recipes/usm-tiny.yaml).

`model.heads` names all heads of a model, with what differs from the defaults:
`{{ctc: {{}}, transducer: {{pruned: 5}}}}`, or as a list, `[ctc, language]`. `ctc`, `transducer`, `attention` and
`speech` are kinds of heads, `phonemes` is a CTC head for phonemes, `language` a classifier; a head with another name
says its `kind`. On the command line `model.heads.transducer={{}}` adds one to those that the recipe names.

"""
NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Path: "path",
}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """The whole page as Markdown."""
    head = HEAD.format(
        shipped=", ".join(f"`{file.stem}`" for file in sorted(SHIPPED.glob("*.yaml"))),
        presets=", ".join(f"`{name}`" for name in PRESETS),
    )
    return head + "\n".join(section(model) for model in reachable(Recipe))


def reachable(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A configuration and all that are nested in it, each once, outermost first."""
    found = [model]
    for current in found:
        for field in current.model_fields.values():
            found += [nested for nested in nested_in(field.annotation) if nested not in found]
    return list(dict.fromkeys(found))


def nested_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configurations that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from nested_in(inner)


def section(model: type[BaseModel]) -> str:
    """One configuration as a heading and a table."""
    rows = [
        f"| `{name}` | {cell(kind(field))} | {cell(default(field))} | {cell(meaning(field))} |\n"
        for name, field in model.model_fields.items()
    ]
    about = " ".join((model.__doc__ or "").split())
    heading = f"## {model.__name__}\n\n{about}\n\n"
    return heading + "| field | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def kind(field: FieldInfo) -> str:
    """What a field takes, with its bounds."""
    bounds = [
        f"{sign} {getattr(rule, key):g}"
        for rule in field.metadata
        for key, sign in SIGNS.items()
        if hasattr(rule, key)
    ]
    return ", ".join([type_name(field.annotation), *bounds])


def type_name(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(part) for part in inner))
    if origin is dict:
        return f"{type_name(inner[0])}: {type_name(inner[1])}"
    if origin is tuple:
        many = inner[-1] is Ellipsis
        return f"list of {type_name(inner[0])}" if many else f"[{', '.join(map(type_name, inner))}]"
    if hasattr(annotation, "__metadata__"):
        return type_name(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return NAMES[annotation]


def default(field: FieldInfo) -> str:
    """The default as it would stand in the YAML; `required` where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        preset = next((name for name, known in PRESETS.items() if known == value), None)
        return f"`{preset}`" if preset else "its own defaults"
    if isinstance(value, tuple | dict):
        return f"`{list(value)}`" if value else "empty"
    if isinstance(value, bool) or value is None:
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    return f"`{value:g}`" if isinstance(value, int | float) else f"`{value}`"


def meaning(field: FieldInfo) -> str:
    """The description; a literal of one value has none."""
    return field.description or (
        "" if get_origin(field.annotation) is not Literal else "says which kind this is"
    )


def cell(words: str) -> str:
    """Words that do not end a cell of a table."""
    return words.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
