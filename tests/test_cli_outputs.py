"""Jobs over many recordings: a prepared corpus as input, results in one file or a folder, and going on later."""

import json
from pathlib import Path

import pytest
import soundfile as sf

import isogloss
from commands import Run
from isogloss.cli.recordings import find_recordings
from isogloss.data.loading import waveform
from isogloss.data.manifests import read_cuts
from small_models import sound


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three recordings."""
    folder = tmp_path_factory.mktemp("audio")
    for number in range(3):
        sf.write(folder / f"{number}.wav", sound(1 + number, seed=number), 16000)
    return folder


def results(path: Path) -> dict[str, dict[str, object]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({record["audio"] for record in records}) == len(records)
    return {record["audio"]: record for record in records}


def test_a_prepared_corpus_is_its_clips(run: Run, model: Path, letters: Path, tmp_path: Path) -> None:
    code, _, err = run("transcribe", "--model", model, letters, "--format", "json", "--out", tmp_path / "all.jsonl")
    assert code == 0, err
    found, cuts = results(tmp_path / "all.jsonl"), read_cuts(letters)
    assert list(found) == [cut.id for cut in cuts]
    assert {cut.duration == cut.recording.duration for cut in cuts} == {True, False}  # whole files, and stretches
    recogniser = isogloss.load(model)
    for cut in cuts[:8]:
        assert found[cut.id]["text"] == recogniser.transcribe(waveform(cut)).text
        assert found[cut.id]["seconds"] == pytest.approx(cut.duration, abs=1e-3)


def test_results_stay_in_their_folder_whatever_clips_are_called(letters: Path, tmp_path: Path) -> None:
    from isogloss.data.manifests import write_cuts

    cuts = read_cuts(letters)[:3]
    for cut, name in zip(cuts, ("../../up", "/root", "a/../b"), strict=True):
        cut.id = name
    write_cuts(tmp_path, cuts)
    places = sorted(str(recording.place) for recording in find_recordings([str(tmp_path)]))
    assert places == ["a/b", "root", "up"]


@pytest.mark.parametrize("verb", ["transcribe", "identify"])
def test_a_file_of_lines_is_gone_on_with(run: Run, verb: str, model: Path, audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/all.jsonl"
    command = (verb, "--model", model, audio, "--format", "json", "--out", out)
    assert run(*command, "--resume") == (0, "", "")  # there need not be anything yet
    whole = out.read_bytes()
    assert len(results(out)) == 3
    code, printed, err = run(*command)
    assert (code, printed) == (1, "") and "give --resume to go on with it" in err and out.read_bytes() == whole
    code, printed, err = run(*command, "--resume")
    assert (code, printed) == (0, "") and "3 of 3 recordings are in" in err and out.read_bytes() == whole

    first, second, _ = whole.splitlines(keepends=True)
    marked = first.replace(b"{", b'{"kept": true, ', 1)
    out.write_bytes(marked + second[:40])  # killed while it wrote
    code, _, err = run(*command, "--resume")
    assert code == 0 and "1 of 3 recordings are in" in err
    found = results(out)
    assert out.read_bytes().startswith(marked) and len(found) == 3
    one = (verb, "--model", model, audio / "1.wav", "--format", "json")
    assert found[str(audio / "1.wav")]["language"] == json.loads(run(*one)[1])["language"]


@pytest.mark.parametrize("content", ['{"text": "a"}\n', "notes\n", '["audio"]\n', "\xff\n"])
def test_a_file_of_something_else_is_left_alone(
    run: Run, content: str, model: Path, audio: Path, tmp_path: Path
) -> None:
    out = tmp_path / "notes.jsonl"
    out.write_bytes(content.encode("latin-1"))
    code, _, err = run("identify", "--model", model, audio, "--format", "json", "--out", out, "--resume")
    assert code == 1 and "line 1: not a result of ours" in err
    assert out.read_bytes() == content.encode("latin-1")


def test_a_folder_is_gone_on_with(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    for verb, suffix in (("transcribe", "txt"), ("encode", "safetensors")):
        out = tmp_path / verb
        (out / f"1.{suffix}").parent.mkdir()
        (out / f"1.{suffix}").write_text("as it was", encoding="utf-8")
        code, printed, err = run(verb, "--model", model, audio, "--out", out, "--resume")
        assert code == 0 and "1 of 3 recordings are in" in err
        assert printed.split() == [str(out / f"{number}.{suffix}") for number in (0, 2)]
        assert (out / f"1.{suffix}").read_text(encoding="utf-8") == "as it was"
        assert run(verb, "--model", model, audio, "--out", out)[0] == 0
        assert (out / f"1.{suffix}").read_bytes() != b"as it was"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["transcribe", "--resume"], "add --out"),
        (["transcribe", "--out", "all.jsonl"], "--format json"),
        (["identify", "--out", "folder"], "name it FILE.jsonl"),
        (["transcribe", "--stream", "--resume"], "leave out --out, --resume"),
    ],
)
def test_what_does_not_go_together(run: Run, model: Path, audio: Path, arguments: list[str], said: str) -> None:
    verb, *options = arguments
    code, out, err = run(verb, "--model", model, audio, *options)
    assert (code, out) == (2, "") and said in " ".join(err.split())
