"""Audio as it arrives, for encoders that want the whole recording: windows of it give the words of the whole."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.decoding.greedy import forked
from isogloss.decoding.words import Word
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import ProjectionConfig, SubsamplingConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCConfig
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.model.streaming import ExactWordStream, Window, WindowedWordStream, word_stream
from isogloss.nn.masks import LocalContext
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from small_models import sound, streaming

SECONDS = 8
SHORT = Window(left=2.0, hop=0.5, right=1.0)
AUDIO = torch.from_numpy(sound(SECONDS)) * torch.linspace(0.2, 1.5, SECONDS * 16000)


def looking_ahead(rate: int) -> Model:
    """Frames know of less than a second to both sides, so that those of a window are those of the whole."""
    torch.manual_seed(0)
    blocks = ConformerConfig(layers=2, width=16, heads=2, kernel=5)
    features, embed = {
        25: (LogMelConfig(normalisation="none"), SubsamplingConfig(channels=4)),
        50: (WaveformConfig(channels=16, norm="layer", bias=True), ProjectionConfig()),
    }[rate]
    config = ModelConfig(
        features=features,
        encoder=SpeechEncoderConfig(embed=embed, blocks=blocks, context=LocalContext(left=5, right=2)),
        heads={"ctc": CTCConfig()},
    )
    model = Model(config, build_tokenizer(CharactersConfig(), ["abc "])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        output = model.ctc_head().output
        output.weight.mul_(6)
        # Around the mean state no symbol is favoured.
        output.bias.copy_(-output.weight @ states(model, AUDIO).values.mean(dim=(0, 1)))
    return model


def states(model: Model, audio: Tensor) -> Sequence:
    return model.encode(model.features(Sequence.from_list([audio]))).final


def whole(model: Model, audio: Tensor) -> list[Word]:
    found: list[Word] = model.words(model.decode(states(model, audio))[0], end=len(audio) / 16000)
    return found


def streamed(stream: WindowedWordStream, pieces: list[int]) -> list[Word]:
    fed = [word for piece in AUDIO.split(pieces) for word in stream.feed(piece)]
    assert fed
    return [*fed, *stream.finish()]


@pytest.mark.parametrize("rate", [25, 50])
@torch.inference_mode()
def test_words_of_windows_are_those_of_the_whole(rate: int) -> None:
    model = looking_ahead(rate)
    expected = whole(model, AUDIO)
    assert len(expected) > 10 and len({word.text for word in expected}) > 5
    for pieces in ([1600] * 10 * SECONDS, [len(AUDIO)], [1, 90_000, 7, len(AUDIO) - 90_008]):
        found = streamed(WindowedWordStream(model, window=SHORT), pieces)
        assert [word.text for word in found] == [word.text for word in expected]
        for one, other in zip(found, expected, strict=True):
            assert (one.start, one.end) == pytest.approx((other.start, other.end))
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


@pytest.mark.parametrize("rate", [25, 50])
@torch.inference_mode()
def test_what_is_final_is_late_by_no_more_than_is_declared_and_memory_does_not_grow(rate: int) -> None:
    model = looking_ahead(rate)
    stream = WindowedWordStream(model, window=SHORT)
    assert stream.latency == pytest.approx(2.0, abs=0.05)
    for piece in AUDIO.split(1600):
        stream.feed(piece)
        arrived = stream.begin * stream.stride + len(stream.samples)
        assert stream.final * stream.stride >= arrived - stream.latency * 16000
        assert len(stream.samples) <= (SHORT.left + SHORT.right + 2 * SHORT.hop) * 16000 + 2 * stream.stride
        assert len(stream.draft.tokens) < 50


@torch.inference_mode()
def test_what_is_partial_follows_what_is_final() -> None:
    model = looking_ahead(50)
    stream = WindowedWordStream(model, window=SHORT)
    final, grown = "", set()
    for number, piece in enumerate(AUDIO.split(8000), start=1):
        final = " ".join([final, *(word.text for word in stream.feed(piece))]).strip()
        said = whole(model, AUDIO[: 8000 * number])
        assert f"{final} {stream.partial}".split() == [word.text for word in said]
        grown.add(stream.partial)
    assert len(grown) > 10
    stream.finish()
    assert stream.partial == ""


@pytest.mark.parametrize("decoder", ["ctc", "transducer"])
@torch.inference_mode()
def test_a_forked_decoder_goes_on_by_itself(decoder: str) -> None:
    model = streaming()
    parts = [Sequence(part, torch.tensor([part.shape[1]])) for part in states(model, AUDIO).values.split(40, dim=1)]
    first, second = model.greedy_decoder(1, decoder), model.greedy_decoder(1, decoder)
    for part in parts[:2]:
        first.feed(part)
        second.feed(part)
    before = first.drafts[0].hypothesis()
    other = forked(first)
    for part in parts[2:]:
        other.feed(part)
    assert first.drafts[0].hypothesis() == before and other.drafts[0].hypothesis() != before
    for part in parts[2:]:
        first.feed(part)
        second.feed(part)
    assert first.drafts[0].hypothesis() == other.drafts[0].hypothesis() == second.drafts[0].hypothesis()


@torch.inference_mode()
def test_what_is_partial_where_a_model_streams_exactly() -> None:
    stream = ExactWordStream(streaming())
    fed = [(stream.feed(piece), stream.partial) for piece in AUDIO.split(8000)]
    assert any(partial for _, partial in fed)
    begun = [(partial, after[0].text) for (_, partial), (after, _) in pairwise(fed) if after]
    assert begun and all(word.startswith(partial.split()[0]) for partial, word in begun if partial)
    stream.finish()
    assert stream.partial == ""


def test_the_stream_that_fits_a_model() -> None:
    assert word_stream(streaming()).exact and not word_stream(looking_ahead(25)).exact
    with pytest.raises(IsoglossError, match="a hop above 0 s"):
        Window(hop=0.0)


@pytest.mark.parametrize("samples", [0, 1, 399, 1000, 9000])
def test_short_recordings(samples: int) -> None:
    model = looking_ahead(50)
    stream = WindowedWordStream(model)
    assert stream.feed(AUDIO[:samples]) == [] and stream.partial == ""
    found = stream.finish()
    assert all(word.end <= samples / 16000 for word in found) and (samples > 400 or len(found) <= 1)
