"""Tiers: what annotation tools call a row of labelled stretches, often one for each speaker."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations, pairwise
from pathlib import Path

from isogloss.data.finding import Aside
from isogloss.data.manifests import examples
from isogloss.errors import IsoglossError

ROUNDING = 0.05  # seconds by which stretches of one tier may overlap
# Tiers that aligners write: the parts of what another tier or a transcript says.
ALIGNMENTS = {"word", "words", "phone", "phones", "phoneme", "phonemes", "syllable", "syllables"}
ALIGNMENTS |= {"mau", "ort-mau", "kan-mau"}
# What people call a tier that is named after no speaker.
NOBODY = {"", "default", "text", "transcript", "transcription", "transcriptions", "orthography", "ort", "speech"}
NOBODY |= {"utterance", "utterances", "sentence", "sentences", "phrase", "phrases", "segments", "labels"}


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a recording, in seconds; name: its own within its file."""

    name: str
    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Tier:
    """The segments of one row. kind: what ELAN calls its linguistic type.

    is_transcript: whether it may be taken unasked, because it is no part or gloss of another tier.
    """

    name: str
    segments: list[Segment]
    speaker: str | None = None
    language: str | None = None
    kind: str = ""
    is_transcript: bool = True


def speaker_named(tier: str) -> str | None:
    """Whom a tier is named after, if after anybody: Ana of `Ana` and of `tx@Ana`."""
    name = tier.rpartition("@")[2].strip()
    return None if name.casefold() in NOBODY else name


def is_alignment(tier: str) -> bool:
    """Whether a tier is named as aligners name those of words and phones: `phones`, `Ana - words`."""
    return tier.rpartition(" - ")[2].strip().casefold() in ALIGNMENTS


def choose(tiers: Iterable[Tier], wanted: Sequence[str], path: Path, aside: Aside) -> list[Tier]:
    """The tiers to take: those that `wanted` names (`tx@*`; also ELAN's types), else all transcripts.

    The others are put in `aside`. Raises IsoglossError where none is named so, where two label the same stretches,
    which are layers of one transcript and not two speakers, and where the stretches of one overlap.
    """
    tiers = [tier for tier in tiers if tier.segments]
    taken = [tier for tier in tiers if (_is_named(tier, wanted) if wanted else tier.is_transcript)]
    names = ", ".join(dict.fromkeys(tier.name for tier in tiers))
    if wanted and not taken:
        raise IsoglossError(f"{path} has no tier {' or '.join(wanted)}; its tiers are {names or 'all empty'}.")
    for one, other in combinations(() if wanted else taken, 2):
        both = _spans(one) & _spans(other)
        if 2 * len(both) >= min(len(one.segments), len(other.segments)):
            raise IsoglossError(
                f'{path}: the tiers "{one.name}" and "{other.name}" label the same stretches ({_listed(both)}); '
                f"say with --tiers which of {names} are transcripts."
            )
    for tier in taken:
        _require_order(tier, path)
    aside.tiers.update(dict.fromkeys(tier.name for tier in tiers if tier not in taken))
    return taken


def _require_order(tier: Tier, path: Path) -> None:
    """Raise IsoglossError where a stretch ends before it starts, or starts before the one before it ends."""
    stretches = sorted((s for s in tier.segments if s.start != s.end), key=lambda segment: segment.start)
    wrong = [f"{s.name} from {s.start:g} to {s.end:g} s" for s in stretches if s.end < s.start or s.start < 0]
    for one, other in pairwise(stretches):
        if other.start < one.end - ROUNDING:
            wrong.append(f"{other.name} starts at {other.start:g} s, and {one.name} ends at {one.end:g} s")
    if wrong:
        where = f'{path}: in tier "{tier.name}"' if tier.name else f"{path}:"
        raise IsoglossError(f"{where} stretches overlap or run backwards ({examples(wrong)}); mend each.")


def _is_named(tier: Tier, wanted: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in (tier.name, tier.kind) for pattern in wanted)


def _spans(tier: Tier) -> set[tuple[float, float]]:
    return {(round(segment.start, 3), round(segment.end, 3)) for segment in tier.segments}


def _listed(spans: set[tuple[float, float]]) -> str:
    return examples([f"{start:g}–{end:g} s" for start, end in sorted(spans)])
