"""What normalisation keeps and drops, script by script."""

import unicodedata

import pytest

from isogloss.text.normalise import NORMALISER_VERSION, normalise
from isogloss.text.scripts import scripts

# Ordinary words full of marks (categories Mn and Mc), which a \w-based normaliser tears apart.
MARKED = {
    "hi": "हिन्दी में क़लम",
    "bn": "বাংলা ভাষার কথা",
    "pa": "ਪੰਜਾਬੀ ਬੋਲੀ ਸਿੱਖ",
    "gu": "ગુજરાતી ભાષા",
    "or": "ଓଡ଼ିଆ ଭାଷା",
    "ta": "தமிழ் மொழி",
    "te": "తెలుగు భాష",
    "kn": "ಕನ್ನಡ ಭಾಷೆ",
    "ml": "മലയാളം ഭാഷ",
    "si": "සිංහල භාෂාව",
    "th": "ที่นี่น้ำแข็ง",
    "lo": "ພາສາລາວຢູ່ນີ້",
    "my": "မြန်မာဘာသာ",
    "km": "ភាសាខ្មែរ",
    "bo": "བོད་སྐད",
    "he": "שָׁלוֹם",
    "ar": "العَرَبِيَّةُ",
    "dv": "ދިވެހި",
}


def marks(text: str) -> list[str]:
    return [c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) in ("Mn", "Mc")]


@pytest.mark.parametrize("language", MARKED)
def test_every_mark_stays(language: str) -> None:
    text = MARKED[language]
    assert len(marks(text)) >= 2
    assert marks(normalise(f"«{text}!»", language)) == marks(text)


@pytest.mark.parametrize("language", sorted(MARKED.keys() - {"bo"}))
def test_words_of_marked_scripts_stay_whole(language: str) -> None:
    assert normalise(MARKED[language], language) == unicodedata.normalize("NFC", MARKED[language])


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Într-o zi, S-A dus!", "ro", "într-o zi s-a dus"),
        ("Ştiinţă", "ro", "știință"),
        ("L’home d’una COL·LEGI, xaraŀlel", "ca", "l'home d'una col·legi xaral·lel"),
        ("п’ять п'ять пʼять", "uk", "п'ять п'ять п'ять"),
        ("Сям’я ў хаце", "be", "сям'я ў хаце"),
        ("'quoted' ‘quoted’ rock 'n' roll", "en", "quoted quoted rock n roll"),
        ("ʻŌlelo Hawai‘i ‘ōlelo", "haw", "'ōlelo hawai'i 'ōlelo"),
        ("Straße GROẞ", "de", "straße groß"),
        ("İstanbul IĞDIR", "tr", "istanbul ığdır"),
        ("İstanbul IGDIR", "en", "istanbul igdir"),
        ("Ėjo Į̇́ i̇̀", "lt", "ėjo į́ ì"),
        ("ΟΔΟΣ, Άνθρωπος", "el", "οδος άνθρωπος"),
        ('צה"ל, ג׳ורג בית־ספר "כן"', "he", "צה״ל ג'ורג בית-ספר כן"),
        ("كتابي می‌خواهم", "fa", "کتابی میخواهم"),
        ("كتابي", "ar", "كتابي"),
        ("العـــربية", "ar", "العربية"),
        ("ﬁne ＡＢＣ　１２ ſo ﺍﻟﺴﻼﻡ", None, "fine abc 12 so السلام"),
        ("ﾊﾟｿｺﾝ", "ja", "パソコン"),
        ("你好，世界！马克·吐温", "zh", "你好世界马克吐温"),
        ("กำลัง ไป 10 คน", "th", "กำลังไป 10 คน"),
        ("ന്\u200d ൻ ഫോര്\u200dക്ക്", "ml", "ൻ ൻ ഫോർക്ക്"),
        ("കണ്ണ്\u200d ടി\u200c", "ml", "കണ്ണ് ടി"),
        ("ত্‍", "bn", "ৎ"),
        ("ինչո՞ւ, այո։", "hy", "ինչու այո"),
        ("၏ ၌", "my", "၏၌"),
        ("ㄇㄚ˙ tæ˥˩", None, "ㄇㄚ˙ tæ˥˩"),
        ("1990-1995 F-16 3.14 x²", "en", "1990 1995 f-16 3 14 x²"),
        ("so\u00adft ze\u200bro 👍🏽 1\ufe0f\u20e3 e\u0301", "en", "soft zero 1 é"),
        ("a -- b - c-", None, "a b c"),
        ("— … ! 🎉", None, ""),
        ("\ud800 lone\ufffd\x00tab\there", None, "lone tab here"),
    ],
)
def test_examples(text: str, language: str | None, expected: str) -> None:
    assert normalise(text, language) == expected


def test_a_region_or_script_does_not_hide_the_language() -> None:
    assert normalise("I", "tr-TR") == "ı"
    assert normalise("I", "az-Latn") == "ı"


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("שָׁלוֹם", "he", "שלום"),
        ("العَرَبِيَّةُ", "ar", "العربية"),
        ("أُؤمِنُ آ", "ar", "أؤمن آ"),
        ("о́кна всё мой Ѝ", "ru", "окна всё мой ѝ"),
        ("café हिन्दी", "fr", "café हिन्दी"),
    ],
)
def test_points_go_only_by_option(text: str, language: str, expected: str) -> None:
    assert normalise(text, language, keep_points=False) == expected
    kept = normalise(text, language)
    assert marks(kept) == marks(text)


@pytest.mark.parametrize("language", ["tr", "az", "az-Cyrl", "crh", "gag", "zza", "kk-Latn", "tt-Latn", "ba-Latn-RU"])
def test_i_has_two_pairs_in_turkic_alphabets(language: str) -> None:
    assert normalise("QIRIM İzmir I\u0307", language) == "qırım izmir i"


@pytest.mark.parametrize("language", ["kk", "tt", "ba", "uz", "tk", "ku", "en", None])
def test_and_one_elsewhere(language: str | None) -> None:
    assert normalise("IBM", language) == "ibm"


def test_the_version_names_the_unicode_tables() -> None:
    assert NORMALISER_VERSION.endswith(unicodedata.unidata_version)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, мир 12!", {"Latin", "Cyrillic"}),
        ("你好 ひらがな カタカナ 한국어", {"Han", "Hiragana", "Katakana", "Hangul"}),
        ("हिन्दी ქართული ᲥᲐᲠ ᐃᓄᒃ", {"Devanagari", "Georgian", "Canadian Aboriginal"}),
        ("ＡＢ 𝐀 Ω", {"Latin", "Greek"}),
        ("1, 2 — 3!", set()),
        ("\ue000", {"Unknown"}),
    ],
)
def test_scripts(text: str, expected: set[str]) -> None:
    assert scripts(text) == expected
