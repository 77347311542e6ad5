"""The architectures of transformers that can be imported and exported, by `model_type`."""

from isogloss.interop.family import Family
from isogloss.interop.wav2vec2 import HUBERT, WAV2VEC2
from isogloss.interop.whisper import WHISPER

FAMILIES: dict[str, Family] = {family.kind: family for family in (WHISPER, WAV2VEC2, HUBERT)}
