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

Paths are relative to the file that names them. Whatever it is, it comes out as `Utterance`s; the
audio itself is not touched here.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from isogloss.data.finding import Aside, files_below, same_name
from isogloss.data.foreign import manifests, read_arrow, read_lhotse
from isogloss.data.kaldi import WAV_SCP, read_kaldi, read_pairs
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
from isogloss.data.tables import read_rows
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import numbered_lines
from isogloss.text.languages import normalise_language

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".w64", ".aif", ".aiff", ".caf", ".au", ".snd", ".ogg", ".oga", ".opus", ".spx", ".mp3"),
    *(".m4a", ".m4b", ".aac", ".amr", ".wma", ".mp2", ".ac3", ".mka", ".mp4", ".mov", ".3gp", ".webm", ".mkv"),
)
"""Of recordings of one name beside each other, that with the first of these is taken."""
METADATA = ("metadata.csv", "metadata.jsonl")
TRANS = ".trans.txt"

Reader = Callable[[Path, str | None, Path, Aside], Iterator[Utterance]]


def read_source(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The clips of a file or folder.

    A language that a clip states itself comes first, then `language`, then what the name of a folder may mean.

    `scratch` is where audio goes that lies inside a parquet file; `aside` counts what is not taken in. Raises
    IsoglossError for a path that is nothing of the above, and for whatever is wrong inside, with file and line.
    """
    default = None if language is None else normalise_language(language)
    try:
        yield from detect(path)(path, default, scratch, aside)
    except OSError as error:
        raise IsoglossError(f"Cannot read {error.filename or path}: {error.strerror or error}.") from None


def detect(path: Path) -> Reader:
    """The reader for a path, judged by its name and, for JSON lines, by its first line."""
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
    if name.endswith((".jsonl", ".jsonl.gz", ".json")):
        _, first = next(read_jsonl(path), (0, {}))
        is_lhotse = "type" in first or "sources" in first or "recording_id" in first
        return read_lhotse if is_lhotse else read_json_lines
    raise IsoglossError(
        f"{path} is neither a table (.csv, .tsv), JSON lines (.jsonl), parquet nor a folder of audio."
    )


def _detect_folder(path: Path) -> Reader:
    if manifests(path, "cuts") or manifests(path, "recordings"):
        return read_lhotse
    files = files_below(path)
    names = {file.name for file in files}
    if any(map(_is_metadata, files)):
        return read_audiofolder
    if any(file.suffix.lower() in (".parquet", ".arrow") for file in files):
        return read_arrow
    return read_kaldi if WAV_SCP in names else read_folder


def audio_below(folder: Path) -> list[Path]:
    """The audio files below a folder, in order of name; raises IsoglossError if there are none."""
    return _audio_among(files_below(folder), folder)


def _audio_among(files: list[Path], folder: Path) -> list[Path]:
    audio = [file for file in files if is_audio(file)]
    if not audio:
        raise IsoglossError(f"{folder} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}.")
    return audio


def is_audio(file: Path) -> bool:
    """Whether a file is named as audio."""
    return file.suffix.lower() in AUDIO_SUFFIXES


def read_folder(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Audio files below a folder, in order of name."""
    files = files_below(path, aside)
    every = _audio_among(files, path)
    audio = list({_place(file): file for file in sorted(every, key=_preference, reverse=True)}.values())
    audio.sort()
    if len(audio) < len(every):
        aside.files["same name as another recording"] += len(every) - len(audio)
    spoken = {file: language or _language_of(file.relative_to(path)) for file in audio}
    require_language([str(file) for file, tag in spoken.items() if tag is None], path)
    others = dict.fromkeys(file for file in files if not is_audio(file))
    beside = {_place(file): file for file in reversed(others) if file.suffix.lower() == ".txt"}
    listed = _listed(others)
    for file, tag in spoken.items():
        inner = file.relative_to(path)
        utterance = Utterance(
            id=make_id(same_name(str(inner.with_suffix("")))),
            audio=file,
            language=tag or "",
            source=path.resolve().name,
            split=split_in(inner.parts[:-1]),
        )
        if (transcript := beside.get(_place(file))) is not None:
            others.pop(transcript, None)
            yield replace(utterance, text=_read_text(transcript))
        elif (found := listed.pop(_place(file), None)) is not None:
            text, speaker = found
            split = split_in(re.split("[-/]", str(inner.parent)))  # train-clean-100
            yield replace(utterance, text=text, speaker=speaker, split=split)
        else:
            yield utterance
    aside.add_files(file for file in others if not file.name.lower().endswith(TRANS))
    if listed:
        aside.lines[f"of {TRANS} without a clip"] += len(listed)


def read_table(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Rows of a .csv or .tsv file with a heading."""
    heading, rows = read_rows(path)
    yield from from_rows(rows, match_columns(heading, path, aside), path, language, aside)


def read_json_lines(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Objects of a file of JSON lines; every line may hold its own subset of the keys."""
    keys: dict[str, None] = {}
    for _, value in read_jsonl(path):
        keys.update(dict.fromkeys(value))
    yield from from_rows(read_jsonl(path), match_columns(keys, path, aside), path, language, aside)


def read_audiofolder(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The audiofolder layout of Hugging Face datasets: metadata files beside the audio they name."""
    files = files_below(path, aside)
    unnamed = {file.absolute() for file in files if not _is_metadata(file)}
    for table in filter(_is_metadata, files):
        inner = table.parent.relative_to(path)
        read = read_table if table.suffix.lower() == ".csv" else read_json_lines
        split = split_in(inner.parts)
        prefix = f"{make_id(str(inner))}/" if inner.parts else ""
        for utterance in read(table, language or _language_of(inner / "x"), scratch, aside):
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


def _language_of(inner: Path) -> str | None:
    """The language that the first folder of a relative path names by its code, if it does."""
    return language_in(next((part for part in inner.parts[:-1] if part not in SPLIT_NAMES), ""))


def _preference(file: Path) -> tuple[int, Path]:
    return AUDIO_SUFFIXES.index(file.suffix.lower()), file


def _place(file: Path) -> tuple[Path, str]:
    """What a clip and its transcript have in common."""
    return file.parent, same_name(file.stem)


def _listed(files: Iterable[Path]) -> dict[tuple[Path, str], tuple[str | None, str | None]]:
    """{place of a clip: (text, speaker)} of all lists like 84-121123.trans.txt, which begin with the speaker."""
    found = {}
    for file in files:
        if file.name.lower().endswith(TRANS):
            chapter = re.fullmatch(r"(\d+)-\d+", file.name[: -len(TRANS)])
            for name, text in read_pairs(file).items():
                found[file.parent, same_name(name)] = text or None, chapter[1] if chapter else None
    return found


def _read_text(path: Path) -> str | None:
    return "\n".join(line for _, line in numbered_lines(path)).strip() or None
