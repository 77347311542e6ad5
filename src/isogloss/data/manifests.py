"""What a corpus is on disk: a folder with lhotse cuts and a card that describes them.

    DIR/cuts.jsonl.gz   one lhotse MonoCut a line, each with one supervision
    DIR/corpus.json     the card: source, licence, counts, rules that dropped clips, fingerprint
    DIR/text.jsonl.gz   optional: unspoken text, one {"text", "language", "source"} a line
    DIR/audio/          only what had to be decoded: formats without a header, and those that do not seek

A cut carries `supervision.text` (None = untranscribed), `.language` (BCP 47), `.speaker`,
`.alignment["phone"]` where known, and in `cut.custom`: `split` (train, dev, test), `source` (the
corpus name), where known `role`, `concept` and `translations` ({language: text}), and `channel` where the
recording has several: one of them, counted from 1, or `mix`, their mean; of a cut that was packed, `stored` (see
`shards`). Paths of audio that lies in or beside the
folder are relative to it on disk, so that both can be moved together; those of cuts in memory are absolute.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.audio.sources import Member
from isogloss.errors import IsoglossError, counted
from isogloss.files import atomic_file, json_text, numbered_lines, plain_gzip, read_json, write_json

if TYPE_CHECKING:
    import numpy as np
    from lhotse.cut import MonoCut
    from numpy.typing import NDArray

    from isogloss.audio.channels import Channel
    from isogloss.audio.reading import AudioInfo

CUTS = "cuts.jsonl.gz"
CARD = "corpus.json"
TEXT = "text.jsonl.gz"
SPLITS = ("train", "dev", "test")
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip as a corpus recipe yields it, before it becomes a lhotse cut.

    id: unique within the corpus, made of [A-Za-z0-9._/-].
    audio: a file `audio.reading` reads. start, duration in seconds (None = to the end of the file).
    channel: which one is meant, or the mean of all.
    text: what is said, as the corpus spells it; None if unknown.
    language: a BCP 47 tag. translations: the same sentence in other languages, by tag.
    phones: (start, duration, phone) in seconds, where the corpus has a phone alignment.
    concept: what is named, where the corpus has an id shared by languages instead of a text.
    split: train, dev or test, only where the corpus itself has a standard split.
    """

    id: str
    audio: Path
    language: str
    source: str
    text: str | None = None
    start: float = 0.0
    duration: float | None = None
    channel: "Channel" = "mix"
    speaker: str | None = None
    role: str | None = None
    concept: str | None = None
    translations: dict[str, str] = field(default_factory=dict)
    phones: tuple[tuple[float, float, str], ...] = ()
    split: str | None = None


def to_cut(utterance: Utterance, info: "AudioInfo", audio: Path | None = None) -> "MonoCut":
    """The utterance as a lhotse cut; `info` is its file's header, `audio` another path, maybe relative to the corpus.

    The recording is built from the header read by `isogloss.audio`, because lhotse would guess a
    backend by file name and open the file a second time. Phones are counted from the clip's start.
    """
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    path = audio or utterance.audio.absolute()
    source = AudioSource(type="file", channels=list(range(info.channels)), source=str(path))
    recording = Recording(
        id=path.stem,
        sources=[source],
        sampling_rate=info.sample_rate,
        num_samples=info.frames,
        duration=info.frames / info.sample_rate,
    )
    end = recording.duration if utterance.duration is None else utterance.start + utterance.duration
    left = recording.duration - utterance.start
    duration = min(round(end - utterance.start, 6), left)
    phones = [AlignmentItem(symbol, start, length) for start, length, symbol in utterance.phones]
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        text=utterance.text,
        language=utterance.language,
        speaker=utterance.speaker,
        alignment={"phone": phones} if phones else None,
    )
    custom = {key: getattr(utterance, key) for key in ("source", "split", "role", "concept", "translations")}
    if info.channels > 1:
        custom["channel"] = utterance.channel
    return MonoCut(
        id=utterance.id,
        start=utterance.start,
        duration=duration,
        channel=0 if utterance.channel == "mix" else utterance.channel - 1,
        recording=recording,
        supervisions=[supervision],
        custom={key: value for key, value in custom.items() if value},
    )


