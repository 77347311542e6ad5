"""Heads by name: what a name says, what is refused and how, and what each configuration builds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from isogloss.config import Config
from isogloss.decoding.attention_beam import attention_beam
from isogloss.decoding.beam import Beam
from isogloss.decoding.ctc_beam import ctc_beam
from isogloss.decoding.greedy import GreedyAttention, GreedyCTC, GreedyTransducer, decoded
from isogloss.decoding.transducer_beam import transducer_beam
from isogloss.errors import IsoglossError
from isogloss.heads import KINDS, Heads
from isogloss.heads.attention import AttentionConfig
from isogloss.heads.base import Sizes
from isogloss.heads.classifier import Classifier, ClassifierConfig
from isogloss.heads.ctc import CTCConfig, CTCHead
from isogloss.heads.speech import SpeechDecoderConfig
from isogloss.heads.transducer import TransducerConfig
from isogloss.nn.predictors import LSTMConfig
from isogloss.sequence import Sequence
from small_models import any_order

WIDTH, VOCABULARY = 12, 7
SMALL = {
    "ctc": CTCConfig(),
    "transducer": TransducerConfig(predictor=LSTMConfig(width=8), joiner=10),
    "attention": AttentionConfig(layers=1, width=16, heads=2, dropout=0.0),
}


class Holder(Config):
    """What has heads."""

    heads: Heads = Field(description="heads")


def parsed(heads: Any) -> dict[str, Any]:
    return Holder.parse({"heads": heads}, "x.yaml").heads


def test_a_name_says_kind_and_target() -> None:
    expected = {
        "ctc": CTCConfig(),
        "phonemes": CTCConfig(target="phonemes"),
        "transducer": TransducerConfig(),
        "attention": AttentionConfig(),
        "speech": SpeechDecoderConfig(),
        "language": ClassifierConfig(),
    }
    assert parsed(list(expected)) == expected
    assert parsed({name: {} for name in expected}) == parsed(dict.fromkeys(expected)) == expected
    assert list(parsed(["language", "ctc"])) == ["language", "ctc"]
    assert {head.kind for head in expected.values()} == set(KINDS)


def test_values_stand_beside_what_the_name_says_and_other_names_say_their_kind() -> None:
    found = parsed({"phonemes": {"conditioning": [1]}, "second": {"kind": "ctc"}, "ctc": {"kind": "transducer"}})
    assert found["phonemes"] == CTCConfig(target="phonemes", conditioning=(1,))
    assert found["second"] == CTCConfig() and found["ctc"] == TransducerConfig()
    again = Holder.parse(Holder(heads=found).plain(), "json")
    assert again.heads == found


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ({"transducr": {}}, r'"heads.transducr" has the kind "transducr". Did you mean "transducer"? Known: '),
        (["ctc", "lid"], r'"heads.lid" has the kind "lid".'),
        ({"ctc": {"kind": "attenton"}}, r'"heads.ctc" has the kind "attenton". Did you mean "attention"?'),
        ({"ctc": {"conditionin": [1]}}, r'unknown key "heads.ctc.conditionin". Did you mean "conditioning"?'),
        ({"ctc": {"conditioning": 1}}, r'"heads.ctc.conditioning" is 1: give a list, as in [a, b].'),
        ({"transducer": {"target": "phonemes"}}, r'"heads.transducer.target"'),
        ({"ctc": 3}, r'"heads.ctc" is 3: give keys and values'),
        ("ctc", r""""heads" is 'ctc': give keys and values"""),
        (["ctc", "ctc"], r'the head "ctc" is there twice'),
        ({"keys": {"kind": "ctc"}}, r'a head cannot have the name "keys"'),
        ({"a.b": {"kind": "ctc"}}, r'a head cannot have the name "a.b"'),
        ([3], r'a head cannot have the name "3"'),
        (["attention"], r'"attention" works with a head "ctc" of the kind ctc; add ctc: {}.'),
        ({"attention": {"aligner": "phonemes"}, "phonemes": {}}, r'works with a head "phonemes" of the kind ctc'),
        ({"ctc": {}, "speech": {}}, r'"speech" works with a head "attention" of the kind attention'),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(heads: Any, said: str) -> None:
    with pytest.raises(IsoglossError) as error:
        parsed(heads)
    message = str(error.value)
    assert message.startswith("x.yaml: ") and said in message and "\n" not in message and "alue error" not in message


def test_each_configuration_builds_for_the_sizes_of_a_model() -> None:
    heads = parsed({**SMALL, "phonemes": {}, "speech": {"prenet": 8, "channels": 4, "codes": 5}, "language": {}})
    sizes = Sizes(WIDTH, symbols=VOCABULARY, phonemes=4, languages=3, features=6, stride=4, heads=heads)
    built = {name: head.build(sizes) for name, head in heads.items()}
    assert built["ctc"].output.out_features == VOCABULARY and built["phonemes"].output.out_features == 4
    assert built["transducer"].output.out_features == built["attention"].output.out_features == VOCABULARY
    assert built["language"].output.out_features == 3 and built["speech"].frames.out_features == 4 * 6
    assert [sizes.of(head.target) for head in heads.values()] == [VOCABULARY] * 3 + [4, 6, 3]


def ready(name: str, seed: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    head = SMALL[name].build(Sizes(WIDTH, symbols=VOCABULARY)).eval()
    head.output.weight.data.mul_(6)
    return head


GREEDY: dict[str, Callable[..., Any]] = {
    "ctc": lambda head, ctc, *rest: GreedyCTC(head, *rest),
    "transducer": lambda head, ctc, *rest: GreedyTransducer(head, *rest),
    "attention": GreedyAttention,
}
BEAMS: dict[str, Callable[..., Any]] = {
    "ctc": lambda head, ctc, states, *rest: ctc_beam(head(states), *rest),
    "transducer": lambda head, ctc, *rest: transducer_beam(head, *rest),
    "attention": attention_beam,
}


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_a_head_decodes_itself(name: str) -> None:
    """Greedily and by a beam as decoding/ does it, the attention decoder with the aligner among the heads."""
    head, ctc = ready(name), ready("ctc", seed=5)
    heads = {"ctc": ctc, name: head}
    states = Sequence.from_list([3 * torch.randn(n, WIDTH) for n in (20, 1, 9)])
    allowed = any_order(torch.tensor([True, False, True, True, False, True, False]))
    for limit in (None, allowed):
        found = decoded(head.greedy(3, limit, heads), states)
        assert found == decoded(GREEDY[name](head, ctc, 3, limit), states) and any(one.tokens for one in found)
        beam = Beam(width=3, most=2, allowed=limit)
        assert head.beam(states, beam, heads) == BEAMS[name](head, ctc, states, beam)


def test_an_attention_decoder_wants_its_aligner() -> None:
    with pytest.raises(IsoglossError, match='wants the CTC head "ctc" beside it'):
        ready("attention").greedy(1, heads={})


def test_the_classifiers_loss_is_the_cross_entropy_of_each_utterance() -> None:
    torch.manual_seed(0)
    head = Classifier(WIDTH, 3)
    states = Sequence(torch.randn(4, 9, WIDTH), torch.tensor([9, 1, 4, 7]))
    classes = torch.tensor([2, 0, 1, 1])
    found = head.loss(states, classes)
    assert found.shape == (4,)
    assert_close(found.sum(), cross_entropy(head(states), classes, reduction="sum"))


def test_a_self_conditioned_head_feeds_its_posteriors_back_after_its_blocks() -> None:
    torch.manual_seed(0)
    plain, head = CTCHead(WIDTH, VOCABULARY), CTCHead(WIDTH, VOCABULARY, (2, 5))
    assert plain.between() == {} and list(head.between()) == [2, 5]
    states = torch.randn(2, 4, WIDTH)
    expected = states + head.conditioning.back(head.output(states).softmax(dim=-1))
    assert_close(head.between()[5](states), expected)
    head.between()[2](states).sum().backward()
    assert head.output.weight.grad.abs().sum() > 0 and head.conditioning.back.weight.grad.abs().sum() > 0
