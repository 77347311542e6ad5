"""The report: whole, well-formed, self-contained, and true to the figures."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isogloss.audio.reading import info, write_flac
from isogloss.data.manifests import Utterance, count_cuts, fingerprint, to_cut, write_card, write_cuts
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.evaluation.comparison import compare, difference
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.examples import _ranked, _shares, align, clusters, columns, examples
from isogloss.evaluation.history import POINTS, read_history
from isogloss.evaluation.plots import _apart
from isogloss.evaluation.posteriors import look_inside
from isogloss.evaluation.predictions import Prediction
from isogloss.evaluation.report import write_report
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.table import Table
from isogloss.evaluation.tasks.recognition import TOGETHER, score
from isogloss.heads.classifier import ClassifierConfig
from isogloss.heads.transducer import TransducerConfig
from isogloss.metrics.error_rates import error_rates
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.predictors import LSTMConfig
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from isogloss.training.recipe import Recipe
from test_encoders_text import SMALL

TEXTS = {"be": ["добры дзень", "так не", "не ведаю"], "ru": ["добрый день", "да", "не знаю"]}
PEER = "<script>peer</script>"
VOID = {"meta", "br", "img", "input", "link", "hr"}


def corpus(folder: Path, *, texts: bool = True) -> Path:
    generator = np.random.default_rng(0)
    cuts = []
    for tag, group in TEXTS.items():
        for number, text in enumerate(group * 2):
            path = folder / tag / f"{number}.flac"
            write_flac(path, 0.1 * generator.standard_normal(16000 + 800 * number).astype(np.float32))
            split = "test" if number < len(group) else "train"
            said = text if texts else None
            clip = Utterance(f"{tag}-{number}", path, tag, folder.name, text=said, split=split)
            cuts.append(to_cut(clip, info(path)))
    write_cuts(folder, cuts)
    card = {"name": folder.name, "title": "Noise & more", "licence": "CC0", "clips": len(cuts)}
    write_card(folder, card | {"languages": count_cuts(cuts), "fingerprint": fingerprint(cuts)})
    return folder


def records() -> list[dict[str, Any]]:
    """A log of 300 steps of pre-training and 200 of fine-tuning with two looks at the dev split."""
    found: list[dict[str, Any]] = []
    for step in range(1, 501):
        stage = "listen" if step <= 300 else "read"
        name = "best_rq" if step <= 300 else "recognition"
        parts: dict[str, float] = {f"{name}/loss": 9 / step}
        parts |= {"best_rq/code_perplexity": 50.0 + step, "best_rq/accuracy": 0.01} if step <= 300 else {}
        parts |= {"recognition/language_accuracy": 0.5} if step > 300 else {}
        loss = float("nan") if step == 7 else 9 / step
        found.append(
            {"event": "step", "stage": stage, "step": step, "loss": loss, "seconds": 36.0, "skipped": step == 7} | parts
        )
        if step in (1, 301):
            found.append({"event": "gradients", "stage": stage, "step": step, name: 1.0})
        if step in (400, 500):
            rates = {"cer": 0.6, "cer/be": 0.5, "cer/ru": 0.7}
            found.append({"event": "dev", "stage": stage, "step": step, "loss": 1.0} | rates)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training would have left, with random weights; its data lie beside it."""
    folder = tmp_path_factory.mktemp("report") / "run"
    data = corpus(folder.parent / "noise")
    stages = [
        {"name": "listen", "steps": 300, "seconds": {"speech": 36}, "objectives": [{"name": "best_rq"}]},
        {"name": "read", "steps": 200, "seconds": {"paired": 36}, "objectives": [{"name": "recognition"}]},
    ]
    model = {"encoder": "test", "tokenizer": {"kind": "characters"}}
    values = {"name": "<b>noise</b>", "data": {"folders": [str(data)]}, "model": model, "stages": stages}
    recipe = Recipe.parse(values, "recipe").plain()
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records()), encoding="utf-8")
    save(folder / "model", recipe)
    return folder


@pytest.fixture(scope="module")
def evaluation(run: Path) -> Evaluation:
    return evaluate(run / "model", [run.parent / "noise"])


@pytest.fixture(scope="module")
def report(run: Path, evaluation: Evaluation) -> tuple[str, dict[str, Any]]:
    """The page beside a peer with an evil name, and its metrics."""
    return written(run, evaluation, systems={PEER: evaluation})


def save(folder: Path, recipe: dict[str, Any] | None = None, **changes: Any) -> None:
    torch.manual_seed(1)
    texts = [text for group in TEXTS.values() for text in group]
    tokenizer = changes.pop("tokenizer", build_tokenizer(CharactersConfig(), texts))
    config = ModelConfig(encoder=preset("test"), languages=changes.pop("languages", ("be", "ru")), **changes)
    save_model(Model(config, tokenizer), folder, "# A card\n", recipe)


