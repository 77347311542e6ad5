"""Prefix beam search against the sum over all paths, with a language model and with hotwords."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isogloss.decoding import ctc_beam as searches
from isogloss.decoding.attention_beam import attention_beam
from isogloss.decoding.beam import Beam
from isogloss.decoding.ctc_beam import ctc_beam
from isogloss.decoding.greedy import GreedyAttention, decoded, greedy
from isogloss.decoding.hotwords import START, Hotwords
from isogloss.decoding.transducer_beam import transducer_beam
from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.ctc import CTCHead
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.nn.ctc import ctc_loss, frames_needed
from isogloss.nn.predictors import LSTMConfig, StatelessConfig
from isogloss.sequence import Sequence
from isogloss.text.ngram import NGram, train_ngram
from small_models import any_order

ALL = Beam(width=10**6, margin=math.inf, most=10**6, bonus=0.0)
MODEL = train_ngram([[1, 2], [1, 2, 1], [2, 2], [1], [3, 1]], 4, 2)


def scores(frames: int, symbols: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(frames, symbols, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)


def enumerated(values: Tensor) -> dict[tuple[int, ...], float]:
    """log of the summed probability of every text."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(values.shape[1]), repeat=len(values)):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        found[text] = found.get(text, 0.0) + math.exp(sum(float(values[t, s]) for t, s in enumerate(path)))
    return {text: math.log(total) for text, total in found.items()}


def hotword_gain(text: tuple[int, ...], words: list[list[int]], bonus: float) -> float:
    hotwords, state, total = Hotwords(words, bonus), START, 0.0
    for symbol in text:
        state, gain = hotwords.step(state, symbol)
        total += gain
    return total + hotwords.end(state)


@pytest.mark.parametrize("frames", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("model", [None, MODEL])
@pytest.mark.parametrize("words", [[], [[1, 2]], [[2, 1, 3], [1, 1]]], ids=str)
def test_a_wide_beam_sums_every_path_of_every_text(frames: int, model: NGram | None, words: list) -> None:
    values = scores(frames, 4, seed=frames)
    hotwords = Hotwords(words, 0.7) if words else None
    beam = Beam(ALL.width, math.inf, ALL.most, language_model=model, weight=0.6, bonus=0.3, hotwords=hotwords)
    found = ctc_beam(Sequence.from_list([values]), beam)[0]
    expected = {}
    for text, total in enumerated(values).items():
        expected[text] = total + 0.3 * len(text) + (0.6 * model.log_probability(text) if model else 0)
        expected[text] += hotword_gain(text, words, 0.7)
    assert {tuple(h.tokens): pytest.approx(h.score) for h in found} == expected
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@given(st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=25)
def test_a_batch_is_each_utterance_alone(lengths: list[int], seed: int) -> None:
    items = [scores(n, 6, seed + i) for i, n in enumerate(lengths)]
    batch = Sequence.from_list(items)
    batch = Sequence(batch.values.masked_fill(~batch.valid[..., None], float("nan")), batch.lengths)
    together = ctc_beam(batch, Beam(width=4, most=4))
    for item, found in zip(items, together, strict=True):
        assert found == ctc_beam(Sequence.from_list([item]), Beam(width=4, most=4))[0]
        assert 1 <= len(found) <= 4
        for hypothesis in found:
            assert len(hypothesis.frames) == len(hypothesis.tokens) and 0 <= hypothesis.confidence <= 1


WORDS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), max_size=2)


@given(st.integers(1, 5), WORDS, st.integers(0, 999))
@settings(max_examples=60)
def test_what_is_not_looked_up_would_not_be_among_the_best(width: int, words: list, seed: int) -> None:
    values = Sequence.from_list([scores(15, 4, seed)])
    hotwords = Hotwords(words, 1.5) if words else None
    beam = Beam(width, most=width, language_model=MODEL, hotwords=hotwords)
    found = ctc_beam(values, beam)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searches, "_least", lambda *_: -math.inf)
        assert ctc_beam(values, beam) == found


