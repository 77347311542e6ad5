"""Packed corpora: the same clips as before, found by lhotse too; what is damaged or missing is named."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.cut import MonoCut
from rich.console import Console

from commands import Run
from isogloss.audio.reading import as_waveform
from isogloss.cli.recordings import _clips
from isogloss.data import store
from isogloss.data.clips import Clips, joined, open_corpus, told_apart
from isogloss.data.exporting import export
from isogloss.data.loading import Loader, waveform
from isogloss.data.manifests import fingerprint, read_card, read_cuts, split_of, text_of, write_cuts
from isogloss.data.needs import Needs
from isogloss.data.packing import UNFINISHED, pack
from isogloss.data.shards import COLUMNS, INDEX, audio_file, cuts_file
from isogloss.data.store import attach
from isogloss.errors import AudioError, IsoglossError
from isogloss.files import write_json
from isogloss.training.recipe import DataRecipe, Recipe, StageRecipe
from isogloss.training.source import read_data
from isogloss.training.streams import Source, Stream
from isogloss.training.trainer import train
from small_models import small_recipe

HOURS = 0.005
STAGE = {"name": "tune", "steps": 2, "seconds": {"paired": 12}, "objectives": [{"name": "recognition"}]}
FILES = {"names": (INDEX, "corpus.json"), "optional": ("text.jsonl.gz",)}


@pytest.fixture(scope="module")
def packed(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "letters"
    pack(letters, out, hours=HOURS)
    return out


@pytest.fixture
def own(packed: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(packed, tmp_path / "own")


def by_id(cuts: list[MonoCut]) -> dict[str, MonoCut]:
    return {cut.id: cut for cut in cuts}


def test_the_clips_are_the_same(letters: Path, packed: Path) -> None:
    before, after = by_id(read_cuts(letters)), by_id(read_cuts(packed))
    assert after.keys() == before.keys()
    for id, cut in list(after.items())[::7]:
        assert text_of(cut) == text_of(before[id]) and split_of(cut) == split_of(before[id])
        assert cut.custom.keys() - {"stored"} == before[id].custom.keys() - {"channel"}
        whole = waveform(before[id])
        assert np.abs(waveform(cut) - whole).max() <= 1 / 32768 and len(waveform(cut)) == len(whole)
    card, known = read_card(packed), read_card(letters)
    assert card["clips"] == known["clips"] and card["licence"] == known["licence"]
    assert card["packed"]["from"] == known["fingerprint"]
    assert card["fingerprint"] == fingerprint(read_cuts(packed)) == open_corpus(packed).fingerprint()
    assert (packed / "text.jsonl.gz").read_bytes() == (letters / "text.jsonl.gz").read_bytes()


def test_a_shard_is_of_one_split_and_language(packed: Path) -> None:
    clips = open_corpus(packed)
    kinds: dict[int, set[object]] = {}
    for shard, cut in zip(clips.shards.tolist(), clips, strict=True):
        kinds.setdefault(shard, set()).add((split_of(cut), cut.supervisions[0].language))
    assert all(len(kind) == 1 for kind in kinds.values()) and len(kinds) == read_card(packed)["packed"]["shards"] > 8
    seconds = [clips.durations[clips.shards == shard].sum() for shard in kinds]
    assert max(seconds) < 1.6 * HOURS * 3600


@pytest.mark.parametrize("audio", ["flac", "wav"])
def test_lhotse_reads_the_shards(letters: Path, tmp_path: Path, audio: str) -> None:
    pack(letters, tmp_path / "out", audio=audio, hours=HOURS)
    own = by_id(read_cuts(tmp_path / "out"))
    found = list(CutSet.from_shar(in_dir=tmp_path / "out" / "shar"))
    assert [cut.id for cut in found] == list(own)
    for cut in found[::40]:
        assert cut.supervisions[0].text == text_of(own[cut.id])
        np.testing.assert_array_equal(cut.load_audio()[0], waveform(own[cut.id]))


def test_opus_is_small_and_as_long(letters: Path, packed: Path, tmp_path: Path) -> None:
    pack(letters, tmp_path / "out", audio="opus", hours=HOURS)
    small, lossless = (
        sum(file.stat().st_size for file in (folder / "shar").glob("*.tar")) for folder in (tmp_path / "out", packed)
    )
    assert small < lossless
    for cut, same in list(zip(read_cuts(tmp_path / "out"), read_cuts(packed), strict=True))[::40]:
        one, other = waveform(cut), waveform(same)
        assert len(one) == len(other)
        assert np.corrcoef(one, other)[0, 1] > 0.9


def test_processes_and_a_second_try_give_the_same_bytes(letters: Path, packed: Path, tmp_path: Path) -> None:
    pack(letters, tmp_path / "out", hours=HOURS, processes=2)
    assert not (tmp_path / "out" / UNFINISHED).exists()
    files = sorted(path.relative_to(packed) for path in packed.rglob("*") if path.is_file())
    assert [file for file in files if (tmp_path / "out" / file).read_bytes() != (packed / file).read_bytes()] == []
    kept, lost = audio_file(tmp_path / "out", 0), audio_file(tmp_path / "out", 1)
    stamp = kept.stat().st_mtime_ns
    with pytest.raises(IsoglossError, match=r"packed corpus already.*--overwrite"):
        pack(letters, tmp_path / "out", hours=HOURS)
    (tmp_path / "out" / INDEX).unlink()  # written last: without it the corpus is not finished
    asked = read_card(packed)["packed"]
    write_json(tmp_path / "out" / UNFINISHED, {key: asked[key] for key in ("from", "audio", "hours", "seed")})
    lost.write_bytes(lost.read_bytes()[:9000])
    cuts_file(tmp_path / "out", 2).unlink()
    with pytest.raises(IsoglossError, match="no prepared corpus"):
        read_cuts(tmp_path / "out")
    pack(letters, tmp_path / "out", hours=HOURS)
    assert kept.stat().st_mtime_ns == stamp
    assert [file for file in files if (tmp_path / "out" / file).read_bytes() != (packed / file).read_bytes()] == []


def test_packing_anew_leaves_nothing_of_before(letters: Path, own: Path) -> None:
    before = len(list((own / "shar").iterdir()))
    pack(letters, own, hours=1, audio="wav", overwrite=True)
    assert len(list((own / "shar").iterdir())) < before
    assert len(list(CutSet.from_shar(in_dir=own / "shar"))) == len(read_cuts(letters))


@pytest.mark.parametrize("name", ["thesis.txt", "shar/recording.000000.tar"])
def test_nothing_else_is_replaced(letters: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(IsoglossError, match="holds something else"):
        pack(letters, tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "years of work"


def test_clips_that_cannot_be_read_are_left_out_and_named(letters: Path, tmp_path: Path, run: Run) -> None:
    cuts = read_cuts(letters)
    bad = [cuts[5].id, cuts[90].id]
    (tmp_path / "noise.ogg").write_bytes(b"this is no audio")
    for cut in cuts:
        if cut.id in bad:
            cut.recording.sources[0].source = str(tmp_path / "noise.ogg")
    write_cuts(tmp_path / "own", cuts)
    shutil.copy(letters / "corpus.json", tmp_path / "own")
    code, out, err = run("pack", tmp_path / "own", "--out", tmp_path / "out", "--hours", HOURS, "--processes", 0)
    assert (code, out.count("\n")) == (0, 1) and f"{len(cuts) - 2} clips" in out
    assert f"2 clips could not be read: {', '.join(sorted(bad))}." in err
    assert read_card(tmp_path / "out")["packed"]["left out"] == sorted(bad)
    for cut in cuts[::10]:
        cut.recording.sources[0].source = str(tmp_path / "noise.ogg")
    write_cuts(tmp_path / "own", cuts)
    with pytest.raises(IsoglossError, match=r"clips could not be read; the first: .*noise\.ogg.*--max-bad"):
        pack(tmp_path / "own", tmp_path / "worse", hours=HOURS)
    assert not (tmp_path / "worse" / INDEX).exists()


def test_a_packed_corpus_is_exported_and_transcribed_like_any_other(packed: Path, tmp_path: Path) -> None:
    assert export(packed, tmp_path / "nemo", "nemo") == len(read_cuts(packed))
    line = (tmp_path / "nemo" / "train_manifest.json").read_text(encoding="utf-8").splitlines()[0]
    assert str(tmp_path / "nemo" / "audio") in line
    recording, cut = next(_clips(packed)), read_cuts(packed)[0]
    assert recording.name == cut.id
    np.testing.assert_array_equal(as_waveform(recording.source), waveform(cut))


def test_training_goes_on_exactly(packed: Path, tmp_path: Path) -> None:
    stage = STAGE | {"steps": 6, "save_every": 2}
    recipe = Recipe.parse(small_recipe(packed, [stage]), "test")
    model = train(recipe, tmp_path / "run", console=Console(quiet=True)) / "model.safetensors"
    whole = model.read_bytes()
    shutil.rmtree(model.parent)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert len(checkpoints) > 1
    shutil.rmtree(checkpoints[-1])
    train(recipe, tmp_path / "run", resume=True, console=Console(quiet=True))
    assert model.read_bytes() == whole


def ids_by_rank(packed: Path, processes: int) -> list[list[list[str]]]:
    """The clips of each micro-batch of the first 12 steps, by process."""
    stage = StageRecipe.parse(STAGE | {"seconds": {"paired": 8}, "batch_seconds": 2}, "test")
    data = DataRecipe(folders=(packed,), shortest=0.1)
    streams = {"paired": Stream(read_data(data, "train"), Needs(text=True))}
    prepare = {"recognition": ("paired", lambda batch, training: batch)}
    found = []
    for rank in range(processes):
        source = Source(streams, prepare, data, stage, seed=0, rank=rank, world=processes)
        found.append([micro["recognition"].ids for step in range(12) for micro in source.work(step).micro])
        source.close()
    return found


def test_any_number_of_processes_takes_the_same_steps(packed: Path) -> None:
    (alone,) = ids_by_rank(packed, 1)
    first, second = ids_by_rank(packed, 2)
    assert [batch for pair in zip(first, second, strict=True) for batch in pair] == alone


def test_processes_read_shards_of_their_own(letters: Path, tmp_path: Path) -> None:
    pack(letters, tmp_path / "fine", hours=0.0008)
    stage = StageRecipe.parse(STAGE | {"seconds": {"paired": 4}, "batch_seconds": 2}, "test")
    data = DataRecipe(folders=(tmp_path / "fine",), shortest=0.1)
    streams = {"paired": Stream(read_data(data, "train"), Needs(text=True))}
    plan = Source(streams, {}, data, stage, seed=0).plans["paired"]
    shards = streams["paired"].clips.shards
    lanes = [set(shards[np.concatenate(plan.round(0)[lane::2])].tolist()) for lane in (0, 1)]
    assert len(lanes[0]) > 5 and len(lanes[1]) > 5 and not lanes[0] & lanes[1]


def damaged(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_is_noticed_in_audio_and_in_a_cut(own: Path) -> None:
    cut = read_cuts(own)[0]
    damaged(audio_file(own, 0), cut.custom["stored"][0] + 200)
    with pytest.raises(AudioError, match=rf"recording\.000000\.tar is damaged in {cut.id} \(checksum\)") as caught:
        waveform(cut)
    assert caught.value.cause == "damaged"
    damaged(cuts_file(own, 0), 30)
    with pytest.raises(AudioError, match=r"cuts\.000000\.jsonl is damaged in clip 0"):
        open_corpus(own)[0]


def test_a_shard_that_is_missing_or_breaks_off_is_named_and_the_rest_read(own: Path) -> None:
    clips = open_corpus(own)
    first, second = (np.flatnonzero(clips.shards == shard) for shard in (0, 1))
    audio_file(own, 0).unlink()
    size = audio_file(own, 1).stat().st_size
    with audio_file(own, 1).open("r+b") as file:
        file.truncate(size // 2)
    loader = Loader(clips, max_bad=1.0)
    batch = loader.load([int(first[0]), int(second[0]), int(second[-1])])
    assert batch.ids == [clips[int(second[0])].id]
    assert [(error.cause, "recording.00000" in str(error)) for error in loader.bad.values()] == [
        ("missing", True),
        ("truncated", True),
    ]
    cuts_file(own, 0).unlink()
    loader = Loader(clips, max_bad=0.001)
    with pytest.raises(IsoglossError, match=r"4 of .* clips could not be read \(missing 4\).*cuts\.000000\.jsonl"):
        loader.load([*first[:4].tolist(), int(second[0])])


@pytest.mark.parametrize("file", [audio_file, cuts_file])
def test_training_goes_on_without_a_shard(own: Path, tmp_path: Path, file: Callable[[Path, int], Path]) -> None:
    clips = open_corpus(own)
    shard = int(clips.shards[clips.in_split("train")][0])
    file(own, shard).unlink()
    recipe = small_recipe(own, [STAGE | {"steps": 6}])
    console = Console(record=True, width=1000, stderr=True)
    recipe["data"]["max_bad"] = 0.5
    train(Recipe.parse(recipe, "test"), tmp_path / "run", console=console)
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert '"bad clips"' in log and '"missing"' in log
    recipe["data"]["max_bad"] = 0
    with pytest.raises(IsoglossError, match=rf"could not be read \(missing \d+\).*{file(own, shard).name}"):
        train(Recipe.parse(recipe, "test"), tmp_path / "strict", console=console)


def test_a_broken_index_says_what_to_do(own: Path) -> None:
    (own / INDEX).write_bytes(b"nothing")
    with pytest.raises(IsoglossError, match=rf"{INDEX} cannot be read .*pack the corpus again"):
        open_corpus(own)


def test_columns_say_what_cuts_say(letters: Path, packed: Path) -> None:
    """Selected, joined and told apart."""
    one, other = open_corpus(letters), open_corpus(packed)
    both = joined(told_apart([one, other]))
    assert len(both) == 2 * len(one) and len({cut.id for cut in both}) == len(both)
    spanish = both.select(both.of_languages(lambda tag: tag == "es") & both.in_split("train"))
    assert {cut.supervisions[0].language for cut in spanish} == {"es"} == spanish.languages()
    assert {split_of(cut) for cut in spanish} == {"train"}
    np.testing.assert_allclose(spanish.durations, [cut.duration for cut in spanish])
    assert sum(spanish.seconds().values()) == pytest.approx(sum(cut.duration for cut in spanish))
    hashes = Counter(spanish.said.tolist())
    assert len(hashes) == len({text_of(cut) for cut in spanish})
    assert spanish[-1].id == spanish[len(spanish) - 1].id and len(spanish[2:5]) == 3
    with pytest.raises(IndexError):
        spanish[len(spanish)]
    assert len(joined([])) == 0


class TestStore:
    def test_shards_are_fetched_when_they_are_read(self, packed: Path, tmp_path: Path, run: Run) -> None:
        code, out, _ = run("attach", packed.as_uri(), "--out", tmp_path / "near", "--keep", 1)
        assert code == 0 and f"{len(read_cuts(packed))} clips of {packed.as_uri()}" in out
        near = tmp_path / "near"
        assert not list((near / "shar").iterdir())
        clips = open_corpus(near)
        np.testing.assert_array_equal(waveform(clips[0]), waveform(open_corpus(packed)[0]))
        assert {file.name for file in (near / "shar").iterdir()} == {"cuts.000000.jsonl", "recording.000000.tar"}
        assert (near / "text.jsonl.gz").read_bytes() == (packed / "text.jsonl.gz").read_bytes()
        assert by_id(read_cuts(near)).keys() == by_id(read_cuts(packed)).keys()

    def test_the_first_are_removed_where_they_take_too_much_room(self, packed: Path, tmp_path: Path) -> None:
        sizes = [audio_file(packed, shard).stat().st_size for shard in range(3)]
        attach(packed.as_uri(), tmp_path / "near", keep=int(1.5 * max(sizes)), **FILES)
        clips = open_corpus(tmp_path / "near")
        for shard in (0, 1, 2):
            waveform(clips[int(np.flatnonzero(clips.shards == shard)[0])])
        assert not audio_file(tmp_path / "near", 0).exists() and audio_file(tmp_path / "near", 2).exists()
        waveform(clips[0])  # fetched again

    def test_a_store_that_fails_is_asked_again(
        self, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(store.time, "sleep", pauses.append)
        attach(packed.as_uri(), tmp_path / "near", keep=10**9, **FILES)
        system = fsspec.url_to_fs(packed.as_uri())[0]
        original, failures = system.get_file, iter([True, True, False])

        def flaky(*arguments: object, **options: object) -> object:
            if next(failures, False):
                raise OSError("the connection was reset")
            return original(*arguments, **options)

        monkeypatch.setattr(type(system), "get_file", staticmethod(flaky))
        waveform(open_corpus(tmp_path / "near")[0])
        assert pauses == [1.0, 2.0]

        def gone(*arguments: object, **options: object) -> object:
            raise OSError("no route to host")

        monkeypatch.setattr(type(system), "get_file", staticmethod(gone))
        clips = open_corpus(tmp_path / "near")
        with pytest.raises(AudioError, match=r"could not be fetched, tried 5 times: .*no route to host") as caught:
            clips[len(clips) - 1]
        assert caught.value.cause == "unreachable" and pauses[2:] == [1.0, 2.0, 4.0, 8.0]
        assert not list((tmp_path / "near" / "shar").glob(".tmp*"))

    @pytest.mark.parametrize(
        ("url", "said"), [("file:///nowhere/corpus", "does not exist"), ("no-such-store://x/y", "cannot be reached")]
    )
    def test_a_wrong_address_is_one_sentence(self, url: str, said: str, tmp_path: Path, run: Run) -> None:
        code, out, err = run("attach", url, "--out", tmp_path / "near")
        assert (code, out) == (1, "") and said in err and err.count("\n") == 1
        assert not (tmp_path / "near").exists()


SIMULATED = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from itertools import islice
from isogloss.data.plan import Position
from isogloss.training.recipe import DataRecipe, StageRecipe
from isogloss.training.source import read_data, transcribed
from isogloss.training.streams import Source, Stream
from isogloss.data.needs import Needs
def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before, began = memory(), time.monotonic()
recipe = DataRecipe(folders=(Path(sys.argv[1]),))
clips = read_data(recipe, "train")
paired = transcribed(clips)
clips.fingerprint()
stage = StageRecipe.parse(json.loads(sys.argv[2]), "test")
source = Source({"paired": Stream(paired, Needs(text=True))}, {}, recipe, stage, seed=0, world=4)
batches = list(islice(source.plans["paired"].batches(Position(3, 0)), 2000))
print(len(clips), len(batches), memory() - before, time.monotonic() - began)
"""


