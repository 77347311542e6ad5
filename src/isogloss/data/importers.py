"""What people have: a folder of audio, a table, JSON lines, lhotse manifests, a Hugging Face data set.

    FOLDER          clip.wav beside clip.txt (no .txt = untranscribed); sub-folders may name the
                    language (ro/clip.wav) and the split (train/, dev/, test/)
    TABLE           .csv or .tsv with a heading; columns as in `rows.COLUMNS`
    JSON lines      .jsonl or .jsonl.gz, one object a line with the same keys; `translations` may be an object
    lhotse          cuts, or recordings and supervisions, as .jsonl or .jsonl.gz or a folder of them
    Hugging Face    an audiofolder (metadata.csv or metadata.jsonl), parquet files, or save_to_disk

Paths are relative to the file that names them. Whatever it is, it comes out as `Utterance`s; the
audio itself is not touched here.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from isogloss.data.foreign import manifests, read_arrow, read_lhotse
from isogloss.data.manifests import Utterance, read_jsonl
from isogloss.data.rows import (
    SPLIT_NAMES,
    from_rows,
    language_in,
    make_id,
    match_columns,
    require_language,
    split_in,
)
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.text.languages import normalise_language

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".snd", ".caf", ".w64", ".spx"),
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac", ".amr", ".webm", ".mka", ".mkv", ".wma", ".mp2", ".ac3"),
}

Reader = Callable[[Path, str | None, Path], Iterator[Utterance]]


def read_source(path: Path, language: str | None, scratch: Path) -> Iterator[Utterance]:
    """The clips of a file or folder; `language` is for clips that do not say theirs.

    `scratch` is where audio goes that lies inside a parquet file. Raises IsoglossError for a path
    that is nothing of the above, and for whatever is wrong inside, with file and line.
    """
    default = normalise_language(language) if language else None
    try:
        yield from detect(path)(path, default, scratch)
    except OSError as error:
        raise IsoglossError(f"Cannot read {error.filename or path}: {error.strerror or error}.") from None


def detect(path: Path) -> Reader:
    """The reader for a path, judged by its name and, for JSON lines, by its first line."""
    if not path.exists():
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*")])
        raise IsoglossError(f"There is no file or folder {path}.{near}")
    if path.is_dir():
        return _detect_folder(path)
    if path.suffix in (".csv", ".tsv"):
        return read_table
    if path.suffix in (".parquet", ".arrow"):
        return read_arrow
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        _, first = next(read_jsonl(path), (0, {}))
        is_lhotse = "type" in first or "sources" in first or "recording_id" in first
        return read_lhotse if is_lhotse else read_json_lines
    raise IsoglossError(
        f"{path} is neither a table (.csv, .tsv), JSON lines (.jsonl), parquet nor a folder of audio."
    )


def _detect_folder(path: Path) -> Reader:
    if manifests(path, "cuts") or manifests(path, "recordings"):
        return read_lhotse
    if any(path.rglob("metadata.csv")) or any(path.rglob("metadata.jsonl")):
        return read_audiofolder
    if any(path.rglob("*.parquet")) or any(path.rglob("*.arrow")):
        return read_arrow
    return read_folder


def read_folder(path: Path, language: str | None, scratch: Path) -> Iterator[Utterance]:
    """Audio files below a folder, in order of name."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise IsoglossError(f"{path} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}.")
    spoken = {file: language or _language_of(file.relative_to(path)) for file in files}
    require_language([str(file) for file, tag in spoken.items() if tag is None], path)
    for file, tag in spoken.items():
        inner = file.relative_to(path)
        transcript = file.with_suffix(".txt")
        yield Utterance(
            id=make_id(str(inner.with_suffix(""))),
            audio=file,
            language=tag or "",
            source=path.resolve().name,
            text=_read_text(transcript) if transcript.is_file() else None,
            split=split_in(inner.parts[:-1]),
        )


def read_table(path: Path, language: str | None, scratch: Path) -> Iterator[Utterance]:
    """Rows of a .csv or .tsv file with a heading."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Tab-separated files are written without quoting: a " in a sentence is only a character.
        rows = (
            csv.DictReader(file, dialect="excel")
            if path.suffix == ".csv"
            else csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        )
        try:
            columns = match_columns(rows.fieldnames or [], path)
            yield from from_rows(((rows.line_num, row) for row in rows), columns, path, language)
        except (csv.Error, UnicodeDecodeError) as error:
            raise IsoglossError(
                f"{path}, line {rows.line_num + 1}: not a readable table ({error})."
            ) from None


def read_json_lines(path: Path, language: str | None, scratch: Path) -> Iterator[Utterance]:
    """Objects of a .jsonl or .jsonl.gz file; every line may hold its own subset of the keys."""
    keys: dict[str, None] = {}
    for _, value in read_jsonl(path):
        keys.update(dict.fromkeys(value))
    yield from from_rows(read_jsonl(path), match_columns(list(keys), path), path, language)


def read_audiofolder(path: Path, language: str | None, scratch: Path) -> Iterator[Utterance]:
    """The audiofolder layout of Hugging Face datasets: metadata files beside the audio they name."""
    tables = sorted([*path.rglob("metadata.csv"), *path.rglob("metadata.jsonl")])
    for table in tables:
        inner = table.parent.relative_to(path)
        read = read_table if table.suffix == ".csv" else read_json_lines
        split = split_in(inner.parts)
        prefix = f"{make_id(str(inner))}/" if inner.parts else ""
        for utterance in read(table, language or _language_of(inner / "x"), scratch):
            yield replace(
                utterance,
                id=prefix + utterance.id,
                source=path.resolve().name,
                split=utterance.split or split,
            )


def _language_of(inner: Path) -> str | None:
    """The language that the first folder of a relative path names by its code, if it does."""
    return language_in(next((part for part in inner.parts[:-1] if part not in SPLIT_NAMES), ""))


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except UnicodeDecodeError:
        raise IsoglossError(f"{path} is not UTF-8 text; convert it.") from None
