"""Live transcription over a websocket: raw samples in, words out.

    client: binary s16le at 16 kHz, mono …                     {"type": "finish"}
    server: {"type": "partial", "text"}     {"type": "word", "word", "start", "end", "confidence"} …
            {"type": "done", "text"}        {"type": "error", "error": {"message", …}}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, WebSocket
from numpy.typing import NDArray
from starlette.websockets import WebSocketDisconnect, WebSocketState

from isogloss.audio.pcm import PCM
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.decoding.words import Word
from isogloss.model.streaming import WordStream
from isogloss.serving.answers import word_fields
from isogloss.serving.asked import check_language
from isogloss.serving.problems import Problem, problem_of
from isogloss.serving.service import Service, told

SUBPROTOCOL = "realtime"
SILENT = 30.0
"""Seconds without a message after which a session ends."""
NORMAL, REFUSED, BROKEN, RESTARTS = 1000, 1008, 1011, 1012
"""Codes with which a session is closed (RFC 6455)."""


def add_realtime(app: FastAPI, service: Service, draining: asyncio.Event) -> None:
    """Add `/v1/realtime` to an application. draining: whether the server is shutting down."""

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket, language: str | None = None) -> None:
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        code = REFUSED
        try:
            with told():
                tag = check_language(service.recogniser, language)
                words = await _in_turn(service, partial(service.recogniser.word_stream, language=tag))
            session = Session(socket, service, words)
            await session.run(draining)
            code = RESTARTS if draining.is_set() else NORMAL
        except WebSocketDisconnect:
            return
        except Problem as problem:
            await socket.send_json({"type": "error"} | problem.plain())
        except Exception as error:
            await socket.send_json({"type": "error"} | problem_of(error).plain())
            code = BROKEN
            raise
        finally:
            if socket.client_state is WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await socket.close(code)


class Session:
    """One recording as it arrives. words: what writes it down; it is fed in the model's thread alone."""

    def __init__(self, socket: WebSocket, service: Service, words: WordStream):
        self.socket, self.service, self.words = socket, service, words
        self.pcm = PCM()
        self.received = 0  # samples
        self.text: list[str] = []
        self.partial = ""

    async def run(self, draining: asyncio.Event) -> None:
        """Until the client finishes or the server must: what was said by then is written in both cases."""
        stop = asyncio.ensure_future(draining.wait())
        try:
            while (data := await self._data(stop)) is not None:
                samples = self.pcm.feed(data)
                self.received += len(samples)
                if self.received > self.service.settings.max_seconds * SAMPLE_RATE:
                    seconds = self.service.settings.max_seconds
                    raise Problem(413, f"A session lasts {seconds:.0f} s at most; begin another.")
                await self._say(await _in_turn(self.service, partial(self._fed, samples)))
        finally:
            stop.cancel()
        await self._say(await _in_turn(self.service, self.words.finish))
        await self.socket.send_json({"type": "done", "text": " ".join(self.text)})

    async def _data(self, stop: asyncio.Future[Any]) -> bytes | None:
        """The next samples; None where there will be no more."""
        coming = asyncio.ensure_future(self.socket.receive())
        try:
            await asyncio.wait({coming, stop}, timeout=SILENT, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                if stop.done():
                    return None
                raise Problem(408, f"Nothing has arrived for {SILENT:.0f} s; begin another session.")
            message = coming.result()
        finally:
            coming.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", NORMAL))
        if (data := message.get("bytes")) is not None:
            return bytes(data)
        if _kind(message.get("text") or "") != "finish":
            raise Problem(400, 'Send samples in binary (s16le, 16 kHz, mono), and {"type": "finish"} at the end.')
        return None

    def _fed(self, samples: NDArray[np.float32]) -> list[Word]:
        return self.words.feed(torch.from_numpy(samples).to(self.service.recogniser.engine.device))

    async def _say(self, words: list[Word]) -> None:
        for word in words:
            self.text.append(word.text)
            await self.socket.send_json({"type": "word"} | word_fields(word))
        if self.words.partial != self.partial:
            self.partial = self.words.partial
            await self.socket.send_json({"type": "partial", "text": self.partial})


async def _in_turn(service: Service, function: Any) -> Any:
    return await asyncio.wrap_future(service.worker.call(function))


def _kind(text: str) -> object:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message.get("type") if isinstance(message, dict) else None
