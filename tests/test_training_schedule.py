"""What weight decay reaches: every matrix and kernel of every model, and no norm and no bias."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from isogloss.audio.sincnet import BandPass, OverUtterance
from isogloss.audio.waveform import OverTime
from isogloss.encoders.presets import PRESETS, preset_features
from isogloss.encoders.text import TextEncoderConfig
from isogloss.heads.attention import AttentionConfig
from isogloss.heads.classifier import ClassifierConfig
from isogloss.heads.ctc import CTCConfig
from isogloss.heads.speech import SpeechDecoderConfig
from isogloss.heads.transducer import TransducerConfig
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.adapters import AdapterConfig, Adapters
from isogloss.nn.attention import SelfAttention
from isogloss.nn.convolution import FrameGroupNorm
from isogloss.nn.lightconv import LightweightConvolution
from isogloss.nn.predictors import LSTMConfig, StatelessConfig
from isogloss.nn.quantizers import GumbelQuantizer, NearestQuantizer
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from isogloss.training.recipe import StageRecipe
from isogloss.training.schedule import build_optimizer

WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.LSTM, nn.GRU)
OWN = {
    Adapters: {"down", "up"},
    SelfAttention: set(),
    FrameGroupNorm: set(),
    LightweightConvolution: {"weight"},
    GumbelQuantizer: {"codes"},
    NearestQuantizer: {"codes"},
    ParametrizationList: {"original1"},  # of weight normalisation: the direction, and not the length
    OverTime: set(),
    OverUtterance: set(),
    BandPass: set(),  # edges of filters
    nn.PReLU: set(),
}
"""Modules with parameters of their own, and which of these are matrices or kernels."""


def expected(module: nn.Module) -> Iterator[tuple[str, bool]]:
    """Each parameter's name, and whether it is a matrix or a kernel by what its module is."""
    for path, part in module.named_modules():
        for name, _ in part.named_parameters(recurse=False):
            if isinstance(part, nn.LayerNorm | nn.BatchNorm1d):
                weight = False
            elif isinstance(part, WEIGHTS):
                weight = name.startswith("weight")
            else:
                weight = name in OWN[type(part)]
            yield f"{path}.{name}".removeprefix("."), weight


def decayed(module: nn.Module) -> dict[str, bool]:
    """What the optimizer of a recipe does with each parameter."""
    stage = StageRecipe.parse(
        {"name": "x", "steps": 1, "seconds": {"speech": 1}, "objectives": [{"name": "best_rq"}]}, "test"
    )
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = build_optimizer(stage, dict(module.named_parameters())).param_groups
    assert {group["weight_decay"] for group in groups} <= {0.0, stage.optimizer.weight_decay}
    return {names[id(p)]: group["weight_decay"] > 0 for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("transducer", [LSTMConfig(), StatelessConfig()], ids=["lstm", "stateless"])
def test_it_reaches_matrices_and_kernels_alone(name: str, transducer: LSTMConfig | StatelessConfig) -> None:
    adapters = AdapterConfig(bottleneck=2, groups={"es": ("es",), "it": ("it",)})
    encoder = PRESETS[name]
    blocks = encoder.blocks.model_copy(update={"layers": max(2, encoder.blocks.layers)})  # one to be conditioned after
    config = ModelConfig(
        features=preset_features(name),
        encoder=encoder.model_copy(update={"blocks": blocks, "adapters": adapters if blocks.feeds else None}),
        heads={
            "ctc": CTCConfig(conditioning=(1,)),
            "phonemes": CTCConfig(target="phonemes"),
            "transducer": TransducerConfig(predictor=transducer, pruned=5),
            "attention": AttentionConfig(),
            "speech": SpeechDecoderConfig(),
            "language": ClassifierConfig(),
        },
        phonemes=("a", "b"),
        text=TextEncoderConfig(entry=1, heads=2),
        text_languages=("es", "it"),
        languages=("es", "it"),
    )
    with torch.device("meta"):
        model = Model(config, build_tokenizer(CharactersConfig(), ["abc"]))
    found = decayed(model)
    assert found == dict(expected(model))
    assert {True, False} == set(found.values())


def test_it_reaches_the_codes_of_a_quantizer() -> None:
    quantizer = GumbelQuantizer(8, 2, 4, 8)
    assert decayed(quantizer) == dict(expected(quantizer))
