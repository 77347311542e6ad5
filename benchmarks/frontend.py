"""Log-mel features of 60 s of audio: isogloss beside its peers.

    python benchmarks/frontend.py --json benchmarks/results/frontend.json        (in the peers' environment)

Every row turns the same 60 s at 16 kHz into 80 bins at 100 frames a second and is timed once a round.
`of ours` is the time over that of isogloss's plain flavour, `of the limit` the time over what the work
takes at the least on this machine: a real FFT of 512 points a frame and the mel product at the rate of
a matrix product measured in the same run, or the reading of the audio and writing of the features at
the bandwidth of a copy, whichever is longer.

The flavours differ between packages (window, floor, mean removal), so agreement is checked where two
claim the same: isogloss's kaldi flavour and torchaudio.compliance.kaldi against kaldi-native-fbank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from common import Peers, Work, environment, finish, interleaved, measure_limits, parser, table, timing_rows
from torch import Tensor

from isogloss.audio.log_mel import LogMel, LogMelConfig
from isogloss.sequence import Sequence

RATE, BINS, WINDOW, SHIFT, FFT = 16000, 80, 400, 160, 512
OURS = "isogloss plain"


def main() -> None:
    arguments = parser(__doc__, repetitions=30)
    arguments.add_argument("--seconds", type=float, default=60.0, help="length of the audio")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    audio = speech_like(round(options.seconds * RATE))
    rows: dict[str, Work] = {
        OURS: ours(audio, "plain"),
        "isogloss kaldi flavour": ours(audio, "kaldi"),
    }
    peers = Peers()
    for name, build in PEERS.items():
        peers.add(rows, name, partial(build, audio))
    with torch.inference_mode():
        agreement = differences(rows)
        limits = measure_limits(options.product)
        timings = interleaved(rows, options)
    least = limits.seconds(operations(len(audio)), moved=4 * (len(audio) + frames(len(audio)) * BINS))
    found = timing_rows(timings, dict.fromkeys(rows, OURS), dict.fromkeys(rows, least))
    table(f"log-mel, {BINS} bins, {options.seconds:g} s of audio (limit {least * 1e3:.2f} ms)", found)
    table(
        "largest difference from kaldi-native-fbank",
        [{"what": k, "nats": f"{v:.1e}"} for k, v in agreement.items()],
    )
    finish(
        options.json,
        environment()
        | {"limit_ms": least * 1e3, "rows": found, "difference": agreement, "missing": peers.missing},
    )


def speech_like(samples: int) -> Tensor:
    """Noise whose loudness comes and goes like syllables, (S,) float32 in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    loudness = 0.02 + 0.1 * torch.sin(torch.arange(samples) / RATE * 2 * torch.pi * 4).square()
    return (torch.randn(samples, generator=generator) * loudness).clamp(-1, 1)


def frames(samples: int) -> int:
    return 1 + (samples - WINDOW) // SHIFT


def operations(samples: int) -> float:
    """2.5 N log2 N for the real FFT of N points, and the mel product."""
    return frames(samples) * (2.5 * FFT * np.log2(FFT) + 2 * (FFT // 2 + 1) * BINS)


def ours(audio: Tensor, flavour: str) -> Work:
    extractor = LogMel(LogMelConfig.model_validate({"bins": BINS, "flavour": flavour}))
    batch = Sequence.from_list([audio])
    return lambda: extractor(batch).values[0]


def torchaudio_mel(audio: Tensor) -> Work:
    from torchaudio.transforms import MelSpectrogram

    extractor = MelSpectrogram(RATE, n_fft=FFT, win_length=WINDOW, hop_length=SHIFT, n_mels=BINS)
    return lambda: extractor(audio).clamp_min(1e-10).log()


def torchaudio_kaldi(audio: Tensor) -> Work:
    from torchaudio.compliance.kaldi import fbank

    scaled = audio[None]
    return lambda: fbank(scaled, num_mel_bins=BINS, dither=0.0, sample_frequency=RATE)


def speechbrain(audio: Tensor) -> Work:
    from speechbrain.lobes.features import Fbank

    extractor = Fbank(sample_rate=RATE, n_fft=FFT, n_mels=BINS, win_length=25, hop_length=10)
    return lambda: extractor(audio[None])


def lhotse(audio: Tensor) -> Work:
    from lhotse import Fbank, FbankConfig

    extractor = Fbank(FbankConfig(num_filters=BINS, dither=0.0))
    return lambda: extractor.extract(audio, RATE)


def kaldi_native(audio: Tensor) -> Work:
    import kaldi_native_fbank as kaldi

    options = kaldi.FbankOptions()
    options.mel_opts.num_bins = BINS
    options.frame_opts.dither = 0.0
    samples = audio.tolist()

    def extract() -> Tensor:
        online = kaldi.OnlineFbank(options)
        online.accept_waveform(RATE, samples)
        online.input_finished()
        return torch.from_numpy(np.stack([online.get_frame(i) for i in range(online.num_frames_ready)]))

    return extract


def transformers(audio: Tensor) -> Work:
    from transformers import SeamlessM4TFeatureExtractor

    extractor = SeamlessM4TFeatureExtractor(num_mel_bins=BINS)
    samples = audio.numpy()
    return lambda: extractor(samples, sampling_rate=RATE, return_tensors="np")


PEERS = {
    "torchaudio MelSpectrogram + log": torchaudio_mel,
    "torchaudio kaldi.fbank": torchaudio_kaldi,
    "speechbrain Fbank": speechbrain,
    "lhotse Fbank": lhotse,
    "kaldi-native-fbank": kaldi_native,
    "transformers SeamlessM4T": transformers,
}


def differences(rows: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Largest absolute difference of log energies from kaldi-native-fbank, of rows that claim the same."""
    if "kaldi-native-fbank" not in rows:
        return {}
    truth = rows["kaldi-native-fbank"]()
    same = ("isogloss kaldi flavour", "torchaudio kaldi.fbank")
    return {name: float((rows[name]() - truth).abs().max()) for name in same if name in rows}


if __name__ == "__main__":
    main()
