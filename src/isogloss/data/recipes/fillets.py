"""Fish Fillets NG: a game whose fish (and much else) talk, in Czech and in Dutch, with text in 15.

    sound/LEVEL/LANG/ID.ogg                  fillets-ng-data-cs, fillets-ng-data-nl
    script/LEVEL/[NAME_]dialogs_LANG.lua     fillets-ng-data:
        dialogId("kor-v-bermudy", "font_big", "That's interesting. …")     id, role, English
        dialogStr("To je zajímavé, …")                                     the same in LANG

LEVEL `share` has one more level of folders below its sounds (black, border, bore). An id means one
line within a level, not across levels.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import existing, files, language_tag, safe_id, seconds

_GAME = Path("usr/share/games/fillets-ng")
_STRING = r'"((?:[^"\\]|\\.)*)"'
_DIALOG = re.compile(
    rf"^[ \t]*dialog(?:Id\({_STRING},\s*{_STRING},\s*{_STRING}\s*\)|Str\({_STRING}\s*\))", re.MULTILINE
)
_FILE = re.compile(r"(?:\w+_)?dialogs_([a-z]{2}(?:_[A-Z]{2})?)\.lua")
_LEADS = {"small": "-m-", "big": "-v-"}  # malá and velká ryba: a woman and a man


@dataclass(slots=True)
class Line:
    """One line of dialogue: the role that speaks it and what it says, by language tag."""

    role: str | None
    texts: dict[str, str] = field(default_factory=dict)


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield what is spoken in Czech and Dutch.

    dropped: no text, placeholder in text (a name or number that the game puts in), empty or broken clips.
    """
    levels = _levels(existing(root / "fillets-ng-data" / _GAME / "script"))
    for language in ("cs", "nl"):
        sound = existing(root / f"fillets-ng-data-{language}" / _GAME / "sound")
        for audio in files(sound, "*.ogg"):
            place = audio.relative_to(sound)
            line = levels.get(place.parts[0], {}).get(audio.stem)
            text = line.texts.get(language, "") if line else ""
            if line is None or not text:
                dropped["no text"] += 1
            elif "%1" in text:
                dropped["placeholder in text"] += 1
            elif seconds(audio, dropped):
                yield _utterance(audio, place, language, line)


def _utterance(audio: Path, place: Path, language: str, line: Line) -> Utterance:
    others = {tag: text for tag, text in line.texts.items() if tag != language and "%1" not in text}
    return Utterance(
        id=safe_id(place.with_suffix("").as_posix()),
        audio=audio,
        language=language,
        source="fillets",
        text=line.texts[language],
        speaker=f"fillets-{language}-{line.role}" if line.role else None,
        role=line.role,
        translations=others,
    )


def _levels(script: Path) -> dict[str, dict[str, Line]]:
    """{level: {id: line}} with the texts of every language."""
    levels: dict[str, dict[str, Line]] = {}
    for path in files(script, "*.lua"):
        name = _FILE.fullmatch(path.name)
        if name:
            lines = levels.setdefault(path.parent.name, {})
            _read_dialogs(path.read_text(encoding="utf-8"), language_tag(name[1]), lines)
    return levels


def _read_dialogs(source: str, language: str, lines: dict[str, Line]) -> None:
    line: Line | None = None
    for match in _DIALOG.finditer(source):
        identity, font, english, text = match.groups()
        if identity is not None:
            line = lines.setdefault(identity, Line(_role(identity, font)))
            _keep(line, "en", english, replace=language == "en")
        elif line is not None:
            _keep(line, language, text, replace=True)


def _keep(line: Line, language: str, text: str, replace: bool) -> None:
    # Every language's file repeats the English line; only the English file has its latest wording.
    text = re.sub(r"\\(.)", lambda match: " " if match[1] == "n" else match[1], text, flags=re.DOTALL).strip()
    if text and (replace or language not in line.texts):
        line.texts[language] = text


def _role(identity: str, font: str) -> str | None:
    for role, tag in _LEADS.items():
        if tag in identity or font == f"font_{role}":
            return role
    return font.removeprefix("font_") or None
