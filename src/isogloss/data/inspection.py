"""`isogloss inspect`: what a prepared corpus holds, and what in it deserves a look before training.

Hours by language, split, speaker and source; texts and files that repeat; clips that are too long,
too short, silent, or spoken at a rate that suggests a wrong transcript; the characters in use.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from isogloss.config import Config
from isogloss.data.manifests import (
    SPLITS,
    language_of,
    read_card,
    read_cuts,
    source_of,
    speaker_of,
    split_of,
    text_of,
)
from isogloss.data.splits import find_leaks
from isogloss.errors import AudioError, counted, lasting, printable
from isogloss.text.normalise import normalise
from isogloss.text.scripts import scripts

if TYPE_CHECKING:
    from lhotse.cut import MonoCut
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

LONG_SECONDS = 30.0
SHORT_SECONDS = 0.3
SILENT_PEAK = 10 ** (-50 / 20)  # -50 dB of full scale
# Outside these multiples of the language's median rate, transcripts are mostly wrong or cut short.
RATE_BAND = (0.4, 1.8)
SHOWN = 12


class Amount(Config):
    """How much of something there is."""

    clips: int = Field(description="number of clips")
    hours: float = Field(description="hours of audio")


class LanguageRow(Config):
    """One language of the corpus."""

    language: str = Field(description="BCP 47 tag")
    splits: dict[str, Amount] = Field(description="amount by split")
    total: Amount = Field(description="amount in all splits")
    speakers: int = Field(description="number of speakers that are named")
    texts: int = Field(description="number of distinct normalised texts")
    untranscribed: float = Field(description="share of clips without text, 0 to 1")
    median_seconds: float = Field(description="median duration of a clip in seconds")
    characters_per_second: float | None = Field(
        description="median over transcribed clips, None if there are none"
    )


class Clip(Config):
    """A clip that deserves a look."""

    id: str = Field(description="the id of the cut")
    language: str = Field(description="BCP 47 tag")
    value: float = Field(description="what is unusual: seconds, characters per second, or peak level 0 to 1")


class Inspection(Config):
    """All findings about a corpus folder; `plain()` gives JSON."""

    folder: str = Field(description="the folder that was inspected")
    name: str = Field(description="the name on the corpus card")
    fingerprint: str = Field(description="SHA-256 on the corpus card")
    total: Amount = Field(description="amount in all languages")
    languages: list[LanguageRow] = Field(description="by language, most hours first")
    speakers: dict[str, Amount] = Field(description="by source/speaker, most hours first")
    sources: dict[str, Amount] = Field(description="by source, most hours first")
    dropped: dict[str, int] = Field(description="clips dropped or broken when it was prepared, by rule")
    repeated_texts: int = Field(description="clips whose text some other clip of the language says too")
    repeated_audio: list[list[str]] = Field(description="ids of clips with identical files (deep inspection)")
    leaks: list[str] = Field(description="texts that stand in more than one split")
    unusual_rate: list[Clip] = Field(description="characters per second far from the language's median")
    too_long: list[Clip] = Field(description=f"longer than {LONG_SECONDS:g} s")
    too_short: list[Clip] = Field(description=f"shorter than {SHORT_SECONDS:g} s")
    silent: list[Clip] = Field(description="peak below -50 dBFS (deep inspection)")
    unreadable: dict[str, list[str]] = Field(
        description="ids of clips that cannot be decoded, by cause (deep inspection)"
    )
    vocabulary: dict[str, dict[str, int]] = Field(
        description="{script: {character: count}}, normalised, common first"
    )
    deep: bool = Field(description="whether the audio itself was read")


def inspect(folder: Path, *, deep: bool = False) -> Inspection:
    """Inspect a prepared corpus; `deep` also reads all audio, for silence, damage and identical files.

    Raises IsoglossError if the folder is no prepared corpus.
    """
    cuts = read_cuts(folder)
    card = read_card(folder)
    texts = [_plain_text(cut) for cut in cuts]
    rates = _rates(cuts, texts)
    silent, unreadable, repeated_audio = _examine_audio(cuts) if deep else ([], {}, [])
    return Inspection(
        folder=str(folder),
        name=card.get("name", ""),
        fingerprint=card.get("fingerprint", ""),
        total=_amount(cuts),
        languages=_languages(cuts, texts, rates),
        speakers=_amounts(cuts, [_speaker(cut) for cut in cuts]),
        sources=_amounts(cuts, [source_of(cut) for cut in cuts]),
        dropped={**card.get("dropped", {}), **card.get("broken", {})},
        repeated_texts=_repeated(cuts, texts),
        repeated_audio=repeated_audio,
        leaks=find_leaks(cuts, "text"),
        unusual_rate=_unusual(cuts, rates),
        too_long=[_clip(cut, cut.duration) for cut in cuts if cut.duration > LONG_SECONDS],
        too_short=[_clip(cut, cut.duration) for cut in cuts if cut.duration < SHORT_SECONDS],
        silent=silent,
        unreadable=unreadable,
        vocabulary=_vocabulary(texts),
        deep=deep,
    )


def _languages(
    cuts: list["MonoCut"], texts: list[str | None], rates: list[float | None]
) -> list[LanguageRow]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, cut in enumerate(cuts):
        members[language_of(cut)].append(index)
    rows = []
    for language, indices in members.items():
        own = [cuts[index] for index in indices]
        said = [texts[index] for index in indices]
        spoken = [rate for index in indices if (rate := rates[index]) is not None]
        rows.append(
            LanguageRow(
                language=language,
                splits=_amounts(own, [split_of(cut) or "train" for cut in own]),
                total=_amount(own),
                speakers=len({_speaker(cut) for cut in own} - {None}),
                texts=len(set(said) - {None}),
                untranscribed=round(said.count(None) / len(said), 4),
                median_seconds=round(median(cut.duration for cut in own), 2),
                characters_per_second=round(median(spoken), 2) if spoken else None,
            )
        )
    return sorted(rows, key=lambda row: -row.total.hours)


def _examine_audio(cuts: list["MonoCut"]) -> tuple[list[Clip], dict[str, list[str]], list[list[str]]]:
    """Silent clips, and ids: of broken clips by cause, and of clips that sound the same."""
    from isogloss.data.loading import waveform

    silent = []
    broken: dict[str, list[str]] = defaultdict(list)
    same: dict[str, list[str]] = defaultdict(list)
    for cut in cuts:
        try:
            samples = waveform(cut)
        except AudioError as error:
            broken[error.cause].append(cut.id)
            continue
        peak = float(np.abs(samples).max())
        if peak < SILENT_PEAK:
            silent.append(_clip(cut, peak))
        same[hashlib.sha256(samples.tobytes()).hexdigest()].append(cut.id)
    return silent, dict(broken), [ids for ids in same.values() if len(ids) > 1]


def _rates(cuts: list["MonoCut"], texts: list[str | None]) -> list[float | None]:
    """Characters per second of each clip, None without text."""
    return [len(text) / cut.duration if text else None for cut, text in zip(cuts, texts, strict=True)]


def _unusual(cuts: list["MonoCut"], rates: list[float | None]) -> list[Clip]:
    by_language: dict[str, list[float]] = defaultdict(list)
    for cut, rate in zip(cuts, rates, strict=True):
        if rate is not None:
            by_language[language_of(cut)].append(rate)
    low, high = RATE_BAND
    usual = {language: median(values) for language, values in by_language.items()}
    return [
        _clip(cut, rate)
        for cut, rate in zip(cuts, rates, strict=True)
        if rate is not None and not low <= rate / usual[language_of(cut)] <= high
    ]


def _repeated(cuts: list["MonoCut"], texts: list[str | None]) -> int:
    said = [(language_of(cut), text) for cut, text in zip(cuts, texts, strict=True) if text]
    return sum(count for count in Counter(said).values() if count > 1)


def _vocabulary(texts: Iterable[str | None]) -> dict[str, dict[str, int]]:
    """Counts by script; what belongs to no script (digits, marks, space) stands under Common."""
    counts = Counter(character for text in texts if text for character in text)
    by_script: dict[str, dict[str, int]] = defaultdict(dict)
    for character, count in counts.most_common():
        by_script[next(iter(scripts(character)), "Common")][character] = count
    return dict(sorted(by_script.items(), key=lambda item: -sum(item[1].values())))


def _amounts(cuts: Sequence["MonoCut"], keys: Sequence[str | None]) -> dict[str, Amount]:
    members: dict[str, list[MonoCut]] = defaultdict(list)
    for cut, key in zip(cuts, keys, strict=True):
        if key is not None:
            members[key].append(cut)
    amounts = {key: _amount(own) for key, own in members.items()}
    return dict(sorted(amounts.items(), key=lambda item: -item[1].hours))


def _amount(cuts: Sequence["MonoCut"]) -> Amount:
    return Amount(clips=len(cuts), hours=round(sum(cut.duration for cut in cuts) / 3600, 4))


def _clip(cut: "MonoCut", value: float) -> Clip:
    return Clip(id=cut.id, language=language_of(cut), value=round(value, 4))


def _speaker(cut: "MonoCut") -> str | None:
    speaker = speaker_of(cut)
    return f"{source_of(cut)}/{speaker}" if speaker else None


def _plain_text(cut: "MonoCut") -> str | None:
    text = text_of(cut)
    return normalise(text, language_of(cut)) if text is not None else None


def render(inspection: Inspection) -> "RenderableType":
    """The inspection as rich tables for the terminal."""
    from rich.console import Group
    from rich.text import Text

    total = inspection.total
    amount = f"  {counted(total.clips, 'clip')}, {lasting(total.hours * 3600)}"
    title = Text.assemble((printable(inspection.name), "bold"), amount, style="")
    tables = [_language_table(inspection), _amount_table("Source", inspection.sources)]
    if inspection.speakers:
        tables.append(_amount_table("Speaker", inspection.speakers))
    tables += [_vocabulary_table(inspection), _finding_table(inspection)]
    return Group(title, *(part for table in tables for part in ("", table)))


def _language_table(inspection: Inspection) -> "Table":
    table = _table("Language", *SPLITS, "total", "clips", "speakers", "texts", "no text", "median", "char/s")
    for row in inspection.languages:
        rate = row.characters_per_second
        table.add_row(
            row.language,
            *(lasting(row.splits[split].hours * 3600) if split in row.splits else "–" for split in SPLITS),
            lasting(row.total.hours * 3600),
            str(row.total.clips),
            str(row.speakers or "?"),
            str(row.texts),
            f"{row.untranscribed:.0%}",
            f"{row.median_seconds:.1f} s",
            "–" if rate is None else f"{rate:.1f}",
        )
    return table


def _amount_table(what: str, amounts: dict[str, Amount]) -> "Table":
    table = _table(what, "total", "clips", "share")
    hours = sum(amount.hours for amount in amounts.values()) or 1.0
    for name, amount in list(amounts.items())[:SHOWN]:
        table.add_row(_cell(name), lasting(amount.hours * 3600), str(amount.clips), f"{amount.hours / hours:.0%}")
    if len(amounts) > SHOWN:
        table.add_row(f"and {len(amounts) - SHOWN} more", style="dim")
    return table


def _vocabulary_table(inspection: Inspection) -> "Table":
    table = _table("Script", "characters", "seldom", "from common to rare", left=("from common to rare",))
    for script, counts in inspection.vocabulary.items():
        seldom = sum(count < 5 for count in counts.values())
        # A combining mark alone would fall onto the character before it.
        shown = " ".join(f"◌{c}" if not c.isalnum() and not c.isascii() else c for c in counts if c != " ")
        table.add_row(script, str(len(counts)), str(seldom), _cell(shown[:80]))
    return table


def _finding_table(inspection: Inspection) -> "Table":
    table = _table("Worth a look", "clips", "examples", left=("examples",))
    low, high = RATE_BAND
    clips = {
        f"rate outside {low:g}–{high:g} × median": inspection.unusual_rate,
        f"longer than {LONG_SECONDS:g} s": inspection.too_long,
        f"shorter than {SHORT_SECONDS:g} s": inspection.too_short,
        "silent": inspection.silent,
    }
    rows = {what: (len(found), [clip.id for clip in found]) for what, found in clips.items()}
    rows["same text as another clip"] = (inspection.repeated_texts, [])
    rows["same audio as another clip"] = (
        sum(map(len, inspection.repeated_audio)),
        [" = ".join(ids) for ids in inspection.repeated_audio],
    )
    rows["text in several splits"] = (len(inspection.leaks), inspection.leaks)
    rows |= {f"unreadable: {cause}": (len(ids), ids) for cause, ids in inspection.unreadable.items()}
    rows |= {f"left out when prepared: {rule}": (count, []) for rule, count in inspection.dropped.items()}
    not_examined = () if inspection.deep else ("silent", "same audio as another clip")
    for what, (count, shown) in rows.items():
        number = "not looked" if what in not_examined else str(count)
        table.add_row(what, number, _cell(", ".join(shown[:3])[:80]), style="" if count else "dim")
    return table


def _table(first: str, *others: str, left: tuple[str, ...] = ()) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=name not in left)
    return table


def _cell(said: str) -> "Text":
    """What comes from the data: neither rich nor the terminal may take it for more than text."""
    from rich.text import Text

    return Text(printable(said))
