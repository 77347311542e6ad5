"""Typed configuration: pydantic models that are the image of plain YAML."""

from pathlib import Path
from typing import Any, Self

import pydantic
import yaml

from isogloss.errors import IsoglossError, did_you_mean


class Config(pydantic.BaseModel):
    """Base of every configuration: unknown keys are errors, values do not change once read."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def parse(cls, values: Any, where: str) -> Self:
        """Validate plain data; the error names the key, what is wrong and the nearest known key.

        `where` is what the values came from (a file name), for the message.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise IsoglossError(f"{where}: {_first_problem(cls, error, values)}") from None

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data for YAML or JSON."""
        return self.model_dump(mode="json")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping without constructing any object of code."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        raise IsoglossError(f"There is no file {path}.{near}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = str(error).replace("\n", " ")
        raise IsoglossError(f"{path} is not readable YAML: {reason}") from None
    if not isinstance(values, dict):
        raise IsoglossError(f"{path} must hold a mapping of keys to values.")
    return values


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `stages.0.steps=500`: a dotted path, list positions by number, the value as YAML."""
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise IsoglossError(f'"{assignment}" is not an override; write key=value, as in stages.0.steps=500.')
        *parents, last = path.split(".")
        node: Any = values
        for key in parents:
            node = _descend(node, key, path)
        if isinstance(node, list):
            node[_position(node, last, path)] = yaml.safe_load(text)
        elif isinstance(node, dict):
            node[last] = yaml.safe_load(text)
        else:
            raise IsoglossError(f'"{path}" goes below a plain value; nothing can be set there.')
    return values


def _descend(node: Any, key: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, key, path)]
    if isinstance(node, dict):
        return node.setdefault(key, {})
    raise IsoglossError(f'"{path}" goes below a plain value at "{key}".')


def _position(node: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise IsoglossError(f'"{path}": "{key}" is not a position from 0 to {len(node) - 1}.')
    return int(key)


WANTED = {
    "tuple_type": "give a list, as in [a, b]",
    "dict_type": "give keys and values, as in {a: b}",
    "model_attributes_type": "give keys and values, as in {a: b}",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
}
"""Pydantic's kinds of errors whose own words speak of Python."""


def _first_problem(cls: type[pydantic.BaseModel], error: pydantic.ValidationError, values: Any) -> str:
    first = error.errors()[0]
    location = _typed(first["loc"], values)
    if first["type"] == "union_tag_invalid":
        tag, known = first["ctx"]["tag"], first["ctx"]["expected_tags"].replace("'", "")
        key = first["ctx"]["discriminator"].strip("'")
        return f'"{location}" has the {key} "{tag}".{did_you_mean(tag, known.split(", "))} Known: {known}.'
    if first["type"] == "union_tag_not_found":
        return f'"{location}" lacks the key "{first["ctx"]["discriminator"].strip(chr(39))}", which says what it is.'
    if first["type"] == "extra_forbidden":
        *_, key = first["loc"]
        return f'unknown key "{location}".{did_you_mean(str(key), _field_names(cls))}'
    if first["type"] == "missing":
        return f'the key "{location}" is missing.'
    said = WANTED.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    said = f"{said[0].lower()}{said[1:]}"
    return f'"{location}" is {first["input"]!r}: {said}.'


def _typed(places: tuple[int | str, ...], values: Any) -> str:
    """Where it is, as one would type it: pydantic adds the names of alternatives."""
    path, node = [], values
    for number, place in enumerate(places):
        if (isinstance(node, dict) and place in node) or (isinstance(node, list | tuple) and isinstance(place, int)):
            node = node[place]  # type: ignore[index]
        elif number < len(places) - 1 or place == "[key]":
            continue
        path.append(str(place))
    return ".".join(path)


def _field_names(cls: type[pydantic.BaseModel]) -> set[str]:
    """Names of all fields of a configuration and of those nested in it, for suggestions."""
    definitions = cls.model_json_schema()
    names: set[str] = set(definitions.get("properties", {}))
    for nested in definitions.get("$defs", {}).values():
        names |= set(nested.get("properties", {}))
    return names
