"""What audio may come from, how much of it is let in before anything is decoded, and how it is named."""

import io
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from isogloss.errors import AudioError

Source = Path | str | bytes | BinaryIO
Found = TypeVar("Found")

_HEAD = 4096  # bytes
_LONG = 1 << 20  # bytes; what is shorter is looked at again sooner than it is remembered
_REMEMBERED = 1024  # files
# Control characters, line separators and overrides of the writing direction, which terminals obey, and
# surrogates, which cannot be printed: they stand for bytes of a name that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Limits:
    """What may be read at most: seconds decoded by one call, and bytes of the file itself."""

    seconds: float = 7200.0
    file_bytes: int = 2 << 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Content:
    """The bytes of a source. head: the first of them. key: the same as long as a long file is, else None."""

    name: str
    file: BinaryIO
    size: int
    head: bytes
    key: Hashable = None

    @property
    def is_file(self) -> bool:
        """Whether it lies on the disk, and not in memory."""
        return isinstance(self.file, io.FileIO)

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on, or what there is of them."""
        if position + count <= len(self.head) or position >= self.size:
            return self.head[position : position + count]
        self.file.seek(position)
        return self.file.read(count)


@contextmanager
def opened(source: Source, limits: Limits) -> Iterator[Content]:
    """The bytes of a path, of bytes or of a stream (read to its end), within the limits.

    Raises AudioError unless the source is a regular, readable file, or a stream, and not empty.
    """
    if not isinstance(source, (str, os.PathLike)):
        data = source if isinstance(source, bytes) else _drain(source, limits)
        _check_size(describe(source), len(data), limits)
        yield Content(describe(source), io.BytesIO(data), len(data), data[:_HEAD])
        return
    name = describe(source)
    with _opened_file(source, name) as file:
        status = os.fstat(file.fileno())
        _check_size(name, status.st_size, limits)
        key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        yield Content(name, file, status.st_size, file.read(_HEAD), key if status.st_size >= _LONG else None)


def once_per_file(function: Callable[[Content], Found]) -> Callable[[Content], Found]:
    """Remember what was found in a long file, which is read stretch by stretch, while it stays as it is.

    That it is broken is remembered too.
    """
    known: dict[Hashable, Found | AudioError] = {}

    @wraps(function)
    def ask(content: Content) -> Found:
        if content.key is None:
            return function(content)
        if content.key not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            try:
                known[content.key] = function(content)
            except AudioError as error:
                known[content.key] = error
        found = known[content.key]
        if isinstance(found, AudioError):
            raise AudioError(str(found), found.cause)
        return found

    return ask


def describe(source: object) -> str:
    """A name of a source that can be printed anywhere; what cannot stands as an escape, like \\x1b."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
    elif isinstance(source, bytes):
        name = f"Audio of {len(source)} bytes"
    else:
        given = getattr(source, "name", None)
        name = given if isinstance(given, str) else "The audio stream"
    return _UNPRINTABLE.sub(_escape, name)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else found[0].encode("unicode_escape").decode("ascii")


def _opened_file(path: Path | str, name: str) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for ever
            raise AudioError(f"{name} is not a regular file; give an audio file.", "unreadable")
        # By its number, so that no decoder goes by the name: what a file is, its content tells.
        return cast(BinaryIO, io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise AudioError(f"{name} does not exist; check the path.", "missing") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be opened: {error.strerror}.", "unreadable") from None


def _check_size(name: str, size: int, limits: Limits) -> None:
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes).", "empty")
    if size > limits.file_bytes:
        raise AudioError(
            f"{name} is larger than the limit of {limits.file_bytes} bytes; split it or raise the limit.",
            "too_large",
        )


def _drain(stream: BinaryIO, limits: Limits) -> bytes:
    """All bytes of a stream, or one more than allowed."""
    content = io.BytesIO()
    take: Callable[[int], Any] = stream.read
    while content.tell() <= limits.file_bytes and (chunk := take(1 << 20)):
        if isinstance(chunk, str):
            raise AudioError(f'{describe(stream)} is opened as text; open it with mode "rb".', "unreadable")
        content.write(chunk)
    return content.getvalue()
