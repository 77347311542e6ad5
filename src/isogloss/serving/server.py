"""The process of a server: sockets, signals, logs as lines of JSON, and an end in which nothing is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from isogloss.errors import IsoglossError

HEAD_SECONDS = 15.0
"""In which the head of a request must arrive."""
MESSAGE_BYTES = 1 << 20
"""Of one message of a websocket: half a minute of audio."""


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Serve an application of `create_app` until the process is told to stop; then finish what is in flight."""
    log_as_json()
    address = ":".join(map(str, listening.getsockname()[:2]))
    logging.getLogger("isogloss.serving").info("listening", extra={"about": {"address": address}})
    server_of(app).run([listening])


def server_of(app: FastAPI) -> Server:
    """The server of an application, for a socket that is bound."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        # A pong would come behind audio that waits its turn, and too late. Who is silent is left all the same.
        ws_ping_interval=None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(app.state.guard.settings.grace),
    )
    return Server(config)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; port: 0 for any that is free. Raises IsoglossError for an address that cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        known = error.errno is not None and error.errno > 0
        reason = (os.strerror(error.errno or 0) if known else error.strerror or str(error)).lower()
        raise IsoglossError(f"Cannot listen at {host}:{port}: {reason}; give another --host or --port.") from None


class Server(uvicorn.Server):
    """Once told to stop it takes no more work, says so (503) and lets what is in flight finish."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for those inside, then close the doors."""
        app: Any = self.config.app
        guard = app.state.guard
        guard.draining.set()
        await guard.idle(guard.settings.grace, lambda: self.force_exit)
        await super().shutdown(sockets)


class PatientProtocol(H11Protocol):
    """uvicorn's, which would wait for ever for the rest of a request's head; this waits `HEAD_SECONDS`."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Have a time-out run while a head is incomplete."""
        incomplete = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if incomplete and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        elif not incomplete and self._head is not None:
            self._head.cancel()
            self._head = None


class JsonLines(logging.Formatter):
    """A record as one line of JSON: what happened, and `about` of it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Everything that is logged goes to standard error as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
