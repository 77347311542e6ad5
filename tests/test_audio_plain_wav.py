"""Plain WAV files are read as libsndfile reads them, and every other WAV file is left to it."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio import plain_wav
from isogloss.audio.decoders import decoder
from isogloss.audio.libsndfile import Sndfile
from isogloss.audio.plain_wav import PlainWav
from isogloss.audio.sources import DEFAULT_LIMITS, opened


def wav(frames: int = 1000, channels: int = 1, rate: int = 16000, subtype: str = "PCM_16") -> bytes:
    noise = np.random.default_rng(0).uniform(-1, 1, (frames, channels))
    file = io.BytesIO()
    sf.write(file, noise, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.integers(1, 3), st.data())
def test_samples_are_those_of_libsndfile(frames: int, channels: int, data: st.DataObject):
    content = wav(frames, channels, 44100)
    begin = data.draw(st.integers(0, frames))
    end = data.draw(st.none() | st.integers(begin, frames + 9))
    with opened(content, DEFAULT_LIMITS) as ours, opened(content, DEFAULT_LIMITS) as theirs:
        found, peer = PlainWav.of(ours), Sndfile("peer", theirs.file)
        assert found is not None
        for name in ("rate", "channels", "format", "frames", "stated", "seeks"):
            assert getattr(found, name) == getattr(peer, name)
        assert found.count() == peer.count() and found.claims(1.0) == peer.claims(1.0)
        blocks, others = [*found.blocks(begin, end)], [*peer.blocks(begin, None if end is None else min(end, frames))]
        assert all(block.dtype == np.float32 and block.shape[1] == channels for block in blocks)
        np.testing.assert_array_equal(*(np.concatenate([np.zeros((0, channels)), *x]) for x in (blocks, others)))


def test_a_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(1000, 2))
    monkeypatch.setattr(plain_wav, "BLOCK_VALUES", 300)
    with opened(path, DEFAULT_LIMITS) as content:
        blocks = [*decoder(content).blocks(10, 900)]
    assert [len(block) for block in blocks] == [150] * 5 + [140]
    np.testing.assert_array_equal(np.concatenate(blocks), sf.read(path, dtype="float32")[0][10:900])


@pytest.mark.parametrize(
    "content",
    [
        wav()[:-1],  # cut
        wav() + b"LIST",  # something behind it
        wav() + wav(),  # joined
        wav(subtype="PCM_24"),
        wav(subtype="FLOAT"),
        wav(subtype="GSM610", rate=8000),
        wav()[:22] + b"\0\0" + wav()[24:],  # no channels
        wav()[:24] + bytes(4) + wav()[28:],  # no rate
        wav()[:30],
        wav(0),
        b"RIFX" + wav()[4:],
    ],
    ids=["cut", "more", "joined", "24 bits", "floats", "gsm", "channels", "rate", "head", "empty", "big-endian"],
)
def test_other_files_are_left_to_others(content: bytes):
    with opened(content, DEFAULT_LIMITS) as found:
        assert PlainWav.of(found) is None
