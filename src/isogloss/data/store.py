"""Shards that lie elsewhere: fetched when they are first read, and removed again where they would take too much room.

    DIR/store.json    {"url": where the packed corpus is, "keep": bytes of shards on this disk at most}

Index, card and text are copied by `attach`, so that everything but the audio is at hand. Any store that fsspec knows
will do: s3://, gs://, https://, sftp://, …
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from isogloss.errors import AudioError, IsoglossError
from isogloss.files import atomic_file, atomic_folder, read_json, require_new, write_json

Found = TypeVar("Found")

STORE = "store.json"
FOLDER = "shar"
"""In a packed corpus, where its shards are."""
TRIES = 5
PAUSE = 1.0
"""Seconds before the second try, twice as many before each further one."""


@dataclass(frozen=True)
class Store:
    """Where the files of a corpus come from. folder: where they are put; keep: bytes of shards at most."""

    folder: Path
    url: str
    keep: int

    @classmethod
    def of(cls, folder: Path) -> Store | None:
        """The store of a corpus, None where all of it lies in its folder."""
        if not (folder / STORE).is_file():
            return None
        about = read_json(folder / STORE)
        return cls(folder, about["url"], about["keep"])

    def need(self, *files: Path) -> None:
        """Fetch those that are not there; raises AudioError where that fails again and again."""
        if missing := [file for file in files if not file.is_file()]:
            with (self.folder / ".fetching").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # of processes that want the same, one fetches it
                for file in missing:
                    if not file.is_file():
                        fetch(self._url(file), file)
                self._make_room(set(files))

    def _url(self, file: Path) -> str:
        return f"{self.url}/{file.relative_to(self.folder).as_posix()}"

    def _make_room(self, needed: set[Path]) -> None:
        """Remove the shards that were fetched first, until the others are no more than may be kept."""
        found = [(file, file.stat()) for file in files_of_shards(self.folder)]
        total = sum(status.st_size for _, status in found)
        for file, status in sorted(found, key=lambda pair: pair[1].st_mtime_ns):
            if total <= self.keep:
                return
            if file not in needed:
                file.unlink()
                total -= status.st_size


def files_of_shards(folder: Path) -> list[Path]:
    """The files of shards that are on this disk."""
    return [file for file in (folder / FOLDER).glob("*.*") if not file.name.startswith(".")]


def attach(url: str, out: Path, *, keep: int, names: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Make `out` a corpus whose shards are fetched from `url` when they are read.

    names: files that are copied at once; optional: those that need not be there. keep: see `Store`. Raises
    IsoglossError where the store cannot be read; nothing is then written.
    """
    out = out.expanduser().absolute()
    require_new(out, overwrite=False)
    url = url.rstrip("/")
    with atomic_folder(out) as folder:
        for name in names:
            fetch(f"{url}/{name}", folder / name)
        for name in optional:
            if exists(f"{url}/{name}"):
                fetch(f"{url}/{name}", folder / name)
        (folder / FOLDER).mkdir()
        write_json(folder / STORE, {"url": url, "keep": keep})


def exists(url: str) -> bool:
    """Whether there is something in the store."""
    return bool(_tried(url, lambda system, path: system.exists(path)))


def fetch(url: str, file: Path) -> None:
    """Copy a file of a store, whole or not at all; raises AudioError after `TRIES`."""
    with atomic_file(file) as temporary:
        _tried(url, lambda system, path: system.get_file(path, os.fspath(temporary)))


def _tried(url: str, work: Callable[[Any, str], Found]) -> Found:
    """What `work` gives for the file system and the path of a URL, tried again where the store fails."""
    import fsspec

    try:
        system, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise IsoglossError(f"{url} cannot be reached: {error}.") from None
    pause = PAUSE
    for number in range(1, TRIES + 1):
        try:
            return work(system, path)
        except FileNotFoundError:
            raise AudioError(f"{url} does not exist; check the address.", "missing") from None
        except (OSError, RuntimeError) as error:
            if number == TRIES:
                said = f"{url} could not be fetched, tried {TRIES} times: {error}"
                raise AudioError(f"{said.rstrip('.')}.", "unreachable") from None
            system.invalidate_cache()
            time.sleep(pause)
            pause *= 2
    raise AssertionError
