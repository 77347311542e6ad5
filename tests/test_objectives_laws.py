"""What every objective that a recipe can name must hold; a new one is tested without an edit."""

import math
import random
import re
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import isogloss.objectives
from isogloss.config import Config
from isogloss.data.loading import Batch
from isogloss.encoders.embed import EmbedConfig, IdentityConfig
from isogloss.encoders.quantised import GumbelConfig, NearestConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.nn.quantizers import RandomProjectionQuantizer
from isogloss.objectives import AnyFit, ObjectiveConfig
from isogloss.objectives.base import Alarm, BaseConfig, Clock, Loss, Term
from isogloss.sequence import Sequence
from isogloss.training.health import WINDOW, Health, require_gradients
from isogloss.training.preflight import check_counts
from isogloss.training.recipe import StageRecipe
from isogloss.training.stage import Counts, Stage, Sums, begin_training, trainable
from isogloss.training.streams import Micro
from small_objectives import HEADS, batch_for, causal_model, joint_model, rows

# Five clips, so that the halves are unlike; by two voices, in two languages.
TEXTS = ["da nu da", "ok", "a b c d e", "nu", "ok da a"]
LANGUAGES = ["ro", "ru", "ro", "ru", "ro"]
SAMPLES = [16000, 9000, 22000, 14000, 19000]
HALVES = (slice(0, 2), slice(2, 5))

CONFIGS: list[type[BaseConfig]] = list(get_args(get_args(ObjectiveConfig)[0]))


@dataclass(frozen=True)
class Case:
    """An objective by its name in recipes, with values other than its defaults, and models that may do for it."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    upsampling: tuple[str, ...] = ("repeat", "none")
    heads: tuple[str, ...] = tuple(HEADS)
    embed: EmbedConfig | None = None

    def __str__(self) -> str:
        apart = {"upsampling": self.upsampling[0]} if len(self.upsampling) == 1 else {}
        apart |= {"embed": self.embed.kind} if self.embed else {}
        said = self.values | apart | ({} if self.heads else {"heads": "ctc"})
        return " ".join([self.name, *(f"{key}={value}" for key, value in said.items())])


OTHER = {
    "encoder": {"embed": {"kind": "identity"}, "blocks": {"kind": "rnn", "layers": 1, "width": 16, "dropout": 0.0}},
    "features": {"kind": "waveform", "channels": 8, "norm": "layer", "bias": True},
}
SMALLER: dict[str, dict[str, Any]] = {
    "data2vec": {"blocks": 2},
    "mockingjay": {"mask_ms": 200},
    "moco": {"queue": 64},
    "pase": {
        "workers": ("wave", "lps", "fbank_long", "gammatone", "mfcc_13", "prosody", "lim", "gim", "spc"),
        **{"hidden": 8, "decoder": (4, 4, 4), "crop": 0.5},
    },
    "multi_format": {"other": OTHER},
    "time_contrastive": {"far_ms": 400},
}
"""What the small models, and the short clips, have too little of by default."""
CASES = [
    *(Case(name, SMALLER.get(name, {})) for kind in CONFIGS if (name := kind.model_fields["name"].default)),
    # Others that take another way through their code.
    Case("data2vec", {"blocks": 1}),
    Case("pase", {"workers": ("fbank", "spc"), "context": 1, "changes": 0, "hidden": 8, "distort": None}),
    Case("cola", {"similarity": "cosine", "perturb": {"pauses": 1.0, "rooms": 0.5, "tone": 6.0}}),
    Case("aligned_mlm", upsampling=("none",)),
    Case("maestro", {"soft": True, "aligner": None}, upsampling=("none",)),
    Case("maestro", heads=()),
    Case("most", upsampling=("none",)),
    Case("sonar", {"both_sides": True, "translated": 0.5}),
    Case("slam", {"heads": 0.5}),
    Case("vq_wav2vec", embed=NearestConfig(codes=12)),
    Case("vq_wav2vec", {"diversity": 0.5}),
]
CAUSAL: dict[str, EmbedConfig] = {name: IdentityConfig() for name in ("apc", "cpc", "wav2vec")}
CAUSAL |= {"vq_wav2vec": GumbelConfig(codes=12)}
"""Those that want an encoder that sees nothing of the future, and its embedding."""
every_objective = pytest.mark.parametrize("case", CASES, ids=str)


def without_noise(config: Any) -> Any:
    """The same without the noise of `forward`, which is drawn for a whole batch."""
    changed = {key: without_noise(value) for key, value in config if isinstance(value, Config)}
    return config.model_copy(update=changed | ({"noise": 0.0} if "noise" in type(config).model_fields else {}))


class EveryOther(nn.Module):
    """In place of masks: of features (B, T, F) it leaves some as they are, and the next it weakens."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, features: Sequence) -> Sequence:
        self.calls += 1
        return features.map(lambda values: values if self.calls % 2 else 0.5 * values)


