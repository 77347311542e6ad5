"""Clips that a corpus yields, taken in: headers read, long speech segmented, what is left out counted by its reason."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isogloss.audio.channels import Channel, require_channel
from isogloss.audio.reading import AudioInfo, convert, info, read_blocks
from isogloss.data.finding import Aside
from isogloss.data.manifests import Utterance, examples, language_of, to_cut
from isogloss.data.rows import make_id
from isogloss.errors import AudioError, IsoglossError, counted
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

MIN_SECONDS = 0.1  # shorter than the field of view of one encoder frame
TOGETHER = 16  # utterances that a process is given at once
SLACK_SECONDS = 0.1  # how far a segment may reach beyond its file: times in tables are rounded

Progress = Callable[[str, int], None]


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


@dataclass(frozen=True)
class Taken:
    """What some utterances came to. dropped: counts by rule; broken: what is wrong, by cause."""

    cuts: list["MonoCut"] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Rules:
    """How utterances are taken in.

    folder is where the corpus is being written, out where it will lie. wanted: languages to keep, None
    for all. words: whether transcripts must be words.
    """

    folder: Path
    out: Path
    max_seconds: float
    wanted: set[str] | None
    channel: Channel | Literal["each"] = "mix"
    words: bool = False

    def keeps(self, language: str) -> bool:
        return self.wanted is None or language in self.wanted


class Intake:
    """Takes utterances in: reads headers, measures, segments; counts what it drops and what is broken."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.keeps = rules.keeps
        self.seen: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.broken: dict[str, list[str]] = defaultdict(list)
        self.aside = Aside()

    def cuts(self, given: Given, advance: Progress, processes: int = 0) -> Iterator["MonoCut"]:
        """All usable clips as lhotse cuts, those of languages not to keep among them.

        Splits are drawn over the whole corpus, so that they do not depend on the languages kept; public
        corpora have splits of their own and need only what is kept. processes: that do the work, beside this one.
        """
        groups = self._groups(given, TOGETHER if processes else 1)
        work = Taker(self.rules).take
        with closing(_spread(work, groups, processes)) as results:
            done = 0
            for count, taken in results:
                done += count
                advance("clips", done)
                self.dropped += taken.dropped
                for cause, messages in taken.broken.items():
                    self.broken[cause] += messages
                yield from taken.cuts

    def _groups(self, given: Given, together: int) -> Iterator[list[Utterance]]:
        """The utterances that are looked at, so many at a time."""
        utterances = given.read(self.rules.folder / "audio", self.dropped, self.aside)
        while group := list(islice(utterances, together)):
            self.seen.update(utterance.language for utterance in group)
            yield [one for one in group if self.keeps(one.language) or given.kind != "public"]

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


class Taker:
    """Does the work on single utterances, in whichever process."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.keeps = rules.keeps
        self.header = lru_cache(maxsize=64)(info)  # many utterances may be segments of one file
        self.taken = Taken()

    def take(self, group: list[Utterance]) -> tuple[int, Taken]:
        """How many utterances they were, and what they came to."""
        self.taken = Taken()
        for utterance in group:
            try:
                about = self.header(utterance.audio)
                for clip in self._channels(utterance, about.channels):
                    self.taken.cuts.extend(self._take(clip, about))
            except AudioError as error:
                if self.keeps(utterance.language):
                    self.taken.broken[error.cause].append(str(error))
        return len(group), self.taken

    def _channels(self, utterance: Utterance, channels: int) -> list[Utterance]:
        """A clip for each channel that is wanted of a recording with so many."""
        if utterance.channel != "mix" or (self.rules.channel == "each" and channels == 1):
            return [utterance]
        if self.rules.channel != "each":
            return [replace(utterance, channel=self.rules.channel)]
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
        is_long = span > self.rules.max_seconds
        is_part = utterance.start > 0 or span < header.seconds - SLACK_SECONDS
        if span < MIN_SECONDS:
            self._drop(utterance, f"shorter than {MIN_SECONDS:g} s")
        elif is_long and (utterance.text is not None or utterance.concept is not None):
            self._drop(utterance, f"longer than {self.rules.max_seconds:g} s")
        elif self.rules.words and utterance.text is not None and not _is_worded(utterance.text, utterance.language):
            self._drop(utterance, "a letter or figures")
        else:
            if not header.seeks and (is_long or is_part) and self.keeps(utterance.language):
                copy = self._copy(utterance.audio)
                utterance, header = replace(utterance, audio=copy), info(copy)
            for clip in self._segments(utterance, span) if is_long else [utterance]:
                yield to_cut(clip, header, self._final(utterance.audio))

    def _copy(self, audio: Path) -> Path:
        """A FLAC copy of a file that would be decoded from its beginning for every clip."""
        digest = hashlib.sha256(os.fsencode(audio.absolute())).hexdigest()[:8]
        copy = self.rules.folder / "audio" / f"{make_id(audio.stem)}-{digest}.flac"
        if not copy.exists():
            convert(audio, copy)
        return copy

    def _segments(self, utterance: Utterance, span: float) -> Iterator[Utterance]:
        """The stretches of speech in a long recording, each of at most `max_seconds`."""
        from isogloss.audio.windows import Running, speech_windows

        number = 0
        blocks = read_blocks(utterance.audio, start=utterance.start, duration=span, channel=utterance.channel)
        for window in speech_windows(Running(blocks).window, self.rules.max_seconds):
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
            self.taken.dropped[rule] += 1

    def _final(self, audio: Path) -> Path:
        """Where a file lies: in the corpus folder, whatever its name will be, or anywhere."""
        if audio.is_relative_to(self.rules.folder):
            return audio.relative_to(self.rules.folder)
        if audio.absolute().is_relative_to(self.rules.out):
            raise IsoglossError(
                f"{audio} lies in {self.rules.out}, which is to be replaced; choose another folder."
            )
        return audio.absolute()


def _spread(
    work: Callable[[list[Utterance]], tuple[int, Taken]], groups: Iterator[list[Utterance]], processes: int
) -> Generator[tuple[int, Taken]]:
    """The work on each group, in their order, by so many processes or by this one."""
    if not processes:
        yield from map(work, groups)
        return
    from isogloss.data.ahead import made_ahead  # with it comes torch

    with closing(made_ahead(work, groups, processes)) as results:
        yield from results


def _is_worded(text: str, language: str) -> bool:
    """Whether a text is more than a letter and without figures, so that it is spelled as it is spoken."""
    plain = normalise(text, language)
    return len(plain) > 1 and not any(sign.isdecimal() for sign in plain)
