"""What people have: a folder of audio, a table, JSON lines, lhotse, Kaldi, a Hugging Face data set.

    FOLDER          clip.wav beside clip.txt (no .txt = untranscribed); sub-folders may name the
                    language (ro/clip.wav) and the split (train/, dev/, test/); or, as in LibriSpeech,
                    clips beside a NAME.trans.txt whose lines are `clip words`
    TABLE           .csv or .tsv with a heading; columns as in `rows.COLUMNS`
    JSON lines      .jsonl, .jsonl.gz or .json, one object a line with the same keys; `translations` may be an
                    object
    lhotse          cuts, or recordings and supervisions, as .jsonl or .jsonl.gz or a folder of them
    Kaldi           a data directory (wav.scp, text, segments, utt2spk, utt2lang), or a folder of them
    Hugging Face    an audiofolder (metadata.csv or metadata.jsonl), parquet files, or save_to_disk
    NeMo            manifests (JSON lines with audio_filepath), or a folder of them
    Common Voice    the folder of a language (clips/ beside train.tsv, dev.tsv, test.tsv), or a folder of those
    annotations     of long recordings: .TextGrid (Praat), .eaf (ELAN), label tracks (Audacity), also in a FOLDER

Paths are relative to the file that names them. Whatever it is, it comes out as `Utterance`s; the
audio itself is not touched here.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from isogloss.data.annotations import is_annotation, is_labels
from isogloss.data.finding import Aside, Finder, files_below
from isogloss.data.folders import language_of_folder, read_annotation, read_folder
from isogloss.data.foreign import manifests, read_arrow, read_lhotse
from isogloss.data.kaldi import WAV_SCP, read_kaldi
from isogloss.data.manifests import Utterance, read_jsonl
from isogloss.data.public import is_common_voice, read_common_voice
from isogloss.data.rows import COLUMNS, from_rows, make_id, match_columns, split_in
from isogloss.data.tables import read_rows
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import numbered_lines
from isogloss.text.languages import normalise_language

METADATA = ("metadata.csv", "metadata.jsonl")
JSON_LINES = (".jsonl", ".jsonl.gz", ".json")

Reader = Callable[[Path, str | None, Path, Aside], Iterator[Utterance]]


def read_source(
    path: Path, language: str | None, scratch: Path, aside: Aside, tiers: Sequence[str] = ()
) -> Iterator[Utterance]:
    """The clips of a file or folder.

    A language that a clip states itself comes first, then `language`, then what the name of a folder may mean.

    `scratch` is where audio goes that lies inside a parquet file; `aside` counts what is not taken in; `tiers` of
    annotations are taken (see `tiers.choose`). Raises
    IsoglossError for a path that is nothing of the above, and for whatever is wrong inside, with file and line.
    """
    default = None if language is None else normalise_language(language)
    try:
        yield from _with(tiers, detect(path), path)(path, default, scratch, aside)
    except OSError as error:
        raise IsoglossError(f"Cannot read {error.filename or path}: {error.strerror or error}.") from None


def _with(tiers: Sequence[str], reader: Reader, path: Path) -> Reader:
    if not tiers:
        return reader
    if reader not in (read_folder, read_annotation):
        raise IsoglossError(f"{path} has no tiers, which only annotations have (.eaf, .TextGrid); leave out --tiers.")
    return partial(reader, tiers=tiers)


def detect(path: Path) -> Reader:
    """The reader for a path, judged by its name and, for JSON lines and text, by what is in it."""
    if not path.exists():
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*")])
        raise IsoglossError(f"There is no file or folder {path}.{near}")
    if path.is_dir():
        return _detect_folder(path)
    name = path.name.lower()
    if name.endswith((".csv", ".tsv")):
        return read_table
    if name.endswith((".parquet", ".arrow")):
        return read_arrow
    if name.endswith(JSON_LINES):
        _, first = next(read_jsonl(path), (0, {}))
        is_table = any(key in COLUMNS["audio"] for key in first)
        is_lhotse = "type" in first or "sources" in first or "recording_id" in first
        return read_lhotse if is_lhotse and not is_table else read_json_lines
    if is_annotation(path) or (name.endswith(".txt") and is_labels(list(numbered_lines(path)))):
        return read_annotation
    raise IsoglossError(
        f"{path} is neither a table (.csv, .tsv), JSON lines (.jsonl), parquet, an annotation (.TextGrid, .eaf, labels "
        "of Audacity) nor a folder of audio."
    )


def _detect_folder(path: Path) -> Reader:
    if manifests(path, "cuts") or manifests(path, "recordings"):
        return read_lhotse
    if is_common_voice(path):
        return read_release
    if _nemo_manifests(path):
        return read_nemo
    files = files_below(path)
    names = {file.name for file in files}
    if any(map(_is_metadata, files)):
        return read_audiofolder
    if any(file.suffix.lower() in (".parquet", ".arrow") for file in files):
        return read_arrow
    return read_kaldi if WAV_SCP in names else read_folder


def read_release(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The folder of a language of Common Voice, or one of such folders, as downloaded."""
    yield from read_common_voice(path, scratch, aside.lines)


