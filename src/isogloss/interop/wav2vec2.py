"""wav2vec 2.0, HuBERT, data2vec and WavLM in transformers, with their CTC heads: Transformers over the waveform.

    waveform ─ convolutions ─ 50 Hz ─ projection ─ + convolutional positions ─ Transformer ─> states ─ CTC

base: group norm in the first convolution, post-norm blocks; large and XLS-R: layer norm, biases, pre-norm blocks. In
padded batches base differs from the original, whose first layer takes its statistics over the padding too. data2vec has
layer norm, post-norm blocks and several layers of convolutional positions, whose padding the original does not clear;
WavLM has gated positions in the attention besides. MMS is a large wav2vec 2.0 with an adapter behind every block and a
vocabulary for each language.
"""

from dataclasses import replace

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.interop.family import Family, Plain, Setting, Values, flat
from isogloss.interop.naming import Names, Theirs
from isogloss.model.spec import ModelConfig

ENCODER_SETTINGS: dict[str, Setting] = {
    "feat_proj_dropout": Setting("encoder.embed.dropout", default=0.0),
    "num_hidden_layers": Setting("encoder.blocks.layers"),
    "hidden_size": Setting("encoder.blocks.width"),
    "num_attention_heads": Setting("encoder.blocks.heads"),
    "hidden_dropout": Setting("encoder.blocks.dropout", default=0.1),
}
"""What all encoders have."""
WAVEFORM_SETTINGS: dict[str, Setting] = {
    "conv_dim": Setting("features.channels", repeated="features.kernels"),
    "conv_kernel": Setting("features.kernels"),
    "conv_stride": Setting("features.strides"),
    "conv_bias": Setting("features.bias"),
    **ENCODER_SETTINGS,
}
"""What all encoders over a waveform have."""
FEATURE_NORM = {"feat_extract_norm": Setting("features.norm")}
BLOCK_NORM = {"do_stable_layer_norm": Setting("encoder.blocks.norm", {"post": False, "pre": True})}
POSITIONS = {
    "num_conv_pos_embeddings": Setting("encoder.blocks.convolution.kernel"),
    "num_conv_pos_embedding_groups": Setting("encoder.blocks.convolution.groups"),
}
ADAPTER = {"adapter_attn_dim": Setting("encoder.blocks.adapter", default=None)}
PROCESSOR = {
    "do_normalize": Setting("features.normalisation", {"none": False, "utterance": True}, default=False),
}
SETTINGS = {**WAVEFORM_SETTINGS, **FEATURE_NORM, **BLOCK_NORM, **POSITIONS}
CONSTANT: Values = {
    "features.kind": "waveform",
    "encoder.embed.kind": "projection",
    "encoder.blocks.kind": "transformer",
    "encoder.blocks.position": "none",
}
WAVEFORM_NAMES: Names = {
    "features.layers.*.convolution": "feature_extractor.conv_layers.*.conv",
    "features.layers.*.norm": "feature_extractor.conv_layers.*.layer_norm",
    "encoder.embed.norm": "feature_projection.layer_norm",
    "encoder.embed.project": "feature_projection.projection",
}
POSITION_NAMES: Names = {"encoder.stack.entry.positions.convolution": "encoder.pos_conv_embed.conv"}
BLOCK_NAMES: Names = {
    "encoder.stack.blocks.*.attention.qkv": Theirs(
        tuple(f"encoder.layers.*.attention.{part}_proj" for part in ("q", "k", "v"))
    ),
    "encoder.stack.blocks.*.attention.out": "encoder.layers.*.attention.out_proj",
    "encoder.stack.blocks.*.norm_attention": "encoder.layers.*.layer_norm",
    "encoder.stack.blocks.*.feed.expand": "encoder.layers.*.feed_forward.intermediate_dense",
    "encoder.stack.blocks.*.feed.project": "encoder.layers.*.feed_forward.output_dense",
}
POST_NORM: Names = {
    "encoder.stack.entry.norm": "encoder.layer_norm",
    "encoder.stack.blocks.*.norm": "encoder.layers.*.final_layer_norm",
}
PRE_NORM: Names = {
    "encoder.stack.blocks.*.adapter.norm": "encoder.layers.*.adapter_layer.norm",
    "encoder.stack.blocks.*.adapter.down": "encoder.layers.*.adapter_layer.linear_1",
    "encoder.stack.blocks.*.adapter.up": "encoder.layers.*.adapter_layer.linear_2",
    "encoder.stack.norm": "encoder.layer_norm",
    "encoder.stack.blocks.*.feed.norm": "encoder.layers.*.final_layer_norm",
}