def written(run: Path, evaluation: Evaluation | list[Evaluation], **more: Any) -> tuple[str, dict[str, Any]]:
    """The page and the metrics."""
    out = run.parent / "out" / "report.html"
    write_report(run, evaluation, out, **more)
    metrics = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    return out.read_text(encoding="utf-8"), metrics


class Page(HTMLParser):
    """Reads a page strictly: every tag that opens must close, in order; collects ids and addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [tag] if tag not in VOID else []
        for name, value in attributes:
            self.ids += [value or ""] if name == "id" else []
            self.addresses += [value or ""] if name in ("src", "href", "xlink:href", "data", "action") else []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_whole_and_self_contained(evaluation: Evaluation, report: tuple[str, dict[str, Any]]) -> None:
    html, _ = report
    page = Page(html)
    sections = {"comparison", "recognition", "language", "calibration", "examples", "inside", "learning", "data"}
    assert sections | {"limits", "again"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for address in page.addresses:
        assert address.startswith("data:") or (address.startswith("#") and address[1:] in page.ids), address
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"@import|url\((?!#)", html)
    assert "script" not in page.tags
    # losses ×2, codes, accuracy, dev CER, language accuracy, error rates, confusion, spectrogram
    assert page.tags.count("svg") == 9
    assert page.tags.count("audio") == 6
    assert "a0b0" not in html, "a marker colour was not replaced by a variable of the page"
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    assert used <= set(re.findall(r"--([\w-]+):", html))
    for table in evaluation.tables:
        for row in table.rows:
            for figure in row.figures.values():
                assert f"{100 * figure.value:.1f} %" in page.text
                assert figure.low is None or f"{100 * figure.low:.1f} – {100 * figure.high:.1f}" in page.text
        assert table.title in page.text and table.about in page.text
        assert all(note in page.text for note in table.notes)
    assert "Belarusian" in page.text
    assert "1 steps skipped" in page.text
    assert "seed" in page.text


def test_what_comes_from_outside_is_escaped(report: tuple[str, dict[str, Any]]) -> None:
    page = Page(report[0])
    assert "script" not in page.tags
    assert PEER in page.text
    assert "<b>noise</b>" in page.text


def test_the_metrics_are_the_same_figures(evaluation: Evaluation, report: tuple[str, dict[str, Any]]) -> None:
    _, metrics = report
    assert Evaluation.parse(metrics["evaluations"][0], "metrics.json") == evaluation
    assert Evaluation.parse(metrics["systems"][PEER], "metrics.json") == evaluation
    compared = Table.parse(metrics["comparison"], "metrics.json")
    found = compared.figure("difference", system=PEER)
    assert (found.value, found.low, found.high, found.items) == (0.0, 0.0, 0.0, 6)
    listen, read = metrics["training"]
    assert (listen["name"], listen["steps"], listen["skipped_steps"], listen["hours"]) == ("listen", 300, 1, 3)
    assert listen["last"]["best_rq/code_perplexity"] == 350
    assert [look["cer/ru"] for look in read["dev"]] == [0.7, 0.7]
    seconds = 3 + 0.05 * (0 + 1 + 2)
    assert metrics["hours"]["be"]["test"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert metrics["recipe"]["stages"][0]["steps"] == 300


def test_audio_is_that_of_the_clips(run: Path, evaluation: Evaluation) -> None:
    for example in examples(evaluation):
        kind, _, data = example.audio.partition(";base64,")
        assert kind == "data:audio/flac"
        samples, rate = sf.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
        language, number = example.prediction.id.split("-")
        expected, _ = sf.read(run.parent / "noise" / language / f"{number}.flac", dtype="float32")
        assert rate == 16000
        np.testing.assert_array_equal(samples, expected)


def test_several_evaluations_share_a_report(run: Path, evaluation: Evaluation) -> None:
    other = evaluate(run / "model", [corpus(run.parent / "foreign", texts=False)])
    html, metrics = written(run, [evaluation, other])
    page = Page(html)
    assert [len(each["predictions"]) for each in metrics["evaluations"]] == [6, 6]
    assert page.tags.count("svg") == 10  # one more confusion matrix
    assert "noise (test)" in page.text and "foreign (test)" in page.text
    assert "6 clips from foreign (not trained on)" in page.text
    assert "foreign (test): Not trained on: foreign." in page.text
    # Of a corpus that was not trained on only the evaluated split is counted.
    assert metrics["hours"]["ru"]["test"] == pytest.approx(2 * 3.15 / 3600, abs=2e-4)
    assert metrics["hours"]["ru"]["train"] == pytest.approx(3.6 / 3600, abs=1e-4)


def test_a_model_that_only_identifies_has_a_report_without_error_rates(run: Path, tmp_path: Path) -> None:
    save(tmp_path / "model", tokenizer=None)
    page = Page(written(run, evaluate(tmp_path / "model", [run.parent / "noise"]))[0])
    assert {"recognition", "examples", "inside"}.isdisjoint(page.ids)
    assert {"language", "learning"} <= set(page.ids)


def test_a_model_that_only_transcribes_has_a_report_without_languages(run: Path, tmp_path: Path) -> None:
    save(tmp_path / "model", languages=())
    page = Page(written(run, evaluate(tmp_path / "model", [run.parent / "noise"]))[0])
    assert "language" not in page.ids
    assert {"recognition", "examples", "inside"} <= set(page.ids)


def test_a_model_with_a_text_encoder_shows_where_speech_and_text_meet(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    text = SMALL.model_copy(update={"heads": 4})
    save(tmp_path / "run/model", text=text, text_languages=("be",), alphabets={"be": (1, 2), "ru": (1, 2)})
    (tmp_path / "run/log.jsonl").write_text("".join(
        json.dumps(r | ({"most/matching": 0.5} if r["stage"] == "read" and r["event"] == "step" else {})) + "\n"
        for r in records()
    ))  # fmt: skip
    found, metrics = written(tmp_path / "run", evaluate(tmp_path / "run/model", [run.parent / "noise"]))
    page = Page(found)
    assert {"shared_space", "durations", "retrieval", "aligned"} <= set(page.ids)
    labels = re.findall(r'aria-label="([^"]+)"', found)
    for begin in ("CKA by block", "R@1 by block", "Durations and states"):
        assert sum(label.startswith(begin) for label in labels) == 1
    assert "squared distance of speech and text" in found
    evaluation = Evaluation.parse(metrics["evaluations"][0], "metrics.json")
    shared, durations = evaluation.table("shared_space"), evaluation.table("durations")
    # The language that the text encoder knows.
    assert shared.notes == ("Of 3 clips compared, 3 could be aligned with their transcripts.",)
    assert [row.keys["block"] for row in shared.rows] == ["1", "2"]
    error = durations.figure("error")
    assert error.value >= 0 and error.baselines["median"] > 0


def test_a_model_without_ctc_has_a_report_without_posteriors(run: Path, tmp_path: Path) -> None:
    """Its transducer transcribes, and aligns what a text encoder makes."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    heads = {"transducer": TransducerConfig(predictor=LSTMConfig(width=8), joiner=12), "language": ClassifierConfig()}
    text = SMALL.model_copy(update={"heads": 4})
    alphabets = {"be": (1, 2), "ru": (1, 2)}
    save(tmp_path / "run/model", heads=heads, text=text, text_languages=("be",), alphabets=alphabets)
    page = Page(written(tmp_path / "run", evaluate(tmp_path / "run/model", [run.parent / "noise"]))[0])
    assert "inside" not in page.ids and {"recognition", "examples", "aligned", "shared_space"} <= set(page.ids)


