"""Text made audible and text made phonemes, by espeak-ng (extra `synthesis`).

espeak-ng speaks about a hundred languages by rules: nobody would take it for a person, but what it says is what the
text says. Voice, rate and pitch are drawn for each sentence, so that a model cannot learn one voice by heart.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import resample
from isogloss.errors import IsoglossError

Speak = Callable[[str, str, int], NDArray[np.float32]]
"""Text, BCP 47 tag and seed -> waveform at 16 kHz, (S,): what a synthesiser must do to take espeak-ng's place."""

NAMES = {"en": "en-us", "no": "nb", "zh": "cmn"}
"""espeak-ng's names of languages where they are not BCP 47's."""
VOICES = ("", *(f"+m{n}" for n in range(1, 8)), *(f"+f{n}" for n in range(1, 6)))
WORDS_A_MINUTE = (130, 200)
PITCH = (30, 70)

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: espeak_Synth returns when all has been said
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3
_UTF8, _IPA = 1, 2
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = Lock()  # the library has one state for the whole process


def speak(text: str, language: str, seed: int = 0) -> NDArray[np.float32]:
    """A sentence as espeak-ng says it, (S,) float32 at 16 kHz; the seed draws voice, rate and pitch.

    The same arguments give the same samples. Raises IsoglossError for a language that espeak-ng does not speak.
    """
    draw = np.random.default_rng(seed)
    pieces = [np.zeros(0, dtype=np.int16)]

    @_CALLBACK
    def hear(samples: Any, count: int, _events: int) -> int:
        if count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    with _espeak() as (library, sample_rate):
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        library.espeak_SetSynthCallback(hear)
        _choose(library, language, VOICES[draw.integers(len(VOICES))])
        library.espeak_SetParameter(_RATE_PARAMETER, int(draw.integers(*WORDS_A_MINUTE)), 0)
        library.espeak_SetParameter(_PITCH_PARAMETER, int(draw.integers(*PITCH)), 0)
        said = text.encode() + b"\0"
        library.espeak_Synth(said, len(said), 0, 0, 0, _UTF8, None, None)
    return resample(np.concatenate(pieces).astype(np.float32) / 32768, sample_rate)


def phonemes(texts: Iterable[str], language: str) -> list[str]:
    """Sentences in the International Phonetic Alphabet, words apart, without marks of stress.

    Raises IsoglossError for a language that espeak-ng does not know.
    """
    with _espeak() as (library, _):
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        _choose(library, language)
        return [_phonemes(library, text) for text in texts]


def _phonemes(library: ctypes.CDLL, text: str) -> str:
    rest = ctypes.c_char_p(text.encode())
    clauses = []
    while rest.value:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
    return " ".join(" ".join(clauses).replace("ˈ", "").replace("ˌ", "").split())


@contextmanager
def _espeak() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A fresh copy of the library, and its sample rate.

    Fresh, for what it says depends on what it said before, and nothing of it resets that but loading it anew (15 ms).
    """
    try:
        import espeakng_loader
    except ModuleNotFoundError:
        raise IsoglossError("Synthetic speech and phonemes want espeak-ng: pip install isogloss[synthesis].") from None
    with _lock:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            yield library, library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def _choose(library: ctypes.CDLL, language: str, voice: str = "") -> None:
    """Set the voice of a language, or of the language without its region and script."""
    whole = language.lower()
    for tag in (whole, whole.partition("-")[0]):
        if library.espeak_SetVoiceByName(f"{NAMES.get(tag, tag)}{voice}".encode()) == 0:
            return
    raise IsoglossError(f'espeak-ng does not speak "{language}"; leave that language out, or give another synthesiser.')
