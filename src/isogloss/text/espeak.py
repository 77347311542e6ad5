"""espeak-ng (extra `synthesis`): the library itself, and text as phonemes by its rules for a hundred languages."""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from isogloss.errors import IsoglossError

NAMES = {"en": "en-us", "no": "nb", "zh": "cmn"}
"""espeak-ng's names of languages where they are not BCP 47's."""
UTF8 = 1

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: espeak_Synth returns when all has been said
_IPA = 2
_lock = Lock()  # the library has one state for the whole process


def phonemes(texts: Iterable[str], language: str) -> list[str]:
    """Sentences in the International Phonetic Alphabet, words apart, without marks of stress.

    Raises IsoglossError for a language that espeak-ng does not know.
    """
    with espeak() as (library, _):
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        choose_voice(library, language)
        return [_phonemes(library, text) for text in texts]


def _phonemes(library: ctypes.CDLL, text: str) -> str:
    rest = ctypes.c_char_p(text.encode())
    clauses = []
    while rest.value:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, _IPA).decode())
    return " ".join(" ".join(clauses).replace("ˈ", "").replace("ˌ", "").split())


@contextmanager
def espeak() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A fresh copy of the library, for one thread at a time, and its sample rate.

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


def choose_voice(library: ctypes.CDLL, language: str, voice: str = "") -> None:
    """Set the voice of a language, or of the language without its region and script."""
    whole = language.lower()
    for tag in (whole, whole.partition("-")[0]):
        if library.espeak_SetVoiceByName(f"{NAMES.get(tag, tag)}{voice}".encode()) == 0:
            return
    raise IsoglossError(f'espeak-ng has no rules for "{language}"; leave that language out.')
