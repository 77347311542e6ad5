"""`isogloss prepare`: a named corpus or the user's own speech becomes one folder ready to train on.

    source ── Utterances ── headers read ── long speech segmented ── splits drawn and checked ── DIR

The folder appears whole or not at all; what was left out, and why, is counted on its card.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isogloss.audio.channels import Channel, require_channel
from isogloss.audio.reading import AudioInfo, convert, info, read_blocks
from isogloss.data.corpus import Corpus
from isogloss.data.fetch import cache_folder, fetch_packages
from isogloss.data.finding import Aside
from isogloss.data.importers import read_source
from isogloss.data.manifests import (
    CARD,
    TEXT,
    Utterance,
    count_cuts,
    examples,
    fingerprint,
    language_of,
    source_of,
    split_of,
    text_of,
    to_cut,
    write_card,
    write_cuts,
)
from isogloss.data.recipes import all_corpora
from isogloss.data.rows import language_named, make_id
from isogloss.data.splits import assign_splits, check_splits, find_leaks, held_out_texts
from isogloss.errors import AudioError, IsoglossError, counted, did_you_mean
from isogloss.files import atomic_folder
from isogloss.text.corpus import clean_text, read_text_lines, write_text_lines
from isogloss.text.languages import normalise_language
from isogloss.text.normalise import NORMALISER_VERSION

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

MIN_SECONDS = 0.1  # shorter than the field of view of one encoder frame
SLACK_SECONDS = 0.1  # how far a segment may reach beyond its file: times in tables are rounded

Progress = Callable[[str, int], None]


def prepare(
    source: str,
    out: Path,
    *,
    language: str | None = None,
    languages: Sequence[str] | None = None,
    split_by: str = "text",
    dev: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    max_seconds: float = 30.0,
    max_bad: float = 0.01,
    channel: Channel | Literal["each"] = "mix",
    tiers: Sequence[str] = (),
    text: Sequence[Path] = (),
    cache: Path | None = None,
    allow_leak: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the corpus folder `out` (see `manifests`) and return its card.

    source: the name of a corpus that can be fetched, NAME=FOLDER for one the user has, or a path
    (see `importers`). language: of clips that do not say theirs; languages: keep only these, which
    changes nothing about what is drawn for dev and test.
    split_by, dev, test, seed: see `splits.assign_splits`; splits that the corpus has are kept.
    max_seconds: longer clips are dropped if transcribed, else segmented by voice activity.
    max_bad: the share of broken clips above which it stops. channel: of recordings that do not say which is meant;
    "each" makes a clip of every one, where there is no transcript. tiers: of annotations, those to take (see
    `tiers.choose`). text: files of unspoken text to add, less what is said in dev and test. allow_leak: keep standard
    splits that share texts (public corpora: always, and the card says so). on_progress: told a stage and how much of
    it is done.

    Raises IsoglossError; nothing is then written.
    """
    if language is not None:
        language = normalise_language(language)
    out = out.expanduser().absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())) and not overwrite:
        raise IsoglossError(f"{out} exists already; choose another folder or give --overwrite.")
    wanted = {normalise_language(tag) for tag in languages} if languages else None
    advance = on_progress or (lambda stage, done: None)
    given = resolve(source, language, cache, progress=on_progress is not None, tiers=tiers)
    if missing := [path for path in text if not path.is_file()]:
        raise IsoglossError(f"{missing[0]} is no file; give a file of sentences.")
    with atomic_folder(out, CARD) as folder:
        intake = Intake(folder, out, max_seconds, wanted, channel)
        cuts = sorted(intake.cuts(given, advance), key=lambda cut: cut.id)
        intake.refuse_if_broken(source, max_bad)
        intake.refuse_if_nothing(source, cuts)
        cuts, leaks = _split(cuts, intake, split_by, (dev, test), seed, allow_leak or given.kind == "public")
        write_cuts(folder, cuts)
        lines = _write_text(folder, text, language, cuts)
        card = {
            "name": given.name,
            "title": given.title,
            "source": source,
            "licence": given.licence,
            "sources": dict(sorted(Counter(source_of(cut) for cut in cuts).items())),
            "clips": len(cuts),
            "transcribed": sum(text_of(cut) is not None for cut in cuts),
            "hours": round(sum(cut.duration for cut in cuts) / 3600, 4),
            "languages": count_cuts(cuts),
            "dropped": dict(sorted(intake.dropped.items())),
            "broken": {cause: len(messages) for cause, messages in sorted(intake.broken.items())},
            "aside": intake.aside.plain(),
            "text": lines,
            "notes": given.notes,
            "splits": {"by": split_by, "dev": dev, "test": test, "seed": seed, "leaks": leaks},
            "max_seconds": max_seconds,
            "channel": channel,
            "normaliser": NORMALISER_VERSION,
            "fingerprint": fingerprint(cuts),
        }
        write_card(folder, card)
    return card


@dataclass(frozen=True)
class Given:
    """What the user named: its description, how to read it, notes.

    read: is given a scratch folder, and counters of what is dropped and of what is left aside.
    """

    name: str
    title: str
    licence: str
    kind: str
    read: Callable[[Path, Counter[str], Aside], Iterator[Utterance]]
    notes: list[str]


