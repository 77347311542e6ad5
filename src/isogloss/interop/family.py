"""A family of models in transformers: its settings and tensors beside ours, each stated once, for both directions.

    config.json, preprocessor_config.json ── read ──> features and encoder          what `written` would not write
                                          <── written ──                            again cannot be imported
    model.safetensors ── names ── our tensors

A setting that both have is a `Setting`; one that follows from others, or can have one value only, is computed by
`follows`. What neither states is training: dropped parts and rates are not looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.interop.arrays import Tensors
from isogloss.interop.naming import Names, named, original, renamed
from isogloss.model.spec import ModelConfig

Plain = dict[str, Any]
"""A configuration as plain data."""
Values = dict[str, Any]
"""By the dotted name of a field, `encoder.blocks.width`, its value."""
PARTS = {"features.kind", "encoder.embed.kind", "encoder.blocks.kind"}
"""Fields that say what an encoder is built of."""
_REQUIRED = object()


@dataclass(frozen=True)
class Setting:
    """The field of our configuration that a key of theirs is.

    spelled: their values by ours where these differ. repeated: another field of ours, a list; theirs holds the value
    once for each of its items. default: what it means where it is not there.
    """

    field: str
    spelled: Mapping[Any, Any] | None = None
    repeated: str | None = None
    default: Any = _REQUIRED


@dataclass(frozen=True)
class Family:
    """An architecture of transformers.

    kind: `model_type` in config.json. model, recogniser: the classes of the encoder, and of it with a CTC head, if
    there is one. extractor, reader: the classes of its features, and of them with a tokenizer. prefixes: of the
    encoder's tensors in a model with a head, or in a larger one. settings, processor: keys of config.json and of
    preprocessor_config.json. constant: fields of ours that every model of the family has. follows: from fields of
    ours, what config.json and preprocessor_config.json say besides. unread: the same, for what may be anything in a
    model that is imported. names: of the tensors of a configuration. computed: from fields of ours, tensors that
    transformers wants and that are no weights here.
    """

    kind: str
    model: str
    recogniser: str | None
    extractor: str
    reader: str | None
    prefixes: tuple[str, ...]
    settings: Mapping[str, Setting]
    processor: Mapping[str, Setting]
    constant: Values
    follows: Callable[[Values], tuple[Plain, Plain]]
    names: Callable[[ModelConfig], Names]
    unread: Callable[[Values], tuple[Plain, Plain]]
    computed: Callable[[Values], Tensors] = lambda _: {}

    def read(self, config: Mapping[str, Any], processor: Mapping[str, Any]) -> ModelConfig:
        """Our configuration of features and encoder; raises IsoglossError for what ours do not have, by its key."""
        values = dict(self.constant)
        for given, settings in ((config, self.settings), (processor, self.processor)):
            for key, setting in settings.items():
                values[setting.field] = _from_theirs(key, given.get(key, setting.default), setting)
        found = ModelConfig.parse(_nested(values) | {"heads": {}}, f"config.json of a {self.kind}")
        for given, wanted in zip((config, processor), self.written(found), strict=True):
            for key, value in wanted.items():
                if key in given and _listed(given[key]) != _listed(value):
                    raise IsoglossError(f"The model has {key}: {given[key]}, and only {value} can be imported.")
        return found

    def written(self, config: ModelConfig) -> tuple[Plain, Plain]:
        """config.json and preprocessor_config.json, as far as they describe features and encoder."""
        values = flat(config)
        both = [
            {key: _to_theirs(values, setting) for key, setting in settings.items()}
            for settings in (self.settings, self.processor)
        ]
        besides = self.follows(values)
        return both[0] | besides[0], both[1] | besides[1]

    def to_ours(self, config: ModelConfig, theirs: Mapping[str, Tensor]) -> Tensors:
        """Their tensors of features and encoder as ours; raises IsoglossError for one of these parts that ours lack."""
        names = self.names(config)
        found, unknown = renamed({self._stripped(key): value for key, value in theirs.items()}, names)
        parts = {name.partition(".")[0] for held in names.values() for name in named(held)}
        computed = self.computed(flat(config))
        for key in unknown:
            if key.partition(".")[0] in parts and key not in computed:
                raise IsoglossError(f"The weights hold besides {key}; the model is of another shape.")
        return found

    def from_ours(self, config: ModelConfig, ours: Mapping[str, Tensor]) -> Tensors:
        """Our tensors of features and encoder as theirs."""
        return original(ours, self.names(config)) | self.computed(flat(config))

    def _stripped(self, key: str) -> str:
        for prefix in self.prefixes:
            key = key.removeprefix(prefix)
        # As torch called them before its parametrizations.
        key = key.replace(".weight_g", ".parametrizations.weight.original0")
        return key.replace(".weight_v", ".parametrizations.weight.original1")

    def differences(self, config: ModelConfig) -> Values:
        """The fields in which features and encoder are not those of this family, with what it has."""
        ours = flat(config)
        settings = [*self.settings.values(), *self.processor.values()]
        if other := {part: self.constant[part] for part in PARTS if ours[part] != self.constant[part]}:
            return other
        if other := {setting.field: "a value" for setting in settings if setting.field not in ours}:
            return other
        spelled = {setting.field: setting.spelled for setting in settings if setting.spelled is not None}
        if other := {field: known for field, known in spelled.items() if ours[field] not in known}:
            return {field: " or ".join(map(str, known)) for field, known in other.items()}
        theirs = flat(self.read(*self.written(config)))
        return {field: theirs.get(field) for field in ours | theirs if ours.get(field) != theirs.get(field)}


def flat(config: ModelConfig) -> Values:
    """The fields of features and encoder that say what is computed, by their dotted names."""
    plain = config.plain()
    plain["encoder"].pop("recompute")
    found: Values = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                visit(f"{name}.{key}", part)
        else:
            found[name] = value

    for part in ("features", "encoder"):
        visit(part, plain[part])
    return found


def _nested(values: Values) -> Plain:
    found: Plain = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return found


def _from_theirs(key: str, value: Any, setting: Setting) -> Any:
    if value is _REQUIRED:
        raise IsoglossError(f"config.json lacks {key}; copy the folder again.")
    if setting.repeated is not None:
        return value[0] if isinstance(value, list) and value else value
    if setting.spelled is None:
        return value
    for ours, theirs in setting.spelled.items():
        if theirs == value:
            return ours
    known = " and ".join(str(theirs) for theirs in setting.spelled.values())
    raise IsoglossError(f"The model has {key}: {value}, and only {known} can be imported.")


def _to_theirs(values: Values, setting: Setting) -> Any:
    value = values[setting.field]
    if setting.repeated is not None:
        return [value] * len(values[setting.repeated])
    return value if setting.spelled is None else setting.spelled[value]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
