"""One normalisation of text for training targets and for scoring, in every script.

What stays: letters, digits, **every combining mark** (Indic vowel signs and viramas, Thai tones,
Hebrew and Arabic points unless told otherwise), apostrophes and hyphens inside a word (l'home, într-o),
the interpunct between Latin letters (col·legi), gershayim inside Hebrew acronyms. What goes: case,
punctuation, symbols, emoji, control characters, invisible format characters.

Decisions that a figure depends on; change one and NORMALISER_VERSION must change:

* Canonical composition (NFC), not NFKC: NFKC would take Thai sara am apart and turn ² into 2. Only
  glyph variants of the same letter are folded: full and half width, Arabic presentation forms,
  Latin and Armenian ligatures, long s; and two typing habits that spell a letter with its neighbour's
  code (Romanian ş ţ for ș ț, Arabic ي ك for ی ک in Persian and Urdu).
* Lower case and not case folding: ß stays. Where I is the capital of ı (Turkish, Azerbaijani, … see
  `_DOTLESS_I`) it becomes ı. A dot above that follows an i or j (İ lower-cased, Lithuanian dictionary
  accents) is redundant and goes.
* Every apostrophe becomes ' inside a word. At the edge of a word it is a quotation mark, except in
  the languages where it is a letter (Hawaiian, Hausa, Uzbek, …); the modifier letters ʻ and ʼ stay.
* Hyphens and the maqaf become - inside a word, a space between two digits; dashes become a space.
* ZWJ and ZWNJ go everywhere, because writers use them unevenly (Persian, Sinhala and Bengali look
  different without them, and no letter is lost), after the sequences in which ZWJ spells a letter
  of its own (Malayalam chillus, Bengali khanda ta, Marathi eyelash ra) became that letter.
* Tatweel, soft hyphens, variation selectors, enclosing marks and the Armenian tone marks that stand
  inside a word go without leaving a space.
* A space between two letters of scripts that write no spaces between words (Han, kana, Thai, Lao,
  Khmer, Burmese) stands for punctuation there and goes with it.
* Number punctuation goes as any other: 3.14 becomes 3 14.
"""

import re
import unicodedata
from functools import partial

# The tables of the running Python decide about new characters, so they belong to the version.
NORMALISER_VERSION = f"2/unicode-{unicodedata.unidata_version}"

_APOSTROPHES = "'\u2018\u2019\u201b\u2032\u0060\u00b4\u02b9\u055a\u05f3"
_HYPHENS = "-\u2010\u2011\u058a\u05be"
_INTERPUNCTS = "\u00b7\u2022\u2027\u2219\u22c5\u30fb"

# Languages whose words begin or end with an apostrophe that is a letter.
_EDGE_APOSTROPHE = frozenset({"ha", "haw", "mt", "nv", "sm", "to", "ty", "uz"})
# Languages whose alphabet has the pairs I ı and İ i. az and tr: Unicode's SpecialCasing and CLDR's transforms
# az-Lower and tr-Lower. crh: LC_CTYPE of glibc 2.36 takes Turkish casing over. gag, tkr, tly, ttt, zza: both pairs
# are among their exemplar characters (gflanguages 0.7.11, from CLDR and Hyperglot).
_DOTLESS_I = frozenset({"az", "crh", "gag", "tkr", "tly", "tr", "ttt", "zza"})
# Written in Cyrillic, where a Latin I is a foreign word's; in Latin script they have both pairs too: kk by CLDR's
# kk_Latn, tt by glibc's tt_RU@iqtelif, ba by gflanguages.
_DOTLESS_I_IN_LATIN = frozenset({"ba", "kk", "tt"})
# Dictionaries and readers mark stress with an accent that ordinary spelling leaves out.
_CYRILLIC_STRESS = frozenset({"be", "bg", "mk", "ru", "sr", "uk"})
_ARABIC_FOR_PERSIAN = str.maketrans("يك", "یک")
_TYPING_HABITS = {
    "ro": str.maketrans("ŞşŢţ", "ȘșȚț"),
    "fa": _ARABIC_FOR_PERSIAN,
    "ur": _ARABIC_FOR_PERSIAN,
}

# Format characters go by category; these are ignorable by default, or mere elongation or intonation.
_IGNORED = (
    {0x034F, 0x055B, 0x055C, 0x055E, 0x055F, 0x0640, 0x07FA, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}
    | set(range(0x180A, 0x1810))
    | set(range(0xFE00, 0xFE10))
    | set(range(0xE0000, 0xE1000))
)
# Spoken, though Unicode files them as symbols or punctuation: ' and its like are decided in context,
# tone letters (bopomofo ˙, IPA ˥), and the Burmese particles written as one sign.
_KEPT = {
    *map(ord, "ʻʼ״˙"),
    *range(0x02E5, 0x02EC),
    *range(0xA700, 0xA722),
    *range(0x104C, 0x1050),
}
_GLYPH_VARIANTS = ("<wide>", "<narrow>", "<initial>", "<medial>", "<final>", "<isolated>")
_JOINER_LETTERS = {
    "\u0d23\u0d4d\u200d": "\u0d7a",
    "\u0d28\u0d4d\u200d": "\u0d7b",
    "\u0d30\u0d4d\u200d": "\u0d7c",
    "\u0d32\u0d4d\u200d": "\u0d7d",
    "\u0d33\u0d4d\u200d": "\u0d7e",
    "\u0d15\u0d4d\u200d": "\u0d7f",
    "\u09a4\u09cd\u200d": "\u09ce",
    "\u0930\u094d\u200d": "\u0931\u094d",
}

