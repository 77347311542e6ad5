"""`isogloss export`: a prepared corpus in the formats of other toolkits.

    parquet   data/train-00000-of-00002.parquet     Hugging Face `datasets`; the audio is inside (see `parquet`)
    kaldi     train/{wav.scp, segments, text, …}    Kaldi, ESPnet, WeNet
    nemo      train_manifest.json                   NeMo

Kaldi and NeMo are given recordings where they lie if these are mono and of a kind that they read, else copies of them
in DIR/audio, mono and at 16 kHz. Neither can mix clips with and without a transcript, so that the latter are in
train_untranscribed and so on. What is exported, `isogloss prepare DIR` takes in again.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.audio.channels import Channel
from isogloss.audio.reading import convert_mono, info
from isogloss.audio.sources import Member
from isogloss.data.manifests import (
    audio_of,
    channel_of,
    language_of,
    read_card,
    read_cuts,
    speaker_of,
    split_of,
    text_of,
    translations_of,
)
from isogloss.data.parquet import write_parquet
from isogloss.data.rows import make_id
from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, json_text, require_new, write_json

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

EXPORTED = "export.json"
"""In every exported folder: what it was made of, and the licence of that."""
KEPT = ("name", "title", "licence", "sources", "clips", "hours", "fingerprint")


def export(
    folder: Path,
    out: Path,
    kind: str,
    *,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Write a prepared corpus to `out` in the format `kind`, one of FORMATS, and return the number of clips.

    on_progress: told a unit, how many are done, and of how many. Roles, concepts and phones stay behind, in Kaldi also
    translations. Raises IsoglossError for what is no corpus, and for an `out` that holds something else or, without
    `overwrite`, an export; AudioError for a recording that cannot be read. Nothing is then written.
    """
    out = out.expanduser().absolute()
    require_new(out, overwrite)
    cuts, card = read_cuts(folder), read_card(folder)
    files = (audio if isinstance(audio, Path) else audio.path for audio in map(audio_of, cuts))
    if inside := next((file for file in files if file.is_relative_to(out)), None):
        raise IsoglossError(f"{inside} lies in {out}, which is to be replaced; choose another folder.")
    done = count(1)

    def tell() -> None:
        if on_progress is not None:
            on_progress("clips", next(done), len(cuts))

    with atomic_folder(out, EXPORTED) as temporary:
        FORMATS[kind](temporary, out, cuts, tell)
        write_json(temporary / EXPORTED, {"format": kind, **{key: card.get(key) for key in KEPT}})
    return len(cuts)


def _parquet(folder: Path, out: Path, cuts: list["MonoCut"], tell: Callable[[], None]) -> None:
    write_parquet(folder, cuts, tell)


def _nemo(folder: Path, out: Path, cuts: list["MonoCut"], tell: Callable[[], None]) -> None:
    recordings = _Recordings(folder, out, ("WAV/PCM_", "FLAC/PCM_"))
    for name, group in _groups(cuts).items():
        with (folder / f"{name}_manifest.json").open("w", encoding="utf-8") as file:
            for cut in group:
                file.write(json_text(_manifest_line(cut, recordings.place(cut))) + "\n")
                tell()


