"""What a server refuses: forms, files, keys, sites, sizes and speeds; with one sentence, and nothing left behind."""

import io
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
import soundfile

from isogloss.errors import IsoglossError
from isogloss.model.recogniser import Recogniser
from isogloss.serving import server
from isogloss.serving.settings import read_key
from served import TRANSCRIPTIONS, Running, clip, served, until
from small_models import RATE, build

KEY = "a-key-1"


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(build())


@pytest.fixture(scope="module")
def running(recogniser: Recogniser) -> Iterator[Running]:
    with served(recogniser, max_upload=1 << 20, max_seconds=20.0, stall=1.0, slowest=1e4) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Uploads are gone when their requests are."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(uploads))
    yield
    until(lambda: not list(uploads.iterdir()))


@pytest.fixture
def audio(tmp_path: Path) -> bytes:
    return clip(tmp_path).read_bytes()


def refused(running: Running, status: int, said: str, path: str = TRANSCRIPTIONS, **how: Any) -> dict[str, Any]:
    answer = running.client.post(path, **how)
    error: dict[str, Any] = answer.json()["error"]
    assert answer.status_code == status and said in error["message"], answer.text
    assert error.keys() == {"message", "type", "param", "code"}
    assert "/tmp" not in error["message"] and "uploads" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"language": "Klingonese"}, 400, "Unknown language"),
        ({"language": "el"}, 400, "It writes: ro, ru"),
        ({"language": "x" * 200}, 400, "100 characters"),
        ({"model": "whisper-1"}, 404, 'this server has "small"'),
        ({"response_format": "docx"}, 400, "verbose_json"),
        ({"timestamp_granularities[]": "letter"}, 400, "'word' or 'segment'"),
        ({"stream": "perhaps"}, 400, "true or false"),
        ({"langauge": "ro"}, 400, 'Did you mean "language"'),
        ({"prompt": "x" * 70_000}, 413, "fields of the form"),
    ],
)
def test_a_form_is_understood_or_refused(
    running: Running, audio: bytes, fields: dict[str, str], status: int, said: str
) -> None:
    refused(running, status, said, files={"file": ("a.wav", audio)}, data=fields)


def test_empty_fields_are_not_given(running: Running, audio: bytes) -> None:
    fields = {"language": "", "prompt": "", "model": "", "response_format": ""}
    assert running.client.post(TRANSCRIPTIONS, files={"file": audio}, data=fields).status_code == 200


@pytest.mark.parametrize(
    ("name", "content", "status", "said"),
    [
        ("a.wav", b"", 400, "a.wav is empty (0 bytes)"),
        ("a.doc", b"no audio" * 50, 415, "a.doc is not audio that can be read"),
        ("a.exe", b"MZ" * 5000, 415, "Formats that can be read: WAV, FLAC, Ogg"),
        ("../../etc/passwd", b"root:x:0:0" * 30, 415, "passwd is not audio"),
        ("\x1b[31m\u202e.wav", b"", 400, "\\x1b[31m\\u202e.wav is empty"),
    ],
)
def test_a_file_that_is_no_audio_is_refused(
    running: Running, name: str, content: bytes, status: int, said: str
) -> None:
    error = refused(running, status, said, files={"file": (name, content)})
    assert error["param"] == "file" and error["code"] in ("audio_empty", "audio_unreadable")


def test_audio_that_breaks_off_or_holds_nothing_is_refused(running: Running) -> None:
    flac, none = io.BytesIO(), io.BytesIO()
    soundfile.write(flac, np.random.default_rng(0).standard_normal(RATE) * 0.1, RATE, format="FLAC")
    soundfile.write(none, np.zeros(0, np.float32), RATE, format="WAV")
    refused(running, 422, "is cut or damaged", files={"file": ("a.flac", flac.getvalue()[:9000])})
    refused(running, 422, "holds no audio frames", files={"file": ("a.wav", none.getvalue())})


def test_silence_is_an_empty_text(running: Running) -> None:
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(3 * RATE, np.float32), RATE, format="WAV")
    fields = {"response_format": "verbose_json"}
    found = running.client.post(TRANSCRIPTIONS, files={"file": silence.getvalue()}, data=fields).json()
    assert (found["text"], found["language"], found["segments"]) == ("", None, []) and found["no_speech"] > 0.5
    assert running.client.post("/v1/identify", files={"file": silence.getvalue()}).json()["language"] is None


def test_a_form_has_one_file(running: Running, audio: bytes) -> None:
    refused(running, 400, 'as the part "file"', files=[("file", audio), ("file", audio)])
    refused(running, 400, 'as the part "file"', files={"audio": audio})
    refused(running, 415, "multipart/form-data", content=audio, headers={"content-type": "audio/wav"})
    refused(running, 415, "multipart/form-data", json={"file": "a.wav"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF',
        b"--x\r\n\r\nabc\r\n--x--\r\n",
        b"--x\r\n" + b"a" * 10_000,
    ],
)
def test_a_broken_form_is_refused(running: Running, body: bytes) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = running.client.post(TRANSCRIPTIONS, content=body, headers=kind)
    assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text


def test_the_size_is_checked_by_the_header_first(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(head("Content-Length: 10000000000"))
        answer = answer_on(connection)
        assert connection.recv(4096) == b""  # and it hangs up
    assert answer.startswith(b"HTTP/1.1 413 ") and b"larger than 1 MB" in answer


def test_a_header_is_not_believed(running: Running) -> None:
    """A body in chunks, without end: the server hangs up a moment after it has answered."""
    began = time.monotonic()
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        try:
            while time.monotonic() - began < 30:
                connection.sendall(block)
        except OSError:
            pass
        answer = answer_on(connection)
    assert time.monotonic() - began < 20
    assert answer.startswith(b"HTTP/1.1 413 ") and b"larger than 1 MB" in answer


def test_openais_client_is_told_of_the_size(running: Running) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.APIStatusError, match="larger than 1 MB") as caught:
        client.audio.transcriptions.create(file=("a.wav", b"RIFF" * (1 << 20)), model="small")
    assert caught.value.status_code == 413


