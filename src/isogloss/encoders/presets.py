"""Named sizes, from one that trains in minutes on a laptop to USM-2B.

Parameter counts of the blocks (reference: USM Table 2, Conformer Table 1; tests hold them):
    toy 25.32 M · conformer_l 107.51 M · usm_600m 604.89 M · usm_2b 1813.76 M
    transformer_base 85.05 M and transformer_large 302.31 M are the blocks of wav2vec 2.0
"""

from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.nn.masks import LocalContext


def _conformer(layers: int, width: int, heads: int, kernel: int = 5, channels: int = 64) -> SpeechEncoderConfig:
    blocks = ConformerConfig(layers=layers, width=width, heads=heads, kernel=kernel, position="relative")
    return SpeechEncoderConfig(blocks=blocks, channels=channels)


PRESETS: dict[str, SpeechEncoderConfig] = {
    "test": SpeechEncoderConfig(blocks=ConformerConfig(layers=2, width=64, heads=4, kernel=5), channels=8),
    "tiny": SpeechEncoderConfig(
        blocks=ConformerConfig(layers=6, width=144, heads=4, kernel=15, dropout=0.0), channels=32
    ),
    "small": SpeechEncoderConfig(blocks=ConformerConfig(layers=12, width=256, heads=4, kernel=15), channels=64),
    "base": SpeechEncoderConfig(blocks=ConformerConfig(layers=12, width=512, heads=8, kernel=15), channels=128),
    "toy": _conformer(16, 256, 8),
    "conformer_l": _conformer(17, 512, 8, kernel=32, channels=512),
    "transformer_base": SpeechEncoderConfig(blocks=TransformerConfig(), channels=128),
    "transformer_large": SpeechEncoderConfig(
        blocks=TransformerConfig(layers=24, width=1024, heads=16), channels=128
    ),
    "usm_600m": _conformer(24, 1024, 8, channels=128).model_copy(update={"context": LocalContext()}),
    "usm_2b": _conformer(32, 1536, 16, channels=128).model_copy(update={"context": LocalContext()}),
}


def preset(name: str) -> SpeechEncoderConfig:
    """The encoder configuration of a named size."""
    if name not in PRESETS:
        raise IsoglossError(
            f'There is no encoder preset "{name}".{did_you_mean(name, PRESETS)} Known: {", ".join(PRESETS)}.'
        )
    return PRESETS[name]
