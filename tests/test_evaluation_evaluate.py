"""Evaluating a model on prepared corpora, and writing what was found on its card."""

import dataclasses
import io
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
from isogloss.evaluation.card import END, add_figures
from isogloss.evaluation.evaluate import evaluate, trained_clips
from isogloss.evaluation.figures import ALL, OTHER, SAME, score
from isogloss.evaluation.tables import render
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
    seen: list[tuple[int, int]] = []
    evaluation = evaluate(model_folder, [spoken], on_progress=lambda *counts: seen.append(counts))
    recogniser = load(model_folder)
    cuts = read_cuts(spoken, "test")
    assert [found.id for found in evaluation.predictions] == [cut.id for cut in cuts]
    assert any(found.hypothesis for found in evaluation.predictions)
    for found, cut in zip(evaluation.predictions, cuts, strict=True):
        path = cut.recording.sources[0].source
        assert found.hypothesis == recogniser.transcribe(path).text
        guess = recogniser.identify(path)
        assert found.guess == guess.language
        assert found.probability == pytest.approx(guess.probabilities[guess.language], abs=1e-3)
        assert (found.reference, found.language) == (cut.supervisions[0].text, cut.supervisions[0].language)
    assert seen[-1] == (6, 6)


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
    assert evaluation.seconds == pytest.approx(sum(cut.duration for cut in cuts))
    assert evaluation.real_time_factor > 0
    assert evaluation == score(evaluation.predictions, told)


def test_sources_trained_on_and_others_are_told_apart(model_folder: Path, spoken: Path, corpus: Corpus) -> None:
    foreign = corpus("foreign", [("be", None, "test"), ("ru", None, "test"), ("ru", None, "test")])
    evaluation = evaluate(model_folder, [spoken, foreign])
    groups = {name: found.clips for name, found in evaluation.identification.items()}
    assert groups == {ALL: 9, SAME: 6, OTHER: 3}
    assert evaluation.sources == {"foreign": (3, False), "noise": (6, True)}
    # Without texts only identification is figured out.
    assert evaluation.overall.clips == 6
    only = evaluate(model_folder, [foreign])
    assert only.overall is None
    assert only.identification[OTHER].clips == 3


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
    assert list(evaluation.identification) == [ALL]


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
    assert evaluation.identification == {}
    assert evaluation.conditions.language_told


def test_a_model_with_one_ability_is_evaluated_on_that(tmp_path: Path, spoken: Path) -> None:
    deaf = evaluate(save(tmp_path / "identifies", tokenizer=None), [spoken])
    assert (deaf.overall, deaf.mean_cer, deaf.identification[ALL].clips) == (None, None, 6)
    monolingual = evaluate(save(tmp_path / "transcribes", languages=()), [spoken])
    assert (monolingual.overall.clips, monolingual.identification) == (6, {})


def test_languages_are_chosen(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken], languages=["Russian"])
    assert list(evaluation.languages) == ["ru"]
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
    assert set(evaluation.languages) <= {clip.language for clip in clips}
    assert all(found.cer.low <= found.cer.value <= found.cer.high for found in evaluation.languages.values())


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
    rate = evaluation.languages["ru"].cer
    line = f"{100 * rate.value:.1f} % [{100 * rate.low:.1f} – {100 * rate.high:.1f}]"
    assert f"| Russian (`ru`) | 3 | {line} |" in card
    assert evaluation.conditions.fingerprint[:16] in card
    assert str(spoken.parent) not in card
    load_model(model_folder)


def test_newer_figures_replace_older_ones(model_folder: Path, spoken: Path) -> None:
    evaluation = evaluate(model_folder, [spoken])
    add_figures(model_folder, evaluation)
    right = [found.model_copy(update={"hypothesis": found.reference}) for found in evaluation.predictions]
    add_figures(model_folder, score(right, evaluation.conditions))
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    assert "| Russian (`ru`) | 3 | 0.0 % [0.0 – 0.0] |" in card
    assert card.count("Russian (`ru`)") == 1


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
    for value in (evaluation.mean_cer.value, evaluation.languages["be"].cer.value):
        assert f"{100 * value:.1f} %" in text
    assert f"{100 * evaluation.identification[ALL].accuracy:.1f} %" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
