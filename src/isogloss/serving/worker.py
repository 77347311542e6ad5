"""The thread that owns the model: recordings of many clients in one batch, and short calls between batches.

    jobs ─── first come, first served, as many as fit ──┐
    calls ── (live audio, sentences) ─ between batches ─┴── the model ──> futures

A recording longer than a window is worked on alone, and the short ones that come meanwhile are served between its
batches: nobody waits for somebody else's hour.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from isogloss.audio.windows import WINDOW_SECONDS
from isogloss.decoding.beam import Beam
from isogloss.model.pieces import BATCH_SECONDS
from isogloss.model.recogniser import Recogniser
from isogloss.model.results import Segment

T = TypeVar("T")
MOST_TOGETHER = 32
"""Recordings in one batch."""
REMEMBERED = 0.9
"""Share of what was known of the speed that stays after another batch."""


@dataclass(eq=False)
class Job:
    """A recording and what is asked of it. seconds: its length. on_segment: told of each segment, in order.

    result: of a Transcript or an Identification; cancelling it stops the work on it.
    """

    audio: Path
    seconds: float
    kind: Literal["transcribe", "identify"] = "transcribe"
    language: str | None = None
    beam: Beam | None = None
    on_segment: Callable[[Segment], None] | None = None
    result: Future[Any] = field(default_factory=Future)


class _Abandoned(Exception):
    """Nobody waits for any result of a batch."""


class Worker:
    """Starts its thread at once. on_batch: told the number of recordings and the seconds of audio of each batch."""

    def __init__(self, recogniser: Recogniser, on_batch: Callable[[int, float], None] = lambda count, seconds: None):
        self.recogniser = recogniser
        self._on_batch = on_batch
        self._jobs: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._speed = 0.05  # seconds of work for a second of audio; measured from the first batch on
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """The future of a recording's result; it raises AudioError where the recording cannot be read."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def call(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """The future of a short call that uses the model."""
        result: Future[T] = Future()
        with self._changed:
            self._calls.append((partial(function, *arguments), result))
            self._changed.notify()
        return result

    def close(self) -> None:
        """Finish what was asked, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def wait(self) -> float:
        """Seconds until the recordings that wait now will be done, about."""
        with self._changed:
            return self._speed * sum(job.seconds for job in self._jobs)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._calls or self._closing)
                if not (self._jobs or self._calls):
                    return
            self._answer_calls()
            self._work(self._taken())

    def _answer_calls(self) -> None:
        while self._calls:
            function, result = self._calls.popleft()
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(function())
                except Exception as error:
                    result.set_exception(error)

    def _taken(self, longest: float = float("inf")) -> list[Job]:
        """The first job that somebody waits for, of at most so many seconds, and those that go with it."""
        taken: list[Job] = []
        with self._changed:
            kept: deque[Job] = deque()
            for job in self._jobs:
                if job.result.cancelled():
                    continue
                fits = job.seconds <= longest and (not taken or _together([*taken, job]))
                (taken if fits else kept).append(job)
            self._jobs = kept
        return taken

    def _work(self, jobs: list[Job]) -> None:
        """Do some jobs at once; what breaks one of them does not break the others."""
        if not jobs:
            return
        try:
            results = self._results(jobs)
        except _Abandoned:
            return
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._work([job])
                return
            results = [error]
        for job, result in zip(jobs, results, strict=True):
            _settle(job.result, result)

    def _results(self, jobs: list[Job]) -> list[Any]:
        began, seconds = time.monotonic(), sum(job.seconds for job in jobs)
        paused = 0.0

        def between(done: float, total: float) -> None:
            nonlocal paused
            if all(job.result.cancelled() for job in jobs):
                raise _Abandoned
            arrived = time.monotonic()
            self._answer_calls()
            if _is_long(jobs[0]):
                self._work(self._taken(WINDOW_SECONDS))
            paused += time.monotonic() - arrived

        def tell(owner: int, segment: Segment) -> None:
            if (listener := jobs[owner].on_segment) is not None:
                listener(segment)

        audio: list[Any] = [job.audio for job in jobs]
        if jobs[0].kind == "identify":
            results: list[Any] = self.recogniser.identify(audio, errors="return", on_progress=between)
        else:
            results = self.recogniser.transcribe(
                audio,
                language=[job.language for job in jobs],
                beam=[job.beam for job in jobs],
                errors="return",
                on_progress=between,
                on_segment=tell if any(job.on_segment for job in jobs) else None,
            )
        speed = (time.monotonic() - began - paused) / max(seconds, 1.0)
        self._speed = REMEMBERED * self._speed + (1 - REMEMBERED) * speed
        self._on_batch(len(jobs), seconds)
        return results


def _is_long(job: Job) -> bool:
    return job.seconds > WINDOW_SECONDS


def _together(jobs: Iterable[Job]) -> bool:
    """Whether these jobs may be one batch."""
    *others, last = jobs
    return (
        last.kind == others[0].kind
        and len(others) < MOST_TOGETHER
        and sum(job.seconds for job in (*others, last)) <= BATCH_SECONDS
    )


def _settle(future: Future[Any], result: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return  # cancelled
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
