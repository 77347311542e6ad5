"""GCompris voices: a clone of the public repository gcompris/GCompris-voices, 43 languages.

LANG/alphabet/U0061.ogg      the code points of a letter, or a number (10.ogg)
LANG/words/ant.ogg           its text is in content-LANG.json inside rcc/lang.rcc of gcompris-qt-data
LANG/{colors,geography,intro,misc}/*.ogg      untranscribed; the names are shared by languages
LICENSE                      `FILE   NAME YEAR / LICENCE` below `./LANG/FOLDER:`
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isogloss.data.fetch import cache_folder
from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import existing, files, language_tag, safe_id, seconds
from isogloss.data.recipes.rcc import read_rcc
from isogloss.errors import IsoglossError

_RCC = Path("usr/share/gcompris-qt/rcc/lang.rcc")
_CONTENT = re.compile(r".*/content-([A-Za-z_@]+)\.json")
_LOCALE = re.compile(r"[a-z]{2,3}(?:_[A-Z]{2})?")
_CODE_POINTS = re.compile(r"(?:U[0-9A-F]{4,5})+")


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield every clip of the clone at `root`.

    Words have text where gcompris-qt-data was fetched into the cache or is installed; letters always.
    dropped: broken files by cause; about 1 % of the short clips, encoded again as Opus, end on a page that
    promises more samples than it holds, and libsndfile refuses those ("unreadable").
    """
    spoken = _contents()
    readers = _readers(root)
    languages = [path for path in sorted(existing(root).iterdir()) if _LOCALE.fullmatch(path.name)]
    if not languages:
        raise IsoglossError(f"{root} has no folder per language; give a clone of GCompris-voices.")
    for folder in languages:
        language = language_tag(folder.name)
        texts = spoken.get(folder.name, {})
        for audio in files(folder, "*.ogg"):
            if seconds(audio, dropped):
                place = audio.relative_to(root)
                yield Utterance(
                    id=safe_id(place.with_suffix("").as_posix()),
                    audio=audio,
                    language=language,
                    source="gcompris",
                    text=_text(audio, texts),
                    speaker=readers.get(place.as_posix()),
                    concept=audio.relative_to(folder).with_suffix("").as_posix(),
                )


def _text(audio: Path, texts: dict[str, str]) -> str | None:
    if audio.parent.name not in ("alphabet", "words"):
        return None
    if audio.name in texts:
        return texts[audio.name]
    if _CODE_POINTS.fullmatch(audio.stem):
        return "".join(chr(int(point, 16)) for point in audio.stem.split("U")[1:])
    return audio.stem if audio.stem.isdecimal() else None


def _contents() -> dict[str, dict[str, str]]:
    """{locale: {file name: word}}; empty where gcompris-qt-data is not at hand."""
    for path in (cache_folder() / "gcompris-qt-data" / _RCC, Path("/") / _RCC):
        if path.is_file():
            resources = read_rcc(path.read_bytes())
            named = [(_CONTENT.fullmatch(name), data) for name, data in resources.items()]
            return {match[1]: _words(data) for match, data in named if match}
    return {}


def _words(data: bytes) -> dict[str, str]:
    return {name: text.strip() for name, text in json.loads(data).items() if text.strip()}


def _readers(root: Path) -> dict[str, str]:
    """{LANG/FOLDER/FILE: speaker} for the files whose reader the LICENSE file names."""
    path = root / "LICENSE"
    readers = {}
    folder = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        heading = re.fullmatch(r"\./(.+):", line.strip())
        entry = re.fullmatch(r"(\S+\.ogg)\s+(\S.*)", line.strip())
        if heading:
            folder = heading[1]
        elif entry and (name := _reader(entry[2])):
            readers[f"{folder}/{entry[1]}"] = f"gcompris-{language_tag(folder.partition('/')[0])}-{name}"
    return readers


def _reader(credit: str) -> str | None:
    """The reader in `Zohra Coudoin 2015 / GPL V3+`, as a word; None where a credit names only a licence."""
    name = re.split(r" / | Creative Common|[<(]|\b(?:19|20)\d\d\b", credit.removeprefix("http://www."))[0]
    if re.match(r"(GPL|Public Domain|CC)\b", name):
        return None
    return re.sub(r"\W+", "-", name.lower()).strip("-") or None
