"""Retrieval between speech and text: controls are worth nothing, a space that is one is worth everything."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data, key_of
from isogloss.evaluation.pairs import Pair, Space, encode_pairs, own, spoken_too, translated
from isogloss.evaluation.tasks import retrieval
from isogloss.evaluation.tasks.retrieval import Retrieval
from isogloss.model.model import Model, ModelConfig
from isogloss.model.recogniser import Recogniser
from isogloss.model.space import embed_speech, embed_text
from isogloss.text.corpus import TextLine
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from test_encoders_text import SMALL

DIRECTIONS = ("speech → text", "text → speech")
CONTROLS = ["random weights", "shuffled pairs", "length alone", "chance"]


@pytest.fixture
def recogniser() -> Recogniser:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=preset("test"), text=SMALL.model_copy(update={"heads": 4}), text_languages=("es", "it"),
        alphabets={"es": (1,), "it": (1,)},
    )  # fmt: skip
    return Recogniser(Model(config, build_tokenizer(CharactersConfig(unknown=True), ["abcdefghijklmnopqrstuvwxyz "])))


def test_rows_of_every_shared_block_beside_the_controls(letters: Path, recogniser: Recogniser) -> None:
    table = Retrieval(pool=20, resamples=3).run(recogniser, Data(read_cuts(letters, "train")))
    assert [tuple(row.keys.values()) for row in table.rows] == [
        ("own", direction, block) for direction in DIRECTIONS for block in ("1", "2")
    ]
    for row in table.rows:
        for figure in row.figures.values():
            assert figure.items == 20 and figure.deviation >= 0 and list(figure.baselines) == CONTROLS
        values = [row.figures[name].value for name in ("R@1", "R@5")]
        assert 0 <= values[0] <= values[1] <= 1
        assert row.figures["R@1"].baselines["chance"] == pytest.approx(0.05)
        assert row.headline == (row.keys["block"] == "2")
    state = torch.get_rng_state()
    again = Retrieval(pool=20, resamples=3).run(recogniser, Data(read_cuts(letters, "train")))
    assert again == table and torch.equal(state, torch.get_rng_state())


def test_vectors_are_those_of_the_model(letters: Path, recogniser: Recogniser) -> None:
    cuts = read_cuts(letters, "train")[:12]
    pairs = own(cuts)
    told: list[tuple[int, int]] = []
    data = Data(cuts, on_progress=lambda *n: told.append(n))
    both = [(recogniser.model, range(1, 3)), (recogniser.model, range(2, 3))]
    space, other = encode_pairs(both, pairs * 2, data)
    assert other.layers == [2] and other.frames == space.frames
    assert all(torch.equal(other.vectors[name][2], vectors[2]) for name, vectors in space.vectors.items())
    assert told[-1] == (len(pairs), len(pairs))  # each once
    for cut, line in pairs:
        _, speech = embed_speech(recogniser.model, [waveform(cut)], (1, 2), [language_of(cut)])
        text = embed_text(recogniser.model, [line.text], [line.language], (1, 2))
        for layer in (1, 2):
            torch.testing.assert_close(space.vectors[key_of(cut)][layer], speech.layers[layer][0], rtol=0, atol=1e-4)
            torch.testing.assert_close(space.vectors[line][layer], text.layers[layer][0], rtol=0, atol=1e-4)
        assert (space.frames[key_of(cut)], space.frames[line]) == (int(speech.frames), int(text.frames))


# --- on vectors that are known ---


def clip(number: int) -> Any:
    return SimpleNamespace(id=str(number), custom={"source": "s"})


def pairs_of(count: int) -> list[Pair]:
    return [(clip(n), TextLine(str(n), "es", "own")) for n in range(count)]


def space_of(seeds: list[int], count: int = 30) -> Space:
    """Vectors of text that lie near those of speech, a seed a layer; frames of the last."""
    space = Space()
    layers = {}
    for layer, seed in enumerate(seeds, 2 - len(seeds) + 1):
        generator = np.random.default_rng(seed)
        speech = generator.standard_normal((count, 8))
        text = speech + 1.2 * generator.standard_normal((count, 8))
        frames = [torch.from_numpy(generator.integers(5, 20, count)) for _ in range(2)]
        layers[layer] = (torch.from_numpy(speech).float(), torch.from_numpy(text).float())
    for number, pair in enumerate(pairs_of(count)):
        for side, name in enumerate((key_of(pair[0]), pair[1])):
            vectors = {layer: both[side][number] for layer, both in layers.items()}
            space.add(name, vectors, frames[side][number])
    return space


BEFORE = {
    ("1", "speech → text"): ((0.5166666667, 0.9, 0.6656481481), (0.04714045208, 0.04082482905, 0.03472432092)),
    ("1", "text → speech"): ((0.5333333333, 0.95, 0.6943798631), (0.08498365856, 0.04082482905, 0.02520128788)),
    ("2", "speech → text"): ((0.4833333333, 0.8333333333, 0.6447782446), (0.1247219129, 0.04714045208, 0.08431120435)),
    ("2", "text → speech"): ((0.4666666667, 0.8833333333, 0.6235114885), (0.02357022604, 0.08498365856, 0.02616839521)),
    ("random weights", "speech → text"): (0.5666666667, 0.85, 0.6950084175),
    ("random weights", "text → speech"): (0.4666666667, 0.9333333333, 0.6465277778),
    ("shuffled pairs", "speech → text"): (0.0, 0.25, 0.1366996326),
    ("shuffled pairs", "text → speech"): (0.01666666667, 0.1666666667, 0.1391156616),
    ("length alone", "speech → text"): (0.1027777778, 0.3638888889, 0.2508590422),
    ("length alone", "text → speech"): (0.0875, 0.4333333333, 0.248147781),
    ("chance", "speech → text"): (0.05, 0.25, 0.1798869829),
    ("chance", "text → speech"): (0.05, 0.25, 0.1798869829),
}
"""What the code before tasks (commit bf9253f) found in the same vectors: R@1, R@5, MRR and their deviations."""


def test_figures_are_those_of_before() -> None:
    task = Retrieval(pool=20, resamples=3)
    rows = list(task._rows("own", pairs_of(30), space_of([1, 2]), space_of([3])))
    assert len(rows) == 4
    for row in rows:
        direction, figures = row.keys["direction"], row.figures.values()
        values, deviations = BEFORE[row.keys["block"], direction]
        assert [figure.value for figure in figures] == pytest.approx(values)
        assert [figure.deviation for figure in figures] == pytest.approx(deviations)
        for control in CONTROLS:
            found = [figure.baselines[control] for figure in figures]
            assert found == pytest.approx(BEFORE[control, direction]), control


def test_one_space_is_found_and_shuffled_pairs_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both sides have the same vector, every block is perfect, and shuffling spoils it."""
    pairs, same = pairs_of(40), Space()
    for number, (one, line) in enumerate(pairs):
        vectors = {layer: torch.randn(64) for layer in (1, 2)}
        for name in (key_of(one), line):
            same.add(name, vectors, torch.tensor(number % 3))
    for row in Retrieval()._rows("own", pairs, same, space_of([3], 40)):
        found = row.figures["R@1"]
        assert found.value == 1.0
        assert found.baselines["shuffled pairs"] < 0.2
        assert found.baselines["length alone"] < 0.15  # many are as long


