"""The text encoder: contracts, units of bytes, languages, and its place in the model."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.encoders.presets import preset
from isogloss.encoders.text import SpelledEmbedding, TextEncoder, TextEncoderConfig, latin
from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import (
    BytesConfig,
    ByteTokenizer,
    CharactersConfig,
    SentencePieceConfig,
    TokenizerConfig,
    build_tokenizer,
)

SMALL = TextEncoderConfig(entry=1, convolutions=1, layers=1, heads=2, duration_layers=1, refiner=1, dropout=0.0)
TEXT = "не da ok"


def encoder(**changes: object) -> TextEncoder:
    return TextEncoder(SMALL.model_copy(update=changes), 8, [b"", b"a", b"b"], ("ro", "ru"), 0.04)


class Through(nn.Module):
    """Symbols read off the input -> ê_t and log durations; the input is added to e_t, to have a gradient."""

    def __init__(self, **changes: object):
        super().__init__()
        self.text = encoder(**changes)

    def forward(self, batch: Sequence) -> list[Tensor]:
        """(B, U, 1) -> (T, D + 1) of each."""
        tokens = batch.with_values(1 + (batch.zero_padding().values[..., 0] > 0).long())
        units = self.text.embed(tokens, ["ro"] * len(batch))
        units = units.with_values(units.values + nn.functional.pad(batch.zero_padding().values, (0, 0, 1, 0)))
        lasting = units.with_values(1 + torch.arange(units.values.shape[1]).expand(len(batch), -1) % 3)
        states = self.text(units, lasting.zero_padding())
        durations = units.with_values(self.text.duration(units))
        return [
            torch.cat([state, duration.mean().expand(len(state), 1).to(state.dtype)], dim=1)
            for state, duration in zip(states.unpad(), durations.unpad(), strict=True)
        ]


@pytest.mark.parametrize(
    "subject",
    [
        Subject(f"text-{name}", lambda changes=changes: Through(**changes), lambda m, b: m(b), (1,), tolerance=1e-6)
        for name, changes in {
            "symbols": {},
            "bytes": {"units": "bytes"},
            "latin": {"units": "latin"},
            "plain": {"refiner": 0},
        }.items()
    ],
    ids=str,
)
class TestContract(Contract):
    test_every_parameter_gets_a_gradient = None  # vectors of symbols that do not occur have none


def test_what_sounds_alike_begins_alike() -> None:
    """κ, к and k are one vector at first, ш and ș are not s; a byte alone and a blank are nobody's sound."""
    assert [latin(symbol.encode()) for symbol in "κкkшșαй"] == [b"k", b"k", b"k", b"sh", b"s", b"a", b"y"]
    assert latin(b"") == latin(b"\xd1") == b""
    config = TextEncoderConfig(units="latin")
    embedding = TextEncoder(config, 16, [b"", *(symbol.encode() for symbol in "κкsșx")], (), 0.04).symbols
    vectors = embedding(torch.arange(6))
    assert torch.equal(vectors[1], vectors[2]) and torch.equal(vectors[3], vectors[4])
    assert not torch.equal(vectors[1], vectors[5])
    vectors[1].sum().backward()
    assert embedding.own.weight.grad[1].abs().sum() > 0 and embedding.own.weight.grad[2].abs().sum() == 0


def test_a_symbol_is_the_sum_of_its_bytes() -> None:
    embedding = SpelledEmbedding([b"", "щ".encode(), b"a"], 4)
    first, second = "щ".encode()
    wanted = embedding.byte.weight[first] + embedding.place.weight[0]
    wanted = wanted + embedding.byte.weight[second] + embedding.place.weight[1]
    found = embedding(torch.tensor([[1, 2, 0]]))[0]
    assert_close(found[0], wanted)
    assert_close(found[1], embedding.byte.weight[ord("a")] + embedding.place.weight[0])
    assert_close(found[2], embedding.byte.weight[256] + embedding.place.weight[0])  # silence has a vector too


@pytest.mark.parametrize("config", [BytesConfig(), CharactersConfig(), SentencePieceConfig(size=300)])
def test_spelling_is_the_text(config: TokenizerConfig) -> None:
    tokenizer = build_tokenizer(config, [TEXT])
    spelling = tokenizer.spelling()
    assert len(spelling) == tokenizer.size and spelling[0] == b""
    assert b"".join(spelling[symbol] for symbol in tokenizer.encode(TEXT)).decode() == TEXT


