"""Evaluating a model on prepared corpora, and writing what was found on its card."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from isogloss.audio.reading import info, write_flac
from isogloss.data.manifests import (
    Utterance,
    count_cuts,
    fingerprint,
    read_cuts,
    to_cut,
    write_card,
    write_cuts,
)
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.evaluation.card import END, add_figures, as_markdown
from isogloss.evaluation.data import OTHER, SAME
from isogloss.evaluation.evaluate import evaluate, trained_clips
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.tasks.language import ALL
from isogloss.evaluation.tasks.recognition import MEAN, TOGETHER, score
from isogloss.evaluation.terminal import render
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model
from isogloss.model.recogniser import load
from isogloss.model.spec import ModelConfig
from isogloss.text.normalise import NORMALISER_VERSION
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TEXTS = {"be": ["Добры дзень!", "так", "не ведаю"], "ru": ["Добрый день!", "да", "не знаю"]}
Corpus = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """`corpus(NAME, [(language, text, split), …])`: a prepared corpus of noise."""

    def make(name: str, clips: list[tuple[str, str | None, str]]) -> Path:
        generator = np.random.default_rng(len(name))
        folder = tmp_path / name
        cuts = []
        for number, (language, text, split) in enumerate(clips):
            path = folder / f"{number}.flac"
            seconds = 0.4 + 0.15 * ((7 * number) % 5)
            write_flac(path, 0.1 * generator.standard_normal(int(16000 * seconds)).astype(np.float32))
            clip = Utterance(f"{name}-{number}", path, language, name, text=text, split=split)
            cuts.append(to_cut(clip, info(path)))
        write_cuts(folder, cuts)
        card = {"name": name, "title": name, "licence": "CC0", "clips": len(cuts), "sources": {name: len(cuts)}}
        write_card(folder, card | {"languages": count_cuts(cuts), "fingerprint": fingerprint(cuts)})
        return folder

    return make


@pytest.fixture
def spoken(corpus: Corpus) -> Path:
    """Three test clips and one train clip in each of two languages."""
    clips = [(tag, text, "test") for tag, texts in TEXTS.items() for text in texts]
    return corpus("noise", [*clips, ("be", "так", "train"), ("ru", "да", "train")])


@pytest.fixture
def model_folder(tmp_path: Path, spoken: Path) -> Path:
    """A model with random weights whose recipe says that it was trained on `spoken`."""
    return save(tmp_path / "model", recipe={"name": "random", "data": {"folders": [str(spoken)]}, "model": {}})


def save(folder: Path, *, recipe: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A model folder; `changes` to a model that transcribes and identifies two languages."""
    torch.manual_seed(1)
    texts = [text.lower() for group in TEXTS.values() for text in group]
    tokenizer = changes.pop("tokenizer", build_tokenizer(CharactersConfig(), texts))
    values: dict[str, Any] = {"encoder": preset("test"), "languages": ("be", "ru")} | changes
    save_model(Model(ModelConfig(**values), tokenizer), folder, "# A card\n\n## Limits\n\nMany.\n", recipe)
    return folder


