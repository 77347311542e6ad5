"""Every benchmark runs: each script as somebody would call it, on a few clips and with steps that teach nothing."""

import json
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from lhotse.supervision import AlignmentItem
from rich.console import Console

from isogloss.data.manifests import CARD, read_cuts, write_cuts
from isogloss.evaluation.evaluate import evaluate
from isogloss.files import read_json, write_json
from isogloss.training.language_model import train_language_model
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import train
from small_models import small_recipe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SHARED = {"common.py", "encoder_peers.py", "low_resource.py", "runs.py"}
"""What others import."""
SCRIPTS = {path.name for path in BENCHMARKS.glob("*.py")} - SHARED
WORDS = ("дом", "мама", "кот", "сон", "рот", "там")
ONCE = "--repetitions 1 --threads 1 --rest 0 --product 64"
ALONE = "--processes 1 --steps 1"
TEXT = {"entry": 1, "convolutions": 1, "layers": 1, "duration_layers": 1, "refiner": 1}


Run = Callable[[str, str], dict[str, Any]]


@dataclass
class Workshop:
    """What scripts are given, each made when it is first asked for."""

    letters: Path
    folder: Path

    @cached_property
    def russian(self) -> Path:
        """The sound of letters as words of Russian, with phones that share the time evenly."""
        cuts = read_cuts(self.letters)[:30]
        for number, (cut, word) in enumerate(zip(cuts, cycle(WORDS), strict=False)):
            each = cut.duration / len(word)
            said = cut.supervisions[0]
            said.text, said.language = word, "ru"
            said.alignment = {"phone": [AlignmentItem(phone, place * each, each) for place, phone in enumerate(word)]}
            cut.custom |= {"source": "russian", "split": ("train", "train", "train", "dev", "test")[number % 5]}
        write_cuts(self.folder / "russian", cuts)
        (self.folder / "russian" / CARD).write_bytes((self.letters / CARD).read_bytes())
        return self.folder / "russian"

    def trained(self, name: str, recipe: Recipe) -> Path:
        """The model of a recipe."""
        return train(recipe, self.folder / name, console=Console(quiet=True))

    @cached_property
    def model(self) -> Path:
        """All heads and a text encoder, for Spanish, Italian and Russian."""
        stage = {"name": "most", "steps": 1, "seconds": {"paired": 4}, "objectives": [{"name": "most"}]}
        heads = {"ctc": {}, "transducer": {}, "attention": {"layers": 1, "width": 16, "heads": 2}, "language": {}}
        recipe = small_recipe(self.letters, [stage], heads=heads, text=TEXT)
        recipe["data"]["folders"].append(str(self.russian))
        return self.trained("model", Recipe.parse(recipe, "test"))

    @cached_property
    def pretrained(self) -> Path:
        """Speech alone, in the size of the recipes of experiments."""
        stage = {"name": "pretrain", "steps": 1, "seconds": {"speech": 4}, "objectives": [{"name": "best_rq"}]}
        recipe = small_recipe(self.letters, [stage], encoder="tiny", tokenizer=None)
        return self.trained("pretrained", Recipe.parse(recipe, "test"))

    @cached_property
    def live(self) -> Path:
        """One that streams."""
        few = ["stages.1.steps=1", "stages.1.seconds={paired: 4}", "model.encoder.blocks.layers=1"]
        recipe = load_recipe("live-tiny", [*few, f"data.folders=[{self.letters}]"])
        return self.trained("live", recipe.model_copy(update={"stages": recipe.stages[1:2]}))

    @cached_property
    def lm(self) -> Path:
        """A language model for `model`."""
        train_language_model(self.model, self.folder / "lm", texts=[], data=[self.letters], order=2)
        return self.folder / "lm"

    @cached_property
    def hypotheses(self) -> Path:
        """What whisper_base.py would have written, of a peer that writes `a` for every clip."""
        clips = [
            {
                "id": cut.id,
                "source": cut.custom["source"],
                "language": cut.supervisions[0].language,
                "seconds": cut.duration,
                "reference": cut.supervisions[0].text,
                "code": cut.supervisions[0].language,
                "text": "a",
                "probabilities": {"es": 0.6, "it": 0.4},
            }
            for cut in read_cuts(self.letters, "test")
        ]
        path = self.folder / "hypotheses.json"
        path.write_text(json.dumps({"system": "peer", "clips": clips, "unknown_languages": [], "broken": 0}))
        return path

    @cached_property
    def short(self) -> Path:
        """A recipe file that fine-tunes for a step."""
        stage = {"name": "a", "steps": 1, "seconds": {"paired": 2}, "objectives": [{"name": "recognition"}]}
        recipe = small_recipe(self.letters, [stage])
        write_json(self.folder / "short.yaml", recipe | {"model": recipe["model"] | {"encoder": None}})
        return self.folder / "short.yaml"

    @cached_property
    def twin(self) -> Path:
        """The same clips as another corpus."""
        shutil.copytree(self.letters, self.folder / "twin")
        return self.folder / "twin"

    @cached_property
    def evaluations(self) -> Path:
        """A folder with what `isogloss evaluate --json` writes of a corpus."""
        found = evaluate(self.model, [self.letters], tasks=["recognition"], tell_language=True)
        write_json(self.folder / "evaluations/letters.json", found.plain())
        return self.folder / "evaluations"

    @cached_property
    def of_corpora(self) -> Path:
        """A folder with what whisper_base.py writes of the same corpus."""
        write_json(self.folder / "of_corpora/letters.json", read_json(self.hypotheses))
        return self.folder / "of_corpora"


