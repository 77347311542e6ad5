"""`isogloss pack`: a prepared corpus becomes shards, so that training reads few large files instead of many small ones.

    prepared corpus ── shards planned ── each written by a process ── read back ── index ── DIR

Clips are decoded, mixed down and resampled once. What is there already of an earlier try is kept; the index is written
last, and without it the folder is no corpus.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import soundfile as sf
from safetensors.numpy import save_file

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.ahead import made_ahead
from isogloss.data.clips import described, names_of
from isogloss.data.loading import waveform
from isogloss.data.manifests import (
    TEXT,
    combined,
    count_cuts,
    fingerprint,
    language_of,
    read_card,
    read_cuts,
    source_of,
    split_of,
    write_card,
)
from isogloss.data.shards import ABOUT, FORMAT, INDEX, PLACES, Column, audio_file, cuts_file, is_packed
from isogloss.data.store import FOLDER
from isogloss.errors import AudioError, IsoglossError
from isogloss.files import atomic_file, json_text, read_json, require_replaceable, write_json

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

UNFINISHED = ".packing"
"""In a folder that is being packed: of what and how, so that nothing else is taken for a part of it."""
AudioFormat = Literal["flac", "wav", "opus"]
SUBTYPES = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "opus": ("OGG", "OPUS")}
"""How libsndfile calls what a shard's audio is stored as."""


@dataclass(frozen=True)
class Shard:
    """What a shard holds: the cuts, and the columns that say where in it they lie.

    broken: why clips that were meant for it are not in it, by id.
    """

    cuts: list[MonoCut]
    places: dict[str, list[int]]
    broken: dict[str, str] = field(default_factory=dict)


