"""What training takes of the memory of one process, by kind, known before anything is computed.

    weights      float32; where they are parted, ⌈rows / processes⌉ rows of each
    gathered     where they are parted: two blocks, and all that is in none, whole, with their gradients
    gradients    as many as weights that are trained
    moments      twice as many, AdamW's; as many of matrices, Muon's
    average      as many, where a moving average is kept
    copies       slow copies of the model that objectives learn from, whole in every process
    activations  what the encoder keeps of a micro-batch for the backward pass
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.encoders.stack import Stack
from isogloss.sequence import Sequence
from isogloss.training.hardware import autocast

FLOAT = 4
"""Bytes of a float32."""
GIB = 2**30
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
PLAIN = {"recompute": False, "adapters": None}
"""An encoder as it is measured."""


@dataclass(frozen=True)
class Footprint:
    """Bytes in one process."""

    weights: int = 0
    gathered: int = 0
    gradients: int = 0
    moments: int = 0
    average: int = 0
    copies: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All together."""
        return sum(getattr(self, kind.name) for kind in fields(self))

    def __str__(self) -> str:
        """`weights 1.2 + gradients 1.2 + moments 2.4 + activations 3.0 = 7.8`, in GiB."""
        sizes = {kind.name: getattr(self, kind.name) / GIB for kind in fields(self)}
        said = " + ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.05)
        return f"{said} = {self.total / GIB:.1f}"


def footprint(
    modules: nn.Module,
    *,
    matrices: Iterable[nn.Parameter] = (),
    world: int = 1,
    sharded: bool = False,
    average: bool = False,
    activations: int = 0,
) -> Footprint:
    """That of modules, real ones or on the meta device, trained by so many processes.

    Weights that want no gradient are not trained. matrices: those that Muon trains. activations: bytes of a
    micro-batch, from `activations`.
    """
    parts = world if sharded else 1
    every = list(modules.parameters())
    trained = _bytes((parameter for parameter in every if parameter.requires_grad), parts)
    return Footprint(
        weights=_bytes(every, parts),
        gathered=_gathered(modules) if parts > 1 else 0,
        gradients=trained,
        moments=2 * trained - _bytes(matrices, parts),
        average=trained if average else 0,
        copies=FLOAT * sum(buffer.numel() for buffer in modules.buffers() if buffer.is_floating_point()),
        activations=activations,
    )


def with_activations(known: Footprint, peak: int, begun: bool) -> Footprint:
    """What a peak of so many bytes leaves for activations, once a batch went through.

    begun: the optimizer has its moments already, as in a run that is resumed.
    """
    there = known.total if begun else known.total - known.moments
    return replace(known, activations=max(0, peak - there))


def activations(
    encoder: SpeechEncoderConfig, features: FeaturesConfig, clips: int, seconds: float, precision: torch.dtype
) -> int:
    """Bytes that an encoder keeps of clips of so many seconds for the backward pass.

    With `recompute` that is what comes in, for all blocks but one; blocks that are not alike count as without.
    """
    frames = features.framing.frames(round(seconds * SAMPLE_RATE))
    width = features.build().width

    def kept(encoder: SpeechEncoderConfig) -> int:
        return _kept(encoder, width, clips, frames, precision)

    if encoder.recompute and encoder.blocks.alike:
        states = clips * encoder.embed.framing.frames(frames) * encoder.blocks.width * FLOAT
        return kept(_with_layers(encoder, 1)) + (encoder.blocks.layers - 1) * states
    return _of_all_blocks(encoder, kept)


def operations(encoder: SpeechEncoderConfig, features: FeaturesConfig, seconds: float) -> int:
    """Of the matrix products and convolutions of an encoder, forward, on one clip of so many seconds."""
    frames = features.framing.frames(round(seconds * SAMPLE_RATE))
    width = features.build().width
    return _of_all_blocks(encoder, lambda encoder: _forward(encoder, width, frames))


def _of_all_blocks(encoder: SpeechEncoderConfig, measure: Callable[[SpeechEncoderConfig], int]) -> int:
    """A measure of the encoder; what two blocks have more than one is what each further one has, if they are alike."""
    if not encoder.blocks.alike:
        return measure(encoder.model_copy(update=PLAIN))
    one, two = (measure(_with_layers(encoder, layers)) for layers in (1, 2))
    return one + (encoder.blocks.layers - 1) * (two - one)


def _forward(encoder: SpeechEncoderConfig, width: int, frames: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # with it comes Triton

    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module = SpeechEncoder(encoder, width)
        _through(module, module.embed(Sequence(torch.zeros(1, frames, width), torch.full((1,), frames))))
    return int(counter.get_total_flops())


def _with_layers(encoder: SpeechEncoderConfig, layers: int) -> SpeechEncoderConfig:
    blocks = encoder.blocks.model_copy(update={"layers": layers})
    return encoder.model_copy(update=PLAIN | {"blocks": blocks})


def _kept(encoder: SpeechEncoderConfig, width: int, clips: int, frames: int, precision: torch.dtype) -> int:
    """Bytes that are saved for the backward pass of (B, T, F), found by tensors without content."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage.nbytes()
        return tensor

    # Attention as GPUs compute it: fused where it can be.
    with FakeTensorMode(), autocast(torch.device("cpu"), precision), sdpa_kernel(FUSED):
        module = SpeechEncoder(encoder, width)
        own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
        batch = Sequence(torch.zeros(clips, frames, width), torch.full((clips,), frames))
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            _through(module, module.embed(batch))
    return sum(size for storage, size in found.items() if storage not in own)


def _through(module: SpeechEncoder, states: Sequence) -> Tensor:
    """States (B, T, D) through the blocks, as `Stack` sends a batch with padding; that looks at the content of lengths.
    """
    stack, frames, valid = module.stack, states.values.shape[1], states.valid
    x = states.zero_padding().values
    if stack.entry is not None:
        x = stack.entry(x, valid)
    mask = torch.ones(len(x), 1, frames, frames, dtype=torch.bool) if stack.attends else None
    shared = {} if stack.bias is None else {"bias": stack.bias(frames, frames)}
    for block in stack.blocks:
        x = block(x, valid, mask, **shared)
    normed: Tensor = stack.norm(x)
    return normed


def _gathered(modules: nn.Module) -> int:
    stacks = [part for part in modules.modules() if isinstance(part, Stack)]
    blocks = [_bytes(block.parameters()) for stack in stacks for block in stack.blocks]
    return 2 * (_bytes(modules.parameters()) - sum(blocks) + 2 * max(blocks, default=0))


def _bytes(parameters: Iterable[Tensor], parts: int = 1) -> int:
    """Bytes of parameters, of which the first of so many processes holds its rows."""
    return FLOAT * sum(ceil(rows / parts) * prod(rest) for rows, *rest in (parameter.shape for parameter in parameters))
