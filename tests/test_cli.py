"""The command line as a person meets it: what it prints where, and what it says when something is wrong."""

import errno
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile as sf
import torch
import yaml
from rich.console import Console

import isogloss
from commands import Run
from isogloss import cli
from isogloss.audio import sources
from isogloss.cli import data, doctor, learn
from isogloss.cli.recordings import find_recordings
from isogloss.data.recipes import all_corpora
from isogloss.encoders.presets import preset
from isogloss.encoders.text import TextEncoderConfig
from isogloss.evaluation.results import Evaluation
from isogloss.model.folder import save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from small_models import sound, streaming

VERBS = [
    command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback
]


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """The command line as a process of its own; Ctrl-C stops it also where the tests run in the background."""
    command = [sys.executable, "-m", "isogloss", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    obey = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, text=True, env=environment, preexec_fn=obey, **pipes)


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recordings, one of them deeper down."""
    folder = tmp_path_factory.mktemp("audio")
    (folder / "deeper").mkdir()
    sf.write(folder / "one.wav", sound(3, seed=1), 16000)
    sf.write(folder / "deeper/two.flac", sound(2, seed=2), 16000)
    return folder


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's own speech: twelve clips in two languages, with transcripts."""
    folder = tmp_path_factory.mktemp("own")
    for number in range(12):
        place = folder / ("ro" if number % 2 else "ru") / f"{number:02d}.wav"
        place.parent.mkdir(exist_ok=True)
        sf.write(place, sound(1.5, seed=number), 16000)
        place.with_suffix(".txt").write_text(
            "abc de"[: 2 + number % 4] + "abcde"[number % 5], encoding="utf-8"
        )
    return folder


