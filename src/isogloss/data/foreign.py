"""Other people's formats: lhotse manifests, and parquet and arrow files of Hugging Face `datasets`."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from isogloss.audio.channels import Channel
from isogloss.data.finding import Aside, files_below
from isogloss.data.manifests import Utterance, examples, read_manifest
from isogloss.data.rows import COLUMNS, TIMES, from_rows, make_id, match_columns, require_language, split_in
from isogloss.errors import IsoglossError, counted
from isogloss.text.languages import normalise_language

CACHED = re.compile(r"(tmp|cache-.*\.arrow)")
"""What `datasets` leaves beside saved files, when these are mapped or sorted: the same rows again."""
BATCH = 64  # rows: one clip can be megabytes


def manifests(folder: Path, kind: str) -> list[Path]:
    """lhotse manifests of a kind (cuts, recordings, supervisions) in a folder, in order of name."""
    found = (file for file in folder.iterdir() if file.name.lower().endswith((".jsonl", ".jsonl.gz")))
    return sorted(file for file in found if kind in file.name and file.name[0] != ".")


def read_lhotse(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """lhotse cuts, or recordings with their supervisions, from a file or all those of a folder.

    A cut without supervision, or a recording that no supervision speaks of, is an untranscribed clip.
    """
    files = [path] if path.is_file() else manifests(path, "cuts") or manifests(path, "recordings")
    others = {file.absolute() for file in files_below(path, aside)} if path.is_dir() else set()
    others.difference_update(file.absolute() for file in _read_with(files))
    for file in files:
        missing = []
        split = split_in(re.split(r"[-_.]", file.name))
        for cut, said in _supervised(file):
            tag = said.language or language
            if tag is None:
                missing.append(said.id)
            else:
                utterance = from_lhotse(cut, said, tag, path.resolve().name.partition(".")[0], split, file.parent)
                others.discard(utterance.audio.absolute())
                yield utterance
        require_language(missing, file)
    aside.add_files(others)


def _read_with(files: list[Path]) -> Iterator[Path]:
    """The manifests that are read where these are given."""
    for file in files:
        yield file
        yield file.with_name(file.name.replace("recordings", "supervisions"))


def from_lhotse(
    cut: Any, said: Any, language: str, source: str, split: str | None, folder: Path
) -> Utterance:
    """One supervision of a lhotse cut; its own source and split come first, relative paths mean `folder`."""
    custom = cut.custom or {}
    source_file, channel = _channel(cut, said)
    audio = Path(source_file.source)
    start = cut.start + said.start
    is_whole = start == 0 and abs(said.duration - cut.recording.duration) < 0.01
    phones = (said.alignment or {}).get("phone") or ()
    return Utterance(
        id=make_id(said.id),
        audio=audio if audio.is_absolute() or audio.exists() else folder / audio,
        language=normalise_language(language),
        source=custom.get("source") or source,
        text=(said.text or "").strip() or None,
        start=start,
        duration=None if is_whole else said.duration,
        channel=custom.get("channel", channel),
        speaker=said.speaker,
        role=custom.get("role"),
        concept=custom.get("concept"),
        translations=custom.get("translations") or {},
        phones=tuple((item.start - said.start, item.duration, item.symbol) for item in phones),
        split=custom.get("split") or split,
    )


def _channel(cut: Any, said: Any) -> tuple[Any, Channel]:
    """The source of a recording that holds what is said, and which of its channels.

    lhotse counts channels from 0, through all sources; a cut of several channels leaves the choice to what is said.
    """
    wanted = cut.channel if isinstance(cut.channel, int) else said.channel
    (channel, *others) = [wanted] if isinstance(wanted, int) else wanted
    sources = cut.recording.sources
    source = next((source for source in sources if channel in source.channels), sources[0])
    several = others or len(source.channels) == 1 or channel not in source.channels
    return source, "mix" if several else source.channels.index(channel) + 1


def _supervised(file: Path) -> Iterator[tuple[Any, Any]]:
    """(cut, supervision) for all that a manifest speaks of."""
    from lhotse import SupervisionSegment

    in_two_files = "recordings" in file.name or "supervisions" in file.name
    for cut in _join(file) if in_two_files else _cuts(file):
        whole = SupervisionSegment(cut.id, cut.recording.id, 0.0, cut.duration, channel=cut.channel)
        for said in cut.supervisions or [whole]:
            yield cut, said


def _cuts(file: Path) -> Iterator[Any]:
    for line, item in read_manifest(file):
        if type(item).__name__ not in ("MonoCut", "MultiCut") or item.recording is None:
            raise IsoglossError(f"{file}, line {line}: a {type(item).__name__} is no cut of one recording.")
        yield item


def _join(file: Path) -> Iterator[Any]:
    """Recordings as cuts with their supervisions, from the pair of manifests of which one is given."""
    recordings, supervisions = (
        file.with_name(re.sub("recordings|supervisions", kind, file.name))
        for kind in ("recordings", "supervisions")
    )
    if not recordings.is_file():
        raise IsoglossError(
            f"{recordings} is missing; lhotse supervisions need the recordings they speak of."
        )
    cuts = {item.id: item.to_cut() for _, item in read_manifest(recordings)}
    unknown = []
    for _, said in read_manifest(supervisions) if supervisions.is_file() else ():
        if said.recording_id in cuts:
            cuts[said.recording_id].supervisions.append(said)
        else:
            unknown.append(said.id)
    if unknown:
        raise IsoglossError(
            f"{supervisions} has {counted(len(unknown), 'supervision')} of recordings that are not in "
            f"{recordings.name} ({examples(unknown)}); run lhotse.fix_manifests first."
        )
    yield from cuts.values()


def read_arrow(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """Parquet files, or arrow files as `datasets` saves them; audio inside is written to `scratch`."""
    files = files_below(path, aside) if path.is_dir() else [path]
    data = [file for file in files if file.suffix.lower() in (".parquet", ".arrow") and not CACHED.match(file.name)]
    aside.add_files(set(files).difference(data))
    for file in data:
        inner = file.relative_to(path) if path.is_dir() else Path(file.name)
        names, inside, rows = _open_arrow(file)
        # Ids of such data sets often name the sentence and repeat; the row never does.
        columns = match_columns(names, file, aside, inside) | {"id": "id"}
        if inside:  # a whole clip: times speak of the recording that it was cut from
            aside.columns.update(dict.fromkeys(columns.pop(field) for field in TIMES if field in columns))
        clips = _unpacked(rows, columns["audio"], make_id(str(inner.with_suffix(""))), scratch)
        split = split_in(re.split(r"[-_./]", str(inner)))
        for utterance in from_rows(clips, columns, file, language, aside, "row"):
            yield replace(utterance, source=path.resolve().stem, split=utterance.split or split)


def _open_arrow(file: Path) -> tuple[list[str], str | None, Iterator[dict[str, Any]]]:
    """Column names, the column that holds audio itself, and rows of a parquet or arrow file, labels as their names."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise IsoglossError(
            f'Reading {file} needs pyarrow; install it with: pip install "isogloss[datasets]"'
        ) from None
    is_parquet = file.suffix.lower() == ".parquet"
    try:
        table = parquet.ParquetFile(file) if is_parquet else pyarrow.ipc.open_stream(pyarrow.memory_map(str(file)))
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(file, error) from None
    schema = table.schema_arrow if is_parquet else table.schema
    features = (
        json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    )
    labels = {name: feature["names"] for name, feature in features.items() if "names" in feature}

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in table.iter_batches(batch_size=BATCH) if is_parquet else table:
                for start in range(0, batch.num_rows, BATCH):
                    yield from batch.slice(start, BATCH).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise _damaged(file, error) from None

    return (
        schema.names,
        _audio_inside(schema, features),
        ({name: _named(value, labels.get(name)) for name, value in row.items()} for row in rows()),
    )