def test_predictions_are_those_of_the_recogniser(model_folder: Path, spoken: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluation = evaluate(model_folder, [spoken], on_progress=lambda *counts: seen.append(counts))
    recogniser = load(model_folder)
    cuts = read_cuts(spoken, "test")
    assert [found.id for found in evaluation.predictions] == [cut.id for cut in cuts]
    assert any(found.hypothesis for found in evaluation.predictions)
    for found, cut in zip(evaluation.predictions, cuts, strict=True):
        path = cut.recording.sources[0].source
        assert found.hypothesis == recogniser.transcribe(path, vad=False).text
        guess = recogniser.identify(path, vad=False)
        assert found.guess == guess.language
        assert found.probability == pytest.approx(guess.probabilities[guess.language], abs=1e-3)
        assert (found.reference, found.language) == (cut.supervisions[0].text, cut.supervisions[0].language)
    assert seen == [("recognition", 6, 6)]


def test_conditions_say_what_was_evaluated(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken])
    told = evaluation.conditions
    cuts = read_cuts(spoken, "test")
    assert told.fingerprint == fingerprint(cuts)
    assert told.normaliser == NORMALISER_VERSION
    assert told.versions["torch"] == torch.__version__
    assert {"isogloss", "python"} <= told.versions.keys()
    assert (told.system, told.split, told.data) == ("random", "test", (str(spoken),))
    assert (told.known_languages, told.trained_sources, told.trained_clips) == (("be", "ru"), ("noise",), 0)
    assert evaluation.clips == 6
    assert told.clips == {"noise": 6}
    assert told.seconds == pytest.approx(sum(cut.duration for cut in cuts))
    assert told.real_time_factor > 0
    assert evaluation.table("recognition") == score(evaluation.predictions, frozenset({"noise"}))


def test_sources_trained_on_and_others_are_told_apart(model_folder: Path, spoken: Path, corpus: Corpus) -> None:
    foreign = corpus("foreign", [("be", None, "test"), ("ru", None, "test"), ("ru", None, "test")])
    evaluation = evaluate(model_folder, [spoken, foreign])
    table = evaluation.table("language")
    assert {row.keys["voices"]: row.figures["accuracy"].items for row in table.rows} == {ALL: 9, SAME: 6, OTHER: 3}
    assert evaluation.conditions.clips == {"foreign": 3, "noise": 6}
    assert "Not trained on: foreign." in evaluation.conditions.limits
    # Without texts only the language is measured.
    assert evaluation.table("recognition").figure("CER", TOGETHER).items == 6
    only = evaluate(model_folder, [foreign])
    assert [table.task for table in only.tables] == ["language"]
    assert only.left_out["recognition"] == "None of the clips is transcribed."
    assert only.table("language").figure("accuracy", voices=OTHER).items == 3


def test_clips_that_were_trained_on_are_counted(model_folder: Path, spoken: Path) -> None:
    assert evaluate(model_folder, [spoken], split="train").conditions.trained_clips == 2


def test_what_a_model_started_from_counts_as_trained_on(tmp_path: Path, spoken: Path, corpus: Corpus) -> None:
    older = corpus("older", [("be", None, "train")])
    start = save(tmp_path / "start", recipe={"data": {"folders": [str(older)]}, "model": {}})
    data = {"folders": [str(spoken)]}
    folder = save(tmp_path / "tuned", recipe={"data": data, "model": {"start_from": str(start)}})
    assert {source for source, _ in trained_clips(folder)} == {"noise", "older"}


@pytest.mark.parametrize("recipe", [None, {"data": {"folders": ["/nowhere"]}, "model": {}}])
def test_unknown_training_data_is_unknown(tmp_path: Path, spoken: Path, recipe: dict[str, Any] | None) -> None:
    evaluation = evaluate(save(tmp_path / "model", recipe=recipe), [spoken])
    assert evaluation.conditions.trained_sources is None
    table = evaluation.table("language")
    assert [row.keys for row in table.rows] == [{"voices": ALL}]
    assert any("not known" in note for note in table.notes)


def test_broken_clips_are_counted_by_cause_and_the_rest_is_evaluated(model_folder: Path, spoken: Path) -> None:
    whole = evaluate(model_folder, [spoken])
    (spoken / "0.flac").unlink()
    (spoken / "4.flac").write_bytes(b"")
    evaluation = evaluate(model_folder, [spoken])
    assert evaluation.conditions.broken == {"empty": 1, "missing": 1}
    assert [found.id for found in evaluation.predictions] == ["noise-1", "noise-2", "noise-3", "noise-5"]
    kept = {found.id: found for found in whole.predictions}
    for found in evaluation.predictions:
        assert found.hypothesis == kept[found.id].hypothesis


