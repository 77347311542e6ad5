"""The transducer: predictors step by step, the head's contract, and batched decoding against the plain loop."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.decoding.greedy import MOST, GreedyTransducer, decoded
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.nn.predictors import BEGIN, LSTMConfig, StatelessConfig
from isogloss.nn.transducer import transducer_loss
from isogloss.sequence import Sequence
from small_models import any_order

WIDTH, VOCABULARY = 12, 7
PREDICTORS = [
    LSTMConfig(width=8),
    LSTMConfig(width=8, layers=2),
    StatelessConfig(width=8),
    StatelessConfig(width=8, context=1),
]
TOKENS = torch.tensor([1, 2, 2, 6])


def head(number: int = 0) -> TransducerHead:
    return TransducerHead(TransducerConfig(predictor=PREDICTORS[number], joiner=10), WIDTH, VOCABULARY)


def losses(module: TransducerHead, states: Sequence) -> list[Tensor]:
    count = len(states)
    return list(module.loss(states, Sequence(TOKENS.expand(count, -1), torch.full((count,), len(TOKENS))))[:, None])


def pruned() -> TransducerHead:
    return TransducerHead(TransducerConfig(predictor=PREDICTORS[0], joiner=10, pruned=3), WIDTH, VOCABULARY)


def possible_losses(module: TransducerHead, states: Sequence) -> list[Tensor]:
    """In one frame there is room for fewer than `pruned` symbols."""
    return [torch.where(loss.isfinite(), loss, 0.0) for loss in losses(module, states)]


SUBJECTS = [
    Subject("transducer pruned", pruned, possible_losses, (WIDTH,), tolerance=1e-5),
    *(
        Subject(f"transducer {config.kind}", lambda n=n: head(n), losses, (WIDTH,), tolerance=1e-7)
        for n, config in enumerate(PREDICTORS)
    ),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    def test_alone_equals_in_a_batch(self, subject: Subject) -> None:
        """As in the contract, but that there is no path where there is no frame."""
        module = subject.module()
        items = [subject.item(n, seed=n) for n in (7, 50, 1, 33)]
        together = subject.call(module, subject.batch(items, pad=5))
        for item, row in zip(items, together, strict=True):
            assert_close(row, subject.call(module, subject.batch([item]))[0], atol=subject.tolerance, rtol=0)


@pytest.mark.parametrize("config", PREDICTORS, ids=str)
def test_a_predictor_reads_step_by_step_what_it_reads_at_once(config) -> None:
    torch.manual_seed(0)
    predictor = config.build(VOCABULARY).double()
    tokens = Sequence(torch.randint(1, VOCABULARY, (3, 9)), torch.tensor([9, 4, 0]))
    whole = predictor(tokens)
    assert whole.shape == (3, 10, 8)
    state = predictor.start(3, torch.device("cpu"))
    state = tuple(part.double() if part.is_floating_point() else part for part in state)
    symbols = torch.full((3,), BEGIN)
    for u in range(10):
        output, state = predictor.step(symbols, state)
        for row, length in enumerate(tokens.lengths.tolist()):
            if u <= length:
                assert_close(output[row], whole[row, u])
        symbols = tokens.values[:, min(u, 8)]


@pytest.mark.parametrize("number", range(len(PREDICTORS)))
def test_the_loss_is_that_of_the_logits(number: int) -> None:
    torch.manual_seed(0)
    module = head(number)
    states = Sequence(torch.randn(2, 6, WIDTH), torch.tensor([6, 4]))
    tokens = Sequence(torch.tensor([[1, 2, 3], [5, 0, 0]]), torch.tensor([3, 1]))
    scores = module.join(module.audio(states.values)[:, :, None], module.text(module.predictor(tokens))[:, None])
    expected = transducer_loss(scores, tokens.values, states.lengths, tokens.lengths, reduction="none")
    assert_close(module.loss(states, tokens), expected)


def plain(module: TransducerHead, states: Tensor, allowed: Tensor | None = None) -> list[tuple[int, int]]:
    """Frame by frame, one utterance: (symbol, frame)."""
    text, state = module.begin(1)
    found = []
    for frame, audio in enumerate(module.audio(states)):
        for _ in range(MOST):
            scores = module.join(audio, text[0])
            if allowed is not None:
                scores = scores.masked_fill(~allowed, -torch.inf)
            symbol = int(scores.argmax())
            if symbol == 0:
                break
            found.append((symbol, frame))
            text, state = module.step(torch.tensor([symbol]), state)
    return found


@pytest.mark.parametrize("number", range(len(PREDICTORS)))
@pytest.mark.parametrize("lean", [-2.0, 0.5, 2.0, 100.0])
@torch.inference_mode()
def test_batched_greedy_decoding_is_the_plain_loop(number: int, lean: float) -> None:
    """From a head that never stops writing to one that writes nothing."""
    torch.manual_seed(number)
    module = head(number)
    for parameter in module.parameters():
        parameter.mul_(3)
    module.output.bias[0] += lean
    lengths = torch.tensor([40, 1, 17, 0, 33])
    states = Sequence(3 * torch.randn(5, 40, WIDTH), lengths).zero_padding()
    states.values[1:][~states.valid[1:]] = float("nan")
    found = decoded(GreedyTransducer(module, len(states)), states)
    for item, hypothesis in zip(states.unpad(), found, strict=True):
        expected = plain(module, item)
        assert hypothesis.tokens == [symbol for symbol, _ in expected]
        assert hypothesis.frames == [(frame, frame + 1) for _, frame in expected]
        assert 0 <= hypothesis.confidence <= 1
    if lean == -2.0:
        assert max(len(hypothesis.tokens) for hypothesis in found) > 40
    if lean == 100.0:
        assert all(hypothesis.tokens == [] for hypothesis in found)


@torch.inference_mode()
def test_only_allowed_symbols_are_written() -> None:
    torch.manual_seed(0)
    module = head()
    for parameter in module.parameters():
        parameter.mul_(3)
    allowed = torch.tensor([True, False, True, False, False, True, False])
    states = Sequence.from_list([3 * torch.randn(30, WIDTH)])
    found = decoded(GreedyTransducer(module, 1, any_order(allowed)), states)[0].tokens
    assert found == [symbol for symbol, _ in plain(module, states.values[0], allowed)]
    assert found and set(found) <= {2, 5}
