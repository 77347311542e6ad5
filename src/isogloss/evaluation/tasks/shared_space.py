"""How alike the states of speech and of its text are, block by block and frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from isogloss.evaluation.data import Data
from isogloss.evaluation.figures import figure
from isogloss.evaluation.shared_space import compare, why_not_compared
from isogloss.evaluation.table import Lines, Measure, Row, Table
from isogloss.evaluation.task import Task

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

ANY_FRAMES = "any frames"
MEASURES = (
    Measure(name="CKA", about="linear centred kernel alignment of speech and text", unit="", better="higher"),
    Measure(name="distance", about="mean squared distance of the two states of a frame", unit="", better="lower"),
    Measure(name="variance", about="of the states of text, over that of speech", unit="", better=None),
)


class Likeness(Task):
    """Likeness of speech and text, block by block."""

    place: ClassVar[int] = 60

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that stretches texts, and transcribed clips in languages that it reads."""
        return why_not_compared(model, data)

    def run(self, model: Recogniser, data: Data) -> Table:
        """Speech and text of the same frames, beside those of frames in another order."""
        space = data.once(compare, model)
        rows = [
            Row(
                keys={"block": str(layer.number)},
                figures={
                    "CKA": figure(layer.cka, space.frames, baselines={ANY_FRAMES: layer.shuffled}),
                    "distance": figure(layer.distance, space.frames, baselines={ANY_FRAMES: 1.0}),
                    "variance": figure(layer.spread, space.frames),
                },
            )
            for layer in space.layers
        ]
        return Table(
            task=self.name(),
            title="Speech and text in one space",
            about="The text of a clip is stretched by the durations that the recogniser aligns, so that it has the "
            "frames of its speech, and goes through the same blocks; the first row is the block in which text enters. "
            "States of the same frame are compared, and beside them those of any two frames. Distances are a share of "
            "that of any two frames.",
            items="frames",
            keys=("block",),
            measures=MEASURES,
            rows=tuple(rows),
            pictures=(Lines(measure="CKA", over="block"),),
            notes=(f"Of {space.clips} clips compared, {space.aligned} could be aligned with their transcripts.",),
        )
