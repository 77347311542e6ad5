"""Lengths that lie: every format is decoded to its end, and what info counts is what read reads."""

import io
import math
import os
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio import ffmpeg, libsndfile, plain_wav, reading, sources
from isogloss.audio.blocks import trimmed
from isogloss.audio.decoders import decoder
from isogloss.audio.parts import Part, PartFile
from isogloss.audio.reading import SAMPLE_RATE, Limits, convert, estimated_seconds, info, read, read_blocks
from isogloss.errors import AudioError

SECONDS = 3.0
CONTAINERS = [
    ("mp4", "aac", 16000),
    ("ipod", "aac", 44100),
    ("ipod", "alac", 16000),
    ("mov", "pcm_s16le", 48000),
    ("webm", "libopus", 48000),
    ("matroska", "flac", 16000),
    ("matroska", "libmp3lame", 44100),
    ("adts", "aac", 16000),
    ("mpegts", "aac", 16000),
    ("3gp", "libopencore_amrnb", 8000),
    ("amr", "libopencore_amrnb", 8000),
    ("asf", "wmav2", 16000),
    ("mp3", "libmp3lame", 16000),
    ("mp3", "libmp3lame", 44100),
    ("mp2", "mp2", 44100),
    ("ogg", "libopus", 48000),
    ("wav", "adpcm_ms", 16000),
]
SNDFILE = [
    ("WAV", "PCM_16", 22050),
    ("WAV", "GSM610", 8000),
    ("WAV", "IMA_ADPCM", 16000),
    ("AU", "G721_32", 8000),
    ("FLAC", "PCM_16", 44100),
    ("OGG", "VORBIS", 22050),
    ("OGG", "OPUS", 16000),
    ("CAF", "ALAC_16", 16000),
    ("W64", "PCM_16", 16000),
    ("RF64", "PCM_16", 16000),
]


