"""What `isogloss evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
        yield Text(", ".join([f"{self.table.title}: {self.system} on {self.where}", *grid.common]), "bold")
        yield from _fitting(grid, console, options)
        for note in self.table.notes:
            yield Padding(Text(note, "yellow"), (0, 1))


def _fitting(grid: Grid, console: Console, options: ConsoleOptions) -> list[RichTable]:
    """One table with intervals beside or else below their figures, or else as few as hold all measures."""
    room = options.update(max_width=ANY_WIDTH, width=ANY_WIDTH)
    leading = [place for place, column in enumerate(grid.columns) if column.kind in ("key", "items")]
    values = [place for place, column in enumerate(grid.columns) if column.kind == "value"]
    tables = [_printed(grid, range(len(grid.columns)), stacked=False)]
    for count in range(1, len(values) + 1):
        if all(Measurement.get(console, room, table).maximum <= options.max_width for table in tables):
            break
        # A measure and the baselines beside it stay together.
        bounds = [*(values[number * len(values) // count] for number in range(count)), len(grid.columns)]
        tables = [_printed(grid, [*leading, *range(*ends)], stacked=True) for ends in pairwise(bounds)]
    return tables


def _printed(grid: Grid, places: Sequence[int], *, stacked: bool) -> RichTable:
    """Some columns of a grid; stacked: with intervals below their figures."""
    table = RichTable(box=None, padding=(0, 1))
    columns = [grid.columns[place] for place in places]
    for column in columns:
        style = "" if column.kind in ("key", "value") else "dim"
        side: JustifyMethod = "left" if column.kind == "key" else "right"
        table.add_column(column.name, justify=side, style=style, header_style="dim", no_wrap=True)
        if column.detail and not stacked:
            table.add_column(column.detail, justify="right", style="dim", header_style="dim", no_wrap=True)
    for line in grid.lines:
        cells: list[Text] = []
        for column, cell in zip(columns, (line.cells[place] for place in places), strict=True):
            apart = bool(column.detail) and not stacked
            gap = "\n" if column.detail else " "
            small = "" if apart or not cell.detail else f"{gap}{cell.detail}"
            indent = "  " if line.trivial and not cells else ""
            cells.append(Text.assemble(indent, cell.text, (small, "dim")))
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