# Lookbehinds stand after the character they are about: a pattern that begins with a plain class is
# several times faster.
# Not as the second half of a conjunct (ണ്ണ്): there a joiner is a slip of the keyboard.
_JOINER_LETTER = re.compile(f"(?:{'|'.join(_JOINER_LETTERS)})(?<![\u0d4d\u09cd]...)")
_POINTS = re.compile(  # Madda and hamza (0653-0655) are parts of letters and no points.
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff]"
)
_STRESS = re.compile("[\u0300\u0301]")
_REDUNDANT_DOT = re.compile("\u0307(?<=[ijįɨʝịіј]\u0307)\u0307*")
_HEBREW_ACRONYM = re.compile('["\u201d](?<=[א-ת].)(?=[א-ת])')
_NOT_LATIN_INTERPUNCT = re.compile("·(?:(?<![a-zß-öø-ɏ]·)|(?![a-zß-öø-ɏ]))")
_DIGIT_HYPHEN = re.compile(r"-(?<=\d-)(?=\d)")
_ANY_LETTER_APOSTROPHE = re.compile("[ʻʼ]")
_INNER_LETTER_APOSTROPHE = re.compile("[ʻʼ](?<=[^ '·״ʻʼ-].)(?=[^ '·״ʻʼ-])")
_EDGES = re.compile("['·״-](?:['·״-]+|(?<![^ ].)|(?![^ ]))")
_EDGES_BUT_APOSTROPHE = re.compile("['·״-]['·״-]+|[·״-](?:(?<![^ ].)|(?![^ ]))|'(?<![^ ].)(?![^ ])")
_UNSPACED = (
    "[\u0e01-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u103f\u104c-\u108f\u1780-\u17d3\u17d7"
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_UNSPACED_GAP = re.compile(f" (?<={_UNSPACED} )(?={_UNSPACED})")

_nfc = partial(unicodedata.normalize, "NFC")


def normalise(text: str, language: str | None = None, *, keep_points: bool = True) -> str:
    """Normalised text, single-spaced; an empty string if nothing is left.

    Idempotent for a given `language` and `keep_points`.
    language: a canonical BCP 47 tag; decides what depends on the language in the list above.
    keep_points: False drops Hebrew and Arabic points and, for a Cyrillic language, stress accents.
    """
    base = language.partition("-")[0] if language else ""
    text = _JOINER_LETTER.sub(lambda match: _JOINER_LETTERS[match[0]], _nfc(text))
    text = _HEBREW_ACRONYM.sub("״", text)
    text = _nfc(text.translate(_CHARACTERS)).translate(_TYPING_HABITS.get(base, {}))
    if not keep_points:
        text = _drop_points(text, base)
    text = _lower(text, _has_dotless_i(base, language))
    text = _inside_words(text, base)
    return _nfc(_UNSPACED_GAP.sub("", " ".join(text.split())))


class _Characters(dict[int, str]):
    """What becomes of each code point; filled as code points are met, so `str.translate` stays fast."""

    def __missing__(self, code: int) -> str:
        self[code] = result = _translate(code)
        return result


_CHARACTERS = _Characters(
    dict.fromkeys(map(ord, _APOSTROPHES), "'")
    | dict.fromkeys(map(ord, _HYPHENS), "-")
    | dict.fromkeys(map(ord, _INTERPUNCTS), "·")
    | {0x013F: "L·", 0x0140: "l·", 0x017F: "s"}
)


def _translate(code: int) -> str:
    character = chr(code)
    category = unicodedata.category(character)
    if code in _IGNORED or category in ("Cf", "Me"):
        return ""
    kind, *parts = unicodedata.decomposition(character).split() or [""]
    if kind in _GLYPH_VARIANTS or (kind == "<compat>" and 0xFB00 <= code <= 0xFB1F):
        # Isolated marks decompose to a space and the mark; the space is only their carrier.
        parts = parts[1:] if parts[0] == "0020" and len(parts) > 1 else parts
        return "".join(_CHARACTERS[int(part, 16)] for part in parts)
    letter = category[0] in "LMN" or code in _KEPT
    return character if letter or _may_be_newer_letter(code, category) else " "


def _may_be_newer_letter(code: int, category: str) -> bool:
    """Unassigned here, perhaps a letter of a newer Unicode than this Python's; no emoji, no noncharacter."""
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code < 0xFDF0
    return category == "Cn" and not noncharacter and not 0x1F000 <= code < 0x20000


def _drop_points(text: str, language: str) -> str:
    text = _POINTS.sub("", text)
    if language in _CYRILLIC_STRESS:  # After NFC: й, ё, ѝ and ќ are single characters and stay.
        text = _STRESS.sub("", text)
    return _nfc(text)


def _has_dotless_i(base: str, language: str | None) -> bool:
    return base in _DOTLESS_I or (base in _DOTLESS_I_IN_LATIN and "-Latn" in str(language))


def _lower(text: str, dotless_i: bool) -> str:
    if dotless_i:
        text = text.replace("İ", "i").replace("I", "ı")
    return _nfc(_REDUNDANT_DOT.sub("", _nfc(text.lower())))


def _inside_words(text: str, language: str) -> str:
    """Keep ' - · ״ where they join what stands on both sides; elsewhere they are punctuation."""
    text = _DIGIT_HYPHEN.sub(" ", _NOT_LATIN_INTERPUNCT.sub(" ", text))
    if language in _EDGE_APOSTROPHE:
        return _EDGES_BUT_APOSTROPHE.sub(" ", _ANY_LETTER_APOSTROPHE.sub("'", text))
    return _EDGES.sub(" ", _INNER_LETTER_APOSTROPHE.sub("'", text))
