"""Parquet files with the audio inside, as Hugging Face `datasets` reads them: `load_dataset(DIR)`."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.audio.reading import encode_flac
from isogloss.audio.sources import Member
from isogloss.data.loading import waveform
from isogloss.data.manifests import (
    SPLITS,
    audio_of,
    channel_of,
    language_of,
    speaker_of,
    split_of,
    text_of,
    translations_of,
)
from isogloss.errors import AudioError, IsoglossError

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

NAMES = {"train": "train", "dev": "validation", "test": "test"}
SHARD_BYTES = 500_000_000  # of audio in a file, as `datasets` itself has it
GROUP_BYTES = 32_000_000  # of audio in a row group: what is in memory at a time
STRING = {"dtype": "string", "_type": "Value"}


def write_parquet(folder: Path, cuts: list["MonoCut"], tell: Callable[[], None]) -> None:
    """Write `folder/data/SPLIT-NNNNN-of-NNNNN.parquet`, clip by clip; tell: called after each.

    A clip that is a whole file is stored as it is, a part of one as 16-bit FLAC at 16 kHz. Raises IsoglossError without
    pyarrow, AudioError for a recording that cannot be read.
    """
    schema, parquet, table = _tools(sorted({language for cut in cuts for language in translations_of(cut)}))

    def rows(split: str) -> Iterator[dict[str, Any]]:
        for cut in cuts:
            if (split_of(cut) or "train") == split:
                yield _row(cut)
                tell()

    (folder / "data").mkdir()
    for split in SPLITS:
        written: list[Path] = []
        for _, shard in groupby(_placed(rows(split)), key=lambda item: item[0] // SHARD_BYTES):
            written.append(folder / "data" / f"{split}-{len(written)}")
            with parquet.ParquetWriter(written[-1], schema) as file:
                for _, group in groupby(shard, key=lambda item: item[0] // GROUP_BYTES):
                    file.write_table(table([row for _, row in group], schema))
        for number, path in enumerate(written):
            path.rename(path.with_name(f"{NAMES[split]}-{number:05d}-of-{len(written):05d}.parquet"))


def _tools(languages: list[str]) -> tuple[Any, Any, Any]:
    """(schema, pyarrow.parquet, how rows become a table); languages: of translations."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise IsoglossError('Parquet needs pyarrow; install it with: pip install "isogloss[datasets]"') from None
    text = pyarrow.string()
    types = {"id": text, "audio": pyarrow.struct({"bytes": pyarrow.binary(), "path": text})}
    types |= dict.fromkeys(("text", "language", "speaker"), text)
    features: dict[str, Any] = {name: {"_type": "Audio"} if name == "audio" else STRING for name in types}
    if languages:
        types["translations"] = pyarrow.struct(dict.fromkeys(languages, text))
        features["translations"] = dict.fromkeys(languages, STRING)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pyarrow.schema(types, metadata=metadata), parquet, pyarrow.Table.from_pylist


def _row(cut: "MonoCut") -> dict[str, Any]:
    content, suffix = _audio(cut)
    return {
        "id": cut.id,
        "audio": {"bytes": content, "path": cut.id.replace("/", "_") + suffix},
        "text": text_of(cut),
        "language": language_of(cut),
        "speaker": speaker_of(cut),
        "translations": translations_of(cut),
    }


def _audio(cut: "MonoCut") -> tuple[bytes, str]:
    """(a file that holds the clip and nothing else, its suffix)."""
    audio = audio_of(cut)
    is_whole = cut.start == 0 and abs(cut.duration - cut.recording.duration) < 0.01
    if not is_whole or channel_of(cut) != "mix" or isinstance(audio, Member):
        return encode_flac(waveform(cut)), ".flac"
    try:
        return audio.read_bytes(), audio.suffix.lower()
    except OSError as error:
        raise AudioError(f"Cannot read {audio}: {error.strerror}; prepare the corpus again.", "missing") from None


def _placed(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(bytes of audio before it, row)."""
    place = 0
    for row in rows:
        yield place, row
        place += len(row["audio"]["bytes"])
