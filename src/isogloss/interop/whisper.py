"""Whisper's encoder (Radford et al. 2022, arXiv 2212.04356), from three formats and to transformers.

    log-mel, 100 Hz ─ two convolutions ─ 50 Hz ─ + sinusoids ─ pre-norm Transformer ─ LayerNorm ─> states

Its features and its whole encoder are configurations of ours; only names differ, and keys have no bias. Unlike the
original, audio is not padded to 30 s; padded, states are the original's.
"""

import torch
from torch import Tensor

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.interop.arrays import Tensors
from isogloss.interop.family import Family, Plain, Setting, Values
from isogloss.interop.naming import Names, Theirs, layers_in, renamed
from isogloss.model.spec import ModelConfig
from isogloss.nn.position import sinusoids

HEAD_WIDTH = 64
"""Of every published Whisper."""
SECONDS = 30
"""Of audio that it takes at once."""
FRAMES = 50 * SECONDS
"""Positions it has."""
BLOCK = "encoder.stack.blocks.*."


def _names(blocks: str, block: dict[str, str], attention: Theirs, around: tuple[str, str, str]) -> Names:
    """A table: names of the blocks, of a block's parts, of its attention, and of what stands around the blocks."""
    return {
        "encoder.embed.convolutions.0": around[0],
        "encoder.embed.convolutions.1": around[1],
        "encoder.stack.norm": around[2],
        f"{BLOCK}attention.qkv": Theirs(
            tuple(f"{blocks}{name}" for name in attention.names),
            unbiased=attention.unbiased and f"{blocks}{attention.unbiased}",
        ),
        **{f"{BLOCK}{ours}": f"{blocks}{theirs}" for ours, theirs in block.items()},
    }


TRANSFORMERS = _names(
    "layers.*.",
    {
        "norm_attention": "self_attn_layer_norm",
        "attention.out": "self_attn.out_proj",
        "feed.norm": "final_layer_norm",
        "feed.expand": "fc1",
        "feed.project": "fc2",
    },
    Theirs(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), unbiased="self_attn.k_proj"),
    ("conv1", "conv2", "layer_norm"),
)
OPENAI = _names(
    "encoder.blocks.*.",
    {
        "norm_attention": "attn_ln",
        "attention.out": "attn.out",
        "feed.norm": "mlp_ln",
        "feed.expand": "mlp.0",
        "feed.project": "mlp.2",
    },
    Theirs(("attn.query", "attn.key", "attn.value")),
    ("encoder.conv1", "encoder.conv2", "encoder.ln_post"),
)
CTRANSLATE2 = _names(
    "encoder/layer_*/",
    {
        "norm_attention": "self_attention/layer_norm",
        "attention.out": "self_attention/linear_1",
        "feed.norm": "ffn/layer_norm",
        "feed.expand": "ffn/linear_0",
        "feed.project": "ffn/linear_1",
    },
    Theirs(("self_attention/linear_0",)),
    ("encoder/conv1", "encoder/conv2", "encoder/layer_norm"),
)
CTRANSLATE2_PARTS = {"/gamma": ".weight", "/beta": ".bias", "/weight": ".weight", "/bias": ".bias"}
"""What names of tensors end in, and ours."""


def _follows(ours: Values) -> tuple[Plain, Plain]:
    config = {
        "encoder_ffn_dim": 4 * ours["encoder.blocks.width"],
        "activation_function": "gelu",
        "scale_embedding": False,
        "max_source_positions": FRAMES,
    }
    processor = {"feature_size": ours["features.bins"], "n_fft": 400, "hop_length": 160}
    return config, processor | {"sampling_rate": SAMPLE_RATE}


def _unread(ours: Values) -> tuple[Plain, Plain]:
    """The decoder's sizes are those of the encoder; there is no decoder."""
    config = {
        "decoder_layers": ours["encoder.blocks.layers"],
        "decoder_attention_heads": ours["encoder.blocks.heads"],
        "decoder_ffn_dim": 4 * ours["encoder.blocks.width"],
    }
    processor = {
        "chunk_length": SECONDS,
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    return config, processor


WHISPER = Family(
    kind="whisper",
    model="WhisperEncoder",
    recogniser=None,
    extractor="WhisperFeatureExtractor",
    reader=None,
    prefixes=("model.", "encoder."),
    settings={
        "num_mel_bins": Setting("features.bins"),
        "encoder_layers": Setting("encoder.blocks.layers"),
        "d_model": Setting("encoder.blocks.width"),
        "encoder_attention_heads": Setting("encoder.blocks.heads"),
        "dropout": Setting("encoder.blocks.dropout", default=0.0),
    },
    processor={},
    constant={
        "features.kind": "log_mel",
        "features.flavour": "whisper",
        "features.low_hz": 0.0,
        "features.normalisation": "whisper",
        "encoder.embed.kind": "convolutions",
        "encoder.blocks.kind": "transformer",
        "encoder.blocks.position": "none",
    },
    follows=_follows,
    unread=_unread,
    names=lambda _: TRANSFORMERS,
    computed=lambda ours: {
        "embed_positions.weight": sinusoids(FRAMES, ours["encoder.blocks.width"], torch.device("cpu"))
    },
)


def from_openai(theirs: Tensors) -> tuple[ModelConfig, Tensors]:
    """Configuration and weights of the encoder in OpenAI's own names."""
    return _whole(renamed(theirs, OPENAI)[0])


def from_ctranslate2(theirs: Tensors) -> tuple[ModelConfig, Tensors]:
    """Configuration and weights of the encoder in a model of CTranslate2."""
    dotted = {}
    for key, value in theirs.items():
        for theirs_end, ours_end in CTRANSLATE2_PARTS.items():
            if key.endswith(theirs_end):
                dotted[key.removesuffix(theirs_end) + ours_end] = value
    return _whole(renamed(dotted, CTRANSLATE2)[0])


def _whole(weights: Tensors) -> tuple[ModelConfig, Tensors]:
    """With the configuration that the shapes of the weights tell."""
    layers = layers_in(weights, r"blocks\.(\d+)\.")
    first: Tensor = weights["encoder.embed.convolutions.0.weight"]
    width, bins, _ = first.shape
    sizes = {
        "num_mel_bins": bins,
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": width // HEAD_WIDTH,
    }
    return WHISPER.read(sizes, {}), weights