def resolve(
    source: str,
    language: str | None = None,
    cache: Path | None = None,
    progress: bool = False,
    tiers: Sequence[str] = (),
) -> Given:
    """Find what `source` means: a corpus to fetch, NAME=FOLDER, or a path. Fetches Debian packages.

    Raises IsoglossError for what is none of them, with the nearest corpus name.
    """
    known = all_corpora()
    name, _, place = source.partition("=")
    path = Path(source).expanduser()
    if name in known:
        corpus = known[name]
        root, notes = _root(corpus, place, cache or cache_folder(), progress)
        return Given(
            name,
            corpus.title,
            corpus.licence,
            corpus.kind,
            lambda scratch, dropped, _: corpus.read(root, scratch, dropped),
            notes,
        )
    if path.exists():
        own = path.resolve().name.partition(".")[0]

        def read(scratch: Path, dropped: Counter[str], aside: Aside) -> Iterator[Utterance]:
            return read_source(path, language, scratch, aside, tiers)

        return Given(own, str(path), "", "own", read, [])
    near = did_you_mean(name, [*known, *(file.name for file in path.absolute().parent.glob("*"))])
    raise IsoglossError(
        f"{source} is neither a file, a folder nor a known corpus.{near} "
        "List the corpora with: isogloss corpora"
    )


def _root(corpus: Corpus, place: str, cache: Path, progress: bool) -> tuple[Path, list[str]]:
    """The folder a corpus is read from, and what could not be had for it."""
    if place:
        root = Path(place).expanduser().absolute()
        if not root.is_dir():
            raise IsoglossError(f"{root}, given for {corpus.name}, is no folder.")
    elif corpus.kind == "debian":
        fetch_packages(corpus.packages, cache, progress)
        return cache, []
    else:
        raise IsoglossError(f"{corpus.name} is not fetched; give its folder with {corpus.name}=FOLDER.")
    if corpus.kind == "local":
        try:
            fetch_packages(corpus.packages, cache, progress)
        except IsoglossError as error:
            return root, [f"prepared without {', '.join(corpus.packages)}, which adds text: {error}"]
    return root, []


