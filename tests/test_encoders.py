"""Encoders: the contract, context policies, sizes and hidden states."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.encoders.blocks import BlocksConfig
from isogloss.encoders.causal_cnn import CausalCNNConfig, CausalConvolution
from isogloss.encoders.conformer import ConformerBlock, ConformerConfig
from isogloss.encoders.embed import ConvolutionsConfig, EmbedConfig, IdentityConfig, ProjectionConfig, SubsamplingConfig
from isogloss.encoders.presets import FEATURES, PRESETS, preset, preset_features
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.encoders.recurrent import RecurrentBlock, RecurrentConfig
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.encoders.transformer import TransformerBlock, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.nn.adapters import AdapterConfig
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext
from isogloss.sequence import Sequence

WIDTH = 16
SMALL = SubsamplingConfig(channels=4)
LOCAL, CHUNK, HISTORY = (
    LocalContext(left=3, right=2),
    ChunkContext(size=5),
    ChunkContext(size=3, left_chunks=2),
)


def conformer(
    position: str = "rotary", kernel: int = 5, norm: str = "layer", layers: int = 2, **changes: object
) -> ConformerConfig:
    sizes = {"layers": layers, "width": WIDTH, "heads": 2, "kernel": kernel, "position": position, "norm": norm}
    return ConformerConfig.parse(sizes | {"dropout": 0.0} | changes, "test")


def transformer(position: str = "rotary", layers: int = 2, **changes: object) -> TransformerConfig:
    settings = {"layers": layers, "width": WIDTH, "heads": 2, "position": position, "dropout": 0.0}
    return TransformerConfig.parse(settings | changes, "test")


def recurrent(cell: str = "gru", layers: int = 2) -> RecurrentConfig:
    return RecurrentConfig(cell=cell, layers=layers, width=WIDTH, dropout=0.0)


def cnn(*kernels: int, residual: bool = True) -> CausalCNNConfig:
    return CausalCNNConfig(kernels=kernels or (3, 1, 4), width=WIDTH, residual=residual)


def stack(blocks: BlocksConfig, context: Context) -> Subject:
    settings = [str(value) for key, value in blocks if key not in ("layers", "width", "heads", "dropout")]
    name = "-".join([*settings, context.kind])
    return Subject(name, lambda: Stack(blocks), lambda m, x: m(x, context).final.unpad(), (WIDTH,))


def speech(blocks: BlocksConfig, context: Context, embed: EmbedConfig = SMALL) -> Subject:
    config = SpeechEncoderConfig(embed=embed, blocks=blocks, context=context)

    def call(module: nn.Module, batch: Sequence) -> list[Tensor]:
        encoded = module(batch, layers=(0, 1))
        return [torch.cat(rows) for rows in zip(encoded.final.unpad(), encoded.layers[1].unpad(), strict=True)]

    name = f"speech-{embed.kind}-{blocks.kind}-{context.kind}"
    return Subject(name, lambda: SpeechEncoder(config, 6), call, (6,))


def embedded(embed: EmbedConfig) -> Subject:
    def build() -> nn.Module:
        return embed.build(6, conformer())

    return Subject(f"embed-{embed.kind}", build, lambda m, x: m(x).unpad(), (6,))


DEEP = {"kernel": 5, "groups": 4, "layers": 3, "norm": "layer"}
DISTANCES = {"buckets": 16, "max_distance": 20}
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
    stack(transformer("none", norm="post", convolution={"kernel": 8, "groups": 4}), FullContext()),
    stack(transformer("relative", norm="post"), CHUNK),
    stack(transformer("none", convolution={"kernel": 5, "groups": 2}), FullContext()),
    stack(transformer("none", norm="post", convolution=DEEP), FullContext()),
    stack(transformer("gated", norm="post", convolution={"kernel": 8, "groups": 4}, **DISTANCES), FullContext()),
    stack(transformer("gated", **DISTANCES), CHUNK),
    stack(transformer("rotary", adapter=3), FullContext()),
    stack(conformer("relative_key", causal=True, bias=False, left_max=5, right_max=2), FullContext()),
    stack(conformer("relative_key", left_max=3, right_max=9), HISTORY),
    stack(conformer("rotary_inputs", norm="batch", bias=False, final_norm=True), FullContext()),
    stack(recurrent("gru"), FullContext()),
    stack(recurrent("lstm", layers=3), FullContext()),
    stack(cnn(), FullContext()),
    stack(cnn(2, 5, residual=False), FullContext()),
    speech(transformer("none", norm="post"), FullContext(), ProjectionConfig(dropout=0.0)),
    speech(conformer("rotary"), HISTORY, ProjectionConfig(norm=False, dropout=0.0)),
    speech(conformer("relative_key"), FullContext(), ProjectionConfig(stack=2, dropout=0.0)),
    speech(recurrent("gru"), FullContext(), IdentityConfig()),
    speech(cnn(), FullContext(), IdentityConfig()),
    speech(cnn(), FullContext(), NearestConfig(codes=5)),
    speech(transformer("none"), FullContext(), ConvolutionsConfig()),
    embedded(SMALL),
    embedded(ProjectionConfig(dropout=0.0)),
    embedded(ProjectionConfig(dropout=0.0, stack=3)),
    embedded(ConvolutionsConfig()),
    embedded(NearestConfig(codes=5, shared=False)),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


def ready(blocks: BlocksConfig) -> Stack:
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
        features = preset_features(name).build()
        encoder = SpeechEncoder(preset(name), features.width)
    assert encoder.layers == len(encoder.stack.blocks)
    assert SpeechEncoderConfig.parse(preset(name).plain(), "round trip") == preset(name)
    assert type(features.config).parse(features.config.plain(), "round trip") == preset_features(name)


def test_features_are_named_like_their_encoders() -> None:
    assert FEATURES.keys() <= PRESETS.keys()


def size(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def with_features(name: str) -> tuple[nn.Module, SpeechEncoder]:
    features = preset_features(name).build()
    return features, SpeechEncoder(preset(name), features.width)


def test_apc_has_the_parameters_of_the_paper() -> None:
    """With the linear layer that predicts features: 4 105 296."""
    with torch.device("meta"):
        features, encoder = with_features("apc")
        predict = nn.Linear(encoder.width, features.width)
    assert size(features, encoder) == 4_064_256
    assert size(features, encoder, predict) == 4_105_296


@pytest.mark.parametrize(
    ("name", "code_width", "alone", "pretraining"),
    [("wav2vec2_base", 256, 94_371_712, 95_044_608), ("wav2vec2_large", 768, 315_438_720, 317_390_592)],
)
def test_wav2vec2_has_the_parameters_of_the_paper(name: str, code_width: int, alone: int, pretraining: int) -> None:
    """Published counts have the mask vector, and for pre-training the quantizer and two projections."""
    groups, codes = 2, 320
    with torch.device("meta"):
        features, encoder = with_features(name)
        mask = nn.Embedding(1, encoder.width)
        choose = nn.Linear(features.width, groups * codes)
        codebook = nn.Embedding(groups * codes, code_width // groups)
        projections = nn.Linear(code_width, code_width), nn.Linear(encoder.width, code_width)
    assert size(features, encoder, mask) == alone
    assert size(features, encoder, mask, choose, codebook, *projections) == pretraining


def test_an_unknown_preset_is_one_sentence() -> None:
    with pytest.raises(IsoglossError, match=r'no encoder preset "smal"\. Did you mean "small"\?'):
        preset("smal")


def test_hidden_states_are_those_of_the_blocks() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(blocks=conformer(layers=3), embed=SMALL), 6).eval()
    features = Sequence(torch.randn(2, 30, 6), torch.tensor([30, 11]))
    encoded = encoder(features, layers=(0, 1, 2, 3))
    assert list(encoded.layers) == [0, 1, 2, 3]
    assert torch.equal(encoded.final.values, encoded.layers[3].values)
    x, lengths = encoded.layers[0].values, encoded.final.lengths
    assert lengths.tolist() == [8, 3]
    clean = encoder.embed(features).zero_padding().values
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


RECOMPUTED = [conformer(), transformer(), transformer(norm="post"), recurrent(), cnn()]


@pytest.mark.parametrize("blocks", RECOMPUTED, ids=str)
def test_recomputing_activations_changes_nothing(blocks: BlocksConfig) -> None:
    blocks = blocks.model_copy(update={"dropout": 0.2})
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
    config = SpeechEncoderConfig(blocks=conformer().model_copy(update={"dropout": 0.1}), embed=SMALL)
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
    config = SpeechEncoderConfig(blocks=conformer(kernel=kernel), embed=SMALL, context=context)
    encoder = SpeechEncoder(config, 6).eval()
    with torch.no_grad():
        for frames in range(1, 401, 7):
            encoded = encoder(Sequence(torch.zeros(1, frames, 6), torch.tensor([frames]))).final
            assert encoded.values.shape[1] == encoded.lengths.item() == -(-frames // 4)


def test_a_recurrent_layer_has_3_d_e_d_2_parameters() -> None:
    with torch.device("meta"):
        block = RecurrentBlock(RecurrentConfig(width=96), 40, 0.0)
    assert size(block) == 3 * 96 * (40 + 96 + 2)


def test_a_recurrent_stack_is_layer_by_layer_with_residuals_where_widths_agree() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(embed=IdentityConfig(), blocks=recurrent(layers=3)), 6).eval()
    features = Sequence(torch.randn(2, 30, 6), torch.tensor([30, 11]))
    encoded = encoder(features, layers=(0, 1, 2, 3))
    assert encoder.embed.width == 6 and encoder.width == WIDTH
    first, second, third = (block.cell for block in encoder.stack.blocks)
    x = first(features.zero_padding().values)[0]
    assert torch.equal(encoded.layers[1].values, x)
    for number, cell in ((2, second), (3, third)):
        x = x + cell(x)[0]
        assert torch.equal(encoded.layers[number].values, x)
    assert torch.equal(encoded.final.values, x)


def test_a_causal_convolution_has_d_e_k_3_parameters() -> None:
    with torch.device("meta"):
        block = CausalConvolution(CausalCNNConfig(width=96), 40, 7)
    assert size(block) == 96 * (40 * 7 + 3)


def test_a_causal_cnn_is_layer_by_layer_with_half_the_power_of_each_sum() -> None:
    """Of the frames before alone: each output written out as a sum over the window of a frame."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(embed=IdentityConfig(), blocks=cnn(3, 1, 4)), 6).double().eval()
    features = torch.randn(1, 30, 6, dtype=torch.float64)
    encoded = encoder(Sequence(features, torch.tensor([30])), layers=(0, 1, 2, 3))
    x = features[0]
    for number, block in enumerate(encoder.stack.blocks, start=1):
        kernel = block.convolution.weight.shape[2]
        rows = []
        for t in range(30):
            seen = [x[t - back] if t >= back else torch.zeros_like(x[0]) for back in range(kernel)]
            made = sum(block.convolution.weight[:, :, kernel - 1 - back] @ frame for back, frame in enumerate(seen))
            made = made + block.convolution.bias
            made = (made - made.mean()) / (made.var(correction=0) + 1e-5).sqrt()
            made = (made * block.norm.weight + block.norm.bias).clamp(min=0)
            rows.append(made if number == 1 else (x[t] + made) / 2**0.5)  # the first changes the width
        x = torch.stack(rows)
        assert_close(encoded.layers[number].values[0], x)
    assert torch.equal(encoded.final.values, encoded.layers[3].values)