def _manifest_line(cut: "MonoCut", audio: Path) -> dict[str, Any]:
    values = {
        "id": cut.id,
        "audio_filepath": str(audio),
        "offset": cut.start,
        "duration": cut.duration,
        "text": text_of(cut),
        "lang": language_of(cut),
        "speaker": speaker_of(cut),
        "translations": translations_of(cut) or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _kaldi(folder: Path, out: Path, cuts: list["MonoCut"], tell: Callable[[], None]) -> None:
    """As Kaldi's validate_data_dir.sh wants it: all in the order of bytes, also when sorted by speaker.

    A speaker's name therefore begins the names of what they say, and an unknown speaker is named like what they say.
    """
    recordings, words, files = _Recordings(folder, out, ("WAV/PCM_16",)), _Words(), _Words()
    for name, group in _groups(cuts).items():
        tables: dict[str, dict[str, str]] = defaultdict(dict)
        for cut in group:
            audio, id, speaker, text = recordings.place(cut), words.word("clip", cut.id), speaker_of(cut), text_of(cut)
            said_by = id if speaker is None else words.word("speaker", speaker)
            clip = id if speaker is None else f"{said_by}--{id}"
            recording = files.word("recording", str(audio), audio.stem)
            tables["wav.scp"][recording] = str(audio)
            tables["segments"][clip] = f"{recording} {cut.start:.6f} {cut.start + cut.duration:.6f}"
            tables["utt2spk"][clip] = said_by
            tables["utt2lang"][clip] = language_of(cut)
            if text is not None:
                tables["text"][clip] = " ".join(text.split())
            tell()
        said: dict[str, list[str]] = defaultdict(list)
        for clip, speaker in tables["utt2spk"].items():
            said[speaker].append(clip)
        tables["spk2utt"] = {speaker: " ".join(sorted(clips, key=str.encode)) for speaker, clips in said.items()}
        for table, rows in tables.items():
            _write_table(folder / name / table, rows)


def _write_table(path: Path, rows: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = (f"{key} {rows[key]}\n" for key in sorted(rows, key=str.encode))
    path.write_text("".join(lines), encoding="utf-8")


def _groups(cuts: list["MonoCut"]) -> dict[str, list["MonoCut"]]:
    """The clips of each split, those without a transcript apart."""
    groups: dict[str, list[MonoCut]] = defaultdict(list)
    for cut in cuts:
        groups[(split_of(cut) or "train") + ("" if text_of(cut) is not None else "_untranscribed")].append(cut)
    return groups


class _Words:
    """Names as words: without spaces, and a different one for each.

    No sign before the hyphen in ASCII is left, nor two hyphens together or one at the end, so that `Ana--1` comes
    before `Ana-Maria--1` as `Ana` comes before `Ana-Maria`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def word(self, kind: str, name: str, shown: str | None = None) -> str:
        """The word for a name of a kind; shown: what to make it of, if not of the name."""
        if (kind, name) not in self._known:
            word = re.sub("[\x00-,/\\s\ud800-\udfff]+", "_", shown or name)
            word = re.sub("--+", "-", word).strip("-") or "_"
            if word in self._taken:
                word += f"-{sha256(f'{kind} {name}'.encode(errors='surrogatepass')).hexdigest()[:8]}"
            self._taken.add(word)
            self._known[kind, name] = word
        return self._known[kind, name]


class _Recordings:
    """Recordings that other toolkits can read: as they lie, or mono copies of them in `folder`, later `out`.

    formats: with which of them a recording need not be copied, as `AudioInfo.format` begins.
    """

    def __init__(self, folder: Path, out: Path, formats: tuple[str, ...]):
        self.folder = folder
        self.out = out
        self.formats = formats
        self._known: dict[tuple[Path | Member, Channel], Path] = {}

    def place(self, cut: "MonoCut") -> Path:
        """The file that a clip is part of."""
        audio, channel = audio_of(cut), channel_of(cut)
        if (audio, channel) not in self._known:
            self._known[audio, channel] = self._readable(audio, channel)
        return self._known[audio, channel]

    def _readable(self, audio: Path | Member, channel: Channel) -> Path:
        about = info(audio)
        # Kaldi would run a name that ends so; a line holds no line ends.
        is_plain = str(audio).isprintable() and str(audio).strip() == str(audio) and not str(audio).endswith("|")
        if isinstance(audio, Path) and is_plain and about.channels == 1 and about.format.startswith(self.formats):
            return audio
        digest = sha256(os.fsencode(str(audio)) + f" {channel}".encode()).hexdigest()[:8]
        stem = audio.stem if isinstance(audio, Path) else audio.name
        copy = Path("audio") / f"{make_id(stem)}-{digest}.wav"
        convert_mono(audio, self.folder / copy, channel)
        return self.out / copy


FORMATS = {"parquet": _parquet, "kaldi": _kaldi, "nemo": _nemo}
