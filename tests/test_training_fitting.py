"""Stages that fit: statistics of the corpus, clusters and labels; and what a batch brings of what is asked for."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from isogloss.data.clips import Clips
from isogloss.data.loading import Batch, Loader
from isogloss.data.manifests import CARD, read_cuts, speaker_of, split_of, write_cuts
from isogloss.data.needs import Needs
from isogloss.errors import IsoglossError
from isogloss.files import read_json
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.nn.quantizers import nearest
from isogloss.objectives.fit import Artefact
from isogloss.objectives.kmeans import KMeansConfig
from isogloss.objectives.normalisation import NormalisationConfig
from isogloss.sequence import Sequence
from isogloss.training import budget, development
from isogloss.training.development import load_batches
from isogloss.training.journal import read_log
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_models import small_recipe
from small_objectives import joint_model, pairs

BY_CORPUS = {"kind": "log_mel", "normalisation": "corpus"}
STATISTICS = {"name": "statistics", "fit": {"name": "normalisation"}}
PRETRAIN = {
    "name": "pretrain",
    "steps": 2,
    "seconds": {"speech": 8},
    "objectives": [{"name": "best_rq", "codes": 32, "start_probability": 0.05}],
    "freeze": ["heads"],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer dev clips: these tests are about what is fitted."""
    monkeypatch.setattr(development, "CLIPS", 2)


def run(recipe: dict[str, Any], out: Path, **how: Any) -> Path:
    return train(Recipe.parse(recipe, "test"), out, console=Console(quiet=True), **how)


def refusal(recipe: dict[str, Any], out: Path) -> str:
    with pytest.raises(IsoglossError) as caught:
        run(recipe, out)
    return str(caught.value)


def clips_of(folder: Path) -> Iterable[Batch]:
    """The train clips that a recipe of `small_recipe` takes, one by one."""
    cuts = [cut for cut in read_cuts(folder, "train") if cut.duration >= 0.1]
    loader = Loader(cuts)
    yield from (loader.load([place]) for place in range(len(cuts)))


