"""Debian packages as a source of recorded speech: downloaded, checked, unpacked; never installed, never root.

CACHE/NAME/        the unpacked package (usr/share/…)
CACHE/NAME.json    the stamp: package, version, size, sha256; without it CACHE/NAME is made again
CACHE/.apt/        private package lists, only where the system's own are missing or out of date
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, sha256, write_json

OWN_SPEECH = "or use your own speech with `isogloss demo --data FOLDER` or `isogloss prepare FOLDER`"
POLL_SECONDS = 0.2

# The sandbox user could not write into a private cache; short time-outs make "no network" quick to see.
APT_OPTIONS = ("APT::Sandbox::User=root", "Acquire::Retries=2", "Acquire::http::Timeout=20")


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package as apt knows it; size in bytes, sha256 as 64 hex digits."""

    package: str
    version: str
    size: int
    sha256: str


# Told the package in hand and how many of its bytes have come so far.
Advance = Callable[[Package, int], None]


def cache_folder() -> Path:
    """Where downloads are kept: $ISOGLOSS_CACHE, else $XDG_CACHE_HOME/isogloss, else ~/.cache/isogloss."""
    own = os.environ.get("ISOGLOSS_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "isogloss"


def fetch_packages(names: Sequence[str], cache: Path, progress: bool = True) -> dict[str, Path]:
    """Download, verify and unpack Debian packages into `cache`; what is there already is reused.

    Returns the folder of each package, in the order of `names`. Works without root and without
    up-to-date package lists. With `progress`, a bar counts bytes on standard error.

    Raises IsoglossError if apt-get or dpkg-deb is missing, a package is unknown, the network is
    off, a checksum does not match or the disk is full; a package is then absent, never half there.
    """
    if any(not _is_there(cache, name) for name in names):
        _require_tools()
        with _locked(cache):
            missing = [name for name in dict.fromkeys(names) if not _is_there(cache, name)]
            if missing:
                _fetch(missing, cache, progress)
    return {name: cache / name for name in names}


def _is_there(cache: Path, name: str) -> bool:
    return (cache / name).is_dir() and (cache / f"{name}.json").is_file()


def _require_tools() -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise IsoglossError(
                f"{tool} is not on this machine, so Debian packages cannot be fetched: "
                f"work on Debian or Ubuntu, {OWN_SPEECH}."
            )


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the cache alone, so that two runs at once do not replace each other's folders."""
    import fcntl  # only where apt is: Windows has no such module

    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("w")
    except OSError as error:
        raise IsoglossError(
            f"Cannot write the cache {cache} ({error.strerror}); set ISOGLOSS_CACHE to another folder."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(names: Sequence[str], cache: Path, progress: bool) -> None:
    options = _options(None)
    packages = _describe(names, options)
    if len(packages) < len(names):
        options = _private_lists(cache)
        packages = _describe(names, options)
    for name in names:
        if name not in packages:
            raise IsoglossError(f"apt does not know the package {name}: enable Debian main, {OWN_SPEECH}.")
    with _bar(progress) as advance:
        for name in names:
            _fetch_one(packages[name], cache, options, advance)


def _options(private: Path | None) -> list[str]:
    values = list(APT_OPTIONS)
    if private is not None:
        values += [f"Dir::State={private / 'state'}", f"Dir::Cache={private / 'cache'}"]
    return [part for value in values for part in ("-o", value)]


def _private_lists(cache: Path) -> list[str]:
    """Package lists of our own, as `apt-get update` would fetch them for the whole system."""
    private = cache / ".apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    options = _options(private)
    # An error mode that fails at all: by default apt-get update calls a dead network a warning.
    done = _run(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "-qq", "update"])
    if done.returncode:
        raise IsoglossError(
            f"apt cannot fetch its package lists ({_reason(done.stderr)}): mend the network, {OWN_SPEECH}."
        )
    return options


def _describe(names: Sequence[str], options: Sequence[str]) -> dict[str, Package]:
    shown = _run(["apt-cache", *options, "show", "--no-all-versions", *names]).stdout
    found = {}
    for stanza in shown.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        # A package that was installed from a file has no checksum to hold it to.
        if {"Package", "Version", "Size", "SHA256"} <= fields.keys():
            package = Package(fields["Package"], fields["Version"], int(fields["Size"]), fields["SHA256"])
            found[package.package] = package
    return found


def _fetch_one(package: Package, cache: Path, options: Sequence[str], advance: Advance) -> None:
    name = package.package
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".tmp-{name}-") as temporary:
        archive = _download(package, Path(temporary), cache, options, advance)
        digest = sha256(archive)
        if digest != package.sha256:
            raise IsoglossError(
                f"The downloaded package {name} has SHA-256 {digest}, not {package.sha256}; fetch it again."
            )
        with atomic_folder(cache / name) as folder:
            unpacked = _run(["dpkg-deb", "-x", str(archive), str(folder)])
            if unpacked.returncode:
                raise IsoglossError(
                    f"Cannot unpack the package {name} in {cache} ({_reason(unpacked.stderr)}); "
                    "free space there or set ISOGLOSS_CACHE to another folder."
                )
    write_json(cache / f"{name}.json", asdict(package))


def _download(package: Package, folder: Path, cache: Path, options: Sequence[str], advance: Advance) -> Path:
    errors = _apt_download(package, folder, options, advance)
    if errors is not None:
        # The usual cause beside a dead network: lists so old that the file has left the mirror.
        errors = _apt_download(package, folder, _private_lists(cache), advance)
    archives = list(folder.glob("*.deb"))
    if errors is not None or not archives:
        raise IsoglossError(
            f"Cannot download the package {package.package} ({_reason(errors or '')}): "
            f"mend the network, {OWN_SPEECH}."
        )
    return archives[0]


def _apt_download(package: Package, folder: Path, options: Sequence[str], advance: Advance) -> str | None:
    """Run apt-get download in `folder`, reporting bytes; None, or what apt said when it failed."""
    command = ["apt-get", *options, "-qq", "download", f"{package.package}={package.version}"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            while process.poll() is None:
                advance(package, _size(folder))
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            advance(package, package.size)
            return None
        errors.seek(0)
        return errors.read()


@contextmanager
def _bar(progress: bool) -> Iterator[Advance]:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def advance(package: Package, size: int) -> None:
            name = package.package
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=package.size)
            bar.update(tasks[name], completed=size)

        yield advance


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(), capture_output=True, check=False, encoding="utf-8", errors="replace"
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _reason(errors: str) -> str:
    """What the tool said went wrong, in one line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    serious = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))]
    return (serious or lines or ["no reason was given"])[0].removeprefix("E:").strip()


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".deb"))
