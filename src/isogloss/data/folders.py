"""A folder of audio with what lies beside it: transcripts, lists of LibriSpeech's kind, annotations with times."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from isogloss.data.annotations import ANNOTATIONS, annotated, is_annotation, is_labels, recording_of
from isogloss.data.finding import Aside, files_below, same_name
from isogloss.data.kaldi import read_pairs
from isogloss.data.manifests import Utterance
from isogloss.data.rows import SPLIT_NAMES, language_in, make_id, require_language, split_in
from isogloss.errors import IsoglossError
from isogloss.files import numbered_lines

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".w64", ".aif", ".aiff", ".caf", ".au", ".snd", ".ogg", ".oga", ".opus", ".spx", ".mp3"),
    *(".m4a", ".m4b", ".aac", ".amr", ".wma", ".mp2", ".ac3", ".mka", ".mp4", ".mov", ".3gp", ".webm", ".mkv"),
)
"""Of recordings of one name beside each other, that with the first of these is taken."""
TRANS = ".trans.txt"

Place = tuple[Path, str]
"""What a clip and its transcript have in common: the folder, and the name without its suffix."""


def read_folder(
    path: Path, language: str | None, scratch: Path, aside: Aside, tiers: Sequence[str] = ()
) -> Iterator[Utterance]:
    """Audio files below a folder, in order of name; tiers: of annotations, those to take (see `tiers.choose`)."""
    files = files_below(path, aside)
    every = _audio_among(files, path)
    audio = list({_place(file): file for file in sorted(every, key=_preference, reverse=True)}.values())
    audio.sort()
    if len(audio) < len(every):
        aside.files["same name as another recording"] += len(every) - len(audio)
    beside = _Beside(files, {_place(file) for file in audio}, tiers, aside)
    missing = []
    for file in audio:
        inner = file.relative_to(path)
        whole = Utterance(
            id=make_id(same_name(str(inner.with_suffix("")))),
            audio=file,
            language=language or language_of_folder(inner) or "",
            source=path.resolve().name,
            split=split_in(inner.parts[:-1]),
        )
        for utterance in beside.clips(whole, inner):
            if utterance.language:
                yield utterance
            else:
                missing.append(str(file) if utterance.id == whole.id else utterance.id)
    require_language(missing, path)
    beside.put_rest_aside()


def read_annotation(
    path: Path, language: str | None, scratch: Path, aside: Aside, tiers: Sequence[str] = ()
) -> Iterator[Utterance]:
    """The labelled stretches of one recording, which lies beside the document or where it says."""
    beside = (file for file in path.parent.iterdir() if is_audio(file) and _place(file) == _place(path))
    audio = next((file for file in (*sorted(beside, key=_preference), *recording_of(path)) if file.is_file()), None)
    if audio is None:
        names = " or ".join(dict.fromkeys(file.name for file in recording_of(path))) or f"{path.stem}.wav"
        raise IsoglossError(f"{path} labels a recording that is not there; put {names} beside it, in any format.")
    whole = Utterance(make_id(same_name(path.stem)), audio, language or "", path.resolve().name.partition(".")[0])
    clips = list(annotated(whole, path, tiers, aside))
    if not clips:
        raise _no_transcript(path)
    require_language([clip.id for clip in clips if not clip.language], path)
    yield from clips


def _no_transcript(document: Path) -> IsoglossError:
    return IsoglossError(
        f"{document} labels no stretch in a tier that is a transcript by its name; name one with --tiers, or remove "
        "the file."
    )


class _Beside:
    """What lies beside the recordings of a folder, and which of it was not used.

    Of what there is for a recording an annotation comes first, then a transcript, then a list.
    """

    def __init__(self, files: Iterable[Path], places: set[Place], tiers: Sequence[str], aside: Aside):
        self.tiers = tiers
        self.aside = aside
        self.rest = dict.fromkeys(file for file in files if not is_audio(file))
        self.texts = {_place(file): file for file in reversed(self.rest) if file.suffix.lower() == ".txt"}
        self.lists = _listed(self.rest)
        documents = sorted(filter(is_annotation, self.rest), key=lambda file: ANNOTATIONS.index(file.suffix.lower()))
        self.documents: dict[Place, Path] = {}
        for file in documents:
            own = _place(file)
            named = [own] if own in places else [_place(audio) for audio in recording_of(file) if audio.is_file()]
            for place in named[:1]:
                self.documents.setdefault(place, file)

    def clips(self, whole: Utterance, inner: Path) -> Iterator[Utterance]:
        """The clips of a recording; inner: its path within the folder."""
        place = _place(whole.audio)
        document, transcript = self.documents.get(place), self.texts.get(place)
        lines = [] if transcript is None else list(numbered_lines(transcript))
        if transcript is not None and is_labels(lines):
            document, transcript = document or transcript, None
        clips = [] if document is None else list(annotated(whole, document, self.tiers, self.aside))
        if document is not None and clips:
            self.rest.pop(document)
            yield from clips
        elif transcript is not None:
            self.rest.pop(transcript)
            yield replace(whole, text="\n".join(line for _, line in lines).strip() or None)
        elif document is not None:
            raise _no_transcript(document)
        elif (found := self.lists.pop(place, None)) is not None:
            text, speaker = found
            split = split_in(re.split("[-/]", str(inner.parent)))  # train-clean-100
            yield replace(whole, text=text, speaker=speaker, split=split)
        else:
            yield whole

    def put_rest_aside(self) -> None:
        self.aside.add_files(file for file in self.rest if not file.name.lower().endswith(TRANS))
        if self.lists:
            self.aside.lines[f"of {TRANS} without a clip"] += len(self.lists)


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


def language_of_folder(inner: Path) -> str | None:
    """The language that the first folder of a relative path names by its code, if it does."""
    return language_in(next((part for part in inner.parts[:-1] if part not in SPLIT_NAMES), ""))


def _preference(file: Path) -> tuple[int, Path]:
    return AUDIO_SUFFIXES.index(file.suffix.lower()), file


def _place(file: Path) -> Place:
    return file.parent, same_name(file.stem)


def _listed(files: Iterable[Path]) -> dict[Place, tuple[str | None, str | None]]:
    """{place of a clip: (text, speaker)} of all lists like 84-121123.trans.txt, which begin with the speaker."""
    found = {}
    for file in files:
        if file.name.lower().endswith(TRANS):
            chapter = re.fullmatch(r"(\d+)-\d+", file.name[: -len(TRANS)])
            for name, text in read_pairs(file).items():
                found[file.parent, same_name(name)] = text or None, chapter[1] if chapter else None
    return found
