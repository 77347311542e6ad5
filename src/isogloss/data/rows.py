"""Rows of a table, of JSON lines or of parquet: which column means what, how a row becomes an utterance."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from isogloss.data.manifests import SPLITS, Utterance, examples
from isogloss.errors import IsoglossError
from isogloss.text.languages import normalise_language

COLUMNS = {
    "audio": ("audio", "path", "file_name", "audio_path", "file", "wav"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "language": ("language", "locale", "lang"),
    "speaker": ("speaker", "client_id", "speaker_id"),
    "split": ("split",),
    "start": ("start",),
    "duration": ("duration",),
    "id": ("id",),
    "translations": ("translations",),
}
SPLIT_NAMES = {name: name for name in SPLITS} | {
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "eval": "test",
}
# Words that happen to be ISO 639-3 codes too.
NOT_LANGUAGES = {"wav", "mp3", "ogg", "raw", "tmp", "src", "new", "old", "all", "cut", *SPLIT_NAMES}


def split_in(words: Iterable[str]) -> str | None:
    """The split that the first telling word names: validation is dev, as elsewhere."""
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def language_in(word: str) -> str | None:
    """The language that a folder or file name is the code of, if it is one."""
    if word in NOT_LANGUAGES or not re.fullmatch(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*", word):
        return None
    try:
        return normalise_language(word)
    except IsoglossError:
        return None


def language_named(file: Path) -> str | None:
    """The language that a file is named by, as in ro.txt or ro.jsonl.gz, if it is."""
    return language_in(file.name.partition(".")[0])


def match_columns(names: Iterable[str], path: Path) -> dict[str, str]:
    """{field: column} for the columns that are known; others are ignored.

    Raises IsoglossError if there is no audio column, or a column looks like a misspelt name of a
    field that would else stay empty.
    """
    names = list(names)
    columns = {field: name for field, known in COLUMNS.items() for name in known if name in names}
    known = {name: field for field, aliases in COLUMNS.items() for name in aliases}
    listed = "; ".join(f"{field}: {' or '.join(aliases)}" for field, aliases in COLUMNS.items())
    for name in names:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.8)
        if near and known[near[0]] not in columns:
            raise IsoglossError(
                f'{path} has a column "{name}". Did you mean "{near[0]}"? Known columns: {listed}.'
            )
    if "audio" not in columns:
        raise IsoglossError(
            f"{path} has no audio column among {', '.join(names) or 'none'}. Known columns: {listed}."
        )
    return columns


def make_id(name: str) -> str:
    """A name as an id of [A-Za-z0-9._/-]; what had to change is told apart by a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._/-]+", "_", name)
    if plain == name:
        return name
    # surrogatepass: a file name that is not UTF-8.
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def from_rows(
    rows: Iterable[tuple[int, Mapping[str, Any]]], columns: dict[str, str], path: Path, language: str | None
) -> Iterator[Utterance]:
    """Rows as utterances; all rows with an impossible value are told together, after the good ones."""
    wrong: list[str] = []
    missing: list[str] = []
    for line, row in rows:
        values = {field: row.get(column) for field, column in columns.items()}
        if not (values.get("language") or language):
            missing.append(f"line {line}")
            continue
        try:
            yield _from_row(values, path, language)
        except (ValueError, TypeError, IsoglossError) as error:
            wrong.append(f"line {line}: {error}")
    require_language(missing, path)
    if wrong:
        raise IsoglossError(
            f"{path} has {len(wrong)} unusable rows ({examples(wrong)}); mend or remove them."
        )


def _from_row(values: dict[str, Any], path: Path, language: str | None) -> Utterance:
    name = values["audio"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no audio")
    start, duration = (float(values.get(field) or 0) for field in ("start", "duration"))
    if not (start >= 0 and duration >= 0):
        raise ValueError("a negative time")
    split = values.get("split") or None
    if split is not None and split not in SPLIT_NAMES:
        raise ValueError(f'the split "{split}" is none of {", ".join(SPLIT_NAMES)}')
    translations = values.get("translations") or {}
    if not isinstance(translations, dict):
        raise ValueError("translations are not {language: text}")
    audio = path.parent / name
    # Common Voice keeps its tables beside the folder of clips.
    audio = (
        audio
        if audio.exists() or not (path.parent / "clips" / name).exists()
        else path.parent / "clips" / name
    )
    span = f"-{start:.2f}" if start or duration else ""
    speaker = values.get("speaker")
    return Utterance(
        id=make_id(str(values.get("id") or f"{Path(name).with_suffix('')}".lstrip("./") + span)),
        audio=audio,
        language=normalise_language(str(values.get("language") or language)),
        source=path.resolve().name.partition(".")[0],
        text=str(values.get("text") or "").strip() or None,
        start=start,
        duration=duration or None,
        speaker=str(speaker) if speaker not in (None, "") else None,
        translations={normalise_language(tag): str(text) for tag, text in translations.items()},
        split=SPLIT_NAMES[split] if split else None,
    )


def require_language(missing: list[str], path: Path) -> None:
    """Raise IsoglossError if there are clips without a language."""
    if missing:
        raise IsoglossError(
            f"{len(missing)} clips of {path} have no language ({examples(missing)}); "
            "give --language, a language column, or sub-folders named by language."
        )
