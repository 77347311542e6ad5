"""PocketSphinx test data: fourteen short English recordings, small enough for tests.

librivox/NAME.wav, cards/NAME.wav     `<s> words </s> (NAME)` in a transcription file beside it
*.raw, tidigits/*.raw                 headerless 16-bit little-endian at 16 kHz
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import converted, existing, files

_DATA = Path("pocketsphinx-testdata/usr/share/pocketsphinx/test/data")
_LINE = re.compile(r"<s> (.+?) *</s> \((.+)\)")
_TRANSCRIPTS = {"librivox": "librivox/transcription", "cards": "cards/cards.transcription"}
_RAW_TEXTS = {"goforward": "go forward ten meters", "dhd.2934z": "two nine three four zero"}


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield the recordings; two of the headerless ones have no transcript."""
    data = existing(root / _DATA)
    for folder, transcript in _TRANSCRIPTS.items():
        for text, name in _LINE.findall((data / transcript).read_text(encoding="utf-8")):
            yield _utterance(f"{folder}/{name}", data / folder / f"{name}.wav", folder, text)
    for raw in files(data, "*.raw"):
        name = f"raw/{raw.stem}"
        flac = converted(scratch, name, partial(_samples, raw), dropped)
        if flac:
            yield _utterance(name, flac, "raw", _RAW_TEXTS.get(raw.stem))


def _samples(raw: Path) -> np.ndarray:
    return np.fromfile(raw, dtype="<i2").astype(np.float32) / 32768


def _utterance(name: str, audio: Path, folder: str, text: str | None) -> Utterance:
    return Utterance(
        id=name,
        audio=audio,
        language="en",
        source="pocketsphinx-testdata",
        text=text,
        speaker=f"pocketsphinx-testdata-{folder}",
    )
