"""Unspoken text in training: what is drawn, what is never drawn, and the guard that keeps it waiting."""

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.testing import assert_close

from isogloss.data.loading import CHARACTERS_A_SECOND, Loader
from isogloss.data.manifests import CARD, TEXT, language_of, read_cuts, split_of, text_of, translations_of, write_cuts
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model
from isogloss.objectives.base import Clock
from isogloss.objectives.maestro import AlignedMLM
from isogloss.text.corpus import TextLine, write_text_lines
from isogloss.text.normalise import normalise
from isogloss.training.data import Data
from isogloss.training.journal import read_log
from isogloss.training.recipe import DataRecipe, Recipe, load_recipe
from isogloss.training.source import read_texts
from isogloss.training.stage import Stage
from isogloss.training.trainer import begin, fit_into, train
from small_models import small_recipe, with_text


@pytest.fixture
def recipe(letters: Path) -> dict[str, Any]:
    """One stage of pairs and text."""
    stage = {
        "name": "join",
        "steps": 3,
        "seconds": {"paired": 8, "text": 4},
        "objectives": [{"name": "most"}, {"name": "aligned_mlm"}],
        "evaluate_every": 2,
    }
    text = {"entry": 1, "convolutions": 1, "layers": 1, "duration_layers": 1, "refiner": 0}
    return small_recipe(letters, [stage], text=text)


def run(recipe: dict[str, Any], out: Path) -> tuple[list[dict[str, Any]], str]:
    """The log of a run, and what it said."""
    console = Console(record=True, width=1000, quiet=False, stderr=True)
    train(Recipe.parse(recipe, "test"), out, console=console)
    return list(read_log(out)), console.export_text()


def test_no_held_out_sentence_of_any_folder_and_language_is_text(letters: Path, tmp_path: Path) -> None:
    """A second folder has all sentences of the first as unspoken text, also under another language's name."""
    cuts = read_cuts(letters)
    everything = [TextLine(text_of(cut) or "", tag, "leaky") for cut in cuts for tag in ("es", "it", "fr")]
    (tmp_path / "leaky").mkdir()
    for file in letters.iterdir():
        if file.is_file():
            (tmp_path / "leaky" / file.name).write_bytes(file.read_bytes())
    write_text_lines([*everything, TextLine("Libero!", "fr", "leaky")], tmp_path / "leaky" / TEXT)
    texts = read_texts(DataRecipe(folders=(letters, tmp_path / "leaky")))
    held_out = held_out_texts(cut for cut in cuts if split_of(cut) in ("dev", "test"))
    said = {text_of(cut) for cut in texts}
    assert held_out and not said & held_out
    assert {"hola", "ciao", "libero"} <= said
    assert any(language_of(cut) == "fr" for cut in texts)
    spanish = read_texts(DataRecipe(folders=(letters, tmp_path / "leaky"), languages=("es",)))
    assert {language_of(cut) for cut in spanish} == {"es"}
    assert read_texts(DataRecipe(folders=(letters,), longest=5 / CHARACTERS_A_SECOND))  # five letters at most
    assert all(len(text_of(cut) or "") <= 5 for cut in read_texts(DataRecipe(folders=(letters,), longest=5 / 14)))


def test_text_is_a_batch_without_audio(letters: Path) -> None:
    cuts = read_texts(DataRecipe(folders=(letters,)))
    loader = Loader(cuts, speeds=(0.9, 1.1))
    batch = loader.load([0, 1, 2])
    assert batch.audio.values.shape == (3, 0) and batch.audio.lengths.tolist() == [0, 0, 0] and batch.seconds == 0
    assert batch.texts == [text_of(cut) for cut in cuts[:3]]
    assert cuts[0].duration == pytest.approx(len(text_of(cuts[0]) or "") / CHARACTERS_A_SECOND)
    assert len({cut.id for cut in cuts}) == len(cuts)


