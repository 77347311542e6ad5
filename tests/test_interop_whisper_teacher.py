"""The teacher writes what transformers' Whisper of the same weights writes, and is as sure of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isogloss.errors import IsoglossError
from isogloss.interop import whisper
from isogloss.interop.whisper_teacher import WhisperTeacher, code_of
from small_models import sound

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|ro|>", "<|no|>", "<|transcribe|>", "<|notimestamps|>"]
VOCABULARY = [*"abcdefghijklmnopqrstuvwxyz", *MARKS]
WIDTH = whisper.HEAD_WIDTH


@pytest.fixture(scope="module")
def twin() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        vocab_size=len(VOCABULARY),
        pad_token_id=VOCABULARY.index("<|endoftext|>"),
        eos_token_id=VOCABULARY.index("<|endoftext|>"),
    )
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "encoder.embed_positions" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def folder(twin: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ctranslate2.converters.transformers import WhisperLoader
    from tokenizers import Tokenizer, models

    place = tmp_path_factory.mktemp("whisper")
    spec = WhisperLoader().get_model_spec(twin)
    spec.register_vocabulary(VOCABULARY)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [2, 3], [(0, 0)]
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(str(place))
    tokens = Tokenizer(models.WordLevel({token: number for number, token in enumerate(VOCABULARY)}, "a"))
    tokens.add_special_tokens(MARKS)
    tokens.save(str(place / "tokenizer.json"))
    return place


@torch.no_grad()
def greedy(twin: Any, features: torch.Tensor, language: str, most: int = 12) -> tuple[str, float]:
    """The likeliest next token, again and again, and the mean log-probability of all, the end's included."""
    prompt = ["<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>"]
    tokens, scores = [VOCABULARY.index(token) for token in prompt], []
    while len(scores) < most:
        found = twin(input_features=features, decoder_input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
        scores.append(float(found.max()))
        tokens.append(int(found.argmax()))
        if VOCABULARY[tokens[-1]] == "<|endoftext|>":
            break
    said = [VOCABULARY[token] for token in tokens[len(prompt) :]]
    return " ".join(sign for sign in said if sign not in MARKS), float(np.mean(scores))


def test_it_writes_what_the_original_writes_and_is_as_sure(twin: Any, folder: Path) -> None:
    from transformers import WhisperFeatureExtractor

    clips = [sound(seconds, seed) for seed, seconds in enumerate((1.0, 2.5, 0.4))]
    features = WhisperFeatureExtractor()(clips, sampling_rate=16000, return_tensors="pt").input_features
    teacher = WhisperTeacher(folder, beam=1, precision="float32", most=12)
    found = teacher.transcribe(clips, ["ro", "nb", "ro-MD"])
    for row, language, written in zip(features, ("ro", "no", "ro"), found, strict=True):
        text, score = greedy(twin, row[None], language)
        assert written.text == text
        assert math.isclose(math.log(written.confidence), score, abs_tol=2e-3)


def test_languages_and_what_is_missing(folder: Path, tmp_path: Path) -> None:
    teacher = WhisperTeacher(folder)
    assert teacher.knows("ro") and teacher.knows("nb") and not teacher.knows("el")
    assert code_of("pt-BR") == "pt" and code_of("nb") == "no"
    with pytest.raises(IsoglossError, match="31 s is longer than the 30 s"):
        teacher.transcribe([np.zeros(31 * 16000, np.float32)], ["ro"])
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(IsoglossError, match="no tokenizer"):
        WhisperTeacher(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(IsoglossError, match="cannot be used"):
        WhisperTeacher(tmp_path)
