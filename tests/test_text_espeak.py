"""espeak-ng's phonemes: languages by their tags, several clauses as one line."""

import pytest

from isogloss.errors import IsoglossError
from isogloss.text.espeak import phonemes

pytest.importorskip("espeakng_loader")


@pytest.mark.parametrize(
    ("text", "language", "said"),
    [("καλημέρα", "el", "kalimera"), ("dobar dan", "sr-Latn", "dobɑr dan"), ("bom dia", "pt-BR", "boŋ dʒiæ")],
)
def test_phonemes_by_language(text: str, language: str, said: str) -> None:
    assert phonemes([text], language) == [said]


def test_several_clauses_are_one_line() -> None:
    found = phonemes(["Hello, world. How are you?", "", "yes"], "en")
    assert [line.count(" ") for line in found] == [4, 0, 0] and found[1] == ""


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(IsoglossError, match='has no rules for "oc"'):
        phonemes(["bonjorn"], "oc")