def read_table(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Rows of a .csv or .tsv file with a heading."""
    heading, rows = read_rows(path)
    yield from from_rows(rows, match_columns(heading, path, aside), path, language, aside)


def read_json_lines(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Objects of a file of JSON lines; every line may hold its own subset of the keys."""
    keys: dict[str, None] = {}
    first = None
    for _, value in read_jsonl(path):
        first = first or value
        keys.update(dict.fromkeys(value))
    columns = match_columns(keys, path, aside)
    if first and "shard_id" in first and not Finder(path.parent).find(str(first[columns["audio"]])).exists():
        raise IsoglossError(
            f"{path} speaks of audio in tar archives (shard_id); unpack all of them beside it first: tar -xf."
        )
    yield from from_rows(read_jsonl(path), columns, path, language, aside)


def read_nemo(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The manifests of a folder, whose names may tell the split: train_manifest.json."""
    found = _nemo_manifests(path)
    others = {file.absolute() for file in files_below(path, aside)}.difference(file.absolute() for file in found)
    for file in found:
        split = split_in(re.split("[-_.]", file.name.lower()))
        for utterance in read_json_lines(file, language, scratch, aside):
            others.discard(utterance.audio.absolute())
            yield replace(utterance, source=path.resolve().name, split=utterance.split or split)
    aside.add_files(others)


def _nemo_manifests(folder: Path) -> list[Path]:
    files = (file for file in sorted(folder.iterdir()) if file.name.lower().endswith(JSON_LINES))
    return [file for file in files if file.name[0] != "." and _begins_as_nemo(file)]


def _begins_as_nemo(file: Path) -> bool:
    try:
        return "audio_filepath" in next(read_jsonl(file), (0, {}))[1]
    except IsoglossError:  # JSON of another kind
        return False


def read_audiofolder(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The audiofolder layout of Hugging Face datasets: metadata files beside the audio they name."""
    files = files_below(path, aside)
    unnamed = {file.absolute() for file in files if not _is_metadata(file)}
    for table in filter(_is_metadata, files):
        inner = table.parent.relative_to(path)
        read = read_table if table.suffix.lower() == ".csv" else read_json_lines
        split = split_in(inner.parts)
        prefix = f"{make_id(str(inner))}/" if inner.parts else ""
        for utterance in read(table, language or language_of_folder(inner / "x"), scratch, aside):
            unnamed.discard(utterance.audio.absolute())
            yield replace(
                utterance,
                id=prefix + utterance.id,
                source=path.resolve().name,
                split=utterance.split or split,
            )
    aside.add_files(unnamed)


def _is_metadata(file: Path) -> bool:
    return file.name.lower() in METADATA
