"""Recordings in pieces: every stretch of speech in one of them, and never more than a window in memory."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from isogloss.audio import vad, windows
from isogloss.audio.reading import read, read_blocks
from isogloss.cli.recordings import Recording, here, process
from isogloss.data.manifests import Utterance
from isogloss.errors import AudioError
from isogloss.model import pieces
from isogloss.model.pieces import LONGEST, Piece, Recordings
from isogloss.model.recogniser import Recogniser
from small_models import RATE, build, sound

WINDOW = 40.0


@pytest.fixture
def talk(clips: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two minutes of real sentences with pauses, long as files go here."""
    monkeypatch.setattr(pieces, "WINDOW_SECONDS", WINDOW)
    pause = np.zeros(round(0.7 * RATE), np.float32)
    parts = [part for clip in clips[:4] for part in (read(clip.audio), pause)]
    soundfile.write(tmp_path / "talk.wav", np.resize(np.concatenate(parts), 130 * RATE), RATE)
    return tmp_path / "talk.wav"


def spoken(found: list[list[Piece]]) -> list[Piece]:
    return sorted((piece for group in found for piece in group), key=lambda piece: piece.start)


def test_a_file_is_read_window_by_window_with_what_an_array_of_it_gives(talk: Path, monkeypatch) -> None:
    asked, opened = [], []

    def spy(waveforms):
        asked.extend(len(waveform) / RATE for waveform in waveforms)
        return vad.speech_probabilities(waveforms)

    monkeypatch.setattr(windows, "speech_probabilities", spy)
    monkeypatch.setattr(pieces, "read_blocks", lambda *given, **how: opened.append(given) or read_blocks(*given, **how))
    from_file, whole = Recordings([talk]), Recordings([read(talk)])
    ours = spoken(list(from_file.speech()))
    assert len(asked) >= 4 and all(seconds == WINDOW for seconds in asked[:-1])
    assert opened == [(talk,)]  # and decoded once
    theirs = spoken(list(whole.speech()))
    assert from_file.seconds == whole.seconds == [130.0]
    assert [(p.start, p.end) for p in ours] == [(p.start, p.end) for p in theirs]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(ours, theirs, strict=True))


def test_all_speech_is_in_pieces_that_are_what_the_recording_has_there(talk: Path) -> None:
    audio = read(talk)
    found = spoken(list(Recordings([talk]).speech()))
    assert all(piece.end - piece.start <= LONGEST for piece in found)
    covered = np.zeros(len(audio), dtype=bool)
    for piece in found:
        first, last = round(piece.start * RATE), round(piece.end * RATE)
        assert np.array_equal(piece.samples, audio[first:last])
        assert not covered[first:last].any()  # nothing twice
        covered[first:last] = True
    (probabilities,) = vad.speech_probabilities([audio])
    for window in np.flatnonzero(probabilities >= 0.9):  # what is less sure depends on where looking began
        assert covered[window * vad.WINDOW : (window + 1) * vad.WINDOW].all(), window * vad.WINDOW / RATE


def test_stretches_of_a_file_leave_nothing_out(talk: Path) -> None:
    audio = read(talk)
    found = spoken(list(Recordings([talk]).even(build().framing)))
    assert np.array_equal(np.concatenate([piece.samples for piece in found]), audio)
    starts = [piece.start for piece in found]
    assert starts == sorted(starts) and starts[0] == 0


def test_a_long_file_is_transcribed_as_its_samples_are(talk: Path) -> None:
    recogniser = Recogniser(build())
    from_file, from_samples = recogniser.transcribe(talk), recogniser.transcribe(read(talk))
    assert from_file == from_samples and from_file.seconds == 130.0
    assert recogniser.encode(talk).equal(recogniser.encode(read(talk)))
    together = recogniser.transcribe([sound(2), talk, sound(3, seed=1)])
    assert [item.seconds for item in together] == [2.0, 130.0, 3.0]
    assert together[1].text == from_file.text


def test_noise_without_a_pause_is_cut_and_not_lost(monkeypatch) -> None:
    """A window that is one stretch of speech must not be put off for ever."""
    monkeypatch.setattr(pieces, "WINDOW_SECONDS", WINDOW)
    monkeypatch.setattr(windows, "segment", lambda window, *_, **__: [(0.0, len(window) / RATE)])
    found = spoken(list(Recordings([sound(100)]).speech()))
    assert [(piece.start, piece.end) for piece in found] == [(0.0, 40.0), (40.0, 80.0), (80.0, 100.0)]


def test_a_file_longer_than_its_header_states_is_read_by_windows(talk: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pieces, "estimated_seconds", lambda source: 1.0)
    monkeypatch.setattr(pieces, "WINDOW_SECONDS", 60)
    found = Recordings([talk])
    assert spoken(list(found.speech())) and found.seconds == [130.0] and not found.errors


def test_speech_in_one_window_is_speech_in_the_recording(talk: Path, monkeypatch) -> None:
    """Also where it is certain: 0 is a probability, and every search begins anew."""
    found = iter([0.0, 0.4, 0.5, 0.6] + [0.7] * 4)
    monkeypatch.setattr(windows, "segment", lambda *_, **__: [])
    monkeypatch.setattr(pieces, "no_speech", lambda probabilities: next(found))
    recordings = Recordings([talk])
    for least in (0.0, 0.7):
        assert list(recordings.speech()) == [] and recordings.no_speech == [least]


def test_the_command_line_hands_long_files_on_and_reports_the_broken_ones(talk: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("isogloss.cli.recordings.GROUP_SECONDS", WINDOW)
    soundfile.write(tmp_path / "short.wav", sound(1), RATE)
    files = [tmp_path / "short.wav", talk, tmp_path / "none.wav", tmp_path / "short.wav"]
    recordings = [Recording(str(n), file, Path(str(n))) for n, file in enumerate(files)]
    groups, broken, told = [], [], []

    def work(recordings, on_progress):
        audio = [recording.source for recording in recordings]
        groups.append(audio)
        on_progress(5.0, 10.0)
        return [AudioError("It breaks off.", "truncated") if item is talk else item for item in audio]

    found = process(recordings, here(work), broken.append, lambda *seconds: told.append(seconds))
    done = [recording.name for recording, _ in found]
    assert groups == [files[:2], files[2:]] and done == ["0", "2", "3"]
    assert [error.cause for error in broken] == ["truncated"]
    assert told == [(5.0, 132.0), (131.0, 132.0), (136.0, 132.0), (132.0, 132.0)]
