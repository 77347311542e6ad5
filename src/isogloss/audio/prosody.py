"""Prosody: pitch, voicing, energy and zero crossings of frames, (B, S) -> (B, T, 4).

    frame and what follows it ─ normalised cross-correlation at lags of 60 to 450 Hz ─ highest peak ─> F0, voiced or not

    φ[k] = Σ_n x[n] x[n+k] / √(e₀ e_k + b²),  e_k = Σ_n x[n+k]²     n over 25 ms; b: 30 dB below the power of the clip

φ is 1 at the period of a periodic sound, and at twice the period too: a short lag is preferred to one an octave longer
that is hardly better. Frames whose φ is high enough are voiced; between them, log F0 is a straight line.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.audio.spectra import FLOOR, Grid
from isogloss.sequence import Sequence

WINDOW = SAMPLE_RATE // 40
LOWEST_HZ, HIGHEST_HZ = 60.0, 450.0
VOICED = 0.6
"""φ from which on a frame is voiced."""
OCTAVE = 0.02
"""What φ of a lag twice as long must be better by."""
BALLAST = 1e-3
"""Power relative to that of the clip at which φ of a periodic frame has fallen to 0.7: hum is not voiced."""
SMOOTHING = 9
"""Samples that are averaged before: what is above 1.8 kHz says little of the pitch."""


def prosody(audio: Sequence, grid: Grid, frames: int, lengths: Tensor) -> Sequence:
    """log F0, voicing, log RMS and zero crossings a sample: (B, S) -> (B, T, 4). lengths: frames of each clip, (B,)."""
    framed = grid.framed(audio, WINDOW, frames)
    energy = 0.5 * framed.square().mean(dim=-1).clamp(min=FLOOR).log()
    signs = framed >= 0
    crossings = (signs[..., 1:] != signs[..., :-1]).to(framed.dtype).mean(dim=-1)
    pitch, voiced = fundamental(audio, grid, frames)
    known = Sequence(voiced, lengths).zero_padding().values
    found = [interpolated(pitch.log(), known), known.to(framed.dtype), energy, crossings]
    return Sequence(torch.stack(found, dim=-1), lengths).zero_padding()


def fundamental(audio: Sequence, grid: Grid, frames: int) -> tuple[Tensor, Tensor]:
    """F0 of so many frames, Hz, within its range whatever the frame, and which are voiced: (B, S) -> (B, T), (B, T)."""
    shortest, longest = int(SAMPLE_RATE / HIGHEST_HZ), int(SAMPLE_RATE / LOWEST_HZ) + 1
    clean = audio.zero_padding()
    # A sample more, for pooling wants one where all clips are empty.
    smooth = avg_pool1d(pad(clean.values, (0, 1))[:, None], SMOOTHING, 1, SMOOTHING // 2)[:, 0]
    power = smooth.square().sum(dim=1) / audio.lengths.clamp(min=1)
    framed = grid.framed(clean.with_values(smooth), WINDOW + longest, frames)
    framed = framed - framed.mean(dim=-1, keepdim=True)
    size = 1 << (WINDOW + longest - 1).bit_length()
    products = torch.fft.rfft(framed[..., :WINDOW], size).conj() * torch.fft.rfft(framed, size)
    correlation = torch.fft.irfft(products, size)[..., : longest + 1]
    sums = pad(framed.square().cumsum(dim=-1), (1, 0))
    energies = sums[..., WINDOW:] - sums[..., :-WINDOW]  # (B, T, longest + 1)
    ballast = (BALLAST * WINDOW * power)[:, None, None]
    similar = correlation / (energies[..., :1] * energies + ballast.square() + FLOOR**2).sqrt()
    lags = torch.arange(longest + 1, device=similar.device, dtype=similar.dtype)
    judged = similar - OCTAVE * (lags / shortest).clamp(min=1).log2()
    best = judged[..., shortest:longest].argmax(dim=-1, keepdim=True) + shortest
    before, peak, after = (similar.gather(-1, best + step)[..., 0] for step in (-1, 0, 1))
    curve = (2 * peak - before - after).clamp(min=FLOOR)
    lag = best[..., 0] + (0.5 * (after - before) / curve).clamp(-0.5, 0.5)
    return (SAMPLE_RATE / lag).clamp(LOWEST_HZ, HIGHEST_HZ), peak > VOICED


def interpolated(values: Tensor, known: Tensor) -> Tensor:
    """(B, T) where they are known, straight lines between, level beyond; the log of the lowest F0 where none is."""
    frames = values.shape[1]
    places = torch.arange(frames, device=values.device).expand_as(values)
    last = torch.where(known, places, -1).cummax(dim=1).values
    following = torch.where(known, places, frames).flip(1).cummin(dim=1).values.flip(1)
    left, right = (values.gather(1, ends.clamp(0, frames - 1)) for ends in (last, following))
    share = (places - last) / (following - last).clamp(min=1)
    between = left + share * (right - left)
    filled = torch.where(last < 0, right, torch.where(following >= frames, left, between))
    return torch.where(known.any(dim=1, keepdim=True), filled, torch.full_like(filled, LOWEST_HZ).log())
