"""Text made audible by espeak-ng (extra `synthesis`).

espeak-ng speaks about a hundred languages by rules: nobody would take it for a person, but what it says is what the
text says. Voice, rate and pitch are drawn for each sentence, so that a model cannot learn one voice by heart.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import resample
from isogloss.text.espeak import UTF8, choose_voice, espeak

Speak = Callable[[str, str, int], NDArray[np.float32]]
"""Text, BCP 47 tag and seed -> waveform at 16 kHz, (S,): what a synthesiser must do to take espeak-ng's place."""

VOICES = ("", *(f"+m{n}" for n in range(1, 8)), *(f"+f{n}" for n in range(1, 6)))
WORDS_A_MINUTE = (130, 200)
PITCH = (30, 70)

_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, language: str, seed: int = 0) -> NDArray[np.float32]:
    """A sentence as espeak-ng says it, (S,) float32 at 16 kHz; the seed draws voice, rate and pitch.

    The same arguments give the same samples. Raises IsoglossError for a language that espeak-ng does not speak.
    """
    draw = np.random.default_rng(seed)
    pieces = [np.zeros(0, dtype=np.int16)]

    @_CALLBACK
    def collect(samples: Any, count: int, _events: int) -> int:
        if count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    with espeak() as (library, sample_rate):
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        library.espeak_SetSynthCallback(collect)
        choose_voice(library, language, VOICES[draw.integers(len(VOICES))])
        library.espeak_SetParameter(_RATE_PARAMETER, int(draw.integers(*WORDS_A_MINUTE)), 0)
        library.espeak_SetParameter(_PITCH_PARAMETER, int(draw.integers(*PITCH)), 0)
        said = text.encode() + b"\0"
        library.espeak_Synth(said, len(said), 0, 0, 0, UTF8, None, None)
    return resample(np.concatenate(pieces).astype(np.float32) / 32768, sample_rate)