def test_a_causal_cnn_sees_the_frames_that_its_kernels_say() -> None:
    """810 ms in wav2vec large and 210 ms in base, with features of 30 ms, as the paper says; and nothing that follows.
    """
    for name, milliseconds in (("wav2vec_base", 210), ("wav2vec_large", 810)):
        blocks = preset(name).blocks
        assert isinstance(blocks, CausalCNNConfig)
        field = 1 + sum(kernel - 1 for kernel in blocks.kernels)
        narrow = blocks.model_copy(update={"width": WIDTH})
        x = states(field + 20).requires_grad_()
        out = ready(narrow)(Sequence(x, torch.tensor([field + 20])), FullContext()).final.values
        (gradient,) = torch.autograd.grad((out[0, field + 9] * states(1)[0, 0]).sum(), x)
        seen = gradient[0].abs().amax(dim=-1).nonzero().flatten().tolist()
        assert seen == list(range(10, field + 10))
        samples = preset_features(name).framing.receptive_field + 160 * (field - 1)
        assert round(samples / 16, -1) == milliseconds


HALVES = [
    cnn(),
    conformer("relative"),
    transformer(norm="post"),
    transformer("gated", convolution=DEEP),
    transformer(convolution={"kernel": 4}, adapter=3),
    recurrent(),
]


