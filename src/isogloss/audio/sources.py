"""What audio may come from, how much of it is let in before anything is decoded, and how it is named."""

import io
import os
import stat
import zlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from isogloss.errors import AudioError, printable

Found = TypeVar("Found")

_HEAD = 4096  # bytes
_LONG = 1 << 20  # bytes; what is shorter is looked at again sooner than it is remembered
_REMEMBERED = 1024  # files
SPLIT = "split it, as by ffmpeg -i FILE -f segment -segment_time 3600 PART-%d.flac"


@dataclass(frozen=True)
class Member:
    """A file that is stored among others in one: where it begins, how many bytes it has, and their CRC-32."""

    path: Path
    name: str
    start: int
    size: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"

    def read_bytes(self) -> bytes:
        """All of it; raises AudioError where it is not there or was changed."""
        try:
            with self.path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), self.size, self.start)
        except FileNotFoundError:
            raise AudioError(f"{self.path}, which holds {self.name}, is missing; restore it.", "missing") from None
        except OSError as error:
            raise AudioError(f"{self.path} cannot be read: {error.strerror}.", "unreadable") from None
        if len(data) < self.size:
            raise AudioError(f"{self.path} breaks off in or before {self.name}; copy it again.", "truncated")
        if zlib.crc32(data) != self.checksum:
            raise AudioError(f"{self.path} is damaged in {self.name} (checksum); copy it again.", "damaged")
        return data


Source = Path | str | bytes | BinaryIO | Member


@dataclass(frozen=True)
class Limits:
    """What may be in memory at most: seconds decoded by one call, and bytes of what does not lie on the disk."""

    seconds: float = 7200.0
    bytes: int = 2 << 30


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
    """The bytes of a path, of a member of a file, of bytes or of a stream (read to its end), within the limits.

    Raises AudioError unless the source is a regular, readable file, or a stream, and not empty.
    """
    if not isinstance(source, (str, os.PathLike)):
        if isinstance(source, Member):
            data = source.read_bytes()
        else:
            data = source if isinstance(source, bytes) else drain(source, limits)
        _check_not_empty(describe(source), len(data))
        if len(data) > limits.bytes:
            raise AudioError(
                f"{describe(source)} is larger than the limit of {limits.bytes} bytes; give a file, or {SPLIT}.",
                "too_large",
            )
        yield Content(describe(source), io.BytesIO(data), len(data), data[:_HEAD])
        return
    name = describe(source)
    with _opened_file(source, name) as file:
        status = os.fstat(file.fileno())
        _check_not_empty(name, status.st_size)
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
    """A name of a source that can be printed anywhere."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fsdecode(source)
    elif isinstance(source, Member):
        name = str(source)
    elif isinstance(source, bytes):
        name = f"Audio of {len(source)} bytes"
    else:
        given = getattr(source, "name", None)
        name = given if isinstance(given, str) else "The audio stream"
    return printable(name)


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


def _check_not_empty(name: str, size: int) -> None:
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes).", "empty")


def drain(stream: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """All bytes of a stream, or one more than allowed."""
    content = io.BytesIO()
    take: Callable[[int], Any] = stream.read
    while content.tell() <= limits.bytes and (chunk := take(1 << 20)):
        if isinstance(chunk, str):
            raise AudioError(f'{describe(stream)} is opened as text; open it with mode "rb".', "unreadable")
        content.write(chunk)
    return content.getvalue()
