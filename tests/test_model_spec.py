"""`ModelSpec` against the model it describes, heads by name, and what does not fit together."""

import pytest
import torch

from isogloss.encoders.presets import preset
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.classifier import Classifier
from isogloss.heads.ctc import CTCHead
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig, ModelSpec
from isogloss.nn.predictors import LSTMConfig
from isogloss.sequence import Sequence
from isogloss.text.processor import TextProcessor
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TOKENIZER = build_tokenizer(CharactersConfig(), ["abc "])
TRANSDUCER = TransducerConfig(predictor=LSTMConfig(width=8), joiner=12)
TEXT = TextEncoderConfig(entry=1, convolutions=0, layers=0, duration_layers=0, refiner=0)


def model(tokenizer=TOKENIZER, **values) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(**{"encoder": preset("test"), "languages": ("ro", "ru")} | values), tokenizer).eval()


def test_sizes_and_rates_are_those_of_the_modules() -> None:
    made = model(text=TEXT, text_languages=("ro",))
    spec = made.spec
    assert (spec.width, spec.layers, spec.bins) == (made.encoder.width, made.encoder.layers, made.features.width)
    assert (spec.vocabulary, spec.units) == (TOKENIZER.size, made.text.symbols.num_embeddings) == (5, 5)
    assert (spec.entry, spec.languages, spec.text_languages) == (1, ("ro", "ru"), ("ro",))
    assert spec.frame_seconds == made.frame_seconds == pytest.approx(0.04)
    assert spec.stride * spec.frame_ms == 40
    lengths = torch.tensor([0, 399, 400, 8000, 16001])
    features = made.features(Sequence(torch.zeros(5, 16001), lengths))
    assert torch.equal(spec.feature_frames(lengths), features.lengths)
    assert torch.equal(spec.frames(lengths), made.encode(features).final.lengths)
    assert [spec.frames(n) for n in lengths.tolist()] == spec.frames(lengths).tolist()


def test_only_heads_with_something_to_tell_apart_are_built() -> None:
    heads = ["ctc", "phonemes", "attention", "speech", "language"]
    assert list(model(heads=heads).heads) == ["ctc", "attention", "speech", "language"]
    assert list(model(None, heads=heads).heads) == ["language"]
    assert list(model(None, heads=heads, languages=("ro",), phonemes=("a",)).heads) == ["phonemes"]
    bare = model(None, text=TEXT, languages=())
    assert not bare.heads and bare.text is None and not bare.decoders and bare.spec.heads == {}
    assert (bare.spec.entry, bare.spec.units, bare.spec.vocabulary) == (None, 0, 0)
    with pytest.raises(IsoglossError, match="has no recogniser"):
        bare.decode(Sequence(torch.zeros(1, 2, 64), torch.tensor([2])))


def test_heads_by_name_and_the_default_decoder() -> None:
    made = model(heads={"language": {}, "other": {"kind": "ctc"}, "rnnt": TRANSDUCER, "ctc": {}, "attention": {}})
    assert made.decoders == ("rnnt", "other", "ctc", "attention")
    assert made.decoder() is made.heads["rnnt"] and made.ctc_head() is made.head("other", CTCHead)
    assert made.head("rnnt", TransducerHead) is made.heads["rnnt"]
    states = Sequence(torch.randn(2, 9, made.encoder.width), torch.tensor([9, 4]))
    assert made.decode(states, "ctc") != made.decode(states, "other")
    assert torch.equal(made.identify(states), made.head("language", Classifier)(states))
    with pytest.raises(IsoglossError, match=r'no decoder "cct"\. Did you mean "ctc"\? It has: rnnt, other'):
        made.decode(states, "cct")
    with pytest.raises(IsoglossError, match=r'no head "transducer"; add model\.heads\.transducer to the recipe'):
        made.head("transducer", TransducerHead)
    with pytest.raises(IsoglossError, match='"ctc" of this model is a CTCHead, and a TransducerHead is wanted'):
        made.head("ctc", TransducerHead)
    with pytest.raises(IsoglossError, match=r'"ctc" of this model was not built: it wants model\.tokenizer'):
        model(None).head("ctc", CTCHead)
    with pytest.raises(IsoglossError, match="does not identify languages"):
        model(languages=("ro",)).identify(states)
    with pytest.raises(IsoglossError, match="no CTC head for symbols"):
        model(heads={"transducer": TRANSDUCER}).ctc_head()


def test_a_transducer_needs_no_ctc_head() -> None:
    made = model(heads={"transducer": TRANSDUCER})
    made.heads["transducer"].output.weight.data.mul_(6)
    states = Sequence(torch.randn(1, 30, made.encoder.width), torch.tensor([30]))
    assert made.decoders == ("transducer",) and made.decode(states)[0].tokens


def test_intermediate_losses_stand_at_the_conditioned_blocks_or_in_the_middle() -> None:
    encoder = preset("test").model_copy(update={"blocks": preset("test").blocks.model_copy(update={"layers": 5})})
    assert model(encoder=encoder).spec.middle == (3,)
    heads = {"ctc": {"conditioning": [4, 1]}, "phonemes": {"conditioning": [2]}}
    assert model(encoder=encoder, heads=heads).spec.middle == (1, 4)  # there are no phonemes
    both = model(encoder=encoder, heads=heads | {"phonemes": {"conditioning": [2, 4]}}, phonemes=("a", "b"))
    assert both.spec.middle == (1, 2, 4)


def test_two_heads_may_condition_one_block() -> None:
    heads = {"ctc": {"conditioning": [1]}, "phonemes": {"conditioning": [1]}}
    made = model(heads=heads, phonemes=("a", "b"))
    features = made.features(Sequence(torch.randn(1, 8000), torch.tensor([8000])))
    x = made.encoder(features, layers=(1,)).layers[1]
    for name in ("ctc", "phonemes"):
        head = made.head(name, CTCHead)
        x = x.map(lambda values, head=head: values + head.conditioning.back(head.output(values).softmax(dim=-1)))
    expected = made.encoder.contextualise(x, 1).final
    assert torch.allclose(made.encode(features).final.values, expected.values, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"heads": {"ctc": {"conditioning": [2]}}}, r"model\.heads\.ctc\.conditioning \[2\] must name blocks .*1 to 1"),
        ({"text": TEXT.model_copy(update={"entry": 2})}, r"text\.entry 2 leaves no block .* the encoder has 2"),
        ({"text": TEXT.model_copy(update={"units": "phonemes"})}, r"add model\.heads\.phonemes: \{\}"),
    ],
)
def test_what_does_not_fit_together_is_told(values: dict, said: str) -> None:
    config = ModelConfig(**{"encoder": preset("test")} | values)
    units = config.text.units if config.text else "symbols"
    with pytest.raises(IsoglossError, match=said):
        ModelSpec(config, TextProcessor(TOKENIZER, (), units))
    with pytest.raises(IsoglossError, match=said):
        Model(config, TOKENIZER)
