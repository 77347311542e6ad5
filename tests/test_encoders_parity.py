"""A Conformer block gives what the one of `transformers` gives with the same weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from isogloss.encoders.conformer import ConformerBlock, ConformerConfig
from isogloss.nn.masks import FullContext, attention_mask

pytest.importorskip("transformers")

WIDTH, HEADS, KERNEL, FRAMES = 32, 4, 7, 23


class ChannelLayerNorm(nn.Module):
    """LayerNorm over channels of (B, D, T), in the place of the twin's BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def twin(position: str) -> tuple[Any, Tensor]:
    """A random layer of `transformers`, and its table of positions."""
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as theirs

    config = Wav2Vec2ConformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        conv_depthwise_kernel_size=KERNEL,
        position_embeddings_type=position,
        hidden_act="swish",
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    layer = theirs.Wav2Vec2ConformerEncoderLayer(config)
    layer.conv_module.batch_norm = ChannelLayerNorm()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    name = "Rotary" if position == "rotary" else "Rel"
    positions = getattr(theirs, f"Wav2Vec2Conformer{name}PositionalEmbedding")(config)
    return layer.eval(), positions(torch.zeros(1, FRAMES, WIDTH))


def ours(layer: Any, position: str) -> ConformerBlock:
    """Our block with the twin's weights; biases that the twin lacks are zero."""
    block = ConformerBlock(
        ConformerConfig(width=WIDTH, heads=HEADS, kernel=KERNEL, position=position, dropout=0.0)
    ).eval()
    for mine, theirs in ((block.feed_in, "ffn1"), (block.feed_out, "ffn2")):
        network = getattr(layer, theirs)
        mine.norm.load_state_dict(getattr(layer, f"{theirs}_layer_norm").state_dict())
        mine.expand.load_state_dict(network.intermediate_dense.state_dict())
        mine.project.load_state_dict(network.output_dense.state_dict())
    block.norm_attention.load_state_dict(layer.self_attn_layer_norm.state_dict())
    block.norm.load_state_dict(layer.final_layer_norm.state_dict())
    attention, their_attention = block.attention, layer.self_attn
    linears = [their_attention.linear_q, their_attention.linear_k, their_attention.linear_v]
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([linear.weight for linear in linears]))
        attention.qkv.bias.copy_(torch.cat([linear.bias for linear in linears]))
        attention.out.load_state_dict(their_attention.linear_out.state_dict())
        if position == "relative":
            attention.relative.load_state_dict(their_attention.linear_pos.state_dict())
            attention.content_bias.copy_(their_attention.pos_bias_u[:, None])
            attention.position_bias.copy_(their_attention.pos_bias_v[:, None])
        convolution, their_convolution = block.convolution, layer.conv_module
        convolution.norm_in.load_state_dict(their_convolution.layer_norm.state_dict())
        convolution.norm.load_state_dict(their_convolution.batch_norm.norm.state_dict())
        convolution.expand.weight.copy_(their_convolution.pointwise_conv1.weight[:, :, 0])
        convolution.depthwise.weight.copy_(their_convolution.depthwise_conv.weight)
        convolution.project.weight.copy_(their_convolution.pointwise_conv2.weight[:, :, 0])
        for linear in (convolution.expand, convolution.depthwise, convolution.project):
            linear.bias.zero_()
    return block


def test_relative_block_equals_its_twin() -> None:
    layer, positions = twin("relative")
    block, x = ours(layer, "relative"), torch.randn(3, FRAMES, WIDTH)
    valid = torch.ones(3, FRAMES, dtype=torch.bool)
    with torch.no_grad():
        theirs = layer(x, relative_position_embeddings=positions)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        assert_close(block(x, valid, None), theirs, atol=1e-4, rtol=0)
        normed = block.norm_attention(x)
        expected = layer.self_attn(normed, relative_position_embeddings=positions)[0]
        assert_close(block.attention(normed, None), expected, atol=1e-5, rtol=0)
        assert_close(block.feed_in(x), layer.ffn1(layer.ffn1_layer_norm(x)), atol=1e-5, rtol=0)


def test_relative_attention_equals_its_twin_under_a_padding_mask() -> None:
    layer, positions = twin("relative")
    block, x = ours(layer, "relative"), torch.randn(3, FRAMES, WIDTH)
    valid = torch.arange(FRAMES) < torch.tensor([FRAMES, 9, 1])[:, None]
    forbidden = torch.zeros(3, 1, 1, FRAMES).masked_fill(~valid[:, None, None], -1e30)
    with torch.no_grad():
        expected = layer.self_attn(x, attention_mask=forbidden, relative_position_embeddings=positions)[0]
        actual = block.attention(x, attention_mask(valid, FullContext()))
    assert_close(actual[valid], expected[valid], atol=1e-5, rtol=0)


def test_rotary_block_equals_its_twin() -> None:
    """The twin turns the input before its projections, RoFormer and this package after: they are
    one where the projections of queries and keys are the identity."""
    layer, positions = twin("rotary")
    with torch.no_grad():
        for linear in (layer.self_attn.linear_q, layer.self_attn.linear_k):
            linear.weight.copy_(torch.eye(WIDTH))
            linear.bias.zero_()
    block, x = ours(layer, "rotary"), torch.randn(3, FRAMES, WIDTH)
    with torch.no_grad():
        theirs = layer(x, relative_position_embeddings=positions)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        assert_close(block(x, torch.ones(3, FRAMES, dtype=torch.bool), None), theirs, atol=1e-4, rtol=0)
