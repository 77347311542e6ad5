"""Several training processes on one machine's CPU, started from one command.

A small model leaves most cores idle: its operations are too short to be worth splitting over threads.
Processes that each take a part of the step use them all. A cluster starts them by torchrun instead.
"""

import os
import signal
import socket
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Event, Thread

import torch
from rich.console import Console
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from isogloss.errors import IsoglossError
from isogloss.training.interruption import Interrupted, when_terminated
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train


def useful_processes(recipe: Recipe) -> int:
    """How many processes the steps of a recipe can keep busy here; 1 where there is a GPU."""
    if torch.cuda.is_available():
        return 1
    batches = min(max(stage.seconds.values()) / stage.batch_seconds for stage in recipe.training)
    return max(1, min(torch.get_num_threads(), int(batches)))


def train_in_processes(
    recipe: Recipe, run: Path, processes: int, *, resume: bool = False, minutes: float | None = None
) -> Path:
    """`train` by so many processes that share the cores; returns the model folder `run/model`.

    SIGTERM is handed on to them, and raises `Interrupted` here too once they have saved the run.
    """
    complaint: SimpleQueue[str] = get_context("spawn").SimpleQueue()
    saved: SimpleQueue[int] = get_context("spawn").SimpleQueue()
    threads = max(1, torch.get_num_threads() // processes)
    # DDP warns of stages in which every parameter learns, as if that were a mistake.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    arguments = (processes, _free_port(), threads, complaint, saved, recipe, run, resume, minutes)
    asked_to_end = Event()
    context = spawn(_work, arguments, processes, join=False)

    def end() -> None:
        asked_to_end.set()
        for process in context.processes:
            process.terminate()

    try:
        with when_terminated(end):
            while not context.join():
                pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        if asked_to_end.is_set():  # before there was anything to save
            raise SystemExit(128 + signal.SIGTERM) from None
        if not complaint.empty():
            raise IsoglossError(complaint.get()) from None
        if getattr(error, "signal_name", None) == "SIGKILL":
            raise IsoglossError(
                "One of the processes was killed, as the system does when memory runs out; go on with --resume."
            ) from None
        raise
    if not saved.empty():
        raise Interrupted(saved.get())
    return run / "model"


def _work(
    rank: int,
    processes: int,
    port: int,
    threads: int,
    complaint: "SimpleQueue[str]",
    saved: "SimpleQueue[int]",
    recipe: Recipe,
    run: Path,
    resume: bool,
    minutes: float | None,
) -> None:
    """One process of the group, told where it stands as torchrun would tell it."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(recipe, run, resume=resume, minutes=minutes, console=Console(stderr=True))
    except IsoglossError as error:
        complaint.put(str(error))
        raise
    except Interrupted as end:
        saved.put(end.step)
        raise


def _end_with_parent() -> None:
    """A process whose parent was killed would train on, unseen, and write into a run that another may go on with."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
