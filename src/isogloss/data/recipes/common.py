"""What several recipes need: tags from locale names, safe ids, lengths, duplicates, converted audio."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from isogloss.audio.reading import info, write_flac
from isogloss.errors import AudioError, IsoglossError
from isogloss.files import sha256
from isogloss.text.languages import normalise_language

# What glibc writes after "@", as BCP 47 writes it: scripts come before variants.
_MODIFIERS = {
    "latin": "Latn",
    "cyrillic": "Cyrl",
    "valencia": "valencia",
    "ijekavian": "ijekavsk",
    "ijekavianlatin": "Latn-ijekavsk",
}


def language_tag(locale: str) -> str:
    """A glibc locale name as a BCP 47 tag: `pt_BR` -> `pt-BR`, `sr@latin` -> `sr-Latn`.

    Raises IsoglossError for a language or modifier that is not known.
    """
    name, _, modifier = locale.partition("@")
    if modifier not in _MODIFIERS and modifier:
        raise IsoglossError(f'Unknown modifier "@{modifier}" in the locale name "{locale}".')
    return normalise_language("-".join(part for part in (name, _MODIFIERS.get(modifier)) if part))


def safe_id(name: str) -> str:
    """`name` with every character outside [A-Za-z0-9._/-] as `u` and its code point in hex."""
    return re.sub(r"[^A-Za-z0-9._/-]", lambda match: f"u{ord(match[0]):04x}", name)


def existing(folder: Path) -> Path:
    """`folder`, or an IsoglossError that says it is missing."""
    if not folder.is_dir():
        raise IsoglossError(f"The folder {folder} is missing; fetch or clone the corpus again.")
    return folder


def seconds(audio: Path, dropped: Counter[str]) -> float | None:
    """The length in seconds; None, and counted by cause, where the file is missing, empty or broken."""
    try:
        return info(audio).seconds
    except AudioError as error:
        dropped[error.cause] += 1
        return None


class FirstOf:
    """Is this the first file with these bytes? The rest of a group of copies is counted and dropped."""

    def __init__(self, dropped: Counter[str]):
        self._dropped = dropped
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, audio: Path, within: str = "") -> bool:
        """True for the first of identical files among those of one group `within`."""
        key = (within, sha256(audio))
        if key in self._seen:
            self._dropped["identical audio"] += 1
            return False
        self._seen.add(key)
        return True


def converted(
    scratch: Path, name: str, decode: Callable[[], np.ndarray], dropped: Counter[str]
) -> Path | None:
    """SCRATCH/NAME.flac, made from the 16 kHz waveform `decode` returns unless it is there already.

    None, and counted by cause, where the original is empty or broken.
    """
    path = scratch / f"{name}.flac"
    try:
        if not path.is_file():
            write_flac(path, decode())
    except AudioError as error:
        dropped[error.cause] += 1
        return None
    return path


def files(folder: Path, pattern: str) -> Iterator[Path]:
    """Files below `folder` in an order that every machine agrees on; links are skipped."""
    found = sorted(folder.rglob(pattern), key=lambda path: path.relative_to(folder).parts)
    return (path for path in found if path.is_file() and not path.is_symlink())
