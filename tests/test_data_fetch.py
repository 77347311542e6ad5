"""Fetching Debian packages: against stand-ins for apt-get and dpkg-deb, and once for real."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from isogloss.data.fetch import cache_folder, fetch_packages
from isogloss.errors import IsoglossError

ARCHIVE = b"the bytes of an archive"
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()

# The stand-ins keep a journal of what was asked, and behave as the files in their folder tell them.
TOOLS = {
    "apt-cache": """
        echo "apt-cache $*" >> "$HERE/journal"
        if [ -e "$HERE/empty-lists" ] && ! echo "$*" | grep -q Dir::State; then exit 100; fi
        for name; do
            case "$name" in voice-*) printf 'Package: %s\\nVersion: 1:2.0-1\\nSize: 23\\nSHA256: %s\\n'\\
' Description: of several\\n lines\\n\\n' "$name" "$(cat "$HERE/digest")";; esac
        done
    """,
    "apt-get": """
        echo "apt-get $*" >> "$HERE/journal"
        if [ -e "$HERE/offline" ]; then echo "E: Temporary failure resolving" >&2; exit 100; fi
        case "$*" in *" update") exit 0;; esac
        if [ -e "$HERE/stale" ] && ! echo "$*" | grep -q Dir::State; then echo "E: 404" >&2; exit 100; fi
        printf 'the bytes of an archive' > "${*##* }_all.deb"
    """,
    "dpkg-deb": """
        if [ -e "$HERE/full" ]; then echo "dpkg-deb: error: No space left on device" >&2; exit 2; fi
        mkdir -p "$3/usr/share" && cp "$2" "$3/usr/share/content"
    """,
}


@pytest.fixture
def tools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins that comes first in PATH; the digest they state is the right one."""
    folder = tmp_path_factory.mktemp("tools")
    for name, body in TOOLS.items():
        tool = folder / name
        tool.write_text(f"#!/bin/sh\nHERE={folder}\n{body}", encoding="utf-8")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    (folder / "digest").write_text(DIGEST, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def journal(tools: Path) -> list[str]:
    path = tools / "journal"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def left_behind(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name not in (".lock", ".apt"))


def test_unpacks_verifies_and_stamps(tools: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folders = fetch_packages(["voice-b", "voice-a"], cache, progress=False)
    assert list(folders.items()) == [("voice-b", cache / "voice-b"), ("voice-a", cache / "voice-a")]
    assert (cache / "voice-a/usr/share/content").read_bytes() == ARCHIVE
    stamp = json.loads((cache / "voice-a.json").read_text(encoding="utf-8"))
    assert stamp == {"package": "voice-a", "version": "1:2.0-1", "size": 23, "sha256": DIGEST}
    assert left_behind(cache) == ["voice-a", "voice-a.json", "voice-b", "voice-b.json"]


def test_second_call_asks_nobody(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_packages(["voice-a"], tmp_path, progress=False)
    monkeypatch.setenv("PATH", "")  # not even the tools are needed any more
    asked = journal(tools)
    assert fetch_packages(["voice-a"], tmp_path, progress=False) == {"voice-a": tmp_path / "voice-a"}
    assert journal(tools) == asked


def test_folder_without_stamp_is_made_again(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "voice-a").mkdir()
    (tmp_path / "voice-a/half").touch()
    fetch_packages(["voice-a"], tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "voice-a").iterdir()] == ["usr"]


def test_progress_bar_counts_bytes(tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_packages(["voice-a"], tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "voice-a" in err
    assert "23/23 bytes" in err


def test_wrong_checksum_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    (tools / "digest").write_text("0" * 64, encoding="utf-8")
    with pytest.raises(IsoglossError, match=f"voice-a has SHA-256 {DIGEST}, not 000"):
        fetch_packages(["voice-a"], tmp_path, progress=False)
    assert left_behind(tmp_path) == []


def test_full_disk_leaves_nothing(tools: Path, tmp_path: Path) -> None:
    (tools / "full").touch()
    with pytest.raises(IsoglossError, match=r"Cannot unpack .*No space left.*ISOGLOSS_CACHE"):
        fetch_packages(["voice-a"], tmp_path, progress=False)
    assert left_behind(tmp_path) == []


def test_unknown_package_is_named_and_nothing_is_downloaded(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match=r"does not know the package nonsense.*isogloss demo --data"):
        fetch_packages(["voice-a", "nonsense"], tmp_path, progress=False)
    assert not any(" download " in line for line in journal(tools))


def test_empty_lists_are_fetched_privately(tools: Path, tmp_path: Path) -> None:
    (tools / "empty-lists").touch()
    fetch_packages(["voice-a"], tmp_path, progress=False)
    update, download = (line for line in journal(tools) if line.startswith("apt-get"))
    assert update.endswith("update")
    for line in (update, download):
        assert f"Dir::State={tmp_path / '.apt/state'}" in line
        assert f"Dir::Cache={tmp_path / '.apt/cache'}" in line


def test_stale_lists_are_renewed_once(tools: Path, tmp_path: Path) -> None:
    (tools / "stale").touch()
    fetch_packages(["voice-a"], tmp_path, progress=False)
    verbs = [line.split()[-1] for line in journal(tools) if line.startswith("apt-get")]
    assert verbs == ["voice-a=1:2.0-1", "update", "voice-a=1:2.0-1"]


def test_no_network(tools: Path, tmp_path: Path) -> None:
    (tools / "offline").touch()
    with pytest.raises(
        IsoglossError, match=r"Temporary failure resolving.*mend the network.*isogloss prepare"
    ):
        fetch_packages(["voice-a"], tmp_path, progress=False)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("tool", ["apt-get", "apt-cache", "dpkg-deb"])
def test_missing_tool_is_named(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    (tools / tool).unlink()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(IsoglossError, match=f"^{tool} is not on this machine.*isogloss demo --data FOLDER"):
        fetch_packages(["voice-a"], tmp_path, progress=False)


def test_cache_that_cannot_be_made(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IsoglossError, match="ISOGLOSS_CACHE"):
        fetch_packages(["voice-a"], tmp_path / "file/cache", progress=False)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/reader")
    monkeypatch.delenv("ISOGLOSS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/reader/.cache/isogloss")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "isogloss"
    monkeypatch.setenv("ISOGLOSS_CACHE", "~/speech")
    assert cache_folder() == Path("/home/reader/speech")


@pytest.mark.slow
def test_real_package(fetched: Callable[..., Path], tmp_path: Path) -> None:
    fetched("pocketsphinx-testdata")  # skips where there is no apt or no network
    folder = fetch_packages(["pocketsphinx-testdata"], tmp_path, progress=False)["pocketsphinx-testdata"]
    assert (folder / "usr/share/pocketsphinx/test/data/goforward.raw").stat().st_size == 89160
    assert left_behind(tmp_path) == ["pocketsphinx-testdata", "pocketsphinx-testdata.json"]