def write_cuts(folder: Path, cuts: Iterable["MonoCut"]) -> None:
    """Write `folder/cuts.jsonl.gz` atomically; the same cuts give the same bytes.

    Raises IsoglossError for duplicate ids and impossible times, all of them in one message.
    """
    cuts = list(cuts)
    _refuse(_problems(cuts), "The clips")
    place = folder.resolve()
    with atomic_file(folder / CUTS) as temporary, plain_gzip(temporary) as file:
        file.writelines(_line(cut, place) for cut in cuts)


def _line(cut: "MonoCut", place: Path) -> bytes:
    # Without custom, because lhotse would copy every translation deeply: half the time of writing.
    value = {**replace(cut, custom=None).to_dict(), "custom": cut.custom or {}}
    for source in _audio_sources(value):
        # Anything further away than beside the folder does not move with it.
        if Path(source["source"]).is_relative_to(place.parent):
            source["source"] = os.path.relpath(source["source"], place)
    return json_text(value).encode() + b"\n"


def read_cuts(folder: Path, split: str | None = None) -> list["MonoCut"]:
    """The cuts of a prepared or packed corpus, all or those of one split.

    Raises IsoglossError that names the file and the line for a line that is no cut, and one that
    lists all duplicate ids and impossible times together.
    """
    if split is not None and split not in SPLITS:
        raise IsoglossError(f'There is no split "{split}"; the splits are {", ".join(SPLITS)}.')
    from isogloss.data.shards import Shards, is_packed

    if is_packed(folder):
        shards = Shards(folder)
        return [cut for cut in map(shards.cut, range(len(shards))) if split is None or split_of(cut) == split]
    path = folder / CUTS
    if not path.is_file():
        raise IsoglossError(
            f"{folder} is no prepared corpus ({CUTS} is missing); make it with isogloss prepare."
        )
    cuts, place = [], folder.resolve()
    for line, item in read_manifest(path):
        if type(item).__name__ != "MonoCut" or len(item.supervisions) != 1:
            raise IsoglossError(
                f"{path}, line {line}: not a cut with one supervision; prepare the corpus again."
            )
        for source in item.recording.sources if item.recording else ():
            source.source = os.path.normpath(place / source.source)
        cuts.append(item)
    _refuse(_problems(cuts), str(path))
    return [cut for cut in cuts if split is None or split_of(cut) == split]


def split_of(cut: "MonoCut") -> str | None:
    """The split a cut is in, None where it has none yet."""
    return (cut.custom or {}).get("split")


def language_of(cut: "MonoCut") -> str:
    """The language that is spoken in the clip, as a BCP 47 tag; `und` if unknown."""
    return (cut.supervisions[0].language if cut.supervisions else None) or "und"


def text_of(cut: "MonoCut") -> str | None:
    """The transcript of a cut, None if untranscribed."""
    return cut.supervisions[0].text if cut.supervisions else None


def speaker_of(cut: "MonoCut") -> str | None:
    """Who speaks in a cut, None if unknown."""
    return cut.supervisions[0].speaker if cut.supervisions else None


def source_of(cut: "MonoCut") -> str:
    """The name of the corpus a cut is from."""
    return str((cut.custom or {}).get("source", ""))


def translations_of(cut: "MonoCut") -> dict[str, str]:
    """What a cut says in other languages, by BCP 47 tag, as far as the corpus tells it."""
    return (cut.custom or {}).get("translations") or {}


def concept_of(cut: "MonoCut") -> str:
    """What a cut names in whatever language, as `corpus/id`; empty where the corpus does not tell it."""
    concept = (cut.custom or {}).get("concept")
    return f"{source_of(cut)}/{concept}" if concept else ""


def channel_of(cut: "MonoCut") -> "Channel":
    """The channel of the recording that a cut means, counted from 1, or the mean of all."""
    channel: Channel = (cut.custom or {}).get("channel", "mix")
    return channel