def sound(seconds: float = SECONDS, rate: int = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    """Tones below 2.5 kHz that swell and fade, (S,) float32: other stretches are other sounds."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitches, swells = 2 * np.pi * rng.uniform([[150], [1]], [[2500], [4]], (2, 6))
    waves = np.sin(np.outer(time, pitches)) * np.sin(np.outer(time, swells))
    return (0.1 * waves.sum(axis=1)).astype(np.float32)


def encoded(audio: np.ndarray, rate: int = SAMPLE_RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    sf.write(file, audio, rate, format=format, subtype=subtype)
    return file.getvalue()


def muxed(
    audio: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    to: Path | None = None,
    header: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """Mono audio as FFmpeg writes it; header: options of the container, the others are the codec's."""
    file = io.BytesIO()
    with av.open(str(to) if to else file, "w", format=container, options=header or {}) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono", options=options)
        if codec == "wmav2":
            stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(audio[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return to.read_bytes() if to else file.getvalue()


@cache
def example(kind: tuple[str, str, int]) -> bytes:
    container, codec, rate = kind
    audio = sound(rate=rate)
    return encoded(audio, rate, container, codec) if kind in SNDFILE else muxed(audio, rate, container, codec)


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """Correlation of what was expected with where it is found best: encoders add silence, or take some away."""
    size = len(found) + len(expected)
    spectrum = np.fft.rfft(found, size) * np.fft.rfft(expected, size).conj()
    products = np.fft.irfft(spectrum, size)
    best = int(products.argmax())
    begin = best if best < len(found) else best - size
    there = found[max(begin, 0) : max(begin, 0) + len(expected)]
    return float(products[best] / np.linalg.norm(there) / np.linalg.norm(expected))


def refused(content: bytes | Path, cause: str, match: str | None = None) -> None:
    """By info as by read, in one sentence that sends nobody to throw speech away."""
    for ask in (info, read):
        with pytest.raises(AudioError, match=match) as caught:
            ask(content)
        assert caught.value.cause == cause and not re.search("remove|fetch", str(caught.value))


@pytest.mark.parametrize("kind", [*CONTAINERS, *SNDFILE], ids=lambda kind: "-".join(map(str, kind)))
def test_decoded_to_its_end(kind: tuple[str, str, int], tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(example(kind))
    waveform = read(path)
    rate = kind[2]
    assert len(waveform) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.15)
    assert likeness(waveform, sound()) > (0.5 if rate == 8000 else 0.9)  # speech codecs are made for no tones
    assert len(waveform) == pytest.approx(info(path).seconds * SAMPLE_RATE, abs=1)
    assert np.array_equal(read(example(kind)), waveform)


COPIED = [CONTAINERS[1], CONTAINERS[4], CONTAINERS[13], SNDFILE[0]]


@pytest.mark.parametrize("kind", COPIED, ids=lambda kind: "-".join(map(str, kind)))
def test_in_blocks_and_as_a_copy_it_is_the_same(
    kind: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (ffmpeg, libsndfile, plain_wav):
        monkeypatch.setattr(module, "BLOCK_VALUES", 10_000)
    content = example(kind)
    blocks = list(read_blocks(content))
    assert len(blocks) > 3 and np.allclose(np.concatenate(blocks), read(content), atol=1e-6)
    part = np.concatenate(list(read_blocks(content, start=1.1, duration=0.7)))
    assert np.allclose(part, read(content, start=1.1, duration=0.7), atol=1e-6)
    convert(content, tmp_path / "copy.flac")
    assert np.allclose(read(tmp_path / "copy.flac"), read(content), atol=1e-4)
    assert info(content).seeks == (kind[0] in ("mp3", "WAV")) and info(tmp_path / "copy.flac").seeks
    assert estimated_seconds(content) == pytest.approx(SECONDS, abs=0.2)


def test_how_long_a_browser_recorded_is_guessed_by_its_size() -> None:
    """MediaRecorder states no length."""
    content = muxed(sound(), 48000, "webm", "libopus", header={"live": "1"})
    assert estimated_seconds(content) == len(content) / 2000


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*CONTAINERS, *SNDFILE]), st.floats(0, 2.5), st.floats(0.01, 0.4))
def test_a_stretch_is_the_slice_of_the_whole(kind: tuple[str, str, int], start: float, duration: float) -> None:
    content = example(kind)
    whole = read(content)
    first, last = round(start * SAMPLE_RATE), round((start + duration) * SAMPLE_RATE)
    part = read(content, start=start, duration=duration)
    assert part.shape == (last - first,)
    assert np.abs(part - whole[first:last]).max() < 1e-5
    rest = read(content, start=start)
    assert rest.shape == whole[first:].shape and np.abs(rest - whole[first:]).max() < 1e-5


@pytest.mark.parametrize("kind", [*CONTAINERS, *SNDFILE], ids=lambda kind: "-".join(map(str, kind)))
def test_block_by_block_as_at_once(kind: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(example(kind))
    for module in (ffmpeg, libsndfile, plain_wav):
        monkeypatch.setattr(module, "BLOCK_VALUES", 1000)
    assert np.abs(read(example(kind)) - whole).max() < 1e-5


def test_mp3_with_a_variable_rate_and_no_header() -> None:
    audio = np.concatenate([0.001 * sound(4.0, 44100), np.random.default_rng(0).uniform(-0.5, 0.5, 4 * 44100)])
    variable = {"flags": "+qscale", "global_quality": "236"}
    content = muxed(audio.astype(np.float32), 44100, "mp3", "libmp3lame", header={"write_xing": "0"}, **variable)
    assert abs(sf.info(io.BytesIO(content)).duration - 8) > 1  # what libsndfile makes of it
    assert info(content).seconds == pytest.approx(8, abs=0.1)
    assert len(read(content)) == pytest.approx(8 * SAMPLE_RATE, abs=1600)
    assert np.abs(read(content, start=6.0, duration=0.5)).max() > 0.4


def test_a_browser_states_no_length() -> None:
    content = muxed(sound(rate=48000), 48000, "webm", "libopus", header={"live": "1"})
    assert info(content).seconds == pytest.approx(SECONDS, abs=0.1)
    assert likeness(read(content), sound()) > 0.97
    cut = content[: len(content) * 2 // 3]
    assert info(cut).seconds == pytest.approx(len(read(cut)) / SAMPLE_RATE) and 1.5 < info(cut).seconds < 2.5


def test_flac_written_to_a_pipe() -> None:
    content = bytearray(encoded(sound(), format="FLAC"))
    content[21] &= 0xF0  # of STREAMINFO, after 8 bytes of headers: the total of samples, 36 bits
    content[22:26] = bytes(4)
    assert info(bytes(content)).frames == SECONDS * SAMPLE_RATE
    assert np.array_equal(read(bytes(content)), read(encoded(sound(), format="FLAC")))


def test_mp3_inside_wav(capfd: pytest.CaptureFixture[str]) -> None:
    content = muxed(sound(), SAMPLE_RATE, "wav", "libmp3lame")
    assert info(content).format == "WAV/MP3" and likeness(read(content), sound()) > 0.97
    assert capfd.readouterr().err == ""


JOINED: dict[str, Callable[[np.ndarray], bytes]] = {
    "mp3": lambda audio: encoded(audio, format="MP3"),
    "vorbis": lambda audio: encoded(audio, format="OGG", subtype="VORBIS"),
    "opus": lambda audio: encoded(audio, format="OGG", subtype="OPUS"),
    "flac": lambda audio: encoded(audio, format="FLAC"),
    "wav": lambda audio: encoded(audio, format="WAV"),
    "adts": lambda audio: muxed(audio, SAMPLE_RATE, "adts", "aac"),
}


@pytest.mark.parametrize("kind", JOINED)
def test_joined_files_give_all_parts(kind: str, tmp_path: Path) -> None:
    each = [JOINED[kind](sound(seconds, seed=seed)) for seed, seconds in enumerate((1.0, 0.7, 1.3))]
    path = tmp_path / "joined"
    path.write_bytes(b"".join(each))
    alone = [read(content) for content in each]
    whole = read(path)
    padding = 0.1 if kind in ("mp3", "adts") else 0  # of each part, which nothing tells from sound
    assert len(whole) == pytest.approx(sum(map(len, alone)), abs=3 * padding * SAMPLE_RATE)
    assert info(path).seconds == pytest.approx(len(whole) / SAMPLE_RATE, abs=1e-4)
    assert all(likeness(whole, part) > 0.97 for part in alone)
    assert likeness(read(path, start=2.0), alone[2][8000:]) > 0.97
    if not padding:
        assert np.array_equal(whole, np.concatenate(alone))
        assert np.array_equal(read(path, start=0.9, duration=1.5), whole[14400:38400])
    assert np.array_equal(read(path.read_bytes()), whole)


@pytest.mark.parametrize("kind", ["MP3", "OGG", "FLAC", "WAV"])
def test_parts_may_differ_in_rate_and_channels(kind: str) -> None:
    stereo = np.stack([sound(1.2, 44100, seed=1)] * 2, axis=1)
    each = (sound(1.0, 32000), 32000), (stereo, 44100), (sound(0.5, 32000), 32000)
    content = b"".join(encoded(audio, rate, kind) for audio, rate in each)
    whole = read(content)
    assert len(whole) == pytest.approx(2.7 * SAMPLE_RATE, abs=4800 if kind == "MP3" else 3)
    # Where the rate changes, FFmpeg says so one frame of MP3 too late.
    assert info(content).seconds == pytest.approx(len(whole) / SAMPLE_RATE, abs=0.05 if kind == "MP3" else 1e-3)
    assert likeness(whole, sound(1.2, seed=1)) > 0.97
    part = read(content, start=1.5, duration=0.4)
    assert likeness(whole, part) > 0.97 if kind == "MP3" else np.abs(part - whole[24000:30400]).max() < 1e-3


def with_size(content: bytes, name: bytes, size: int) -> bytes:
    place = content.index(name) + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "GSM610", "MS_ADPCM"])
@pytest.mark.parametrize("stated", [0, 200, 2000])
def test_wav_of_a_recorder_that_died(subtype: str, stated: int, tmp_path: Path) -> None:
    audio = sound(rate=8000)
    content = encoded(audio, 8000, subtype=subtype)
    whole = read(content)
    data = content.index(b"data")
    died = with_size(content[:data] + b"JUNK\x06\0\0\0" + bytes(6) + content[data:], b"data", stated)
    path = tmp_path / "died.wav"
    path.write_bytes(with_size(died, b"RIFF", 0))
    assert info(path).seconds == pytest.approx(SECONDS, abs=0.05)
    assert len(read(path)) == pytest.approx(len(whole), abs=600)
    count = min(len(whole), len(read(path))) - 800
    assert np.abs(read(path)[:count] - whole[:count]).max() < 1e-5
    assert np.abs(read(path, start=1.0, duration=0.5) - read(path)[16000:24000]).max() < 1e-5


def test_other_headers_that_were_never_finished() -> None:
    audio = sound()
    au, rf64, caf = (encoded(audio, format=kind, subtype="PCM_16") for kind in ("AU", "RF64", "CAF"))
    sizes = rf64.index(b"ds64") + 8
    data = caf.index(b"data", 60)
    for content in (
        au[:8] + bytes(4) + au[12:],
        au[:8] + struct.pack(">I", 5000) + au[12:],
        rf64[:sizes] + bytes(24) + rf64[sizes + 24 :],
        caf[: data + 4] + b"\xff" * 8 + caf[data + 12 :],
    ):
        assert info(content).seconds == pytest.approx(SECONDS)
        assert np.abs(read(content) - audio).max() < 1e-4


def test_what_follows_the_audio_of_a_wav_is_no_audio() -> None:
    content = encoded(sound())
    tag = b"LIST" + struct.pack("<I", 6000) + b"INFOICMT" + struct.pack("<I", 5988) + b"x" * 5988
    for behind in (tag, tag + tag, b"TAG" + bytes(125)):
        assert len(read(content + behind)) == SECONDS * SAMPLE_RATE
    empty = encoded(np.zeros(0))
    for content in (empty, empty + tag):
        refused(content, "no_frames", "holds no audio frames")


def ogg_pages(content: bytes) -> list[bytearray]:
    pages, place = [], 0
    while place < len(content):
        segments = content[place + 26]
        end = place + 27 + segments + sum(content[place + 27 : place + 27 + segments])
        pages.append(bytearray(content[place:end]))
        place = end
    return pages


def sealed(page: bytearray) -> bytes:
    """The page with the checksum of RFC 3533: polynomial 0x04c11db7, nothing inverted."""
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", crc)
    return bytes(page)


def test_opus_that_libsndfile_calls_malformed() -> None:
    content = encoded(sound(), format="OGG", subtype="OPUS")
    pages = ogg_pages(content)
    position = struct.unpack("<q", pages[3][6:14])[0]
    pages[3][6:14] = struct.pack("<q", position - 480)  # ten milliseconds too early, as some encoders write it
    odd = b"".join(map(sealed, pages))
    with pytest.raises(sf.LibsndfileError):
        sf.read(io.BytesIO(odd))
    assert info(odd).seconds == pytest.approx(SECONDS, abs=0.02)
    assert len(read(odd)) == pytest.approx(SECONDS * SAMPLE_RATE, abs=320)
    assert likeness(read(odd), sound()) > 0.97
    assert likeness(read(odd, start=1.5, duration=1.4), sound()[24000:]) > 0.9


@pytest.mark.parametrize("kind", [("mp4", "aac"), ("matroska", "flac"), ("mp3", "libmp3lame")])
def test_a_cut_file_says_how_much_is_there(kind: tuple[str, str], tmp_path: Path) -> None:
    header = {"movflags": "faststart"} if kind[0] == "mp4" else {}
    content = muxed(sound(), SAMPLE_RATE, *kind, to=tmp_path / "whole", header=header)
    refused(content[: len(content) * 2 // 3], "truncated", r"first [12]\.\d\d s of 3\.\d\d s can be decoded")
    assert len(read(content[: len(content) * 2 // 3], start=0.2, duration=0.5)) == 8000


def test_an_mp4_without_its_index() -> None:
    content = muxed(sound(), SAMPLE_RATE, "mp4", "aac")
    refused(content[: len(content) // 2], "unreadable", "MP4 file without its index")


def test_damage_in_the_middle_is_told() -> None:
    content = bytearray(muxed(sound(), SAMPLE_RATE, "mp4", "aac"))
    middle = len(content) // 2
    content[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    refused(bytes(content), "truncated", "cut or damaged: only its first 1")


def test_pictures_hold_no_sound() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    refused(file.getvalue(), "no_frames", "no sound")


def test_a_play_list_opens_no_other_file(tmp_path: Path) -> None:
    sf.write(tmp_path / "clip.wav", sound(), SAMPLE_RATE)
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/clip.wav\n#EXT-X-ENDLIST\n"
    joined = f"ffconcat version 1.0\nfile {tmp_path}/clip.wav\n"
    for name, text in (("list.m3u8", listed), ("list.ffconcat", joined), ("list.mp4", listed)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        refused(tmp_path / name, "unreadable")


def test_tags_in_another_encoding() -> None:
    tag = b"TAG" + b"caf\xe9\xff".ljust(125, b"\0")
    assert len(read(encoded(sound(), format="MP3") + tag)) == SECONDS * SAMPLE_RATE


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.m4a"))
    path.write_bytes(example(("ipod", "aac", 44100)))
    assert info(path).format == "MOV/AAC" and len(read(path)) > 2.9 * SAMPLE_RATE


def test_limits_hold_where_no_length_is_stated() -> None:
    content = example(("adts", "aac", 16000))
    limits = Limits(seconds=2)
    with pytest.raises(AudioError, match="lasts 3 s, over the limit of 2 s"):
        read(content, limits=limits)
    assert len(read(content, start=1.5, limits=limits)) == pytest.approx(1.5 * SAMPLE_RATE, abs=2400)
    for start, duration, cause in [(5.0, None, "no_frames"), (5.0, 1.0, "no_frames"), (2.5, 1.0, "truncated")]:
        with pytest.raises(AudioError, match="lasts 3") as caught:
            read(content, start=start, duration=duration)
        assert caught.value.cause == cause
    for far in (float("nan"), float("inf"), 1e15):
        for unknown in (content, example(("mp3", "libmp3lame", 16000))):
            with pytest.raises(AudioError, match=f"nothing at {far} s"):
                read(unknown, start=far)


def test_a_long_file_is_counted_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_LONG", 1000)
    path = tmp_path / "long.mp3"
    path.write_bytes(encoded(sound(), format="MP3"))
    with monkeypatch.context() as patched:
        assert info(path).seconds == pytest.approx(SECONDS)
        patched.setattr(ffmpeg.FFmpeg, "count", lambda _: pytest.fail("counted again"))
        assert info(path).seconds == pytest.approx(SECONDS)
    path.write_bytes(path.read_bytes() * 2)
    assert info(path).seconds == pytest.approx(2 * SECONDS, abs=0.2)


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(0, 30), st.one_of(st.none(), st.integers(0, 30)))
def test_trimmed_is_a_slice(sizes: list[int], skip: int, count: int | None) -> None:
    whole = np.arange(sum(sizes), dtype=np.float32)[:, None]
    blocks = np.split(whole, np.cumsum(sizes)) if sizes else []
    found = [*trimmed(iter(blocks), skip, count)]
    expected = whole[skip:] if count is None else whole[skip : skip + count]
    assert np.array_equal(np.concatenate([whole[:0], *found]), expected)


@given(
    st.binary(max_size=20),
    st.integers(0, 50),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 30))),
)
def test_a_part_is_a_file(head: bytes, begin: int, length: int, reads: list[tuple[int, int]]) -> None:
    content = bytes(range(100))
    file = io.BufferedReader(PartFile(io.BytesIO(content), Part(begin, begin + length, head)), buffer_size=8)
    expected = io.BytesIO(head + content[begin : begin + length])
    assert file.read() == expected.getvalue()
    for place, count in reads:
        assert file.seek(place) == expected.seek(place)
        assert file.read(count) == expected.read(count)
        assert file.tell() == expected.tell()
    assert file.seek(-1 if len(expected.getvalue()) else 0, io.SEEK_END) == max(0, len(expected.getvalue()) - 1)


def test_resampling_of_parts_keeps_time() -> None:
    whole = read(encoded(sound(1.0, 48000), 48000, "FLAC") + encoded(sound(1.0, 44100), 44100, "FLAC"))
    assert len(whole) == pytest.approx(2 * SAMPLE_RATE, abs=1)
    expected = soxr.resample(sound(1.0, 44100), 44100, SAMPLE_RATE)
    assert np.abs(whole[SAMPLE_RATE + 800 : -800] - expected[800:-800]).max() < 1e-3


def test_a_long_file_that_is_broken_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * SAMPLE_RATE).astype(np.float32)
    path = tmp_path / "talk.flac"
    path.write_bytes(encoded(noise, format="FLAC")[: 11 << 17])
    assert path.stat().st_size > 1 << 20
    decoded = []
    monkeypatch.setattr(reading, "decoder", lambda content: decoded.append(1) or decoder(content))
    for _ in range(3):
        with pytest.raises(AudioError, match="is cut or damaged") as caught:
            info(path)
        assert caught.value.cause == "truncated"
    assert len(decoded) == 1
    path.write_bytes(encoded(noise, format="FLAC"))
    assert info(path).seconds == 60


def test_a_length_without_end() -> None:
    """Of a file that states its length, and of one that does not."""
    for kind in (SNDFILE[0], CONTAINERS[0]):
        content = example(kind)
        assert np.array_equal(read(content, limits=Limits(seconds=math.inf)), read(content))
        with pytest.raises(AudioError, match=r"nothing from 0\.0 s on for inf s; correct start and duration"):
            read(content, duration=math.inf)
