"""Several systems on the same clips."""

from collections.abc import Mapping

from isogloss.evaluation.figures import Figure, figure
from isogloss.evaluation.predictions import errors
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.table import Measure, Row, Table
from isogloss.evaluation.tasks.recognition import BOOTSTRAP, MEAN
from isogloss.metrics.bootstrap import PairedDifference, paired_difference

PAIRED = "95 % interval, bootstrap over clips, the same ones for both"


def difference(ours: Evaluation, theirs: Evaluation) -> PairedDifference | None:
    """Our CER minus theirs over the clips both transcribed, resampled together; None if there are none."""
    others = {p.key: p for p in theirs.predictions if p.scored}
    pairs = [(p, others[p.key]) for p in ours.predictions if p.scored and p.key in others]
    pairs = [(p, other) for p, other in pairs if other.said == p.said]
    if not pairs:
        return None
    counts = errors([p for p, _ in pairs])
    return paired_difference(counts.errors, errors([other for _, other in pairs]).errors, counts.totals)


def compare(ours: Evaluation, systems: Mapping[str, Evaluation]) -> Table:
    """One row a system, ours first: its mean CER, and what ours is above or below it."""
    rows = [Row(keys={"system": ours.conditions.system}, figures=_mean(ours))]
    for other, theirs in systems.items():
        figures = _mean(theirs)
        if (found := difference(ours, theirs)) is not None:
            clips = len({p.key for p in ours.predictions if p.scored} & {p.key for p in theirs.predictions if p.scored})
            figures["difference"] = figure(found.difference, clips, found.interval)
        rows.append(Row(keys={"system": other}, figures=figures))
    name = ours.conditions.system
    return Table(
        task="comparison",
        title="Beside other systems",
        about=f"The difference is the CER of {name} less that of the other system, on the clips that both transcribed, "
        "all languages together: below zero it makes fewer errors, and an interval without zero is no accident of the "
        "choice of clips.",
        keys=("system",),
        measures=(
            Measure(name="CER", about="mean of languages", better="lower", spread=BOOTSTRAP),
            Measure(name="difference", about="CER less that of the other system", better="lower", spread=PAIRED),
        ),
        rows=tuple(rows),
    )


def _mean(evaluation: Evaluation) -> dict[str, Figure]:
    recognition = [table for table in evaluation.tables if table.task == "recognition"]
    return {"CER": recognition[0].figure("CER", MEAN)} if recognition and recognition[0].rows else {}