def waveform_follows(ours: Values) -> tuple[Plain, Plain]:
    """What follows from the configuration of an encoder over a waveform."""
    config = {
        "feat_extract_activation": "gelu",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "intermediate_size": 4 * ours["encoder.blocks.width"],
        "add_adapter": False,
    }
    return config, {"sampling_rate": SAMPLE_RATE}


def unread_training(ours: Values) -> Plain:
    """What transformers wants to know of training: dropout and masks."""
    return {
        "activation_dropout": ours["encoder.blocks.dropout"],
        "attention_dropout": 0.0,
        "final_dropout": 0.0,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,  # with masks it wants a vector for them
        "mask_feature_prob": 0.0,
    }


def waveform_unread(ours: Values) -> tuple[Plain, Plain]:
    """What transformers wants to know besides: of training, and how to pad."""
    processor = {
        "feature_size": 1,
        "padding_value": 0.0,
        # With group norm it knows no masks: the first layer takes its statistics over the padding.
        "return_attention_mask": ours["features.norm"] == "layer",
    }
    return unread_training(ours), processor


def _data2vec_names(config: ModelConfig) -> Names:
    return {
        **WAVEFORM_NAMES,
        "encoder.stack.entry.positions.layers.*": "encoder.pos_conv_embed.layers.*.conv",
        **BLOCK_NAMES,
        **POST_NORM,
    }


def _wavlm_names(config: ModelConfig) -> Names:
    return {
        **_names(config),
        "encoder.stack.bias.table": "encoder.layers.0.attention.rel_attn_embed",
        "encoder.stack.blocks.*.attention.gate": "encoder.layers.*.attention.gru_rel_pos_linear",
        "encoder.stack.blocks.*.attention.gate_scale": "encoder.layers.*.attention.gru_rel_pos_const",
    }


def _hubert_follows(ours: Values) -> tuple[Plain, Plain]:
    config, processor = waveform_follows(ours)
    return config | {"conv_pos_batch_norm": False}, processor


def _names(config: ModelConfig) -> Names:
    """Of wav2vec 2.0 and HuBERT."""
    norms = PRE_NORM if flat(config)["encoder.blocks.norm"] == "pre" else POST_NORM
    return {**WAVEFORM_NAMES, **POSITION_NAMES, **BLOCK_NAMES, **norms}


WAV2VEC2 = Family(
    kind="wav2vec2",
    model="Wav2Vec2Model",
    recogniser="Wav2Vec2ForCTC",
    extractor="Wav2Vec2FeatureExtractor",
    reader="Wav2Vec2Processor",
    prefixes=("wav2vec2.",),
    settings={**SETTINGS, **ADAPTER},
    processor=PROCESSOR,
    constant=CONSTANT,
    follows=waveform_follows,
    unread=waveform_unread,
    names=_names,
)
HUBERT = replace(
    WAV2VEC2,
    kind="hubert",
    model="HubertModel",
    recogniser="HubertForCTC",
    prefixes=("hubert.",),
    settings={**WAV2VEC2.settings, "feat_proj_layer_norm": Setting("encoder.embed.norm", default=True)},
    follows=_hubert_follows,
)
DATA2VEC = replace(
    WAV2VEC2,
    kind="data2vec-audio",
    model="Data2VecAudioModel",
    recogniser="Data2VecAudioForCTC",
    prefixes=("data2vec_audio.",),
    settings={
        **WAVEFORM_SETTINGS,
        "conv_pos_kernel_size": Setting("encoder.blocks.convolution.kernel"),
        "num_conv_pos_embedding_groups": Setting("encoder.blocks.convolution.groups"),
        "num_conv_pos_embeddings": Setting("encoder.blocks.convolution.layers"),
    },
    constant={
        **CONSTANT,
        "features.norm": "layer",
        "encoder.blocks.norm": "post",
        "encoder.blocks.convolution.norm": "layer",
    },
    names=_data2vec_names,
)
WAVLM = replace(
    WAV2VEC2,
    kind="wavlm",
    model="WavLMModel",
    recogniser="WavLMForCTC",
    prefixes=("wavlm.",),
    settings={
        **SETTINGS,
        "num_buckets": Setting("encoder.blocks.buckets"),
        "max_bucket_distance": Setting("encoder.blocks.max_distance"),
    },
    constant={**CONSTANT, "encoder.blocks.position": "gated"},
    names=_wavlm_names,
)
