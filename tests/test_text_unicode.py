"""Properties that hold for any text of 40 Unicode blocks: nothing lost, nothing normalised twice."""

import random
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import (
    ByteTokenizer,
    CharactersConfig,
    CharacterTokenizer,
    SentencePieceConfig,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
)

BLOCKS = [
    (0x0000, 0x007F),  # Basic Latin, control characters included
    (0x0080, 0x00FF),
    (0x0100, 0x017F),
    (0x0180, 0x024F),
    (0x0250, 0x02AF),  # IPA
    (0x02B0, 0x02FF),  # spacing modifiers
    (0x0300, 0x036F),  # combining marks
    (0x0370, 0x03FF),
    (0x0400, 0x04FF),
    (0x0530, 0x058F),  # Armenian
    (0x0590, 0x05FF),  # Hebrew
    (0x0600, 0x06FF),  # Arabic
    (0x0700, 0x074F),  # Syriac
    (0x0780, 0x07BF),  # Thaana
    (0x07C0, 0x07FF),  # N'Ko
    (0x0900, 0x097F),  # Devanagari
    (0x0980, 0x09FF),  # Bengali
    (0x0A00, 0x0A7F),  # Gurmukhi
    (0x0A80, 0x0AFF),  # Gujarati
    (0x0B00, 0x0B7F),  # Oriya
    (0x0B80, 0x0BFF),  # Tamil
    (0x0C00, 0x0C7F),  # Telugu
    (0x0C80, 0x0CFF),  # Kannada
    (0x0D00, 0x0D7F),  # Malayalam
    (0x0D80, 0x0DFF),  # Sinhala
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x10A0, 0x10FF),  # Georgian
    (0x1100, 0x11FF),  # Hangul jamo
    (0x1200, 0x137F),  # Ethiopic
    (0x1780, 0x17FF),  # Khmer
    (0x1E00, 0x1EFF),  # Latin additions
    (0x2000, 0x206F),  # punctuation and format characters
    (0x3040, 0x30FF),  # kana
    (0x4E00, 0x9FFF),  # Han
    (0xAC00, 0xD7A3),  # Hangul
    (0xFB00, 0xFEFF),  # presentation forms, variation selectors
    (0xFF00, 0x1F64F),  # half width, plane 1, emoji
]
# What the rules look at: drawn often, because blocks alone rarely put two of them side by side.
AWKWARD = (
    "aiIİıſŀlL1२'’ʼʻ-·״\"א\u05b0\u200c\u200d\u034f\u0300\u0301\u0307\u0328иі\u0d28\u0d4d\u094dΣσｱﾞか\u3099 "
)
LANGUAGES = [None, "tr", "lt", "he", "haw", "ru", "ca", "ro", "fa", "zh"]

_generator = random.Random(0)
CHARACTERS = [chr(_generator.randint(*block)) for block in BLOCKS for _ in range(300)]
texts = st.text(st.sampled_from(CHARACTERS), max_size=12)
awkward_texts = st.text(st.sampled_from(AWKWARD) | st.sampled_from(CHARACTERS), max_size=10)


@cache
def random_strings() -> list[str]:
    """10,000 strings of up to 12 characters, each from one block or from two."""
    generator = random.Random(0)

    def one() -> str:
        blocks = generator.choices(BLOCKS, k=2)
        return "".join(
            chr(generator.randint(*generator.choice(blocks))) for _ in range(generator.randint(0, 12))
        )

    return [one() for _ in range(10_000)]


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "characters":
        return CharacterTokenizer.build(CharactersConfig(), random_strings())
    return SentencePieceTokenizer.build(SentencePieceConfig(size=800), random_strings()[:60])


def test_there_are_40_blocks_and_they_are_distinct() -> None:
    assert len(BLOCKS) == 40
    assert all(end < start for (_, end), (start, _) in pairwise(BLOCKS))


@pytest.mark.parametrize("kind", ["bytes", "characters", "sentencepiece"])
def test_round_trip_of_10_000_strings_also_after_saving(kind: str, tmp_path: Path) -> None:
    tokenizer(kind).save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.size == tokenizer(kind).size
    for text in random_strings():
        ids = loaded.encode(text)
        assert loaded.decode(ids) == text
        assert all(0 < i < loaded.size for i in ids)


@given(texts)
@settings(max_examples=300)
def test_bytes_and_sentencepiece_take_any_text(text: str) -> None:
    for kind in ("bytes", "sentencepiece"):
        assert tokenizer(kind).decode(tokenizer(kind).encode(text)) == text


@given(awkward_texts, st.sampled_from(LANGUAGES), st.booleans())
@settings(max_examples=1000)
def test_normalise_is_idempotent_composed_and_single_spaced(
    text: str, language: str | None, keep_points: bool
) -> None:
    once = normalise(text, language, keep_points=keep_points)
    assert normalise(once, language, keep_points=keep_points) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@given(texts)
@settings(max_examples=500)
def test_canonically_equal_texts_normalise_to_the_same(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


@given(texts)
@settings(max_examples=500)
def test_case_never_matters_to_letters_with_two_cases(text: str) -> None:
    simple = "".join(c for c in text if c.upper().lower() == c)
    assert normalise(simple.upper()) == normalise(simple)
