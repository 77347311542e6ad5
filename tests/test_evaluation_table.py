"""Tables: they hang together and are shown whole by every renderer."""

import io
import json
import math
from typing import Any

import pydantic
import pytest
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.evaluation.card import table_as_markdown
from isogloss.evaluation.figures import Figure, figure, mean_of_rates, rate, repeated
from isogloss.evaluation.layout import headlines, lay_out, written
from isogloss.evaluation.pictures import picture
from isogloss.evaluation.table import Bars, Lines, Matrix, Measure, Row, Table
from isogloss.evaluation.terminal import Printed
from isogloss.metrics.bootstrap import bootstrap_interval

SCORE = Measure(name="score", about="how good it is", better="higher", spread="95 % interval, by hand")
WAIT = Measure(name="wait", about="how long it takes", unit="ms", better="lower")
FINE = Measure(name="fine print", about="what few ask for", unit="", better=None, minor=True)


def table(*rows: Row, measures: tuple[Measure, ...] = (SCORE, WAIT, FINE), **more: Any) -> Table:
    values = {"task": "toy", "title": "A toy", "about": "Nothing is measured.", "keys": ("language", "corpus")}
    return Table(**(values | {"measures": measures, "rows": rows} | more))


def row(language: str, corpus: str, value: float, **trivial: float) -> Row:
    found = Figure(value=value, items=30, low=value - 0.1, high=value + 0.1, baselines=trivial)
    figures = {"score": found, "wait": Figure(value=12.345, items=30, baselines={"asleep": 0.5})}
    return Row(keys={"language": language, "corpus": corpus}, figures=figures)


WHOLE = table(
    row("ro", "tux", 0.25, chance=0.125),
    row("el", "tux", 0.5, chance=0.125),
    Row(label="mean", headline=True, figures={"score": Figure(value=0.375, items=60)}),
    notes=("Made up.",),
)


# --- figures ---


def test_figures_have_their_intervals() -> None:
    errors, totals = [1, 0, 2, 5], [4, 3, 8, 9]
    found, interval = rate(errors, totals, {"always": 1.0}), bootstrap_interval(errors, totals, resamples=1000)
    assert (found.value, found.items, found.baselines) == (8 / 24, 4, {"always": 1.0})
    assert (found.low, found.high, found.deviation) == (interval.low, interval.high, None)
    several = repeated([0.1, 0.2, 0.3], 50)
    assert (several.value, several.deviation) == pytest.approx((0.2, 0.0816497))
    assert (several.items, several.low) == (50, None)
    assert repeated([0.5], 50) == Figure(value=0.5, items=50)
    mean = mean_of_rates([([0, 0], [1, 1]), ([1, 1], [2, 2])])
    assert (mean.value, mean.low, mean.high, mean.items) == (0.25, 0.25, 0.25, 4)


def test_what_is_not_defined_is_none_and_never_nan() -> None:
    for nothing in (rate([], []), rate([0], [0]), figure(math.nan, 0), repeated([math.nan], 0)):
        assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Figure(value=math.nan, items=1)
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Figure(value=1.0, items=1, baselines={"broken": math.inf})


# --- tables ---


def test_a_table_survives_strict_json() -> None:
    pictures = (Bars(measure="score"), Matrix(title="t", rows="r", columns="c", labels=("a",), counts=((1,),)))
    full = WHOLE.model_copy(update={"pictures": pictures})
    assert Table.parse(json.loads(json.dumps(full.plain(), allow_nan=False)), "toy.json") == full
    with pytest.raises(IsoglossError, match=r'toy\.json: "version" is 2'):
        Table.parse(WHOLE.plain() | {"version": 2}, "toy.json")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": (Row(keys={"speaker": "x"}, figures={}),)}, "has the keys"),
        ({"rows": (Row(figures={}),)}, "has the keys"),
        ({"rows": (Row(keys={"language": "ro"}, label="mean", figures={}),)}, "has the keys"),
        ({"rows": (Row(label="mean", figures={"speed": Figure(value=1, items=1)}),)}, "which are no measures"),
        ({"pictures": (Bars(measure="speed"),)}, "which is no measure"),
        ({"pictures": (Lines(measure="score", over="speed"),)}, "which is no key"),
        ({"measures": ()}, "at least 1"),
        ({"keys": ()}, "at least 1"),
    ],
)
def test_a_table_that_does_not_hang_together_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        Table(**({name: getattr(WHOLE, name) for name in type(WHOLE).model_fields} | wrong))


def test_figures_are_found_by_their_keys() -> None:
    assert WHOLE.figure("score", language="el").value == 0.5
    assert WHOLE.figure("score", corpus="tux").value == 0.25  # the first
    assert WHOLE.figure("score", "mean").value == 0.375
    for asked, said in (
        ({"language": "fr"}, "no score of language fr"),
        ({"label": "sum"}, "no score of sum"),
    ):
        with pytest.raises(IsoglossError, match=said):
            WHOLE.figure("score", **asked)
    with pytest.raises(IsoglossError, match="no wait of mean"):
        WHOLE.figure("wait", "mean")


# --- layout ---