def test_languages_have_vectors_and_strange_ones_are_told() -> None:
    text = encoder().eval()
    tokens = Sequence(torch.tensor([[1, 2]]), torch.tensor([2]))
    found = {tag: text.embed(tokens, [tag]).values for tag in ("ro", "ru", None)}
    assert not torch.equal(found["ro"], found["ru"]) and not torch.equal(found["ro"], found[None])
    with pytest.raises(IsoglossError, match=r'does not know the language "rm".*It knows: ro, ru'):
        text.embed(tokens, ["rm"])
    plain = encoder(languages=False).eval()
    assert torch.equal(plain.embed(tokens, ["ro"]).values, plain.embed(tokens, ["xx"]).values)


def test_predicted_durations_are_whole_and_without_dropout() -> None:
    text = encoder(dropout=0.5).train()
    units = Sequence(torch.randn(3, 6, 8), torch.tensor([6, 1, 3]))
    first, second = text.durations(units), text.durations(units)
    assert torch.equal(first.values, second.values) and text.duration.training
    assert bool((first.zero_padding().values.sum(dim=1) >= 1).all())  # not even silence is empty
    with torch.no_grad():
        text.duration.output.bias.fill_(-100.0)
    assert text.durations(units).values.sum(dim=1).tolist() == [1, 1, 1]
    with torch.no_grad():
        text.duration.output.bias.fill_(100.0)
    assert text.durations(units).values.sum(dim=1).tolist() == [16 * 6, 16, 16 * 3]


def test_without_layers_every_unit_lasts_alike() -> None:
    text = encoder(duration_layers=0)
    predicted = text.duration(Sequence(torch.randn(3, 6, 8), torch.tensor([6, 1, 3])))
    assert predicted.unique().numel() == 1
    predicted.sum().backward()
    assert text.duration.output.bias.grad == 18


def model(entry: int = 1, conditioning: tuple[int, ...] = ()) -> Model:
    torch.manual_seed(0)
    text = SMALL.model_copy(update={"entry": entry, "heads": 4})
    config = ModelConfig(
        encoder=preset("test"), text=text, text_languages=("ro", "ru"), heads={"ctc": {"conditioning": conditioning}},
        alphabets={"ro": (1, 2), "ru": (3,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(), [TEXT])).eval()


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("conditioning", [(), (1,)])
def test_speech_is_heard_then_shared(entry: int, conditioning: tuple[int, ...]) -> None:
    """The first blocks and then the others are the encoder."""
    subject = model(entry, conditioning)
    audio = Sequence(torch.randn(2, 8000), torch.tensor([8000, 5000]))
    features = subject.features(audio)
    whole = subject.encode(features, layers=(2,))
    parts = subject.encode_shared(subject.encode_speech(features), layers=(2,))
    assert torch.equal(whole.final.zero_padding().values, parts.final.zero_padding().values)
    assert torch.equal(whole.layers[2].zero_padding().values, parts.layers[2].zero_padding().values)


def test_text_is_read_at_the_frame_rate_of_speech() -> None:
    subject = model()
    tokens = Sequence(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    lasting = Sequence(torch.tensor([[4, 1, 0, 2]]), torch.tensor([4]))
    read = subject.encode_text(tokens, ["ro"], lasting)
    assert read.lengths.tolist() == [7] and read.values.shape == (1, 7, 64)
    assert subject.encode_shared(read).final.values.shape == (1, 7, 64)
    predicted = subject.encode_text(tokens, ["ro"])
    assert predicted.lengths.tolist() == subject.text_encoder.durations(
        subject.text_encoder.embed(tokens, ["ro"])
    ).values.sum(dim=1).tolist()  # fmt: skip


def test_a_folder_keeps_the_text_encoder(tmp_path) -> None:
    subject = model()
    save_model(subject, tmp_path / "model", "# card\n", {})
    again = load_model(tmp_path / "model")
    tokens = Sequence(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    assert torch.equal(subject.encode_text(tokens, ["ru"]).values, again.encode_text(tokens, ["ru"]).values)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(IsoglossError, match="leaves no block for text to share; the encoder has 2"):
        model(entry=2)
    config = ModelConfig(encoder=preset("test"))
    with pytest.raises(IsoglossError, match="no text encoder"):
        Model(config, ByteTokenizer()).encode_text(Sequence(torch.tensor([[1]]), torch.tensor([1])))
