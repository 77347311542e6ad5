"""Texts as symbols, phonemes and units: ids and names, what is missing, and several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from isogloss.errors import IsoglossError
from isogloss.text.processor import TextProcessor
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TOKENIZER = build_tokenizer(CharactersConfig(), ["abcdeu "])
IPA = tuple("abdu ")


def test_texts_become_padded_symbols_after_normalisation() -> None:
    processor = TextProcessor(TOKENIZER)
    found = processor.symbols(["Da, ba!", None, "a"], ["ro", "ro", None])
    assert found.lengths.tolist() == [5, 0, 1]
    rows = [row.tolist() for row in found.unpad()]
    assert rows[0] == processor.tokens("da ba", "ro") and TOKENIZER.decode(rows[0]) == "da ba"
    assert processor.unit_ids(["a"], [None]).values.tolist() == processor.symbols(["a"], [None]).values.tolist()
    assert processor.unit_name(rows[2][0]) == "a" and processor.spelling() == TOKENIZER.spelling()


def test_without_a_tokenizer_there_are_no_symbols() -> None:
    processor = TextProcessor(None, IPA)
    for call in (lambda: processor.tokens("a"), lambda: processor.unit_name(1), processor.spelling):
        with pytest.raises(IsoglossError, match=r"no tokenizer: it was pre-trained on speech alone; fine-tune it"):
            call()


def test_phonemes_have_ids_and_names_of_their_own() -> None:
    pytest.importorskip("espeakng_loader")
    processor = TextProcessor(TOKENIZER, IPA, units="phonemes")
    found = processor.phonemes(["Buba!", None, "șa"], ["ro", "ro", "ro"])
    assert [processor.ipa(row.tolist()) for row in found.unpad()] == ["buba", "", "a"]  # ʃ is not in the inventory
    assert processor.unit_ids(["buba"], ["ro"]).values.tolist() == found.values[:1].tolist()
    assert processor.unit_name(1) == "a" and processor.spelling()[:2] == [b"", b"a"]
    with pytest.raises(IsoglossError, match="name the language of the text"):
        processor.phonemes(["buba"], [None])


def test_two_threads_find_the_same_phonemes() -> None:
    pytest.importorskip("espeakng_loader")
    texts = [" ".join(["ba", "da", "bu"][number % 3] * (1 + number // 3) for _ in range(2)) for number in range(24)]
    expected = TextProcessor(None, IPA).phonemes(texts, ["ro"] * 24)
    shared = TextProcessor(None, IPA)
    with ThreadPoolExecutor(8) as pool:
        halves = [(texts[part::4], ["ro"] * 6) for part in range(4)] * 4
        found = list(pool.map(lambda pair: shared.phonemes(*pair), halves))
    for place, rows in enumerate(found):
        for row, number in zip(rows.unpad(), range(place % 4, 24, 4), strict=True):
            assert row.tolist() == expected.unpad()[number].tolist()