@pytest.mark.parametrize("blocks", HALVES, ids=str)
def test_forward_is_embedding_and_contextualising(blocks: BlocksConfig) -> None:
    """Whole, and in two parts that meet before or after any block."""
    encoder, features = projected(blocks)
    whole = encoder(features).final.zero_padding().values
    assert torch.equal(encoder.contextualise(encoder.embed(features)).final.zero_padding().values, whole)
    for entry in range(blocks.layers):
        lower = encoder(features, until=entry).final
        assert torch.equal(encoder.contextualise(lower, entry).final.zero_padding().values, whole)


@pytest.mark.parametrize("blocks", HALVES, ids=str)
def test_masks_go_between_embedding_and_blocks(blocks: BlocksConfig) -> None:
    """What is under a mask changes nothing, and the mask does."""
    encoder, features = projected(blocks)
    hidden = torch.zeros(2, 30, 1, dtype=torch.bool)
    hidden[:, 4:9] = True

    def masked(x: Tensor) -> Tensor:
        return torch.where(hidden, 0.5, x)

    found = encoder.contextualise(encoder.embed(features).map(masked)).final.values
    other = features.map(lambda x: torch.where(hidden, torch.randn_like(x), x))
    assert torch.equal(encoder.contextualise(encoder.embed(other).map(masked)).final.values, found)
    assert not torch.allclose(found[:, 4:9], encoder(features).final.values[:, 4:9], atol=1e-2)