@pytest.mark.parametrize("languages", [("be", "ru"), ("bg", "uk"), ()])
def test_telling_the_language_restricts_the_symbols_and_asks_for_no_guess(
    languages: tuple[str, ...], tmp_path: Path, spoken: Path
) -> None:
    """Also where the model tells other languages apart than it writes, or none."""
    tokenizer = build_tokenizer(CharactersConfig(), ["абв"])
    alphabets = {"be": (1,), "ru": (2, 3)}
    folder = save(tmp_path / "model", tokenizer=tokenizer, alphabets=alphabets, languages=languages)
    evaluation = evaluate(folder, [spoken], tell_language=True)
    written: dict[str, set[str]] = {"be": set(), "ru": set()}
    for found in evaluation.predictions:
        written[found.language] |= set(found.hypothesis or "")
    assert written["be"] <= {"а"}
    assert written["ru"] <= {"б", "в"}
    assert written["be"] | written["ru"]
    assert {found.guess for found in evaluation.predictions} == {None}
    assert "told" in evaluation.left_out["language"] or not languages
    assert "language" not in [table.task for table in evaluation.tables]
    assert evaluation.conditions.language_told


def test_a_model_with_one_ability_is_evaluated_on_that(tmp_path: Path, spoken: Path) -> None:
    identifies = evaluate(save(tmp_path / "identifies", tokenizer=None), [spoken])
    assert [table.task for table in identifies.tables] == ["language"]
    assert identifies.table("language").figure("accuracy", voices=ALL).items == 6
    transcribes = evaluate(save(tmp_path / "transcribes", languages=()), [spoken])
    assert [table.task for table in transcribes.tables] == ["recognition", "calibration"]
    assert transcribes.left_out.keys() == {"language", "phonemes", "retrieval", "shared_space", "durations"}
    with pytest.raises(IsoglossError, match=r"no figures of language\. The model does not tell languages apart"):
        transcribes.table("language")


def test_tasks_are_chosen_and_take_options(tmp_path: Path, model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken], tasks=["language", "recognition", "language"])
    assert [table.task for table in evaluation.tables] == ["recognition", "language"]
    assert evaluation.left_out == {}
    for tasks, options, said in (
        (["recogniton"], [], r'no task "recogniton"\. Did you mean "recognition"\? Tasks: calibration, durations'),
        (["retrieval"], [], "Cannot measure retrieval: The model has no text encoder"),
        (["retrieval"], ["retrieval.pol=9"], 'unknown key "pol". Did you mean "pool"'),
        ([], ["retrieval.pool=1"], r'retrieval: "pool" is 1'),
        (["language"], ["retrieval.pool=9"], "which is not measured; add --task retrieval"),
        ([], ["retreival.pool=9"], 'Did you mean "retrieval"'),
    ):
        with pytest.raises(IsoglossError, match=said):
            evaluate(model_folder, [spoken], tasks=tasks, options=options)


def test_languages_are_chosen(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken], languages=["Russian"])
    assert [row.keys["language"] for row in evaluation.table("recognition").rows if row.keys] == ["ru"]
    assert evaluation.clips == 3


def test_what_cannot_be_evaluated_is_one_sentence(tmp_path: Path, model_folder: Path, spoken: Path) -> None:
    mute = save(tmp_path / "mute", tokenizer=None, languages=())
    with pytest.raises(IsoglossError, match="fine-tune"):
        evaluate(mute, [spoken])
    with pytest.raises(IsoglossError, match=r"dev split .* holds no clips"):
        evaluate(model_folder, [spoken], split="dev")
    with pytest.raises(IsoglossError, match=r'holds no "fi"\. It holds: be, ru'):
        evaluate(model_folder, [spoken], languages=["fi"])
    with pytest.raises(IsoglossError, match="no prepared corpus"):
        evaluate(model_folder, [tmp_path])
    for file in spoken.glob("*.flac"):
        file.unlink()
    with pytest.raises(IsoglossError, match=r"None of the 6 clips could be read \(missing 6\)"):
        evaluate(model_folder, [spoken])


