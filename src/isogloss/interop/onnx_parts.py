"""Parts of a model as an ONNX graph can hold them: without an FFT, without a branch or a loop that depends on values.

    log-mel        frames, mean, pre-emphasis, window and DFT are linear: one convolution with stride `shift`; then
                   squares, and the mel filters as a second convolution, of width 1
    group norm     over time: sums over the valid frames of all utterances at once instead of row by row
    int8, weight norm    the weights that they stand for

Each computes what the part that it stands for computes, up to rounding.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from isogloss.audio.log_mel import LogMel, log_energies, mel_filters, spectral_basis
from isogloss.audio.waveform import OverTime
from isogloss.model.model import Model
from isogloss.nn.int8 import Int8Linear
from isogloss.nn.position import ConvolutionalPosition
from isogloss.sequence import Sequence

_EPSILON = 1e-5  # of torch.group_norm


class ConvolutionalLogMel(nn.Module):
    """`LogMel` as two convolutions: waveforms (B, S) -> log-mel energies (B, T, F).

    Convolutions, so that int8, which rounds products of matrices, leaves the features as they are.
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, original: LogMel):
        super().__init__()
        self.config = original.config
        self.register_buffer("basis", torch.from_numpy(spectral_basis(self.config)).float()[:, None])
        self.register_buffer("filters", torch.from_numpy(mel_filters(self.config)).float().T[:, :, None].contiguous())

    def forward(self, waveforms: Sequence) -> Sequence:
        config = self.config
        samples = functional.pad(waveforms.zero_padding().values, (0, config.window))
        if config.flavour == "whisper":
            samples = torch.cat([samples[:, 1 : 1 + config.window // 2].flip(1), samples], dim=1)
        real, imaginary = functional.conv1d(samples[:, None], self.basis, stride=config.shift).square().chunk(2, dim=1)
        energies = functional.conv1d(real + imaginary, self.filters)
        features = log_energies(energies, config).transpose(1, 2)
        return Sequence(features, config.framing.frames(waveforms.lengths)).zero_padding()


class MaskedOverTime(nn.Module):
    """`OverTime` of all utterances at once: (B, C, N), (B,) -> (B, C, N), with zeros after each length."""

    def __init__(self, original: OverTime):
        super().__init__()
        self.weight, self.bias = original.weight, original.bias

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        valid = (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]
        count = lengths.clamp(min=1)[:, None, None]
        mean = x.where(valid, 0.0).sum(dim=2, keepdim=True) / count
        centred = (x - mean).where(valid, 0.0)
        variance = centred.square().sum(dim=2, keepdim=True) / count
        normalised = centred * torch.rsqrt(variance + _EPSILON)
        return (normalised * self.weight[:, None] + self.bias[:, None]).where(valid, 0.0)


def _unparametrised(positions: ConvolutionalPosition) -> ConvolutionalPosition:
    """The same with the weights that length and direction make; torch's own removal would change the original too."""
    old = positions.convolution
    made = nn.Conv1d(old.in_channels, old.out_channels, old.kernel_size[0], groups=old.groups)
    made.load_state_dict({"weight": old.weight, "bias": old.bias})
    positions.convolution = made
    return positions


STAND_INS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    LogMel: ConvolutionalLogMel,
    OverTime: MaskedOverTime,
    Int8Linear: Int8Linear.floating,
    ConvolutionalPosition: _unparametrised,
}


def traceable(model: Model) -> Model:
    """The same model, whose parts a graph can hold; in evaluation mode."""
    made = copy.deepcopy(model).eval()
    for parent in list(made.modules()):
        for name, child in parent.named_children():
            if stand_in := STAND_INS.get(type(child)):
                setattr(parent, name, stand_in(child))
    return made
