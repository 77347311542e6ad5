"""Work spread over a Ray cluster: two real workers on this machine, and what becomes of killed ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import safetensors.torch
import torch

import isogloss
from commands import Run
from isogloss.cli.recordings import Recording, Work, by_method, find_recordings, here, on_ray, process
from isogloss.data.manifests import Utterance
from isogloss.errors import AudioError
from isogloss.model.folder import save_model
from isogloss.model.index import load_index
from isogloss.model.recogniser import Progress
from isogloss.model.results import Transcript
from isogloss.serving import cluster as spreading
from small_models import with_text


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two cores that keeps to the loopback interface."""
    spreading.require_ray(spreading.LOCAL)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made.address
    made.shutdown()


@pytest.fixture(scope="module")
def speech(clips: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six real recordings and one that is none."""
    folder = tmp_path_factory.mktemp("speech")
    for number, clip in enumerate(clips[:6]):
        (folder / f"{number}{clip.audio.suffix}").symlink_to(clip.audio)
    (folder / "broken.wav").write_bytes(b"no audio at all" * 100)
    return folder


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_two_workers_write_what_one_process_does_and_go_on_where_they_stopped(
    run: Run, cluster: str, model: Path, letters: Path, speech: Path, tmp_path: Path
) -> None:
    alone, spread = tmp_path / "alone.jsonl", tmp_path / "spread.jsonl"
    verb = ("transcribe", "--model", model, letters, speech, "--format", "json", "--out")
    assert run(*verb, alone)[:2] == (1, "")
    code, out, err = run(*verb, spread, "--ray", cluster)
    assert (code, out) == (1, "")
    assert "broken.wav is not audio" in err and "1 of 251 recordings could not be read." in err
    expected = sorted(lines(alone))
    assert len(expected) == 250 and sorted(lines(spread)) == expected

    # The first and third group of 64 are done, and it was killed while it wrote one more.
    known = lines(alone)
    kept = [line.replace('{"audio"', '{"kept": true, "audio"') for line in known[:64] + known[128:192]]
    spread.write_text("\n".join([*kept, known[64][:50]]), encoding="utf-8")
    code, _, err = run(*verb, spread, "--ray", cluster, "--resume")
    assert code == 1 and "128 of 251 recordings are in" in err and "broken.wav" in err
    assert lines(spread)[:128] == kept
    assert sorted(line.replace('"kept": true, ', "") for line in lines(spread)) == expected


def test_what_a_killed_worker_was_at_is_done_again(cluster: str, model: Path, letters: Path, tmp_path: Path) -> None:
    recordings = find_recordings([str(letters)])
    marker, fatal = tmp_path / "pid", recordings[100]

    def opened(device: str, kill: bool = False) -> Work[Transcript]:
        work = by_method(isogloss.load(model, device).transcribe)

        def hesitating(recordings: list[Recording], on_progress: Progress) -> list[Transcript | AudioError]:
            if kill and fatal in recordings and not marker.exists():
                marker.with_suffix(".tmp").write_text(str(os.getpid()))
                marker.with_suffix(".tmp").rename(marker)
                time.sleep(600)
            return work(recordings, on_progress)

        return hesitating

    def kill() -> None:
        while not marker.exists():
            time.sleep(0.1)
        os.kill(int(marker.read_text()), signal.SIGKILL)

    broken: list[AudioError] = []
    expected = list(process(recordings, here(opened("cpu")), broken.append))
    killer = Thread(target=kill, daemon=True)
    killer.start()
    found = list(process(recordings, on_ray(partial(opened, kill=True), cluster, "cpu"), broken.append))
    killer.join()
    assert int(marker.read_text()) != os.getpid() and broken == []
    place = {recording: number for number, recording in enumerate(recordings)}
    assert sorted(found, key=lambda pair: place[pair[0]]) == expected


@pytest.mark.slow
def test_only_what_kills_its_worker_every_time_is_given_up(cluster: str, speech: Path) -> None:
    recordings = find_recordings([str(speech)])

    def opened(device: str) -> Work[str]:
        def work(recordings: list[Recording], on_progress: Progress) -> list[str | AudioError]:
            if any(one.place.name in ("3", "5") for one in recordings):
                os.kill(os.getpid(), signal.SIGKILL)
            return [recording.name for recording in recordings]

        return work

    broken: list[AudioError] = []
    found = dict(process(recordings, on_ray(opened, cluster, "cpu"), broken.append))
    names = {recording.place.name for recording in found}
    assert names == {"0", "1", "2", "4", "broken"}
    assert sorted(str(error).split(" was given up")[0] for error in broken) == [
        recording.name for recording in recordings if recording.place.name in ("3", "5")
    ]


@pytest.mark.slow
def test_other_verbs(run: Run, cluster: str, model: Path, speech: Path, tmp_path: Path) -> None:
    ray = ("--ray", cluster)
    one, two = run("identify", "--model", model, speech), run("identify", "--model", model, speech, *ray)
    assert one[0] == two[0] == 1 and one[1] == two[1] != ""
    run("encode", "--model", model, speech, "--out", tmp_path / "one")
    code, out, _ = run("encode", "--model", model, speech, "--out", tmp_path / "two", *ray)
    assert code == 1 and sorted(out.split()) == sorted(str(file) for file in (tmp_path / "two").iterdir())
    for file in (tmp_path / "one").iterdir():
        states = [safetensors.torch.load_file(tmp_path / place / file.name)["states"] for place in ("one", "two")]
        assert torch.equal(*states)
    save_model(with_text(), tmp_path / "space", "# A card\n")
    for place, more in (("a", ()), ("b", ray)):
        assert run("embed", "--model", tmp_path / "space", speech, "--out", tmp_path / place, *more)[0] == 1
    one, two = load_index(tmp_path / "a"), load_index(tmp_path / "b")
    assert one.items == two.items and torch.equal(one.vectors, two.vectors)


@pytest.mark.slow
def test_a_cluster_of_this_machine_alone(model: Path, speech: Path) -> None:
    verb = [sys.executable, "-m", "isogloss", "transcribe", "--model", str(model), str(speech)]
    one, two = (subprocess.run([*verb, *more], capture_output=True, text=True) for more in ([], ["--ray", "local"]))
    assert one.returncode == two.returncode == 1
    assert one.stdout == two.stdout != ""
    assert one.stderr.splitlines()[-1] == two.stderr.splitlines()[-1] == "1 of 7 recordings could not be read."


# --- what is wrong is told at once ---


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1"),
        ("recordings", "No Ray cluster answers at recordings; give --ray local, auto or"),
        ("ray://127.0.0.1:10001", "Ray Data does not run through ray://127.0.0.1:10001"),
    ],
)
def test_an_address_without_a_cluster(run: Run, model: Path, speech: Path, address: str, said: str) -> None:
    code, out, err = run("identify", "--model", model, speech, "--ray", address)
    assert (code, out) == (1, "") and said in err and len(err.splitlines()) == 1


def test_ray_is_not_installed(run: Run, model: Path, speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    code, out, err = run("identify", "--model", model, speech, "--ray", "local")
    assert (code, out) == (1, "") and "pip install isogloss[ray]" in err and len(err.splitlines()) == 1


def test_mistakes_are_told_before_a_cluster_is_started(
    run: Run, model: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = ("--ray", "local")
    monkeypatch.setattr(spreading, "connected", None)
    for verb, said in (
        (("transcribe", "--decoder", "transducer"), "It has: ctc"),
        (("transcribe", "--language", "oc"), "oc"),
        (("encode", "--layer", "9", "--out", tmp_path / "out"), "from 0 to 2"),
    ):
        code, out, err = run(*verb, "--model", model, speech, *ray)
        assert (code, out) == (1, "") and said in err and len(err.splitlines()) == 1
    code, out, err = run("identify", "--model", model, "-", *ray)
    assert (code, out) == (1, "") and "standard input" in err
    code, out, err = run("transcribe", "--model", model, "--stream", "-", *ray)
    assert (code, out) == (2, "") and "--ray" in err
