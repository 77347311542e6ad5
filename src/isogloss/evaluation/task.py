"""What a task is: something to measure, in one file of `tasks/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from isogloss.config import Config

if TYPE_CHECKING:
    from isogloss.evaluation.data import Data
    from isogloss.evaluation.table import Table
    from isogloss.model.recogniser import Recogniser


class Task(Config, ABC):
    """Base of every task: the fields of a subclass are its options, as in `isogloss evaluate retrieval.pool=200`.

    """

    place: ClassVar[int] = 100
    """Where it stands among the others, small first; those of one place in alphabetic order."""

    @classmethod
    def name(cls) -> str:
        """That of its file."""
        return cls.__module__.rpartition(".")[2]

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """In a sentence what the model or the data lack for it; None if it can be run. Must take no time."""
        return None

    @abstractmethod
    def run(self, model: Recogniser, data: Data) -> Table:
        """Measure; raises IsoglossError with a sentence where that turns out to be impossible."""
