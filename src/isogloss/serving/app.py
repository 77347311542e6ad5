"""The HTTP application: OpenAI's endpoints for speech and sentences, and those of our own.

    form ── limits ── length ── the model's thread (worker) ── answer
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from isogloss import __version__
from isogloss.decoding.beam import Beam
from isogloss.model.index import Index
from isogloss.model.recogniser import Recogniser
from isogloss.serving import answers
from isogloss.serving.asked import (
    IGNORED,
    RecordingFields,
    TranscriptionFields,
    check_language,
    check_model,
    fields_of,
)
from isogloss.serving.guard import Guard
from isogloss.serving.problems import GONE, ClientGone, Problem, problem_of
from isogloss.serving.realtime import add_realtime
from isogloss.serving.service import Service, told
from isogloss.serving.settings import DEFAULTS, Settings
from isogloss.serving.site import Site
from isogloss.serving.uploads import received_form
from isogloss.serving.vectors import add_vectors
from isogloss.serving.worker import Job

PAGE = Path(__file__).parent / "page"


def create_app(
    recogniser: Recogniser,
    settings: Settings = DEFAULTS,
    index: Index | None = None,
    beam: Beam | None = None,
) -> FastAPI:
    """The application around a loaded model; its lifespan ends the model's thread.

    index: to search in. beam: the search that transcribes, greedily if None. app.state has `service` and `guard`.
    """
    service = Service(recogniser, settings, index, beam)
    # The pages of FastAPI for its documentation load scripts from another site.
    app = FastAPI(title="isogloss", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan)
    guard = Guard(settings, service.metrics, lambda: service.worker.wait)
    app.state.service, app.state.guard = service, guard
    app.add_middleware(guard.around)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-Isogloss-Ignored", "Retry-After"],
        )  # fmt: skip
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGone, _client_gone)
    _add_speech(app, service)
    add_vectors(app, service)
    add_realtime(app, service, guard.draining)
    _add_about(app, service, guard)
    app.mount("/", Site(directory=PAGE, html=True), name="page")
    return app


def _add_about(app: FastAPI, service: Service, guard: Guard) -> None:
    """Add what tells of the server and its model."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether requests are taken, and how many are being worked on."""
        return {"status": "ok", "version": __version__, "active": guard.active}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in the text format of Prometheus."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model, and what it can do."""
        return {"object": "list", "data": [service.model]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """The model of this name."""
        check_model(name, service.settings.name)
        return service.model


def _add_speech(app: FastAPI, service: Service) -> None:
    """Add what is done with recordings."""
    recogniser, settings = service.recogniser, service.settings

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        """What is said in a recording."""
        async with AsyncExitStack() as stack:
            form = await stack.enter_async_context(received_form(request, settings))
            with told():
                fields = fields_of(form, TranscriptionFields)
                check_model(fields.model, settings.name)
                language = check_language(recogniser, fields.language)
                beam = service.searches.of(fields.prompt)
            ignored = [name for name in IGNORED if name in form.fields]
            seconds = await service.measured(form)
            request.state.about["audio_seconds"] = round(seconds, 2)
            job = Job(form.file, seconds, language=language, beam=beam)
            headers = {"X-Isogloss-Ignored": ", ".join(ignored)} if ignored else {}
            if fields.stream:
                verbose = fields.timestamp_granularities if fields.response_format == "verbose_json" else None
                events = _owning(stack.pop_all(), service.events(job, form, verbose))
                return StreamingResponse(events, media_type="text/event-stream", headers=headers)
            with told(form):
                transcript = await service.answer(request, service.worker.submit(job))
            response = answers.response(transcript, fields.response_format, fields.timestamp_granularities)
            response.headers.update(headers)
            return response

    @app.post("/v1/identify")
    async def identify(request: Request) -> dict[str, Any]:
        """Which language is spoken in a recording."""
        async with received_form(request, settings) as form:
            with told():
                check_model(fields_of(form, RecordingFields).model, settings.name)
            if not recogniser.engine.identifies:
                raise Problem(400, "This model does not identify languages; fine-tune it on more than one first.")
            seconds = await service.measured(form)
            request.state.about["audio_seconds"] = round(seconds, 2)
            with told(form):
                found = await service.answer(request, service.worker.submit(Job(form.file, seconds, "identify")))
            return found.plain() | {"probabilities": answers.rounded(found.probabilities)}


def _owning(stack: AsyncExitStack, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Events that close what they need when they end."""

    async def all_of_them() -> AsyncIterator[str]:
        async with stack:
            async for event in events:
                yield event

    return all_of_them()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(app.state.service.worker.close)


async def _problem(request: Request, error: Exception) -> Response:
    return problem_of(error).response()


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: f"There is nothing at {request.url.path}.", 405: f"{request.url.path} does not take {request.method}."}
    message = said.get(error.status_code, str(error.detail))
    return Problem(error.status_code, message, headers=dict(error.headers or {})).response()
