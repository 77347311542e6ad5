"""Alignment of known texts: who aligns, durations that fill the audio, and transcripts with their frames."""

import pytest
import torch

from isogloss.encoders.presets import preset
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.transducer import TransducerConfig
from isogloss.model.alignment import Aligner, align, locate
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.ctc import ctc_best_path
from isogloss.nn.predictors import LSTMConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TRANSDUCER = TransducerConfig(predictor=LSTMConfig(width=8), joiner=12)
IPA = ("a", "b", "c")


def model(units: str = "symbols", **heads: object) -> Model:
    torch.manual_seed(0)
    text = TextEncoderConfig(entry=1, units=units, convolutions=0, layers=0, duration_layers=0, refiner=0)
    config = ModelConfig(encoder=preset("test"), heads=heads or {"ctc": {}}, phonemes=IPA, text=text)
    return Model(config, build_tokenizer(CharactersConfig(), ["abc "])).eval()


def states(*lengths: int) -> Sequence:
    torch.manual_seed(1)
    return Sequence.from_list([torch.randn(n, 64) for n in lengths])


UNITS = Sequence(torch.tensor([[1, 2, 2], [3, -9, -9], [1, 2, 3], [9, 9, 9]]), torch.tensor([3, 1, 3, 0]))


@pytest.mark.parametrize("head", ["ctc", "transducer"])
def test_durations_fill_the_audio_where_there_is_a_path_and_evenly_where_not(head: str) -> None:
    made = model(ctc={}, **({"transducer": TRANSDUCER} if head == "transducer" else {}))
    given = states(12, 5, 2, 7)
    lasting, found = align(Aligner.of(made, given), UNITS)
    assert torch.equal(lasting.zero_padding().values.sum(dim=1), given.lengths)
    assert torch.equal(lasting.lengths, UNITS.lengths + 1)
    starts = made.heads[head].align(given, UNITS)
    # Three symbols in two frames: a transducer may write several in one frame, CTC may not.
    assert found.tolist() == [True, True, head == "transducer", True]
    assert lasting.values[0].cumsum(dim=0)[:3].tolist() == starts[0].tolist()
    if head == "ctc":
        assert lasting.values[2].tolist() == [0, 0, 1, 1] and lasting.values[3, 0] == 7


def test_the_transducer_aligns_symbols_and_ctc_phonemes() -> None:
    plain, both = model(), model(ctc={}, transducer=TRANSDUCER)
    assert Aligner.of(plain, states(3)).head is plain.heads["ctc"]
    assert Aligner.of(both, states(3)).head is both.heads["transducer"]
    pronounced = model("phonemes", ctc={}, transducer=TRANSDUCER, phonemes={})
    assert Aligner.of(pronounced, states(3)).head is pronounced.heads["phonemes"]


def test_a_transducer_alone_aligns_too() -> None:
    alone = model(transducer=TRANSDUCER)
    lasting, found = align(Aligner.of(alone, states(12, 5, 2, 7)), UNITS)
    assert bool(found.all()) and lasting.zero_padding().values.sum(dim=1).tolist() == [12, 5, 2, 7]
    with pytest.raises(IsoglossError, match="no CTC head for symbols"):
        Aligner.of(model(phonemes={}), states(3))


def test_a_transcript_is_located_as_if_it_had_been_decoded() -> None:
    made, given = model(), states(20, 9)
    found = locate(made, given, ["Ab c!", "ba"], ["ro", None])
    for hypothesis, item, text in zip(found, given.unpad(), ["ab c", "ba"], strict=True):
        assert made.tokenizer.decode(hypothesis.tokens) == text
        tokens = Sequence.from_list([torch.tensor(hypothesis.tokens)])
        spans, _ = ctc_best_path(made.ctc_head()(Sequence.from_list([item])), tokens)
        assert [list(span) for span in hypothesis.frames] == spans[0].tolist()
    assert [word.text for word in made.words(found[0])] == ["ab", "c"]
    # Three symbols in two frames have no path: their frames are interpolated.
    (short,) = locate(made, states(2), ["abc"], [None])
    assert short.interpolated and short.frames == [(0, 0), (0, 1), (1, 2)]
    assert short.probabilities[0] == 0 and all(0 < probability < 1 for probability in short.probabilities[1:])
    assert all(0 <= word.start <= word.end and word.interpolated for word in made.words(short, end=0.08))
    with pytest.raises(IsoglossError, match="no CTC head"):
        locate(Model(ModelConfig(encoder=preset("test"))), given, ["a", "b"], [None, None])
