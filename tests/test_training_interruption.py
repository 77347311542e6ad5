"""What ends a run too early: a scheduler, another run in its folder, a full disk, no memory, a killed process."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.objectives.recognition import Recognition
from isogloss.training import checkpoint as checkpoints
from isogloss.training import lock
from isogloss.training.checkpoint import newest_checkpoint
from isogloss.training.interruption import Interrupted, when_terminated
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes
from isogloss.training.lock import alone_in
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.run import RECIPE
from isogloss.training.stage_run import StageRun
from isogloss.training.trainer import train
from launched import children, finish, start, steps, wait_for, weights
from small_models import small_recipe

ENDLESS = 100_000


@pytest.fixture
def recipe(letters: Path) -> dict[str, Any]:
    """Eight steps of two batches, and an average of the weights."""
    stage = {
        "name": "finetune",
        "steps": 8,
        "seconds": {"paired": 16},
        "batch_seconds": 8,
        "objectives": [{"name": "recognition"}],
        "optimizer": {"ema": 0.9},
        "best": "last",
        "evaluate_every": 4,
        "save_every": 2,
    }
    return small_recipe(letters, [stage])


def endless(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with more steps than anybody waits for, and no checkpoint but that of the end."""
    longer = {"steps": ENDLESS, "save_every": ENDLESS, "evaluate_every": ENDLESS}
    return recipe | {"stages": [recipe["stages"][0] | longer]}


def run_here(recipe: dict[str, Any], folder: Path, resume: bool = False, console: Console | None = None) -> Path:
    return train(Recipe.parse(recipe, "test"), folder, resume=resume, console=console or Console(quiet=True))


def after_step(patch: pytest.MonkeyPatch, step: int, do: Callable[[], None]) -> None:
    """Do something once, at the end of a step."""
    original = StageRun._step

    def both(run: StageRun) -> None:
        original(run)
        if run.step == step:
            do()

    patch.setattr(StageRun, "_step", both)