def test_sharp_posteriors_are_read_as_greedily() -> None:
    values = (20 * scores(40, 6, 1)).log_softmax(dim=-1)
    best = ctc_beam(Sequence.from_list([values]), Beam(bonus=0.0))[0][0]
    plain = greedy(Sequence.from_list([values]))[0]
    assert best.tokens == plain.tokens and best.frames == plain.frames


def test_only_allowed_symbols_are_written() -> None:
    allowed = torch.tensor([True, False, True, True, False, False])
    found = ctc_beam(Sequence.from_list([scores(30, 6, 2)]), Beam(allowed=any_order(allowed)))[0]
    assert found[0].tokens and set(found[0].tokens) <= {2, 3}


def test_a_hotword_is_heard_where_it_is_nearly_said() -> None:
    """[1 3] is a little likelier than [1 2], of which the hotword is made."""
    rows = torch.tensor([[0.1, 0.8, 0.05, 0.05], [0.9, 0.04, 0.03, 0.03], [0.1, 0.02, 0.38, 0.5]]).double().log()
    batch = Sequence.from_list([rows])
    assert ctc_beam(batch, Beam())[0][0].tokens == [1, 3]
    assert ctc_beam(batch, Beam(hotwords=Hotwords([[1, 2]])))[0][0].tokens == [1, 2]
    assert ctc_beam(batch, Beam(hotwords=Hotwords([[1, 2, 1, 1]])))[0][0].tokens == [1, 3]


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), max_size=12),
)
@settings(max_examples=500)
def test_a_symbol_gains_once_where_it_lies_in_hotwords(words: list[list[int]], text: list[int]) -> None:
    spelled = [range(i, i + len(word)) for word in words for i in range(len(text)) if text[i : i + len(word)] == word]
    assert hotword_gain(tuple(text), words, 1.0) == len({place for places in spelled for place in places})


def test_a_hotword_in_another_gains_nothing_more() -> None:
    """Ana, Anamaria, maria; and two that overlap."""
    words = [[1, 2, 1], [1, 2, 1, 3, 1, 4], [3, 1, 4]]
    assert hotword_gain((1, 2, 1, 3, 1, 4), words, 0.5) == 3.0
    assert hotword_gain((5, 1, 2, 3, 6), [[1, 2], [2, 3]], 0.5) == 1.5


def transducer(seed: int = 0, stateless: bool = False) -> TransducerHead:
    torch.manual_seed(seed)
    predictor = StatelessConfig(width=6) if stateless else LSTMConfig(width=6)
    head = TransducerHead(TransducerConfig(predictor=predictor, joiner=8), 5, 4).eval()
    with torch.no_grad():
        head.output.weight.mul_(5)
    return head


def states(*lengths: int, seed: int = 0) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    return Sequence.from_list([torch.randn(n, 5, generator=generator) for n in lengths])


def transducer_texts(head: TransducerHead, item: Tensor) -> dict[tuple[int, ...], float]:
    """log of the summed probability of every text over the paths with at most one symbol a frame."""
    found: dict[tuple[int, ...], float] = {}
    audio = head.audio(item)
    for path in itertools.product(range(4), repeat=len(item)):
        text, logs = [], 0.0
        for frame, symbol in enumerate(path):
            tokens = Sequence(torch.tensor([text], dtype=torch.int64), torch.tensor([len(text)]))
            scores = head.join(audio[frame], head.text(head.predictor(tokens))[0, -1])
            logs += float(scores[symbol])
            text += [symbol] if symbol else []
        found[tuple(text)] = found.get(tuple(text), 0.0) + math.exp(logs)
    return {text: math.log(total) for text, total in found.items()}


@pytest.mark.parametrize("stateless", [False, True])
@pytest.mark.parametrize("model", [None, MODEL])
def test_a_wide_transducer_beam_sums_every_path_of_every_text(stateless: bool, model: NGram | None) -> None:
    head, batch = transducer(stateless=stateless), states(4, 2)
    hotwords = Hotwords([[1, 2]], 0.7)
    beam = Beam(ALL.width, math.inf, ALL.most, language_model=model, weight=0.6, bonus=0.3, hotwords=hotwords)
    with torch.inference_mode():
        together = transducer_beam(head, batch, beam)
        for item, found in zip(batch.unpad(), together, strict=True):
            expected = {}
            for text, total in transducer_texts(head, item).items():
                expected[text] = total + 0.3 * len(text) + (0.6 * model.log_probability(text) if model else 0)
                expected[text] += hotword_gain(text, [[1, 2]], 0.7)
            assert {tuple(h.tokens): pytest.approx(h.score, abs=1e-4) for h in found} == expected


