"""Writing that either happens whole or not at all, digests of what was written, and text read line by line."""

import codecs
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError

_NO_TEXT = re.compile("[\0\udc80-\udcff]")


def require_writable(path: Path) -> None:
    """Raise IsoglossError where no file can be written, before work is done for it."""
    if path.is_dir():
        raise IsoglossError(f"{path} is a folder; name a file in it.")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise IsoglossError(f"{path} cannot be written: {nearest} is no folder; choose another place.")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its name when the block ends well."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last: writers choose their format (and gzip) by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=path.name)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        _synchronise(temporary)
        temporary.replace(path)
    except OSError as error:
        raise IsoglossError(f"Cannot write {path}: {error.strerror or error}; nothing was changed.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def require_replaceable(path: Path, marker: str) -> None:
    """Raise IsoglossError where something lies that is not a folder of its kind, which holds a file `marker`."""
    if path.exists() and not (path.is_dir() and ((path / marker).exists() or not any(path.iterdir()))):
        raise IsoglossError(f"{path} is there and holds something else; choose another folder.")


def require_new(path: Path, overwrite: bool) -> None:
    """Raise IsoglossError where something lies already, but for an empty folder, that is not to be overwritten."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())) and not overwrite:
        raise IsoglossError(f"{path} exists already; choose another folder or give --overwrite.")


@contextmanager
def atomic_folder(path: Path, marker: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` when the block ends well.

    marker: a file that folders of this kind hold, so that nothing else is replaced; None in places of our own.
    """
    if marker is not None:
        require_replaceable(path, marker)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".tmp-{path.name}-"))
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes for its owner alone
                _synchronise(file)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".tmp-{path.name}-old-"))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        raise IsoglossError(f"Cannot write {path}: {error.strerror or error}; nothing was changed.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def plain_gzip(path: Path) -> Iterator[gzip.GzipFile]:
    """A .gz file to write, without name and time in its header: the same content gives the same bytes."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that people can read; all in ASCII where it holds the name of a file that is not UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text if text.isascii() or _is_unicode(text) else json.dumps(value, indent=indent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read, atomically."""
    write_text(path, json_text(value, indent=1) + "\n")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a text file, plain or .gz, in UTF-8, or in UTF-16 marked as such.

    Raises IsoglossError that names the file and the line where it is something else, or is damaged.
    """
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as raw:
            wide = raw.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            # Bytes that are not UTF-8 come through as lone surrogates, so that their line can be named.
            encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
            lines = io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
            for number, line in enumerate(lines, 1):
                if _NO_TEXT.search(line):
                    raise IsoglossError(f"{path}, line {number}: not UTF-8 text; convert the file.")
                yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise IsoglossError(f"{path} is missing.") from None
    except UnicodeDecodeError as error:
        raise IsoglossError(f"{path}, line {number + 1}: not UTF-16 text ({error.reason}); convert the file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise IsoglossError(f"{path}, line {max(number, 1)}: unreadable ({error}); mend or rebuild the file.") from None


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IsoglossError(f"{path} is missing.") from None
    except (ValueError, OSError) as error:
        raise IsoglossError(f"{path} is not readable JSON ({error}); restore or rebuild it.") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _synchronise(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