def stage_of(case: Case, **changes: Any) -> Stage:
    """A stage of one objective on the first small model that has all that it needs."""
    if case.name.startswith("tts4pretrain"):
        pytest.importorskip("espeakng_loader")
    kind = next(kind for kind in CONFIGS if kind.model_fields["name"].default == case.name)
    config = without_noise(kind.parse(case.values, "test"))
    problem: IsoglossError | None = None
    for upsampling in case.upsampling:
        embed = case.embed or CAUSAL.get(case.name)
        model = causal_model(embed) if embed else joint_model(*case.heads, upsampling=upsampling)
        try:
            stream = config.build(model.spec).needs.stream
        except IsoglossError as error:
            problem = error
            continue
        plain = {"name": "test", "steps": 10, "seconds": {stream: 1.0}, "objectives": [config.plain()]}
        stage = Stage(StageRecipe.parse(plain | changes, "test"), model)
        stage.begin()
        if case.name == "consistency":  # otherwise it is 0, for in evaluation nothing is masked
            stage.objectives[case.name].augment = EveryOther()
        return stage.eval()
    raise AssertionError(f"no small model will do: {problem}")


def clips(stage: Stage, **how: Any) -> Batch:
    """What the objective of a stage needs of five clips."""
    (objective,) = stage.objectives.values()
    batch = batch_for(objective.needs, **{"texts": TEXTS, "languages": LANGUAGES, "samples": SAMPLES} | how)
    batch = replace(batch, translations=[{"ru": "da"} if tag == "ro" else {} for tag in batch.languages])
    frames = stage.model.spec.frames(batch.audio.lengths).tolist()
    labels = {name: Sequence.from_list([torch.arange(n) % 2 for n in frames]) for name in objective.needs.labels}
    return replace(batch, labels=labels, views=[batch.audio] * (objective.needs.views - 1))


def prepared(stage: Stage, batch: Batch, training: bool = True) -> Micro:
    """The micro-batch of a stage of one objective."""
    ((name, objective),) = stage.objectives.items()
    return {name: objective.prepare(batch, training)}


def summed(counts: list[Counts]) -> Counts:
    return {name: sum(count[name] for count in counts) for name in counts[0]}


