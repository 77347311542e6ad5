"""Heads: hidden states -> symbols, languages, speech. A new one is a file with a configuration, and a line here."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from torch import nn

from isogloss.heads.attention import AttentionConfig
from isogloss.heads.classifier import ClassifierConfig
from isogloss.heads.ctc import CTCConfig
from isogloss.heads.speech import SpeechDecoderConfig
from isogloss.heads.transducer import TransducerConfig

# Of several that a model can be decoded by, the first kind is the one it is decoded by where none is asked for.
HeadConfig = Annotated[
    TransducerConfig | CTCConfig | AttentionConfig | SpeechDecoderConfig | ClassifierConfig,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(kind.model_fields["kind"].default for kind in get_args(get_args(HeadConfig)[0]))

NAMED: dict[str, dict[str, str]] = {
    "phonemes": {"kind": "ctc", "target": "phonemes"},
    "language": {"kind": "classifier"},
}
"""What names say that are not kinds."""


def _by_name(value: Any) -> Any:
    """`[ctc, language]` and `{ctc: {}, language: {}}` in full: kind and target follow from the name."""
    if isinstance(value, list | tuple):
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f'the head "{twice[0]}" is there twice')
        value = dict.fromkeys(value)
    if not isinstance(value, Mapping):
        return value
    return {name: _named(name, head) for name, head in value.items()}


def _named(name: Any, head: Any) -> Any:
    if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise ValueError(f'a head cannot have the name "{name}"; give it another')
    if head is not None and not isinstance(head, Mapping):
        return head
    return NAMED.get(name, {"kind": name}) | dict(head or {})


def _checked(heads: dict[str, HeadConfig]) -> dict[str, HeadConfig]:
    for name, head in heads.items():
        for other, kind in head.beside.items():
            if other not in heads or (heads[other].kind, heads[other].target) != (kind, "symbols"):
                raise ValueError(f'"{name}" works with a head "{other}" of the kind {kind}; add {other}: {{}}')
    return heads


def usual_heads() -> dict[str, HeadConfig]:
    """Of a model that says nothing of its heads."""
    return {"ctc": CTCConfig(), "language": ClassifierConfig()}


Heads = Annotated[dict[str, HeadConfig], BeforeValidator(_by_name), AfterValidator(_checked)]
"""Heads by name, in a recipe and in a model's configuration."""