def test_real_speech(model_folder: Path, clips: list[Utterance], tmp_path: Path) -> None:
    folder = tmp_path / "real"
    write_cuts(folder, [to_cut(dataclasses.replace(clip, split="test"), info(clip.audio)) for clip in clips])
    evaluation = evaluate(model_folder, [folder])
    assert evaluation.clips == len(clips)
    found = {row.keys["language"]: row.figures["CER"] for row in evaluation.table("recognition").rows if row.keys}
    assert found.keys() <= {clip.language for clip in clips}
    assert all(figure.low <= figure.value <= figure.high for figure in found.values())


def test_the_card_gets_figures_once_and_the_model_still_loads(model_folder: Path, spoken: Path, corpus: Corpus) -> None:
    evaluation = evaluate(model_folder, [spoken])
    other = evaluate(model_folder, [corpus("foreign", [("be", None, "test")])])
    for found in (evaluation, other, evaluation, other):
        add_figures(model_folder, found)
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A card\n\n")
    assert card.endswith("## Limits\n\nMany.\n")
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Figures on noise (test)", "## Figures on foreign (test)", "## Limits"]
    assert card.count(END) == 2
    rate = evaluation.table("recognition").figure("CER", language="ru")
    line = f"{100 * rate.value:.1f} % [{100 * rate.low:.1f} – {100 * rate.high:.1f}]"
    assert f"| Russian (`ru`) | 3 | {line} |" in card
    assert evaluation.conditions.fingerprint[:16] in card
    assert str(spoken.parent) not in card
    load_model(model_folder)


def test_newer_figures_replace_older_ones(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken])
    add_figures(model_folder, evaluation)
    right = [found.model_copy(update={"hypothesis": found.reference}) for found in evaluation.predictions]
    perfect = (score(right), *evaluation.tables[1:])
    add_figures(model_folder, evaluation.model_copy(update={"tables": perfect}))
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    assert "| Russian (`ru`) | 3 | 0.0 % [0.0 – 0.0] |" in card
    assert card.count("Russian (`ru`)") == 2  # error rates, confidence


def test_a_card_without_limits_gets_figures_at_its_end(model_folder: Path, spoken: Path) -> None:
    (model_folder / "README.md").write_text("# Mine\n", encoding="utf-8")
    add_figures(model_folder, evaluate(model_folder, [spoken]))
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Mine\n\n<!-- isogloss figures: noise (test) -->\n## Figures")
    (model_folder / "README.md").unlink()
    with pytest.raises(IsoglossError, match=r"README\.md"):
        add_figures(model_folder, evaluate(model_folder, [spoken]))


def test_tables_hold_the_figures_and_fit_a_terminal(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken])
    printed = io.StringIO()
    Console(width=80, file=printed).print(render(evaluation))
    text = printed.getvalue()
    recognition = evaluation.table("recognition")
    for figure in (
        recognition.figure("CER", MEAN),
        recognition.figure("CER", language="be"),
        evaluation.table("language").figure("accuracy", voices=ALL),
    ):
        assert f"{100 * figure.value:.1f} %" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Not measured: retrieval. The model has no text encoder" in text


def test_an_evaluation_is_shown_again_without_the_model(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken])
    again = Evaluation.parse(json.loads(json.dumps(evaluation.plain(), allow_nan=False)), "figures.json")
    assert again == evaluation
    shown = []
    for one in (evaluation, again):
        printed = io.StringIO()
        Console(width=100, file=printed).print(render(one))
        shown.append((printed.getvalue(), as_markdown(one)))
    assert shown[0] == shown[1]
    for values in ({}, [], evaluation.plain() | {"version": 0}):
        with pytest.raises(IsoglossError, match=r"old\.json is no evaluation that this version"):
            Evaluation.parse(values, "old.json")