def run(stage: Stage, micros: list[Micro]) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """A step over micro-batches: its loss, its terms, and the gradients of all that learns."""
    counts = summed([stage.counts(micro) for micro in micros])
    parameters = trainable(stage)
    stage.zero_grad(set_to_none=True)
    totals: dict[str, float] = {}
    value = 0.0
    for micro in micros:
        sums: Sums = stage(micro, counts)
        sums.total.backward()
        value += sums.total.item()
        for name, term in sums.terms.items():
            totals[name] = totals.get(name, 0.0) + float(term.total)
    return value, totals, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def additive(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the terms that compare the clips of a batch with each other."""
    whole = stage.loss

    def loss(name: str, micro: Micro) -> Loss:
        found = whole(name, micro)
        kept = {key: term for key, term in found.terms.items() if key not in stage.objectives[name].batchwise}
        if not kept:
            pytest.skip(f"all terms of {name} compare the clips of a batch with each other")
        return replace(found, terms=kept)

    monkeypatch.setattr(stage, "loss", loss)


@every_objective
def test_a_batch_is_its_halves(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, terms and gradients, to what float32 rounds: a mean over a half would be off by a tenth and more."""
    stage = stage_of(case)
    additive(stage, monkeypatch)
    whole = clips(stage)
    value, terms, slopes = run(stage, [prepared(stage, whole)])
    halved, parts, found = run(stage, [prepared(stage, rows(whole, half)) for half in HALVES])
    assert halved == pytest.approx(value, rel=1e-4)
    assert parts == pytest.approx(terms, rel=1e-4) and any(terms.values())
    assert found.keys() == slopes.keys()
    largest = max(float(slope.norm()) for slope in slopes.values())
    for name, slope in slopes.items():
        assert float((found[name] - slope).norm()) <= 1e-3 * float(slope.norm()) + 1e-6 * largest, name


@every_objective
def test_a_clip_alone_is_what_it_is_in_a_batch(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(case)
    additive(stage, monkeypatch)
    whole = clips(stage)
    together = stage(prepared(stage, whole), stage.counts(prepared(stage, whole))).terms
    alone = [prepared(stage, rows(whole, slice(row, row + 1))) for row in range(len(whole.ids))]
    found = [stage(micro, stage.counts(micro)).terms for micro in alone]
    for name, term in together.items():
        assert sum(float(one[name].total) for one in found) == pytest.approx(float(term.total), rel=1e-4), name
        assert sum(float(one[name].count) for one in found) == float(term.count), name


@every_objective
def test_what_is_in_the_padding_changes_nothing(case: Case) -> None:
    stage = stage_of(case)
    plain = prepared(stage, clips(stage))
    dirty = prepared(stage, clips(stage, pad=3333, poison=math.nan))
    poisoned = {name: spoiled(batch) for name, batch in dirty.items()}
    value, terms, slopes = run(stage, [plain])
    other, found, other_slopes = run(stage, [poisoned])
    assert other == pytest.approx(value, rel=1e-4) and found == pytest.approx(terms, rel=1e-4)
    assert all(bool(slope.isfinite().all()) for slope in other_slopes.values())
    assert other_slopes.keys() == slopes.keys()


def spoiled(batch: Batch) -> Batch:
    """Other symbols and NaN in the padding of what was prepared."""

    def spoil(value: Sequence) -> Sequence:
        valid = value.valid.reshape(*value.valid.shape, *[1] * (value.values.dim() - 2))
        return value.with_values(value.values.where(valid, math.nan if value.values.is_floating_point() else 2))

    return batch.with_extras({name: spoil(v) for name, v in batch.extras.items() if isinstance(v, Sequence)})


@every_objective
def test_counts_are_announced(case: Case) -> None:
    """Also of odd clips: short ones, without text, with more text than frames; of which all is finite."""
    stage = stage_of(case)
    odd = {"texts": ["", None, "a b c d e " * 9, "a"], "languages": LANGUAGES[:4], "samples": [401, 9000, 1600, 900]}
    for batch in (clips(stage), clips(stage, **odd), replace(clips(stage), seed=8, seeds=[])):
        micro = prepared(stage, batch)
        counts = stage.counts(micro)
        sums = stage(micro, counts)
        check_counts(sums, counts)
        assert all(bool(torch.as_tensor(mean.total).isfinite()) for mean in sums.stats.values())
        value, _, slopes = run(stage, [micro])
        assert math.isfinite(value) and all(bool(slope.isfinite().all()) for slope in slopes.values())
    name = next(iter(sums.terms))
    wrong = Sums(sums.total, {name: Term(sums.terms[name].total, -1)}, {})
    with pytest.raises(RuntimeError, match=f"{name} is a mean over -1"):
        check_counts(wrong, counts)


@every_objective
def test_a_step_reaches_all_that_is_its_own(case: Case) -> None:
    """What it does not reach of the model is named, and a stage that freezes what is named learns all that it trains.
    """
    stage = stage_of(case)
    begin_training(stage)
    parameters = trainable(stage)
    _, _, slopes = run(stage, [prepared(stage, clips(stage))])
    assert all(bool(slope.isfinite().all()) for slope in slopes.values())
    own = {name for name in parameters if name.startswith(f"{case.name}/")}
    assert own <= slopes.keys()
    assert any(name.startswith("encoder.stack.blocks.2.") for name in slopes)
    silent = parameters.keys() - slopes.keys()
    if not silent:
        return
    with pytest.raises(IsoglossError, match=f"reaches {len(silent)} of the parameters") as caught:
        require_gradients(silent, set(parameters), "test")
    advice = str(caught.value).partition("freeze: [")[2].partition("]")[0].split(", ")
    mended = stage_of(case, freeze=advice)
    begin_training(mended)
    left = trainable(mended)
    _, _, again = run(mended, [prepared(mended, clips(mended))])
    assert again.keys() == left.keys() == slopes.keys()


@every_objective
def test_preparing_draws_from_the_seeds_of_the_clips_alone(case: Case) -> None:
    stage = stage_of(case)
    batch = clips(stage)
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    weights = {name: value.clone() for name, value in stage.state_dict().items()}
    (first,) = prepared(stage, batch).values()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert all(torch.equal(value, weights[name]) for name, value in stage.state_dict().items())
    torch.manual_seed(2)
    (again,) = prepared(stage, batch).values()
    (other,) = prepared(stage, replace(batch, seed=99)).values()  # which `forward` draws from
    for extras in (again.extras, other.extras):
        assert extras.keys() == first.extras.keys()
        assert all(same(value, first.extras[name]) for name, value in extras.items())
    (last,) = prepared(stage, rows(batch, slice(4, 5))).values()
    assert all(same(value, row_of(first.extras[name], 4)) for name, value in last.extras.items())


def row_of(value: Any, row: int) -> Any:
    """What was prepared for one clip, as if it had been alone; sequences without padding."""
    return Sequence.from_list(value.unpad()[row : row + 1]) if isinstance(value, Sequence) else value[row : row + 1]


def same(one: Any, other: Any) -> bool:
    """Whether two things that were prepared are equal; a mask of a batch is as wide as the longest clip."""
    if isinstance(one, Sequence):
        return torch.equal(one.lengths, other.lengths) and torch.equal(one.values, other.values)
    if isinstance(one, Tensor) and one.dim() > 1:
        width = one.shape[1]
        return torch.equal(one, other[:, :width]) and not other[:, width:].any()
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


@every_objective
def test_what_is_logged_carries_its_name_and_what_alarms_watch_is_logged(case: Case) -> None:
    stage = stage_of(case)
    micro = prepared(stage, clips(stage))
    sums = stage(micro, stage.counts(micro))
    assert sums.terms and all(name.startswith(f"{case.name}/") for name in [*sums.terms, *sums.stats])
    assert not sums.terms.keys() & sums.stats.keys()
    means = [*sums.terms.values(), *sums.stats.values()]
    assert not any(isinstance(mean.total, Tensor) and mean.total.requires_grad for mean in means)
    (objective,) = stage.objectives.values()
    watched = {alarm.stat for alarm in objective.health()}
    assert watched <= {name.partition("/")[2] for name in sums.stats}
    for alarm in objective.health():
        assert alarm.said.format(value=0.5, step=7, hours=0.1)
    if any(isinstance(part, RandomProjectionQuantizer) for part in objective.modules()):
        assert {"code_perplexity", "spread"} <= watched


@every_objective
def test_on_the_dev_split_it_measures_what_it_learns(case: Case) -> None:
    """The same terms, finite, without a gradient, and twice the same."""
    stage = stage_of(case)
    micro = prepared(stage, clips(stage), training=False)
    with torch.no_grad():
        first, again = (stage(micro, stage.counts(micro)) for _ in range(2))
    assert {n: float(t.total) for n, t in first.terms.items()} == {n: float(t.total) for n, t in again.terms.items()}
    trained = prepared(stage, clips(stage))
    assert first.terms.keys() == stage(trained, stage.counts(trained)).terms.keys()


def test_two_objectives_with_one_statistic_have_a_window_each() -> None:
    """Only one of them emits nothing but blanks, and it is named."""
    alarm = Alarm("blank", "All-blank CTC: after {step} steps.", most=0.999)
    health = Health({"most": (alarm,), "aligned_mlm": (alarm,)})
    for step in range(WINDOW - 1):
        health.check(step, step / 100, {"most/blank": 0.2, "aligned_mlm/blank": 1.0})
    with pytest.raises(IsoglossError, match=f"^aligned_mlm: All-blank CTC: after {WINDOW} steps"):
        health.check(WINDOW, 1.0, {"most/blank": 0.2, "aligned_mlm/blank": 1.0})
    alone = Health({"most": (alarm,), "aligned_mlm": (alarm,)})
    for step in range(3 * WINDOW):  # left out by its guard, an objective has no statistics
        alone.check(step, 0.0, {"most/blank": 0.2})


def test_a_warning_is_said_once_by_steps_or_by_hours() -> None:
    words = "still blanks after {step} steps ({hours:.1f} h)."
    early = Alarm("blank", words, most=0.999, patience=400, hours=5, only_warns=True)
    late = Alarm("blank", "All-blank CTC.", most=0.999, patience=1500)
    for hours_a_step, expected in ((0.1, WINDOW), (0.001, 400)):
        health, said = Health({"recognition": (early, late)}), {}
        for step in range(1, 1500):
            if found := health.check(step, step * hours_a_step, {"recognition/blank": 1.0}):
                said[step] = found
        sentence = f"recognition: still blanks after {expected} steps ({expected * hours_a_step:.1f} h)."
        assert said == {expected: [sentence]}
        with pytest.raises(IsoglossError, match=r"^recognition: All-blank CTC"):
            health.check(1500, 1500 * hours_a_step, {"recognition/blank": 1.0})


def test_an_objective_that_takes_no_part_any_more_stops_no_run() -> None:
    health = Health({"most": (Alarm("blank", "All-blank CTC.", most=0.999, patience=WINDOW + 1),)})
    for step in range(1, WINDOW + 1):
        assert not health.check(step, 0.0, {"most/blank": 1.0})
    assert not health.check(WINDOW + 1, 0.0, {})  # shut out by its guard
    with pytest.raises(IsoglossError, match=r"^most: All-blank CTC"):
        health.check(WINDOW + 2, 0.0, {"most/blank": 1.0})


@pytest.mark.parametrize(
    ("name", "stat", "value", "said"),
    [
        ("best_rq", "code_perplexity", 1.2, "Codebook collapse: the targets use 1.2 codes"),
        ("slam", "code_perplexity", 1.2, "Codebook collapse"),
        ("speecht5_speech", "spread", 0.0, "Representation collapse"),
        ("tts4pretrain", "spread", 0.0, "Representation collapse"),
        ("tts4pretrain2", "blank", 1.0, "All-blank CTC"),
        ("aligned_mlm", "blank", 1.0, "All-blank CTC"),
    ],
)
def test_alarms_stop_a_run_by_the_name_of_the_objective(name: str, stat: str, value: float, said: str) -> None:
    stage = stage_of(Case(name))
    health = Health({name: stage.objectives[name].health()})
    with pytest.raises(IsoglossError, match=f"^{name}: {said}"):
        for step in range(2000):
            health.check(step, step / 100, {f"{name}/{stat}": value})


def test_terms_with_counts_of_their_own_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Σ weight · total / count of the step, whatever part of it a micro-batch has."""
    stage = stage_of(Case("best_rq"))
    (objective,) = stage.objectives.values()
    monkeypatch.setattr(objective, "counts", lambda batch: {"b": len(batch.ids) ** 2})

    def loss(model: Model, batch: Batch, clock: Clock) -> Loss:
        count = len(batch.ids)
        one = torch.ones((), requires_grad=True)
        return Loss({"a": Term(6.0 * count * one, count), "b": Term(10.0 * one, count**2, 0.5)})

    monkeypatch.setattr(objective, "forward", loss)
    micros = [prepared(stage, rows(clips(stage), half)) for half in HALVES]
    counts = summed([stage.counts(micro) for micro in micros])
    assert counts == {"best_rq": 5, "best_rq/b": 4 + 9}
    values = [stage(micro, counts).total.item() for micro in micros]
    assert values == pytest.approx([6 * 2 / 5 + 0.5 * 10 / 13, 6 * 3 / 5 + 0.5 * 10 / 13])
    assert loss(stage.model, rows(clips(stage), HALVES[1]), Clock()).value.item() == pytest.approx(6 + 5 / 9)


def test_every_objective_in_the_folder_is_under_law() -> None:
    folder = Path(isogloss.objectives.__file__).parent
    files = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    named = {name for text in files for name in re.findall(r'name: Literal\["(\w+)"\]', text)}
    assert {"best_rq", "recognition", "maestro", "sonar"} <= {case.name for case in CASES} <= named
    fits = {kind.model_fields["name"].default for kind in get_args(get_args(AnyFit)[0])}
    assert named - fits == {case.name for case in CASES}


class Waiting(TorchDispatchMode):
    """Which lines of ours ask for a value or for a shape that depends on values: a GPU would stand still for them."""

    ASKING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2"})

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.__name__.partition(".")[0]
        chosen = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in self.ASKING or any(place is not None and place.dtype == torch.bool for place in chosen):
            ours = [frame for frame in traceback.extract_stack() if "/isogloss/" in frame.filename]
            self.lines.add(f"{Path(ours[-1].filename).name}: {ours[-1].line}")
        return operation(*args, **(kwargs or {}))


OF_UTTERANCES = ["cola", "moco", "multi_format", "simclr", "time_contrastive", "triplet"]


@pytest.mark.parametrize("name", ["best_rq", "pase", "recognition", "vq_vae", *OF_UTTERANCES])
def test_a_step_waits_for_nothing(name: str) -> None:
    """But on a CPU, where it costs nothing, for whether all is valid."""
    stage = stage_of(Case(name, SMALLER.get(name, {})))
    micro = prepared(stage, clips(stage))
    counts = stage.counts(micro)
    with Waiting() as waiting:
        stage(micro, counts).total.backward()
    assert {line.partition(":")[0] for line in waiting.lines} <= {"masks.py", "transducer.py"}, waiting.lines
    assert not any("tolist" in line for line in waiting.lines)
