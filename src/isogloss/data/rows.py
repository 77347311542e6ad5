"""Rows of a table, of JSON lines or of parquet: which column means what, how a row becomes an utterance."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from isogloss.data.finding import Aside, Finder, same_name
from isogloss.data.manifests import SPLITS, Utterance, examples
from isogloss.data.tables import Bare, Malformed
from isogloss.errors import IsoglossError, counted
from isogloss.text.languages import normalise_language

# Where a table has several columns of a field, the first of these counts.
COLUMNS = {
    "audio": (
        *("audio", "path", "file_name", "audio_path", "file", "wav", "audio_filepath", "audio_file", "filename"),
        *("filepath", "file_path", "wav_path", "wav_filename"),
    ),
    "text": ("text", "sentence", "transcript", "transcription", "raw_transcription", "wrd"),
    "language": ("language", "locale", "lang", "language_code", "lang_code"),
    "speaker": ("speaker", "client_id", "speaker_id", "spk_id"),
    "split": ("split",),
    "start": ("start", "begin", "offset", "start_time", "begin_time"),
    "end": ("end", "stop", "end_time"),
    "duration": ("duration", "dur"),
    "id": ("id", "utt_id", "utterance_id"),
    "translations": ("translations",),
}
TIMES = ("start", "end", "duration")  # in seconds; in milliseconds where `_ms` ends the column's name
# What pandas, R, databases and spreadsheets write for nothing. In quotation marks, in JSON and in parquet the same
# letters are a word (German null, Min Nan's code nan).
NOTHING = frozenset({"nan", "NaN", "NAN", "N/A", "n/a", "#N/A", "NA", "<NA>", "null", "NULL", "None"})
SPLIT_NAMES = {name: name for name in SPLITS} | {
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "eval": "test",
}
# Words that happen to be ISO 639-3 codes too.
NOT_LANGUAGES = {"wav", "mp3", "ogg", "raw", "tmp", "src", "new", "old", "all", "cut", *SPLIT_NAMES}
LISTED_LINES = 50
SLACK = 0.1  # seconds by which end - start may differ from a duration, which is often rounded


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


def match_columns(names: Iterable[str], path: Path, aside: Aside, audio: str | None = None) -> dict[str, str]:
    """{field: column} for the columns that are known, whatever their capitals; the others are put in `aside`.

    audio: the column of the audio, where more than its name tells. Raises IsoglossError if there is none, or
    where a column looks like a misspelt name of a field that would else stay empty.
    """
    names = [name for name in names if name]
    spelt = {_canonical(name): name for name in reversed(names)}
    columns = {
        field: column for field, known in COLUMNS.items() if (column := _first(spelt, field, known)) is not None
    }
    if audio is not None:
        columns["audio"] = audio
    fields = {name: field for field, aliases in COLUMNS.items() for name in aliases}
    listed = "; ".join(f"{field}: {' or '.join(aliases)}" for field, aliases in COLUMNS.items())
    for name in names:
        near = get_close_matches(_canonical(name), fields, n=1, cutoff=0.8)
        if near and fields[near[0]] not in columns:
            raise IsoglossError(
                f'{path} has a column "{name}". Did you mean "{near[0]}"? Known columns: {listed}.'
            )
    if "audio" not in columns:
        raise IsoglossError(
            f"{path} has no audio column among {', '.join(names) or 'none'}. Known columns: {listed}."
        )
    aside.columns.update(dict.fromkeys(name for name in names if name not in columns.values()))
    return columns


def _first(spelt: dict[str, str], field: str, known: tuple[str, ...]) -> str | None:
    endings = ("", "_ms") if field in TIMES else ("",)
    return next((spelt[name + end] for name in known for end in endings if name + end in spelt), None)


def _canonical(name: str) -> str:
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFKC", name).strip().casefold())


def make_id(name: str) -> str:
    """A name as an id of [A-Za-z0-9._/-]; what had to change is told apart by a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._/-]+", "_", name)
    if plain == name:
        return name
    # surrogatepass: a file name that is not UTF-8.
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def from_rows(
    rows: Iterable[tuple[int, Mapping[str, Any] | Malformed]],
    columns: dict[str, str],
    path: Path,
    language: str | None,
    aside: Aside,
    unit: str = "line",
) -> Iterator[Utterance]:
    """Rows as utterances; all rows that cannot be used are named together, after the good ones.

    unit: what the numbers count.
    """
    wrong: list[tuple[int, str]] = []
    missing: list[str] = []
    finder = Finder(path.parent)
    source = path.resolve().name.partition(".")[0]
    for number, row in rows:
        if isinstance(row, Malformed):
            wrong.append((number, row.reason))
            continue
        values = {field: _value(field, row.get(column)) for field, column in columns.items()}
        word = row.get(columns.get("text", ""))
        if isinstance(word, Bare) and word.strip() and values["text"] is None:
            aside.words[str(word.strip())] += 1
        if not (values.get("language") or language):
            missing.append(f"{unit} {number}")
            continue
        try:
            yield _from_row(values, columns, source, language, finder)
        except (ValueError, TypeError, IsoglossError) as error:
            wrong.append((number, str(error)))
    require_language(missing, path)
    if wrong:
        raise IsoglossError(
            f"{path} has {counted(len(wrong), 'unusable row')} ({_problems(wrong, unit)}); mend or remove each."
        )


