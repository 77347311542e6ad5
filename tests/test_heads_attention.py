"""The attention decoder: contract, the loss by hand, symbol by symbol = at once, and batched greedy decoding."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.decoding.greedy import GreedyAttention, decoded
from isogloss.heads.attention import AttentionConfig, AttentionDecoder
from isogloss.heads.ctc import CTCHead
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import END
from small_models import any_order

WIDTH, VOCABULARY = 12, 7
TOKENS = torch.tensor([1, 2, 2, 6])


def head(smoothing: float = 0.1) -> AttentionDecoder:
    return AttentionDecoder(AttentionConfig(layers=2, width=16, heads=2, smoothing=smoothing), WIDTH, VOCABULARY)


def losses(module: AttentionDecoder, states: Sequence) -> list[Tensor]:
    count = len(states)
    return list(module.loss(states, Sequence(TOKENS.expand(count, -1), torch.full((count,), len(TOKENS))))[:, None])


SUBJECTS = [Subject("attention", head, losses, (WIDTH,), tolerance=1e-5)]  # the softmax is float32


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


def ready(seed: int = 0, **values: float) -> AttentionDecoder:
    torch.manual_seed(seed)
    return head(**values).eval()


def clips() -> tuple[Sequence, Sequence]:
    states = Sequence.from_list([torch.randn(n, WIDTH) for n in (9, 4, 6)])
    tokens = Sequence(torch.tensor([[1, 2, 3, 3], [5, -9, -9, -9], [0, 0, 0, 0]]), torch.tensor([4, 1, 0]))
    return states, tokens


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_every_symbol_and_the_end(smoothing: float) -> None:
    module = ready(smoothing=smoothing)
    states, tokens = clips()
    found = module.loss(states, tokens)
    for row, (state, written) in enumerate(zip(states.unpad(), tokens.unpad(), strict=True)):
        memories = module.begin(Sequence.from_list([state]))
        symbol, expected = torch.tensor([END]), torch.zeros(())
        for target in [*written.tolist(), END]:
            scores = module.step(symbol, memories)[0]
            expected = expected - (1 - smoothing) * scores[target] - smoothing * scores.mean()
            symbol = torch.tensor([target])
        assert_close(found[row], expected)


def test_later_symbols_do_not_reach_earlier_ones() -> None:
    module = ready()
    states = Sequence.from_list([torch.randn(5, WIDTH)])
    one, other = (Sequence(torch.tensor([row]), torch.tensor([4])) for row in ([1, 2, 3, 4], [1, 2, 6, 6]))
    scores = [
        module.logits(x, module.begin(states, remember=False)) for x in (one, other)
    ]
    assert_close(scores[0][:, :2], scores[1][:, :2])
    assert not torch.allclose(scores[0][:, 2:], scores[1][:, 2:])


def plain(module: AttentionDecoder, states: Tensor, allowed: Tensor | None) -> list[int]:
    memories, symbol, found = module.begin(Sequence.from_list([states])), END, []
    while True:
        scores = module.step(torch.tensor([symbol]), memories)[0]
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        symbol = int(scores.argmax())
        if symbol == END or len(found) >= len(states):
            return found
        found.append(symbol)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("lean", [-50.0, 0.0, 50.0])
@torch.inference_mode()
def test_batched_greedy_decoding_is_the_plain_loop(lean: float, limited: bool) -> None:
    module, ctc = ready(seed=4), CTCHead(WIDTH, VOCABULARY)
    module.output.weight.mul_(6)
    module.output.bias[END] += lean
    states = Sequence.from_list([3 * torch.randn(n, WIDTH) for n in (30, 1, 17, 8)])
    allowed = torch.tensor([True, False, True, False, False, True, False]) if limited else None
    found = decoded(GreedyAttention(module, ctc, 4, None if allowed is None else any_order(allowed)), states)
    for item, hypothesis in zip(states.unpad(), found, strict=True):
        assert hypothesis.tokens == plain(module, item, allowed)
        assert len(hypothesis.frames) == len(hypothesis.tokens)
        edges = [edge for span in hypothesis.frames for edge in span]
        assert edges == sorted(edges) and all(0 <= edge <= len(item) for edge in edges)
    if lean > 0:
        assert all(hypothesis.tokens == [] for hypothesis in found)
    if lean < 0:
        assert [len(hypothesis.tokens) for hypothesis in found] == [30, 1, 17, 8]
