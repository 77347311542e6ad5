"""The model's thread: what goes together, what does not wait for what, and what breaks alone."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isogloss.errors import AudioError
from isogloss.model import pieces
from isogloss.model.recogniser import Recogniser
from isogloss.serving import worker as worker_module
from isogloss.serving.asked import Searches
from isogloss.serving.worker import Job, Worker
from served import clip
from small_models import build


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(build())


class Watched:
    """A worker whose batches are noted; its thread waits until `go` is set."""

    def __init__(self, recogniser: Recogniser):
        self.batches: list[tuple[int, float]] = []
        self.worker = Worker(recogniser, lambda count, seconds: self.batches.append((count, round(seconds, 1))))
        self.go = threading.Event()
        self.worker.call(self.go.wait, 30)


@pytest.fixture
def watched(recogniser: Recogniser) -> Iterator[Watched]:
    found = Watched(recogniser)
    yield found
    found.go.set()
    found.worker.close()


def test_clients_share_a_batch_each_with_its_own_wishes(
    watched: Watched, recogniser: Recogniser, tmp_path: Path
) -> None:
    paths = [clip(tmp_path, 2 + seed / 4, seed, f"{seed}.wav") for seed in range(4)]
    hot = Searches(recogniser, None).of("cad")
    wishes: list[dict[str, Any]] = [{}, {"language": "ro"}, {"language": "ru"}, {"beam": hot}]
    expected = [recogniser.transcribe(path, **wish) for path, wish in zip(paths, wishes, strict=True)]
    jobs = [Job(path, 2.5, **wish) for path, wish in zip(paths, wishes, strict=True)]
    futures = [watched.worker.submit(job) for job in jobs]
    watched.go.set()
    assert [future.result(60).text for future in futures] == [transcript.text for transcript in expected]
    assert watched.batches == [(4, 10.0)]
    assert expected[1].text != expected[2].text


def test_what_differs_in_kind_or_is_too_much_waits(watched: Watched, tmp_path: Path) -> None:
    path = clip(tmp_path, 1)
    kinds = [Job(path, 60.0), Job(path, 50.0, "identify"), Job(path, 50.0), Job(path, 50.0)]
    for job in kinds:
        watched.worker.submit(job)
    watched.go.set()
    for job in kinds:
        job.result.result(60)
    assert watched.batches == [(2, 110.0), (1, 50.0), (1, 50.0)]


def test_what_is_cancelled_is_left_out(watched: Watched, tmp_path: Path) -> None:
    path = clip(tmp_path, 1)
    first, second = watched.worker.submit(Job(path, 1.0)), watched.worker.submit(Job(path, 1.0))
    assert watched.worker.wait > 0
    first.cancel()
    watched.go.set()
    second.result(60)
    assert watched.batches == [(1, 1.0)] and watched.worker.wait == 0


def test_what_cannot_be_read_breaks_alone(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    good = watched.worker.submit(Job(clip(tmp_path), 2.5))
    broken = watched.worker.submit(Job(tmp_path / "broken.wav", 2.5))
    watched.go.set()
    assert good.result(60).text
    with pytest.raises(AudioError):
        broken.result(60)


def test_a_bug_in_one_of_a_batch_breaks_alone(
    watched: Watched, recogniser: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe = recogniser.transcribe

    def failing(audio: list[Path], **how: Any) -> Any:
        if any(path.stem == "1" for path in audio):
            raise RuntimeError("out of memory")
        return transcribe(audio, **how)

    monkeypatch.setattr(recogniser, "transcribe", failing)
    futures = [watched.worker.submit(Job(clip(tmp_path, 1, seed, f"{seed}.wav"), 1.0)) for seed in range(3)]
    watched.go.set()
    assert futures[0].result(60) and futures[2].result(60)
    with pytest.raises(RuntimeError, match="out of memory"):
        futures[1].result(60)
    assert watched.worker.call(lambda: 3).result(60) == 3  # and the thread lives


@pytest.fixture
def many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of ten seconds is long, and every piece of it a batch."""
    monkeypatch.setattr(worker_module, "WINDOW_SECONDS", 5.0)
    monkeypatch.setattr(worker_module, "BATCH_SECONDS", 5.0)
    monkeypatch.setattr(pieces, "BATCH_SECONDS", 1.0)
    monkeypatch.setattr(pieces, "LONGEST", 2.0)


def test_short_recordings_do_not_wait_for_a_long_one(watched: Watched, many_batches: None, tmp_path: Path) -> None:
    order: list[str] = []
    long = Job(clip(tmp_path, 12, 1, "long.wav"), 12.0)
    short = Job(clip(tmp_path, 1, 2, "short.wav"), 1.0)
    other = Job(long.audio, 12.0)
    for name, job in (("long", long), ("other", other), ("short", short)):
        job.result.add_done_callback(lambda _, name=name: order.append(name))
        watched.worker.submit(job)
    watched.go.set()
    other.result.result(60)
    assert order == ["short", "long", "other"]


def test_a_long_recording_is_dropped_on_the_way(
    watched: Watched, many_batches: None, tmp_path: Path, recogniser: Recogniser
) -> None:
    asked = 0
    engine = recogniser.engine.transcribe

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        for answer in engine(*arguments):
            asked += 1
            job.result.cancel()
            yield answer

    recogniser.engine.transcribe = counted  # type: ignore[method-assign]
    try:
        job = Job(clip(tmp_path, 12), 12.0)
        watched.worker.submit(job)
        watched.go.set()
        watched.worker.call(int).result(60)
        assert watched.worker.call(int).result(60) == 0 and asked == 1
    finally:
        del recogniser.engine.transcribe  # type: ignore[method-assign]


def test_segments_are_told_in_order(watched: Watched, many_batches: None, tmp_path: Path) -> None:
    starts: list[float] = []
    tell: Callable[[Any], None] = lambda segment: starts.append(segment.start)  # noqa: E731
    future = watched.worker.submit(Job(clip(tmp_path, 12), 12.0, on_segment=tell))
    watched.go.set()
    assert [segment.start for segment in future.result(60).segments] == starts == sorted(starts)
    assert len(starts) > 2


def test_all_that_was_asked_is_done_before_the_end(recogniser: Recogniser, tmp_path: Path) -> None:
    found = Watched(recogniser)
    future = found.worker.submit(Job(clip(tmp_path), 2.5))
    found.go.set()
    found.worker.close()
    assert future.result(0).text
