"""Named sizes, from one that trains in minutes on a laptop to USM-2B; and the features that each begins with.

Parameters of the blocks (reference: USM Table 2, Conformer Table 1; tests hold them):
    toy 25.32 M · conformer_l 107.51 M · usm_600m 604.89 M · usm_2b 1813.76 M
    transformer_base 85.05 M and transformer_large 302.31 M are the blocks of wav2vec 2.0
Of features and encoder, without what only pre-training needs:
    apc 4.06 M · cpc 1.84 M · pase 5.82 M · pase_plus 7.83 M · wav2vec_base 12.34 M · wav2vec_large 29.39 M
    wav2vec2_base 94.37 M · wav2vec2_large 315.44 M · vq_wav2vec_gumbel 30.92 M · vq_wav2vec_kmeans 29.87 M
The convolutions of wav2vec have GELU where its paper has ReLU in those that learn features.
"""

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.sincnet import SincNetConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.causal_cnn import CausalCNNConfig
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import IdentityConfig, ProjectionConfig, SubsamplingConfig
from isogloss.encoders.qrnn import QRNNConfig
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.encoders.recurrent import RecurrentConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.nn.masks import LocalContext


def _subsampled(channels: int, blocks: ConformerConfig | TransformerConfig) -> SpeechEncoderConfig:
    return SpeechEncoderConfig(embed=SubsamplingConfig(channels=channels), blocks=blocks)


def _paper(layers: int, width: int, heads: int, kernel: int = 5, channels: int = 64) -> SpeechEncoderConfig:
    return _subsampled(
        channels, ConformerConfig(layers=layers, width=width, heads=heads, kernel=kernel, position="relative")
    )


def _learned(ones: int, compressed: bool = False, channels: int = 512) -> WaveformConfig:
    """The features of wav2vec: 10 ms apart, with so many layers at their end that see one frame."""
    kernels, strides = (10, 8, 4, 4, 4, *[1] * ones), (5, 4, 2, 2, 2, *[1] * ones)
    return WaveformConfig(
        channels=channels, kernels=kernels, strides=strides, norm="layer", log_compression=compressed
    )


def _wav2vec2(dropout: float, blocks: TransformerConfig) -> SpeechEncoderConfig:
    changes = {"position": "none", "convolution": ConvolutionalPositionConfig(), "dropout": dropout}
    return SpeechEncoderConfig(embed=ProjectionConfig(dropout=dropout), blocks=blocks.model_copy(update=changes))


TINY_CNN = CausalCNNConfig(kernels=(2, 3, 4, 5, 6, 7), width=192)

PRESETS: dict[str, SpeechEncoderConfig] = {
    "test": _subsampled(8, ConformerConfig(layers=2, width=64, heads=4, kernel=5)),
    "tiny": _subsampled(32, ConformerConfig(layers=6, width=144, heads=4, kernel=15, dropout=0.0)),
    "small": _subsampled(64, ConformerConfig(layers=12, width=256, heads=4, kernel=15)),
    "base": _subsampled(128, ConformerConfig(layers=12, width=512, heads=8, kernel=15)),
    "toy": _paper(16, 256, 8),
    "conformer_l": _paper(17, 512, 8, kernel=32, channels=512),
    "transformer_base": _subsampled(128, TransformerConfig()),
    "transformer_large": _subsampled(128, TransformerConfig(layers=24, width=1024, heads=16)),
    "usm_600m": _paper(24, 1024, 8, channels=128).model_copy(update={"context": LocalContext()}),
    "usm_2b": _paper(32, 1536, 16, channels=128).model_copy(update={"context": LocalContext()}),
    "apc": SpeechEncoderConfig(embed=IdentityConfig(), blocks=RecurrentConfig()),
    "mockingjay": SpeechEncoderConfig(
        embed=ProjectionConfig(), blocks=TransformerConfig(layers=3, norm="post", position="rotary")
    ),
    "cpc": SpeechEncoderConfig(
        embed=IdentityConfig(), blocks=RecurrentConfig(cell="lstm", layers=1, width=256, residual=False)
    ),
    "pase": SpeechEncoderConfig(embed=IdentityConfig(), blocks=QRNNConfig(width=100, hidden=0, skip=False)),
    "pase_plus": SpeechEncoderConfig(embed=IdentityConfig(), blocks=QRNNConfig()),
    "wav2vec_tiny": SpeechEncoderConfig(embed=IdentityConfig(), blocks=TINY_CNN),
    "wav2vec_base": SpeechEncoderConfig(
        embed=IdentityConfig(), blocks=CausalCNNConfig(kernels=(3,) * 9, residual=False)
    ),
    "wav2vec_large": SpeechEncoderConfig(embed=IdentityConfig(), blocks=CausalCNNConfig()),
    "vq_wav2vec_tiny": SpeechEncoderConfig(embed=GumbelConfig(), blocks=TINY_CNN),
    "vq_wav2vec_gumbel": SpeechEncoderConfig(embed=GumbelConfig(), blocks=CausalCNNConfig()),
    "vq_wav2vec_kmeans": SpeechEncoderConfig(embed=NearestConfig(), blocks=CausalCNNConfig()),
    "local": SpeechEncoderConfig(
        embed=ProjectionConfig(stack=2, dropout=0.0),
        blocks=ConformerConfig(layers=4, width=144, kernel=3, position="none", dropout=0.0),
        context=LocalContext(left=3, right=3),
    ),
    "wav2vec2_base": _wav2vec2(0.1, TransformerConfig(norm="post", layer_drop=0.05)),
    "wav2vec2_large": _wav2vec2(0.0, TransformerConfig(layers=24, width=1024, heads=16)),
}
FEATURES: dict[str, FeaturesConfig] = {
    "apc": LogMelConfig(flavour="kaldi"),
    "mockingjay": LogMelConfig(flavour="kaldi"),
    "cpc": WaveformConfig(
        channels=256, kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2), norm="layer", bias=True
    ),
    "pase": SincNetConfig(skips=0),
    "pase_plus": SincNetConfig(),
    "wav2vec_tiny": _learned(ones=0, compressed=True, channels=64),
    "wav2vec_base": _learned(ones=0, compressed=True),
    "wav2vec_large": _learned(ones=2, compressed=True),
    "vq_wav2vec_gumbel": _learned(ones=3),
    "vq_wav2vec_kmeans": _learned(ones=3),
    "wav2vec2_base": WaveformConfig(),
    "wav2vec2_large": WaveformConfig(norm="layer", bias=True, normalisation="utterance"),
}
"""Features of the presets that do not begin with the default ones."""


def preset(name: str) -> SpeechEncoderConfig:
    """The encoder configuration of a named size."""
    if name not in PRESETS:
        raise IsoglossError(
            f'There is no encoder preset "{name}".{did_you_mean(name, PRESETS)} Known: {", ".join(PRESETS)}.'
        )
    return PRESETS[name]


def preset_features(name: str) -> FeaturesConfig:
    """The features that the encoder of a named size begins with."""
    return FEATURES.get(name) or LogMelConfig()