class Intake:
    """Takes utterances in: reads headers, measures, segments; counts what it drops and what is broken.

    folder is where the corpus is being written, out where it will lie. wanted: languages to keep, None
    for all.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        max_seconds: float,
        wanted: set[str] | None,
        channel: Channel | Literal["each"] = "mix",
    ):
        self.folder = folder
        self.out = out
        self.max_seconds = max_seconds
        self.wanted = wanted
        self.channel = channel
        self.seen: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.broken: dict[str, list[str]] = defaultdict(list)
        self.aside = Aside()

    def keeps(self, language: str) -> bool:
        return self.wanted is None or language in self.wanted

    def cuts(self, given: Given, advance: Progress) -> Iterator["MonoCut"]:
        """All usable clips as lhotse cuts, those of languages not to keep among them.

        Splits are drawn over the whole corpus, so that they do not depend on the languages kept; public
        corpora have splits of their own and need only what is kept.
        """
        # Many utterances may be segments of one file.
        header = lru_cache(maxsize=64)(info)
        for number, utterance in enumerate(given.read(self.folder / "audio", self.dropped, self.aside), 1):
            advance("clips", number)
            self.seen[utterance.language] += 1
            kept = self.keeps(utterance.language)
            if kept or given.kind != "public":
                try:
                    about = header(utterance.audio)
                    for clip in self._channels(utterance, about.channels):
                        yield from self._take(clip, about)
                except AudioError as error:
                    if kept:
                        self.broken[error.cause].append(str(error))

    def refuse_if_broken(self, source: str, max_bad: float) -> None:
        """Stop with a table of causes if more than the share `max_bad` of the clips is broken."""
        count = sum(map(len, self.broken.values()))
        total = sum(n for language, n in self.seen.items() if self.keeps(language))
        if count > max_bad * total:
            rows = [
                f"  {cause:<11} {len(messages):>6}   {messages[0]}"
                for cause, messages in sorted(self.broken.items(), key=lambda item: -len(item[1]))
            ]
            raise IsoglossError(
                f"{count} of {counted(total, 'clip')} cannot be used ({count / total:.1%}, allowed: {max_bad:.1%}); "
                f"mend or remove them in {source}, or raise --max-bad.\n" + "\n".join(rows)
            )

    def refuse_if_nothing(self, source: str, cuts: list["MonoCut"]) -> None:
        """Stop if no clip to keep is left, and say where they went."""
        if any(self.keeps(language_of(cut)) for cut in cuts):
            return
        if not self.seen:
            raise IsoglossError(f"{source} holds no clips.")
        broken = {cause: len(messages) for cause, messages in self.broken.items()}
        left_out = "; ".join(f"{rule}: {count}" for rule, count in (self.dropped | broken).items())
        there = examples(sorted(self.seen))
        raise IsoglossError(
            f"No clip of {source} is left. Its languages are {there}. Left out: {left_out or 'none'}."
        )

    def _channels(self, utterance: Utterance, channels: int) -> list[Utterance]:
        """A clip for each channel that is wanted of a recording with so many."""
        if utterance.channel != "mix" or (self.channel == "each" and channels == 1):
            return [utterance]
        if self.channel != "each":
            return [replace(utterance, channel=self.channel)]
        if utterance.text is not None or utterance.concept is not None:
            raise IsoglossError(
                f"{utterance.audio} has {channels} channels and one transcript; give --channel mix or a number."
            )
        return [replace(utterance, id=f"{utterance.id}/channel-{n}", channel=n) for n in range(1, channels + 1)]

    def _take(self, utterance: Utterance, header: AudioInfo) -> Iterator["MonoCut"]:
        span = header.seconds - utterance.start if utterance.duration is None else utterance.duration
        if utterance.start >= header.seconds or utterance.start + span > header.seconds + SLACK_SECONDS:
            raise AudioError(
                f"{utterance.audio} ends at {header.seconds:.2f} s, before {utterance.id} does "
                f"({utterance.start:.2f} s to {utterance.start + span:.2f} s).",
                "truncated",
            )
        require_channel(str(utterance.audio), utterance.channel, header.channels)
        is_long = span > self.max_seconds
        is_part = utterance.start > 0 or span < header.seconds - SLACK_SECONDS
        if span < MIN_SECONDS:
            self._drop(utterance, f"shorter than {MIN_SECONDS:g} s")
        elif is_long and (utterance.text is not None or utterance.concept is not None):
            self._drop(utterance, f"longer than {self.max_seconds:g} s")
        else:
            if not header.seeks and (is_long or is_part) and self.keeps(utterance.language):
                copy = self._copy(utterance.audio)
                utterance, header = replace(utterance, audio=copy), info(copy)
            for clip in self._segments(utterance, span) if is_long else [utterance]:
                yield to_cut(clip, header, self._final(utterance.audio))

    def _copy(self, audio: Path) -> Path:
        """A FLAC copy of a file that would be decoded from its beginning for every clip."""
        digest = hashlib.sha256(os.fsencode(audio.absolute())).hexdigest()[:8]
        copy = self.folder / "audio" / f"{make_id(audio.stem)}-{digest}.flac"
        if not copy.exists():
            convert(audio, copy)
        return copy

    def _segments(self, utterance: Utterance, span: float) -> Iterator[Utterance]:
        """The stretches of speech in a long recording, each of at most `max_seconds`."""
        from isogloss.audio.windows import Running, speech_windows

        number = 0
        blocks = read_blocks(utterance.audio, start=utterance.start, duration=span, channel=utterance.channel)
        for window in speech_windows(Running(blocks).window, self.max_seconds):
            offset = utterance.start + window.start
            for start, end in window.spans:
                if end - start >= MIN_SECONDS:
                    number += 1
                    name = f"{utterance.id}/{number:04d}"
                    yield replace(
                        utterance, id=name, start=round(offset + start, 3), duration=round(end - start, 3)
                    )
        if not number:
            self._drop(utterance, "no speech found")

    def _drop(self, utterance: Utterance, rule: str) -> None:
        if self.keeps(utterance.language):
            self.dropped[rule] += 1

    def _final(self, audio: Path) -> Path:
        """Where a file will lie once the corpus folder has its name."""
        if audio.is_relative_to(self.folder):
            return self.out / audio.relative_to(self.folder)
        if audio.absolute().is_relative_to(self.out):
            raise IsoglossError(
                f"{audio} lies in {self.out}, which is to be replaced; choose another folder."
            )
        return audio


def _split(
    cuts: list["MonoCut"],
    intake: Intake,
    by: str,
    shares: tuple[float, float],
    seed: int,
    allow_leak: bool,
) -> tuple[list["MonoCut"], list[str]]:
    """The cuts to keep with their splits, and leaks that were allowed."""
    had_splits = any(map(split_of, cuts))
    splits = assign_splits(cuts, by, *shares, seed)
    wanted = [cut for cut in cuts if intake.keeps(language_of(cut))]
    kept = [cut for cut in wanted if cut.id in splits]
    if len(kept) < len(wanted):
        intake.dropped["text is held out"] += len(wanted) - len(kept)
    for cut in kept:
        cut.custom["split"] = splits[cut.id]
    if had_splits and allow_leak:
        return kept, find_leaks(kept, by)
    check_splits(kept, by)
    return kept, []


def _write_text(
    folder: Path, files: Sequence[Path], language: str | None, cuts: list["MonoCut"]
) -> dict[str, int]:
    """Write the unspoken text less what dev and test say; its line, name or `language` tell the language."""
    if not files:
        return {}
    counts: Counter[str] = Counter()
    lines = chain.from_iterable(read_text_lines(file, language_named(file) or language) for file in files)
    if not write_text_lines(clean_text(lines, counts, exclude=held_out_texts(cuts)), folder / TEXT):
        names = ", ".join(map(str, files))
        raise IsoglossError(f"{names}: no sentence is left that dev and test do not say; give others or none.")
    return dict(counts)
