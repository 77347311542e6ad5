"""Whisper's encoder (Radford et al. 2022, arXiv 2212.04356), from three formats.

    log-mel, 100 Hz ─ two convolutions ─ 50 Hz ─ + sinusoids ─ pre-norm Transformer ─ LayerNorm ─> states

Its features and its whole encoder are configurations of ours; only names differ, and keys have no bias. Unlike the
original, audio is not padded to 30 s; padded, states are the original's.
"""

from torch import Tensor

from isogloss.audio.log_mel import LogMelConfig
from isogloss.encoders.embed import ConvolutionsConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.interop.arrays import Tensors
from isogloss.interop.naming import Rule, joined, layers_in, renamed
from isogloss.model.spec import ModelConfig

HEAD_WIDTH = 64
"""Of every published Whisper."""
OURS = r"encoder.stack.blocks.\1."
TRANSFORMERS: list[Rule] = [
    (r"^(model\.)?encoder\.conv1\.", "encoder.embed.convolutions.0."),
    (r"^(model\.)?encoder\.conv2\.", "encoder.embed.convolutions.1."),
    (r"^(model\.)?encoder\.layer_norm\.", "encoder.stack.norm."),
    (r"^(?:model\.)?encoder\.layers\.(\d+)\.", OURS),
    (r"\.self_attn_layer_norm\.", ".norm_attention."),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.self_attn\.", ".attention."),
    (r"\.final_layer_norm\.", ".feed.norm."),
    (r"\.fc1\.", ".feed.expand."),
    (r"\.fc2\.", ".feed.project."),
]
OPENAI: list[Rule] = [
    (r"^encoder\.conv1\.", "encoder.embed.convolutions.0."),
    (r"^encoder\.conv2\.", "encoder.embed.convolutions.1."),
    (r"^encoder\.ln_post\.", "encoder.stack.norm."),
    (r"^encoder\.blocks\.(\d+)\.", OURS),
    (r"\.attn_ln\.", ".norm_attention."),
    (r"\.attn\.out\.", ".attention.out."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp_ln\.", ".feed.norm."),
    (r"\.mlp\.0\.", ".feed.expand."),
    (r"\.mlp\.2\.", ".feed.project."),
]
CTRANSLATE2: list[Rule] = [
    (r"/", "."),
    (r"^encoder\.conv1\.", "encoder.embed.convolutions.0."),
    (r"^encoder\.conv2\.", "encoder.embed.convolutions.1."),
    (r"^encoder\.layer_norm\.", "encoder.stack.norm."),
    (r"^encoder\.layer_(\d+)\.", OURS),
    (r"\.self_attention\.layer_norm\.", ".norm_attention."),
    (r"\.self_attention\.linear_0\.", ".attention.qkv."),
    (r"\.self_attention\.linear_1\.", ".attention.out."),
    (r"\.ffn\.layer_norm\.", ".feed.norm."),
    (r"\.ffn\.linear_0\.", ".feed.expand."),
    (r"\.ffn\.linear_1\.", ".feed.project."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
]
KEPT = ("encoder.embed.", "encoder.stack.")


def from_transformers(theirs: Tensors) -> tuple[ModelConfig, Tensors]:
    """Configuration and weights of the encoder in a model of transformers."""
    return _whole(joined(renamed(theirs, TRANSFORMERS), ("q_proj", "k_proj", "v_proj"), "qkv"))


def from_openai(theirs: Tensors) -> tuple[ModelConfig, Tensors]:
    """Configuration and weights of the encoder in OpenAI's own names."""
    return _whole(joined(renamed(theirs, OPENAI), ("query", "key", "value"), "qkv"))


def from_ctranslate2(theirs: Tensors) -> tuple[ModelConfig, Tensors]:
    """Configuration and weights of the encoder in a model of CTranslate2."""
    return _whole(renamed(theirs, CTRANSLATE2))


def _whole(found: Tensors) -> tuple[ModelConfig, Tensors]:
    weights = {name: value for name, value in found.items() if name.startswith(KEPT)}
    first: Tensor = weights["encoder.embed.convolutions.0.weight"]
    width, bins, _ = first.shape
    blocks = TransformerConfig(
        layers=layers_in(weights, r"blocks\.(\d+)\."),
        width=width,
        heads=width // HEAD_WIDTH,
        position="none",
        dropout=0.0,
    )
    features = LogMelConfig(bins=bins, flavour="whisper", low_hz=0.0, normalisation="whisper")
    encoder = SpeechEncoderConfig(embed=ConvolutionsConfig(), blocks=blocks)
    return ModelConfig(features=features, encoder=encoder, heads={}), weights
