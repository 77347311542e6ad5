"""Live transcription over a websocket, clients that leave, time-outs, and the end of a server."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from isogloss.audio.pcm import PCM
from isogloss.model.recogniser import Recogniser
from isogloss.serving import realtime
from served import TRANSCRIPTIONS, Running, clip, served, until
from small_models import build, sound, streaming

FINISH = json.dumps({"type": "finish"})


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(streaming())


@pytest.fixture(scope="module")
def running(recogniser: Recogniser) -> Iterator[Running]:
    with served(recogniser, max_seconds=20.0) as found:
        yield found


def pcm(seconds: float, seed: int = 0) -> bytes:
    return (sound(seconds, seed) * 32767).round().astype("<i2").tobytes()


def dial(running: Running, query: str = "", **how: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}/v1/realtime{query}", ping_interval=None, **how)


def rest(session: ClientConnection) -> list[dict[str, Any]]:
    """All messages until the server hangs up."""
    messages = []
    while True:
        try:
            messages.append(json.loads(session.recv(timeout=30)))
        except ConnectionClosed:
            return messages


def test_words_arrive_while_somebody_speaks(running: Running, recogniser: Recogniser) -> None:
    data = pcm(3)
    expected = list(recogniser.stream(iter([PCM().feed(data)])))
    assert len(expected) > 2
    with dial(running) as session:
        for start in range(0, len(data), 3001):  # also in the middle of a sample
            session.send(data[start : start + 3001])
        early = json.loads(session.recv(timeout=30))  # before the end is known
        session.send(FINISH)
        messages = [early, *rest(session)]
        assert session.close_code == 1000
    words = [message for message in messages if message["type"] == "word"]
    assert [word["word"] for word in words] == [word.text for word in expected]
    assert [word["start"] for word in words] == pytest.approx([word.start for word in expected], abs=1e-3)
    assert messages[-1] == {"type": "done", "text": " ".join(word.text for word in expected)}
    partial = [message["text"] for message in messages if message["type"] == "partial"]
    assert partial and partial[-1] == "" and all(isinstance(text, str) for text in partial)


def test_sessions_side_by_side_do_not_mix(running: Running, recogniser: Recogniser) -> None:
    def text(seed: int) -> str:
        with dial(running) as session:
            data = pcm(1.5, seed)
            for start in range(0, len(data), 6400):
                session.send(data[start : start + 6400])
            session.send(FINISH)
            return str(rest(session)[-1]["text"])

    def expected(seed: int) -> str:
        return " ".join(word.text for word in recogniser.stream(iter([PCM().feed(pcm(1.5, seed))])))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(text, range(4))) == [expected(seed) for seed in range(4)]


@pytest.mark.parametrize(
    ("query", "sent", "said"),
    [
        ("?language=Klingonese", b"", "Unknown language"),
        ("?language=ro", b"", "not taught to write"),
        ("", "finish", '{"type": "finish"}'),
        ("", "[" * 100_000, "Send samples in binary"),
        ("", json.dumps({"type": "begin"}), "Send samples in binary"),
        ("", b"\0" * 700_000, "lasts 20 s at most"),
    ],
)
def test_a_session_ends_with_a_sentence(running: Running, query: str, sent: bytes | str, said: str) -> None:
    with dial(running, query) as session:
        with suppress(ConnectionClosed):  # some are refused before they have said anything
            session.send(sent)
        message = rest(session)[-1]
    assert message["type"] == "error" and said in message["error"]["message"]
    until(lambda: running.active() == 0)


def test_a_model_that_wants_the_whole_is_given_windows_of_it() -> None:
    data = pcm(4)
    recogniser = Recogniser(build())
    expected = [word.text for word in recogniser.stream(iter([PCM().feed(data)]))]
    with served(recogniser) as running, dial(running) as session:
        session.send(data)
        session.send(FINISH)
        messages = rest(session)
        assert [message["word"] for message in messages if message["type"] == "word"] == expected != []
        assert messages[-1] == {"type": "done", "text": " ".join(expected)}
        assert running.client.get("/v1/models").json()["data"][0]["streams"] is True


def test_a_model_that_does_not_transcribe_says_so() -> None:
    with served(Recogniser(build(recognises=False))) as running, dial(running) as session:
        assert rest(session)[-1]["type"] == "error"
        assert running.client.get("/v1/models").json()["data"][0]["streams"] is False


def test_a_silent_session_ends(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "SILENT", 0.2)
    with dial(running) as session:
        assert "Nothing has arrived" in rest(session)[-1]["error"]["message"]


def test_who_leaves_a_session_gives_its_place_back(running: Running) -> None:
    with dial(running) as session:
        session.send(pcm(1))
        until(lambda: running.active() == 1)
        session.socket.close()
        until(lambda: running.active() == 0)


def test_a_session_needs_the_key(recogniser: Recogniser) -> None:
    with served(recogniser, key="k-1", queue=1) as running:
        for how in ({}, {"subprotocols": ["realtime", "openai-insecure-api-key.k-2"]}):
            with pytest.raises(InvalidStatus) as caught:
                dial(running, **how)
            assert caught.value.response.status_code == 401 and b"API key" in caught.value.response.body
        with pytest.raises(InvalidStatus) as caught:
            dial(running, origin="https://other.example", additional_headers={"Authorization": "Bearer k-1"})
        assert caught.value.response.status_code == 403
        with dial(running, additional_headers={"Authorization": "Bearer k-1"}) as session:
            with pytest.raises(InvalidStatus) as caught:  # a session takes a place
                dial(running, additional_headers={"Authorization": "Bearer k-1"})
            assert caught.value.response.status_code == 429 and caught.value.response.headers["Retry-After"]
            session.send(FINISH)
            assert rest(session)[-1] == {"type": "done", "text": ""}
        until(lambda: running.active() == 0)
        with dial(running, subprotocols=["realtime", "openai-insecure-api-key.k-1"]) as session:
            assert session.subprotocol == "realtime"


class Held:
    """Holds the model's thread until it is let go."""

    def __init__(self, running: Running):
        self.go = threading.Event()
        started = threading.Event()
        running.service.worker.call(lambda: (started.set(), self.go.wait(30)))
        started.wait(10)


