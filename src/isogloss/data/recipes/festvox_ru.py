"""festvox-ru: one man reads 620 Russian sentences; the only corpus here with a phone alignment.

etc/txt.done.data   ( ru_0002 "Она завела, прядь волнистых вол+ос за ухо, …" )   + marks stress
lab/ru_0002.lab     #  then one `END 125 PHONE` a line, END in seconds
wav/ru_0002.wav     16 kHz
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import existing, seconds

_VOICE = Path("festvox-ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits")
_LINE = re.compile(r'\( *(\S+) +"(.*)" *\)')


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield the 620 sentences with stress marks stripped; a sentence's wav must hold its phones."""
    voice = existing(root / _VOICE)
    lines = (voice / "etc/txt.done.data").read_text(encoding="utf-8").splitlines()
    for name, text in (match.groups() for match in map(_LINE.match, lines) if match):
        audio = voice / "wav" / f"{name}.wav"
        length = seconds(audio, dropped)
        if length is None:
            continue
        yield Utterance(
            id=name,
            audio=audio,
            language="ru",
            source="festvox-ru",
            text=text.replace("+", ""),
            speaker="festvox-ru-ru",
            phones=_phones(voice / "lab" / f"{name}.lab", length),
        )


def _phones(path: Path, length: float) -> tuple[tuple[float, float, str], ...]:
    """(start, duration, phone): each phone starts where the one before ended, the last within the file."""
    phones = []
    start = 0.0
    for fields in (line.split() for line in path.read_text(encoding="utf-8").splitlines()):
        if len(fields) == 3:
            end = min(float(fields[0]), length)
            if end > start:
                phones.append((start, end - start, fields[2]))
                start = end
    return tuple(phones)
