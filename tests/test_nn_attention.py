"""Attention against slow definitions, and what each context policy lets through."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from isogloss.nn.attention import Position, SelfAttention
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext, attention_mask
from isogloss.nn.position import BucketedPosition, relative_shift, relative_table, rotary_table, rotate

WIDTH, HEADS, FRAMES = 16, 2, 13


def module(position: Position) -> SelfAttention:
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS, position).double().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.3)
    return attention


def states(frames: int = FRAMES, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def sinusoid(offset: int) -> Tensor:
    """R of one offset, channel by channel, as Transformer-XL writes it."""
    values = []
    for channel in range(0, WIDTH, 2):
        angle = offset / 10000.0 ** (channel / WIDTH)
        values += [math.sin(angle), math.cos(angle)]
    return torch.tensor(values, dtype=torch.float64)


def slow_attention(attention: SelfAttention, x: Tensor, allowed: Tensor) -> Tensor:
    """One score at a time: (q_i + u)ᵀ k_j + (q_i + v)ᵀ W_R R_{i-j}. x: (T, D), allowed: (T, T)."""
    query, key, value = (part.view(len(x), HEADS, -1) for part in attention.qkv(x).chunk(3, dim=-1))
    mixed = torch.zeros_like(query)
    for head in range(HEADS):
        u, v = attention.content_bias[head, 0], attention.position_bias[head, 0]
        scores = torch.full((len(x), len(x)), -torch.inf, dtype=torch.float64)
        for i in range(len(x)):
            for j in range(len(x)):
                if allowed[i, j]:
                    relative = attention.relative(sinusoid(i - j)).view(HEADS, -1)[head]
                    scores[i, j] = (query[i, head] + u) @ key[j, head] + (query[i, head] + v) @ relative
        weight = (scores / math.sqrt(query.shape[-1])).softmax(dim=-1)
        mixed[:, head] = weight @ value[:, head]
    return attention.out(mixed.flatten(1))


@pytest.mark.parametrize("context", [FullContext(), LocalContext(left=2, right=1), ChunkContext(size=4)])
def test_relative_attention_is_transformer_xl(context: Context) -> None:
    attention, x = module("relative"), states()
    lengths = torch.tensor([FRAMES, 9])
    valid = torch.arange(FRAMES) < lengths[:, None]
    mask = attention_mask(valid, context)
    fast = attention(x, mask)
    assert mask is not None
    for row, n in enumerate(lengths.tolist()):
        slow = slow_attention(attention, x[row, :n], mask[row, 0, :n, :n])
        # The table of sinusoids is float32.
        assert_close(fast[row, :n], slow, atol=1e-5, rtol=0)


def test_relative_attention_without_a_mask_is_transformer_xl() -> None:
    attention, x = module("relative"), states(batch=1)
    slow = slow_attention(attention, x[0], torch.ones(FRAMES, FRAMES, dtype=torch.bool))
    assert_close(attention(x, None)[0], slow, atol=1e-5, rtol=0)


@pytest.mark.parametrize("past", [0, 1, 6])
@pytest.mark.parametrize("frames", [1, 2, 5, 50])
def test_relative_shift_is_a_gather(frames: int, past: int) -> None:
    keys = past + frames
    scores = torch.randn(2, 3, frames, keys + frames - 1)
    position = torch.arange(keys)
    column = keys - 1 - (position[past:, None] - position[None, :])
    assert torch.equal(relative_shift(scores), scores.gather(3, column.expand(2, 3, -1, -1)))


@pytest.mark.parametrize("past", [0, 6])
def test_relative_table_rows_are_offsets(past: int) -> None:
    keys = past + FRAMES
    table = relative_table(FRAMES, keys, WIDTH, torch.device("cpu"))
    assert len(table) == keys + FRAMES - 1
    for row, offset in enumerate(range(keys - 1, -FRAMES, -1)):
        assert_close(table[row].double(), sinusoid(offset), atol=1e-6, rtol=0)


def test_rotary_scores_depend_on_the_offset_alone() -> None:
    query, key = states(1, 1)[0, 0, :8], states(2, 1)[0, 1, :8]
    table = rotary_table(60, 8, torch.device("cpu"))
    turned_query = rotate(query.expand(1, 1, 60, 8), table)[0, 0]
    turned_key = rotate(key.expand(1, 1, 60, 8), table)[0, 0]
    scores = turned_query @ turned_key.T
    for offset in range(-59, 60):
        diagonal = scores.diagonal(offset)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert scores[0].std() > 0.01  # … and do depend on it


def test_rotary_is_the_rotation_of_roformer() -> None:
    x = states(5, 1)[:, None, :, :4]
    turned = rotate(x, rotary_table(5, 4, torch.device("cpu")))
    for t in range(5):
        for pair in range(2):
            angle = t * 10000.0 ** (-2 * pair / 4)
            number = complex(x[0, 0, t, pair], x[0, 0, t, pair + 2]) * complex(math.cos(angle), math.sin(angle))
            assert_close(turned[0, 0, t, pair].item(), number.real, atol=1e-6, rtol=0)
            assert_close(turned[0, 0, t, pair + 2].item(), number.imag, atol=1e-6, rtol=0)


@pytest.mark.parametrize("context", [FullContext(), ChunkContext(size=4)])
def test_relative_keys_are_a_vector_for_each_distance(context: Context) -> None:
    attention = SelfAttention(WIDTH, HEADS, "relative_key", reach=(3, 2)).double()
    x = states(batch=1)
    query, key, value = attention.qkv(x).view(FRAMES, 3, HEADS, -1).unbind(1)
    allowed = attention_mask(torch.ones(1, FRAMES, dtype=torch.bool), context)
    mixed = torch.zeros_like(query)
    for head, i in itertools.product(range(HEADS), range(FRAMES)):
        away = [min(max(j - i, -3), 2) + 3 for j in range(FRAMES)]
        scores = (key[:, head] + attention.distance.weight[away]) @ query[i, head] / math.sqrt(WIDTH // HEADS)
        if allowed is not None:
            scores = scores.masked_fill(~allowed[0, 0, i], -torch.inf)
        mixed[i, head] = scores.softmax(dim=0) @ value[:, head]
    assert_close(attention(x, allowed)[0], attention.out(mixed.flatten(1)), atol=1e-10, rtol=0)


def test_buckets_are_single_distances_near_and_logarithmic_far_away() -> None:
    position = BucketedPosition(1, buckets=16, farthest=32)
    with torch.no_grad():
        position.table.weight.copy_(torch.arange(16.0)[:, None])
    (found,) = position(1, 64)  # of the last of 64 frames, to those before it
    assert found[0].flip(0)[:8].tolist() == [0, 1, 2, 3, 4, 4, 4, 5] and set(found[0, :32].tolist()) == {7}
    (whole,) = position(64, 64)
    assert torch.equal(whole.T.tril(-1), (whole + 8).tril(-1))  # later frames have the other half


def test_no_position_means_that_order_is_lost() -> None:
    x, order = states(), torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))
    plain = module("none")
    assert_close(plain(x, None)[:, order], plain(x[:, order], None), atol=1e-10, rtol=0)
    for position in ("rotary", "rotary_inputs", "relative", "relative_key"):
        moved = module(position)
        assert not torch.allclose(moved(x, None)[:, order], moved(x[:, order], None), atol=1e-3)


@pytest.mark.parametrize(("width", "heads"), [(15, 2), (6, 2), (16, 3)])
def test_a_width_that_does_not_divide_is_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} does not divide into {heads} heads"):
        SelfAttention(width, heads, "rotary")


def rule(context: Context, i: int, j: int) -> bool:
    """The policies as the reference writes them."""
    if isinstance(context, LocalContext):
        return -context.left <= j - i <= context.right
    if isinstance(context, ChunkContext):
        return 0 <= i // context.size - j // context.size <= context.left_chunks
    return True


contexts = st.one_of(
    st.just(FullContext()),
    st.builds(LocalContext, left=st.integers(0, 9), right=st.integers(0, 9)),
    st.builds(ChunkContext, size=st.integers(1, 9), left_chunks=st.integers(0, 3)),
)


@given(context=contexts, lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4))
@settings(max_examples=80)
def test_masks_are_the_rules(context: Context, lengths: list[int]) -> None:
    frames = max(lengths)
    valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
    mask = attention_mask(valid, context)
    if mask is None:
        assert isinstance(context, FullContext) and min(lengths) == frames
        return
    mask = mask.expand(len(lengths), 1, frames, frames)
    assert mask.dtype == torch.bool
    for row, n in enumerate(lengths):
        for i in range(frames):
            for j in range(frames):
                expected = (rule(context, i, j) and j < n) or i == j
                assert bool(mask[row, 0, i, j]) == expected


def test_a_chunk_as_long_as_the_audio_is_full_context() -> None:
    attention, x = module("rotary"), states()
    valid = torch.arange(FRAMES) < torch.tensor([FRAMES, 5])[:, None]
    full = attention(x, attention_mask(valid, FullContext()))
    for size in (FRAMES, FRAMES + 1, 1000):
        assert torch.equal(attention(x, attention_mask(valid, ChunkContext(size=size))), full)
    wide = LocalContext(left=FRAMES, right=FRAMES)
    assert torch.equal(attention(x, attention_mask(valid, wide)), full)
