"""wav2vec 2.0's and w2v-BERT 2.0's Conformers in transformers, with their CTC heads.

    waveform ─ convolutions ─ 50 Hz ─ projection ─ Conformer ─ LayerNorm ─> states            wav2vec2-conformer
    log-mel, 100 Hz ─ two frames side by side ─ 50 Hz ─ projection ─ Conformer ─> states      wav2vec2-bert

The convolution module of the former has BatchNorm, whose statistics stay as they are, and in the original takes padding
for speech: in padded batches its states differ.
"""

import torch

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.interop.arrays import Tensors
from isogloss.interop.family import Family, Plain, Setting, Values
from isogloss.interop.naming import Names, Theirs
from isogloss.interop.wav2vec2 import (
    ENCODER_SETTINGS,
    FEATURE_NORM,
    PROCESSOR,
    WAVEFORM_NAMES,
    WAVEFORM_SETTINGS,
    unread_training,
    waveform_follows,
    waveform_unread,
)
from isogloss.model.spec import ModelConfig

BLOCK = "encoder.stack.blocks.*."
LAYER = "encoder.layers.*."
ROTARY_BASE = 10000
KERNEL = {"conv_depthwise_kernel_size": Setting("encoder.blocks.kernel")}
BLOCK_NAMES: Names = {
    f"{BLOCK}feed_in.norm": f"{LAYER}ffn1_layer_norm",
    f"{BLOCK}feed_in.expand": f"{LAYER}ffn1.intermediate_dense",
    f"{BLOCK}feed_in.project": f"{LAYER}ffn1.output_dense",
    f"{BLOCK}norm_attention": f"{LAYER}self_attn_layer_norm",
    f"{BLOCK}attention.qkv": Theirs(tuple(f"{LAYER}self_attn.linear_{part}" for part in "qkv")),
    f"{BLOCK}attention.out": f"{LAYER}self_attn.linear_out",
    f"{BLOCK}attention.relative": f"{LAYER}self_attn.linear_pos",
    f"{BLOCK}attention.content_bias": Theirs((f"{LAYER}self_attn.pos_bias_u",), "heads"),
    f"{BLOCK}attention.position_bias": Theirs((f"{LAYER}self_attn.pos_bias_v",), "heads"),
    f"{BLOCK}convolution.norm_in": f"{LAYER}conv_module.layer_norm",
    f"{BLOCK}convolution.expand": Theirs((f"{LAYER}conv_module.pointwise_conv1",), "pointwise"),
    f"{BLOCK}convolution.depthwise": f"{LAYER}conv_module.depthwise_conv",
    f"{BLOCK}convolution.project": Theirs((f"{LAYER}conv_module.pointwise_conv2",), "pointwise"),
    f"{BLOCK}feed_out.norm": f"{LAYER}ffn2_layer_norm",
    f"{BLOCK}feed_out.expand": f"{LAYER}ffn2.intermediate_dense",
    f"{BLOCK}feed_out.project": f"{LAYER}ffn2.output_dense",
    f"{BLOCK}norm": f"{LAYER}final_layer_norm",
}
CONSTANT: Values = {
    "encoder.embed.kind": "projection",
    "encoder.blocks.kind": "conformer",
    "encoder.blocks.bias": False,
}


def _follows(ours: Values) -> tuple[Plain, Plain]:
    config, processor = waveform_follows(ours)
    return config | {"hidden_act": "swish", "rotary_embedding_base": ROTARY_BASE}, processor


def _unread(ours: Values) -> tuple[Plain, Plain]:
    config, processor = waveform_unread(ours)
    unused = {"num_conv_pos_embeddings": 1, "num_conv_pos_embedding_groups": ours["encoder.blocks.width"]}
    return config | {"conformer_conv_dropout": ours["encoder.blocks.dropout"], **unused}, processor


