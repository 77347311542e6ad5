"""What is trained on: nothing that another folder holds out, and a word about every clip that is left out."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from lhotse.cut import MonoCut
from rich.console import Console

from isogloss.data.clips import Clips
from isogloss.data.manifests import CARD, language_of, read_cuts, split_of, text_of, write_cuts
from isogloss.data.needs import Needs
from isogloss.data.splits import held_out_texts
from isogloss.errors import IsoglossError
from isogloss.text.normalise import normalise
from isogloss.training.recipe import DataRecipe, Recipe, StageRecipe
from isogloss.training.source import read_data, summary
from isogloss.training.streams import Source, Stream
from isogloss.training.trainer import train
from small_models import small_recipe

STAGE = {"name": "tune", "steps": 1, "seconds": {"paired": 8}, "objectives": [{"name": "recognition"}]}


def said(cut: MonoCut) -> str:
    return normalise(text_of(cut) or "", language_of(cut))


@pytest.fixture
def leaky(letters: Path, tmp_path: Path) -> Path:
    """All clips of the letters once more, every one for training, a third of them without their text."""
    cuts = read_cuts(letters)
    for number, cut in enumerate(cuts):
        cut.custom["split"] = "train"
        if number % 3 == 0:
            cut.supervisions[0].text = None
    write_cuts(tmp_path / "leaky", cuts)
    (tmp_path / "leaky" / CARD).write_bytes((letters / CARD).read_bytes())
    return tmp_path / "leaky"


def test_what_another_folder_holds_out_is_not_trained_on(letters: Path, leaky: Path) -> None:
    held_out = held_out_texts(read_cuts(letters))
    forced = [cut for cut in read_cuts(leaky) if said(cut) in held_out]
    assert len(forced) > 5
    left_out: Counter[str] = Counter()
    train = read_data(DataRecipe(folders=(letters, leaky), shortest=0.0), "train", left_out)
    assert not {said(cut) for cut in train} & held_out
    assert left_out == {"whose text another folder holds out for dev or test": len(forced)}
    assert len(train) == len(read_cuts(letters, "train")) + len(read_cuts(leaky)) - len(forced)
    line = summary(train, [cut for cut in train if said(cut)], left_out)
    assert line.startswith(f"{len(train)} training clips, {sum(bool(said(cut)) for cut in train)} of them transcribed")
    assert line.endswith(f"; left out: {len(forced)} whose text another folder holds out for dev or test")
    # Within one folder it is prepare that decides, where leaks can be allowed.
    assert len(read_data(DataRecipe(folders=(leaky,), shortest=0.0), "train")) == len(read_cuts(leaky))


def test_a_held_out_sentence_is_known_by_its_translations(letters: Path, leaky: Path, tmp_path: Path) -> None:
    """Nobody says it in this language but the train clip of another folder."""
    cuts = read_cuts(letters)
    held = next(cut for cut in cuts if split_of(cut) == "test")
    held.custom["translations"] = {"fr": "Une lettre !"}
    write_cuts(tmp_path / "told", cuts)
    others = [cut for cut in read_cuts(leaky) if not said(cut)]
    others[0].supervisions[0].text, others[0].supervisions[0].language = "une lettre", "fr"
    write_cuts(tmp_path / "others", others)
    recipe = DataRecipe(folders=(tmp_path / "told", tmp_path / "others"), shortest=0.0)
    ids = [cut.id for cut in read_data(recipe, "train") if language_of(cut) == "fr"]
    assert ids == []


def test_clips_of_other_lengths_are_counted(letters: Path) -> None:
    recipe = DataRecipe(folders=(letters,), shortest=0.5, longest=0.6, languages=("es",))
    spanish = [cut for cut in read_cuts(letters, "train") if language_of(cut) == "es"]
    left_out: Counter[str] = Counter()
    kept = read_data(recipe, "train", left_out)
    assert {cut.id for cut in kept} == {cut.id for cut in spanish if 0.5 <= cut.duration <= 0.6}
    assert left_out["shorter than 0.5 s (data.shortest)"] == sum(cut.duration < 0.5 for cut in spanish) > 0
    assert left_out["longer than 0.6 s (data.longest)"] == sum(cut.duration > 0.6 for cut in spanish) > 0


def test_a_run_says_what_it_leaves_out(letters: Path, leaky: Path, tmp_path: Path) -> None:
    recipe = small_recipe(letters, [STAGE])
    recipe["data"] = {"folders": [str(letters), str(leaky)], "shortest": 0.5}
    console = Console(record=True, width=1000, stderr=True)
    train(Recipe.parse(recipe, "test"), tmp_path / "run", console=console)
    text = console.export_text()
    assert "whose text another folder holds out for dev or test" in text and "shorter than 0.5 s" in text
    recipe["data"] |= {"shortest": 0, "longest": 0.01}
    with pytest.raises(IsoglossError, match=r"No clip is left to train on: 0 training clips.*longer than 0\.01 s"):
        train(Recipe.parse(recipe, "test"), tmp_path / "none", console=console)


def test_a_folder_without_a_card_is_told_before_the_first_step(letters: Path, leaky: Path, tmp_path: Path) -> None:
    (leaky / CARD).unlink()
    recipe = small_recipe(leaky, [STAGE])
    with pytest.raises(IsoglossError, match=rf"leaky has no {CARD}.*prepare"):
        train(Recipe.parse(recipe, "test"), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def batches(letters: Path, processes: int, batch_seconds: float) -> tuple[str, list[list[str]]]:
    """What so many processes have to say, and the micro-batches of a step of 24 s in the order of one process."""
    recipe = StageRecipe.parse(STAGE | {"seconds": {"paired": 24}, "batch_seconds": batch_seconds}, "test")
    data = DataRecipe(folders=(letters,), shortest=0.1)
    streams = {"paired": Stream(read_data(data, "train"), Needs(text=True))}
    prepare = {"recognition": ("paired", lambda batch, training: batch)}
    sources = [Source(streams, prepare, data, recipe, seed=0, rank=rank, world=processes) for rank in range(processes)]
    shares = [source.work(0).micro for source in sources]
    for source in sources:
        source.close()
    rounds = zip(*shares, strict=True)  # as many for each process
    return sources[0].rounding(), [micro["recognition"].ids for together in rounds for micro in together]


def test_processes_share_the_micro_batches_of_one(letters: Path) -> None:
    silent, alone = batches(letters, 1, batch_seconds=6)
    assert len(alone) == 4 and silent == ""
    assert batches(letters, 2, batch_seconds=6) == (silent, alone)


def test_processes_that_change_the_batches_say_so(letters: Path) -> None:
    told, changed = batches(letters, 2, batch_seconds=8)
    assert "4 micro-batches instead of 3, to divide by 2 processes" in told and len(changed) == 4
    assert batches(letters, 3, batch_seconds=8) == batches(letters, 1, batch_seconds=8)


def test_processes_that_read_change_nothing(letters: Path) -> None:
    """However many read ahead, and wherever reading begins again."""
    recipe = StageRecipe.parse(STAGE | {"seconds": {"paired": 24}, "batch_seconds": 12}, "test")
    data = DataRecipe(folders=(letters,), shortest=0.1, speeds=(0.9, 1.0, 1.1))
    streams = {"paired": Stream(read_data(data, "train"), Needs(text=True))}
    prepare = {"recognition": ("paired", lambda batch, _: batch.with_extras({"halved": batch.audio.lengths // 2}))}
    alone, helped, resumed = (Source(streams, prepare, data, recipe, seed=0, workers=n) for n in (0, 2, 1))
    expected = [alone.work(step) for step in range(4)]
    found = [helped.work(step) for step in range(4)]
    resumed.positions = expected[1].positions
    found += [resumed.work(2)]
    for source in (alone, helped, resumed):
        source.close()
    for work, known in zip(found, [*expected, expected[2]], strict=True):
        assert work.positions == known.positions and work.seconds == known.seconds
        for micro, own in zip(work.micro, known.micro, strict=True):
            batch, reference = micro["recognition"], own["recognition"]
            assert batch.ids == reference.ids and batch.seeds == reference.seeds
            assert torch.equal(batch.audio.values, reference.audio.values)
            assert torch.equal(batch.extras["halved"], reference.extras["halved"])


def test_broken_clips_are_counted_where_others_read(letters: Path, tmp_path: Path) -> None:
    recipe = StageRecipe.parse(STAGE | {"seconds": {"paired": 24}, "batch_seconds": 12}, "test")
    data = DataRecipe(folders=(letters,), shortest=0.1, max_bad=1.0)
    cuts = read_data(data, "train")[:20]
    (tmp_path / "noise.wav").write_bytes(b"this is no audio")
    cuts[3].recording.sources[0].source = str(tmp_path / "noise.wav")
    source = Source({"paired": Stream(Clips.of(cuts), Needs(text=True))}, {}, data, recipe, seed=0, workers=1)
    for step in range(3):
        source.work(step)
    source.close()
    assert source.bad_clips() == {cuts[3].id: "unreadable"}
