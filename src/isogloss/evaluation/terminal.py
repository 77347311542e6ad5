"""What `isogloss evaluate` prints."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from isogloss.evaluation.layout import Grid, lay_out
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.table import Table

ANY_WIDTH = 1000


def render(evaluation: Evaluation) -> RenderableType:
    """Every table with its notes, and what holds for all of them."""
    tables = (Printed(table, evaluation.conditions.system, evaluation.conditions.where) for table in evaluation.tables)
    return Group(*(Padding(table, (0, 0, 1, 0)) for table in tables), *_closing(evaluation))


@dataclass(frozen=True)
class Printed:
    """One table; intervals stand beside their figures where there is room, else below them."""

    table: Table
    system: str
    where: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table as wide as it fits, and its notes."""
        grid = lay_out(self.table, minor=False)
        wide = _printed(grid, stacked=False)
        room = options.update(max_width=ANY_WIDTH, width=ANY_WIDTH)
        fits = Measurement.get(console, room, wide).maximum <= options.max_width
        yield Text(", ".join([f"{self.table.title}: {self.system} on {self.where}", *grid.common]), "bold")
        yield wide if fits else _printed(grid, stacked=True)
        for note in self.table.notes:
            yield Padding(Text(note, "yellow"), (0, 1))


def _printed(grid: Grid, *, stacked: bool) -> RichTable:
    table = RichTable(box=None, padding=(0, 1))
    for column in grid.columns:
        style = "" if column.kind in ("key", "value") else "dim"
        side: JustifyMethod = "left" if column.kind == "key" else "right"
        table.add_column(column.name, justify=side, style=style, header_style="dim", no_wrap=True)
        if column.detail and not stacked:
            table.add_column(column.detail, justify="right", style="dim", header_style="dim", no_wrap=True)
    for line in grid.lines:
        cells: list[Text] = []
        for column, cell in zip(grid.columns, line.cells, strict=True):
            apart = bool(column.detail) and not stacked
            gap = "\n" if column.detail else " "
            small = "" if apart or not cell.detail else f"{gap}{cell.detail}"
            cells.append(Text.assemble(cell.text, (small, "dim")))
            cells += [Text(cell.detail)] if apart else []
        table.add_row(*cells, style="dim" if line.trivial else "bold" if line.strong else "")
    return table


def _closing(evaluation: Evaluation) -> list[RenderableType]:
    conditions = evaluation.conditions
    lines = [Text(f"Note: {sentence}", "yellow") for sentence in conditions.limits]
    lines += [Text(f"Not measured: {task}. {reason}", "dim") for task, reason in evaluation.left_out.items()]
    speed = conditions.real_time_factor
    facts = [
        f"{evaluation.clips} clips",
        f"{conditions.seconds / 60:.1f} min",
        f"real-time factor {speed:.3f}" if speed else "",
        f"data {conditions.fingerprint[:12]}",
        f"text normalisation {conditions.normaliser}",
        " ".join(f"{name} {version}" for name, version in conditions.versions.items()),
    ]
    lines.append(Text(" · ".join(fact for fact in facts if fact), "dim"))
    return [Padding(line, (0, 1)) for line in lines]
