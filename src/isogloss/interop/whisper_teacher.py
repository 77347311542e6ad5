"""A whole Whisper of CTranslate2, encoder and decoder, that transcribes clips for others to learn from.

    clips ─ log-mel, padded to 30 s ─ Whisper, beam search ─> texts, each with the mean probability of its tokens
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.errors import IsoglossError
from isogloss.interop.arrays import one_model_file
from isogloss.interop.whisper import SECONDS
from isogloss.sequence import Sequence

CODES = {"nb": "no", "jv": "jw", "fil": "tl", "cmn": "zh"}
"""Whisper's own codes where they are not the language subtag."""


class Written(NamedTuple):
    """A text and how sure its writer is: the geometric mean of the probabilities of its tokens."""

    text: str
    confidence: float


class WhisperTeacher:
    """Transcribes clips in languages that are told.

    folder: a CTranslate2 folder with tokenizer.json. beam: width of the search. precision: of the weights while they
    are used. most: tokens of a text. Raises IsoglossError where a part is missing or broken.
    """

    def __init__(self, folder: Path, beam: int = 5, precision: str = "int8", most: int = 200):
        try:
            from ctranslate2.models import Whisper
            from tokenizers import Tokenizer
        except ImportError as error:
            raise IsoglossError(f"{error.name} is missing; install isogloss[interop].") from None
        if not (folder / "tokenizer.json").is_file():
            raise IsoglossError(f"{folder} holds no tokenizer.json; give the folder of a whole Whisper model.")
        try:
            with one_model_file(folder) as whole:
                self.model = Whisper(str(whole), compute_type=precision)
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both libraries raise plain exceptions
            raise IsoglossError(f"{folder} cannot be used as a teacher ({error}); copy it again.") from None
        self.features = LogMelConfig(
            bins=self.model.n_mels, flavour="whisper", low_hz=0.0, normalisation="whisper"
        ).build()
        # CTranslate2 writes half as many tokens as it is told, as OpenAI's own code does.
        self.search = {"beam_size": beam, "max_length": 2 * most, "return_scores": True}

    def knows(self, language: str) -> bool:
        """Whether there is a token for a language, by its BCP 47 tag."""
        return self.tokenizer.token_to_id(f"<|{code_of(language)}|>") is not None

    def transcribe(self, clips: list[NDArray[np.float32]], languages: list[str]) -> list[Written]:
        """Clips (S,) at 16 kHz, of 30 s at most, and their languages -> what is said in each."""
        from ctranslate2 import StorageView

        if (longest := max(map(len, clips), default=0)) > SECONDS * SAMPLE_RATE:
            raise IsoglossError(f"A clip of {longest / SAMPLE_RATE:.0f} s is longer than the {SECONDS} s of Whisper.")
        padded = np.stack([np.pad(clip, (0, SECONDS * SAMPLE_RATE - len(clip))) for clip in clips])
        with torch.inference_mode():
            features = self.features(Sequence.from_list(list(torch.from_numpy(padded)))).values.mT
        prompts = [
            ["<|startoftranscript|>", f"<|{code_of(language)}|>", "<|transcribe|>", "<|notimestamps|>"]
            for language in languages
        ]
        found = self.model.generate(
            StorageView.from_array(np.ascontiguousarray(features.numpy())),
            prompts,
            **self.search,
        )
        return [
            Written(self.tokenizer.decode(result.sequences_ids[0]).strip(), math.exp(result.scores[0]))
            for result in found
        ]


def code_of(language: str) -> str:
    """Whisper's code of a BCP 47 tag."""
    subtag = language.partition("-")[0]
    return CODES.get(subtag, subtag)
