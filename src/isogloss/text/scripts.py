"""Which scripts a text is written in, from the names of its characters."""

import re
import unicodedata
from functools import cache

_SCRIPT_WORDS = re.compile(
    r"(?P<script>.+?) (?:SMALL|CAPITAL|LETTER|SYLLABLE|SYLLABICS|VOWEL|INDEPENDENT|SIGN|IDEOGRAPH|UNIFIED|"
    r"COMPATIBILITY|LIGATURE|CHARACTER|HIEROGLYPH|CONSONANT|PHASE|SUBJOINED)\b"
)
_COMMON_NAMES = {"CJK": "Han", "IDEOGRAPHIC": "Han", "CANADIAN": "Canadian Aboriginal"}


def scripts(text: str) -> set[str]:
    """The scripts of the letters of a text by their Unicode names: {"Latin", "Cyrillic"}.

    Marks, modifier letters, digits and punctuation belong to no script here; a letter that this
    Python's Unicode tables do not name, or a private-use character, is "Unknown".
    """
    return {script for script in map(_script, set(text)) if script}


@cache
def _script(character: str) -> str | None:
    category = unicodedata.category(character)
    if category[0] != "L" or category == "Lm":
        return "Unknown" if category in ("Cn", "Co") else None
    # Compatibility and lower-case forms carry the plain names: ohm sign, mathematical bold, Mtavruli.
    plain = unicodedata.normalize("NFKC", character).lower()
    name = unicodedata.name(plain if len(plain) == 1 else character, "UNKNOWN")
    match = _SCRIPT_WORDS.match(name)
    script = match["script"] if match else name.split()[0]
    return _COMMON_NAMES.get(script, script.title())
