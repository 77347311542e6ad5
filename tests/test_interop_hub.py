"""`isogloss pull` from a stand-in of the hub: what comes, what is recorded, and one sentence for what cannot be had."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from isogloss import cli
from isogloss.errors import IsoglossError
from isogloss.interop.hub import pull
from isogloss.model.folder import load_model, save_model
from small_models import build

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """/api/models/NAME/revision/REV, /api/models/NAME/tree/COMMIT and /NAME/resolve/COMMIT/FILE."""

    models: ClassVar[dict[str, dict[str, bytes]]] = {}
    fetched: ClassVar[list[str]] = []
    breaks: ClassVar[set[str]] = set()

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        words = self.path.partition("?")[0].strip("/").split("/")
        api = words[:2] == ["api", "models"]
        organisation, name, place, revision, *file = words[2:] if api else words
        files = self.models.get(f"{organisation}/{name}")
        if files is None:
            self.refuse(404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif place == "revision":
            about = {"id": f"{organisation}/{name}", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
            self.answer(json.dumps(about).encode())
        elif place == "tree":
            rows = [{"type": "file", "path": f, "size": len(b), "oid": _etag(b)} for f, b in files.items()]
            self.answer(json.dumps(rows).encode())
        elif name == "gated":
            self.refuse(401, "GatedRepo")
        else:
            self.file("/".join(file), files["/".join(file)])

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def file(self, name: str, body: bytes) -> None:
        if self.command == "GET":
            self.fetched.append(name)
        if self.command == "GET" and name in self.breaks:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.close_connection = True
        else:
            self.answer(body, **{"ETag": f'"{_etag(body)}"', "X-Repo-Commit": COMMIT})


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub of this test's own, and an empty cache."""
    from huggingface_hub import constants, file_download

    handler = type("Own", (Hub,), {"models": {}, "fetched": [], "breaks": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    handler.address = address  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def ours(tmp_path: Path) -> dict[str, bytes]:
    save_model(build(), tmp_path / "model", "# A card\n")
    return files_of(tmp_path / "model")


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(IsoglossError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_comes_whole_and_nothing_that_could_run(
    hub: type[Hub], ours: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    others = {"modeling.py": b"x", "pytorch_model.bin": b"x", "tokenizer.py": b"x", "onnx/config.json": b"{}"}
    hub.models["team/small"] = ours | others
    assert cli.run(["pull", "team/small"]) == 0
    out, err = capfd.readouterr()
    folder = Path(out.strip())
    assert set(hub.fetched) == set(ours) and files_of(folder).keys() == ours.keys() | {"pulled.json"}
    assert f"isogloss transcribe --model {folder}" in err and COMMIT in err
    assert json.loads((folder / "pulled.json").read_text()) == {
        "name": "team/small",
        "revision": "main",
        "commit": COMMIT,
    }
    assert load_model(folder).decoders == ("ctc",)
    # From the cache: because it is asked to, and because the hub is gone.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull("team/small") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert pull("team/small") == folder


def test_of_many_adapters_only_the_one_that_is_asked_for_comes(
    hub: type[Hub], ours: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    adapters = {f"adapter.{name}.safetensors": b"x" for name in ("ron", "spa")}
    hub.models["team/mms"] = ours | adapters | {"lm/config.json": b"{}", "onnx/model.safetensors": b"x"}
    assert cli.run(["pull", "team/mms", "--language", "ron"]) == 0
    assert set(hub.fetched) == {*ours, "adapter.ron.safetensors", "lm/config.json"}
    assert 'no adapter "xyz"' in refusal(lambda: pull("team/mms", language="xyz"))


def test_what_is_imported_from_it_says_which_commit(
    hub: type[Hub], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 128}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    config = transformers.Wav2Vec2Config(conv_dim=[12] * 7, **sizes, **positions)
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path / "theirs")
    hub.models["others/speech"] = files_of(tmp_path / "theirs")
    assert cli.run(["pull", "others/speech", "--revision", COMMIT]) == 0
    out, err = capfd.readouterr()
    source = f"hf:{out.strip()}"
    assert f"isogloss import {source} --out models/speech" in err
    assert cli.run(["import", source, "--out", str(tmp_path / "ours")]) == 0
    card = (tmp_path / "ours/README.md").read_text(encoding="utf-8")
    assert card.startswith("# others/speech\n") and f"others/speech at commit {COMMIT}." in card


def test_what_cannot_be_had_is_one_sentence(
    hub: type[Hub], ours: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    hub.models |= {"team/small": ours, "team/gated": ours, "team/pickled": {"config.json": b"{}", "a.bin": b"x"}}
    assert 'There is no model "team/smal"' in refusal(lambda: pull("team/smal"))
    assert "team/gated is gated: accept its terms" in refusal(lambda: pull("team/gated"))
    assert 'team/small has no revision "v2"' in refusal(lambda: pull("team/small", "v2"))
    assert '"a/b/c" is no name of a model' in refusal(lambda: pull("a/b/c"))
    assert "team/pickled (main) has no .safetensors weights" in refusal(lambda: pull("team/pickled"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, and team/small (main) is not whole" in refusal(lambda: pull("team/small"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in refusal(lambda: pull("team/small"))


def test_a_download_that_breaks_off_goes_on_later(
    hub: type[Hub], ours: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.models["team/small"] = ours
    hub.breaks.add("model.safetensors")
    assert "The download of team/small broke off" in refusal(lambda: pull("team/small"))
    # What is there of it is not taken for a whole model.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not whole in the cache" in refusal(lambda: pull("team/small"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.breaks.clear()
    hub.fetched.clear()
    assert load_model(pull("team/small")).decoders == ("ctc",)
    assert hub.fetched == ["model.safetensors"]
