"""ELAN's documents (.eaf): tiers of annotations, whose times lie in slots or are those of a parent's annotation."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from isogloss.data.tiers import Segment, Tier, is_alignment, speaker_named
from isogloss.errors import IsoglossError

ALIGNED, REFERRING = "ALIGNABLE_ANNOTATION", "REF_ANNOTATION"
ENDS = ("TIME_SLOT_REF1", "TIME_SLOT_REF2")


class Document:
    """A parsed document.

    Raises IsoglossError with the line for broken XML, and with the annotation for what has no time.
    """

    def __init__(self, path: Path):
        self.path = path
        root = _parse(path)
        header = root.find("HEADER")
        units = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
        if units != "milliseconds":
            raise IsoglossError(f"{path} counts time in {units}; save it in milliseconds, as ELAN does today.")
        self._media = list(root.iter("MEDIA_DESCRIPTOR"))
        self._slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
        self._times = {slot: self._seconds(time) for slot, time in self._slots.items() if time}
        self._tiers = {tier.get("TIER_ID", ""): tier for tier in root.iter("TIER")}
        items = (item for item in root.iter() if item.tag in (ALIGNED, REFERRING))
        self._annotations = {item.get("ANNOTATION_ID"): item for item in items}
        for tier in self._tiers.values():
            self._spread(tier)

    def media(self) -> Iterator[Path]:
        """Where the recordings may lie: as the document says, or beside it."""
        for item in self._media:
            relative, absolute = (_plain(item.get(name) or "") for name in ("RELATIVE_MEDIA_URL", "MEDIA_URL"))
            if relative:
                yield Path(os.path.normpath(self.path.parent / relative))
            if absolute:
                yield from (Path(absolute), self.path.parent / PureWindowsPath(absolute).name)

    def origin(self, recording: Path) -> float:
        """The second of a recording at which the document begins to count."""
        for item in self._media:
            if PureWindowsPath(_plain(item.get("MEDIA_URL") or "")).name == recording.name:
                return self._seconds(item.get("TIME_ORIGIN") or "0")
        return 0.0

    def tiers(self) -> list[Tier]:
        """All tiers, in the order of the document."""
        return [self._read(name, tier) for name, tier in self._tiers.items()]

    def _spread(self, tier: Element) -> None:
        """Give slots without a time one between their neighbours', evenly, as ELAN draws them."""
        named = dict.fromkeys(item.get(end) for item in tier.iter(ALIGNED) for end in ENDS)
        slots = [slot for slot in named if slot in self._slots]
        for left, right in pairwise(n for n, slot in enumerate(slots) if slot in self._times):
            start, end = self._times[slots[left]], self._times[slots[right]]
            for n in range(left + 1, right):
                self._times[slots[n]] = start + (end - start) * (n - left) / (right - left)

    def _read(self, name: str, tier: Element) -> Tier:
        family = list(self._family(tier))
        participant = next(filter(None, (member.get("PARTICIPANT") for member in family)), None)
        return Tier(
            name=name,
            segments=self._segments(tier),
            speaker=participant or speaker_named(family[-1].get("TIER_ID", "")),
            language=tier.get("LANG_REF"),
            kind=tier.get("LINGUISTIC_TYPE_REF", ""),
            is_transcript=tier.get("PARENT_REF") is None and not is_alignment(name),
        )

    def _family(self, tier: Element) -> Iterator[Element]:
        """A tier, its parent, and so on."""
        seen: list[Element] = []
        found: Element | None = tier
        while found is not None and found not in seen:
            seen.append(found)
            yield found
            found = self._tiers.get(found.get("PARENT_REF", ""))

    def _segments(self, tier: Element) -> list[Segment]:
        """Of several annotations that refer to one stretch (its words) one segment is made."""
        grouped: dict[str, list[Element]] = {}
        for item in tier.iter():
            if item.tag in (ALIGNED, REFERRING):
                grouped.setdefault(self._owner(item).get("ANNOTATION_ID", ""), []).append(item)
        return [self._segment(self._annotations[owner], items) for owner, items in grouped.items()]

    def _segment(self, owner: Element, items: list[Element]) -> Segment:
        start, end = (self._time(owner, end) for end in ENDS)
        words = (item.findtext("ANNOTATION_VALUE") or "" for item in items)
        return Segment(items[0].get("ANNOTATION_ID", ""), start, end, " ".join(words))

    def _owner(self, item: Element) -> Element:
        """The annotation that has the time of this one."""
        seen: list[Element] = []
        found: Element | None = item
        while found is not None and found.tag == REFERRING and found not in seen:
            seen.append(found)
            found = self._annotations.get(found.get("ANNOTATION_REF"))
        if found is None or found.tag == REFERRING:
            raise IsoglossError(
                f'{self.path}: the annotation {item.get("ANNOTATION_ID")} "{item.findtext("ANNOTATION_VALUE") or ""}" '
                "refers to none that has a time; mend it in ELAN."
            )
        return found

    def _time(self, item: Element, end: str) -> float:
        slot = item.get(end)
        if slot not in self._times:
            raise IsoglossError(
                f"{self.path}: the annotation {item.get('ANNOTATION_ID')} has no time at {slot}; align it in ELAN."
            )
        return self._times[slot]

    def _seconds(self, time: str) -> float:
        try:
            return int(time) / 1000
        except ValueError:
            raise IsoglossError(f'{self.path}: the time "{time}" is no number of milliseconds; mend it.') from None


def _plain(url: str) -> str:
    """The path that a file:// address means."""
    return unquote(url.removeprefix("file://"))


def _parse(path: Path) -> Element:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise IsoglossError(
            f"{path}, line {error.position[0]}: broken XML ({str(error).partition(':')[0]}); mend it or save it again."
        ) from None
    except (LookupError, ValueError) as error:
        raise IsoglossError(f"{path} is in an encoding that cannot be read ({error}); save it as UTF-8.") from None
    if root.tag != "ANNOTATION_DOCUMENT":
        raise IsoglossError(f"{path} is no document of ELAN, but <{root.tag}>.")
    return root
