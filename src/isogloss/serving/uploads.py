"""Bodies of requests, bounded while they arrive: in bytes, and in how long they take.

    receive ── limits ── multipart ──> fields (short, in memory) and one file (on the disk, gone with the request)

Content-Length is asked first and not believed. Nothing is spooled before it is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from isogloss.errors import counted, printable
from isogloss.serving.problems import ClientGone, Problem
from isogloss.serving.settings import MIB, Settings

FIELD_BYTES = 64 << 10
"""Of all fields of a form, with their names."""
JSON_BYTES = MIB
LONGEST_NAME = 100


@dataclass
class Form:
    """fields: values by name, in order. path: the file, None where none came; name: what its sender calls it."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    path: Path | None = None
    name: str = "The file"

    @property
    def file(self) -> Path:
        """The file; raises Problem where there is none."""
        if self.path is None:
            raise Problem(400, 'The form has no file; send the recording as the part "file".', param="file")
        return self.path


async def body_chunks(request: Request, limit: int, settings: Settings) -> AsyncIterator[bytes]:
    """The body as it arrives; raises Problem as soon as it is larger than the limit (413) or too slow (408)."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise _too_large(limit)
    began, received, more = time.monotonic(), 0, True
    while more:
        due = began + settings.stall + received / settings.slowest
        left = max(0.0, min(settings.stall, due - time.monotonic()))
        try:
            message = await asyncio.wait_for(request.receive(), left)
        except TimeoutError:
            raise Problem(408, "The request arrives too slowly, or not at all; send it again.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        if chunk:
            yield chunk


async def read_json(request: Request, settings: Settings) -> bytes:
    """The whole of a short body."""
    return b"".join([chunk async for chunk in body_chunks(request, JSON_BYTES, settings)])


@asynccontextmanager
async def received_form(request: Request, settings: Settings) -> AsyncIterator[Form]:
    """The form of a request; its file is deleted at the end of the block."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(415, "Send a form (multipart/form-data) with the recording as its part file.")
    with TemporaryDirectory(prefix="isogloss-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "upload"
        with path.open("wb", buffering=0) as place:
            try:
                parts = _Parts(options[b"boundary"], place)
                async for chunk in body_chunks(request, settings.max_upload + FIELD_BYTES, settings):
                    parts.feed(chunk)
                parts.finish()
            except FormParserError as error:
                raise Problem(400, f"The form cannot be read: {printable(str(error))}.") from None
            except OSError as error:
                raise Problem(503, f"The server cannot keep the recording: {error.strerror}.") from error
        form = parts.form
        form.path = path if parts.has_file else None
        yield form


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The request is larger than {limit // MIB} MB, the limit of this server.", code="too_large")


class _Parts:
    """Takes a form apart: the part `file` goes to the disk, all others are short."""

    def __init__(self, boundary: bytes, place: BinaryIO):
        self.form = Form()
        self.has_file = False
        self._place = place
        self._spent = 0
        self._whole = False
        self._header = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_part,
                "on_part_data": lambda data, start, end: self._on_data(data[start:end]),
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def finish(self) -> None:
        """Raises FormParserError for a form that breaks off."""
        self._parser.finalize()
        if not self._whole:
            raise FormParserError("it breaks off before its end")

    def _on_header(self, place: int, data: bytes) -> None:
        self._header[place] += data

    def _on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]
        self._header = [b"", b""]

    def _on_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        self._name = _text(options.get(b"name", b""))
        self._is_file = b"filename" in options or self._name == "file"
        if not self._is_file:
            self._spend(len(self._name))
            return
        if self._name != "file" or self.has_file:
            raise Problem(400, 'Send one recording in a request, as the part "file".', param=self._name[:LONGEST_NAME])
        self.has_file = True
        # Only ever shown; where the file lies, nobody tells the server.
        self.form.name = printable(_text(options.get(b"filename", b"")))[:LONGEST_NAME] or "The file"

    def _on_data(self, data: bytes) -> None:
        if self._is_file:
            self._place.write(data)
        else:
            self._spend(len(data))
            self._value += data

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.form.fields.setdefault(self._name, []).append(_text(bytes(self._value)))
            self._value.clear()

    def _on_end(self) -> None:
        self._whole = True

    def _spend(self, count: int) -> None:
        self._spent += count + 1
        if self._spent > FIELD_BYTES:
            raise Problem(413, f"The fields of the form are longer than {counted(FIELD_BYTES, 'byte')} together.")


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