def test_what_cannot_be_encoded_is_left_out() -> None:
    space = space_of([1, 2], 10)
    rows = list(Retrieval()._rows("own", pairs_of(12), space, space_of([3], 10)))
    assert {figure.items for row in rows for figure in row.figures.values()} == {10}
    assert list(Retrieval()._rows("own", pairs_of(1), space, space)) == []


# --- across languages ---


def test_across_languages_each_sentence_is_there_once(letters: Path, recogniser: Recogniser) -> None:
    cuts = read_cuts(letters)
    spanish = [cut for cut in cuts if language_of(cut) == "es"]
    italian = [cut for cut in cuts if language_of(cut) == "it"]
    for cut, other in zip(spanish, italian, strict=False):
        cut.custom["translations"] = {"it": text_of(other), "oc": "lo"}
    pairs = translated(cuts, "it")
    assert all(language_of(cut) == "es" and line.language == "it" for cut, line in pairs)
    assert len(pairs) == len({line.text for _, line in pairs}) > 10 and len(translated(cuts, "oc")) == 1
    both = spoken_too(cuts, "it")
    assert {language_of(cut) for cut, _ in both} == {"es"} and {language_of(cut) for _, cut in both} == {"it"}
    assert all(text_of(other) == cut.custom["translations"]["it"] for cut, other in both) and len(both) > 10
    table = Retrieval(pool=10, resamples=2, across=("Italian", "oc")).run(recogniser, Data(cuts))
    assert [note.rpartition(": ")[2] for note in table.notes] == ["written in oc.", "spoken in oc."]
    found = {(row.keys["pairs"], row.keys["direction"]) for row in table.rows}
    spoken = ("speech → other speech", "other speech → speech")
    asked = {"own": DIRECTIONS, "written in it": DIRECTIONS, "spoken in it": spoken}
    assert found == {(what, direction) for what, directions in asked.items() for direction in directions}
    for cut in cuts[:3]:
        cut.custom["concept"] = "same"
    spanish[0].custom["concept"] = italian[0].custom["concept"] = "hello"
    assert (spanish[0], italian[0]) in spoken_too(cuts, "it")
    italian[0].custom["source"] = "another corpus"  # whose "hello" may be anything
    assert (spanish[0], italian[0]) not in spoken_too(cuts, "it")
    assert translated(cuts, "ru") == spoken_too(cuts, "ru") == []


def test_what_is_lacking_is_told(letters: Path, recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = read_cuts(letters, "train")
    assert Retrieval().why_not(recogniser, Data(cuts)) is None
    with pytest.raises(IsoglossError, match="Fewer than two clips say"):
        Retrieval().run(recogniser, Data(cuts[:1]))
    plain = Recogniser(Model(ModelConfig(encoder=preset("test"))))
    assert "no text encoder" in (Retrieval().why_not(plain, Data(cuts)) or "")
    monkeypatch.setattr(retrieval, "encode_pairs", lambda *_: [Space(), Space()])
    with pytest.raises(IsoglossError, match="Fewer than two of the clips could be read"):
        Retrieval().run(recogniser, Data(cuts))


def test_broken_clips_are_passed_over(letters: Path, recogniser: Recogniser) -> None:
    cuts = read_cuts(letters, "train")
    whole = Retrieval().run(recogniser, Data(cuts)).rows[0].figures["R@1"].items
    pairs = own(cuts)
    pairs[0][0].recording.sources[0].source = "/nowhere.wav"
    data = Data(cuts)
    assert Retrieval().run(recogniser, data).rows[0].figures["R@1"].items == whole - 1
    assert data.causes == {"missing": 1}


def test_clips_are_read_once_for_the_model_and_its_random_twin(letters: Path, recogniser: Recogniser) -> None:
    cuts, told = read_cuts(letters, "train"), []
    Retrieval().run(recogniser, Data(cuts, on_progress=lambda done, total: told.append(done)))
    assert told == sorted(set(told)) and told[-1] == len(own(cuts))