def test_keys_that_are_alike_are_said_once() -> None:
    grid = lay_out(WHOLE)
    assert grid.common == ("corpus tux",)
    names = [column.name for column in grid.columns]
    assert names == ["language", "clips", "score", "chance", "wait (ms)", "asleep", "fine print"]
    assert [(cell.text, cell.detail) for cell in grid.lines[0].cells] == [
        ("Romanian", "ro"), ("30", ""), ("25.0 %", "15.0 – 35.0"), ("12.5 %", ""), ("12.3", ""), ("0.500", ""),
        ("", ""),
    ]  # fmt: skip
    assert [cell.text for cell in grid.lines[2].cells] == ["mean", "60", "37.5 %", "", "", "", ""]
    assert [line.strong for line in grid.lines] == [False, False, True]
    assert "fine print" not in [column.name for column in lay_out(WHOLE, minor=False).columns]
    one = lay_out(table(row("ro", "tux", 0.25)))
    assert one.columns[0].name == "language" and one.common == ("corpus tux",)
    several = lay_out(table(row("ro", "tux", 0.25), row("ro", "gcompris", 0.25)))
    assert several.columns[0].name == "corpus" and several.common == ("language Romanian",)


def test_many_baselines_stand_below_the_rows_that_share_them() -> None:
    many = {"chance": 0.1, "length": 0.2, "random": 0.3}
    other = many | {"length": 0.4}
    grid = lay_out(table(row("ro", "a", 0.5, **many), row("ro", "b", 0.6, **many), row("ro", "c", 0.7, **other)))
    assert [column.kind for column in grid.columns] == ["key", "items", "value", "value", "value"]
    shown = [(line.cells[0].text, line.cells[2].text, line.cells[3].text, line.trivial) for line in grid.lines]
    below = [("chance", "10.0 %", "", True), ("length", "20.0 %", "", True), ("random", "30.0 %", "", True)]
    below.append(("asleep", "", "0.500", True))
    assert shown[:2] == [("a", "50.0 %", "12.3", False), ("b", "60.0 %", "12.3", False)]
    assert shown[2:6] == below
    assert shown[6:] == [("c", "70.0 %", "12.3", False), below[0], ("length", "40.0 %", "", True), *below[2:]]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.1234, "fraction", "12.3 %"), (None, "fraction", "–"), (1.0, "", "1.00"), (123.4, "ms", "123"),
     (12345.6, "", "12346"), (0.01234, "", "0.0123"), (-2.5, "", "-2.50")],
)  # fmt: skip
def test_numbers_are_written(value: float | None, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_headlines_are_the_first_measure_of_marked_rows() -> None:
    assert list(headlines(WHOLE)) == [("score, mean", WHOLE.rows[2].figures["score"], "37.5 %")]
    first, second = row("ro", "a", 0.25), row("ro", "b", 0.5)
    marked = table(first, second.model_copy(update={"headline": True}))
    assert list(headlines(marked)) == [("score, corpus b", second.figures["score"], "50.0 %")]


# --- renderers ---


def printed(shown: Table, width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out).print(Printed(shown, "us", "tux (test)"))
    return out.getvalue()


@pytest.mark.parametrize("width", [48, 62, 120])
def test_the_terminal_shows_every_figure_at_any_width(width: int) -> None:
    text = printed(WHOLE, width)
    title = "A toy: us on tux (test), corpus tux"
    for part in (title, "Romanian ro", "25.0 %", "15.0 – 35.0", "12.5 %", "12.3", "0.500", "mean", "Made up."):
        assert part in " ".join(text.split()), part
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert len([line for line in text.splitlines() if "15.0 – 35.0" in line and "25.0 %" in line]) == (width > 100)


def test_the_card_shows_every_figure() -> None:
    text = table_as_markdown(WHOLE)
    assert text.startswith("### A toy\n\nNothing is measured. All rows: corpus tux.\n\n| language | clips | score |")
    assert "| Romanian (`ro`) | 30 | 25.0 % [15.0 – 35.0] | 12.5 % | 12.3 | 0.500 |  |" in text
    assert "| **mean** | **60** | **37.5 %** |  |  |  |  |" in text
    assert text.endswith("\n- Made up.\n")
    deviating = Row(keys={"corpus": "a|b"}, figures={"score": Figure(value=0.5, items=3, deviation=0.1)})
    assert "| a\\|b | 3 | 50.0 % ± 10.0 |" in table_as_markdown(table(deviating, keys=("corpus",)))
    lengths = {line.count(" | ") for line in text.splitlines() if line.startswith("|")}
    assert len(lengths) == 1


def test_pictures_are_drawn_of_any_table() -> None:
    by_block = table(
        *(Row(keys={"corpus": corpus, "language": number},
              figures={"score": Figure(value=float(number), items=9, baselines={"chance": 0.1})})
          for corpus in "ab" for number in "012"),
        Row(keys={"corpus": "c", "language": "0"}, figures={"score": Figure(value=None, items=0)}),
        keys=("corpus", "language"),
    )  # fmt: skip
    lines = picture(Lines(measure="score", over="language"), by_block, "lines")
    assert 'id="lines-' in lines and "chance" in lines
    bars = picture(Bars(measure="score"), WHOLE, "bars", {"us": WHOLE, "them": table(row("ro", "tux", 9.0))})
    assert "Romanian" in bars and "them" in bars and "900.0 % →" in bars
    counts = ((2, 1, 0), (0, 3, 0), (0, 0, 0))
    matrix = Matrix(title="t", rows="is", columns="guessed", labels=("a", "b", "c"), counts=counts)
    assert "guessed" in picture(matrix, WHOLE, "matrix")