@pytest.mark.slow
def test_ten_million_clips_take_little_memory_and_time(tmp_path: Path) -> None:
    """Under 1 GiB, and under 30 s on the slowest machine that is used."""
    from safetensors.numpy import save_file

    count, random = 10_000_000, np.random.default_rng(0)
    columns = {name: np.zeros(count, kind) for name, kind in COLUMNS.items()}
    columns["durations"] = random.uniform(1, 18, count)
    columns["pairs"] = np.sort(random.integers(0, 40, count)).astype(np.int32)
    columns["said"], columns["digests"] = (random.integers(1, 2**62, count) for _ in range(2))
    columns["shards"] = (np.arange(count) // 400).astype(np.int32)
    names = [["corpus", f"x{number:02d}"] for number in range(40)]
    save_file(columns, tmp_path / INDEX, {"isogloss": json.dumps({"format": 1, "names": names})})
    stage = json.dumps(STAGE | {"seconds": {"paired": 240}, "batch_seconds": 60})
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED, str(tmp_path), stage], capture_output=True, text=True, check=True
    )
    clips, batches, gib, seconds = map(float, done.stdout.split())
    assert (clips, batches) == (count, 2000)
    assert gib < 1.0 and seconds < 30, done.stdout


def test_a_loader_reads_packed_clips_as_any_others(letters: Path, packed: Path) -> None:
    one, other = by_id(read_cuts(letters)), open_corpus(packed)
    batch = Loader(other).load(range(5), seed=3)
    assert batch.texts == [text_of(one[id]) for id in batch.ids]
    again = Loader(Clips.of(one[id] for id in batch.ids)).load(range(5), seed=3)
    assert torch.allclose(batch.audio.values, again.audio.values, atol=1 / 32768)