def opus(seconds: float, container: str, *, claimed: float = 1.0) -> bytes:
    """Silence that takes next to no room: one packet of 60 ms again and again. claimed: of the true times."""
    place = io.BytesIO()
    with av.open(place, "w", format=container) as file:
        stream = file.add_stream("libopus", rate=48000, options={"b": "6000", "frame_duration": "60"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), "fltp", "mono")
        frame.rate = 48000
        content = bytes(stream.encode(frame)[-1])
        for number in range(round(seconds / 0.06)):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 48000)
            packet.duration = round(2880 * claimed)
            packet.pts = packet.dts = number * packet.duration
            file.mux(packet)
    return place.getvalue()


@pytest.mark.parametrize(("container", "claimed"), [("ogg", 1.0), ("webm", 1.0), ("matroska", 0.1)])
def test_long_audio_is_refused_also_where_it_lies(running: Running, container: str, claimed: float) -> None:
    refused(running, 413, "over the limit of 20 s", files={"file": ("a", opus(60, container, claimed=claimed))})


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_a_bomb_takes_neither_memory_nor_time(recogniser: Recogniser, container: str) -> None:
    bomb = opus(2 * 3600, container)
    with served(recogniser) as running:
        running.client.post(TRANSCRIPTIONS, files={"file": opus(2, container)})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(running, 413, "over the limit of 3600 s", files={"file": ("a", bomb)})
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < 100


def answer_on(connection: socket.socket) -> bytes:
    """All of an answer in JSON, and nothing where the server hangs up."""
    answer = b""
    while not answer.endswith(b"}") and (more := connection.recv(4096)):
        answer += more
    return answer


def head(*lines: str, path: str = TRANSCRIPTIONS) -> bytes:
    kind = "Content-Type: multipart/form-data; boundary=x"
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", kind, *lines, "", ""]).encode()


@pytest.mark.parametrize("pause", [0.3, 5.0])
def test_a_slow_body_is_given_up(running: Running, pause: float) -> None:
    """One that stops, and one that drips."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(head("Content-Length: 100000") + b"--x\r\n")
        connection.settimeout(pause)
        answer = b""
        while not answer and time.monotonic() - began < 8:
            try:
                answer = answer_on(connection)
            except TimeoutError:
                connection.sendall(b"x")
    assert answer.startswith(b"HTTP/1.1 408 ") and b"too slowly" in answer
    until(lambda: running.active() == 0)


def test_a_slow_head_is_cut_off(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with served(recogniser) as running, socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer_on(connection).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        for _ in range(3):  # on a connection that has been used
            connection.sendall(b"GET /health")
            time.sleep(0.1)
        assert connection.recv(4096) == b"" and time.monotonic() - began < 5


def test_the_key_opens(recogniser: Recogniser, audio: bytes) -> None:
    with served(recogniser, key=KEY) as running:
        for sent in ({}, {"authorization": "Bearer a-key-2"}, {"authorization": KEY}, {"authorization": "Bearer é"}):
            headers = {name: value.encode() for name, value in sent.items()}
            error = refused(running, 401, "API key", files={"file": audio}, headers=headers)
            assert error["code"] == "invalid_api_key"
        assert running.client.get("/v1/models").status_code == running.client.get("/metrics").status_code == 401
        assert running.client.get("/health").status_code == 200
        opened = openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key=KEY)
        assert opened.models.list().data
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="wrong").models.list()


def test_where_the_key_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISOGLOSS_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("ISOGLOSS_API_KEY", "from the air")
    assert read_key(None) == "from the air"
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(tmp_path / "key") == KEY
    for content in ("", "\n", "schlüssel", "two\nlines"):
        (tmp_path / "key").write_text(content, encoding="utf-8")
        with pytest.raises(IsoglossError, match="API key"):
            read_key(tmp_path / "key")


def test_pages_of_other_sites_are_refused_unless_named(recogniser: Recogniser, audio: bytes) -> None:
    other = {"origin": "https://other.example"}
    with served(recogniser) as running:
        refused(running, 403, "other sites", files={"file": audio}, headers=other)
        own = {"origin": f"http://127.0.0.1:{running.port}"}
        answer = running.client.get("/v1/models", headers=own)
        assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    with served(recogniser, origins=("https://other.example",), key=KEY) as running:
        asked = other | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert running.client.options(TRANSCRIPTIONS, headers=asked).status_code == 200
        answer = running.client.get("/v1/models", headers=other)  # a refusal that the page may read
        assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == other["origin"]


def test_a_full_server_asks_to_come_again(recogniser: Recogniser, audio: bytes) -> None:
    with served(recogniser, queue=1) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
            connection.sendall(head("Content-Length: 100000"))
            until(lambda: running.active() == 1)
            answer = running.client.post(TRANSCRIPTIONS, files={"file": audio})
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert running.client.get("/v1/models").status_code == 200
        until(lambda: running.active() == 0)  # the client that went away gave its place back
        assert running.client.post(TRANSCRIPTIONS, files={"file": audio}).status_code == 200


def test_other_paths_and_methods_are_answered(running: Running) -> None:
    for answer in (running.client.get("/v1/nothing"), running.client.get(TRANSCRIPTIONS)):
        assert answer.status_code in (404, 405) and answer.json()["error"]["message"].endswith(".")