def _problems(wrong: list[tuple[int, str]], unit: str) -> str:
    """The first rows with what is wrong, of the others the numbers."""
    first = examples([f"{unit} {number}: {reason}" for number, reason in wrong])
    others = [str(number) for number, _ in wrong[5:LISTED_LINES]]
    more = ", …" if len(wrong) > LISTED_LINES else ""
    return f"{first} also {unit}s {', '.join(others)}{more}" if others else first


def _value(field: str, value: Any) -> Any:
    """A value of a row, None where it stands for nothing."""
    if isinstance(value, str):
        value, bare = value.strip(), isinstance(value, Bare)
        # Min Nan Chinese has the code nan.
        is_nothing = bare and value in NOTHING and not (field == "language" and value == "nan")
        return None if is_nothing or not value else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _from_row(
    values: dict[str, Any], columns: dict[str, str], source: str, language: str | None, finder: Finder
) -> Utterance:
    name = values["audio"]
    if not isinstance(name, str):
        raise ValueError("no audio")
    start, duration = _span({field: _seconds(values.get(field), columns[field]) for field in TIMES if field in columns})
    split = values.get("split")
    if split is not None and str(split).lower() not in SPLIT_NAMES:
        raise ValueError(f'the split "{split}" is none of {", ".join(SPLIT_NAMES)}')
    translations = values.get("translations") or {}
    if not isinstance(translations, dict):
        raise ValueError("translations are not {language: text}")
    text, speaker, id = values.get("text"), values.get("speaker"), values.get("id")
    span = f"-{start:.2f}" if start or duration else ""
    stem = str(Path(same_name(name).replace("\\", "/")).with_suffix("")).lstrip("./")
    return Utterance(
        id=make_id(str(id) if id is not None else stem + span),
        audio=finder.find(name),
        language=normalise_language(str(values.get("language") or language)),
        source=source,
        text=None if text is None else str(text),
        start=start,
        duration=duration,
        speaker=None if speaker is None else str(speaker),
        translations={normalise_language(tag): str(text) for tag, text in translations.items() if text is not None},
        split=None if split is None else SPLIT_NAMES[str(split).lower()],
    )


def _seconds(value: Any, column: str) -> float | None:
    if value is None:
        return None
    time = float(value)
    if not math.isfinite(time):
        raise ValueError(f'the time "{value}" is no number')
    if time < 0:
        raise ValueError("a negative time")
    return round(time / 1000, 6) if _canonical(column).endswith("_ms") else time


def _span(times: Mapping[str, float | None]) -> tuple[float, float | None]:
    """(start, duration) in seconds of a row that says when it begins, and when it ends or how long it is."""
    start, end, duration = times.get("start") or 0.0, times.get("end"), times.get("duration")
    if duration == 0:
        raise ValueError("a duration of 0")
    if end is None:
        return start, duration
    length = round(end - start, 6)
    if length <= 0:
        raise ValueError(f"it ends at {end:g} s and starts at {start:g} s")
    if duration is not None and abs(duration - length) > SLACK:
        raise ValueError(f"from {start:g} to {end:g} s are not {duration:g} s; leave out the column that is wrong")
    return start, length


def require_language(missing: list[str], path: Path) -> None:
    """Raise IsoglossError if there are clips without a language."""
    if missing:
        raise IsoglossError(
            f"{counted(len(missing), 'clip')} of {path} without a language ({examples(missing)}); "
            "give --language, a language column, or sub-folders named by language."
        )
