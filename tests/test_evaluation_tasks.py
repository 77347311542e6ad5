"""A task is one file and no other edit: it is found, run, shown everywhere, and left out with a reason."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from isogloss import cli
from isogloss.data.manifests import read_cuts
from isogloss.errors import IsoglossError
from isogloss.evaluation import evaluate as evaluating
from isogloss.evaluation import tasks
from isogloss.evaluation.card import add_figures
from isogloss.evaluation.data import Data
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.tasks import find_task, task_names
from isogloss.evaluation.tasks.phonemes import MEAN, ONE_SENTENCE, Phonemes
from isogloss.model.recogniser import Recogniser
from isogloss.training.recipe import Recipe
from test_evaluation_report import Page, corpus, records, save

OWN = ["calibration", "durations", "language", "phonemes", "recognition", "retrieval", "shared_space"]

TOY = '''"""A toy: how long clips are."""

from typing import ClassVar

from pydantic import Field

from isogloss.evaluation.figures import repeated
from isogloss.evaluation.table import Bars, Measure, Row, Table
from isogloss.evaluation.task import Task


class Lengths(Task):
    """How long clips are."""

    longest: float = Field(99.0, description="seconds of a clip that counts")

    def why_not(self, model, data):
        return None if self.longest > 0 else "Nothing is that short."

    def run(self, model, data):
        seconds = [cut.duration for cut in data.cuts if cut.duration <= self.longest]
        found = repeated(seconds, len(seconds), {"half a second": 0.5})
        measure = Measure(name="length", about="mean length", unit="s", better=None)
        row = Row(keys={"what": "all <clips>"}, headline=True, figures={"length": found})
        return Table(task=self.name(), title="How long?", about="A toy task.", keys=("what",), measures=(measure,),
                     rows=(row,), pictures=(Bars(measure="length"),), notes=("It is a toy.",))
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task that is nothing but a file where tasks lie."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/toy_lengths.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "isogloss.evaluation.tasks.toy_lengths", raising=False)
    return "toy_lengths"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training would have left, with random weights; its data lie beside it."""
    folder = tmp_path_factory.mktemp("tasks") / "run"
    data = corpus(folder.parent / "noise")
    stages = [{"name": "read", "steps": 1, "seconds": {"paired": 36}, "objectives": [{"name": "recognition"}]}]
    model = {"encoder": "test", "tokenizer": {"kind": "characters"}}
    recipe = Recipe.parse({"name": "toy", "data": {"folders": [str(data)]}, "model": model, "stages": stages}, "recipe")
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.plain()), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records()), encoding="utf-8")
    save(folder / "model", recipe.plain())
    return folder


