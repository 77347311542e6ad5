"""The self-supervised methods that recipes can name: their papers, recipes, published sizes and parameters."""

from __future__ import annotations

from typing import Any, get_args

import torch

from isogloss.encoders.presets import preset, preset_features
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.objectives import ObjectiveConfig
from isogloss.objectives.base import BaseConfig


def methods() -> list[dict[str, Any]]:
    """Each method, in the order of names: `name`, `paper`, `recipe`, and `presets` with exact numbers of parameters.

    `encoder_parameters` are those of features and encoder, `parameters` also those that only pre-training needs; they
    are counted on models without content.
    """
    kinds: list[type[BaseConfig]] = list(get_args(get_args(ObjectiveConfig)[0]))
    return [
        {
            "name": kind.model_fields["name"].default,
            "paper": kind.paper,
            "recipe": kind.recipe,
            "presets": {size: _counted(kind, *chosen) for size, chosen in kind.presets.items()},
        }
        for kind in kinds
        if kind.presets
    ]


def _counted(kind: type[BaseConfig], encoder: str, values: dict[str, Any]) -> dict[str, Any]:
    with torch.device("meta"):
        model = Model(ModelConfig(encoder=preset(encoder), features=preset_features(encoder), heads={}))
        objective = kind.parse(values, encoder).build(model.spec)
    own = sum(parameter.numel() for parameter in model.parameters())
    more = sum(parameter.numel() for parameter in objective.parameters())
    return {"encoder": encoder, "parameters": own + more, "encoder_parameters": own} | (
        {"objective": values} if values else {}
    )