def test_symbols_of_text_alone_can_be_written(recipe: dict[str, Any], letters: Path, tmp_path: Path) -> None:
    """A language without any speech has symbols, a vector in the text encoder and an alphabet."""
    folder = tmp_path / "data"
    shutil.copytree(letters, folder)
    with gzip.open(folder / TEXT, "at", encoding="utf-8") as file:
        file.write(json.dumps({"text": "мова", "language": "be", "source": "x"}, ensure_ascii=False) + "\n")
    recipe["data"]["folders"] = [str(folder)]
    run(recipe, tmp_path / "run")
    model = load_model(tmp_path / "run/model")
    assert model.config.text_languages == ("be", "es", "it")
    assert model.tokenizer.decode(list(model.config.alphabets["be"])) == "авмо"
    plain = recipe | {"stages": [recipe["stages"][0] | {"seconds": {"paired": 8}, "objectives": [{"name": "most"}]}]}
    run(plain, tmp_path / "plain")
    assert "be" not in load_model(tmp_path / "plain/model").config.alphabets  # no stage asks for text: it is not read


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_text_may_be_bytes_or_pieces(kind: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["model"]["tokenizer"] = {"kind": kind}
    log, _ = run(recipe, tmp_path / "run")
    last = [record for record in log if record["event"] == "step"][-1]
    assert last["aligned_mlm/loss"] > 0 < last["most/matching"] and last["most/aligned"] > 0
    model = load_model(tmp_path / "run/model")
    assert model.tokenizer.decode(model.processor.tokens("hola", "es")) == "hola"


def test_a_recogniser_that_is_kept_takes_a_text_encoder(recipe: dict[str, Any], tmp_path: Path) -> None:
    text = recipe["model"].pop("text")
    pairs = {"seconds": {"paired": 8}, "objectives": [{"name": "recognition"}]}
    run(recipe | {"stages": [recipe["stages"][0] | pairs]}, tmp_path / "first")
    first = load_model(tmp_path / "first/model")
    assert first.text is None
    kept = {"start_from": str(tmp_path / "first/model"), "keep": "all", "text": text, "adapters": {"after": 1}}
    objectives = [{"name": "most", "head_weights": {"language": 0}}, {"name": "aligned_mlm"}]
    frozen = recipe["stages"][0] | {"optimizer": {"peak": 1e-9}, "steps": 1, "objectives": objectives}
    frozen["freeze"] = ["heads.language"]
    run(recipe | {"model": kept, "stages": [frozen]}, tmp_path / "second")
    second = load_model(tmp_path / "second/model")
    assert second.text is not None and second.config.text_languages == ("es", "it")
    assert second.config.encoder.adapters is not None and second.config.encoder.adapters.after == 1
    before, after = (found.heads["ctc"].output.weight for found in (first, second))
    assert_close(after[: first.tokenizer.size], before, atol=1e-6, rtol=0)
    shutil.rmtree(tmp_path / "first")  # all of it was trained, so nothing hangs on the other folder
    load_model(tmp_path / "second/model")
    other = {"start_from": str(tmp_path / "second/model"), "keep": "all", "text": text | {"layers": 2}}
    with pytest.raises(IsoglossError, match=r"model.text differs from that of .*second/model, which model.keep: all"):
        run(recipe | {"model": other}, tmp_path / "third")


def test_what_a_step_logs(recipe: dict[str, Any], tmp_path: Path) -> None:
    log, _ = run(recipe, tmp_path / "run")
    step = next(record for record in log if record["event"] == "step")
    assert {"most/matching", "most/duration", "most/aligned", "aligned_mlm/ctc", "aligned_mlm/frames"} <= step.keys()
    pulls = [record for record in log if record["event"] == "gradients"]
    assert [record["step"] for record in pulls] == [0, 2] and all(r["most"] > 0 <= r["aligned_mlm"] for r in pulls)
    dev = next(record for record in log if record["event"] == "dev")
    assert {"aligned_mlm/loss", "most/loss", "cer"} <= dev.keys()


def test_a_guard_keeps_text_out_while_the_recogniser_is_poor(recipe: dict[str, Any], tmp_path: Path) -> None:
    objectives = recipe["stages"][0]["objectives"]
    objectives[1]["guard"] = {"cer": 1e-6}
    log, said = run(recipe, tmp_path / "closed")
    assert not any("aligned_mlm/loss" in record for record in log if record["event"] == "step")
    assert said.count("aligned_mlm is left out: cer on the dev split is") == 2  # at the first look and the last
    assert "most takes part" not in said
    assert re.search(r"\d in it of klettres", said)
    assert "see whether the transcripts there belong to the clips" in said
    objectives[1]["guard"] = {"cer": 1e6}
    log, said = run(recipe, tmp_path / "open")
    assert all("aligned_mlm/loss" in record for record in log if record["event"] == "step")
    assert "aligned_mlm takes part." in said


def silenced(letters: Path, out: Path) -> Path:
    """The letters without Italian transcripts to learn from, and without unspoken text."""
    cuts = read_cuts(letters)
    for cut in cuts:
        if language_of(cut) == "it" and split_of(cut) == "train":
            cut.supervisions[0].text = None
    out.mkdir()
    write_cuts(out, cuts)
    (out / CARD).write_bytes((letters / CARD).read_bytes())
    return out


def test_a_language_without_text_is_heard_and_never_read(
    recipe: dict[str, Any], letters: Path, tmp_path: Path
) -> None:
    """Its dev clips have transcripts: they tell the error rate, no loss of what reads text, and shut no guard."""
    stage = recipe["stages"][0] | {"seconds": {"paired": 8}, "objectives": [{"name": "most", "guard": {"cer": 1e-6}}]}
    stage["objectives"].append({"name": "recognition"})
    recipe["data"]["folders"] = [str(silenced(letters, tmp_path / "data"))]
    log, said = run(recipe | {"stages": [stage]}, tmp_path / "run")
    dev = [record for record in log if record["event"] == "dev"]
    assert all({"most/loss", "cer/es", "cer/it"} <= record.keys() for record in dev)
    assert load_model(tmp_path / "run/model").config.text_languages == ("es",)
    rate = dev[-1]["cer/es"]
    assert f"cer on the dev split is {rate:.2f} ({rate:.2f} in es of klettres)" in said


def test_a_ramp_begins_where_its_guard_opens(recipe: dict[str, Any]) -> None:
    objectives = [{"name": "most"}, {"name": "aligned_mlm", "guard": {"cer": 0.5}, "ramp": 4, "weight": 2.0}]
    parsed = Recipe.parse(recipe | {"stages": [recipe["stages"][0] | {"objectives": objectives}]}, "test")
    stage = Stage(parsed.training[0], with_text())
    guards = stage.guards

    def judge(rate: float) -> list[str]:
        return guards.judge({"cer": rate}, stage.clock.step)

    stage.clock = Clock(10, 200)
    assert judge(0.9) == [] and stage.weight("aligned_mlm") == 0
    with guards.lifted():
        assert stage.weight("aligned_mlm") == 2.0
    assert stage.weight("aligned_mlm") == 0
    assert judge(0.4) == ["aligned_mlm"] and stage.weight("aligned_mlm") == 0.5
    stage.clock = Clock(12, 200)
    assert judge(0.3) == [] and stage.weight("aligned_mlm") == 1.5
    stage.clock = Clock(100, 200)
    assert stage.weight("aligned_mlm") == 2.0
    assert judge(0.6) == ["aligned_mlm"] and judge(0.5) == ["aligned_mlm"]
    assert stage.weight("aligned_mlm") == 0.5 and guards.opened == {"aligned_mlm": 100}


def test_what_is_guarded_is_tried_before_and_counted(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["stages"][0]["objectives"][1]["guard"] = {"cer": 1e-6}
    taken = []
    forward = AlignedMLM.forward
    monkeypatch.setattr(AlignedMLM, "forward", lambda self, *a: taken.append(self.training) or forward(self, *a))
    context = begin(Recipe.parse(recipe, "test"), tmp_path / "run", resume=False)
    fit_into(context, 0.01, Console(quiet=True))
    assert taken.count(True) == 6  # the steps that are measured
    taken.clear()
    run(recipe, tmp_path / "other")
    pulls = recipe["stages"][0]["steps"] // 2 + 1
    assert 1 <= taken.count(True) <= 1 + pulls  # preflight, and the norms of gradients


def test_a_slow_copy_begins_with_its_stage(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Not with what an earlier stage left of it, which the stages between have outgrown."""
    maestro = recipe["stages"][0] | {"objectives": [{"name": "maestro"}], "seconds": {"paired": 8}, "name": "first"}
    between = maestro | {"objectives": [{"name": "recognition"}], "name": "between", "optimizer": {"peak": 0.01}}
    between["freeze"] = ["text"]
    last = maestro | {"name": "last", "steps": 1, "optimizer": {"peak": 1e-9}}
    run(recipe | {"stages": [maestro, between, last]}, tmp_path / "run")
    found = load_file(max((tmp_path / "run/checkpoints").iterdir()) / "objectives.safetensors")
    model = load_model(tmp_path / "run/model")
    assert_close(found["maestro/ema.copy.heads.ctc.output.weight"], model.heads["ctc"].output.weight.detach())


def test_no_teacher_reads_what_is_held_out(letters: Path, tmp_path: Path) -> None:
    """A train clip of one folder is translated into the test sentence of another."""
    held_out = next(text_of(cut) for cut in read_cuts(letters, "test") if language_of(cut) == "it")
    (tmp_path / "other").mkdir()
    cuts = read_cuts(letters, "train")
    for cut in cuts:
        cut.custom["translations"] = {"it": f"{held_out}!", "es": "una cosa"}
    write_cuts(tmp_path / "other", cuts)
    (tmp_path / "other" / CARD).write_bytes((letters / CARD).read_bytes())
    folders = {"folders": [str(letters), str(tmp_path / "other")], "shortest": 0.1}
    recipe = load_recipe("sonar-tiny", ["model.encoder=test", "model.text.entry=1"]).plain() | {"data": folders}
    data = Data(Recipe.parse(recipe, "test"))
    told = [translations_of(cut) for cut in data.train if translations_of(cut)]
    assert told and all(translations == {"es": "una cosa"} for translations in told)


def test_a_ramp_climbs(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"][0]["objectives"][1] |= {"ramp": 2, "weight": 3.0}
    log, _ = run(recipe, tmp_path / "run")
    steps = [record for record in log if record["event"] == "step"]
    for record, weight in zip(steps, (1.5, 3.0, 3.0), strict=True):
        assert record["loss"] == pytest.approx(record["most/loss"] + weight * record["aligned_mlm/loss"])


def test_what_cannot_be_is_told_in_one_sentence(recipe: dict[str, Any], letters: Path, tmp_path: Path) -> None:
    def refuse(**changes: Any) -> str:
        with pytest.raises(IsoglossError) as caught:
            run(recipe | changes, tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        return str(caught.value)

    without = {"folders": [str(tmp_path / "silent")], "shortest": 0.1}
    (tmp_path / "silent").mkdir()
    for file in letters.iterdir():
        if file.is_file() and file.name != TEXT:
            (tmp_path / "silent" / file.name).write_bytes(file.read_bytes())
    assert 'needs unspoken text and the data hold none; prepare them with --text' in refuse(data=without)
    assert "no text encoder" in refuse(model=recipe["model"] | {"text": None})
    stage = recipe["stages"][0]
    unheard = [stage | {"seconds": {"paired": 8}}]
    assert "learns from text data; add text to its seconds" in refuse(stages=unheard)
    doubled = [stage | {"objectives": [{"name": "most"}, {"name": "aligned_mlm"}, {"name": "most"}]}]
    assert 'has the objective most twice; give one another stage' in refuse(stages=doubled)
    idle = [stage | {"objectives": [{"name": "most"}]}]
    assert "seconds of text and no objective that learns from them" in refuse(stages=idle)
    first = {"name": "first", "steps": 3, "seconds": {"paired": 8}, "objectives": [{"name": "recognition"}]}
    first["freeze"] = ["text"]
    late = [first, stage]
    before = set(tmp_path.iterdir())
    assert "needs unspoken text and the data hold none; prepare them with --text" in refuse(stages=late, data=without)
    assert set(tmp_path.iterdir()) == before  # told before the first stage, with nothing written
    write_text_lines([TextLine("una casa " * 100, "es", "long")], tmp_path / "silent" / TEXT)
    assert "too long for data.longest" in refuse(data=without)
    objectives = [{"name": name, "guard": {"cer": 1e-6}} for name in ("most", "aligned_mlm")]
    guarded = [stage | {"objectives": objectives}]
    assert "leave the guard of one out" in refuse(stages=guarded)


def test_fine_tuning_keeps_what_reads_text(recipe: dict[str, Any], letters: Path, tmp_path: Path) -> None:
    """A model that reads text of one language learns another: new rows behind the old ones."""
    recipe["data"]["languages"] = ["it"]
    run(recipe, tmp_path / "run")
    before = load_model(tmp_path / "run/model")
    stage = {"name": "tune", "steps": 1, "seconds": {"paired": 8}, "objectives": [{"name": "recognition"}]}
    stage["freeze"] = ["text"]
    more = {
        "model": {"start_from": str(tmp_path / "run/model"), "keep": "all"},
        "data": recipe["data"] | {"languages": []},
        "stages": [stage],
    }
    run(recipe | more, tmp_path / "more")
    after = load_model(tmp_path / "more/model")
    assert (before.config.text_languages, after.config.text_languages) == (("it",), ("it", "es"))
    mine, theirs = before.text.language.weight, after.text.language.weight
    assert len(theirs) == 3 and torch.equal(mine, theirs[:2])
    known = before.text.symbols.weight
    assert torch.equal(known, after.text.symbols.weight[: len(known)])


def test_translations_of_train_clips_are_text_if_asked(letters: Path, tmp_path: Path) -> None:
    """Into the languages of the data or of the recipe, and never of what is held out."""
    cuts = read_cuts(letters)
    for cut in cuts:
        cut.custom["translations"] = {"it": f"detto {text_of(cut)}", "oc": f"dich {text_of(cut)}"}
    held = held_out_texts(cuts)
    write_cuts(tmp_path, cuts)
    (tmp_path / CARD).write_bytes((letters / CARD).read_bytes())
    recipe = DataRecipe(folders=(tmp_path,))
    assert not read_texts(recipe)
    asked = recipe.model_copy(update={"translations": True})
    found = read_texts(asked)
    train = {f"detto {normalise(text_of(cut) or '', language_of(cut))}" for cut in cuts if split_of(cut) == "train"}
    assert {language_of(cut) for cut in found} == {"it"}
    assert {text_of(cut) for cut in found} == train - held
    occitan = read_texts(asked.model_copy(update={"languages": ("oc",)}))
    assert {language_of(cut) for cut in occitan} == {"oc"} and len(occitan) == len(found)


JOINT = ["most-tiny", "maestro-tiny", "maestro-u-tiny", "slam-tiny", "mslam-tiny", "speecht5-tiny", "tts4pretrain-tiny"]


@pytest.mark.parametrize("name", [*JOINT, "sonar-tiny"])
def test_shipped_recipes_of_speech_and_text_train(name: str, letters: Path, tmp_path: Path) -> None:
    """Every stage of them for a few steps on real clips, the text let in at once."""
    shipped = load_recipe(name)
    few = [f"stages.{n}.{key}=2" for n in range(len(shipped.stages)) for key in ("steps", "evaluate_every")]
    places = [(n, m) for n, stage in enumerate(shipped.stages) for m, _ in enumerate(stage.objectives)]
    waiting = [(n, m) for n, m in places if shipped.stages[n].objectives[m].guard]
    assert bool(waiting) == ("maestro" in name or "most" in name)
    guards = [f"stages.{n}.objectives.{m}.guard={{cer: 1000.0}}" for n, m in waiting]
    sizes = ["model.encoder=test", f"data.folders=[{letters}]", "data.shortest=0.1"]
    if shipped.model.text is not None:
        sizes.append("model.text.entry=1")
    if shipped.model.adapters is not None:
        sizes.append("model.adapters.after=1")
    recipe = load_recipe(name, [*few, *guards, *sizes])
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    steps = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    for stage in recipe.stages:
        last = [record for record in steps if record["stage"] == stage.name][-1]
        assert {f"{objective.name}/loss" for objective in stage.objectives} <= last.keys()
    model = load_model(tmp_path / "run/model")
    assert (model.config.text, model.config.heads) == (recipe.model.text, recipe.model.heads)
    assert (model.encoder.adapters is not None) == (name == "maestro-u-tiny")


@pytest.mark.parametrize("name", [*JOINT, "usm-tiny", "usm-small", "live-tiny"])
def test_shipped_recipes_take_a_corpus_of_one_language(name: str, letters: Path, tmp_path: Path) -> None:
    overrides = ["model.encoder=test", f"data.folders=[{letters}]", "data.shortest=0.1", "data.languages=[es]"]
    overrides += ["model.text.entry=1"] if load_recipe(name).model.text is not None else []
    overrides += ["model.adapters.after=1"] if load_recipe(name).model.adapters is not None else []
    run = begin(load_recipe(name, overrides), tmp_path, resume=False)
    for recipe in run.recipe.training:
        Stage(recipe, run.model)
    assert not run.model.config.languages