@pytest.fixture(scope="module")
def workshop(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(letters, tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`run(SCRIPT, "--option value …")`: the figures that a script writes."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)

    def called(script: str, arguments: str) -> dict[str, Any]:
        file = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / script), *shlex.split(arguments), "--json", str(file)])
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    yield called
    ours = {path.stem for path in BENCHMARKS.glob("*.py")} | {"torchaudio"}  # which scripts hide where it is broken
    for name in ours & set(sys.modules) - before:
        del sys.modules[name]


TINY: dict[str, Callable[[Workshop], str]] = {
    "accelerator.py": lambda w: (
        f"{ONCE} --data {w.letters} --encoder test --seconds 6 --batch-seconds 3 --profiled 2 --minutes 0.05 --clips 1 "
        "--presets test --loss 2 8 3 9 --without kernels"
    ),
    "attention.py": lambda w: f"{ONCE} --seconds 3 --clips 1.5 --heads 1 --width 8",
    "blank_phase.py": lambda w: (
        f"--data {w.letters} --encoders test --seconds 6 --memory 3 --hours 0.01 --ways 'as it is' 'attention beside' "
        f"--runs {w.folder}/blank {ALONE}"
    ),
    "classical.py": lambda w: f"--model {w.model} --data {w.letters} --languages es --clips 3 --order 2",
    "cost.py": lambda w: "--share 0.3",
    "durations.py": lambda w: f"--model {w.model} --data {w.russian}",
    "encoder.py": lambda w: f"{ONCE} --layers 1 --width 16 --heads 2 --seconds 1 --clips 1",
    "finetuning.py": lambda w: (
        f"--model {w.model} --data {w.letters} --before {w.letters} {w.russian} --languages es "
        f"--runs {w.folder}/tuned {ALONE}"
    ),
    "frontend.py": lambda w: f"{ONCE} --seconds 1",
    "heads.py": lambda w: f"--model {w.model} --data {w.letters} --lm {w.lm} --hypotheses {w.hypotheses}",
    "injection.py": lambda w: (
        f"--start {w.pretrained} --data {w.letters} --languages es it --minutes 0.2 --arms fine-tune most "
        f"--runs {w.folder}/injected {ALONE} --plot {w.folder}/injection.svg"
    ),
    "int8.py": lambda w: f"--model {w.model} --data {w.letters} {w.russian}",
    "joint_step.py": lambda w: (
        f"{ONCE} --model {w.model} --data {w.letters} --languages es it --plot {w.folder}/joint.svg"
    ),
    "long_form.py": lambda w: (
        f"--data {w.russian} --depths 1 --longer 1 --runs {w.folder}/long {ALONE} --plot {w.folder}/long.svg"
    ),
    "memory.py": lambda w: "--preset test --clips 1 --seconds 1",
    "methods.py": lambda w: (
        f"--data {w.letters} --hours 0.01 --methods apc cpc --seeds 1 --runs {w.folder}/methods {ALONE} "
        "--overrides model.encoder.blocks.width=32 data.shortest=0.3"
    ),
    "no_speech.py": lambda w: f"--model all={w.model} --minutes 0.05 --whisper",
    "onnx_models.py": lambda w: f"{ONCE} --model {w.model} --data {w.letters} {w.russian}",
    "reading.py": lambda w: f"{ONCE} --data {w.russian} --work {w.folder}/reading --hours 0.01",
    "leave_one_out.py": lambda w: (
        f"--recipe {w.short} --start {w.pretrained} --data {w.letters} {w.twin} --hold-out {w.letters.name} "
        f"--minutes 0.05 --processes 1 --runs {w.folder}/without --hypotheses {w.of_corpora}"
    ),
    "quantizer.py": lambda w: f"{ONCE} --batch 1 --frames 5 --width 8 --codes 16 --code-width 4",
    "quiet.py": lambda w: (
        f"--model one={w.model} --data {w.letters} --clips {w.letters} --limit 2 --seconds 0.2 "
        f"--plot {w.folder}/quiet.svg"
    ),
    "recognition.py": lambda w: (
        f"--model one={w.model} other={w.model} --lm one={w.lm} --data {w.letters} --hypotheses {w.hypotheses}"
    ),
    "released.py": lambda w: f"--model one={w.evaluations} --hypotheses {w.of_corpora}",
    "retrieval.py": lambda w: f"--model {w.model} --data {w.letters} --languages es it --across it --pool 5",
    "serving.py": lambda w: (
        f"--model {w.model} --data {w.letters} --language guessed --clients 2 --minutes 0.05 --limit 3 --threads 1"
    ),
    "states.py": lambda w: f"--model {w.model} --data {w.letters} --languages es it --plot {w.folder}/states.svg",
    "streaming.py": lambda w: f"--model {w.live} --data {w.letters} --languages es --clips 2 --threads 1",
    "throughput.py": lambda w: f"{ONCE} --presets test --clips 2 --seconds 1",
    "transcription.py": lambda w: (
        f"--model {w.model} --data {w.letters} --language es --seconds 3 --threads 1 --systems isogloss "
        "'faster-whisper base int8, greedy'"
    ),
    "transducer.py": lambda w: (
        f"{ONCE} --batch 2 --frames 8 --symbols 3 --vocabulary 9 --large-vocabulary 9 --joiner 4"
    ),
    "whisper_base.py": lambda w: f"--data {w.letters} --limit 1 --threads 1",
    "windows.py": lambda w: f"--model {w.model} --data {w.letters} --seconds 2 --most 1 --threads 1",
    "word_times.py": lambda w: f"--model {w.model} --data {w.russian}",
    "zero_label.py": lambda w: (
        f"--start {w.pretrained} --data {w.letters} --labelled es --zero it --sure 0 "
        f"--arms bytes 'phonemes, own labels' --search {ALONE} --encoder-rate 1e-4 --runs {w.folder}/zero "
        f"--plot {w.folder}/zero.svg"
    ),
}
"""How each script is called."""


