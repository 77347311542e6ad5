"""Any table as lines of cells, ready to be shown: the one step that terminal, model card and page share.

Keys that are the same in every row are said once. Baselines stand in columns beside their measure where there are few,
else in lines below the rows that share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from isogloss.evaluation.figures import Figure
from isogloss.evaluation.table import FRACTION, LANGUAGE, Measure, Row, Table
from isogloss.text.languages import language_name

MOST_BESIDE = 3
"""Columns of baselines in a table, at most; where there are more they stand below."""
NOTHING = "–"
INTERVAL, DEVIATION = "95 %", "±"

Kind = Literal["key", "items", "value", "baseline"]


@dataclass(frozen=True)
class Column:
    """What stands above a column; detail: above what stands in small beside its values. about: what it means."""

    name: str
    kind: Kind
    detail: str = ""
    about: str = ""


@dataclass(frozen=True)
class Cell:
    """A text, and what stands beside it in small: an interval, a deviation, the tag of a language."""

    text: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Line:
    """One cell a column; strong: a summary. trivial: baselines."""

    cells: tuple[Cell, ...]
    strong: bool = False
    trivial: bool = False


@dataclass(frozen=True)
class Grid:
    """A table laid out; common: the keys that all rows share, as `corpus tuxpaint`."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    common: tuple[str, ...]


def lay_out(table: Table, *, minor: bool = True) -> Grid:
    """A table as lines and columns; minor: with the measures that may be left out."""
    layout = _Layout(table, [measure for measure in table.measures if minor or not measure.minor])
    return Grid(tuple(layout.columns()), tuple(layout.lines()), tuple(layout.common))


def telling_keys(table: Table) -> tuple[list[str], dict[str, str]]:
    """The keys that tell rows apart, and the value of each other key, which all rows share."""
    values = {key: sorted({row.keys.get(key, "") for row in table.rows if row.keys}) for key in table.keys}
    keys = [key for key in table.keys if len(values[key]) > 1] or list(table.keys[:1])
    return keys, {key: values[key][0] for key in table.keys if key not in keys and values[key]}


def row_name(row: Row, keys: Iterable[str]) -> str:
    """A row in words: what it sums up, or its values of some keys."""
    return row.label or ", ".join(_key(key, row.keys[key]).text for key in keys if row.keys.get(key))


def headlines(table: Table) -> Iterator[tuple[str, Figure, str]]:
    """(what, figure, the figure as text) of what to remember of a table."""
    measure = table.measures[0]
    for row in table.rows:
        if row.headline and measure.name in row.figures:
            found = row.figures[measure.name]
            telling = [key for key in telling_keys(table)[0] if key in row.keys]
            group = row.label or ", ".join(f"{key} {_key(key, row.keys[key]).text}" for key in telling)
            yield f"{measure.name}, {group}", found, written(found.value, measure.unit)


def written(value: float | None, unit: str = FRACTION) -> str:
    """`12.3 %` for a share, three digits that count for anything else, and a dash for what is not defined."""
    if value is None:
        return NOTHING
    if unit == FRACTION:
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def spread(figure: Figure, unit: str = FRACTION) -> str:
    """The interval, `11.0 – 13.8`, or the deviation, `± 1.4`; nothing where there is none. Shares are in %."""

    def short(value: float) -> str:
        return written(value, unit).removesuffix(" %")

    if figure.deviation is not None:
        return f"{DEVIATION} {short(figure.deviation)}"
    if figure.low is None or figure.high is None:
        return ""
    return f"{short(figure.low)} – {short(figure.high)}"


def name_of(tag: str) -> str:
    """A language's English name."""
    return "unknown" if tag == "und" else language_name(tag)


class _Layout:
    def __init__(self, table: Table, measures: list[Measure]):
        self.table, self.measures = table, measures
        self.keys, alike = telling_keys(table)
        self.common = [f"{key} {_key(key, value).text}" for key, value in alike.items() if value]
        figures = {m.name: [row.figures[m.name] for row in table.rows if m.name in row.figures] for m in measures}
        self.baselines = {
            name: list(dict.fromkeys(trivial for one in found for trivial in one.baselines))
            for name, found in figures.items()
        }
        if sum(map(len, self.baselines.values())) > MOST_BESIDE:
            self.beside: dict[str, list[str]] = {name: [] for name in self.baselines}
        else:
            self.beside = self.baselines

    def columns(self) -> Iterator[Column]:
        yield from (Column(key, "key") for key in self.keys)
        yield Column(self.table.items, "items")
        for measure in self.measures:
            unit = "" if measure.unit in (FRACTION, "") else f" ({measure.unit})"
            yield Column(f"{measure.name}{unit}", "value", self._detail(measure.name), measure.about)
            yield from (Column(name, "baseline") for name in self.beside[measure.name])

    def _detail(self, measure: str) -> str:
        figures = [row.figures[measure] for row in self.table.rows if measure in row.figures]
        if any(figure.deviation is not None for figure in figures):
            return DEVIATION
        return INTERVAL if any(figure.low is not None for figure in figures) else ""

    def lines(self) -> Iterator[Line]:
        for _, group in groupby(self.table.rows, self._below):
            rows = list(group)
            yield from map(self._line, rows)
            yield from self._trivial(rows[0])

    def _line(self, row: Row) -> Line:
        if row.label:
            keys = [Cell(row.label), *[Cell()] * (len(self.keys) - 1)]
        else:
            keys = [_key(key, row.keys.get(key, "")) for key in self.keys]
        items = max((figure.items for figure in row.figures.values()), default=0)
        cells = [*keys, Cell(str(items))]
        for measure in self.measures:
            figure = row.figures.get(measure.name)
            cells.append(_value(figure, measure.unit))
            baselines = figure.baselines if figure else {}
            cells += [_trivial(baselines.get(name), measure.unit) for name in self.beside[measure.name]]
        return Line(tuple(cells), strong=bool(row.label))

    def _trivial(self, row: Row) -> Iterator[Line]:
        """What proves nothing, a line each, where it does not stand beside the measures."""
        below = {measure: dict(trivial) for measure, trivial in self._below(row)}
        for name in dict.fromkeys(name for trivial in below.values() for name in trivial):
            cells = [Cell(name), *[Cell()] * len(self.keys)]
            for measure in self.measures:
                cells.append(_trivial(below.get(measure.name, {}).get(name), measure.unit))
                cells += [Cell()] * len(self.beside[measure.name])
            yield Line(tuple(cells), trivial=True)

    def _below(self, row: Row) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
        """The baselines of a row that are to stand below it."""
        return tuple(
            (measure.name, tuple(row.figures[measure.name].baselines.items()))
            for measure in self.measures
            if measure.name in row.figures and not self.beside[measure.name]
        )


def _value(figure: Figure | None, unit: str) -> Cell:
    return Cell() if figure is None else Cell(written(figure.value, unit), spread(figure, unit))


def _trivial(value: float | None, unit: str) -> Cell:
    return Cell() if value is None else Cell(written(value, unit))


def _key(key: str, value: str) -> Cell:
    return Cell(name_of(value), value) if key == LANGUAGE else Cell(value)
