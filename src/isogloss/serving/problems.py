"""What went wrong, as OpenAI's clients understand it: a status and {"error": {message, type, param, code}}."""

from pathlib import Path

from fastapi.responses import JSONResponse

from isogloss.audio.sources import describe
from isogloss.errors import AudioError, IsoglossError

FORMATS = (
    "WAV, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, MP4 and m4a (AAC, ALAC), WebM and Matroska, AAC, AMR, WMA, AIFF, AU, "
    "CAF, and the sound of video files"
)
STATUS = {"empty": 400, "unreadable": 415, "too_long": 413, "too_large": 413}
"""By the cause of an AudioError; 422 for all others: it is audio, and cannot be used."""
GONE = 499
"""Logged where the client went away before the answer; nobody reads it."""


class Problem(Exception):
    """An answer that is no result. headers: of the response, such as Retry-After."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def plain(self) -> dict[str, dict[str, str | None]]:
        """The body of the answer."""
        kind = "rate_limit_error" if self.status == 429 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.plain(), self.status, self.headers)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def problem_of(error: Exception, path: Path | None = None, name: str = "The file") -> Problem:
    """What is said of an exception. path, name: where an upload lies, and what its sender calls it.

    Only of IsoglossError the words are told: those of a bug may hold anything.
    """
    if isinstance(error, Problem):
        return error
    message = str(error) if path is None else str(error).replace(describe(path), name)
    if isinstance(error, AudioError):
        if error.cause == "unreadable":
            message += f" Formats that can be read: {FORMATS}."
        return Problem(STATUS.get(error.cause, 422), message, param="file", code=f"audio_{error.cause}")
    if isinstance(error, IsoglossError):
        return Problem(400, message)
    return Problem(500, "Something went wrong in the server; its log has the details under this X-Request-ID.")