def test_every_script_is_here() -> None:
    assert set(TINY) == SCRIPTS


@pytest.mark.parametrize("script", sorted(TINY))
def test_it_runs(script: str, workshop: Workshop, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = TINY[script](workshop)
    if script == "whisper_base.py" and find_spec("faster_whisper") is None:
        with pytest.raises(SystemExit, match="Whisper is not here"):
            run(script, arguments)
        return
    found = run(script, arguments)
    assert {"date", "commit", "command", "processor"} <= found.keys()
    tables = [found[key] for key in ("rows", "evaluation", "recognition", "stack", "audio", "step") if key in found]
    assert tables and all(tables)
    assert not any(row.get("failed") for row in found.get("rows", []))
    printed = capsys.readouterr().out
    assert all(f"{name}: not measured here" in printed for name in found.get("missing", {}))
    for picture in shlex.split(arguments)[1:]:
        if picture.endswith(".svg"):
            assert "<svg" in Path(picture).read_text(encoding="utf-8")


def test_every_arm_of_an_experiment_is_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = runpy.run_path(str(BENCHMARKS / "zero_label.py"))
    for changes in script["ARMS"].values():
        assert script["some_stages"](script["RECIPE"], slice(1, None), changes).stages
    assert script["TEACHERS"].keys() | set(script["TEACHERS"].values()) <= script["ARMS"].keys()