def test_a_model_that_is_normalised_by_its_corpus_trains(letters: Path, tmp_path: Path) -> None:
    """With the mean and the variance of all frames of the train clips, and no others."""
    run(small_recipe(letters, [STATISTICS, PRETRAIN], features=BY_CORPUS), tmp_path)
    model = load_model(tmp_path / "model")
    frames = torch.cat([model.features.log_mel(batch.audio).unpad()[0] for batch in clips_of(letters)]).double()
    normaliser = model.features.normaliser
    torch.testing.assert_close(normaliser.mean.double(), frames.mean(dim=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(normaliser.variance.double(), frames.var(dim=0, correction=0), rtol=1e-3, atol=1e-4)
    assert float(normaliser.count) == len(frames)
    about = read_json(tmp_path / "artefacts/statistics/artefact.json")
    assert about["fit"] == {"name": "normalisation"} and about["files"].keys() == {"tensors.safetensors"}
    events = [(record["event"], record["stage"]) for record in read_log(tmp_path) if record["event"] in ("fit", "step")]
    assert events == [("fit", "statistics"), *[("step", "pretrain")] * 2]


def test_statistics_that_nothing_fits_or_wants_are_told_before_the_first_step(letters: Path, tmp_path: Path) -> None:
    unfitted = small_recipe(letters, [PRETRAIN], features=BY_CORPUS)
    assert "let a first stage of the recipe find them (fit: {name: norm" in refusal(unfitted, tmp_path / "a")
    unwanted = small_recipe(letters, [PRETRAIN, STATISTICS])
    assert "set model.features.normalisation: corpus" in refusal(unwanted, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_fit_takes_its_part_of_the_minutes(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages after it are measured with what it finds; nothing of that is left behind."""
    monkeypatch.setattr(budget, "LEAST", 2)
    clusters = {"name": "units", "fit": {"name": "kmeans", "clusters": 4, "layer": 1}}
    recipe = small_recipe(letters, [STATISTICS, PRETRAIN, clusters, PRETRAIN | {"name": "again"}], features=BY_CORPUS)
    run(recipe, tmp_path, minutes=0.01)
    taken = [record["stage"] for record in read_log(tmp_path) if record["event"] == "step"]
    assert taken == ["pretrain"] * 2 + ["again"] * 2
    assert not (tmp_path / ".trial").exists()
    assert {folder.name for folder in (tmp_path / "artefacts").iterdir()} == {"statistics", "units"}


def artefact(config: KMeansConfig, model: Model, batches: list[Batch]) -> tuple[Artefact, dict[str, torch.Tensor]]:
    """What is fitted to batches, and the labels of their clips."""
    fit = config.build(model.spec)
    found = fit.fit(model, batches)
    return found, {i: row for b in batches for i, row in zip(b.ids, fit.label(model, found, b), strict=True)}


@pytest.mark.parametrize("layer", [None, 0, 2])
def test_labels_are_the_nearest_centroids(layer: int | None) -> None:
    """Of every frame of features or of a layer, by brute force, whatever batch a clip is in."""
    model = joint_model().eval()
    batch = pairs(pad=1234, poison=math.nan)
    config = KMeansConfig(clusters=5, layer=layer, share=1.0, starts=3)
    found, labels = artefact(config, model, [batch])
    centroids = found.tensors["centroids"].double()
    assert len(centroids) == 5 and found.figures == {"clusters in use": 5.0}
    for name, clip in zip(batch.ids, batch.audio.unpad(), strict=True):
        features = model.features(Sequence.from_list([clip]))
        states = features if layer is None else model.encode(features, layers=(layer,)).layers[layer]
        distances = (states.values[0].detach().double()[:, None] - centroids).square().sum(dim=-1)
        assert torch.equal(labels[name], distances.argmin(dim=1))


def test_clusters_are_found_where_they_are() -> None:
    """Three clouds of states: each has a centroid of its own, and the fit is the same from the same seed."""
    model = joint_model().eval()
    clouds = torch.tensor([-5.0, 0.0, 5.0])[torch.randint(3, (600,))]
    states = torch.randn(600, 64) * 0.1 + clouds[:, None]
    model.features.forward = lambda audio: Sequence(states[None], torch.tensor([600]))  # type: ignore[method-assign]
    batch = pairs(["da"], ["ro"], [16000])
    config = KMeansConfig(clusters=3, share=0.5, starts=5)
    found, labels = artefact(config, model, [batch])
    assert [round(value) for value in sorted(found.tensors["centroids"].mean(dim=1).tolist())] == [-5, 0, 5]
    numbers = labels[batch.ids[0]]
    assert len({(int(a), int(b)) for a, b in zip(clouds, numbers, strict=True)}) == 3
    again, _ = artefact(config, model, [batch])
    assert torch.equal(found.tensors["centroids"], again.tensors["centroids"])
    other, _ = artefact(config.model_copy(update={"seed": 1}), model, [batch])
    assert not torch.equal(found.tensors["centroids"], other.tensors["centroids"])


def test_the_nearest_is_the_nearest() -> None:
    states, centroids = torch.randn(200, 7), torch.randn(11, 7)
    assert torch.equal(nearest(states, centroids), torch.cdist(states, centroids).argmin(dim=1))


def test_what_cannot_be_fitted_is_one_sentence() -> None:
    model = joint_model().eval()
    with pytest.raises(IsoglossError, match=r"\d+ frames are too few for 500 clusters; take fewer clusters, a larger"):
        artefact(KMeansConfig(share=1.0), model, [pairs()])
    with pytest.raises(IsoglossError, match="no layer 4 for kmeans; give one from 0 to 3"):
        KMeansConfig(layer=4).build(model.spec)
    with pytest.raises(IsoglossError, match="of no use to this model"):
        NormalisationConfig().build(model.spec)


def test_clusters_of_a_run_are_an_artefact_with_labels(letters: Path, tmp_path: Path) -> None:
    """Of train and dev clips, which a resumed run takes as they are, and refuses when they were changed."""
    fit = {"name": "units", "fit": {"name": "kmeans", "clusters": 4, "layer": 1, "share": 1.0}}
    recipe = small_recipe(letters, [PRETRAIN, fit])
    run(recipe, tmp_path)
    folder = tmp_path / "artefacts/units"
    labels = load_file(folder / "labels.safetensors")
    known = {cut.id for split in ("train", "dev") for cut in read_cuts(letters, split) if cut.duration >= 0.1}
    assert labels.keys() == known and load_file(folder / "tensors.safetensors")["centroids"].shape == (4, 64)
    assert int(torch.cat(list(labels.values())).max()) == 3
    about = read_json(folder / "artefact.json")
    before = (folder / "labels.safetensors").stat().st_mtime_ns
    assert about["figures"] == {"clusters in use": 4.0} and about["fit"]["clusters"] == 4
    run(recipe, tmp_path, resume=True)
    assert (folder / "labels.safetensors").stat().st_mtime_ns == before
    with (folder / "labels.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(IsoglossError, match=r"labels\.safetensors is missing or was changed; restore it"):
        run(recipe, tmp_path, resume=True)


def test_clips_of_one_id_in_two_folders_keep_their_own_labels(letters: Path, tmp_path: Path) -> None:
    """The second folder calls its clips what the first one calls others."""
    cuts = read_cuts(letters)
    for cut, name in zip(cuts, [cut.id for cut in reversed(cuts)], strict=True):
        cut.id = name
    write_cuts(tmp_path / "again", cuts)
    (tmp_path / "again" / CARD).write_bytes((letters / CARD).read_bytes())
    recipe = small_recipe(letters, [{"name": "units", "fit": {"name": "kmeans", "clusters": 4}}, PRETRAIN])
    recipe["data"] |= {"folders": [str(letters), str(tmp_path / "again")], "shortest": 0.0}
    run(recipe, tmp_path / "run")
    labels = load_file(tmp_path / "run/artefacts/units/labels.safetensors")
    clips = [cut for cut in [*read_cuts(letters), *cuts] if split_of(cut) in ("train", "dev")]
    assert len(labels) == len(clips)
    frames = sum(len(values) for values in labels.values())
    assert frames == pytest.approx(100 * sum(cut.duration for cut in clips), rel=0.1)


def test_what_was_fitted_to_another_model_is_fitted_again(letters: Path, tmp_path: Path) -> None:
    """As after a run that was killed before its first checkpoint; but a run that is past the stage needs its own."""
    fit = {"name": "units", "fit": {"name": "kmeans", "clusters": 4, "layer": 1, "share": 1.0}}
    recipe = small_recipe(letters, [fit, PRETRAIN])
    run(recipe, tmp_path)
    first = read_json(tmp_path / "artefacts/units/artefact.json")["files"]
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "model")
    run(recipe | {"seed": 7}, tmp_path)
    assert read_json(tmp_path / "artefacts/units/artefact.json")["files"] != first
    shutil.rmtree(tmp_path / "artefacts/units")
    with pytest.raises(IsoglossError, match="units is missing or was changed; restore it, or train into another"):
        run(recipe | {"seed": 7}, tmp_path, resume=True)


def test_stages_that_fit_have_names_of_their_own(letters: Path, tmp_path: Path) -> None:
    fit = {"name": "units", "fit": {"name": "kmeans", "clusters": 4}}
    assert 'Two stages are named "units"' in refusal(small_recipe(letters, [fit, fit, PRETRAIN]), tmp_path / "a")
    for name in ("../units", "", "a/b", ".."):
        assert "stages.0" in refusal(small_recipe(letters, [fit | {"name": name}, PRETRAIN]), tmp_path / "b")


def test_what_an_objective_learned_in_another_shape_begins_anew(letters: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=1000, stderr=True)
    other = PRETRAIN | {"name": "other", "objectives": [{"name": "best_rq", "codes": 16, "start_probability": 0.05}]}
    train(Recipe.parse(small_recipe(letters, [PRETRAIN, other]), "test"), tmp_path, console=console)
    assert "other: best_rq begins anew, for masked.quantizer.codebooks had another shape before." in " ".join(
        console.export_text().split()
    )
    learned = load_file(tmp_path / "model/pretraining.safetensors")
    assert learned["best_rq/masked.softmax.weight"].shape == (16, 64)


def test_a_batch_has_as_many_views_as_are_needed(letters: Path) -> None:
    """Each view of every clip at a speed of its own, from the seed of the batch."""
    cuts = read_cuts(letters, "train")[:6]
    loader = Loader(cuts, speeds=(0.9, 1.0, 1.1), views=3)
    batch, again = loader.load(range(6), seed=4), loader.load(range(6), seed=4)
    assert len(batch.views) == 2 and all(len(view) == 6 for view in batch.views)
    lengths = np.array([view.lengths.tolist() for view in (batch.audio, *batch.views)])
    assert (lengths != lengths[0]).any(axis=1).tolist() == [False, True, True]
    plain = Loader(cuts).load(range(6), seed=4)
    factors = plain.audio.lengths.numpy() / lengths
    assert np.abs(factors[..., None] - [0.9, 1.0, 1.1]).min(axis=-1).max() < 0.01
    assert all(torch.equal(a.values, b.values) for a, b in zip(batch.views, again.views, strict=True))
    assert plain.views == [] and all(torch.equal(view.values, plain.audio.values) for view in _plain_views(cuts))
    moved = batch.to("cpu")
    assert [view.lengths.tolist() for view in moved.views] == lengths[1:].tolist()


def test_on_the_dev_split_views_are_the_clips_as_they_are(letters: Path) -> None:
    batch, *_ = load_batches(read_cuts(letters, "dev")[:3], views=2)
    assert [torch.equal(view.values, batch.audio.values) for view in batch.views] == [True]


def _plain_views(cuts: list[Any]) -> list[Sequence]:
    return Loader(cuts, views=2).load(range(len(cuts)), seed=4).views


def test_a_batch_knows_its_speakers(letters: Path) -> None:
    cuts = read_cuts(letters, "train")[:3]
    for cut, name in zip(cuts, ("ana", None, "bo"), strict=True):
        cut.supervisions[0].speaker = name
    assert Loader(cuts).load([2, 0, 1]).speakers == ["bo", "ana", None] == [speaker_of(cuts[n]) for n in (2, 0, 1)]
    assert Needs(speaker=True).met_by(Clips.of(cuts)).tolist() == [True, False, True]


def test_clips_with_labels_are_not_played_faster() -> None:
    """Labels count the frames of the clip as it is."""
    assert Loader([], speeds=(0.9,), labels={"units": {}}).speeds == (1.0,)
    assert Loader([], speeds=(0.9,)).speeds == (0.9,)
