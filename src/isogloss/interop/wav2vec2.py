"""wav2vec 2.0 and HuBERT from a folder of transformers, with their CTC heads.

    waveform ─ convolutions ─ 50 Hz ─ projection ─ + convolutional positions ─ Transformer ─> states ─ CTC

base: group norm in the first convolution, post-norm blocks; large and XLS-R: layer norm, biases, pre-norm blocks. In
padded batches base differs from the original, whose first layer takes its statistics over the padding too.
"""

from collections.abc import Mapping
from typing import Any

from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.embed import ProjectionConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.heads import HeadConfig
from isogloss.heads.ctc import CTCConfig
from isogloss.interop.arrays import Tensors
from isogloss.interop.naming import Rule, joined, renamed
from isogloss.model.spec import ModelConfig
from isogloss.text.tokenizers import UNKNOWN, CharacterTokenizer

FAMILIES = ("wav2vec2", "hubert")
"""Values of `model_type` in config.json."""
RULES: list[Rule] = [
    (r"^(wav2vec2|hubert)\.", ""),
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"features.layers.\1.convolution."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"features.layers.\1.norm."),
    (r"^feature_projection\.layer_norm\.", "encoder.embed.norm."),
    (r"^feature_projection\.projection\.", "encoder.embed.project."),
    (r"^encoder\.pos_conv_embed\.conv\.", "encoder.stack.entry.positions.convolution."),
    (r"\.convolution\.weight_g$", ".convolution.parametrizations.weight.original0"),
    (r"\.convolution\.weight_v$", ".convolution.parametrizations.weight.original1"),
    (r"^encoder\.layers\.", "encoder.stack.blocks."),
    (r"\.out_proj\.", ".out."),
    (r"\.feed_forward\.intermediate_dense\.", ".feed.expand."),
    (r"\.feed_forward\.output_dense\.", ".feed.project."),
    (r"(blocks\.\d+)\.layer_norm\.", r"\1.norm_attention."),
]
POST_NORM: list[Rule] = [
    (r"^encoder\.layer_norm\.", "encoder.stack.entry.norm."),
    (r"\.final_layer_norm\.", ".norm."),
]
PRE_NORM: list[Rule] = [(r"^encoder\.layer_norm\.", "encoder.stack.norm."), (r"\.final_layer_norm\.", ".feed.norm.")]
KEPT = ("features.", "encoder.embed.", "encoder.stack.")
SPACE = "|"


def from_transformers(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], vocabulary: Mapping[str, int], theirs: Tensors
) -> tuple[ModelConfig, Tensors, CharacterTokenizer | None]:
    """Configuration, weights and, of a model with a CTC head, tokenizer.

    config, preprocessor, vocabulary: config.json, preprocessor_config.json and vocab.json. Raises IsoglossError for
    what our encoder does not have, by its key.
    """
    _check(config, preprocessor)
    pre_norm = bool(config["do_stable_layer_norm"])
    found = joined(
        renamed(theirs, RULES + (PRE_NORM if pre_norm else POST_NORM)), ("q_proj", "k_proj", "v_proj"), "qkv"
    )
    weights = {name: value for name, value in found.items() if name.startswith(KEPT)}
    features = WaveformConfig(
        channels=config["conv_dim"][0],
        kernels=tuple(config["conv_kernel"]),
        strides=tuple(config["conv_stride"]),
        norm=config["feat_extract_norm"],
        bias=config["conv_bias"],
        normalisation="utterance" if preprocessor.get("do_normalize", False) else "none",
    )
    positions = ConvolutionalPositionConfig(
        kernel=config["num_conv_pos_embeddings"], groups=config["num_conv_pos_embedding_groups"]
    )
    blocks = TransformerConfig(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        norm="pre" if pre_norm else "post",
        position="none",
        convolution=positions,
        dropout=config.get("hidden_dropout", 0.1),
    )
    projection = ProjectionConfig(
        norm=config.get("feat_proj_layer_norm", True), dropout=config.get("feat_proj_dropout", 0.0)
    )
    tokenizer, heads = None, dict[str, HeadConfig]()
    if "lm_head.weight" in found and vocabulary:
        tokenizer, rows = _symbols(vocabulary)
        heads["ctc"] = CTCConfig()
        for kind in ("weight", "bias"):
            weights[f"heads.ctc.output.{kind}"] = found[f"lm_head.{kind}"][rows]
    encoder = SpeechEncoderConfig(embed=projection, blocks=blocks)
    return ModelConfig(features=features, encoder=encoder, heads=heads), weights, tokenizer


def _check(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
    """Raise IsoglossError for what differs from our parts."""
    wanted = {
        "hidden_act": (config.get("hidden_act", "gelu"), "gelu"),
        "feat_extract_activation": (config.get("feat_extract_activation", "gelu"), "gelu"),
        "intermediate_size": (config["intermediate_size"], 4 * config["hidden_size"]),
        "conv_dim": (config["conv_dim"], [config["conv_dim"][0]] * len(config["conv_kernel"])),
        "conv_pos_batch_norm": (config.get("conv_pos_batch_norm", False), False),
        "add_adapter": (config.get("add_adapter", False), False),
        "adapter_attn_dim": (config.get("adapter_attn_dim"), None),
        "sampling_rate": (preprocessor.get("sampling_rate", 16000), 16000),
    }
    for key, (value, ours) in wanted.items():
        if value != ours:
            raise IsoglossError(f"The model has {key}: {value}, and only {ours} can be imported.")


def _symbols(vocabulary: Mapping[str, int]) -> tuple[CharacterTokenizer, list[int]]:
    """Our tokenizer, and the rows of their output layer in its order, blank first.

    Letters become small where that keeps them apart, as our transcripts are. What else stands in a vocabulary (marks
    of beginning and end) is left out, for nothing is written by it.
    """
    blank = next((name for name in ("<pad>", "[PAD]", "<blank>") if name in vocabulary), None)
    if blank is None:
        raise IsoglossError("vocab.json has no <pad>, which CTC uses as its blank; import the model without it.")
    unknown = next((name for name in ("<unk>", "[UNK]") if name in vocabulary), None)
    spelled = {SPACE: " "} | ({unknown: UNKNOWN} if unknown else {})
    names = [name for name in vocabulary if len(name) == 1 or name in spelled]
    symbols = [spelled.get(name, name) for name in names]
    small = [symbol.lower() for symbol in symbols]
    if len(set(small)) == len(small) and all(len(symbol) == 1 for symbol in small):
        symbols = small
    return CharacterTokenizer(symbols), [vocabulary[blank], *(vocabulary[name] for name in names)]
