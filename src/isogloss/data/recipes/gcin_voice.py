"""gcin-voice: the syllables of Mandarin, each spoken by two people.

ogg/ㄅㄚ3/{3,5}.ogg    the folder is the bopomofo spelling with the tone (none: first tone)
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import existing, files, safe_id

_SYLLABLES = Path("gcin-voice/usr/share/gcin-voice/ogg")


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield every syllable; untranscribed (a syllable is not a written word), the spelling as concept."""
    syllables = existing(root / _SYLLABLES)
    for audio in files(syllables, "*.ogg"):
        yield Utterance(
            id=safe_id(f"{audio.parent.name}/{audio.stem}"),
            audio=audio,
            language="zh",
            source="gcin-voice",
            speaker=f"gcin-voice-{audio.stem}",
            concept=audio.parent.name,
        )
