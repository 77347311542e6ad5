"""KTuberling: the names of things, with ids that all languages share.

sounds/LANG.soundtheme    <sound name="hat" file="fr/patate_chapeau.wav"/>
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import FirstOf, existing, language_tag, safe_id

_SOUNDS = Path("ktuberling-data/usr/share/ktuberling/sounds")


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield each recording once, under its first name; untranscribed, with the name as concept.

    dropped: missing (listed and not in the package, as all of id), identical audio (among it the same
    Serbian recordings under four written varieties, of which `sr` comes first).
    """
    sounds = existing(root / _SOUNDS)
    first = FirstOf(dropped)
    for index in sorted(sounds.glob("*.soundtheme")):
        language = language_tag(index.stem)
        for sound in ElementTree.parse(index).iter("sound"):
            audio = sounds / sound.get("file", "")
            if not audio.is_file():
                dropped["missing"] += 1
            elif first(audio):
                yield Utterance(
                    id=safe_id(audio.relative_to(sounds).with_suffix("").as_posix()),
                    audio=audio,
                    language=language,
                    source="ktuberling",
                    speaker=f"ktuberling-{language}",
                    concept=sound.get("name"),
                )
