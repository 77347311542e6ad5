"""The objectives a recipe may name: a closed list, one file each."""

from typing import Annotated

from pydantic import Field

from isogloss.objectives.best_rq import BestRQConfig
from isogloss.objectives.maestro import AlignedMLMConfig, MaestroConfig
from isogloss.objectives.most import MostConfig
from isogloss.objectives.recognition import RecognitionConfig
from isogloss.objectives.slam import MaskedTextConfig, MSlamConfig, SlamConfig
from isogloss.objectives.sonar import SonarConfig
from isogloss.objectives.speecht5 import SpeechT5SpeechConfig, SpeechT5TextConfig
from isogloss.objectives.tts4pretrain import TTS4Pretrain2Config, TTS4PretrainConfig

ObjectiveConfig = Annotated[
    BestRQConfig
    | RecognitionConfig
    | MaestroConfig
    | MostConfig
    | AlignedMLMConfig
    | SlamConfig
    | MSlamConfig
    | MaskedTextConfig
    | SpeechT5SpeechConfig
    | SpeechT5TextConfig
    | TTS4PretrainConfig
    | TTS4Pretrain2Config
    | SonarConfig,
    Field(discriminator="name"),
]
