"""`isogloss export --format hf`: a model folder -> a folder that transformers loads, compared with it on a clip.

    config.json, model.safetensors, preprocessor_config.json      the encoder, as one of the `families`
    vocab.json, tokenizer_config.json                             of a CTC head over letters
    README.md                                                     the model card, with the line that loads it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import atomic_folder, require_replaceable, write_json
from isogloss.interop.comparing import BOUNDS, difference, made_sound
from isogloss.interop.families import FAMILIES
from isogloss.interop.family import PARTS, Family, flat
from isogloss.interop.naming import original
from isogloss.interop.vocabulary import written_vocabulary
from isogloss.model.folder import load_model, model_digest, write_tensors
from isogloss.model.model import Model

PROCESSOR = "preprocessor_config.json"
"""What marks a folder of this kind: folders of ours have no such file."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    kind: `model_type`. loader: the class of transformers that loads it. left_out: parts of the model that
    transformers has no place for, a sentence each. difference: of the states, as of an import; None where transformers
    is not installed.
    """

    kind: str
    loader: str
    left_out: list[str]
    difference: float | None


def export_transformers(folder: Path, out: Path, kind: str | None = None) -> Exported:
    """Write a model folder as one of transformers; nothing is written where the states there differ.

    kind: the `model_type` to write, by default the first whose architecture the model has. Raises IsoglossError for
    a model that transformers has no architecture for.
    """
    require_replaceable(out, PROCESSOR)
    model = load_model(folder)
    family = _family(model, kind)
    head, left_out = _heads(model, family)
    loader = family.recogniser if head and family.recogniser else family.model
    config, processor = _settings(model, family, loader, head)
    weights = family.from_ours(model.config, model.state_dict())
    if head:
        weights = {family.prefixes[0] + key: value for key, value in weights.items()}
        weights |= original(model.state_dict(), {f"heads.{head}.output": "lm_head"})
    with atomic_folder(out, PROCESSOR) as temporary:
        write_json(temporary / "config.json", config)
        write_json(temporary / PROCESSOR, processor)
        write_tensors(temporary / "model.safetensors", weights, {"format": "pt"})
        if head and (letters := written_vocabulary(model.tokenizer)):
            write_json(temporary / "vocab.json", letters[0])
            write_json(temporary / "tokenizer_config.json", letters[1] | {"processor_class": family.reader})
        (temporary / "README.md").write_text(_card(folder, out, loader, left_out), encoding="utf-8")
        found = difference("hf", temporary, model, made_sound())
        if found is not None and not found <= BOUNDS["hf"]:
            raise IsoglossError(
                f"transformers makes states of {out} that differ by {found:.1e}, more than {BOUNDS['hf']:g}; nothing "
                "was written. Please report the model."
            )
    return Exported(family.kind, loader, left_out, found)


def _family(model: Model, kind: str | None) -> Family:
    """The first family that has the model's architecture; or one sentence on why there is none."""
    if kind is not None and kind not in FAMILIES:
        raise IsoglossError(
            f'"{kind}" is no model type that is exported.{did_you_mean(kind, FAMILIES)} These are: '
            f"{', '.join(FAMILIES)}."
        )
    if model.config.weights != "float32":
        raise IsoglossError("The weights are int8, which transformers lacks; export the model they were made of.")
    if any(block for head in model.spec.heads.values() for block in getattr(head, "conditioning", ())):
        raise IsoglossError(
            "transformers has no self-conditioned CTC (model.heads.ctc.conditioning), on which the states depend."
        )
    wanted = [FAMILIES[kind]] if kind else list(FAMILIES.values())
    differences = {family.kind: family.differences(model.config) for family in wanted}
    for family in wanted:
        if not differences[family.kind]:
            return family
    nearest = min(differences, key=lambda name: (not PARTS.isdisjoint(differences[name]), len(differences[name])))
    field, value = next(iter(differences[nearest].items()))
    raise IsoglossError(
        f"transformers has no architecture for this encoder: the nearest, {nearest}, has {field}: {value}, "
        f"and the model {flat(model.config).get(field)}."
    )


def _heads(model: Model, family: Family) -> tuple[str | None, list[str]]:
    """The name of the CTC head that goes along, and a sentence for each part that does not."""
    left_out = []
    head = next(iter(model.spec.ctc_heads("symbols")), None)
    if head and family.recogniser is None:
        left_out.append(f"The CTC head stays here: transformers has no {family.kind} with CTC.")
        head = None
    elif head and written_vocabulary(model.tokenizer) is None:
        left_out.append("The CTC head stays here: its symbols are bytes or pieces, and transformers' are letters.")
        head = None
    taken = model.spec.ctc_heads("symbols")[:1]
    others = [name for name in model.spec.heads if name not in taken]
    left_out += [f"The head {name} stays here: transformers has none of its kind." for name in others]
    if model.text is not None:
        left_out.append("The text encoder stays here: transformers has none.")
    return head, left_out


def _settings(model: Model, family: Family, loader: str, head: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and preprocessor_config.json."""
    values = flat(model.config)
    described, unread = family.written(model.config), family.unread(values)
    config = {"architectures": [loader], "model_type": family.kind, "dtype": "float32", **described[0], **unread[0]}
    processor = {"feature_extractor_type": family.extractor, **described[1], **unread[1]}
    if head:
        config |= {"vocab_size": model.spec.vocabulary, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
        config |= {"ctc_loss_reduction": "mean", "ctc_zero_infinity": True}
        processor |= {"processor_class": family.reader}
    return config, processor


def _card(folder: Path, out: Path, loader: str, left_out: list[str]) -> str:
    where = "transformers" if loader != "WhisperEncoder" else "transformers.models.whisper.modeling_whisper"
    notes = "".join(f"\n* {sentence}" for sentence in left_out)
    return f"""# {out.resolve().name}

Exported from the isogloss model {folder.resolve().name} (digest {model_digest(folder)}), whose licence and card are its
own. Transformers loads it so:

```python
from {where} import {loader}

model = {loader}.from_pretrained("{out.resolve().name}")
```
{notes}
"""
