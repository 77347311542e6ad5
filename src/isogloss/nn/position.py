"""Where a frame stands: rotary, Transformer-XL relative, bucketed, sinusoidal and convolutional positions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm


def rotary_table(frames: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoFormer (arXiv 2104.09864 eq. 34): two (T, head_width) tensors."""
    frequency = 10000.0 ** (-torch.arange(0, head_width, 2, device=device) / head_width)
    angle = torch.arange(frames, device=device)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of channels by its position's angle. x: (B, H, T, head_width)."""
    cosine, sine = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def relative_table(frames: int, keys: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids R of Transformer-XL for the offsets i - j of the last T of N keys: N-1 … -(T-1), (N+T-1, width)."""
    offset = torch.arange(keys - 1, -frames, -1.0, device=device)
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = offset[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def relative_shift(scores: Tensor) -> Tensor:
    """Row i, column offset -> row i, column key. (B, H, T, N+T-1) -> (B, H, T, N).

    Row r is query i = N-T+r, and its column c holds offset N-1-c; key j needs offset i - j, hence column
    T-1-r+j: the rows slide by one each, which padding one column and refolding does without a gather.
    """
    batch, heads, frames, width = scores.shape
    padded = functional.pad(scores, (1, 0)).view(batch, heads, width + 1, frames)
    return padded[:, :, 1:].reshape(batch, heads, frames, width)[..., : width - frames + 1]


def sinusoids(frames: int, width: int, device: torch.device) -> Tensor:
    """Whisper's positions, (T, width): sines, then cosines, of wavelengths from 2π to 10 000 · 2π frames."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / (half - 1)))
    angle = torch.arange(frames, device=device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class BucketedPosition(nn.Module):
    """A learned number for each head and distance, as T5 (arXiv 1910.10683 §2.1) has them and WavLM gates them.

    Half of the buckets are for later frames. In each half the first half are single distances, the others grow with
    the logarithm of the distance, the last from `farthest` on.
    """

    def __init__(self, heads: int, buckets: int, farthest: int):
        super().__init__()
        if buckets % 4:
            raise ValueError(f"buckets {buckets} is no multiple of 4")
        self.farthest = farthest
        self.table = nn.Embedding(buckets, heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, frames: int, keys: int) -> Tensor:
        """What is added to scores (T, N), of the last T of N frames, of each head -> (H, T, N)."""
        device = self.table.weight.device
        distance = torch.arange(keys, device=device) - torch.arange(keys - frames, keys, device=device)[:, None]
        return self.table(self._bucket(distance)).permute(2, 0, 1)

    def _bucket(self, distance: Tensor) -> Tensor:
        half = self.table.num_embeddings // 2
        single = half // 2
        away = distance.abs()
        growth = (away.clamp(min=1).float() / single).log() / math.log(self.farthest / single)
        grouped = (single + growth * (half - single)).long().clamp(max=half - 1)
        return (distance > 0) * half + torch.where(away < single, away, grouped)


class ConvolutionalPosition(nn.Module):
    """Positions that a grouped convolution of many frames finds, to be added to its input (wav2vec 2.0 §2).

    The length of each of the K taps is learned apart from its direction (weight normalisation, arXiv 1602.07868).
    A frame sees ⌊K/2⌋ frames before it and ⌊(K−1)/2⌋ after it.
    """

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} does not divide into {groups} groups")
        convolution = nn.Conv1d(width, width, kernel, groups=groups)
        nn.init.normal_(convolution.weight, std=2 / math.sqrt(kernel * width))
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        self.convolution = weight_norm(convolution, dim=2)
        self.around = kernel // 2, (kernel - 1) // 2

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D) with zeros in the padding -> (B, T, D); `valid`, (B, T) bool, is not needed."""
        return functional.gelu(self.convolution(functional.pad(x.transpose(1, 2), self.around))).transpose(1, 2)


class DeepConvolutionalPosition(nn.Module):
    """Positions that several grouped convolutions find one after another, each with LayerNorm and GELU (data2vec).

    The LayerNorm has no weights of its own. A frame sees ⌊K/2⌋ frames before it and ⌊(K−1)/2⌋ after it by each.
    """

    def __init__(self, width: int, kernel: int, groups: int, layers: int):
        super().__init__()
        if width % groups:
            raise ValueError(f"width {width} does not divide into {groups} groups")
        self.layers = nn.ModuleList(nn.Conv1d(width, width, kernel, groups=groups) for _ in range(layers))
        self.around = kernel // 2, (kernel - 1) // 2

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), valid: (B, T) bool -> (B, T, D). Padding is zeroed before each convolution."""
        for layer in self.layers:
            clean = x.masked_fill(~valid[..., None], 0.0).transpose(1, 2)
            x = layer(functional.pad(clean, self.around)).transpose(1, 2)
            x = functional.gelu(functional.layer_norm(x, x.shape[-1:]))
        return x
