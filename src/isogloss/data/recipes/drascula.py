"""Drascula: a point-and-click adventure, spoken in English and Spanish, written in six languages.

drascula/{en,es}/[PREFIX]N.ALS     raw unsigned 8-bit mono at 11 025 Hz
drascula/en/drascula.dat           big-endian; table PREFIX, entry N is the text

drascula.dat:  "DRASCULA", version 6, 13 tables of numbers (count, then rows), the count of languages,
               then for each text table: entries, and per language: bytes, 2 bytes of padding,
               entries of (size including itself, text, 0, padding)
"""

import re
import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from isogloss.audio.raw import read_u8
from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import converted, existing, files
from isogloss.errors import IsoglossError

_GAME = Path("usr/share/scummvm/drascula")
_SPOKEN = {"en": Path("drascula") / _GAME / "en", "es": Path("drascula-spanish") / _GAME / "es"}
_FILE = re.compile(r"([A-Z]*)(\d+)\.ALS")
SAMPLE_RATE = 11025

# In the order of the text tables.
_ROLES = {
    "": "hero",
    "D": "drascula",
    "B": "drunk",
    "BJ": "billie-jean",
    "E": "musician",
    "I": "igor",
    "L": "werewolf",
    "P": "pianist",
    "T": "bartender",
    "VB": "von-braun",
}
_ENCODINGS = {"en": "cp850", "es": "cp850", "de": "cp850", "fr": "cp850", "it": "cp850", "ru": "cp1251"}
_ROW_BYTES = (4, 4, 4, 2, 4, 2, 4, 2, 2, 20, 20, 10, 8)  # of the tables of numbers before the texts

# {prefix: [{language: text} of entry 0, of entry 1, …]}
Texts = dict[str, list[dict[str, str]]]


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield the lines that have text; links (Spanish clips that are the English ones) are skipped.

    dropped: not speech (prefixes S and F are sound effects), no text.
    """
    table = parse_texts((existing(root / _SPOKEN["en"]) / "drascula.dat").read_bytes())
    for language, folder in _SPOKEN.items():
        for audio in files(existing(root / folder), "*.ALS"):
            match = _FILE.fullmatch(audio.name)
            if match is None or match[1] not in _ROLES:
                dropped["not speech"] += 1
                continue
            lines = table[match[1]]
            texts = lines[int(match[2])] if int(match[2]) < len(lines) else {}
            if language not in texts:
                dropped["no text"] += 1
                continue
            name = f"{language}/{audio.stem}"
            flac = converted(scratch, name, partial(read_u8, audio, SAMPLE_RATE), dropped)
            if flac:
                yield _utterance(name, flac, language, _ROLES[match[1]], texts)


def _utterance(name: str, audio: Path, language: str, role: str, texts: dict[str, str]) -> Utterance:
    return Utterance(
        id=name,
        audio=audio,
        language=language,
        source="drascula",
        text=texts[language],
        speaker=f"drascula-{language}-{role}",
        role=role,
        translations={tag: text for tag, text in texts.items() if tag != language},
    )


def parse_texts(data: bytes) -> Texts:
    """The text tables of a drascula.dat; entries that are empty in a language lack that language.

    Raises IsoglossError if the file is not the version that is known, or is cut short.
    """
    if data[:9] != b"DRASCULA\x06":
        raise IsoglossError("drascula.dat is not of version 6; fetch the Debian package drascula again.")
    try:
        at = 9
        for row in _ROW_BYTES:
            at += 2 + _u16(data, at) * row
        if _u16(data, at) != len(_ENCODINGS):
            raise IsoglossError("drascula.dat lacks a language; fetch the Debian package drascula again.")
        at += 2
        texts: Texts = {}
        for prefix in _ROLES:
            texts[prefix], at = _table(data, at)
    except struct.error:
        raise IsoglossError("drascula.dat is cut short; fetch the Debian package drascula again.") from None
    return texts


def _table(data: bytes, at: int) -> tuple[list[dict[str, str]], int]:
    count = _u16(data, at)
    at += 2
    entries: list[dict[str, str]] = [{} for _ in range(count)]
    for language, encoding in _ENCODINGS.items():
        end = at + 2 + _u16(data, at)
        at += 4
        for entry in entries:
            size = _u16(data, at)
            text = data[at + 2 : at + size].split(b"\0")[0].decode(encoding).strip()
            if text:
                entry[language] = text
            at += size
        at = end
    return entries, at


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", data, at)[0])
