"""Figures on the model card: what an evaluation found, written into the model folder's README.md."""

import re
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.evaluation.layout import DEVIATION, Cell, Line, lay_out
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.table import LANGUAGE, Table
from isogloss.files import write_text
from isogloss.model.folder import CARD

END = "<!-- end of isogloss figures -->"


def add_figures(model_folder: Path, evaluation: Evaluation) -> None:
    """Write the figures into the card, in place of earlier ones on the same data; the rest stays.

    Raises IsoglossError if the folder has no card.
    """
    path = model_folder / CARD
    try:
        card = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise IsoglossError(f"{path} is missing or no UTF-8 text; restore it.") from None
    begin = f"<!-- isogloss figures: {evaluation.conditions.where} -->"
    card = re.sub(f"{re.escape(begin)}.*?{re.escape(END)}\n*", "", card, flags=re.DOTALL)
    block = f"{begin}\n{as_markdown(evaluation)}{END}\n\n"
    before, heading, after = card.partition("## Limits")
    if heading:
        write_text(path, before + block + heading + after)
    else:
        write_text(path, f"{card.rstrip()}\n\n{block}".lstrip())


def as_markdown(evaluation: Evaluation) -> str:
    """The section `## Figures on …` of a model card."""
    conditions = evaluation.conditions
    intro = (
        f"## Figures on {conditions.where}\n\n{evaluation.clips} clips, {conditions.seconds / 60:.1f} minutes "
        f"(fingerprint `{conditions.fingerprint[:16]}`). In brackets 95 % intervals, or ± a standard deviation.\n"
    )
    speed = conditions.real_time_factor
    used = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    closing = [
        *conditions.limits,
        "Intervals take clips as independent; clips of one speaker are not, so they are rather too narrow.",
        f"Measured with {used}." + (f" {speed:.3f} seconds of work a second of audio." if speed else ""),
    ]
    tables = map(table_as_markdown, evaluation.tables)
    return "\n".join([intro, *tables, "".join(f"- {sentence}\n" for sentence in closing)])


def table_as_markdown(table: Table) -> str:
    """Any table under a heading, with its notes."""
    grid = lay_out(table)
    heads = [column.name for column in grid.columns]
    marks = ["---" if column.kind == "key" else "--:" for column in grid.columns]
    kinds = [column.kind if column.name != LANGUAGE else LANGUAGE for column in grid.columns]
    rows = [_row(line, kinds) for line in grid.lines]
    lines = "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in [heads, marks, *rows])
    about = " ".join([table.about, *(f"All rows: {common}." for common in grid.common)])
    notes = "".join(f"- {note}\n" for note in table.notes)
    return f"### {table.title}\n\n{about}\n\n{lines}" + (f"\n{notes}" if notes else "")


def _row(line: Line, kinds: list[str]) -> list[str]:
    cells = [_cell(cell, kind) for cell, kind in zip(line.cells, kinds, strict=True)]
    return [f"**{cell}**" if line.strong and cell else cell for cell in cells]


def _cell(cell: Cell, kind: str) -> str:
    if not cell.detail:
        return cell.text
    if kind == LANGUAGE:
        return f"{cell.text} (`{cell.detail}`)"
    return f"{cell.text} {cell.detail}" if cell.detail.startswith(DEVIATION) else f"{cell.text} [{cell.detail}]"


def _escaped(text: str) -> str:
    """Nothing in a cell ends it."""
    return text.replace("|", "\\|").replace("\n", " ")
