"""What a task finds: a table that says by itself what it holds, so that anything can show it.

    Table ─┬─ measures    CER, WER …: unit, which way is better, where the interval is from
           ├─ rows ─┬─ keys       language, corpus, voices …
           │        └─ figures    by measure: value, interval, items, trivial baselines
           ├─ pictures    what a page draws of it
           └─ notes       what to know before trusting it
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isogloss.config import Config
from isogloss.errors import IsoglossError
from isogloss.evaluation.figures import Figure

LANGUAGE = "language"
"""The key whose values are BCP 47 tags; it is shown with the name of the language."""
FRACTION = "fraction"
"""The unit of shares and rates, which are shown in %."""


class Measure(Config):
    """A column of a table."""

    name: str = Field(description="as in CER")
    about: str = Field(description="what it is, in half a sentence")
    unit: str = Field(FRACTION, description="of its values, intervals and baselines; none for a pure number")
    better: Literal["lower", "higher"] | None = Field(description="which values are good, if any are")
    spread: str = Field("", description="how its intervals or deviations were found; nothing if it has none")
    minor: bool = Field(False, description="left out where there is little room")


class Row(Config):
    """Figures of one group of items, or a summary of several groups."""

    keys: dict[str, str] = Field({}, description="which group it is; none in a summary")
    label: str = Field("", description="what a summary sums up; nothing in other rows")
    headline: bool = Field(False, description="whether its first figure is what to remember of the table")
    figures: dict[str, Figure] = Field(description="by measure; those that make no sense here are left out")


class Bars(Config):
    """A bar with its interval for each row that is no summary."""

    kind: Literal["bars"] = "bars"
    measure: str = Field(description="what is drawn")


class Lines(Config):
    """A measure over a key whose values are numbers; a line for each combination of the other keys."""

    kind: Literal["lines"] = "lines"
    measure: str = Field(description="what is drawn")
    over: str = Field(description="the key")


class Matrix(Config):
    """Counts of items by what they are and what they were taken for."""

    kind: Literal["matrix"] = "matrix"
    title: str = Field(description="of what items")
    rows: str = Field(description="what the labels mean down the side")
    columns: str = Field(description="what they mean along the bottom")
    labels: tuple[str, ...] = Field(description="of rows and columns")
    counts: tuple[tuple[int, ...], ...] = Field(description="one row a label")


Picture = Annotated[Bars | Lines | Matrix, Field(discriminator="kind")]


class Table(Config):
    """Figures that describe themselves, of one task."""

    version: Literal[1] = Field(1, description="of this layout")
    task: str = Field(description="name of the task")
    title: str = Field(description="as a heading")
    about: str = Field(description="what was done and how to read it, in whole sentences")
    items: str = Field("clips", description="what figures rest on, in the plural")
    keys: tuple[str, ...] = Field(min_length=1, description="of the rows, in the order to show them")
    measures: tuple[Measure, ...] = Field(min_length=1, description="the most important first")
    rows: tuple[Row, ...] = Field(description="in the order to show them")
    pictures: tuple[Picture, ...] = Field((), description="what a page draws")
    notes: tuple[str, ...] = Field((), description="what to know before trusting the figures, a sentence each")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        measures = {measure.name for measure in self.measures}
        for row in self.rows:
            if bool(row.label) == bool(row.keys) or not row.keys.keys() <= set(self.keys):
                raise ValueError(f"a row has the keys {list(row.keys)} and the label {row.label!r}")
            if not row.figures.keys() <= measures:
                raise ValueError(f"a row has figures of {sorted(row.figures.keys() - measures)}, which are no measures")
        for picture in self.pictures:
            if not isinstance(picture, Matrix) and picture.measure not in measures:
                raise ValueError(f"a picture shows {picture.measure}, which is no measure")
            if isinstance(picture, Lines) and picture.over not in self.keys:
                raise ValueError(f"a picture is drawn over {picture.over}, which is no key")
        return self

    def measure(self, name: str) -> Measure:
        """A measure by its name."""
        return next(measure for measure in self.measures if measure.name == name)

    def figure(self, measure: str, label: str = "", **keys: str) -> Figure:
        """A figure of the first row that has this label, or these values of keys; raises IsoglossError for none."""
        for row in self.matching(label, **keys):
            if measure in row.figures:
                return row.figures[measure]
        asked = label or ", ".join(f"{key} {value}" for key, value in keys.items()) or "any row"
        raise IsoglossError(f"The table of {self.task} holds no {measure} of {asked}.")

    def matching(self, label: str = "", **keys: str) -> Iterator[Row]:
        """The rows with this label, or with these values of keys."""
        for row in self.rows:
            if row.label == label and keys.items() <= row.keys.items():
                yield row
