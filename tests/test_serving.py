"""The server as clients see it: OpenAI's own, forms, events, and what our own endpoints add."""

import base64
import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import openai
import pytest
import soundfile
from numpy.testing import assert_allclose

from isogloss import cli
from isogloss.model.folder import save_model
from isogloss.model.index import Index, Item
from isogloss.model.recogniser import Recogniser, load
from isogloss.model.space import embed_text
from isogloss.serving import writers
from isogloss.serving.server import bound
from served import TRANSCRIPTIONS, Running, clip, served
from small_models import RATE, build, sound, with_text


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(build())


@pytest.fixture(scope="module")
def running(recogniser: Recogniser) -> Iterator[Running]:
    with served(recogniser) as found:
        yield found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return clip(tmp_path)


def client(running: Running, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key=key, max_retries=0)


def test_openais_client_lists_the_model(running: Running) -> None:
    (model,) = client(running).models.list().data
    assert (model.id, model.object) == ("small", "model")
    assert client(running).models.retrieve("small").id == "small"
    assert running.client.get("/v1/models").json()["data"][0]["languages"] == ["ro", "ru"]


def test_openais_client_transcribes_in_every_form(running: Running, recogniser: Recogniser, path: Path) -> None:
    expected = recogniser.transcribe(path, language="ro")
    create = client(running).audio.transcriptions.create
    asked = {"file": path, "model": "small", "language": "Romanian"}
    assert expected.text
    assert create(**asked).text == expected.text
    assert create(**asked, response_format="text").strip() == expected.text
    assert create(**asked, response_format="srt") == writers.srt("", expected)
    assert create(**asked, response_format="vtt") == writers.vtt("", expected)


def test_openais_client_reads_words_and_segments(running: Running, recogniser: Recogniser, path: Path) -> None:
    expected = recogniser.transcribe(path)
    found = client(running).audio.transcriptions.create(
        file=path, model="small", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (found.text, found.language) == (expected.text, expected.language)
    assert found.duration == pytest.approx(expected.seconds)
    assert found.words is not None and found.segments is not None
    assert [word.word for word in found.words] == [word.text for word in expected.words]
    assert_allclose([word.start for word in found.words], [word.start for word in expected.words], atol=1e-3)
    (segment,) = found.segments
    assert segment.text == expected.text and np.exp(segment.avg_logprob) == pytest.approx(
        expected.segments[0].confidence
    )
    probabilities = found.model_extra["probabilities"]  # type: ignore[index]
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.parametrize("asked", ["word", "segment"])
def test_only_times_that_are_asked_for_are_told(running: Running, path: Path, asked: str) -> None:
    found = client(running).audio.transcriptions.create(
        file=path, model="small", response_format="verbose_json", timestamp_granularities=[asked]
    )
    assert (found.words is None) == (asked == "segment") and (found.segments is None) == (asked == "word")


def test_openais_client_follows_a_stream(running: Running, recogniser: Recogniser, tmp_path: Path) -> None:
    pause = np.zeros(32000, np.float32)
    soundfile.write(tmp_path / "long.wav", np.concatenate([sound(2), pause, sound(2, 1), pause, sound(1, 2)]), RATE)
    expected = recogniser.transcribe(tmp_path / "long.wav")
    assert len(expected.segments) > 1
    stream = client(running).audio.transcriptions.create(file=tmp_path / "long.wav", model="small", stream=True)
    *deltas, done = stream
    assert [event.type for event in deltas] == ["transcript.text.delta"] * len(expected.segments)
    assert done.type == "transcript.text.done" and done.text == expected.text
    assert "".join(event.delta for event in deltas) == expected.text


def test_the_prompt_is_hotwords(running: Running, recogniser: Recogniser, path: Path) -> None:
    plain = recogniser.transcribe(path).text
    favoured = next(word for word in ("ebe", "cad", "dad") if word not in plain.split())
    expected = recogniser.transcribe(path, beam=recogniser.beam(hotwords=[favoured, "abba"])).text
    found = client(running).audio.transcriptions.create(file=path, model="small", prompt=f"{favoured}, abba; ?")
    assert found.text == expected != plain


def test_what_is_ignored_is_said(running: Running, path: Path) -> None:
    create = client(running).audio.transcriptions.with_raw_response.create
    ignored = create(file=path, model="small", temperature=0.5, include=["logprobs"])
    assert ignored.headers["x-isogloss-ignored"] == "temperature, include[]"
    assert "x-isogloss-ignored" not in create(file=path, model="small").headers


def test_the_language_is_identified(running: Running, recogniser: Recogniser, path: Path) -> None:
    found = running.client.post("/v1/identify", files={"file": path.read_bytes()}).json()
    expected = recogniser.identify(path)
    assert found["language"] == expected.language and found["no_speech"] == expected.no_speech
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)