def test_who_leaves_is_not_worked_for(running: Running, tmp_path: Path) -> None:
    path, held = clip(tmp_path), Held(running)
    before = running.service.metrics.text()
    with httpx.Client(timeout=0.5) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post(f"http://127.0.0.1:{running.port}{TRANSCRIPTIONS}", files={"file": path.read_bytes()})
    until(lambda: running.active() == 0)
    held.go.set()
    assert running.client.post(TRANSCRIPTIONS, files={"file": path.read_bytes()}).status_code == 200
    assert batches(running.service.metrics.text()) == batches(before) + 1


def batches(metrics: bytes) -> float:
    (line,) = [line for line in metrics.decode().splitlines() if line.startswith("isogloss_batch_recordings_count")]
    return float(line.split()[-1])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(recogniser: Recogniser, tmp_path: Path, stream: bool) -> None:
    with served(recogniser, timeout=0.5) as running:
        held = Held(running)
        asked = {"files": {"file": clip(tmp_path).read_bytes()}, "data": {"stream": str(stream)}}
        answer = running.client.post(TRANSCRIPTIONS, **asked)
        held.go.set()
        assert "took longer than 0 s" in answer.text and answer.status_code == (200 if stream else 503)


def test_what_is_in_flight_is_finished_at_the_end(recogniser: Recogniser, tmp_path: Path) -> None:
    path = clip(tmp_path)
    with served(recogniser, grace=60.0) as running, ThreadPoolExecutor(1) as threads, dial(running) as session:
        session.send(pcm(1))
        held = Held(running)
        url = f"http://127.0.0.1:{running.port}"
        waiting = threads.submit(httpx.post, f"{url}{TRANSCRIPTIONS}", files={"file": path.read_bytes()}, timeout=30)
        until(lambda: running.active() == 2)
        running.server.should_exit = True
        until(lambda: httpx.get(f"{url}/health", timeout=30).status_code == 503)
        late = httpx.post(f"{url}{TRANSCRIPTIONS}", files={"file": path.read_bytes()}, timeout=30)
        assert late.status_code == 503 and "shutting down" in late.json()["error"]["message"]
        assert late.headers["retry-after"]
        held.go.set()
        assert waiting.result().json()["text"] == recogniser.transcribe(path).text
        expected = " ".join(word.text for word in recogniser.stream(iter([PCM().feed(pcm(1))])))
        assert rest(session)[-1] == {"type": "done", "text": expected}  # what was said is not lost
        assert session.close_code == 1012
    until(lambda: _refuses(url))


def test_a_server_does_not_wait_for_ever(recogniser: Recogniser, tmp_path: Path) -> None:
    with served(recogniser, grace=0.5) as running, ThreadPoolExecutor(1) as threads:
        held = Held(running)
        url = f"http://127.0.0.1:{running.port}{TRANSCRIPTIONS}"
        waiting = threads.submit(httpx.post, url, files={"file": clip(tmp_path).read_bytes()}, timeout=30)
        until(lambda: running.active() == 1)
        running.server.should_exit = True
        answer = waiting.result(30)
        assert answer.status_code == 503 and "was stopped" in answer.json()["error"]["message"]
        held.go.set()


def _refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", timeout=1)
    except httpx.TransportError:
        return True
    return False