def pack(
    folder: Path,
    out: Path,
    *,
    audio: AudioFormat = "flac",
    hours: float = 1.0,
    max_bad: float = 0.01,
    seed: int = 0,
    processes: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a prepared corpus to `out` as shards of about so many hours; returns the card.

    audio: flac loses nothing but what is beyond 16 bits, wav is read faster and twice as large, opus is the smallest
    and is read slowest. seed: of the order of the clips. processes: that write, beside this one. max_bad: the share of
    clips that cannot be read above which it stops. on_progress: told a unit, how many are done, and of how many.
    Raises IsoglossError; shards that are written stay, and the same call goes on with the others.
    """
    out = out.expanduser().absolute()
    if is_packed(out) and not overwrite:
        raise IsoglossError(f"{out} is a packed corpus already; choose another folder or give --overwrite.")
    if not (out / UNFINISHED).exists():
        require_replaceable(out, INDEX)
    cuts, card = read_cuts(folder), read_card(folder)
    planned = plan(cuts, hours * 3600, seed)
    asked = {"from": fingerprint(cuts), "audio": audio, "hours": hours, "seed": seed}
    if not (out / UNFINISHED).exists() or read_json(out / UNFINISHED) != asked:
        shutil.rmtree(out / FOLDER, ignore_errors=True)
    write_json(out / UNFINISHED, asked)
    (out / INDEX).unlink(missing_ok=True)
    shards: list[Shard] = []
    broken: dict[str, str] = {}

    def make(number: int) -> Shard:
        return packed_shard(out, number, planned[number], audio)

    with closing(made_ahead(make, range(len(planned)), processes)) as results:
        for shard in results:
            shards.append(shard)
            broken |= shard.broken
            if len(broken) > max(3, max_bad * len(cuts)):
                raise IsoglossError(
                    f"{len(broken)} of {len(cuts)} clips could not be read; the first: {next(iter(broken.values()))} "
                    "Prepare the corpus again without them, or give a larger --max-bad."
                )
            if on_progress is not None:
                on_progress("shards", len(shards), len(planned))
    if (folder / TEXT).exists():
        with atomic_file(out / TEXT) as temporary:
            temporary.write_bytes((folder / TEXT).read_bytes())
    index = _index(shards)
    kept = [cut for shard in shards for cut in shard.cuts]
    card |= {
        "clips": len(kept),
        "transcribed": int((index["said"] != 0).sum()),
        "hours": round(float(index["durations"].sum()) / 3600, 4),
        "languages": count_cuts(kept),
        "fingerprint": combined(index["digests"]),
        "packed": asked | {"shards": len(planned), "left out": sorted(broken)},
    }
    write_card(out, card)
    _write_index(out, index, names_of(kept))
    (out / UNFINISHED).unlink()
    return card


def plan(cuts: list[MonoCut], seconds: float, seed: int) -> list[list[MonoCut]]:
    """The clips of each shard: of one split, corpus and language, in a random order, about so many seconds of them."""
    groups: dict[tuple[str, str, str], list[MonoCut]] = defaultdict(list)
    for cut in cuts:
        groups[split_of(cut) or "", source_of(cut), language_of(cut)].append(cut)
    shards: list[list[MonoCut]] = []
    for _, group in sorted(groups.items()):
        group.sort(key=lambda cut: hashlib.sha256(f"{seed} {cut.id}".encode()).digest())
        ends = np.cumsum([cut.duration for cut in group])
        count = max(1, round(float(ends[-1]) / seconds))
        # By where a clip's middle lies, so that all shards of a group are of like length.
        places = ((ends - [cut.duration / 2 for cut in group]) / ends[-1] * count).astype(int)
        shards += [[group[index] for index in np.flatnonzero(places == shard)] for shard in np.unique(places)]
    return shards


def packed_shard(folder: Path, number: int, cuts: list[MonoCut], audio: AudioFormat) -> Shard:
    """A shard, written if it is not there."""
    found = _read_back(folder, number)
    if found is not None:
        there = {cut.id for cut in found.cuts}
        left_out = [cut.id for cut in cuts if cut.id not in there]
        return replace(found, broken={id: f"{id} could not be read in an earlier try." for id in left_out})
    broken: dict[str, str] = {}
    lines: list[bytes] = []
    with atomic_file(audio_file(folder, number)) as temporary, tarfile.open(temporary, "w") as tar:
        for cut in cuts:
            try:
                clip = waveform(cut)
            except AudioError as error:
                broken[cut.id] = str(error)
                continue
            stored = alone(cut, len(clip))
            _add(tar, f"{cut.id}.{audio}", encoded(clip, audio))
            _add(tar, f"{cut.id}.json", json_text(stored.recording.to_dict()).encode())
            lines.append(json_text(stored.to_dict()).encode() + b"\n")
    with atomic_file(cuts_file(folder, number)) as temporary:
        temporary.write_bytes(b"".join(lines))
    written = _read_back(folder, number)
    if written is None or len(written.cuts) != len(lines):
        raise IsoglossError(f"{audio_file(folder, number)} is not as it was written; check the disk.")
    return replace(written, broken=broken)


def alone(cut: MonoCut, samples: int) -> MonoCut:
    """A clip of a recording as a cut with a recording of its own, which lhotse is to find in the shard."""
    from lhotse import AudioSource, Recording

    seconds = samples / SAMPLE_RATE
    said = cut.supervisions[0]
    custom = {key: value for key, value in (cut.custom or {}).items() if key not in ("channel", "stored")}
    return replace(
        cut,
        start=0.0,
        duration=seconds,
        channel=0,
        recording=Recording(cut.id, [AudioSource("shar", [0], "")], SAMPLE_RATE, samples, seconds),
        supervisions=[replace(said, recording_id=cut.id, start=0.0, duration=min(said.duration, seconds), channel=0)],
        custom=custom,
    )


def encoded(clip: np.ndarray, audio: AudioFormat) -> bytes:
    """A waveform (S,) at 16 kHz as a file; samples beyond ±1 are clipped."""
    file = io.BytesIO()
    kind, subtype = SUBTYPES[audio]
    sf.write(file, clip, SAMPLE_RATE, format=kind, subtype=subtype)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)  # without a time: the same clips give the same bytes
    about.size = len(data)
    tar.addfile(about, io.BytesIO(data))


def _read_back(folder: Path, number: int) -> Shard | None:
    """What a shard holds and where, by its files; None where they are not there, or are not whole."""
    from lhotse.serialization import deserialize_item

    places: dict[str, list[int]] = {name: [] for name in PLACES}
    try:
        lines = cuts_file(folder, number).read_bytes().splitlines(keepends=True)
        cuts = [deserialize_item(json.loads(line)) for line in lines]
        at = 0
        for line in lines:
            places["line_at"].append(at)
            places["line_size"].append(len(line))
            places["line_check"].append(zlib.crc32(line))
            at += len(line)
        names = []
        with tarfile.open(audio_file(folder, number)) as tar:
            for about in tar:
                name, suffix = os.path.splitext(about.name)
                if suffix != ".json":
                    file = tar.extractfile(about)
                    assert file is not None
                    names.append(name)
                    places["audio_at"].append(about.offset_data)
                    places["audio_size"].append(about.size)
                    places["audio_check"].append(zlib.crc32(file.read()))
    except (OSError, ValueError, EOFError, tarfile.TarError):
        return None
    return Shard(cuts, places) if names == [cut.id for cut in cuts] else None


def _index(shards: list[Shard]) -> dict[str, Column]:
    """The columns of all clips."""
    cuts = [cut for shard in shards for cut in shard.cuts]
    columns = described(cuts, names_of(cuts))
    columns["shards"] = np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.cuts) for shard in shards])
    for name in PLACES:
        columns[name] = np.array([place for shard in shards for place in shard.places[name]], PLACES[name])
    return columns


def _write_index(out: Path, index: dict[str, Column], names: list[tuple[str, str]]) -> None:
    with atomic_file(out / INDEX) as temporary:
        # In one entry, because safetensors writes several in any order.
        save_file(index, temporary, {ABOUT: json_text({"format": FORMAT, "names": names})})
