"""Linear probes: what is there is found, what is not is not, and the verb on real clips."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import MonoCut, SupervisionSegment
from lhotse.supervision import AlignmentItem

from conftest import Run
from isogloss.errors import IsoglossError
from isogloss.evaluation.probing import (
    Examples,
    Parts,
    divided,
    fit,
    gather,
    labelled,
    measure,
    parts_of,
    phones_of,
    right,
)
from isogloss.evaluation.representations import representation
from isogloss.sequence import Sequence


def examples(count: int, informative: int = 1, layers: int = 3, classes: int = 4, seed: int = 0) -> Examples:
    """Noise in all layers, and in one of them a direction for each class; five examples of each clip."""
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randint(classes, (count,), generator=draw)
    states = torch.randn(count, layers, 8, generator=draw)
    if informative >= 0:
        states[:, informative] += 6 * torch.eye(8)[kinds]
    return Examples(states.half(), kinds, torch.arange(count) // 5)


def test_what_a_layer_holds_is_found_there():
    found = measure(examples(600), examples(100, seed=1), examples(200, seed=2), 4, seeds=2, steps=200)
    assert found.right.sum() / found.totals.sum() > 0.95
    assert found.totals.tolist() == [5] * 40
    assert np.argmax(found.weights) == 1 and sum(found.weights) == pytest.approx(1)


def test_what_is_not_there_is_not_found():
    parts = [examples(count, informative=-1, seed=seed) for seed, count in enumerate((600, 100, 400))]
    found = measure(*parts, 4, seeds=1, steps=100)
    assert 0.15 < found.right.sum() / found.totals.sum() < 0.35


def test_a_seed_says_all():
    one, two = (fit(examples(50), 4, 0.01, 3, 5) for _ in range(2))
    torch.testing.assert_close(one.state_dict(), two.state_dict())
    assert len(right(one, examples(9))) == 9


def spoken(name: str, phones: list[tuple[str, float, float]] = [], speaker: str = "a") -> MonoCut:  # noqa: B006
    items = [AlignmentItem(*phone) for phone in phones]
    said = SupervisionSegment(name, name, 0, 1, language="ru", speaker=speaker, alignment={"phone": items})
    return MonoCut(name, 0, 1, 0, supervisions=[said])


def test_frames_have_the_phones_spoken_in_them():
    cut = spoken("a", [("a", 0.0, 0.1), ("x", 0.1, 0.1), ("b", 0.2, 0.06)])
    assert phones_of(cut, 8, 0.04, {"a": 0, "b": 1}).tolist() == [0, 0, -1, -1, -1, 1, -1, -1]


def test_speakers_are_in_all_parts():
    cuts = [spoken(f"clip-{number}", speaker="ab"[number % 2]) for number in range(200)]
    parts = labelled("speaker", divided(Parts(cuts, [], [])))
    assert sum(map(len, parts)) == 200 and len(parts.train) > 120 and len(parts.test) > 5
    assert {cut.supervisions[0].speaker for cut in parts.test} == {"a", "b"}


def test_clips_that_say_nothing_are_refused():
    with pytest.raises(IsoglossError, match="cannot be probed for phones: 0 classes"):
        labelled("phones", Parts([spoken("a")], [spoken("b")], [spoken("c")]))


@pytest.mark.parametrize("name", ["log_mel", "mfcc", "random:test", "random:apc"])
def test_layers_are_of_one_width_and_of_the_clip_alone(name: str):
    one = representation(name)
    audio = [0.1 * torch.randn(count, generator=torch.Generator().manual_seed(0)) for count in (16000, 9000)]
    both, alone = (one.layers(Sequence.from_list(clips)) for clips in (audio, audio[1:]))
    assert len({layer.values.shape[2] for layer in both}) == 1
    for layer, own in zip(both, alone, strict=True):
        torch.testing.assert_close(layer.unpad()[1], own.unpad()[0], atol=1e-4, rtol=1e-4)
    assert len(both[0].unpad()[0]) == pytest.approx(1 / one.frame_seconds, abs=2)
    again = representation(name).layers(Sequence.from_list(audio))
    torch.testing.assert_close(again[-1].values, both[-1].values)


def test_an_unknown_representation_is_named():
    with pytest.raises(IsoglossError, match=r'"log_mell" is no model folder\. Did you mean "log_mel"'):
        representation("log_mell")


def test_clips_are_gathered_as_means(letters: Path):
    parts = parts_of([letters])
    one = representation("log_mel")
    cut = parts.test[0]
    found = gather(one, "language", [cut], ["es", cut.supervisions[0].language], lambda done, total: None)
    assert found.layers.shape[:2] == (1, 1) and found.classes.tolist() == [1] and found.clips.tolist() == [0]


def test_the_verb_probes_models_and_baselines(letters: Path, model: Path, run: Run, tmp_path: Path):
    out = tmp_path / "probe.json"
    named = [part for name in (model, "log_mel", "random:test") for part in ("--model", name)]
    code, shown, _ = run("probe", *named, "--data", letters, "--seeds", 1, "--json", out)
    assert code == 0 and "Linear probes" in shown and "most frequent" in shown
    probes, layers = json.loads(out.read_text())["tables"]
    assert [row["keys"]["representation"] for row in probes["rows"]] == [str(model), "log_mel", "random:test"]
    accuracy = [row["figures"]["accuracy"] for row in probes["rows"]]
    assert all(found["low"] <= found["value"] <= found["high"] for found in accuracy)
    assert sum(row["figures"]["weight"]["value"] for row in layers["rows"]) == pytest.approx(3)
    code, _, said = run("probe", "--model", "log_mel", "--data", letters, "--task", "langauge")
    assert code == 1 and 'no probe "langauge". Did you mean "language"?' in said
