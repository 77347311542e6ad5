"""One script a word, whatever decides on the symbols."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isogloss.decoding import greedy
from isogloss.decoding.attention_beam import attention_beam
from isogloss.decoding.beam import Beam
from isogloss.decoding.ctc_beam import ctc_beam
from isogloss.decoding.greedy import GreedyAttention, GreedyCTC, GreedyTransducer, decoded
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.symbols import Symbols, limited
from isogloss.decoding.transducer_beam import transducer_beam
from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.sequence import Sequence
from isogloss.text.scripts import scripts
from isogloss.text.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    SentencePieceConfig,
    SentencePieceTokenizer,
)
from small_models import any_order

TOKENIZER = CharacterTokenizer(" '-1aăcàбгдχρ日の\u0301")
ONE_SCRIPT = Symbols.one_script(TOKENIZER.spelling())
SIZE = TOKENIZER.size


def permitted(text: str, symbols: Symbols = ONE_SCRIPT) -> bool:
    """Whether a text may be written."""
    state = 0
    for symbol in TOKENIZER.encode(text):
        if not symbols.may_follow(state, symbol):
            return False
        state = symbols.step(state, symbol)
    return True


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("aăcà бгд χρ", True), ("aб", False), ("бa", False), ("б'a", False), ("a\u0301б", False), ("1aб", False),
        ("a-б", True), ("a1б", True), ("日の", True), ("日a", False), ("''", True), ("а-а", None),
    ],
)  # fmt: skip
def test_which_words_may_be_written(text: str, allowed: bool | None) -> None:
    if allowed is None:
        with pytest.raises(Exception, match="does not know"):
            permitted(text)  # a Cyrillic а, which is not among the symbols
    else:
        assert permitted(text) is allowed


def test_an_alphabet_holds_in_every_script() -> None:
    latin = Symbols.one_script(TOKENIZER.spelling(), TOKENIZER.encode(" aбc"))
    assert latin.follows[0, 0] and permitted("a б c", latin)
    assert not permitted("ă", latin) and not permitted("aб", latin) and not permitted("г", latin)


def test_pieces_that_begin_with_a_space_begin_a_word() -> None:
    texts = ["мама мыла раму", "una casa una mesa"] * 20
    tokenizer = SentencePieceTokenizer.build(SentencePieceConfig(size=300), texts)
    symbols = Symbols.one_script(tokenizer.spelling())

    def path(text: str) -> bool:
        state, fine = 0, True
        for symbol in tokenizer.encode(text):
            fine = fine and symbols.may_follow(state, symbol)
            state = symbols.step(state, symbol)
        return fine

    assert path("мама una casa") and path("una мама") and not path("mмама")


def test_bytes_are_left_alone() -> None:
    symbols = Symbols.one_script(ByteTokenizer().spelling())
    assert symbols.follows.shape == (1, 257) and bool(symbols.follows.all())


def test_there_are_as_many_states_as_scripts_to_keep_apart() -> None:
    spelling, latin = TOKENIZER.spelling(), TOKENIZER.encode(" '-1aăcà")
    both = [*latin, *TOKENIZER.encode("бг")]
    # Before the first letter, and in a word of each script; one where all are of one.
    assert [len(Symbols.one_script(spelling, ids).follows) for ids in (latin, both, None)] == [1, 3, 5]


@torch.no_grad()
def test_only_states_that_are_reached_cost_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(greedy, "limited", lambda *given: asked.append(given[2]) or limited(*given))
    scores = torch.full((2, 9, SIZE), -9.0)
    scores[0, ::2, TOKENIZER.encode("a")[0]] = scores[1, ::2, TOKENIZER.encode("ρ")[0]] = 0.0
    scores[:, 1::2, 0] = 0.0
    found = decoded(GreedyCTC(lambda given: given, 2, ONE_SCRIPT), Sequence(scores, torch.tensor([9, 9])))
    assert [TOKENIZER.decode(hypothesis.tokens) for hypothesis in found] == ["aaaaa", "ρρρρρ"]
    assert len(asked) == len(set(asked)) == 3 < len(ONE_SCRIPT.follows)


def mixed(words: list[str]) -> list[str]:
    return [word for word in words if len({"East" if s in ("Han", "Hiragana") else s for s in scripts(word)}) > 1]


def words(hypotheses: list[Hypothesis]) -> list[str]:
    return [word for h in hypotheses for word in re.split(r"[ 1-]+", TOKENIZER.decode(h.tokens)) if word]


def ways() -> dict[str, Callable[[Symbols | None], list[Hypothesis]]]:
    """Every decoder on random states, with random weights that favour no symbol."""
    torch.manual_seed(1)
    states = Sequence.from_list([torch.randn(60, 16), torch.randn(41, 16)])
    transducer = TransducerHead(TransducerConfig(), 16, SIZE).eval()
    attention = AttentionDecoder(AttentionConfig(width=32, heads=2, layers=1, dropout=0.0), 16, SIZE).eval()
    weight = torch.randn(SIZE, 16)
    with torch.no_grad():
        transducer.output.bias.zero_()
        transducer.output.weight.mul_(6)
        for parameter in attention.parameters():
            parameter.mul_(2)

    def ctc(batch: Sequence) -> Sequence:
        return batch.map(lambda values: (values @ weight.T).log_softmax(dim=-1))

    def best(found: list[list[Hypothesis]]) -> list[Hypothesis]:
        return [hypotheses[0] for hypotheses in found]

    return {
        "ctc": lambda allowed: decoded(GreedyCTC(ctc, 2, allowed), states),
        "transducer": lambda allowed: decoded(GreedyTransducer(transducer, 2, allowed), states),
        "attention": lambda allowed: decoded(GreedyAttention(attention, ctc, 2, allowed), states),
        "ctc beam": lambda allowed: best(ctc_beam(ctc(states), Beam(width=4, allowed=allowed))),
        "transducer beam": lambda allowed: best(transducer_beam(transducer, states, Beam(width=4, allowed=allowed))),
        "attention beam": lambda allowed: best(attention_beam(attention, ctc, states, Beam(width=4, allowed=allowed))),
    }


@pytest.mark.parametrize("way", ["ctc", "transducer", "attention", "ctc beam", "transducer beam", "attention beam"])
@torch.no_grad()
def test_no_decoder_mixes_scripts_in_a_word(way: str) -> None:
    decode = ways()[way]
    assert words(decode(None))
    assert mixed(words(decode(ONE_SCRIPT))) == []
    if not way.startswith("attention"):  # which stops after a word or two
        assert mixed(words(decode(None)))


@torch.no_grad()
def test_what_mixes_nothing_stays_as_it_is() -> None:
    """Symbols of one script only: the rule changes nothing."""
    latin = Symbols.one_script(TOKENIZER.spelling(), TOKENIZER.encode(" '-1aăcà"))
    whatever = any_order(latin.follows[0])
    for decode in ways().values():
        for one, other in zip(decode(latin), decode(whatever), strict=True):
            assert one.tokens == other.tokens and one.frames == other.frames


@torch.no_grad()
def test_a_word_goes_on_from_feed_to_feed() -> None:
    states, weight = torch.randn(1, 80, 16), torch.randn(SIZE, 16)

    def ctc(batch: Sequence) -> Sequence:
        return batch.map(lambda values: (values @ weight.T).log_softmax(dim=-1))

    def sequence(values: Tensor) -> Sequence:
        return Sequence(values, torch.tensor([values.shape[1]]))

    whole, parts = GreedyCTC(ctc, 1, ONE_SCRIPT), GreedyCTC(ctc, 1, ONE_SCRIPT)
    whole.feed(sequence(states))
    for part in states.split(7, dim=1):
        parts.feed(sequence(part))
    assert whole.drafts[0].tokens == parts.drafts[0].tokens and whole.drafts[0].frames == parts.drafts[0].frames


def test_limits_in_different_states() -> None:
    scores = torch.zeros(2, 3, SIZE)
    states = torch.tensor([[0, 1, 2], [2, 1, 0]])
    found = limited(scores, ONE_SCRIPT, states)
    assert torch.equal(found > -torch.inf, ONE_SCRIPT.follows[states])
    assert limited(scores, None) is scores
