"""Memory that is counted beforehand: to the byte what training then holds, in one process and in parts of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore

from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.nn.masks import LocalContext
from isogloss.objectives.base import Clock
from isogloss.sequence import Sequence
from isogloss.training.footprint import FUSED, GIB, Footprint, activations, footprint, with_activations
from isogloss.training.hardware import Machine
from isogloss.training.recipe import StageRecipe
from isogloss.training.schedule import Average, build_optimizer
from isogloss.training.sharding import shard
from isogloss.training.stage import Stage, hidden_matrices, trainable
from small_objectives import joint_model, pairs

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = ("weights", "gradients", "moments", "average", "copies")


@pytest.fixture
def stage() -> Stage:
    """BEST-RQ and MAESTRO, whose aligner is a slow copy of the model, with a part that is frozen."""
    plain = {
        "name": "joint",
        "steps": 2,
        "seconds": {"speech": 4, "paired": 4},
        "objectives": [{"name": "best_rq", "codes": 32}, {"name": "maestro", "aligner": 0.9}],
        "freeze": ["encoder.embed"],
    }
    made = Stage(StageRecipe.parse(plain, "test"), joint_model(upsampling="repeat"))
    made.begin()
    return made


@pytest.fixture
def group() -> Iterator[int]:
    """Five processes, of which this one is the first and nobody is any other."""
    dist.init_process_group("fake", rank=0, world_size=5, store=FakeStore())
    yield 5
    dist.destroy_process_group()


def held(stage: Stage) -> dict[str, int]:
    """Bytes that lie in this process after a step."""

    def size(tensors: Any) -> int:
        return sum(tensor.nbytes for tensor in (getattr(t, "_local_tensor", t) for t in tensors))

    parameters = trainable(stage)
    optimizer = build_optimizer(stage.recipe, parameters, hidden_matrices(stage.model))
    average = Average(0.9, parameters)
    stage.clock = Clock(1, 2)
    batch = pairs()
    micro = {name: objective.prepare(batch, True) for name, objective in stage.objectives.items()}
    stage(micro, stage.counts(micro)).total.backward()
    gradients = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    buffers = [buffer for buffer in stage.buffers() if buffer.is_floating_point()]
    kinds = (stage.parameters(), gradients, moments, average.values.values(), buffers)
    return dict(zip(KINDS, map(size, kinds), strict=True))


def matrices(stage: Stage) -> list[nn.Parameter]:
    """Those that Muon trains, once it is known what is trained."""
    found = trainable(stage)
    return [found[name] for name in hidden_matrices(stage.model) & found.keys()]


def test_a_process_holds_what_was_counted(stage: Stage) -> None:
    planned = footprint(stage, matrices=matrices(stage), average=True)
    assert held(stage) == {kind: getattr(planned, kind) for kind in KINDS}
    assert planned.gathered == 0 and planned.total == sum(getattr(planned, kind) for kind in KINDS)


def test_the_first_of_several_holds_its_part(stage: Stage, group: int) -> None:
    """Rows that the processes do not divide make its part the largest."""
    own = matrices(stage)
    planned = footprint(stage, matrices=own, world=group, sharded=True, average=True)
    alone = footprint(stage, matrices=own, average=True)
    shard(stage, Machine(torch.device("cpu"), torch.float32, 0, group))
    assert held(stage) == {kind: getattr(planned, kind) for kind in KINDS}
    assert alone.weights / group < planned.weights < alone.weights / group * 1.5
    assert 0 < planned.gathered < 2 * alone.weights


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "encoder",
    [
        preset("test"),
        preset("toy").model_copy(update={"context": LocalContext(left=4, right=4)}),
        preset("wav2vec2_base"),
        preset("wav2vec_tiny"),
    ],
    ids=["rotary", "relative", "post-norm", "causal convolutions"],
)
def test_activations_are_those_of_a_batch_with_padding(encoder: SpeechEncoderConfig, precision: torch.dtype) -> None:
    """Three blocks, as narrow as may be, and two clips; what is kept of weights in bf16 is among it."""
    blocks = encoder.blocks.model_copy(update={"layers": 3, "width": 32, "heads": 2, "dropout": 0.1})
    encoder = encoder.model_copy(update={"blocks": blocks})
    features = preset_features("test")
    frames, width = features.framing.frames(16000), features.build().width
    module = SpeechEncoder(encoder, width)
    own = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = Sequence(torch.randn(2, frames, width), torch.tensor([frames, frames - 20]))
    hooks, fused = saved_tensors_hooks(pack, lambda tensor: tensor), sdpa_kernel(FUSED)
    with hooks, fused, torch.autocast("cpu", enabled=precision == torch.bfloat16):
        final = module(batch).final
    real = sum(size for place, size in kept.items() if place not in own)
    assert final.values.requires_grad
    assert activations(encoder, features, 2, 1.0, precision) == pytest.approx(real, rel=0.02)


def test_recomputing_keeps_what_enters_each_block() -> None:
    encoder, features = preset("tiny"), preset_features("tiny")
    whole = activations(encoder, features, 4, 10.0, torch.float32)
    again = activations(encoder.model_copy(update={"recompute": True}), features, 4, 10.0, torch.float32)
    states = 4 * 250 * encoder.blocks.width * 4
    one = activations(
        encoder.model_copy(update={"blocks": encoder.blocks.model_copy(update={"layers": 1})}),
        features, 4, 10.0, torch.float32,
    )  # fmt: skip
    assert again == one + (encoder.blocks.layers - 1) * states < whole / 2


def test_a_footprint_is_a_sum_in_words() -> None:
    found = Footprint(weights=GIB, gradients=GIB, moments=2 * GIB, activations=GIB // 2)
    assert str(found) == "weights 1.0 + gradients 1.0 + moments 2.0 + activations 0.5 = 4.5"


def test_a_peak_tells_activations_and_moments_are_yet_to_come() -> None:
    known = Footprint(weights=10, gradients=10, moments=20)
    assert with_activations(known, 25, begun=False) == Footprint(weights=10, gradients=10, moments=20, activations=5)
    assert with_activations(known, 45, begun=True) == Footprint(weights=10, gradients=10, moments=20, activations=5)
    assert with_activations(known, 15, begun=False).activations == 0


def test_the_page_shows_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import memory

    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    for row in memory.rows("usm_2b", 4, 16.0):
        assert f"| {' | '.join(map(str, row.values()))} |" in page
    for name in ("memory", "common"):
        del sys.modules[name]
