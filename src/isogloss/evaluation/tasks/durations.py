"""How long symbols last: what the text encoder predicts, beside what the recogniser aligns."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from isogloss.evaluation.data import Data
from isogloss.evaluation.figures import figure
from isogloss.evaluation.shared_space import compare, why_not_compared
from isogloss.evaluation.table import Measure, Row, Table
from isogloss.evaluation.task import Task

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

MEDIAN = "median"


class Durations(Task):
    """Error of predicted durations of symbols."""

    place: ClassVar[int] = 70

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that stretches texts, and transcribed clips in languages that it reads."""
        return why_not_compared(model, data)

    def run(self, model: Recogniser, data: Data) -> Table:
        """The mean absolute error, beside that of always the median."""
        space = data.once(compare, model)
        found = figure(
            space.duration_error, len(space.durations), baselines={MEDIAN: space.trivial_duration_error}
        )
        return Table(
            task=self.name(),
            title="Durations of symbols",
            about="From the text alone the model predicts how many frames each symbol lasts; the truth is what the "
            f"recogniser aligns. A frame is {1000 * model.model.frame_seconds:.0f} ms. Beside it stands the error of "
            "always predicting the median.",
            items="symbols",
            keys=("durations",),
            measures=(Measure(name="error", about="mean absolute error", unit="frames", better="lower"),),
            rows=(Row(keys={"durations": "predicted"}, figures={"error": found}),),
        )