def _damaged(file: Path, error: Exception) -> IsoglossError:
    reason = " ".join(str(error).split())
    return IsoglossError(f"{file} is not a readable {file.suffix[1:]} file ({reason}); fetch or save it again.")


def _audio_inside(schema: Any, features: dict[str, Any]) -> str | None:
    """The column of bytes, or of {bytes, path}, that is called audio or is said to be: a picture is stored alike."""
    from pyarrow import types

    for field in schema:
        holder = field.type.field("bytes").type if _has_bytes(field.type) else field.type
        said = features.get(field.name, {}).get("_type")
        named = said == "Audio" or (said is None and field.name.lower() in COLUMNS["audio"])
        if named and (types.is_binary(holder) or types.is_large_binary(holder)):
            return str(field.name)
    return None


def _has_bytes(type: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(type)) and type.get_field_index("bytes") >= 0


def _named(value: Any, labels: list[str] | None) -> Any:
    return labels[value] if labels is not None and isinstance(value, int) else value


def _unpacked(
    rows: Iterator[dict[str, Any]], column: str, name: str, scratch: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the path of their audio in place of its bytes."""
    for number, row in enumerate(rows, 1):
        audio = {"bytes": row[column]} if isinstance(row[column], bytes) else row[column]
        if isinstance(audio, dict):
            content, path = audio.get("bytes"), audio.get("path")
            if content:
                file = scratch / name / f"{number:06d}{Path(path or 'clip.wav').suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                path = str(file)
            audio = path
        yield number, {**row, column: audio, "id": f"{name}/{number:06d}"}
