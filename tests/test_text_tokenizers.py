"""Tokenizers beyond the round trip (test_text_unicode.py): ids, files, what they refuse."""

import json
import logging
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from isogloss.errors import IsoglossError
from isogloss.text.tokenizers import (
    BytesConfig,
    ByteTokenizer,
    CharactersConfig,
    CharacterTokenizer,
    SentencePieceConfig,
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
)

TEXTS = [
    "într-o zi s-a dus la câmp",
    "l'home d'una col·legi",
    "кто-то пришёл домой",
    "हिन्दी में बात",
] * 20
CONFIGS = [BytesConfig(), CharactersConfig(), SentencePieceConfig(size=400), SentencePieceConfig(model="bpe")]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: getattr(config, "model", config.kind))
def test_spaces_blanks_and_size(config: TokenizerConfig) -> None:
    tokenizer = build_tokenizer(config, TEXTS)
    for text in ["", " ", "  s-a  dus ", *TEXTS[:4]]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([i for pair in ids for i in (0, pair, 0)]) == text
    for outside in (-1, tokenizer.size):
        with pytest.raises(LookupError):
            tokenizer.decode([outside])


def test_bytes_are_the_utf8_bytes_plus_one() -> None:
    assert ByteTokenizer().encode("aé") == [0x61 + 1, 0xC3 + 1, 0xA9 + 1]
    assert ByteTokenizer().decode([0x61 + 1, 0xC3 + 1]) == "a\ufffd"


def test_characters_are_sorted_whatever_the_order_of_the_texts() -> None:
    forward = CharacterTokenizer.build(CharactersConfig(), TEXTS)
    backward = CharacterTokenizer.build(CharactersConfig(), TEXTS[::-1])
    assert forward.symbols == backward.symbols == tuple(sorted(set("".join(TEXTS))))
    assert forward.size == len(forward.symbols) + 1


def test_an_unknown_character_is_an_error_that_names_it() -> None:
    tokenizer = CharacterTokenizer.build(CharactersConfig(), ["abc"])
    assert tokenizer.unknown("cab ж!") == [" ", "!", "ж"]
    with pytest.raises(IsoglossError, match=r"'ж' \(U\+0436\)"):
        tokenizer.encode("abж")


def test_an_unknown_character_is_logged_once_where_allowed(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = CharacterTokenizer.build(CharactersConfig(unknown=True), ["abc"])
    with caplog.at_level(logging.WARNING):
        assert tokenizer.decode(tokenizer.encode("aжbж")) == "a\ufffdb\ufffd"
        tokenizer.encode("ж")
    assert [record.getMessage().count("U+0436") for record in caplog.records] == [1]


def test_sentencepiece_makes_pieces_and_spells_the_rest_in_bytes() -> None:
    tokenizer = build_tokenizer(SentencePieceConfig(size=400), TEXTS)
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0])
    assert len(tokenizer.encode("日")) == 3
    assert tokenizer.size <= 400
    assert tokenizer.decode(tokenizer.encode("▁a ▁")) == "▁a ▁"


def test_sentencepiece_knows_the_space_also_from_texts_without_one() -> None:
    tokenizer = build_tokenizer(SentencePieceConfig(size=300), ["你好世界", "世界"] * 20)
    assert tokenizer.decode(tokenizer.encode("你 ▁ 好")) == "你 ▁ 好"


def test_sentencepiece_training_is_repeatable() -> None:
    first, second = (build_tokenizer(SentencePieceConfig(size=400), TEXTS) for _ in range(2))
    assert [first.encode(text) for text in TEXTS[:4]] == [second.encode(text) for text in TEXTS[:4]]


@pytest.mark.parametrize(
    ("config", "texts", "message"),
    [
        (SentencePieceConfig(size=258), TEXTS, "too small"),
        (SentencePieceConfig(), ["", ""], "empty"),
        (CharactersConfig(), [], "empty"),
    ],
)
def test_what_cannot_be_built_says_why(config: TokenizerConfig, texts: list[str], message: str) -> None:
    with pytest.raises(IsoglossError, match=message):
        build_tokenizer(config, texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "bites"}', 'Did you mean "bytes"'),
        ('{"kind": ["bytes"]}', "unknown kind"),
        ("[]", "unknown kind"),
        ("{", "not readable JSON"),
        ('{"kind": "characters"}', "no list of symbols"),
        ('{"kind": "characters", "symbols": ["a", 1]}', "no list of symbols"),
        ('{"kind": "characters", "symbols": ["a", "a"]}', "distinct single characters"),
        ('{"kind": "characters", "symbols": ["ab"]}', "distinct single characters"),
        ('{"kind": "sentencepiece"}', "tokenizer.model"),
    ],
)
def test_broken_files_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(IsoglossError, match=message):
        load_tokenizer(tmp_path)


def test_a_broken_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    build_tokenizer(SentencePieceConfig(size=400), TEXTS).save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"junk")
    with pytest.raises(IsoglossError, match="no sentencepiece model"):
        load_tokenizer(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="is missing"):
        load_tokenizer(tmp_path / "nowhere")


def test_the_inventory_is_readable_json(tmp_path: Path) -> None:
    build_tokenizer(CharactersConfig(), ["ба a"]).save(tmp_path)
    stored = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored == {"kind": "characters", "symbols": [" ", "a", "а", "б"]}


def test_configurations_are_told_apart_by_kind() -> None:
    adapter: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)
    assert adapter.validate_python({"kind": "sentencepiece", "size": 300}) == SentencePieceConfig(size=300)
    for wrong in ({"kind": "bytes", "size": 3}, {"kind": "words"}, {"kind": "sentencepiece", "size": 257}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
