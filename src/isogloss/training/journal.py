"""What a run tells: `log.jsonl` for programs, a progress line for people, TensorBoard by option."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isogloss.errors import IsoglossError
from isogloss.files import write_text

LOG = "log.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first."""
    path = run / LOG
    if not path.exists():
        raise IsoglossError(f"{run} is not a training run: it has no {LOG}.")
    with path.open(encoding="utf-8") as lines:
        # A line without its end was being written when the run was killed, or the disk was full.
        return [json.loads(line) for line in lines if line.endswith("\n")]


class Journal:
    """Records of a run. On processes other than the first it keeps silent."""

    def __init__(self, run: Path, *, resume_at: int | None, speak: bool, tensorboard: bool, console: Console):
        self.speak = speak
        self.console = console
        self._board: Any = None
        if not speak:
            return
        path = run / LOG
        kept = [r for r in read_log(run) if r["step"] <= resume_at] if resume_at is not None and path.exists() else []
        # Steps after the checkpoint will be taken again: their records go.
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if tensorboard:
            self._board = _board(run)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )

    def __enter__(self) -> Journal:
        if self.speak:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.speak:
            self._progress.stop()
            self._file.close()
            if self._board is not None:
                self._board.close()

    def stage(self, name: str, steps: int, done: int) -> None:
        """A stage begins (or goes on at step `done`)."""
        if self.speak:
            self._task = self._progress.add_task(name, total=steps, completed=done, figures="")

    def step(self, record: dict[str, Any]) -> None:
        """One optimizer step."""
        self.record(record)
        if self.speak:
            figures = f"loss {record['loss']:.3f} · {record['speed']:.0f} h/h"
            self._progress.update(self._task, advance=1, figures=figures)

    def record(self, record: dict[str, Any]) -> None:
        """One line of the log, with the time; numbers also go to TensorBoard."""
        if not self.speak:
            return
        self._file.write(json.dumps(record | {"time": round(time.time(), 3)}, ensure_ascii=False) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{record['event']}/{name}", value, record["step"])

    def say(self, text: str) -> None:
        """A line for people."""
        if self.speak:
            self.console.print(text, highlight=False)


def _board(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise IsoglossError("tensorboard=true needs TensorBoard: pip install isogloss[tensorboard].") from None
    return SummaryWriter(str(run / "tensorboard"))
