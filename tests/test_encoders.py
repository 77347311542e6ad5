"""Encoders: the contract, context policies, sizes and hidden states."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.encoders.conformer import ConformerBlock, ConformerConfig
from isogloss.encoders.presets import PRESETS, preset
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.encoders.transformer import TransformerBlock, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext
from isogloss.sequence import Sequence

WIDTH = 16
LOCAL, CHUNK, HISTORY = (
    LocalContext(left=3, right=2),
    ChunkContext(size=5),
    ChunkContext(size=3, left_chunks=2),
)


def conformer(position: str = "rotary", kernel: int = 5, norm: str = "layer", layers: int = 2) -> ConformerConfig:
    return ConformerConfig(
        layers=layers, width=WIDTH, heads=2, kernel=kernel, position=position, norm=norm, dropout=0.0
    )


def transformer(position: str = "rotary", layers: int = 2) -> TransformerConfig:
    return TransformerConfig(layers=layers, width=WIDTH, heads=2, position=position, dropout=0.0)


def stack(blocks: ConformerConfig | TransformerConfig, context: Context) -> Subject:
    kernel = f"-{blocks.kernel}-{blocks.norm}" if isinstance(blocks, ConformerConfig) else ""
    name = f"{blocks.kind}-{blocks.position}{kernel}-{context.kind}"
    return Subject(name, lambda: Stack(blocks), lambda m, x: m(x, context).final.unpad(), (WIDTH,))


def speech(blocks: ConformerConfig | TransformerConfig, context: Context) -> Subject:
    config = SpeechEncoderConfig(blocks=blocks, channels=4, context=context)

    def call(module: nn.Module, batch: Sequence) -> list[Tensor]:
        encoded = module(batch, layers=(0, 1))
        return [torch.cat(rows) for rows in zip(encoded.final.unpad(), encoded.layers[1].unpad(), strict=True)]

    return Subject(f"speech-{blocks.kind}-{context.kind}", lambda: SpeechEncoder(config, 6), call, (6,))


SUBJECTS = [
    stack(conformer("rotary"), FullContext()),
    stack(conformer("relative", kernel=4, norm="group"), LOCAL),
    stack(conformer("none", kernel=1), CHUNK),
    stack(conformer("rotary", kernel=8, norm="group"), HISTORY),
    stack(transformer("rotary"), LOCAL),
    stack(transformer("relative"), CHUNK),
    stack(transformer("none"), FullContext()),
    speech(conformer("relative"), FullContext()),
    speech(conformer("rotary", kernel=4), CHUNK),
    speech(transformer("rotary"), LOCAL),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


def ready(blocks: ConformerConfig | TransformerConfig) -> Stack:
    torch.manual_seed(0)
    return Stack(blocks).double().eval()


def states(frames: int) -> Tensor:
    return torch.randn(1, frames, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def outputs(module: Stack, x: Tensor, context: Context) -> Tensor:
    return module(Sequence(x, torch.tensor([x.shape[1]])), context).final.values[0]


@pytest.mark.parametrize("position", ["rotary", "relative"])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_a_chunk_bounds_what_a_frame_can_change(position: str, kernel: int) -> None:
    """(a) Only frames of its chunk, and those the convolutions of all layers reach from there."""
    module, x, size, layers = ready(conformer(position, kernel, layers=3)), states(60), 10, 3
    before, after = (kernel - 1) // 2, kernel // 2  # frames the convolution sees on each side
    for frame in (0, 29, 30, 59):
        changed = x.clone()
        changed[0, frame] += states(1)[0, 0]  # a constant would vanish in the norms
        difference = outputs(module, changed, ChunkContext(size=size)) - outputs(module, x, ChunkContext(size=size))
        touched = set(difference.abs().amax(dim=-1).nonzero().flatten().tolist())
        reach = {frame}
        for _ in range(layers):  # a layer spreads to whole chunks, then by its convolution
            reach = {n for m in reach for n in range(m // size * size, (m // size + 1) * size)}
            reach = {n for m in reach for n in range(m - after, m + before + 1) if 0 <= n < 60}
        assert touched == reach


@pytest.mark.parametrize("blocks", [conformer(kernel=1), conformer("relative", kernel=1), transformer()], ids=str)
def test_chunks_without_convolution_are_each_chunk_alone(blocks: ConformerConfig | TransformerConfig) -> None:
    """(b)"""
    module, x = ready(blocks), states(47)
    whole = outputs(module, x, ChunkContext(size=10))
    alone = torch.cat([outputs(module, part, FullContext()) for part in x.split(10, dim=1)])
    # Rotary angles are float32 and larger further on.
    assert_close(whole, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("blocks", [conformer(), conformer("relative"), transformer()], ids=str)
def test_one_chunk_is_full_context(blocks: ConformerConfig | TransformerConfig) -> None:
    """(c)"""
    module, x = ready(blocks), states(20)
    full = outputs(module, x, FullContext())
    for size in (20, 21, 200):
        assert_close(outputs(module, x, ChunkContext(size=size)), full, atol=1e-12, rtol=0)
    assert not torch.allclose(outputs(module, x, ChunkContext(size=19)), full, atol=1e-6)


@pytest.mark.parametrize(("left", "right", "layers"), [(3, 2, 1), (3, 2, 4), (0, 1, 3), (2, 0, 3), (0, 0, 2)])
def test_receptive_field_of_local_layers(left: int, right: int, layers: int) -> None:
    """(d) 1 + layers · (left + right), measured by gradient."""
    module, x, centre = ready(transformer(layers=layers)), states(41).requires_grad_(), 20
    out = outputs(module, x, LocalContext(left=left, right=right))
    weight = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((out[centre] * weight).sum(), x)  # a plain sum after LayerNorm is 0
    seen = gradient[0].abs().amax(dim=-1).nonzero().flatten().tolist()
    assert seen == list(range(centre - layers * left, centre + layers * right + 1))
    assert len(seen) == 1 + layers * (left + right)


def blocks_size(name: str) -> int:
    with torch.device("meta"):
        module = Stack(preset(name).blocks)
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    assert round(blocks_size("toy") / 1e6, 2) == 25.32
    assert round(blocks_size("conformer_l") / 1e6, 2) == 107.51
    assert blocks_size("usm_600m") == 604_889_088
    assert round(blocks_size("usm_2b") / 1e6, 2) == 1813.76
    assert round((blocks_size("transformer_base") - 2 * 768) / 1e6, 2) == 85.05
    assert round((blocks_size("transformer_large") - 2 * 1024) / 1e6, 2) == 302.31


@pytest.mark.parametrize(("width", "kernel", "norm"), [(64, 5, "layer"), (144, 32, "group"), (512, 15, "layer")])
def test_a_conformer_block_has_24_d2_32_k_d_parameters(width: int, kernel: int, norm: str) -> None:
    with torch.device("meta"):
        block = ConformerBlock(ConformerConfig(width=width, heads=4, kernel=kernel, norm=norm, position="relative"))
    assert sum(p.numel() for p in block.parameters()) == 24 * width**2 + (32 + kernel) * width


def test_a_transformer_block_has_12_d2_13_d_parameters() -> None:
    with torch.device("meta"):
        block = TransformerBlock(TransformerConfig(width=96, heads=4))
    assert sum(p.numel() for p in block.parameters()) == 12 * 96**2 + 13 * 96


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_builds_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        encoder = SpeechEncoder(preset(name), 80)
    assert encoder.layers == len(encoder.stack.blocks)
    assert SpeechEncoderConfig.parse(preset(name).plain(), "round trip") == preset(name)


def test_an_unknown_preset_is_one_sentence() -> None:
    with pytest.raises(IsoglossError, match=r'no encoder preset "smal"\. Did you mean "small"\?'):
        preset("smal")


def test_hidden_states_are_those_of_the_blocks() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(blocks=conformer(layers=3), channels=4), 6).eval()
    features = Sequence(torch.randn(2, 30, 6), torch.tensor([30, 11]))
    encoded = encoder(features, layers=(0, 1, 2, 3))
    assert list(encoded.layers) == [0, 1, 2, 3]
    assert torch.equal(encoded.final.values, encoded.layers[3].values)
    x, lengths = encoded.layers[0].values, encoded.final.lengths
    assert lengths.tolist() == [8, 3]
    clean = encoder.subsampling(features).zero_padding().values
    assert torch.equal(x, clean)
    for number, block in enumerate(encoder.stack.blocks, start=1):
        x = block(x, encoded.final.valid, _mask(encoded.final))
        assert torch.equal(encoded.layers[number].values, x)
    assert encoder(features).layers == {}
    assert torch.equal(encoder(features).final.values, encoded.final.values)


def _mask(states: Sequence) -> Tensor:
    from isogloss.nn.masks import attention_mask

    mask = attention_mask(states.valid, FullContext())
    assert mask is not None
    return mask


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
def test_recomputing_activations_changes_nothing(kind: str) -> None:
    blocks = (conformer if kind == "conformer" else transformer)().model_copy(update={"dropout": 0.2})
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = Stack(blocks, recompute).train()
        torch.manual_seed(1)
        final = module(Sequence(torch.randn(2, 12, WIDTH), torch.tensor([12, 7])), FullContext()).final
        (final.zero_padding().values ** 3).sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None and torch.equal(plain, again)


def test_the_same_seed_trains_the_same_encoder() -> None:
    """Dropout and all: forward and backward are a function of the seed."""
    config = SpeechEncoderConfig(blocks=conformer().model_copy(update={"dropout": 0.1}), channels=4)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        encoder = SpeechEncoder(config, 6).train()
        features = Sequence(torch.ones(2, 30, 6), torch.tensor([30, 11]))
        results.append(encoder(features).final.values)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(("context", "kernel"), list(itertools.product([FullContext(), LOCAL, CHUNK], [4, 5])))
def test_all_policies_agree_on_lengths(context: Context, kernel: int) -> None:
    config = SpeechEncoderConfig(blocks=conformer(kernel=kernel), channels=4, context=context)
    encoder = SpeechEncoder(config, 6).eval()
    with torch.no_grad():
        for frames in range(1, 401, 7):
            encoded = encoder(Sequence(torch.zeros(1, frames, 6), torch.tensor([frames]))).final
            assert encoded.values.shape[1] == encoded.lengths.item() == -(-frames // 4)
