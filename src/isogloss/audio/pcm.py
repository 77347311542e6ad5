"""Raw samples as they arrive, from a pipe or a microphone: any rate and byte order -> 16 kHz mono float32."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from isogloss.audio.arrays import RATES, scaled
from isogloss.audio.channels import Channel, SwitchingMixer
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.errors import AudioError, IsoglossError, did_you_mean

ENCODINGS = {"s16le": "<i2", "s16be": ">i2", "s32le": "<i4", "s32be": ">i4", "f32le": "<f4", "f32be": ">f4", "u8": "u1"}
_NAME = "The stream"


class PCM:
    """Turns bytes into samples; what is cut in the middle of a sample waits for the rest.

    encoding: one of `ENCODINGS`. rate: samples a second. channels: interleaved. channel: 1 is the first;
    "mix" averages all, until they are found to cancel: from then on the first loud one is taken alone.
    """

    def __init__(self, encoding: str = "s16le", rate: int = SAMPLE_RATE, channels: int = 1, channel: Channel = "mix"):
        if encoding not in ENCODINGS:
            near = did_you_mean(encoding, ENCODINGS)
            raise IsoglossError(f'Unknown encoding "{encoding}".{near} Known: {", ".join(ENCODINGS)}.')
        if rate not in RATES:
            raise IsoglossError(f"A rate of {rate} Hz is not between {RATES[0]} and {RATES[-1]}.")
        if channels < 1:
            raise IsoglossError(f"There is no audio of {channels} channels.")
        self.dtype = np.dtype(ENCODINGS[encoding])
        self.channels = channels
        self.mixer = SwitchingMixer(_NAME, channel, channels)
        self.rest = b""
        self.resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1) if rate != SAMPLE_RATE else None

    def feed(self, data: bytes, last: bool = False) -> NDArray[np.float32]:
        """The samples of these bytes, (S,) in [-1, 1]; resampling holds some back until the last call."""
        data = self.rest + data
        whole = len(data) - len(data) % (self.dtype.itemsize * self.channels)
        self.rest = data[whole:]
        values = np.frombuffer(data[:whole], self.dtype).reshape(-1, self.channels)
        samples = self.mixer(scaled(values.astype(self.dtype.newbyteorder("="), copy=False)))
        if not np.isfinite(samples).all():
            raise AudioError("The stream holds samples that are no numbers; is this its encoding?", "not_finite")
        if self.resampler is None:
            return samples
        return np.asarray(self.resampler.resample_chunk(samples, last), dtype=np.float32)


def pieces(source: BinaryIO, pcm: PCM, seconds: float = 0.1) -> Iterator[NDArray[np.float32]]:
    """Samples of a pipe as they arrive, at most about `seconds` at a time."""
    size = max(1, round(seconds * SAMPLE_RATE)) * pcm.dtype.itemsize * pcm.channels
    read = getattr(source, "read1", source.read)
    while data := read(size):
        yield pcm.feed(data)
    yield pcm.feed(b"", last=True)


def microphone(seconds: float = 0.1) -> Iterator[NDArray[np.float32]]:
    """Samples of the default microphone until the caller stops; needs the package sounddevice."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio, which it stands on, is missing
        raise IsoglossError(
            f"The microphone needs the package sounddevice and PortAudio ({error}): pip install sounddevice; "
            "or pipe raw samples in: arecord -f S16_LE -r 16000 -t raw | isogloss transcribe --stream -."
        ) from None
    try:
        with sounddevice.InputStream(samplerate=SAMPLE_RATE, channels=1, dtype="float32") as stream:
            while True:
                yield stream.read(round(seconds * SAMPLE_RATE))[0][:, 0]
    except sounddevice.PortAudioError as error:
        raise IsoglossError(f"There is no microphone to listen to ({error}).") from None
