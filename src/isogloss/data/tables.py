"""Tables of delimited text: every row is given whole, or named by its line with what is wrong with it.

The csv module reads on to the next quotation mark wherever a field begins with one, so that a stray one swallows
rows; and it does not tell "nan" in quotation marks, a word, from nan without, which programs write for nothing.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from isogloss.errors import IsoglossError, counted
from isogloss.files import numbered_lines

DELIMITERS = (",", ";", "\t", "|")
NAMES = defaultdict(lambda: "separator", {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"})
LONGEST_FIELD = 100  # lines that one quoted field may span

_QUOTED = re.compile('"((?:[^"]|"")*)"')
_EXCEL = re.compile('"?sep=(.)"?', re.IGNORECASE)
_SUFFIX = re.compile(r"\.\w{2,5}$")


class Bare(str):
    """A field that stands in no quotation marks."""


@dataclass(frozen=True)
class Malformed:
    """In place of a row that cannot be read: what is wrong with it."""

    reason: str


Row = dict[str, str]


def read_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, Row | Malformed]]]:
    """The heading of a .csv or .tsv file, and (number of its first line, {column: field}) of each row.

    Fields are separated by what separates the names of the heading: comma, semicolon, tab or bar; Excel's first
    line `sep=;` is understood. Tab-separated files have no quoting, as in Common Voice, unless the heading is in
    quotation marks. Empty rows are passed over. Raises IsoglossError for a heading that names a column twice.
    """
    lines = numbered_lines(path)
    _, first = next(lines, (1, ""))
    marked = _EXCEL.fullmatch(first)
    if marked:
        _, first = next(lines, (2, ""))
    delimiter = marked[1] if marked else _delimiter(first, path)
    quoting = delimiter != "\t" or first.startswith('"')
    heading = [name.strip() for name in (_split(first, delimiter) if quoting else None) or _bare(first, delimiter)]
    twice = sorted({name for name in heading if name and heading.count(name) > 1})
    if twice:
        raise IsoglossError(f'{path} has two columns "{twice[0]}"; rename one.')
    return heading, _Reader(lines, delimiter, quoting, heading).rows()


def _delimiter(heading: str, path: Path) -> str:
    order = ("\t", *DELIMITERS) if path.suffix.lower() == ".tsv" else DELIMITERS
    return next((mark for mark in order if mark in heading), order[0])


class _Reader:
    """Rows of fields; looks ahead where a quotation mark is left open."""

    def __init__(self, lines: Iterator[tuple[int, str]], delimiter: str, quoting: bool, heading: list[str]):
        self.lines = lines
        self.delimiter = delimiter
        self.quoting = quoting
        self.heading = heading
        self._ahead: deque[tuple[int, str]] = deque()

    def rows(self) -> Iterator[tuple[int, Row | Malformed]]:
        while self._following(0) is not None:
            number, line = self._ahead.popleft()
            fields: Sequence[str] = self._fields(line)
            if any(fields):
                yield number, self._row(fields, line)

    def _row(self, fields: Sequence[str], line: str) -> Row | Malformed:
        width = len(self.heading)
        if len(fields) >= width and not any(fields[width:]):  # spreadsheets write empty fields at the end
            return dict(zip(self.heading, fields, strict=False))
        separator = NAMES[self.delimiter]
        if not self.quoting:
            mend = f"no {separator} may stand inside one"
        elif _split(line, self.delimiter) is None:
            mend = "close the quotation mark"
        else:
            mend = f"put one that holds a {separator} in quotation marks"
        return Malformed(f"{counted(len(fields), 'field')} where the heading has {width}; {mend}")

    def _fields(self, line: str) -> list[str]:
        if not self.quoting or '"' not in line:
            return _bare(line, self.delimiter)
        return _split(line, self.delimiter) or self._spanning(line) or _bare(line, self.delimiter)

    def _spanning(self, line: str) -> list[str] | None:
        """The fields of a row whose last field goes on in the lines that follow.

        None where that is not meant: a line that follows is a row itself, or the whole has too many or too few
        fields. The quotation mark is then only a character.
        """
        for ahead in range(LONGEST_FIELD):
            following = self._following(ahead)
            if following is None or self._is_row(following[1], like=line):
                return None
            line += "\n" + following[1]
            if fields := _split(line, self.delimiter):
                if len(fields) != len(self.heading):
                    return None
                for _ in range(ahead + 1):
                    self._ahead.popleft()
                return fields
        return None

    def _is_row(self, line: str, like: str) -> bool:
        """Whether a line is a row of its own: as many fields as the heading, and a file named if `like` names one."""
        fields = _split(line, self.delimiter) or _bare(line, self.delimiter)
        if len(fields) != len(self.heading):
            return False
        return _names_a_file(fields) or not _names_a_file(_bare(like, self.delimiter))

    def _following(self, number: int) -> tuple[int, str] | None:
        while len(self._ahead) <= number:
            line = next(self.lines, None)
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[number]


def _names_a_file(fields: Sequence[str]) -> bool:
    return any(_SUFFIX.search(field.strip('" ')) for field in fields)


def _bare(line: str, delimiter: str) -> list[str]:
    return [Bare(field) for field in line.split(delimiter)]


def _split(record: str, delimiter: str) -> list[str] | None:
    """The fields of a record; None where a quotation mark opens a field and none ends it."""
    fields: list[str] = []
    place = 0
    while True:
        if record.startswith('"', place):
            quoted = _QUOTED.match(record, place)
            end = quoted.end() if quoted else place
            if quoted is None or not (end == len(record) or record.startswith(delimiter, end)):
                return None
            fields.append(quoted[1].replace('""', '"'))
        else:
            end = record.find(delimiter, place)
            end = len(record) if end < 0 else end
            fields.append(Bare(record[place:end]))
        if end == len(record):
            return fields
        place = end + 1
