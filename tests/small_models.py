"""A small model with random weights, and something for it to listen to."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from isogloss.audio.log_mel import LogMelConfig
from isogloss.decoding.symbols import Symbols
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import SubsamplingConfig
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.text import TextEncoderConfig
from isogloss.heads.classifier import ClassifierConfig
from isogloss.heads.ctc import CTCConfig, CTCHead
from isogloss.heads.transducer import TransducerConfig, TransducerHead
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.masks import ChunkContext
from isogloss.nn.predictors import LSTMConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

RATE = 16000
ALPHABET = "abcde "


def build(
    languages: tuple[str, ...] = ("ro", "ru"),
    seed: int = 0,
    recognises: bool = True,
    conditioning: tuple[int, ...] = (),
    alphabet: str = ALPHABET,
) -> Model:
    """A small model with random weights that says something."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(CharactersConfig(), [alphabet]) if recognises else None
    alphabets = {"ro": (1, 2, 3), "ru": (1, 4, 5)} if recognises else {}
    config = ModelConfig(
        encoder=preset("test"),
        heads={"ctc": CTCConfig(conditioning=conditioning), "language": ClassifierConfig()},
        languages=languages,
        alphabets=alphabets,
    )
    model = Model(config, tokenizer).eval()
    if recognises:
        output = model.ctc_head().output
        with torch.no_grad():
            states = model.encoder(model.features(Sequence.from_list([torch.from_numpy(sound(5))]))).final.values
            output.weight.mul_(4)
            # Around the mean state no symbol is favoured, so that all of them occur.
            output.bias.copy_(-output.weight @ states.mean(dim=(0, 1)))
    return model


def streaming(seed: int = 17) -> Model:
    """A small model that can stream, with self-conditioned CTC and a transducer, and says something of all it hears."""
    torch.manual_seed(seed)
    blocks = ConformerConfig(layers=3, width=16, heads=2, kernel=4, causal=True)
    config = ModelConfig(
        features=LogMelConfig(normalisation="running"),
        encoder=SpeechEncoderConfig(
            embed=SubsamplingConfig(channels=4), blocks=blocks, context=ChunkContext(size=5, left_chunks=2)
        ),
        heads={
            "ctc": CTCConfig(conditioning=(1, 2)),
            "transducer": TransducerConfig(predictor=LSTMConfig(width=8), joiner=12),
        },
    )
    model = Model(config, build_tokenizer(CharactersConfig(), ["abc "])).eval()
    ctc, transducer = model.head("ctc", CTCHead).output, model.head("transducer", TransducerHead).output
    with torch.no_grad():
        states = model.encode(model.features(Sequence.from_list([torch.from_numpy(sound(5))]))).final.values
        for layer in (ctc, transducer):
            layer.weight.mul_(6)
        ctc.bias.copy_(-ctc.weight @ states.mean(dim=(0, 1)))
    return model


def with_text() -> Model:
    """A small model with random weights and a text encoder."""
    torch.manual_seed(0)
    text = TextEncoderConfig(entry=1, convolutions=1, layers=1, duration_layers=1, refiner=1, dropout=0.0)
    config = ModelConfig(encoder=preset("test"), text=text, text_languages=("ro", "ru"), languages=("ro", "ru"))
    return Model(config, build_tokenizer(CharactersConfig(), [ALPHABET]))


def any_order(allowed: torch.Tensor) -> Symbols:
    """Certain symbols, (V,) bool, whatever they follow."""
    return Symbols(allowed[None], torch.zeros(1, len(allowed), dtype=torch.int64))


def small_recipe(folder: Path, stages: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    """A recipe of these stages for a small model with characters, on clips as short as letters."""
    return {
        "name": "test",
        "precision": "fp32",
        "device": "cpu",
        "model": {"encoder": "test", "tokenizer": {"kind": "characters", "unknown": True}} | model,
        "data": {"folders": [str(folder)], "shortest": 0.1},
        "stages": stages,
    }


VOWELS = np.array([(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)])
"""Formants in Hz."""
SYLLABLE = 0.17  # seconds


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """A made voice that voice activity takes for speech from beginning to end: vowels, and breath."""
    random = np.random.default_rng(seed)
    count = max(1, round(seconds * RATE))
    syllables = int(seconds / SYLLABLE) + 2
    time, places = np.arange(count) / (SYLLABLE * RATE), np.arange(syllables)
    pitch = np.interp(time, places, random.uniform(100, 160, syllables))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = VOWELS[random.integers(len(VOWELS), size=syllables)]
    wave = 0.02 * random.standard_normal(count)
    for harmonic in range(1, 25):
        loudness = np.full(syllables, 0.02 / harmonic)
        for number in range(3):
            distance = (harmonic * 130 - formants[:, number]) / (80 + 40 * number)
            loudness += np.exp(-0.5 * distance**2) / (1 + number)
        wave += np.interp(time, places, loudness) * np.sin(harmonic * phase)
    wave *= 0.25 + np.abs(np.sin(np.pi * time))
    return np.clip(0.15 * wave, -0.99, 0.99).astype(np.float32)
