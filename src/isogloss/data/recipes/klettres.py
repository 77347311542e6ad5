"""KLettres: letters and syllables in twenty languages, with long silences around them.

klettres/LANG/sounds.xml    <sound name="ക" file="ml/alpha/ka.ogg"/>
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.audio.reading import read as read_audio
from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import FirstOf, existing, language_tag, safe_id
from isogloss.errors import AudioError

_SOUNDS = Path("klettres-data/usr/share/klettres")
FRAME = 0.01  # seconds
FLOOR = 0.01  # of the loudest frame's power: 20 dB below it
MARGIN = 0.15  # seconds kept on both sides, so that soft consonants stay


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield each recording once, silence trimmed; the first name stands where a file is listed twice.

    dropped: missing (listed and not in the package, as all of id and nn), identical audio.
    """
    sounds = existing(root / _SOUNDS)
    first = FirstOf(dropped)
    for index in sorted(sounds.glob("*/sounds.xml")):
        language = language_tag(index.parent.name)
        for sound in ElementTree.parse(index).iter("sound"):
            audio = sounds / sound.get("file", "")
            if not audio.is_file():
                dropped["missing"] += 1
            elif first(audio) and (span := _speech(audio, dropped)):
                yield Utterance(
                    id=safe_id(audio.relative_to(sounds).with_suffix("").as_posix()),
                    audio=audio,
                    language=language,
                    source="klettres",
                    text=sound.get("name"),
                    start=span[0],
                    duration=span[1],
                    speaker=f"klettres-{language}",
                )


def _speech(audio: Path, dropped: Counter[str]) -> tuple[float, float] | None:
    try:
        return trimmed(read_audio(audio))
    except AudioError as error:
        dropped[error.cause] += 1
        return None


def trimmed(waveform: np.ndarray) -> tuple[float, float]:
    """Start and duration in seconds of what is loud in a 16 kHz waveform (S,), with a margin around it."""
    size = round(FRAME * SAMPLE_RATE)
    if len(waveform) < size:
        return 0.0, len(waveform) / SAMPLE_RATE
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power >= FLOOR * power.max())
    margin = round(MARGIN * SAMPLE_RATE)
    begin = max(0, int(loud[0]) * size - margin)
    end = min(len(waveform), (int(loud[-1]) + 1) * size + margin)
    return begin / SAMPLE_RATE, (end - begin) / SAMPLE_RATE