def assert_same(folder: Path, other: Path) -> None:
    """The same log and the same weights, to the bit."""
    assert steps(folder) == steps(other)
    mine, theirs = weights(folder / "model"), weights(other / "model")
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_sigterm_saves_at_the_end_of_the_step(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(recipe, tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted) as caught:
            run_here(recipe, tmp_path / "cut")
    assert caught.value.step == 3 and caught.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == before
    run_here(recipe, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one", "two"])
def test_a_command_that_is_terminated_ends_well_and_says_how_to_go_on(
    recipe: dict[str, Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    process = start(endless(recipe), tmp_path / "run", *options)
    wait_for(process, tmp_path / "run", 2)
    os.killpg(process.pid, signal.SIGTERM)  # as most schedulers do: those that read hear it too
    said = finish(process)
    found, taken = newest_checkpoint(tmp_path / "run"), read_log(tmp_path / "run")
    assert found is not None and found.state["step"] == taken[-1]["step"]
    sentence = f"--resume to go on from step {found.state['step']}, where it was saved last"
    assert sentence in " ".join(said.split())
    assert not (tmp_path / "run/model").exists()


@pytest.mark.slow
def test_processes_of_torchrun_agree_on_the_step_though_one_alone_is_asked(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    process = start(endless(recipe), tmp_path / "run", processes=2)
    wait_for(process, tmp_path / "run", 2)
    os.kill(children(process)[-1], signal.SIGTERM)
    said = " ".join(finish(process).split())
    found = newest_checkpoint(tmp_path / "run")
    assert found is not None and said.count(f"go on from step {found.state['step']}, where it was saved last") == 1


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_anew_and_the_run_goes_on(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"][0]["steps"] = 20
    run_here(recipe, tmp_path / "whole")
    process = start(recipe, tmp_path / "run", processes=2, launcher=("--max-restarts=1",))
    wait_for(process, tmp_path / "run", 3)
    os.kill(children(process)[-1], signal.SIGKILL)
    said = " ".join(finish(process).split())
    assert "all were started anew: going on from step" in said
    taken = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    alone = [record["loss"] for record in read_log(tmp_path / "whole") if record["event"] == "step"]
    assert [record["step"] for record in taken] == list(range(1, 21))
    assert [record["loss"] for record in taken] == pytest.approx(alone, rel=1e-3)


def test_two_runs_do_not_share_a_folder(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    said = f"is being trained by process {os.getpid()} on .*another --out"
    with alone_in(tmp_path / "run"), pytest.raises(IsoglossError, match=said):
        run_here(recipe, tmp_path / "run")
    with alone_in(tmp_path / "run"):
        (tmp_path / "run/log.jsonl").touch()
    assert (tmp_path / "run").is_dir()
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "other"):
        print(1 / 0)
    assert not (tmp_path / "other").exists()


def test_no_lock_is_left_by_a_process_that_was_killed(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from isogloss.training.lock import alone_in\n"
    code += "with alone_in(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    holder.kill()
    holder.wait()
    with alone_in(tmp_path / "run"):
        assert str(holder.pid) not in (tmp_path / "run" / lock.LOCK).read_text(encoding="utf-8")


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        written = []
        write = checkpoints.write_tensors

        def full(path: Path, tensors: dict[str, torch.Tensor]) -> None:
            written.append(path)
            if len(written) == 6:  # the second file of the second checkpoint
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, tensors)

        patch.setattr(checkpoints, "write_tensors", full)
        with pytest.raises(IsoglossError, match=r"Cannot write .*step-00000004: No space left on device"):
            run_here(recipe, tmp_path / "run")
    assert [folder.name for folder in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000002"]
    with (tmp_path / "run/log.jsonl").open("a") as log:
        log.write('{"event": "step", "stage": "finet')  # a line for which there was no room either
    run_here(recipe, tmp_path / "run", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "run")


def without_memory(patch: pytest.MonkeyPatch, *calls: int) -> None:
    """A device whose memory runs out on these batches, counted from the first that is computed."""
    original, count = Recognition.forward, iter(range(10**6))

    def forward(objective: Recognition, *arguments: Any) -> Any:
        if objective.training and next(count) in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(objective, *arguments)

    patch.setattr(Recognition, "forward", forward)


@pytest.mark.parametrize("normalisation", ["utterance", "running"])
def test_a_step_that_memory_does_not_suffice_for_is_taken_again_in_smaller_batches(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalisation: str
) -> None:
    """From there on as if the run had been stopped before the step, and gone on with smaller batches."""
    recipe["model"]["features"] = {"kind": "log_mel", "normalisation": normalisation}
    console = Console(record=True, file=StringIO(), width=1000)
    with monkeypatch.context() as patch:
        without_memory(patch, 6)  # preflight 0, steps 1-2, 3-4, and the second batch of the third
        run_here(recipe, tmp_path / "run", console=console)
    said = console.export_text()
    assert "The memory of the device ran out on" in said
    assert "batch_seconds of the stage finetune is lowered to 4." in said
    assert "a step is 4 micro-batches instead of 2; after step 2" in said
    assert load_recipe(tmp_path / "run" / RECIPE).training[0].batch_seconds == 4
    with monkeypatch.context() as patch:
        after_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_here(recipe, tmp_path / "other")
    smaller = recipe | {"stages": [recipe["stages"][0] | {"batch_seconds": 4}]}
    run_here(smaller, tmp_path / "other", resume=True)
    (lowered,) = [record for record in steps(tmp_path / "run") if record["event"] == "lowered"]
    assert lowered == {"event": "lowered", "stage": "finetune", "step": 2, "batch_seconds": 4.0}
    assert [record for record in steps(tmp_path / "run") if record != lowered] == steps(tmp_path / "other")


def test_memory_that_does_not_suffice_twice_ends_the_run_with_a_sentence(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step as in any other; with less at once the run then goes on."""
    with monkeypatch.context() as patch:
        without_memory(patch, 0, 12)  # preflight; preflight again, 2-5 and 6-9 of two steps, the third of the next
        said = r"ran out on \d+ clips of up to \d\.\d s; lower stages.0.batch_seconds, which is 4, or set"
        with pytest.raises(IsoglossError, match=said):
            run_here(recipe, tmp_path / "run")
    smaller = recipe["stages"][0] | {"batch_seconds": 2}
    run_here(recipe | {"stages": [smaller], "model": recipe["model"] | {"recompute": True}}, tmp_path / "run", True)
    assert load_recipe(tmp_path / "run" / RECIPE).training[0].batch_seconds == 2
    assert [record["step"] for record in steps(tmp_path / "run") if record["event"] == "step"] == list(range(1, 9))


def test_a_run_goes_on_in_more_processes_and_says_that_its_order_changes(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe["stages"][0] |= {"seconds": {"paired": 12}, "batch_seconds": 4}
    with monkeypatch.context() as patch:
        after_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_here(recipe, tmp_path / "run")
    train_in_processes(Recipe.parse(recipe | {"device": "auto"}, "test"), tmp_path / "run", 2, resume=True)
    assert "a step is 4 micro-batches instead of 3; after step 5 clips come in another order" in " ".join(
        capfd.readouterr().err.split()
    )
    assert [record["step"] for record in steps(tmp_path / "run") if record["event"] == "step"] == list(range(1, 9))


def _asked_twice() -> None:
    """A process that is asked to end once inside, and again when it is on its way out."""
    with when_terminated(lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(7)


def _asked_late() -> None:
    with when_terminated(lambda: None):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(7)


@pytest.mark.parametrize(("work", "code"), [(_asked_twice, 7), (_asked_late, -signal.SIGTERM)])
def test_a_process_on_its_way_out_is_not_hurried(work: Callable[[], None], code: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == code