def test_requests_are_numbered_and_counted(running: Running, path: Path) -> None:
    send = running.client.post
    assert send(TRANSCRIPTIONS, files={"file": path.read_bytes()}).headers["x-request-id"]
    given = send(TRANSCRIPTIONS, files={"file": path.read_bytes()}, headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    forged = send(TRANSCRIPTIONS, files={"file": b""}, headers={"x-request-id": "x" * 500})
    assert len(forged.headers["x-request-id"]) == 32
    counted = running.client.get("/metrics").text
    assert 'isogloss_requests_total{route="/v1/audio/transcriptions",status="200"}' in counted
    assert 'status="400"' in counted and "process_resident_memory_bytes" in counted
    running.client.get("/nowhere-1")
    assert "nowhere" not in running.client.get("/metrics").text
    assert running.client.get("/health").json()["status"] == "ok"


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("model")
    save_model(with_text(), folder / "model", "# A card\n")
    recogniser = load(folder / "model")
    texts = ["abc", "cab", "ded"]
    vectors = embed_text(recogniser.model, texts, ["ro"] * 3).last
    items = [*(Item("text", text, language="ro") for text in texts), Item("speech", "talk.ogg", 1.0, 2.5)]
    with served(recogniser, index=Index(items, [*vectors, vectors[1]], folder / "model")) as found:
        yield found


def test_sentences_are_embedded(searching: Running) -> None:
    expected = embed_text(searching.service.recogniser.model, ["abc", "ded"], [None, None]).last.numpy()
    found = client(searching).embeddings.create(input=["abc", "ded"], model="small")  # base64, by its default
    assert_allclose([entry.embedding for entry in found.data], expected, atol=1e-5)
    plain = client(searching).embeddings.create(input="abc", model="small", encoding_format="float")
    assert_allclose(plain.data[0].embedding, expected[0], atol=1e-5)


def test_speech_is_embedded(searching: Running, path: Path) -> None:
    sent = {"encoding_format": "base64"}
    answer = searching.client.post("/v1/embeddings", files={"file": path.read_bytes()}, data=sent).json()
    (entry,) = answer["data"]
    vector = struct.unpack(f"<{len(base64.b64decode(entry['embedding'])) // 4}f", base64.b64decode(entry["embedding"]))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4) and 0 <= entry["start"] < entry["end"] <= 2.5


def test_what_is_nearest_is_found(searching: Running, path: Path) -> None:
    search = searching.client.post
    first, second = search("/v1/search", json={"query": "cab", "count": 2, "language": "ro"}).json()["results"]
    assert first == {"id": 1, "score": 1.0, "text": "cab", "language": "ro", "audio": None}
    assert second["audio"] == "talk.ogg" and (second["start"], second["end"]) == (1.0, 2.5)
    spoken = search("/v1/search", files={"file": path.read_bytes()}, data={"count": "9", "only": "text"}).json()
    assert sorted(one["text"] for one in spoken["results"]) == ["abc", "cab", "ded"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/search", {"query": ""}, "is empty"),
        ("/v1/search", {"query": "a", "cuont": 3}, 'Did you mean "count"'),
        ("/v1/search", {"query": "a", "count": 0}, "count"),
        ("/v1/embeddings", {"input": []}, "1 to 256 texts"),
        ("/v1/embeddings", {"input": "a" * 2000}, "1000 characters"),
        ("/v1/embeddings", {"input": "a", "model": "other"}, 'this server has "small"'),
        ("/v1/embeddings", {"input": "a", "language": "Klingonese"}, "Unknown language"),
        ("/v1/embeddings", [1], "no JSON object"),
    ],
)
def test_what_cannot_be_embedded_is_told(searching: Running, path: str, body: object, said: str) -> None:
    answer = searching.client.post(path, json=body)
    assert answer.status_code in (400, 404) and said in answer.json()["error"]["message"], answer.text


def test_a_server_says_what_it_lacks(running: Running, path: Path) -> None:
    answer = running.client.post("/v1/search", json={"query": "a"})
    assert answer.status_code == 404 and "no index" in answer.json()["error"]["message"]
    answer = running.client.post("/v1/embeddings", json={"input": "a"})
    assert answer.status_code == 400 and "no text encoder" in answer.json()["error"]["message"]
    broken = running.client.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and "no JSON" in json.loads(broken.text)["error"]["message"]


def test_a_model_that_writes_nothing_is_served_for_the_rest(path: Path) -> None:
    with served(Recogniser(build(recognises=False))) as running:
        with pytest.raises(openai.BadRequestError, match="fine-tune it first"):
            client(running).audio.transcriptions.create(file=path, model="small")
        assert running.client.post("/v1/identify", files={"file": path.read_bytes()}).status_code == 200


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_model(build(), tmp_path / "model", "# A card\n")
    with bound("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for more, said in (
            (["--port", port], "address already in use; give another"),
            (["--host", "nowhere.invalid"], "Cannot listen at nowhere.invalid:8000"),
            (["--api-key-file", str(tmp_path / "none")], "The API key cannot be read from"),
            (["--port", "0", "--index", str(tmp_path)], "is no index"),
            (["--port", "0", "--lm", str(tmp_path)], "is no language model"),
        ):
            assert cli.run(["serve", "--model", str(tmp_path / "model"), *more]) == 1
            assert said in " ".join(capfd.readouterr().err.split()), more


def test_a_process_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    save_model(build(), tmp_path / "model", "# A card\n")
    command = [sys.executable, "-m", "isogloss", "serve", "--model", str(tmp_path / "model"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(line["address"] for line in map(json.loads, process.stderr) if "address" in line)
        with clip(tmp_path).open("rb") as file:
            answer = httpx.post(f"http://{address}{TRANSCRIPTIONS}", files={"file": file}, timeout=60)
        assert answer.status_code == 200
        process.terminate()
        lines = [json.loads(line) for line in process.stderr]
    (request,) = [line for line in lines if line["event"] == "request"]
    assert request["request_id"] == answer.headers["x-request-id"] and request["status"] == 200
    assert request["audio_seconds"] == 2.5 and answer.json()["text"] not in json.dumps(lines)
    assert process.returncode in (0, -signal.SIGTERM)
