"""Reading: every format, rate and channel count, exact segments, and every broken file named."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.raw import read_g722, read_u8
from isogloss.audio.reading import SAMPLE_RATE, Limits, as_waveform, info, read, write_flac
from isogloss.audio.sources import describe
from isogloss.errors import AudioError


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(
    audio: np.ndarray, rate: int = SAMPLE_RATE, format: str = "WAV", subtype: str | None = None
) -> bytes:
    file = io.BytesIO()
    sf.write(file, audio, rate, format=format, subtype=subtype)
    return file.getvalue()


def cause(source: Path | bytes, **options: object) -> str:
    with pytest.raises(AudioError) as caught:
        read(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message and message[-1] in ".)" and "remove" not in message and "fetch" not in message
    message.encode("utf-8")  # printable, whatever the file's name
    return caught.value.cause


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "ULAW", 2e-2),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
        ("OGG", "OPUS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_formats(format: str, subtype: str, tolerance: float, tmp_path: Path) -> None:
    content = encoded(tone(1.0), format=format, subtype=subtype)
    path = tmp_path / "clip"
    path.write_bytes(content)
    waveform = read(path)
    assert waveform.dtype == np.float32 and waveform.shape == (SAMPLE_RATE,)
    assert np.abs(waveform - tone(1.0))[800:-800].max() < tolerance
    for source in (str(path), content, io.BytesIO(content)):
        assert np.array_equal(read(source), waveform)
    assert info(path).format == ("MP3/MP3" if format == "MP3" else f"{format}/{subtype}")
    assert info(path).seconds == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000, 192000])
def test_rates(rate: int) -> None:
    waveform = read(encoded(tone(1.0, rate), rate, subtype="FLOAT"))
    assert abs(len(waveform) - SAMPLE_RATE) <= 1
    assert np.abs(waveform[:16000] - tone(1.0)[: len(waveform)])[800:-800].max() < 1e-4


def test_frequencies_above_the_new_nyquist_are_removed() -> None:
    waveform = read(encoded(tone(1.0, 48000, hertz=11000.0), 48000, subtype="FLOAT"))
    assert np.abs(waveform)[800:-800].max() < 1e-4


def test_channels_are_averaged() -> None:
    channels = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 8)).astype(np.float32)
    assert np.allclose(read(encoded(channels, subtype="FLOAT")), channels.mean(axis=1), atol=1e-6)


def test_constant_level_survives() -> None:
    assert np.allclose(read(encoded(np.full(1600, 0.25), subtype="FLOAT")), 0.25)


def test_one_sample() -> None:
    assert read(encoded(np.array([0.5]), subtype="FLOAT")).tolist() == [0.5]
    assert cause(encoded(np.array([0.5]), 48000)) == "no_frames"


@settings(max_examples=25)
@given(
    st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 44101]),
    st.floats(0, 2.5),
    st.floats(0.01, 0.4),
)
def test_a_segment_is_the_slice_of_the_whole(rate: int, start: float, duration: float) -> None:
    noise = np.random.default_rng(7).uniform(-0.5, 0.5, 3 * rate).astype(np.float32)
    content = encoded(noise, rate, subtype="FLOAT")
    whole = read(content)
    first, last = round(start * SAMPLE_RATE), round((start + duration) * SAMPLE_RATE)
    part = read(content, start=start, duration=duration)
    assert part.shape == (last - first,)
    assert np.abs(part - whole[first:last]).max() < 1e-5
    assert np.abs(read(content, start=start) - whole[first:]).max() < 1e-5


@pytest.mark.parametrize(("start", "duration"), [(-1.0, None), (5.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_a_segment_outside_the_file(start: float, duration: float | None) -> None:
    assert cause(encoded(tone(1.0)), start=start, duration=duration) == "no_frames"


def test_a_segment_longer_than_the_file() -> None:
    assert cause(encoded(tone(1.0)), start=0.5, duration=2.0) == "truncated"
    assert (
        len(read(encoded(tone(1.0)), start=0.5, duration=0.55)) == 8000
    )  # rounding in manifests is forgiven


def test_limits_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, tone(3.0), SAMPLE_RATE)
    monkeypatch.setattr(sf.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    assert cause(path, limits=Limits(seconds=2)) == "too_long"
    assert cause(path.read_bytes(), limits=Limits(bytes=1000)) == "too_large"
    monkeypatch.undo()
    assert len(read(path, limits=Limits(bytes=1000)))  # what lies on the disk takes no memory
    assert len(read(path, start=2.0, limits=Limits(seconds=2))) == SAMPLE_RATE


def test_a_stream_is_not_read_beyond_the_limit() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"x" * size

    stream = Endless()
    assert cause(stream, limits=Limits(bytes=3 << 20)) == "too_large"  # type: ignore[arg-type]
    assert stream.given <= 4 << 20


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio at all, only words", encoding="utf-8")
    (tmp_path / "text.flac").write_text("nor is this", encoding="utf-8")
    (tmp_path / "text.mp3").write_text("nor is this", encoding="utf-8")
    (tmp_path / "headerless.raw").write_bytes(bytes(4000))
    os.mkfifo(tmp_path / "fifo.wav")
    assert cause(tmp_path / "absent.wav") == "missing"
    assert cause(tmp_path / "text.wav/inside.wav") == "missing"
    assert cause(tmp_path / "a\0b.wav") == "missing"
    assert cause(tmp_path / "empty.wav") == "empty"
    assert cause(b"") == "empty"
    for name in ("text.wav", "text.flac", "text.mp3", "headerless.raw", "fifo.wav", "."):
        assert cause(tmp_path / name) == "unreadable"
    assert cause(encoded(np.zeros(0))) == "no_frames"


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "AU", "MP3"])
def test_truncated_files_are_told_from_short_ones(format: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * SAMPLE_RATE)
    content = encoded(noise, format=format)
    assert len(read(content)) == 3 * SAMPLE_RATE
    cut = content[: len(content) // 2]
    assert cause(cut) == "truncated"
    with pytest.raises(AudioError, match=r"only its first 1\.\d+ s of 3\.\d+ s can be decoded"):
        info(cut)


def test_a_wav_written_to_a_pipe_is_whole() -> None:
    content = bytearray(encoded(tone(1.0)))
    size = content.index(b"data") + 4
    content[size : size + 4] = b"\xff" * 4
    assert len(read(bytes(content))) == SAMPLE_RATE


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_damaged_bytes_never_escape_as_another_error(format: str, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    content = np.frombuffer(encoded(tone(0.5), format=format), np.uint8)
    for _ in range(30):
        damaged = content.copy()
        where = rng.integers(0, len(content), 20)
        damaged[where] = rng.integers(0, 256, 20)
        try:
            waveform = read(damaged.tobytes(), limits=Limits(seconds=60))
        except AudioError:
            continue
        assert np.isfinite(waveform).all() and 0 < len(waveform) <= 60 * SAMPLE_RATE
    assert capfd.readouterr().err == ""  # decoders write to the terminal past Python


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_samples_that_are_no_numbers(bad: float, rate: int) -> None:
    audio = tone(1.0, rate)
    audio[500] = bad
    assert cause(encoded(audio, rate, subtype="FLOAT")) == "not_finite"


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    path.write_bytes(encoded(tone(0.1)))
    assert len(read(path)) == 1600
    path.write_bytes(b"nothing")
    assert cause(path) == "unreadable"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.wav", "clip.wav"),
        ("запис 中文 \u200d\u00a0.wav", "запис 中文 \u200d\u00a0.wav"),
        ("\x1b[31mred\x07.wav", "\\x1b[31mred\\x07.wav"),
        ("two\nlines\r.wav", "two\\x0alines\\x0d.wav"),
        ("\u202egpj.wav", "\\u202egpj.wav"),
        (os.fsdecode(b"caf\xe9.wav"), "caf\\xe9.wav"),
        ("\ud800.wav", "\\ud800.wav"),
    ],
)
def test_names_are_shown_without_what_a_terminal_obeys(name: str, shown: str) -> None:
    assert describe(name) == describe(Path(name)) == shown
    with pytest.raises(AudioError) as caught:
        read(name)
    assert str(caught.value).startswith(shown)


def test_a_stream_of_text() -> None:
    with pytest.raises(AudioError, match='open it with mode "rb"'):
        read(io.StringIO("words"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "scale"), [(np.int8, 128), (np.int16, 32768), (np.int32, 2**31), (np.uint8, 128)]
)
def test_integer_arrays_are_scaled(kind: type, scale: int) -> None:
    limits = np.iinfo(kind)
    array = np.array([limits.min, limits.max, (limits.min + limits.max + 1) // 2], dtype=kind)
    expected = [-1.0, limits.max / scale if limits.min else 127 / 128, 0.0]
    assert as_waveform(array).tolist() == pytest.approx(expected)
    assert np.array_equal(as_waveform(torch.from_numpy(array)), as_waveform(array))


def test_arrays_and_tensors() -> None:
    wave = tone(0.5)
    stereo = np.stack([wave, -0.5 * wave])
    assert np.array_equal(as_waveform(wave), wave)
    assert np.allclose(as_waveform(stereo), 0.25 * wave, atol=1e-7)
    assert np.allclose(as_waveform(torch.from_numpy(wave).bfloat16().requires_grad_()), wave, atol=2e-3)
    assert np.allclose(as_waveform(torch.from_numpy(stereo.T)), 0.25 * wave, atol=1e-7)
    assert np.array_equal(as_waveform(wave[:, None]), wave)
    assert np.array_equal(as_waveform(wave[None]), wave)
    assert len(as_waveform((tone(0.5, 48000), 48000))) == 8000
    assert len(as_waveform((tone(0.5, 48000), np.float32(48000.0)))) == 8000
    assert len(as_waveform((tone(0.5, 22050), 22050.5))) == pytest.approx(8000, abs=1)
    assert np.array_equal(as_waveform(encoded(wave, subtype="FLOAT")), wave)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros((3, 2)),
        np.zeros((9, 10)),
        np.zeros((2, 3, 400)),
        np.zeros(()),
        np.zeros((64, 16000)),
        np.zeros(9, np.int64),
        np.zeros(9, complex),
        np.zeros(0),
        [0.0, 0.1],
        None,
        (np.zeros(9), 0),
        (np.zeros(9), "16000"),
        (np.zeros(9), True),
        (np.zeros(9), float("nan")),
        (16000, np.zeros(9)),
        {"array": np.zeros(9)},
        {},
        np.array([0.0, np.nan]),
        np.array([1e300]),
        torch.zeros(4, 0),
    ],
)
def test_arrays_that_say_nothing_clear(audio: object) -> None:
    with pytest.raises(AudioError):
        as_waveform(audio)  # type: ignore[arg-type]


def test_what_datasets_give(tmp_path: Path) -> None:
    wave = tone(0.5)
    content = encoded(wave, subtype="FLOAT")
    (tmp_path / "clip.wav").write_bytes(content)

    class Decoder:
        """As that of torchcodec, which Hugging Face datasets give from version 4 on."""

        def get_all_samples(self) -> SimpleNamespace:
            return SimpleNamespace(data=torch.from_numpy(wave[None]), sample_rate=16000)

    for audio in (
        {"array": wave, "sampling_rate": 16000, "path": "a.wav"},
        {"bytes": content, "path": "a.wav"},
        {"bytes": None, "path": str(tmp_path / "clip.wav")},
        Decoder(),
    ):
        assert np.array_equal(as_waveform(audio), wave)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match='"array" and "sampling_rate"; this one has \'audio\''):
        as_waveform({"audio": wave})


def test_flac_round_trip(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    write_flac(tmp_path / "new/clip.flac", wave)
    assert np.abs(read(tmp_path / "new/clip.flac") - wave).max() <= 1 / 32768
    with pytest.raises(AudioError):
        write_flac(tmp_path / "bad.flac", np.array([np.nan]))
    assert not (tmp_path / "bad.flac").exists()


def test_raw_eight_bit(tmp_path: Path) -> None:
    path = tmp_path / "1.ALS"
    path.write_bytes(np.round(tone(1.0, 11025) * 128 + 128).astype(np.uint8).tobytes())
    waveform = read_u8(path, 11025)
    assert len(waveform) == SAMPLE_RATE
    assert np.abs(waveform - tone(1.0))[800:-800].max() < 0.02
    path.write_bytes(b"")
    with pytest.raises(AudioError):
        read_u8(path, 11025)


def test_g722(tmp_path: Path) -> None:
    path = tmp_path / "clip.g722"
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=SAMPLE_RATE, layout="mono")
        samples = np.round(tone(1.0) * 32767).astype(np.int16)[None]
        for start in range(0, SAMPLE_RATE, 320):
            frame = av.AudioFrame.from_ndarray(samples[:, start : start + 320].copy(), "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform = read_g722(path)
    assert abs(len(waveform) - SAMPLE_RATE) < 400 and waveform.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(waveform[:SAMPLE_RATE], SAMPLE_RATE))
    assert spectrum.argmax() == 440
    with pytest.raises(AudioError, match="longer than the limit"):
        read_g722(path, limits=Limits(seconds=0.5))
    with pytest.raises(AudioError):
        read_g722(tmp_path / "absent.g722")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_stretch_from_the_end_of_ogg_is_what_is_there(subtype: str, tmp_path: Path) -> None:
    """Where libsndfile would seek to other samples."""
    rate = 48000 if subtype == "OPUS" else 22050
    with sf.SoundFile(tmp_path / "a.ogg", "w", rate, 1, format="OGG", subtype=subtype) as file:
        for part in np.split(0.1 * np.random.default_rng(0).standard_normal(3 * rate), 30):
            file.write(part)
    whole = read(tmp_path / "a.ogg")
    for start in (0.5, 2.2, 2.85, 2.9, 2.95):
        part = read(tmp_path / "a.ogg", start=start)
        assert len(part) == len(whole) - round(start * SAMPLE_RATE)
        np.testing.assert_allclose(part[400:], whole[-len(part) + 400 :], atol=2e-3)  # beyond the resampler's beginning