def test_the_internal_language_model_is_what_the_transducer_writes_without_audio() -> None:
    head, batch = transducer(), states(3)
    with torch.inference_mode():
        plain = {tuple(h.tokens): h.score for h in transducer_beam(head, batch, ALL)[0]}
        beam = Beam(ALL.width, math.inf, ALL.most, bonus=0.0, internal=0.4)
        less = {tuple(h.tokens): h.score for h in transducer_beam(head, batch, beam)[0]}
        for text in ((1,), (2, 3), (3, 1, 1)):
            read = Sequence(torch.tensor([text]), torch.tensor([len(text)]))
            scores = head.join(torch.zeros(8), head.text(head.predictor(read))[0, : len(text)])
            inner = scores[:, 1:].log_softmax(dim=1)[range(len(text)), [symbol - 1 for symbol in text]].sum()
            assert less[text] == pytest.approx(plain[text] - 0.4 * float(inner), abs=1e-4)


def test_transducer_frames_rise_and_lie_inside() -> None:
    head, batch = transducer(3), states(30, 11, 1, seed=2)
    allowed = torch.tensor([True, True, False, True])
    with torch.inference_mode():
        together = transducer_beam(head, batch, Beam(most=3, allowed=any_order(allowed)))
        for length, found in zip(batch.lengths.tolist(), together, strict=True):
            assert 1 <= len(found) <= 3 and found[0].score >= found[-1].score
            for hypothesis in found:
                assert set(hypothesis.tokens) <= {1, 3}
                starts = [start for start, _ in hypothesis.frames]
                assert starts == sorted(starts) and all(0 <= start < length for start in starts)
                assert all(0 < probability <= 1 for probability in hypothesis.probabilities)


def attention(seed: int = 0) -> tuple[AttentionDecoder, CTCHead]:
    torch.manual_seed(seed)
    head = AttentionDecoder(AttentionConfig(layers=2, width=8, heads=2, dropout=0.0), 5, 4).eval()
    with torch.no_grad():
        head.output.weight.mul_(2)
    return head, CTCHead(5, 4).eval()


def test_a_wide_attention_beam_ranks_every_text_as_its_losses_do() -> None:
    """The score of a text is -cross-entropy - w CTC loss, by the very losses that train the heads."""
    head, ctc = attention()
    head.smoothing = 0.0
    batch = states(3, seed=1)
    with torch.inference_mode():
        beam = Beam(ALL.width, math.inf, ALL.most, bonus=0.2, ctc=0.7, language_model=MODEL, weight=0.6)
        found = attention_beam(head, ctc, batch, beam)[0]
        texts = [text for n in range(4) for text in itertools.product((1, 2, 3), repeat=n)]
        possible = [text for text in texts if frames_needed(list(text)) <= 3]
        assert sorted(tuple(h.tokens) for h in found) == sorted(possible)
        for hypothesis in found:
            text = Sequence.from_list([torch.tensor(hypothesis.tokens, dtype=torch.int64)])
            lost = float(head.loss(batch, text)) + 0.7 * float(ctc_loss(ctc(batch), text))
            gained = 0.2 * len(hypothesis.tokens) + 0.6 * MODEL.log_probability(hypothesis.tokens)
            assert hypothesis.score == pytest.approx(gained - lost, abs=1e-3)


def test_an_attention_beam_of_one_is_greedy() -> None:
    head, ctc = attention(4)
    batch = states(12, 5, 9, seed=3)
    with torch.inference_mode():
        plain = decoded(GreedyAttention(head, ctc, 3), batch)
        found = attention_beam(head, ctc, batch, Beam(width=1, bonus=0.0, ctc=0.0))
    for one, (other,) in zip(plain, found, strict=True):
        if not one.interpolated and one.tokens:
            assert other.tokens == one.tokens and other.frames == one.frames