def projected(blocks: BlocksConfig) -> tuple[SpeechEncoder, Sequence]:
    """An encoder behind a projection, and features for it."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(embed=ProjectionConfig(), blocks=blocks), 6).eval()
    return encoder, Sequence(torch.randn(2, 30, 6), torch.tensor([30, 11]))


EMBEDDINGS = [SMALL, ProjectionConfig(), ProjectionConfig(stack=2), ConvolutionsConfig(), IdentityConfig()]
EMBEDDINGS += [GumbelConfig(codes=5), NearestConfig(codes=5)]


@pytest.mark.parametrize("embed", EMBEDDINGS, ids=str)
@pytest.mark.parametrize("blocks", [conformer("relative"), transformer(norm="post"), recurrent()], ids=str)
def test_features_without_a_frame_are_encoded(embed: EmbedConfig, blocks: BlocksConfig) -> None:
    encoder = SpeechEncoder(SpeechEncoderConfig(embed=embed, blocks=blocks), WIDTH).eval()
    encoded = encoder(Sequence(torch.zeros(2, 0, WIDTH), torch.zeros(2, dtype=torch.int64))).final
    assert encoded.lengths.tolist() == [0, 0] and encoded.values.isfinite().all()


def test_parts_that_do_not_fit_are_one_sentence() -> None:
    with pytest.raises(IsoglossError, match=r"Conformer blocks of width 16 cannot take features of width 80 .*embed"):
        SpeechEncoder(SpeechEncoderConfig(embed=IdentityConfig(), blocks=conformer()), 80)
    with pytest.raises(IsoglossError, match="rnn blocks have no attention for context local"):
        SpeechEncoderConfig.parse({"blocks": {"kind": "rnn"}, "context": {"kind": "local"}}, "test")
    with pytest.raises(IsoglossError, match="layers 5 wants norm: layer"):
        transformer(convolution={"layers": 5})
    with pytest.raises(IsoglossError, match="adapter 4 wants norm: pre"):
        transformer(norm="post", adapter=4)
    with pytest.raises(IsoglossError, match="width 81 do not divide into 2 groups"):
        SpeechEncoder(SpeechEncoderConfig(embed=GumbelConfig(), blocks=recurrent()), 81)
    with pytest.raises(IsoglossError, match="kernels are 1 or more"):
        CausalCNNConfig.parse({"kernels": [3, 0]}, "test")
    bank = AdapterConfig(bottleneck=2, groups={"all": ("ro",)})
    with pytest.raises(IsoglossError, match="of which rnn blocks have none"):
        SpeechEncoder(SpeechEncoderConfig(embed=IdentityConfig(), blocks=recurrent(), adapters=bank), 80)
