"""Chunk by chunk = the whole, for every encoder that can stream: states, gradients, symbols."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.decoding.words import words
from isogloss.encoders.blocks import BlocksConfig
from isogloss.encoders.causal_cnn import CausalCNNConfig
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import EmbedConfig, IdentityConfig, ProjectionConfig, SubsamplingConfig
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.encoders.recurrent import RecurrentConfig
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.model.streaming import ExactWordStream, SpeechStream
from isogloss.nn.masks import ChunkContext, FullContext, LocalContext
from isogloss.sequence import Sequence
from small_models import streaming

BINS = 20
SMALL = SubsamplingConfig(channels=4)


def conformer(position: str = "rotary", kernel: int = 4, norm: str = "layer") -> ConformerConfig:
    return ConformerConfig(layers=3, width=16, heads=2, kernel=kernel, position=position, norm=norm, causal=True)


def transformer(position: str = "rotary", **changes: object) -> TransformerConfig:
    return TransformerConfig.parse({"layers": 3, "width": 16, "heads": 2, "position": position} | changes, "test")


BLOCKS = [
    conformer(),
    conformer("relative"),
    conformer("none", kernel=1),
    conformer("rotary", kernel=15, norm="group"),
    transformer(),
    transformer("relative"),
    transformer("rotary", norm="post"),
    conformer("relative_key"),
    transformer("gated", buckets=8, max_distance=12),
]
CONTEXTS = [
    ChunkContext(size=5, left_chunks=0),
    ChunkContext(size=5, left_chunks=2),
    ChunkContext(size=1, left_chunks=7),
    LocalContext(left=7, right=0),
    LocalContext(left=0, right=0),
]


RUNNING = LogMelConfig(normalisation="running")
WAVEFORM = WaveformConfig(channels=6, norm="layer", bias=True)
CNN = CausalCNNConfig(kernels=(4, 1, 9), width=16)


def model(
    blocks: BlocksConfig, context: object, features: FeaturesConfig = RUNNING, embed: EmbedConfig = SMALL
) -> Model:
    torch.manual_seed(0)
    encoder = SpeechEncoderConfig(embed=embed, blocks=blocks, context=context)
    made = Model(ModelConfig(features=features, encoder=encoder)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def noise(batch: int, samples: int) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1))


ENCODERS = [
    *(SpeechEncoderConfig(embed=SMALL, blocks=blocks, context=context) for blocks in BLOCKS for context in CONTEXTS),
    SpeechEncoderConfig(embed=ProjectionConfig(), blocks=conformer(), context=CONTEXTS[1]),
    SpeechEncoderConfig(embed=SMALL, blocks=RecurrentConfig(width=16)),
    SpeechEncoderConfig(embed=IdentityConfig(), blocks=RecurrentConfig(cell="lstm", width=16)),
    SpeechEncoderConfig(embed=SMALL, blocks=CNN),
    SpeechEncoderConfig(embed=IdentityConfig(), blocks=CNN.model_copy(update={"residual": False})),
    SpeechEncoderConfig(embed=NearestConfig(codes=5), blocks=CNN),
]


@pytest.mark.parametrize("config", ENCODERS, ids=lambda config: f"{config.embed}-{config.blocks}-{config.context}")
def test_an_encoder_chunk_by_chunk_is_the_whole(config: SpeechEncoderConfig) -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(config, BINS).double().eval()
    for frames in (1, 3, 4 * 5, 4 * 5 + 1, 131):
        features = torch.randn(2, frames, BINS, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(2, encoder.framing.frames(frames), 16, dtype=torch.float64)
        whole = encoder(Sequence(features, torch.full((2,), frames))).final.values
        inputs = [features, *encoder.parameters()]
        expected = torch.autograd.grad((whole * weight).sum(), inputs, allow_unused=True)
        step = encoder.framing.stride * encoder.chunk
        for size in (step, 3 * step):
            past = encoder.begin()
            parts = [Sequence(part, torch.full((2,), part.shape[1])) for part in features.split(size, dim=1)]
            found = torch.cat([encoder(part, past=past).final.values for part in parts], dim=1)
            assert_close(found, whole, atol=1e-5, rtol=0)  # rotary angles are float32
            gradients = torch.autograd.grad((found * weight).sum(), inputs, allow_unused=True)
            for one, other in zip(gradients, expected, strict=True):
                assert (one is None) == (other is None)
                if one is not None and other is not None:
                    assert_close(one, other, atol=1e-5 * max(1.0, float(other.abs().max())), rtol=0)


CHUNKS = ChunkContext(size=5, left_chunks=2)
MODELS = {
    "two frames side by side": (conformer(), CHUNKS, RUNNING, ProjectionConfig(stack=2)),
    "log-mel, running": (conformer(), CHUNKS),
    "log-mel, none": (conformer(), CHUNKS, LogMelConfig(normalisation="none")),
    "log-mel, recurrent": (RecurrentConfig(width=16), FullContext()),
    "log-mel as it is, recurrent": (RecurrentConfig(width=16), FullContext(), RUNNING, IdentityConfig()),
    "causal convolutions": (CNN, FullContext(), RUNNING, IdentityConfig()),
    "waveform, quantised, causal convolutions": (
        CNN, FullContext(), WAVEFORM.model_copy(update={"log_compression": True}), GumbelConfig(codes=5)
    ),
    "waveform": (transformer(norm="post"), CHUNKS, WAVEFORM, ProjectionConfig()),
}


@pytest.mark.parametrize("parts", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("pieces", [[100] * 300, [30000], [1, 15999, 7, 13993], [0, 560, 0]])
@torch.inference_mode()
def test_audio_in_any_pieces_is_the_whole(pieces: list[int], parts: tuple) -> None:
    made = model(*parts)
    audio = noise(2, sum(pieces))
    whole = made.encoder(made.features(Sequence(audio, torch.full((2,), audio.shape[1])))).final.values
    stream = SpeechStream(made, batch=2)
    found = torch.cat([*(stream.feed(piece) for piece in audio.split(pieces, dim=1)), stream.finish()], dim=1)
    assert whole.shape[1] == made.framing.frames(sum(pieces))
    assert_close(found, whole, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_states_come_as_soon_as_their_chunk_is_there() -> None:
    made = model(conformer(), ChunkContext(size=5, left_chunks=2))
    stream = SpeechStream(made)
    assert stream.latency == pytest.approx(5 * 0.04 - 0.01 + 0.025)
    samples = round(stream.latency * 16000)
    assert stream.feed(noise(1, samples - 1)).shape[1] == 0
    assert stream.feed(noise(1, 1)).shape[1] == 5


@torch.inference_mode()
def test_memory_does_not_grow() -> None:
    made = model(conformer(), ChunkContext(size=5, left_chunks=2))
    stream = SpeechStream(made)
    for _ in range(20):
        stream.feed(noise(1, 16000))
        assert stream.samples.shape[1] < stream.need
        for past in stream.past.blocks:
            assert past.frames <= 10 and past.gated is not None and past.gated.shape[1] == 3


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((conformer(), FullContext()), "looks ahead without bound"),
        ((conformer(), LocalContext(left=4, right=1)), "looks ahead"),
        ((conformer().model_copy(update={"causal": False}), CHUNKS), "causal=true"),
        ((transformer(convolution={}), CHUNKS), "convolution=null"),
        ((conformer("rotary_inputs"), CHUNKS), "position=rotary"),
        ((conformer(), CHUNKS, LogMelConfig(normalisation="frames")), "normalisation: running"),
        ((conformer(), CHUNKS, LogMelConfig()), "normalisation: running"),
        ((conformer(), CHUNKS, WaveformConfig(channels=6)), "norm: layer"),
        ((conformer(), CHUNKS, WAVEFORM.model_copy(update={"normalisation": "utterance"})), "norm: layer"),
    ],
)
def test_a_model_that_cannot_stream_says_why(parts: tuple, said: str) -> None:
    with pytest.raises(IsoglossError, match=said) as error:
        SpeechStream(model(*parts))
    assert "cannot stream: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("decoder", ["ctc", "transducer"])
@pytest.mark.parametrize("pieces", [[3000] * 20, [60000], [1, 40000, 19999]])
@torch.inference_mode()
def test_words_as_they_are_said_are_those_of_the_whole(decoder: str, pieces: list[int]) -> None:
    made = streaming()
    audio = noise(1, 60000)[0] * torch.linspace(0.1, 3, 60000)
    states = made.encode(made.features(Sequence(audio[None], torch.tensor([60000])))).final
    hypothesis = made.decode(states, decoder)[0]
    expected = words(hypothesis, made.tokenizer, made.frame_seconds, end=60000 / 16000)
    stream = ExactWordStream(made, decoder)
    found = [stream.feed(piece) for piece in audio.split(pieces)]
    assert len(expected) > 5 and any(found[:-1]) == (len(pieces) > 1)
    found.append(stream.finish())
    together = [word for part in found for word in part]
    assert [word.text for word in together] == [word.text for word in expected]
    for one, other in zip(together, expected, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end))
    assert stream.draft.tokens == []


def test_an_empty_stream_says_nothing() -> None:
    stream = ExactWordStream(streaming())
    assert stream.feed(torch.zeros(0)) == [] and stream.finish() == []
    assert ExactWordStream(streaming()).finish() == []
