"""An evaluation: tables, the predictions they rest on, and the conditions under which they were made.

Everything here survives JSON, so that it can be rendered again without the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from isogloss.config import Config
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import OTHER, voices
from isogloss.evaluation.predictions import Prediction
from isogloss.evaluation.table import Table
from isogloss.text.normalise import NORMALISER_VERSION

VERSION = 1
"""Of the layout of an evaluation as JSON."""


class Conditions(Config):
    """What was evaluated, on what, by which versions."""

    system: str = Field(description="name of the system")
    data: tuple[str, ...] = Field(description="folders of the corpora, as given")
    split: str = Field(description="train, dev or test")
    fingerprint: str = Field(description="SHA-256 over ids, texts and durations of the clips")
    clips: dict[str, int] = Field(description="clips that were measured, by corpus")
    seconds: float = Field(description="length of these clips")
    versions: dict[str, str] = Field(description="of isogloss, torch, …")
    normaliser: str = Field(NORMALISER_VERSION, description="version of the text normalisation")
    language_told: bool = Field(False, description="whether the system was told which language is spoken")
    search: str = Field("", description="the beam and the language model, if it searched")
    known_languages: tuple[str, ...] = Field((), description="languages among which the system guesses")
    trained_sources: tuple[str, ...] | None = Field(None, description="corpora trained on; None if not known")
    trained_clips: int | None = Field(None, description="evaluated clips trained on; None if not known")
    broken: dict[str, int] = Field({}, description="clips that could not be read, by cause")
    working_seconds: float = Field(0.0, description="time the transcription took")

    @property
    def where(self) -> str:
        """What was evaluated: `tuxpaint, klettres (test)`."""
        return f"{', '.join(Path(folder).name for folder in self.data)} ({self.split})"

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of transcription a second of audio."""
        return self.working_seconds / self.seconds if self.working_seconds and self.seconds else None

    @property
    def limits(self) -> list[str]:
        """What a reader must know before trusting any figure, a sentence each."""
        trained = None if self.trained_sources is None else frozenset(self.trained_sources)
        new = [source for source in sorted(self.clips) if voices(source, trained) == OTHER]
        said = []
        if self.broken:
            causes = ", ".join(f"{cause} {count}" for cause, count in self.broken.items())
            said.append(f"{sum(self.broken.values())} clips could not be read and are left out ({causes}).")
        if self.trained_clips:
            said.append(f"{self.trained_clips} of the clips were trained on: they say nothing about new speech.")
        if new:
            said.append(f"Not trained on: {', '.join(new)}.")
        if self.search:
            said.append(f"The system searched with {self.search}.")
        if self.language_told:
            said.append("The system was told which language is spoken.")
        return said


class Evaluation(Config):
    """Everything that is said about one system on one set of clips."""

    version: Literal[1] = Field(1, description="of this layout")
    conditions: Conditions
    tables: tuple[Table, ...] = Field(description="one a task, in the order to show them")
    left_out: dict[str, str] = Field({}, description="why tasks were not run, a sentence each, by their names")
    predictions: tuple[Prediction, ...] = Field((), description="by clip, if a task needed them")

    @classmethod
    def parse(cls, values: Any, where: str) -> Self:
        """As of every configuration; raises IsoglossError too for what another version wrote."""
        if not isinstance(values, dict) or values.get("version") != VERSION:
            raise IsoglossError(f"{where} is no evaluation that this version of isogloss wrote; evaluate again.")
        return super().parse(values, where)

    @property
    def clips(self) -> int:
        """How many clips were measured."""
        return sum(self.conditions.clips.values())

    def table(self, task: str) -> Table:
        """What a task found; raises IsoglossError that says why there is nothing."""
        for table in self.tables:
            if table.task == task:
                return table
        raise IsoglossError(f"There are no figures of {task}. {self.left_out.get(task, 'It was not asked for.')}")