def call(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run([str(argument) for argument in arguments])
    return code, *capfd.readouterr()


def test_every_file_is_a_task() -> None:
    assert task_names() == OWN
    for name in OWN:
        task = find_task(name)
        assert task.name() == name
        assert task.__doc__ and task.__doc__.splitlines()[0].endswith(".")
        assert task() == task.parse({}, name)  # every option has a default


def test_a_new_task_is_one_file(
    toy: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert task_names() == sorted([*OWN, toy])
    measured = ("evaluate", "--model", run / "model", "--data", run.parent / "noise")
    files = ("--json", tmp_path / "figures.json", "--report", tmp_path / "page.html")
    code, out, err = call(capfd, *measured, "--task", toy, *files, f"{toy}.longest=1.05")
    assert code == 0, err
    seconds = [cut.duration for cut in read_cuts(run.parent / "noise", "test") if cut.duration <= 1.05]
    mean = sum(seconds) / len(seconds)
    assert 0 < len(seconds) < 6
    for part in ("How long?", "half a second", f"{mean:.2f}", "0.500", "It is a toy.", "all <clips>"):
        assert part in out, part
        assert part in Page((tmp_path / "page.html").read_text(encoding="utf-8")).text, part
    evaluation = Evaluation.parse(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")), "figures.json")
    assert [table.task for table in evaluation.tables] == [toy]
    assert evaluation.table(toy).figure("length").value == pytest.approx(mean)
    assert evaluation.predictions == () and evaluation.left_out == {}
    add_figures(run / "model", evaluation)
    card = (run / "model/README.md").read_text(encoding="utf-8")
    assert f"| all <clips> | {len(seconds)} | {mean:.2f} ± " in card and "### How long?" in card
    # Also among all others, and left out with its reason.
    assert toy in [table.task for table in evaluate(run / "model", [run.parent / "noise"]).tables]
    code, out, _ = call(capfd, *measured, f"{toy}.longest=-1")
    assert code == 0 and f"Not measured: {toy}. Nothing is that short." in out
    code, out, err = call(capfd, *measured, "--task", toy, f"{toy}.longest=-1")
    assert (code, out) == (1, "") and err == f"Cannot measure {toy}: Nothing is that short.\n"


def test_the_task_in_the_docs_is_one(toy: str, run: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/evaluation.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Task)" in block)
    (tmp_path / "more/toy_lengths.py").write_text(code, encoding="utf-8")
    data = [run.parent / "noise"]
    found = evaluate(run / "model", data, tasks=[toy]).table(toy).figure("length", what="all clips")
    assert found.value == pytest.approx(sum(cut.duration for cut in read_cuts(data[0], "test")) / 6)
    with pytest.raises(IsoglossError, match=r"Cannot measure toy_lengths: No clip is as short as 0\.1 s"):
        evaluate(run / "model", data, tasks=[toy], options=[f"{toy}.longest=0.1"])
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == OWN


def test_a_file_must_define_one_task(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "more/toy_lengths.py"
    file.write_text(TOY + "\n\nclass Second(Lengths):\n    pass\n", encoding="utf-8")
    with pytest.raises(IsoglossError, match=r"toy_lengths\.py must define one task, and defines 2"):
        find_task(toy)
    with pytest.raises(IsoglossError, match='no task "os"'):
        find_task("os")


def test_a_task_that_fails_leaves_the_others(toy: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IsoglossError("The weather is bad.")

    monkeypatch.setattr(find_task("recognition"), "run", fail)
    evaluation = evaluate(run / "model", [run.parent / "noise"])
    assert evaluation.left_out["recognition"] == "The weather is bad."
    assert [table.task for table in evaluation.tables] == ["language", "calibration", toy]
    with pytest.raises(IsoglossError, match="Cannot measure recognition: The weather is bad"):
        evaluate(run / "model", [run.parent / "noise"], tasks=["language", "recognition"])


def test_a_table_of_nothing_is_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcribe = Recogniser.transcribe

    def silent(self: Recogniser, audio: Any, **named: Any) -> Any:
        return [dataclasses.replace(found, text="", segments=()) for found in transcribe(self, audio, **named)]

    monkeypatch.setattr(Recogniser, "transcribe", silent)
    evaluation = evaluate(run / "model", [run.parent / "noise"])
    assert evaluation.left_out["calibration"].startswith("The model wrote no words")
    assert evaluation.table("recognition").figure("CER", language="ru").value == 1.0
    nothing = evaluation.table("recognition").model_copy(update={"rows": ()})
    monkeypatch.setattr(find_task("recognition"), "run", lambda *_: nothing)
    assert "can be scored" in evaluate(run / "model", [run.parent / "noise"]).left_out["recognition"]


def test_tasks_share_what_was_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    transcribe = Recogniser.transcribe

    def counted(self: Recogniser, audio: Any, **named: Any) -> Any:
        calls.append(len(audio))
        return transcribe(self, audio, **named)

    monkeypatch.setattr(Recogniser, "transcribe", counted)
    evaluation = evaluate(run / "model", [run.parent / "noise"], tasks=["recognition", "language", "calibration"])
    assert len(evaluation.tables) == 3 and sum(calls) == 6


def test_stopping_leaves_nothing(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluating, "fingerprint", stop)  # when everything is measured
    files = ("--json", tmp_path / "figures.json", "--report", tmp_path / "page.html")
    code, out, err = call(capfd, "evaluate", "--model", run / "model", "--data", run.parent / "noise", *files)
    assert (code, out) == (130, "") and "nothing was left half-written" in err
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_told_before_anything_is_measured(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "load", lambda *_: pytest.fail("the model was loaded"))
    measured = ("evaluate", "--model", run / "model", "--data", run.parent / "noise")
    (tmp_path / "file").write_text("", encoding="utf-8")
    for option in ("--json", "--report"):
        for place, said in ((tmp_path, "is a folder; name a file in it"), (tmp_path / "file/figures", "is no folder")):
            code, out, err = call(capfd, *measured, option, place)
            assert (code, out) == (1, "") and said in err, (option, place, err)


# --- phonemes ---


def test_phonemes_are_counted_against_espeak(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    data = corpus(tmp_path / "noise")
    texts = [cut.supervisions[0].text for cut in read_cuts(data)]
    save(tmp_path / "model", phonemes=tuple("abdefijklmnoprstuvz ɔəɕɨ"))
    evaluation = evaluate(tmp_path / "model", [data])
    table = evaluation.table("phonemes")
    assert [row.keys.get("language", row.label) for row in table.rows] == ["be", "ru", MEAN]
    assert all(p.phonemes is not None for p in evaluation.predictions) and texts
    per = [table.figure("PER", language=tag) for tag in ("be", "ru")]
    assert all(found.items == 3 and found.low <= found.value <= found.high for found in per)
    assert table.figure("PER", MEAN).value == pytest.approx(sum(found.value for found in per) / 2)
    assert all(0 < found.baselines[ONE_SENTENCE] < 1 for found in per)


def test_phonemes_of_what_is_right_are_right(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    data = corpus(tmp_path / "noise")
    save(tmp_path / "model", phonemes=tuple("abdefijklmnoprstuvz ɔəɕɨ"))
    model = evaluating.load(tmp_path / "model")
    measured = Data(read_cuts(data, "test"))
    found = []
    for prediction in evaluating.predict(model, measured):
        sounds = model.model.processor.phonemes([prediction.reference], [prediction.language]).unpad()[0]
        found.append(prediction.model_copy(update={"phonemes": model.model.processor.ipa(sounds.tolist())}))
    unknown = found[-1].model_copy(update={"language": "tlh", "id": "klingon"})
    measured._found[evaluating.predict] = (*found, unknown)
    table = Phonemes().run(model, measured)
    assert {row.figures["PER"].value for row in table.rows} == {0.0}
    assert any(note.startswith("Not measured in tlh: espeak-ng has no rules for") for note in table.notes)