def test_what_is_missing_is_named(run: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    moved = evaluation.conditions.model_copy(update={"data": (str(corpus(tmp_path / "foreign")),)})
    with pytest.raises(IsoglossError, match="changed since the evaluation"):
        write_report(run, evaluation.model_copy(update={"conditions": moved}), tmp_path / "report.html")
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    (broken / "log.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(IsoglossError, match="has not taken a step"):
        write_report(broken, evaluation, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_examples_are_spread_over_languages_and_ranks() -> None:
    heard = ["abcdefghij", "abcdefghi", "abcdefgh", "abcdefg"]
    clips = [
        Prediction(id=f"{tag}{i}", source="s", language=tag, seconds=1, reference=heard[0], hypothesis=text)
        for tag in ("en", "ru")
        for i, text in enumerate(heard)
    ]
    long = clips[0].model_copy(update={"id": "long", "seconds": 60.0})
    evaluation = Evaluation.model_construct(predictions=(*clips, long))
    ranked = _ranked(evaluation)
    assert [[p.id for p, _ in group] for group in ranked.values()] == [
        ["en0", "en1", "en2", "en3"],
        ["ru0", "ru1", "ru2", "ru3"],
    ]
    assert [round(cer, 1) for _, cer in ranked["en"]] == [0.0, 0.1, 0.2, 0.3]
    groups = list(ranked.values())
    assert [count for _, count in _shares(groups, 5)] == [3, 2]
    assert [count for _, count in _shares(groups, 100)] == [4, 4]
    assert len(list(_shares(groups * 10, 8))) == 8


def test_alignment_by_hand() -> None:
    kinds = [(piece.kind, piece.said, piece.written) for piece in align("кот спит", "кит пит а")]
    assert kinds == [
        ("equal", "к", "к"),
        ("substitute", "о", "и"),
        ("equal", "т ", "т "),
        ("delete", "с", ""),
        ("equal", "пит", "пит"),
        ("insert", "", " а"),
    ]
    prediction = Prediction(id="1", source="s", language="ru", seconds=1, reference="кот спит", hypothesis="кит пит а")
    assert [["".join(piece.said for piece in column)] for column in columns(prediction)] == [["кот"], ["спит"]]


WORDS = st.text("abc de\u0301क\u093f", max_size=12).map(lambda text: " ".join(text.split()))


@given(WORDS, WORDS)
def test_alignment_loses_nothing_and_is_minimal(said: str, heard: str) -> None:
    pieces = align(said, heard)
    assert "".join(piece.said for piece in pieces) == said
    assert "".join(piece.written for piece in pieces) == heard
    different = [(clusters(piece.said), clusters(piece.written)) for piece in pieces if piece.kind != "equal"]
    wrong = sum(max(map(len, both)) for both in different)
    # As many errors as on texts in which each letter with its marks is one character.
    coded = {cluster: chr(0x4E00 + i) for i, cluster in enumerate(dict.fromkeys(clusters(said + "|" + heard)))}
    if said:
        texts = ["".join(coded.get(c, "?") for c in clusters(text)) for text in (said, heard)]
        found = error_rates([texts[0]], [texts[1]], "character")
        assert wrong == found.substitutions + found.deletions + found.insertions


def test_the_difference_is_paired_and_signed(evaluation: Evaluation) -> None:
    ours = evaluation
    right = [found.model_copy(update={"hypothesis": found.reference}) for found in ours.predictions]
    perfect = ours.model_copy(update={"predictions": tuple(right), "tables": (score(right),)})
    found = difference(ours, perfect)
    assert found.difference == pytest.approx(ours.table("recognition").figure("CER", TOGETHER).value)
    assert difference(perfect, ours).difference == -found.difference
    assert found.interval.low > 0
    compared = compare(ours, {"right": perfect})
    assert [row.keys["system"] for row in compared.rows] == [ours.conditions.system, "right"]
    assert compared.figure("CER", system="right").value == 0.0
    assert compared.figure("difference", system="right").value == pytest.approx(found.difference)
    renamed = tuple(p.model_copy(update={"id": f"x{p.id}"}) for p in ours.predictions)
    stranger = ours.model_copy(update={"predictions": renamed})
    assert difference(ours, stranger) is None
    assert compare(ours, {"stranger": stranger}).rows[1].figures.keys() == {"CER"}


def test_curves_are_means_of_neighbouring_steps(run: Path) -> None:
    listen, read = read_history(run)
    curve = listen.curve("best_rq/code_perplexity")
    assert len(curve.means) == POINTS
    np.testing.assert_allclose(curve.means, curve.steps + 50)
    assert np.all((curve.low <= curve.means) & (curve.means <= curve.high))
    assert listen.curve("loss").means.max() < np.inf
    assert listen.curve("nothing") is None
    assert (len(listen.steps), len(read.steps)) == (300, 200) and "loss" in read.plain()["first"]
    assert read.looks("cer/be") == [(400, 0.5), (500, 0.5)]
    assert read.languages() == ["be", "ru"]
    assert listen.languages() == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_labels_are_moved_apart(values: list[float]) -> None:
    places = _apart(sorted(values), 0.1, 1.0)
    assert all(b - a > 0.0999 for a, b in pairwise(places))
    assert all(place <= 1.0 for place in places)


def test_inside_a_clip_are_posteriors_and_the_best_path(run: Path) -> None:
    model = load_model(run / "model")
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    inside = look_inside(model, samples)
    assert inside.features.shape == (98, 80)
    assert inside.posteriors.shape == (25, model.tokenizer.size)
    np.testing.assert_allclose(inside.posteriors.sum(axis=1), 1, atol=1e-5)
    for symbol, first, last in inside.runs:
        assert (inside.posteriors[first:last].argmax(axis=1) == symbol).all()
    spoken = "".join(model.tokenizer.decode([symbol]) for symbol, _, _ in inside.runs)
    assert "".join(inside.names[symbol] for symbol, _, _ in inside.runs) == spoken.replace(" ", "␣")