def audio_of(cut: "MonoCut") -> Path | Member:
    """The audio file a cut is from, or the place where it is stored among others in one file."""
    path = Path(cut.recording.sources[0].source)
    stored = (cut.custom or {}).get("stored")
    return path if stored is None else Member(path, cut.id, *stored)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line of JSON in a plain or gzipped file; blank lines are skipped.

    Raises IsoglossError that names the file and the line.
    """
    line = 0
    try:
        for line, text in numbered_lines(path):
            if text.strip():
                value = json.loads(text)
                if not isinstance(value, dict):
                    raise ValueError("not an object")
                yield line, value
    except json.JSONDecodeError as error:
        raise IsoglossError(
            f"{path}, line {line}: not valid JSON ({error.msg}); mend or remove the line."
        ) from None
    except ValueError as error:
        raise IsoglossError(f"{path}, line {line}: unreadable ({error}); mend or remove the line.") from None


def read_manifest(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, lhotse object) for each line of a lhotse manifest.

    Raises IsoglossError that names the file and the line; also for audio that is not a plain file,
    because lhotse runs "command" sources in a shell.
    """
    from lhotse.serialization import deserialize_item

    for line, value in read_jsonl(path):
        if any(source.get("type") != "file" for source in _audio_sources(value)):
            raise IsoglossError(
                f"{path}, line {line}: the audio is not a plain file; store it as files first."
            )
        try:
            yield line, deserialize_item(value)
        # lhotse lets whatever went wrong inside a constructor through.
        except Exception as error:
            raise IsoglossError(
                f"{path}, line {line}: not a lhotse object ({error}); mend the line."
            ) from None


def _audio_sources(value: dict[str, Any]) -> list[dict[str, Any]]:
    recording = value.get("recording") or value
    sources = recording.get("sources") if isinstance(recording, dict) else None
    return [source for source in sources or [] if isinstance(source, dict)]


def _problems(cuts: list["MonoCut"]) -> dict[str, list[str]]:
    """What is wrong with the cuts as a set, by kind."""
    counts = Counter(cut.id for cut in cuts)
    return {
        "duplicate id": [id for id, count in counts.items() if count > 1],
        "negative or empty time": [cut.id for cut in cuts if cut.start < 0 or cut.duration <= 0],
    }


def _refuse(problems: dict[str, list[str]], what: str) -> None:
    found = [f"{counted(len(names), kind)} ({examples(names)})" for kind, names in problems.items() if names]
    if found:
        raise IsoglossError(
            f"{what} cannot be used: {'; '.join(found)}. Mend them at the source and prepare again."
        )


def examples(names: list[str]) -> str:
    """The first few names, and how many more there are not shown."""
    shown = ", ".join(names[:EXAMPLES])
    return f"{shown}, …" if len(names) > EXAMPLES else shown


def fingerprint(cuts: Iterable["MonoCut"]) -> str:
    """SHA-256 over the ids, texts and durations of clips in any order; equal for the same clips, wherever they lie."""
    import numpy as np

    return combined(np.fromiter(map(digest, cuts), np.int64))


def combined(digests: "NDArray[np.int64]") -> str:
    """The fingerprint of clips with these digests (N,)."""
    import numpy as np

    return hashlib.sha256(np.sort(digests).astype("<i8").tobytes()).hexdigest()


def digest(cut: "MonoCut") -> int:
    """A number that stands for the id, text and duration of a clip."""
    return hash_of(f"{cut.id}\t{text_of(cut)}\t{cut.duration:.3f}")


def hash_of(text: str) -> int:
    """A positive number of 62 bits that stands for a text; 0 for none."""
    if not text:
        return 0
    return 1 + int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()) // 4


def count_cuts(cuts: Iterable["MonoCut"]) -> dict[str, dict[str, dict[str, float]]]:
    """{language: {split: {"clips": n, "hours": h}}}, in alphabetic order of the languages."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for cut in cuts:
        seconds.setdefault((language_of(cut), split_of(cut) or "train"), []).append(cut.duration)
    counts: dict[str, dict[str, dict[str, float]]] = {}
    for language, split in sorted(seconds, key=lambda key: (key[0], SPLITS.index(key[1]))):
        clips = seconds[language, split]
        counts.setdefault(language, {})[split] = {"clips": len(clips), "hours": round(sum(clips) / 3600, 4)}
    return counts


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write `folder/corpus.json`."""
    write_json(folder / CARD, card)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a prepared corpus."""
    if not (folder / CARD).exists():
        raise IsoglossError(f"{folder} has no {CARD}, which says what its licence is; prepare the corpus again.")
    card = read_json(folder / CARD)
    if not isinstance(card, dict):
        raise IsoglossError(f"{folder / CARD} is not a card; prepare the corpus again.")
    return card