def _computed(ours: Values) -> Tensors:
    """Convolutional positions, which a model of this kind has and never uses, as small as they can be; and the angles
    of rotary positions."""
    width = ours["encoder.blocks.width"]
    name = "encoder.pos_conv_embed.conv."
    found = {
        f"{name}bias": torch.zeros(width),
        f"{name}parametrizations.weight.original0": torch.ones(1, 1, 1),
        f"{name}parametrizations.weight.original1": torch.ones(width, 1, 1),
    }
    if ours["encoder.blocks.position"] == "rotary_inputs":
        head_width = width // ours["encoder.blocks.heads"]
        share = torch.arange(0, head_width, 2).float() / head_width
        found["encoder.embed_positions.inv_freq"] = 1 / ROTARY_BASE**share
    return found


def _names(config: ModelConfig) -> Names:
    return {
        **WAVEFORM_NAMES,
        **BLOCK_NAMES,
        f"{BLOCK}convolution.norm": f"{LAYER}conv_module.batch_norm",
        "encoder.stack.norm": "encoder.layer_norm",
    }


CONFORMER = Family(
    kind="wav2vec2-conformer",
    model="Wav2Vec2ConformerModel",
    recogniser="Wav2Vec2ConformerForCTC",
    extractor="Wav2Vec2FeatureExtractor",
    reader="Wav2Vec2Processor",
    prefixes=("wav2vec2_conformer.",),
    settings={
        **WAVEFORM_SETTINGS,
        **FEATURE_NORM,
        **KERNEL,
        "position_embeddings_type": Setting(
            "encoder.blocks.position", {"relative": "relative", "rotary_inputs": "rotary", "none": None}
        ),
    },
    processor=PROCESSOR,
    constant={
        **CONSTANT,
        "features.kind": "waveform",
        "encoder.blocks.norm": "batch",
        "encoder.blocks.final_norm": True,
    },
    follows=_follows,
    unread=_unread,
    names=_names,
    computed=_computed,
)


def _bert_follows(ours: Values) -> tuple[Plain, Plain]:
    config = {
        "hidden_act": "swish",
        "layer_norm_eps": 1e-5,
        "intermediate_size": 4 * ours["encoder.blocks.width"],
        "feature_projection_input_dim": ours["features.bins"] * ours["encoder.embed.stack"],
        "rotary_embedding_base": ROTARY_BASE,
        "add_adapter": False,
        "use_intermediate_ffn_before_adapter": False,
    }
    return config, {"sampling_rate": SAMPLE_RATE, "feature_size": ours["features.bins"]}


def _bert_unread(ours: Values) -> tuple[Plain, Plain]:
    own = {"conformer_conv_dropout": ours["encoder.blocks.dropout"], "apply_spec_augment": False}
    return unread_training(ours) | own, {"padding_value": 0.0, "return_attention_mask": True}


BERT = Family(
    kind="wav2vec2-bert",
    model="Wav2Vec2BertModel",
    recogniser="Wav2Vec2BertForCTC",
    extractor="SeamlessM4TFeatureExtractor",
    reader="Wav2Vec2BertProcessor",
    prefixes=("wav2vec2_bert.",),
    settings={
        **ENCODER_SETTINGS,
        **KERNEL,
        "position_embeddings_type": Setting(
            "encoder.blocks.position",
            {"relative_key": "relative_key", "relative": "relative", "rotary_inputs": "rotary", "none": None},
        ),
        "left_max_position_embeddings": Setting("encoder.blocks.left_max"),
        "right_max_position_embeddings": Setting("encoder.blocks.right_max"),
    },
    processor={
        "num_mel_bins": Setting("features.bins", default=80),
        "stride": Setting("encoder.embed.stack", default=2),
    },
    constant={
        **CONSTANT,
        "features.kind": "log_mel",
        "features.flavour": "kaldi",
        "features.full_scale": 32768,
        "features.normalisation": "frames",
        "encoder.blocks.norm": "layer",
        "encoder.blocks.causal": True,
    },
    follows=_bert_follows,
    unread=_bert_unread,
    names=lambda _: {
        "encoder.embed.norm": WAVEFORM_NAMES["encoder.embed.norm"],
        "encoder.embed.project": WAVEFORM_NAMES["encoder.embed.project"],
        **BLOCK_NAMES,
        f"{BLOCK}attention.distance": f"{LAYER}self_attn.distance_embedding",
        f"{BLOCK}convolution.norm": f"{LAYER}conv_module.depthwise_layer_norm",
    },
)
