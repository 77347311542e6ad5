"""A new objective is one new file: with a frame rate, a teacher and labels of its own it trains, resumes, goes on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import isogloss
from isogloss.training.checkpoint import read_checkpoint
from small_models import small_recipe

TOY = '''"""A toy: from two encoder frames the label of the first, and what a slow copy of the encoder makes of both.

    audio (B, S) ─ encoder (B, T, D) ─ two side by side (B, T/2, 2D) ─┬─ softmax ─> L_label
    labels (B, T) ─ every second ─────────────────────────────────────┘
                                          the same of a slow copy ─ sg ─ L_teacher = |project(h) - h_slow|²
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.model.model import Model
from isogloss.model.spec import ModelSpec
from isogloss.objectives.base import BaseConfig, Clock, Loss, Mean, Objective, Term
from isogloss.sequence import Sequence


class ToyConfig(BaseConfig):
    """Labels at half the frame rate of the encoder."""

    name: Literal["toy"] = "toy"
    labels: str = Field("units", description="stage that fits them")
    clusters: int = Field(4, ge=2, description="how many labels there are")
    decay: float = Field(0.6, ge=0, lt=1, description="of the teacher at the end; it begins at 0")

    def build(self, spec: ModelSpec) -> "Toy":
        """The objective for a model."""
        return Toy(self, spec)


