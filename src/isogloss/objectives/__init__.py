"""The objectives a recipe may name: a closed list, one file each."""

from typing import Annotated

from pydantic import Field

from isogloss.objectives.best_rq import BestRQConfig
from isogloss.objectives.maestro import AlignedMLMConfig, MaestroConfig
from isogloss.objectives.most import MostConfig
from isogloss.objectives.recognition import RecognitionConfig

ObjectiveConfig = Annotated[
    BestRQConfig | RecognitionConfig | MaestroConfig | MostConfig | AlignedMLMConfig, Field(discriminator="name")
]
