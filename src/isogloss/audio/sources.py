"""What audio may come from, and how much of it is let in before anything is decoded."""

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isogloss.errors import AudioError

Source = Path | str | bytes | BinaryIO


@dataclass(frozen=True)
class Limits:
    """What may be read at most: seconds decoded by one call, and bytes of the file itself."""

    seconds: float = 7200.0
    file_bytes: int = 2 << 30


DEFAULT_LIMITS = Limits()


def check_file(path: Path | str, limits: Limits) -> None:
    """Raise AudioError unless `path` is a regular, readable, non-empty file within the limits."""
    name = describe(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise AudioError(f"{name} is not a regular file; give an audio file.", "unreadable")
        os.close(os.open(path, os.O_RDONLY))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise AudioError(f"{name} does not exist; check the path.", "missing") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be opened: {error.strerror}.", "unreadable") from None
    _check_size(name, status.st_size, limits)


def opened_content(source: bytes | BinaryIO, limits: Limits) -> io.BytesIO:
    """The bytes of a source that is no path, as a seekable file within the limits."""
    content = source if isinstance(source, bytes) else _drain(source, limits)
    _check_size(describe(source), len(content), limits)
    return io.BytesIO(content)


def describe(source: object) -> str:
    """A printable name of a source, also of a file whose name is not UTF-8."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsencode(source).decode("utf-8", "backslashreplace")
    if isinstance(source, bytes):
        return f"Audio of {len(source)} bytes"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "The audio stream"


def _check_size(name: str, size: int, limits: Limits) -> None:
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes); fetch it again or remove it.", "empty")
    if size > limits.file_bytes:
        raise AudioError(
            f"{name} is larger than the limit of {limits.file_bytes} bytes; split it or raise the limit.",
            "too_large",
        )


def _drain(stream: BinaryIO, limits: Limits) -> bytes:
    """All bytes of a stream, or one more than allowed."""
    content = io.BytesIO()
    while content.tell() <= limits.file_bytes and (chunk := stream.read(1 << 20)):
        content.write(chunk)
    return content.getvalue()
