"""What other processes make ahead is what this one would have made."""

import multiprocessing
import os
import signal

import pytest

from isogloss.data.ahead import made_ahead
from isogloss.errors import AudioError, IsoglossError


def halved(number: int) -> float:
    if number < 0:
        raise IsoglossError(f"{number} is below 0.")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number / 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_requests(workers: int) -> None:
    assert list(made_ahead(halved, range(12), workers)) == [halved(number) for number in range(12)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_place_and_in_its_own_words(workers: int) -> None:
    results = made_ahead(halved, [1, 2, -3, 4], workers)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(IsoglossError, match=r"^-3 is below 0\.$"):
        next(results)


def broken(name: str) -> AudioError:
    return AudioError(f"{name} is no audio.", "unreadable")


def test_broken_clips_are_told_by_other_processes() -> None:
    (error,) = made_ahead(lambda name: {name: broken(name)}, ["a.wav"], 1)
    assert error["a.wav"].cause == "unreadable" and str(error["a.wav"]) == "a.wav is no audio."


def test_a_process_that_was_killed_is_one_sentence() -> None:
    with pytest.raises(IsoglossError, match=r"A process that reads audio was killed.*data\.workers"):
        list(made_ahead(halved, [1, 13, 2, 3], 1))


def test_no_process_is_left_when_nobody_asks_any_more() -> None:
    before = set(multiprocessing.active_children())
    results = made_ahead(halved, iter(range(0, 10**9, 2)), 2)
    next(results)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    results.close()
    assert not started & set(multiprocessing.active_children())
