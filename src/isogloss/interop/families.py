"""The architectures of transformers that can be imported and exported, by `model_type`."""

from isogloss.interop.conformers import BERT, CONFORMER
from isogloss.interop.family import Family
from isogloss.interop.wav2vec2 import DATA2VEC, HUBERT, WAV2VEC2, WAVLM
from isogloss.interop.whisper import WHISPER

FAMILIES: dict[str, Family] = {
    family.kind: family for family in (WHISPER, WAV2VEC2, HUBERT, DATA2VEC, WAVLM, CONFORMER, BERT)
}
