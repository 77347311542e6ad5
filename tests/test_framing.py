"""Length arithmetic: against the layers themselves, and against a signal that is changed sample by sample."""

import pytest
import torch
from torch import nn

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoder
from isogloss.framing import Framing

CHAINS = [
    (),
    ((400, 160, 0),),
    ((3, 2, 1), (3, 2, 1)),
    ((10, 5, 3), (8, 4, 2), (4, 2, 1)),
    ((5, 1, 0), (2, 3, 0)),
]


def layers(framing: Framing) -> nn.Sequential:
    """Convolutions that are framed so, with weights of one."""
    made = nn.Sequential(*(nn.Conv1d(1, 1, k, s, p, bias=False) for k, s, p in framing.layers)).double()
    for weight in made.parameters():
        nn.init.ones_(weight)
    return made


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_frames_are_those_of_convolutions(chain: tuple[tuple[int, int, int], ...]) -> None:
    framing = Framing(chain)
    counts = []
    for inputs in range(450):
        frames = framing.frames(inputs)
        counts.append(frames)
        try:
            made = layers(framing)(torch.zeros(1, 1, inputs, dtype=torch.float64)).shape[-1]
        except RuntimeError:  # torch refuses what is shorter than a kernel
            made = 0
        assert frames == made
    assert framing.frames(torch.arange(450)).tolist() == counts


@pytest.mark.parametrize("chain", CHAINS[1:], ids=str)
def test_outputs_see_the_inputs_they_say(chain: tuple[tuple[int, int, int], ...]) -> None:
    framing, inputs = Framing(chain), 1000
    x = torch.ones(1, 1, inputs, dtype=torch.float64, requires_grad=True)
    out = layers(framing)(x)[0, 0]
    assert len(out) == framing.frames(inputs) > 3
    for frame in (0, 1, len(out) // 2):
        (gradient,) = torch.autograd.grad(out[frame], x, retain_graph=True)
        begins = frame * framing.stride - framing.padding
        seen = range(max(0, begins), min(inputs, begins + framing.receptive_field))
        # A stride longer than the kernel leaves gaps.
        assert (lit := gradient[0, 0].nonzero().flatten().tolist())[0] == seen[0] and lit[-1] == seen[-1]
        assert framing.needed(frame + 1) == begins + framing.receptive_field


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_no_fewer_inputs_make_as_many_outputs(chain: tuple[tuple[int, int, int], ...]) -> None:
    framing = Framing(chain)
    for frames in (1, 2, 9):
        least = framing.least(frames)
        assert framing.frames(least) == frames == framing.frames(least - 1) + 1


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_chains_are_joined_as_they_are_applied(chain: tuple[tuple[int, int, int], ...]) -> None:
    first, then = Framing(((7, 3, 1),)), Framing(chain)
    both = first.then(then)
    assert all(both.frames(inputs) == then.frames(first.frames(inputs)) for inputs in range(900))
    assert both.stride == first.stride * then.stride
    assert both.needed(5) == first.needed(then.needed(5))


def framing(name: str) -> Framing:
    with torch.device("meta"):
        features = preset_features(name).build()
        return features.framing.then(SpeechEncoder(preset(name), features.width).framing)


def test_frame_rates_are_the_papers() -> None:
    """Samples from frame to frame and under one of them; and frames of 1, 15.6 and 20 s of wav2vec 2.0."""
    assert (framing("tiny").stride, framing("tiny").receptive_field) == (640, 400 + 6 * 160)
    assert (framing("apc").stride, framing("apc").receptive_field) == (160, 400)
    for name in ("wav2vec2_base", "wav2vec2_large"):
        assert (framing(name).stride, framing(name).receptive_field) == (320, 400)
        assert [framing(name).frames(n) for n in (16_000, 250_000, 320_000)] == [49, 781, 999]
    # CPC's convolutions, without the padding of its code.
    cpc = WaveformConfig(kernels=(10, 8, 4, 4, 4), strides=(5, 4, 2, 2, 2)).framing
    assert (cpc.stride, cpc.receptive_field) == (160, 465)
    assert [cpc.frames(n) for n in (16_000, 250_000, 320_000)] == [98, 1560, 1998]
    assert LogMelConfig(window_ms=32, shift_ms=8).framing.layers == ((512, 128, 0),)
