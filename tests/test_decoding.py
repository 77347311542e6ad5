"""Greedy decoding and word times."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.decoding.greedy import greedy
from isogloss.decoding.hypothesis import Hypothesis
from isogloss.decoding.words import spelled, words
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import (
    BytesConfig,
    CharactersConfig,
    SentencePieceConfig,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
)

TEXTS = [
    "the cat sat on the mat",
    "čeština příliš žluťoučký kůň",
    "мова і слово",
    "こんにちは 世界",
    "हिन्दी में बोलो",
    "שָׁלוֹם עולם 👍🏽 ok",
    "a b",
]
CONFIGS: list[TokenizerConfig] = [
    BytesConfig(),
    CharactersConfig(),
    SentencePieceConfig(size=300),
    SentencePieceConfig(size=330, model="bpe"),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: f"{config.kind}-{getattr(config, 'model', '')}")
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    # Three texts are all that sentencepiece learns from: it spells the others in bytes.
    texts = TEXTS[:3] if isinstance(request.param, SentencePieceConfig) else TEXTS
    return build_tokenizer(request.param, texts * 4)


def path_scores(path: list[int], symbols: int, probability: float = 0.9) -> torch.Tensor:
    """(T, V) log-probabilities whose best path is `path`."""
    rest = (1 - probability) / (symbols - 1)
    scores = torch.full((len(path), symbols), rest)
    scores[torch.arange(len(path)), torch.tensor(path, dtype=torch.int64)] = probability
    return scores.log()


@given(st.lists(st.lists(st.integers(0, 3), max_size=15), min_size=1, max_size=4))
@settings(max_examples=80)
def test_greedy_is_the_collapsed_best_path(paths: list[list[int]]) -> None:
    scores = Sequence.from_list([path_scores(path, 4) for path in paths])
    # What stands after a length is loud, and not heard.
    loud = torch.zeros_like(scores.values)
    loud[..., 3] = 1.0
    scores = scores.with_values(torch.where(scores.valid[..., None], scores.values, loud))
    for path, found in zip(paths, greedy(scores), strict=True):
        expected, frames = [], []
        for symbol, run in itertools.groupby(enumerate(path), key=lambda pair: pair[1]):
            positions = [position for position, _ in run]
            if symbol:
                expected.append(symbol)
                frames.append((positions[0], positions[-1] + 1))
        assert found.tokens == expected
        assert found.frames == frames
        assert found.confidence == pytest.approx(0.9 if expected else 0.0, abs=1e-5)


def test_an_empty_batch_of_frames_is_an_empty_hypothesis() -> None:
    empty = Sequence(torch.zeros(2, 0, 5), torch.zeros(2, dtype=torch.int64))
    assert greedy(empty) == [Hypothesis([], [], [])] * 2


def spread(tokens: list[int]) -> Hypothesis:
    """Token n is said from frame 3n to 3n + 2; frame 3n + 2 is blank."""
    return Hypothesis(tokens, [(3 * n, 3 * n + 2) for n in range(len(tokens))], [0.9] * len(tokens))


@pytest.mark.parametrize("frame", [0.04, 0.02])
@pytest.mark.parametrize("text", TEXTS)
def test_words_take_their_times_from_their_own_symbols(tokenizer: Tokenizer, text: str, frame: float) -> None:
    tokens = tokenizer.encode(text)
    found = words(spread(tokens), tokenizer, frame_seconds=frame, start=10.0)
    assert [word.text for word in found] == text.split()
    # Each text is encoded piece by piece where pieces do not cross words: spell out the owner of each token.
    owners = owners_of(tokenizer, tokens)
    own = [[n for n, owner in enumerate(owners) if owner == position] for position in range(len(found))]
    ended = 0
    for place, word in enumerate(found):
        first, last = 3 * own[place][0], 3 * own[place][-1] + 2
        # 40 ms before the first symbol and 20 ms after the last, where no neighbour's symbol is.
        assert word.start == pytest.approx(10.0 + max(frame * first - 0.04, frame * ended))
        following = math.inf
        if place + 1 < len(found):
            following = max(frame * 3 * own[place + 1][0] - 0.04, frame * last)
        assert word.end == pytest.approx(10.0 + min(frame * last + 0.02, following))
        ended = last
    for earlier, later in itertools.pairwise(found):
        assert earlier.start < earlier.end <= later.start


def test_words_are_spelled_in_time_that_grows_with_the_text(tokenizer: Tokenizer) -> None:
    class Counting:
        decoded = 0

        def decode(self, ids: list[int]) -> str:
            self.decoded += len(ids)
            return tokenizer.decode(ids)

    tokens, counts = tokenizer.encode("cat kůň " * 20), []
    for times in (1, 10):
        counting = Counting()
        found = spelled(tokens * times, counting)  # type: ignore[arg-type]
        assert [word for word, _, _ in found] == ["cat", "kůň"] * 20 * times
        counts.append(counting.decoded)
    assert counts[1] < 11 * counts[0]


def test_no_word_ends_after_its_audio(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a b")
    end = 3 * len(tokens) - 1.5  # inside the last frame
    found = words(spread(tokens), tokenizer, frame_seconds=1.0, end=end)
    assert found[0].end < found[1].start and found[1].end == end


def owners_of(tokenizer: Tokenizer, tokens: list[int]) -> list[int | None]:
    """The word each token belongs to, None for a space, from each token's own text."""
    owners: list[int | None] = []
    word, inside = -1, False
    for n, token in enumerate(tokens):
        alone = tokenizer.decode([token])
        # A single byte of a longer character decodes to U+FFFD: it belongs to a word.
        if alone.isspace():
            owners.append(None)
            inside = False
            continue
        if not inside or (alone[:1].isspace() and n > 0):
            word += 1
        owners.append(word)
        inside = not alone[-1:].isspace()
    return owners


def test_words_of_repeated_and_trailing_spaces(tokenizer: Tokenizer) -> None:
    found = words(spread(tokenizer.encode("  a  b ")), tokenizer, frame_seconds=1.0)
    assert [word.text for word in found] == ["a", "b"]
    assert found[0].end <= found[1].start


def test_nothing_heard_is_no_word(tokenizer: Tokenizer) -> None:
    assert words(Hypothesis([], [], []), tokenizer, frame_seconds=0.04) == []
    assert words(spread(tokenizer.encode(" ")), tokenizer, frame_seconds=0.04) == []


@given(st.lists(st.integers(1, 256), max_size=30))
@settings(max_examples=150)
def test_any_bytes_give_words_in_order_and_inside(ids: list[int]) -> None:
    """A recogniser of bytes may emit what is no UTF-8."""
    tokenizer = build_tokenizer(BytesConfig(), [])
    hypothesis = spread(ids)
    found = words(hypothesis, tokenizer, frame_seconds=1.0)
    assert " ".join(word.text for word in found) == " ".join(tokenizer.decode(ids).split())
    for word in found:
        assert 0 <= word.start < word.end <= 3 * len(ids) + 0.5
    for earlier, later in itertools.pairwise(found):
        assert earlier.start <= later.start and earlier.end <= later.end