class Toy(Objective):
    """L_label + L_teacher."""

    teacher_of = "encoder"

    def __init__(self, config: ToyConfig, spec: ModelSpec):
        super().__init__(config, spec)
        self.config = config
        self.needs = Needs(labels=frozenset({config.labels}))
        self.softmax = nn.Linear(2 * spec.width, config.clusters)
        self.project = nn.Linear(2 * spec.width, 2 * spec.width)

    def teacher(self, clock: Clock) -> float:
        return self.config.decay * clock.share

    def prepare(self, batch: Batch, training: bool) -> Batch:
        """Every second label, (B, T/2)."""
        labels = batch.labels[self.config.labels]
        width = labels.values.shape[1] // 2
        return batch.with_extras({"targets": Sequence(labels.values[:, : 2 * width : 2], labels.lengths // 2)})

    def counts(self, batch: Batch) -> dict[str, int]:
        frames = int(batch.extras["targets"].lengths.sum())
        return {"label": frames, "teacher": frames}

    def forward(self, model: Model, batch: Batch, clock: Clock) -> Loss:
        """Audio (B, S) -> losses summed over pairs of frames."""
        features, targets = model.features(batch.audio), batch.extras["targets"]
        states = halved(model.encode(features, languages=batch.languages).final)[targets.valid]
        with torch.no_grad():
            slow = halved(self.ema.copy(features, languages=batch.languages).final)[targets.valid]
        logits, labels = self.softmax(states).float(), targets.values[targets.valid]
        distances = (self.project(states) - slow).square().mean(dim=-1)
        terms = {
            "label": Term(cross_entropy(logits, labels, reduction="sum"), len(labels)),
            "teacher": Term(distances.sum(), len(labels), 0.5),
        }
        return Loss(terms, {"accuracy": Mean((logits.argmax(dim=-1) == labels).sum(), len(labels))})


def halved(states: Sequence) -> Tensor:
    """(B, T, D) -> (B, T/2, 2D)."""
    values = states.zero_padding().values
    return values[:, : values.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)
'''

SCRIPT = '''
import json
import sys
from pathlib import Path

import isogloss
from isogloss.nn.ema import EMA
from isogloss.training import development
from isogloss.training.recipe import Recipe
from isogloss.training.stage_run import StageRun
from isogloss.training.trainer import train
from rich.console import Console

recipes, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
assert Path(isogloss.__file__).is_relative_to(out), isogloss.__file__
development.CLIPS = 4
quiet = Console(quiet=True)
decays, follow, step = [], EMA.follow, StageRun._step
EMA.follow = lambda self, module, decay: decays.append(decay) or follow(self, module, decay)
first = Recipe.parse(recipes["first"], "first")
train(first, out / "whole", console=quiet)
(out / "decays.json").write_text(json.dumps(decays))


class Cut(Exception):
    pass


def cut(run):
    if run.done == 2:
        raise Cut
    step(run)


StageRun._step = cut
try:
    train(first, out / "cut", console=quiet)
    raise AssertionError("nothing was cut")
except Cut:
    pass
StageRun._step = step
train(first, out / "cut", resume=True, console=quiet)
train(Recipe.parse(recipes["second"], "second"), out / "second", console=quiet)
'''


@pytest.fixture(scope="module")
def runs(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and one file more, and three runs of it: whole, cut and resumed, and one that goes on.
    """
    out = tmp_path_factory.mktemp("toy")
    shutil.copytree(Path(isogloss.__file__).parent, out / "isogloss", ignore=shutil.ignore_patterns("__pycache__"))
    (out / "isogloss/objectives/toy.py").write_text(TOY, encoding="utf-8")
    units = {"name": "units", "fit": {"name": "kmeans", "clusters": 4, "layer": 1}}
    learn = {
        "name": "learn", "steps": 3, "seconds": {"speech": 8}, "batch_seconds": 4, "freeze": ["heads"],
        "objectives": [{"name": "toy", "labels": "units"}], "save_every": 1, "evaluate_every": 2, "best": "last",
    }  # fmt: skip
    first = small_recipe(letters, [units, learn])
    still = learn | {"steps": 1, "optimizer": {"peak": 1e-9}}
    second = small_recipe(letters, [units, still], start_from=str(out / "whole/model"))
    (out / "recipes.json").write_text(json.dumps({"first": first, "second": second}))
    environment = os.environ | {"PYTHONPATH": str(out), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(out / "recipes.json"), str(out)]
    done = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def records(run: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timed = ("time", "speed", "waited")
    return [{k: v for k, v in one.items() if k not in timed} for one in found if one["event"] == event]


def tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / f"{name}.safetensors")


def test_it_trains_and_is_measured_at_its_own_frame_rate(runs: Path) -> None:
    steps = records(runs / "whole", "step")
    assert len(steps) == 3 and {"toy/loss", "toy/label", "toy/teacher", "toy/accuracy"} <= steps[0].keys()
    assert steps[0]["toy/label"] == pytest.approx(1.4, abs=0.6)  # ln 4 of labels that are not yet known
    assert steps[0]["toy/loss"] == pytest.approx(steps[0]["toy/label"] + 0.5 * steps[0]["toy/teacher"])
    looks = records(runs / "whole", "dev")
    assert [look["step"] for look in looks] == [2, 3] and {"toy/label", "toy/accuracy", "loss"} <= looks[0].keys()
    assert [record["stage"] for record in records(runs / "whole", "fit")] == ["units"]


def test_its_teacher_follows_by_the_clock(runs: Path) -> None:
    assert json.loads((runs / "decays.json").read_text()) == pytest.approx([0.0, 0.2, 0.4])
    found = read_checkpoint(runs / "whole", 3).tensors("objectives")
    model = tensors(runs / "whole", "model")
    slow = {name.removeprefix("toy/ema.copy."): value for name, value in found.items() if "/ema.copy." in name}
    assert {f"encoder.{name}" for name in slow} == {name for name in model if name.startswith("encoder.")}
    assert any(not torch.equal(value, model[f"encoder.{name}"]) for name, value in slow.items())
    assert not any("/ema." in name for name in tensors(runs / "whole", "pretraining"))  # a new stage makes its own


def test_a_run_that_was_cut_is_the_same_run(runs: Path) -> None:
    for event in ("fit", "step", "dev"):
        assert records(runs / "cut", event) == records(runs / "whole", event)
    for name in ("model", "pretraining"):
        whole, cut = tensors(runs / "whole", name), tensors(runs / "cut", name)
        assert whole.keys() == cut.keys() and all(torch.equal(value, cut[key]) for key, value in whole.items())


def test_what_it_learned_for_itself_goes_on_with_the_model(runs: Path) -> None:
    before, after = tensors(runs / "whole", "pretraining"), tensors(runs / "second", "pretraining")
    for name in ("toy/softmax.weight", "toy/project.weight", "toy/softmax.bias"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
