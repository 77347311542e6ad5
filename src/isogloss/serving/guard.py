"""The door of the server: who may come in, how many at once, under which number; and what is counted and logged.

    request ── id ── draining? (503) ── other site's page? (403) ── key? (401) ── full? (429) ── the application

One ASGI application around another, so that bodies stream through it and websockets pass the same door.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isogloss.serving.metrics import Metrics
from isogloss.serving.problems import GONE, ClientGone, Problem, problem_of
from isogloss.serving.settings import Settings

SUBPROTOCOL = "openai-insecure-api-key."
"""Before the key, where a browser names it among the subprotocols of a websocket: it can set no header."""
WORK = "/v1/"
"""Paths below are for who has the key; those that are posted to, and websockets, count against the queue."""
PATIENCE = 60.0
"""Seconds in which a client must take what it is sent."""
LINGER = 1.0
"""Seconds in which a client that is still sending may read its answer."""
_ID = re.compile(r"[\x21-\x7e]{1,128}")
logger = logging.getLogger("isogloss.serving")


class Guard:
    """wait: seconds until what waits now will be done, about."""

    app: ASGIApp

    def __init__(self, settings: Settings, metrics: Metrics, wait: Callable[[], float]):
        self.settings, self.metrics, self.wait = settings, metrics, wait
        self.active = 0
        self.draining = asyncio.Event()

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application with this door before it."""
        self.app = app
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        await _Visit(self, scope, receive, send).take()

    async def idle(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until nobody is inside, so many seconds at most."""
        until = time.monotonic() + seconds
        while self.active and time.monotonic() < until and not stop():
            await asyncio.sleep(0.05)

    def refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        """Why somebody may not come in; None if they may."""
        if self.draining.is_set():
            return Problem(503, "The server is shutting down; ask again in a moment.", headers={"Retry-After": "5"})
        if not scope["path"].startswith(WORK) and scope["path"] != "/metrics":
            return None
        if not self._is_own_page(headers):
            return Problem(403, "Pages of other sites may not use this server; start it with --cors to let one.")
        if not self._has_key(headers):
            message = "Send the API key of this server: Authorization: Bearer KEY."
            return Problem(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if _works(scope) and self.active >= self.settings.queue:
            seconds = str(max(1, math.ceil(self.wait())))
            message = f"The server is busy with {self.active} requests; ask again in {seconds} s."
            return Problem(429, message, code="queue_full", headers={"Retry-After": seconds})
        return None

    def _is_own_page(self, headers: Headers) -> bool:
        """Whether a browser asks for a page that this server gave, or one that it lets; others send no origin."""
        origin = headers.get("origin")
        return (
            origin is None
            or origin in self.settings.origins
            or "*" in self.settings.origins
            or urlsplit(origin).netloc == headers.get("host")
        )

    def _has_key(self, headers: Headers) -> bool:
        if self.settings.key is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            offered = headers.get("sec-websocket-protocol", "").split(",")
            keys = (name.strip() for name in offered if name.strip().startswith(SUBPROTOCOL))
            given = next(keys, "").removeprefix(SUBPROTOCOL)
        # In a time that does not tell how much of it is right.
        return hmac.compare_digest(given.strip().encode(), self.settings.key.encode())


class _Visit:
    """One request from the door in to the door out."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self.headers = Headers(scope=scope)
        self.unread = "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"
        asked = self.headers.get("x-request-id", "")
        self.id = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        self.status = 0
        self.gone = False

    async def take(self) -> None:
        """Let it in or refuse it, and log what became of it."""
        began = time.monotonic()
        about: dict[str, object] = {}
        self.scope.setdefault("state", {})["about"] = about
        counts = _works(self.scope)
        problem = self.guard.refusal(self.scope, self.headers)
        if problem is None:
            self.guard.active += counts
            self.guard.metrics.active.inc(counts)
        try:
            if problem is not None:
                await self._refuse(problem)
            else:
                await self.guard.app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server stops without waiting any longer
            if not self.status:
                await self._refuse(Problem(503, "The server was stopped before it was done; send the request again."))
            raise
        except Exception as error:
            if not self.gone:
                logger.exception("error", extra={"about": {"request_id": self.id}})
                if not self.status:
                    await self._refuse(problem_of(error))
        finally:
            if problem is None:
                self.guard.active -= counts
                self.guard.metrics.active.dec(counts)
            self._log(time.monotonic() - began, about)

    async def receive(self) -> Message:
        """Pass on what the client sends, and know whether it has sent everything."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.unread = False
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application says, with the number of the request.

        Who has not sent everything is answered, and then the connection is closed: nobody can make the server read on.
        """
        if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            self.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            if self.unread:
                message["headers"].append((b"connection", b"close"))
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and self.unread:
            await self._send_in_time({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body"}
        await self._send_in_time(message)

    async def _send_in_time(self, message: Message) -> None:
        try:
            await asyncio.wait_for(self._send(message), PATIENCE)
        except (TimeoutError, OSError) as error:
            self.gone, self.status = True, GONE
            raise ClientGone from error

    async def _linger(self) -> None:
        """Throw away what still comes, for a moment: a reset would take the answer from who is sending."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self.unread:
                    await self.receive()

    async def _refuse(self, problem: Problem) -> None:
        response = problem.response()
        if self.scope["type"] == "http":
            await response(self.scope, self.receive, self.send)
            return
        await self.send({"type": "websocket.http.response.start", "status": problem.status,
                         "headers": response.raw_headers})  # fmt: skip
        await self.send({"type": "websocket.http.response.body", "body": response.body})

    def _log(self, seconds: float, about: dict[str, object]) -> None:
        route = getattr(self.scope.get("route"), "path", "other")
        self.guard.metrics.request(route, self.status, seconds)
        line = {
            "request_id": self.id,
            "method": self.scope.get("method", "WS"),
            "path": self.scope["path"],
            "status": self.status,
            "seconds": round(seconds, 3),
            **about,
        }
        level = logging.INFO if self.scope["path"].startswith(WORK) or self.status >= 400 else logging.DEBUG
        logger.log(level, "request", extra={"about": line})


def _works(scope: Scope) -> bool:
    return bool(scope["path"].startswith(WORK) and scope.get("method", "WS") in ("POST", "WS"))
