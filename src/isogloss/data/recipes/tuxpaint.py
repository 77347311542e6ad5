"""Tux Paint stamps: captions of small pictures, read aloud in fourteen languages, written in 78.

    …/NAME_desc[_LANG].ogg    the caption spoken (no LANG: English); NAME.ogg is a sound effect
    …/NAME.txt                line 1 the English caption, then LANG.utf8=CAPTION

Captions recur across languages and stamps, so splits must be disjoint in text.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import FirstOf, existing, files, language_tag, safe_id, seconds

_STAMPS = Path("tuxpaint-stamps-default/usr/share/tuxpaint/stamps")
_AUDIO = re.compile(r"(.+)_desc(?:_([a-z]{2,3}(?:_[A-Z]{2})?))?\.(?:ogg|wav)")
_CAPTION = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?(?:@[a-z]+)?)\.utf8=(.*)")
RATES = (0.4, 1.8)  # times the language's median of characters per second


@dataclass(frozen=True, slots=True)
class _Clip:
    utterance: Utterance
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.utterance.text or "") / self.seconds


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield distinct captions; those without text in their language are yielded untranscribed.

    dropped: identical audio (byte for byte, per language), speaking rate (outside 0.4-1.8 times the
    language's median of characters per second: some captions were shortened when spoken).
    """
    first = FirstOf(dropped)
    # Of identical files those with text come first, so that a copy without text is the one that goes.
    spoken = sorted(_spoken(existing(root / _STAMPS), dropped), key=lambda utterance: utterance.text is None)
    clips = [
        _Clip(utterance, length)
        for utterance in spoken
        if first(utterance.audio, utterance.language) and (length := seconds(utterance.audio, dropped))
    ]
    yield from _at_plausible_rates(clips, dropped)


def _spoken(stamps: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    captions: dict[Path, dict[str, str]] = {}
    for audio in files(stamps, "*_desc*"):
        match = _AUDIO.fullmatch(audio.name)
        if match is None:
            dropped["not a caption"] += 1
            continue
        path = audio.with_name(f"{match[1]}.txt")
        if path not in captions:
            captions[path] = _captions(path)
        yield _utterance(audio, stamps, language_tag(match[2] or "en"), captions[path])


def _utterance(audio: Path, stamps: Path, language: str, captions: dict[str, str]) -> Utterance:
    return Utterance(
        id=safe_id(audio.relative_to(stamps).with_suffix("").as_posix()),
        audio=audio,
        language=language,
        source="tuxpaint",
        text=captions.get(language),
        speaker=f"tuxpaint-{language}",
        translations={tag: text for tag, text in captions.items() if tag != language},
    )


def _captions(path: Path) -> dict[str, str]:
    """{language: caption} of one NAME.txt; empty where there is no such file."""
    if not path.is_file():
        return {}
    english, *others = path.read_text(encoding="utf-8").splitlines() or [""]
    captions = {"en": english.strip()}
    for match in filter(None, map(_CAPTION.fullmatch, others)):
        captions[language_tag(match[1])] = match[2].strip()
    return {language: text for language, text in captions.items() if text}


def _at_plausible_rates(clips: list[_Clip], dropped: Counter[str]) -> Iterator[Utterance]:
    rates: dict[str, list[float]] = {}
    for clip in clips:
        if clip.utterance.text:
            rates.setdefault(clip.utterance.language, []).append(clip.rate)
    middle = {language: median(values) for language, values in rates.items()}
    slow, fast = RATES
    for clip in clips:
        usual = middle.get(clip.utterance.language, 0.0)
        if clip.utterance.text and not slow * usual <= clip.rate <= fast * usual:
            dropped["speaking rate"] += 1
        else:
            yield clip.utterance
