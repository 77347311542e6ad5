"""What all endpoints share: one model and its thread, limits, and waiting for an answer that somebody still wants."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import Request

from isogloss.audio.reading import measured_seconds
from isogloss.audio.sources import Limits
from isogloss.decoding.beam import Beam
from isogloss.errors import IsoglossError
from isogloss.model.index import Index
from isogloss.model.recogniser import Recogniser
from isogloss.model.results import Segment, Transcript
from isogloss.serving import answers, writers
from isogloss.serving.asked import Searches
from isogloss.serving.metrics import Metrics
from isogloss.serving.problems import ClientGone, Problem, problem_of
from isogloss.serving.settings import Settings
from isogloss.serving.uploads import Form
from isogloss.serving.worker import Job, Worker

T = TypeVar("T")


class Service:
    """index: to search in, None for none. beam: the search that transcribes, greedily if None."""

    def __init__(self, recogniser: Recogniser, settings: Settings, index: Index | None, beam: Beam | None):
        self.recogniser, self.settings, self.index = recogniser, settings, index
        self.metrics = Metrics()
        self.worker = Worker(recogniser, self.metrics.batch)
        self.searches = Searches(recogniser, beam)
        self.model = {
            "id": settings.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "isogloss",
            "transcribes": bool(recogniser.model.decoders),
            "languages": sorted(recogniser.model.config.alphabets),
            "identifies": recogniser.engine.identifies,
            "streams": _can(recogniser.word_stream),
            "searches": index is not None,
        }

    async def measured(self, form: Form, longest: float = math.inf) -> float:
        """Seconds of an upload; raises Problem for what cannot be read or is too long, before its samples are kept.

        longest: seconds, where less is allowed than anywhere else.
        """
        with told(form):
            limits = Limits(seconds=min(longest, self.settings.max_seconds))
            return await asyncio.to_thread(measured_seconds, form.file, limits=limits)

    async def answer(self, request: Request, future: Future[T]) -> T:
        """What a future brings; raises Problem where it takes too long, ClientGone where nobody waits."""
        result = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            either: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(either, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise ClientGone if gone.done() else self._too_slow()
        finally:
            gone.cancel()
            result.cancel()

    async def events(
        self, job: Job, form: Form, verbose: answers.Granularities | None = None
    ) -> AsyncIterator[str]:
        """The segments of a recording as server-sent events, each as soon as it is known, and the whole text.

        verbose: what events also have times of, as verbose_json has; None for the text alone.
        """
        loop = asyncio.get_running_loop()
        segments: asyncio.Queue[Segment | None] = asyncio.Queue()
        job.on_segment = lambda segment: _send(loop, segments, segment)
        job.result.add_done_callback(lambda _: _send(loop, segments, None))
        result = asyncio.wrap_future(self.worker.submit(job))
        said = 0
        try:
            async with asyncio.timeout(self.settings.timeout):
                while (segment := await segments.get()) is not None:
                    text = writers.plain(segment.text)
                    more = {} if verbose is None else {"segment": answers.timed_segment(said, segment)}
                    yield answers.event("transcript.text.delta", delta=" " * bool(said) + text, **more)
                    said += 1
                with told(form):
                    transcript: Transcript = await result
            whole = {"text": writers.plain(transcript.text)}
            yield answers.event(
                "transcript.text.done", **whole if verbose is None else answers.verbose(transcript, verbose)
            )
        except TimeoutError:
            yield answers.event("error", **self._too_slow().plain())
        except Exception as error:
            yield answers.event("error", **problem_of(error).plain())
            if not isinstance(error, Problem):
                raise  # into the log
        finally:
            result.cancel()

    def _too_slow(self) -> Problem:
        seconds = f"{self.settings.timeout:.0f}"
        message = f"The answer took longer than {seconds} s, the limit of this server; send a shorter recording."
        return Problem(503, message, code="timeout", headers={"Retry-After": seconds})


@contextlib.contextmanager
def told(form: Form | None = None) -> Iterator[None]:
    """Turns what users can mend into a Problem that names the upload as its sender does."""
    try:
        yield
    except IsoglossError as error:
        raise problem_of(error, *((form.path, form.name) if form else ())) from None


def _can(action: Callable[[], object]) -> bool:
    try:
        action()
    except IsoglossError:
        return False
    return True


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _send(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[T], item: T) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: the server stopped without waiting
        loop.call_soon_threadsafe(queue.put_nowait, item)