# --- help ---


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from isogloss.cli import run\n"
        f"codes = [run(a) for a in ([], ['--help'], ['version'], *([v, '--help'] for v in {VERBS}))]\n"
        "heavy = {'torch', 'numpy', 'lhotse', 'scipy', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "print(codes, heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"{[2, *[0] * (len(VERBS) + 2)]} set()"


def test_every_verb_is_there_and_says_what_it_does(run: Run) -> None:
    order = "corpora methods prepare pack attach inspect import pull export train finetune label lm quantise evaluate"
    order += " probe"
    order += " demo transcribe identify encode embed search serve doctor version"
    assert order.split() == VERBS
    shown = run("--help")[1]
    for verb in VERBS:
        line = next(line for line in shown.splitlines() if line.split()[:1] == [verb])
        assert len(line.split()) > 3 and not line.endswith("..."), line


def test_version(run: Run) -> None:
    assert run("version") == (0, f"{isogloss.__version__}\n", "")


@pytest.mark.parametrize(("typed", "meant"), [("pretrian", "train"), ("transcibe", "transcribe")])
def test_unknown_verb(run: Run, typed: str, meant: str) -> None:
    code, out, err = run(typed)
    assert (code, out) == (2, "")
    assert typed in err and f"'{meant}'" in err


@pytest.mark.parametrize(
    "arguments", [["train", "usm-tiny"], ["transcribe", "--model"], ["doctor", "--fast"]]
)
def test_usage_errors_exit_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and "Error:" in err


def test_defaults_are_those_of_the_functions() -> None:
    from isogloss.cli.demo import run_demo
    from isogloss.data.prepare import prepare
    from isogloss.evaluation.evaluate import evaluate

    for verb, function in ((data.prepare, prepare), (learn.evaluate, evaluate), (learn.demo, run_demo)):
        theirs = inspect.signature(function).parameters
        for name, parameter in inspect.signature(verb).parameters.items():
            if name in theirs and theirs[name].default is not inspect.Parameter.empty and name != "device":
                assert parameter.default == theirs[name].default or not (
                    parameter.default or theirs[name].default
                ), f"{verb.__name__} --{name}"


def test_corpora_are_listed_whole(run: Run) -> None:
    code, out, _ = run("corpora")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")]
    assert set(all_corpora()) <= set(names)
    assert "…" not in out


# --- what the user can mend ---


def mendable() -> list[tuple[list[str], str]]:
    """(arguments, what the sentence must hold)."""
    return [
        (["prepare", "tuxpain", "--out", "NEW"], '"tuxpaint"'),
        (["prepare", "fleurs", "--out", "NEW"], "fleurs=FOLDER"),
        (["prepare", "AUDIO", "--out", "NEW", "--language", "Roumenglish"], "Roumenglish"),
        (["prepare", "AUDIO", "--out", "NEW"], "--language"),
        (["prepare", "AUDIO", "--out", "MODEL", "--language", "ro"], "--overwrite"),
        (["inspect", "AUDIO"], "isogloss prepare"),
        (["train", "usm-tny", "--out", "NEW"], '"usm-tiny"'),
        (["train", "usm-tiny", "stages.0.stepps=5", "--out", "NEW"], '"steps"'),
        (["train", "usm-tiny", "seed", "--out", "NEW"], "key=value"),
        (["train", "usm-tiny", "model.encoder=tinny", "--out", "NEW"], '"tiny"'),
        (["train", "usm-tiny", "data.folders=[NEW]", "--out", "RUN"], "NEW"),
        (["transcribe", "--model", "NEW", "AUDIO"], "config.json"),
        (["transcribe", "--model", "AUDIO", "AUDIO"], "config.json"),
        (["transcribe", "--model", "MODEL", "NEW"], "does not exist"),
        (["transcribe", "--model", "MODEL", "--language", "de", "AUDIO"], "It writes: ro, ru"),
        (["transcribe", "--model", "MODEL", "--language", "klingonish", "AUDIO"], "klingonish"),
        (["transcribe", "--model", "MODEL", "--device", "gpu", "AUDIO"], '"gpu"'),
        (["transcribe", "--model", "MODEL", "MODEL"], "no audio"),
        (["transcribe", "--model", "MODEL", "--adapter", "MODEL", "AUDIO"], "no adapter of"),
        (["transcribe", "--model", "MODEL", "--adapter", "NEW", "AUDIO"], "config.json"),
        (["transcribe", "--model", "MODEL", "--decoder", "transducer", "--beam", "4", "AUDIO"], "It has: ctc"),
        (["finetune", "NEW", "--data", "AUDIO", "--out", "RUN"], "config.json"),
        (["finetune", "MODEL", "--data", "AUDIO", "--out", "RUN"], "isogloss prepare"),
        (["identify", "--model", "MODEL", "-", "-"], "once"),
        (["encode", "--model", "MODEL", "--layer", "9", "AUDIO", "--out", "NEW"], "from 0 to 2"),
        (["evaluate", "--model", "MODEL", "--data", "AUDIO"], "isogloss prepare"),
        (["evaluate", "--model", "NEW", "--data", "AUDIO"], "config.json"),
        (["evaluate", "--model", "MODEL", "--data", "AUDIO", "--task", "recal"], "Tasks: calibration, "),
        (["evaluate", "--model", "MODEL", "--data", "AUDIO", "retrieval.pool"], "is not an override"),
        (["evaluate", "--model", "MODEL", "--data", "AUDIO", "--json", "AUDIO"], "is a folder; name a file in it"),
    ]


@pytest.mark.parametrize(("arguments", "said"), mendable(), ids=range(len(mendable())))
def test_one_sentence_and_exit_1(
    run: Run, model: Path, audio: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    words = {
        "MODEL": str(model),
        "AUDIO": str(audio),
        "NEW": str(tmp_path / "NEW"),
        "RUN": str(tmp_path / "RUN"),
    }
    code, out, err = run(*[words.get(a, a.replace("[NEW]", f"[{words['NEW']}]")) for a in arguments])
    assert (code, out) == (1, "")
    assert said in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


def raising(error: BaseException) -> Callable[[], Any]:
    def examine() -> None:
        raise error

    return examine


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("by zero"), 70, "--debug"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/there/file"),
            1,
            "The disk is full while writing",
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "The disk is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/there/file"),
            1,
            "/there/file: Permission denied",
        ),
        (MemoryError(), 1, "memory"),
        (RuntimeError("[gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:1"), 1, "Another process of this run"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried…"), 1, "batch_seconds"),
        (KeyboardInterrupt(), 130, "Stopped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_funnel(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr(doctor, "examine", raising(error))
    found, out, err = run("doctor")
    assert (found, out) == (code, "")
    assert said in err and len(err.strip().splitlines()) == 1


def test_debug_anywhere_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", raising(ZeroDivisionError("by zero")))
    for arguments in (["--debug", "doctor"], ["doctor", "--debug"]):
        code, _, err = run(*arguments)
        assert code == 70 and "Traceback" in err and "by zero" in err


def test_doctor_names_packages_that_are_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(doctor, "STACK", ("numpy", "no-such-package"))
    code, out, err = run("doctor")
    assert code == 1 and "Traceback" not in err
    assert re.search(r"no-such-package +not installed: pip install -U isogloss", out)
    assert re.search(r"av +cannot be imported \(.*\): pip install -U isogloss", out)


def test_doctor_finds_problems(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("audio", "pip install x[y]", "problem")])
    code, out, _ = run("doctor")
    assert code == 1 and "pip install x[y]" in out


def test_doctor_examines_this_machine(run: Run) -> None:
    code, out, err = run("doctor")
    assert code == 0, out
    assert err == ""
    for word in (torch.__version__, "cores", "bf16", "GiB", "Opus", "cache"):
        assert word in out


# --- models at work ---


def test_transcribe_one(run: Run, model: Path, audio: Path) -> None:
    expected = isogloss.load(model).transcribe(audio / "one.wav").text
    assert expected.strip()
    assert run("transcribe", "--model", model, audio / "one.wav") == (0, f"{expected}\n", "")


def test_transcribe_a_folder(run: Run, model: Path, audio: Path) -> None:
    _, out, _ = run("transcribe", "--model", model, audio)
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [str(audio / "deeper/two.flac"), str(audio / "one.wav")]


def test_transcribe_formats(run: Run, model: Path, audio: Path) -> None:
    loaded = isogloss.load(model)
    _, out, _ = run("transcribe", "--model", model, audio, "--format", "json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [item["text"] for item in found] == [loaded.transcribe(item["audio"]).text for item in found]
    _, out, _ = run("transcribe", "--model", model, audio, "--format", "tsv")
    heading, *rows = [line.split("\t") for line in out.splitlines()]
    assert heading == ["audio", "start", "end", "language", "text"]
    assert rows and all(len(row) == 5 for row in rows)
    _, out, _ = run("transcribe", "--model", model, audio, "--format", "ctm")
    assert [line.split()[1] for line in out.splitlines()] == ["1"] * sum(len(item["text"].split()) for item in found)
    for format in ("srt", "textgrid"):
        code, _, err = run("transcribe", "--model", model, audio, "--format", format)
        assert code == 2 and "--out" in err
    _, out, _ = run("transcribe", "--model", model, audio / "one.wav", "--nbest", 3, "--format", "json")
    assert len(json.loads(out)["segments"][0]["alternatives"]) == 3


def test_transcribe_into_a_folder(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    code, out, _ = run("transcribe", "--model", model, audio, "--format", "vtt", "--out", tmp_path)
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert code == 0
    assert written == [tmp_path / "deeper/two.vtt", tmp_path / "one.vtt"]
    assert sorted(out.split()) == [str(path) for path in written]
    assert all(path.read_text(encoding="utf-8").startswith("WEBVTT\n\n") for path in written)


def test_results_never_share_a_file(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "one.flac", sound(1), 16000)
    pair = [audio / "one.wav", tmp_path / "one.flac"]
    code, _, err = run("transcribe", "--model", model, *pair, "--out", tmp_path / "out")
    assert code == 1 and "one.wav" in err and "one.flac" in err
    assert not (tmp_path / "out").exists()


def test_a_language_told_limits_the_symbols(run: Run, model: Path, audio: Path) -> None:
    for tag in ("ro", "Romanian", "ron"):
        _, out, _ = run("transcribe", "--model", model, "--format", "json", "--language", tag, audio)
        for line in out.splitlines():
            assert json.loads(line)["language"] == "ro"
            assert set(json.loads(line)["text"]) <= set(" ab")


def test_standard_input(run: Run, model: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected, _ = run("transcribe", "--model", model, audio / "one.wav")
    content = io.BytesIO((audio / "one.wav").read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
    assert run("transcribe", "--model", model, "-") == (0, expected, "")


def test_broken_recordings_among_good_ones(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "noise.ogg").write_bytes(b"no audio at all" * 100)
    (tmp_path / "cut.flac").write_bytes((audio / "deeper/two.flac").read_bytes()[:9000])
    sf.write(tmp_path / "good.wav", sound(1), 16000)
    code, out, err = run(
        "transcribe", "--model", model, tmp_path, audio / "one.wav", tmp_path / "missing.wav"
    )
    assert code == 1
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [str(tmp_path / "good.wav"), str(audio / "one.wav")]
    for name in ("empty.wav", "noise.ogg", "cut.flac", "missing.wav", "4 of 6"):
        assert name in err
    assert len(err.strip().splitlines()) == 5


def test_where_nobody_speaks_nothing_is_written_and_a_remark_says_so(run: Run, model: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "quiet.wav", np.zeros(2 * 16000), 16000)
    remark = f"No speech found in {tmp_path / 'quiet.wav'}.\n"
    assert run("transcribe", "--model", model, tmp_path / "quiet.wav") == (0, "\n", remark)
    code, out, err = run("transcribe", "--model", model, tmp_path / "quiet.wav", "--format", "json")
    found = json.loads(out)
    assert (code, err) == (0, remark) and found["no_speech"] > 0.9 and found["language"] is None
    code, out, err = run("transcribe", "--model", model, tmp_path / "quiet.wav", "--format", "json", "--no-vad")
    assert (code, err) == (0, "") and json.loads(out)["no_speech"] is None and json.loads(out)["language"]
    assert run("identify", "--model", model, tmp_path / "quiet.wav") == (0, "no speech found\n", "")
    code, out, err = run("identify", "--model", model, tmp_path / "quiet.wav", "--format", "tsv")
    assert (code, out, err) == (0, "audio\tlanguage\tprobability\n", remark)
    code, out, _ = run("identify", "--model", model, tmp_path / "quiet.wav", "--no-vad")
    assert code == 0 and "%" in out


def test_each_channel_of_a_pipe_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.drain, "__defaults__", (sources.Limits(bytes=1 << 20),))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=open("/dev/zero", "rb")))  # noqa: SIM115 - closed below
    (recording,) = find_recordings(["-"], "each")
    sys.stdin.buffer.close()
    assert 1 << 20 < len(recording.source) <= 2 << 20


def test_one_channel_each_or_their_mean(run: Run, model: Path, tmp_path: Path) -> None:
    left, right = sound(2), sound(2, 1)
    sf.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 16000)
    loaded = isogloss.load(model)
    mono = [loaded.transcribe(tmp_path / "call.wav", channel=channel).text for channel in (1, 2, "mix")]
    assert len(set(mono)) == 3
    for channel, text in zip(("1", "2", "mix"), mono, strict=True):
        assert run("transcribe", "--model", model, tmp_path / "call.wav", "--channel", channel)[:2] == (0, f"{text}\n")
    code, out, _ = run("transcribe", "--model", model, tmp_path / "call.wav", "--channel", "each")
    names = [f"{tmp_path / 'call.wav'} channel {channel}" for channel in (1, 2)]
    assert (code, out) == (0, "".join(f"{name}\t{text}\n" for name, text in zip(names, mono, strict=False)))
    folder = tmp_path / "out"
    run("transcribe", "--model", model, tmp_path / "call.wav", "--channel", "each", "--out", folder)
    assert sorted(file.name for file in folder.iterdir()) == ["call-1.txt", "call-2.txt"]
    code, out, _ = run("identify", "--model", model, tmp_path / "call.wav", "--channel", "each", "--format", "json")
    assert [json.loads(line)["audio"] for line in out.splitlines()] == names
    code, _, err = run("transcribe", "--model", model, tmp_path / "call.wav", "--channel", "3")
    assert code == 1 and "no channel 3" in err
    code, _, err = run("transcribe", "--model", model, tmp_path / "call.wav", "--channel", "left")
    assert code == 1 and '"left" is no channel' in err


def test_each_channel_of_standard_input(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sf.write(tmp_path / "call.wav", np.stack([sound(2), sound(2, 1)], axis=1), 16000)
    content = io.BytesIO((tmp_path / "call.wav").read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
    code, out, _ = run("transcribe", "--model", model, "-", "--channel", "each")
    assert code == 0 and [line.split("\t")[0] for line in out.splitlines()] == [
        "standard input channel 1", "standard input channel 2",
    ]  # fmt: skip


def test_progress_on_a_terminal_leaves_the_results_alone(
    run: Run, model: Path, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is drawn on standard error; standard output holds what it holds without one."""
    _, expected, silent = run("transcribe", "--model", model, audio)
    assert silent == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take standard error for a terminal
    monkeypatch.setenv("TERM", "xterm")
    _, out, err = run("transcribe", "--model", model, audio)
    assert out == expected
    assert "of audio" in err and "left" in err


def test_identify(run: Run, model: Path, audio: Path) -> None:
    expected = isogloss.load(model).identify(audio / "one.wav")
    _, out, _ = run("identify", "--model", model, audio / "one.wav")
    assert out.split()[0] == expected.language
    _, out, _ = run("identify", "--model", model, audio, "--format", "json")
    found = {item["audio"]: item["probabilities"] for item in map(json.loads, out.splitlines())}
    assert found[str(audio / "one.wav")] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize("layer", [None, 0, 1])
def test_encode(run: Run, model: Path, audio: Path, tmp_path: Path, layer: int | None) -> None:
    chosen = [] if layer is None else ["--layer", layer]
    code, out, _ = run("encode", "--model", model, audio, "--out", tmp_path, *chosen)
    assert code == 0 and len(out.split()) == 2
    states = safetensors.torch.load_file(tmp_path / "one.safetensors")["states"]
    expected = isogloss.load(model).encode(audio / "one.wav", layer=layer)
    assert states.shape == (75, 64)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)
    with safetensors.safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata()["frame_seconds"] == "0.04"


def test_encode_for_every_log_mel_frame(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    code, _, _ = run("encode", "--model", model, audio, "--out", tmp_path, "--frame-ms", 10)
    with safetensors.safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert code == 0 and file.metadata()["frame_seconds"] == "0.01"
        assert torch.equal(file.get_tensor("states"), isogloss.load(model).encode(audio / "one.wav", frame_ms=10))
    code, _, said = run("encode", "--model", model, audio, "--out", tmp_path, "--frame-ms", 15)
    assert code == 1 and "frame_ms 15 is impossible: states of this model last 40 ms" in said


# --- from one's own speech to figures ---


def tiny_recipe(path: Path, corpus: Path, steps: int) -> Path:
    stage = {
        "name": "finetune",
        "steps": steps,
        "seconds": {"paired": 6},
        "objectives": [{"name": "recognition"}],
        "save_every": 2,
    }
    recipe = {
        "name": "own",
        "precision": "fp32",
        "device": "cpu",
        "model": {"encoder": "test", "tokenizer": {"kind": "characters", "unknown": True}},
        "data": {"folders": [str(corpus)]},
        "stages": [stage],
    }
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "own"
    assert cli.run(["prepare", str(spoken), "--out", str(folder), "--dev", "0.2", "--test", "0.3"]) == 0
    return folder


def test_prepare_inspect_train_evaluate(run: Run, corpus: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", corpus, "--json", tmp_path / "found.json")
    assert code == 0 and "ro" in out
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["total"]["clips"] == 12
    recipe = tiny_recipe(tmp_path / "own.yaml", corpus, steps=9)
    code, out, err = run("train", recipe, "stages.0.steps=2", "--out", tmp_path / "run")
    assert code == 0, err
    trained = Path(out.strip())
    assert trained == tmp_path / "run/model"
    code, out, err = run(
        "evaluate", "--model", trained, "--data", corpus, "--json", tmp_path / "figures.json"
    )
    assert code == 0, err
    assert "CER" in out
    found = Evaluation.parse(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")), "figures.json")
    assert {row.keys.get("language") for row in found.table("recognition").rows} <= {"ro", "ru", None}
    assert "Not measured: retrieval. The model has no text encoder" in out
    measured = ("evaluate", "--model", trained, "--data", corpus)
    code, _, err = run(*measured, "--report", tmp_path)
    assert code == 1 and "is a folder; name a file in it" in err
    code, _, err = run(*measured, "--report", tmp_path / "page.html", "--json", tmp_path / "page.json")
    assert code == 2 and "choose another" in err
    code, _, err = run("quantise", trained, "--out", tmp_path / "elsewhere/small")
    assert code == 0, err
    moved = ("evaluate", "--model", tmp_path / "elsewhere/small", "--data", corpus)
    code, _, err = run(*moved, "--report", tmp_path / "page.html")
    assert code == 1 and "is no run; use --json" in err and not (tmp_path / "page.html").exists()


def test_finetune_says_what_it_chose_and_its_adapter_is_used(
    run: Run, model: Path, corpus: Path, audio: Path, tmp_path: Path
) -> None:
    code, out, err = run("finetune", model, "--data", corpus, "--out", tmp_path / "run", "--minutes", 0.1)
    assert code == 0, err
    adapter = Path(out.strip())
    assert adapter == tmp_path / "run/model"
    assert "of transcribed speech in" in err and "only adapters and heads are trained" in err
    assert (adapter / "model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size / 2
    expected = isogloss.load(model, adapters=[adapter]).transcribe(audio / "one.wav").text
    assert run("transcribe", "--model", model, "--adapter", adapter, audio / "one.wav")[1].strip() == expected
    code, _, err = run("evaluate", "--model", adapter, "--data", corpus)
    assert code == 0, err


# --- stopping ---


def reading(fifo: Path, process: "subprocess.Popen[str]") -> int:
    """Wait until the process opens the pipe; the descriptor keeps it waiting there."""
    for _ in range(600):
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
    raise AssertionError(f"{fifo} was never read")


STOPPED_VERBS = [
    pytest.param(["prepare", "table.csv", "--out", "new"], "table.csv", id="prepare"),
    pytest.param(["inspect", "corpus"], "corpus/corpus.json", id="inspect"),
    pytest.param(["transcribe", "--model", "broken", "a.wav"], "broken/config.json", id="transcribe"),
    *[
        pytest.param(arguments, fifo, id=arguments[0], marks=pytest.mark.slow)
        for arguments, fifo in (
            (["identify", "--model", "broken", "a.wav"], "broken/config.json"),
            (["encode", "--model", "broken", "a.wav", "--out", "new"], "broken/config.json"),
            (["evaluate", "--model", "broken", "--data", "corpus"], "broken/config.json"),
            (["quantise", "broken", "--out", "new"], "broken/config.json"),
            (["demo", "--data", "table.csv", "--out", "new"], "table.csv"),
        )
    ],
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(("arguments", "fifo"), STOPPED_VERBS)
def test_ctrl_c_in_every_verb(tmp_path: Path, corpus: Path, arguments: list[str], fifo: str) -> None:
    pipe = tmp_path / fifo
    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "broken").mkdir()
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    before = sorted(tmp_path.rglob("*"))
    process = start(*arguments, cwd=tmp_path)
    held = reading(pipe, process)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    os.close(held)  # a signal that came just before it began to read is seen when that ends
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped; nothing was left half-written." in err and "Traceback" not in err
    after = [path for path in sorted(tmp_path.rglob("*")) if path.relative_to(tmp_path).parts[0] != "new"]
    assert after == before
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_ctrl_c_while_training(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("train", tiny_recipe(tmp_path / "own.yaml", corpus, steps=10_000), "--out", folder)
    for _ in range(600):
        if (folder / "log.jsonl").exists() and '"step"' in (folder / "log.jsonl").read_text(encoding="utf-8"):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped" in err and "--resume to go on from " in err and "Traceback" not in err
    assert not (folder / "model").exists() and not list(folder.rglob(".tmp-*"))


def test_a_closed_pipe_is_no_error() -> None:
    process = start("corpora")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        process = start("version", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "The disk is full" in err and "Traceback" not in err


@pytest.fixture(scope="module")
def streaming_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that can stream and says something of everything."""
    folder = tmp_path_factory.mktemp("streaming") / "model"
    save_model(streaming(), folder, "# A card\n")
    return folder


def pipe(data: bytes, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "isogloss", "transcribe", "--stream", *arguments]
    process = subprocess.run(command, input=data, capture_output=True, check=False)
    return process.returncode, process.stdout.decode(), process.stderr.decode()


def test_transcribe_stream_reads_raw_samples_from_a_pipe(streaming_model: Path) -> None:
    data = (sound(3) * 32767).astype("<i2").tobytes()
    code, out, err = pipe(data, "-m", str(streaming_model), "-", "--format", "json")
    assert code == 0, err
    words = [json.loads(line) for line in out.splitlines()]
    assert words and all(0 <= word["start"] < word["end"] <= 3 for word in words)
    beside = np.stack([sound(3, seed=1), sound(3)], axis=1)
    stereo = (beside * 32767).astype("<i2").tobytes()
    code, second, _ = pipe(stereo, "-m", str(streaming_model), "-", "--channels", "2", "--channel", "2")
    assert code == 0 and second.split() == [word["text"] for word in words]
    swapped = (sound(3) * 32767).astype(">i2").tobytes()
    code, plain, _ = pipe(swapped, "-m", str(streaming_model), "-", "--encoding", "s16be")
    assert code == 0 and plain.split() == [word["text"] for word in words]


def test_transcribe_stream_of_a_model_that_wants_the_whole_says_so_once(model: Path) -> None:
    code, out, err = pipe((sound(6) * 32767).astype("<i2").tobytes(), "-m", str(model), "-", "--language", "ro")
    assert code == 0 and out.split()
    assert err.count("cannot stream exactly: it normalises features by the whole utterance") == 1
    assert "is written at most 3.0 s after it was made" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.wav"], "one source"),
        (["-", "--format", "srt"], "text, json, tsv"),
        (["-", "--encoding", "s16"], "Did you mean"),
        (["-", "--rate", "1"], "1 Hz"),
        (["-", "--channel", "2"], "no channel 2"),
        (["microphone", "--rate", "8000"], "leave them out"),
    ],
)
def test_transcribe_stream_says_what_it_cannot(arguments: list[str], said: str, streaming_model: Path) -> None:
    code, _, err = pipe(b"", "-m", str(streaming_model), *arguments)
    assert code == 1 and said in err and "Traceback" not in err


def test_lm_and_a_search_with_it(run: Run, model: Path, audio: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ab cd\nba dc\n" * 3 + "abba\nacdc\n", encoding="utf-8")
    code, out, err = run("lm", text, "--model", model, "--language", "ro", "--out", tmp_path / "lm", "--order", 3)
    assert code == 0 and out.strip() == str(tmp_path / "lm") and "sentences: 4" in err
    code, out, err = run("transcribe", audio, "--model", model, "--lm", tmp_path / "lm", "--hotwords", "abba")
    assert code == 0 and out.strip(), err
    code, _, err = run("transcribe", audio, "--model", model, "--lm", tmp_path)
    assert code == 1 and "isogloss lm" in err
    code, _, err = run("transcribe", "-", "--model", model, "--stream", "--lm", tmp_path / "lm")
    assert code == 2 and "frame by frame" in err
    for given in (("--out", tmp_path / "texts"), ("--no-vad",), ("--channel", "each")):
        assert run("transcribe", "-", "--model", model, "--stream", *given)[0] == 2
    for verb in (("lm", text, "--language", "ro", "--model", model), ("quantise", model)):
        code, _, err = run(*verb, "--out", tmp_path)
        assert code == 1 and "holds something else" in err and text.exists()
    code, _, err = run("quantise", model, "--out", model)
    assert code == 1 and "is the model itself" in err and (model / "model.safetensors").exists()
    code, _, err = run("lm", "--model", model, "--out", tmp_path / "none")
    assert code == 1 and "no text" in err


# --- one space ---


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that reads text too."""
    folder = tmp_path_factory.mktemp("models") / "space"
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=preset("test"), text=TextEncoderConfig(entry=1), text_languages=("ro",), alphabets={"ro": (1,)}
    )
    save_model(Model(config, build_tokenizer(CharactersConfig(), ["abcde "])), folder, "# A card\n")
    return folder


def test_what_was_embedded_is_found_again(run: Run, space: Path, audio: Path, tmp_path: Path) -> None:
    sentences = tmp_path / "ro.txt"
    sentences.write_text("a bad bed\nabc\nabc\ndeed\n", encoding="utf-8")
    index = tmp_path / "index"
    options = ("--text", sentences, "--language", "ro", "--model", space, "--out", index)
    code, out, _ = run("embed", audio, *options)
    assert code == 0 and "6 entries" in out
    code, out, _ = run("search", index, audio / "one.wav", "--most", 9, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found[0]["name"].endswith("one.wav") and found[0]["score"] == pytest.approx(1, abs=1e-3)
    assert len(found) == 5  # the sentence that is there twice is one
    code, out, _ = run("search", index, "deed", "--language", "ro", "--most", 1)
    assert code == 0 and out.startswith("1.000  deed  [ro]")
    code, out, _ = run("search", index, "deed", "--language", "ro", "--only", "speech")
    assert code == 0 and len(out.splitlines()) == 2 and "one.wav  0.00 – 3.00 s" in out


def test_an_index_tells_what_is_wrong(run: Run, model: Path, space: Path, audio: Path, tmp_path: Path) -> None:
    code, _, err = run("embed", "--model", space, "--out", tmp_path / "none")
    assert code == 1 and "nothing to index" in err and not (tmp_path / "none").exists()
    code, _, err = run("search", audio, "abc")
    assert code == 1 and "is no index" in err
    (tmp_path / "broken.wav").write_bytes(b"nothing")
    index = tmp_path / "index"
    code, out, err = run("embed", audio, tmp_path / "broken.wav", "--model", space, "--out", index)
    assert code == 1 and "1 of 3 recordings could not be read" in err and "2 entries" in out
    code, _, err = run("search", index, "abc", "--model", model)
    assert code == 1 and "was made by another model" in err
    code, _, err = run("search", index, "abc", "--language", "fr")
    assert code == 1 and 'does not know the language "fr"' in err
    for nothing in ("", " ?! "):
        code, _, err = run("search", index, nothing)
        assert code == 1 and "empty after normalisation" in err
    for query, told in (("nofile.wav", "nofile.wav does not exist"), ("abc " * 200, "")):
        code, _, err = run("search", index, query, "--language", "ro")
        assert (code, told in err) == (bool(told), True), err
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/notes.txt").write_text("mine")
    for out in (tmp_path / "precious", tmp_path / "precious/notes.txt", tmp_path):
        code, _, err = run("embed", audio, "--model", space, "--out", out)
        assert code == 1 and "holds something else; choose another folder" in err
    assert (tmp_path / "precious/notes.txt").read_text() == "mine"
    named = tmp_path / "ro.txt"
    named.write_text("abc\n", encoding="utf-8")
    code, out, err = run("embed", "--model", space, "--text", named, "--out", tmp_path / "named")
    assert code == 0 and "1 entry" in out, err
    sf.write(tmp_path / "silence.wav", torch.zeros(40 * 16000).numpy(), 16000)
    code, out, err = run("search", index, tmp_path / "silence.wav", "--format", "json")
    assert code == 1 and "Nothing is said in" in err and not out
    code, _, err = run("embed", audio, "--model", model, "--out", tmp_path / "other", "--text", audio / "no.txt")
    assert code == 1


def test_counting_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    shown = Console(file=screen, force_terminal=True, width=120, stderr=True)
    monkeypatch.setattr(cli.terminal, "remarks", lambda: shown)
    with cli.terminal.counting("Evaluating") as told:
        for done in (10, 20):
            told("clips, recognition", done, 4000)
            time.sleep(0.1)
        told("clips, recognition", 30, 4000)
    assert re.search(r"30 of 4000 clips, recognition, \d+:\d\d:\d\d left", screen.getvalue())
