"""Kaldi data directories; ESPnet, WeNet and icefall write them too.

    wav.scp     RECORDING PATH                  a PATH that ends in | is a command: none is ever run
    segments    UTTERANCE RECORDING START END   in seconds; -1 = to the end; without it every recording is a clip
    text        UTTERANCE WORDS
    utt2spk     UTTERANCE SPEAKER       an unknown speaker is named like the utterance
    utt2lang    UTTERANCE LANGUAGE
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from isogloss.data.finding import Aside, Finder, files_below
from isogloss.data.manifests import Utterance, examples
from isogloss.data.rows import language_in, make_id, require_language, split_in
from isogloss.errors import IsoglossError, counted
from isogloss.files import numbered_lines
from isogloss.text.languages import normalise_language

WAV_SCP = "wav.scp"
READ = {WAV_SCP, "segments", "text", "utt2spk", "utt2lang"}
# Folders, from that of wav.scp upwards, that its paths may be relative to: Kaldi means egs/NAME/s5, ESPnet
# egs2/NAME/asr1, from which dump/raw/org/train is four down.
UP = 5


def read_kaldi(path: Path, language: str | None, scratch: Path, aside: Aside) -> Iterator[Utterance]:
    """The utterances of all data directories below a folder, whose names may tell split and language."""
    files = files_below(path, aside)
    others = {file.absolute() for file in files if file.name not in READ}
    for scp in (file for file in files if file.name == WAV_SCP):
        for utterance in _read_directory(scp.parent, path, language, aside):
            others.discard(utterance.audio.absolute())
            yield utterance
    aside.add_files(others)


def read_pairs(path: Path) -> dict[str, str]:
    """{first word: rest} of each line; raises IsoglossError that names a line whose first word was there before."""
    pairs: dict[str, str] = {}
    for number, line in numbered_lines(path):
        key, *rest = line.split(maxsplit=1) or [""]
        if key in pairs:
            raise IsoglossError(f'{path}, line {number}: "{key}" is there a second time; mend or remove the line.')
        if key:
            pairs[key] = rest[0].strip() if rest else ""
    return pairs


def _read_directory(folder: Path, path: Path, language: str | None, aside: Aside) -> Iterator[Utterance]:
    recordings = _recordings(folder / WAV_SCP)
    segments = _segments(folder / "segments", recordings)
    texts, speakers, languages = (_optional(folder / name) for name in ("text", "utt2spk", "utt2lang"))
    inner = folder.relative_to(path)
    words = re.split("[-_.]", inner.name)
    named = language or next(filter(None, map(language_in, inner.parts)), None)
    spoken = {name: languages.get(name) or named for name in segments}
    require_language([name for name, tag in spoken.items() if tag is None], folder)
    for name, (recording, start, duration) in segments.items():
        yield Utterance(
            id=make_id(str(inner / name)),
            audio=recordings[recording],
            language=normalise_language(str(spoken[name])),
            source=path.resolve().name,
            text=texts.get(name) or None,
            start=start,
            duration=duration,
            speaker=None if speakers.get(name) == name else speakers.get(name),
            split=split_in(words),
        )
    used = {recording for recording, _, _ in segments.values()}
    _count(aside, f"of {WAV_SCP} without a segment", recordings.keys() - used)
    _count(aside, "of text without a clip", texts.keys() - segments.keys())


def _recordings(scp: Path) -> dict[str, Path]:
    """{recording: file}; raises IsoglossError that names what is no file: commands, archives, standard input."""
    found = read_pairs(scp)
    refused = [name for name, place in found.items() if not place or place.endswith("|") or place == "-"]
    refused += [name for name, place in found.items() if re.search(r"\.ark:\d+$", place)]
    if refused:
        raise IsoglossError(
            f"{scp}: {counted(len(refused), 'recording')} ({examples(refused)}) come from a command or an archive, and "
            "isogloss runs no commands of a data set; write the audio to files and name these."
        )
    finder = Finder(scp.parent)
    return {name: _file(place, scp.parent, finder) for name, place in found.items()}


def _file(place: str, folder: Path, finder: Finder) -> Path:
    above = [folder, *folder.absolute().parents][:UP]
    return next((base / place for base in above if os.path.exists(base / place)), None) or finder.find(place)


def _segments(path: Path, recordings: dict[str, Path]) -> dict[str, tuple[str, float, float | None]]:
    """{utterance: (recording, start, duration)}; whole recordings where there is no such file."""
    if not path.is_file():
        return {name: (name, 0.0, None) for name in recordings}
    found, wrong = {}, []
    for name, rest in read_pairs(path).items():
        try:
            recording, begin, finish = rest.split()
            start, end = float(begin), float(finish)
        except ValueError:
            wrong.append(f"{name}: not a recording and two times")
            continue
        length = None if end == -1 else round(end - start, 6)
        if recording not in recordings:
            wrong.append(f"{name}: {WAV_SCP} names no {recording}")
        elif start < 0 or (length is not None and not length > 0):
            wrong.append(f"{name}: from {begin} to {finish} s")
        else:
            found[name] = recording, start, length
    if wrong:
        raise IsoglossError(f"{path} has {counted(len(wrong), 'unusable line')} ({examples(wrong)}); mend each.")
    return found


def _optional(path: Path) -> dict[str, str]:
    return read_pairs(path) if path.is_file() else {}


def _count(aside: Aside, what: str, lost: set[str]) -> None:
    if lost:
        aside.lines[what] += len(lost)
