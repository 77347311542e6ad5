"""Pictures that a table asks for: bars, lines, matrices. None of them knows the task."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from isogloss.evaluation.figures import Figure
from isogloss.evaluation.layout import row_name, telling_keys, written
from isogloss.evaluation.svg import ACCENT, INK, PAPER, QUIET, SERIES, axes, draw
from isogloss.evaluation.table import FRACTION, Bars, Lines, Matrix, Measure, Picture, Row, Table

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WORST = 1.5
"""Fractions beyond this are drawn at the edge, with their value."""
NUMBERED = 12
"""Up to so many labels a matrix has numbers in its cells."""


def picture(asked: Picture, table: Table, name: str, others: Mapping[str, Table] | None = None) -> Markup:
    """A picture of a table; others: the same table of other systems, by their names, the first that of this one."""
    if isinstance(asked, Bars):
        return bars(asked, others or {"": table}, name)
    return lines(asked, table, name) if isinstance(asked, Lines) else matrix(asked, name)


def caption(asked: Picture) -> str:
    """What to know to read a picture; nothing where it says so itself."""
    if not isinstance(asked, Matrix):
        return ""
    return f"{asked.title.capitalize()}: {asked.rows} against {asked.columns}; depth of colour is the share of a row."


def bars(asked: Bars, systems: Mapping[str, Table], name: str) -> Markup:
    """A measure by row, with intervals: bars for the first system, markers for all."""
    first = next(iter(systems.values()))
    measure = first.measure(asked.measure)
    keys, rows = telling_keys(first)[0], list(_drawn(first, asked.measure))[::-1]
    if len(keys) == 1:  # else rows that belong together would be torn apart
        rows.sort(key=lambda row: _value(row.figures[asked.measure]), reverse=True)
    labels = [row_name(row, keys) for row in rows]
    found = [[_same(table, row, asked.measure) for row in rows] for table in systems.values()]
    highest = max([max(_value(one), one.high or 0.0) for own in found for one in own if one is not None] or [0.1])
    edge = min(WORST, 1.04 * highest) if measure.unit == FRACTION else 1.04 * highest

    def paint(canvas: Canvas) -> None:
        ax = axes(canvas)
        places = np.arange(len(rows))
        widths = [_value(row.figures[asked.measure]) for row in rows]
        ax.barh(places, widths, height=0.62, color=ACCENT, alpha=0.35, linewidth=0)
        for number, own in enumerate(found):
            offset = 0.56 * ((len(systems) - 1) / 2 - number) / len(systems)
            for place, figure in zip(places, own, strict=True):
                if figure is not None and figure.value is not None:
                    _draw_figure(ax, figure, measure.unit, place + offset, number, edge)
        ax.set_yticks(places, labels, color=INK)
        ax.grid(axis="x")
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        ax.set_xlim(0, edge)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        _scale(ax, measure, "x")
        ax.set_xlabel(measure.about if not measure.spread else f"{measure.about}, with 95 % interval")
        if len(systems) > 1:
            # Points of its own: a system whose every figure lies beyond the edge has none in the picture.
            points = [ax.plot([], [], label=label, **_point(i))[0] for i, label in enumerate(systems)]
            canvas.legend(handles=points, loc="outside upper left", ncols=2, handletextpad=0.4, columnspacing=1.2)

    height = 0.75 + len(rows) * max(0.26, 0.13 * len(systems)) + 0.16 * ((len(systems) + 1) // 2)
    return draw(name, f"{measure.name}: {measure.about}", paint, height=height)


def lines(asked: Lines, table: Table, name: str) -> Markup:
    """A measure over a key whose values are numbers, baselines dotted below the line they stand beside."""
    measure = table.measure(asked.measure)
    drawn: dict[str, list[tuple[float, Figure]]] = {}
    others = [key for key in telling_keys(table)[0] if key != asked.over]
    for row in _drawn(table, asked.measure):
        points = drawn.setdefault(row_name(row, others), [])
        points.append((float(row.keys[asked.over]), row.figures[asked.measure]))

    def paint(canvas: Canvas) -> None:
        ax = axes(canvas)
        for number, (label, points) in enumerate(drawn.items()):
            colour = SERIES[number % len(SERIES)]
            known = [(p, f) for p, f in sorted(points, key=lambda point: point[0]) if f.value is not None]
            places, values = [p for p, _ in known], [_value(f) for _, f in known]
            ax.plot(places, values, "o-", color=colour, label=label or measure.name)
            for style, trivial in zip("^vsDPX", dict.fromkeys(t for _, f in known for t in f.baselines), strict=False):
                beside = [(p, f.baselines[trivial]) for p, f in known if trivial in f.baselines]
                quiet: dict[str, Any] = {"color": QUIET, "linewidth": 0.8, "markersize": 3}
                ax.plot(*zip(*beside, strict=True), f"{style}:", label=trivial if number == 0 else None, **quiet)
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.set_xlabel(asked.over)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(f"{measure.name}: {measure.about}", loc="left", color=INK)
        _scale(ax, measure, "y")
        ax.legend(loc="best")

    return draw(name, f"{measure.name} by {asked.over}: {measure.about}", paint, height=3.0)


def matrix(asked: Matrix, name: str) -> Markup:
    """What was taken for what: depth of colour is the share of a row."""
    counts = np.array(asked.counts, dtype=np.float64)
    present = counts.sum(axis=1) > 0
    counts, rows = counts[present], [label for label, any_ in zip(asked.labels, present, strict=True) if any_]
    shares = counts / counts.sum(axis=1, keepdims=True)
    numbered = len(asked.labels) <= NUMBERED
    cell = min(0.42, 3.2 / len(asked.labels))

    def paint(canvas: Canvas) -> None:
        ax = axes(canvas)
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            colour = ACCENT if rows[row] == asked.labels[column] else SERIES[1]
            fill = {"facecolor": colour, "alpha": 0.12 + 0.88 * share, "linewidth": 0}
            ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **fill))
            if numbered:
                ink = PAPER if share > 0.55 else INK
                style: dict[str, Any] = {"color": ink, "ha": "center", "va": "center", "fontsize": 7}
                ax.text(column, row, f"{counts[row, column]:.0f}", **style)
        ax.set(xlim=(-0.5, len(asked.labels) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal")
        size = max(4.5, min(8.0, 0.62 * 72 * cell))
        ax.set_xticks(range(len(asked.labels)), asked.labels, fontsize=size)
        ax.set_yticks(range(len(rows)), rows, fontsize=size)
        ax.tick_params(length=0, labelcolor=INK)
        ax.tick_params("x", rotation=0 if numbered else 90)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(asked.columns)
        ax.set_ylabel(asked.rows)

    width, height = 0.75 + cell * len(asked.labels), 0.6 + cell * len(rows)
    return draw(name, f"{asked.title}: {asked.rows} against {asked.columns}", paint, width=width, height=height)


def _drawn(table: Table, measure: str) -> Iterator[Row]:
    return (row for row in table.rows if row.keys and measure in row.figures)


def _same(table: Table, row: Row, measure: str) -> Figure | None:
    """The figure of the row with the same keys."""
    return next((other.figures[measure] for other in _drawn(table, measure) if other.keys == row.keys), None)


def _scale(ax: Axes, measure: Measure, axis: str) -> None:
    if measure.unit == FRACTION:
        getattr(ax, f"{axis}axis").set_major_formatter(PercentFormatter(1.0, decimals=0))


def _draw_figure(ax: Axes, figure: Figure, unit: str, row: float, number: int, edge: float) -> None:
    style, value = _point(number), _value(figure)
    if value > edge:
        ax.annotate(f"{written(value, unit)} →", (edge, row), ha="right", va="center", color=style["color"], fontsize=7)
        return
    if figure.low is not None and figure.high is not None:
        ax.plot([figure.low, min(figure.high, edge)], [row, row], color=style["color"], linewidth=1)
    ax.plot([value], [row], clip_on=False, **style)


def _point(number: int) -> dict[str, Any]:
    """How the figures of system `number` are drawn."""
    return {
        "color": INK if number == 0 else SERIES[number % len(SERIES)],
        "linestyle": "",
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
    }


def _value(figure: Figure) -> float:
    return 0.0 if figure.value is None else figure.value
