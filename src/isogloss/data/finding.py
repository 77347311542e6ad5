"""Files as people keep them: below a folder with links and hidden ones, and under names spelt in another way."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Aside:
    """What was met and left aside while a source was read, to be told at the end.

    files: how many, by suffix or by what they are. lines: how many, by their file and the reason. columns: of tables,
    that mean nothing here. words: how often which word (`nan`) stood for no text. tiers: of annotations, by name.
    """

    files: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    tiers: dict[str, None] = field(default_factory=dict)

    def add_files(self, files: Iterable[Path]) -> None:
        """Count files by their suffix."""
        self.files.update(file.suffix.lower() or "no suffix" for file in files)

    def plain(self) -> dict[str, Any]:
        """For the corpus card."""
        return {
            "files": dict(sorted(self.files.items())),
            "lines": dict(sorted(self.lines.items())),
            "columns": list(self.columns),
            "words": dict(self.words),
            "tiers": list(self.tiers),
        }


def files_below(folder: Path, aside: Aside | None = None) -> list[Path]:
    """All files below a folder, in order of name; links to folders are followed, but no folder is entered twice.

    Hidden files and folders are left aside: among them are the ._NAME that macOS writes beside every NAME.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)  # links last: a folder is met under its own name
        status = place.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                if aside is not None:
                    aside.files["hidden"] += 1
            elif os.path.isdir(entry.path):
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            else:
                found.append(Path(entry.path))
    return sorted(found)


def same_name(name: str) -> str:
    """One form for the names that differ in Unicode composition only: macOS decomposes what others compose."""
    return unicodedata.normalize("NFC", name)


class Finder:
    """Finds the files that a table names, relative to its folder or, as Common Voice has them, in `clips` beside it.

    A name that is not there as it is spelt may have backslashes, another Unicode form or other capitals.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._places = (str(folder), os.path.join(folder, "clips"))
        self._names: dict[str, dict[str, str | None]] = {}

    def find(self, name: str) -> Path:
        """The file of that name; where there is none, the path at which it was expected."""
        spelt = (os.path.join(place, name) for place in self._places)
        near = (self._near(place, name.replace("\\", "/")) for place in self._places)
        found = next(filter(os.path.exists, spelt), None) or next(filter(None, near), None)
        return Path(found) if found else self.folder / name

    def _near(self, place: str, name: str) -> str | None:
        for part in Path(name).parts:
            spelt = os.path.join(place, part)
            if os.path.exists(spelt):
                place = spelt
                continue
            known = self._listed(place).get(_folded(part))
            if known is None:
                return None
            place = os.path.join(place, known)
        return place

    def _listed(self, folder: str) -> dict[str, str | None]:
        """{folded name: name}, None where several names fold into one."""
        if folder not in self._names:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            several = Counter(map(_folded, names))
            self._names[folder] = {_folded(name): name if several[_folded(name)] == 1 else None for name in names}
        return self._names[folder]


def _folded(name: str) -> str:
    return same_name(same_name(name).casefold())
