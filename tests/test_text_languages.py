"""One canonical tag for every way to write a language."""

import subprocess
import sys

import pytest

from isogloss.errors import IsoglossError
from isogloss.text.languages import language_name, normalise_language


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ro", "ro"),
        ("ron", "ro"),
        ("rum", "ro"),
        ("ROMANIAN", "ro"),
        ("RO", "ro"),
        ("ro-RO", "ro"),
        ("ro_RO", "ro"),
        ("ro-Latn-RO", "ro"),
        ("ro-MD", "ro-MD"),
        ("en_US", "en"),
        ("en-GB", "en-GB"),
        ("zh-CN", "zh"),
        ("zh-TW", "zh-TW"),
        ("zh-Hant-TW", "zh-TW"),
        ("zh-Hant", "zh-Hant"),
        ("sr-Cyrl-RS", "sr"),
        ("sr-Latn-RS", "sr-Latn"),
        ("sr-ME", "sr-ME"),
        ("uz-Cyrl-UZ", "uz-Cyrl"),
        ("kk-Latn", "kk-Latn"),
        ("pt-PT", "pt-PT"),
        ("pt", "pt"),
        ("pt-Latn-BR", "pt-BR"),
        ("European Portuguese", "pt-PT"),
        ("ca-ES-valencia", "ca-valencia"),
        ("und-Latn", "und-Latn"),
        ("pt_BR", "pt-BR"),
        ("PT-br", "pt-BR"),
        ("Brazilian Portuguese", "pt-BR"),
        ("sr_latn", "sr-Latn"),
        ("sh", "sr-Latn"),
        ("iw", "he"),
        ("cmn_hans_cn", "zh"),
        ("arb", "ar"),
        ("Mandarin", "zh"),
        ("Farsi", "fa"),
        ("Thai", "th"),
        (" Scottish Gaelic ", "gd"),
        ("yue", "yue"),
        ("be-tarask", "be-tarask"),
        ("und", "und"),
    ],
)
def test_canonical_tag(given: str, expected: str) -> None:
    assert normalise_language(given) == expected
    assert normalise_language(expected) == expected


@pytest.mark.parametrize(
    "unknown", ["xxx", "xx-YY", "Romanain", "sr-Cyrl-Latn", "en-US-POSIX", "a b", "ro/x"]
)
def test_unknown_languages_are_refused(unknown: str) -> None:
    with pytest.raises(IsoglossError, match="Unknown language"):
        normalise_language(unknown)


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_language_is_refused(empty: str) -> None:
    with pytest.raises(IsoglossError, match="The language is empty: give a BCP 47 tag"):
        normalise_language(empty)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(IsoglossError, match='Did you mean "romanian"'):
        normalise_language("Romanain")


def test_language_name() -> None:
    assert language_name("ron") == "Romanian"
    assert language_name("pt_br") == "Portuguese (Brazil)"


def test_tables_are_read_on_first_use_only() -> None:
    code = (
        "import sys, isogloss.text.languages; sys.exit('langcodes' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
