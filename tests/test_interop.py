"""Models of other toolkits become model folders and are fine-tuned, or are refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from isogloss import cli
from isogloss.errors import IsoglossError
from isogloss.interop import comparing
from isogloss.interop.importing import import_model, is_foreign
from isogloss.model.folder import load_model
from test_interop_whisper import openai_names

transformers = pytest.importorskip("transformers")

VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7, "'": 8}
SIZES: dict[str, Any] = {
    "conv_dim": [12] * 7,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": len(VOCABULARY),
}


def saved(folder: Path) -> Any:
    """A random model of transformers, in which no parameter is as it was initialised, and its folder."""
    config = transformers.Wav2Vec2Config(**SIZES)
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    about = {"do_normalize": False, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return model


def test_an_encoder_alone_comes_without_symbols(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "ctc")
    theirs.wav2vec2.save_pretrained(tmp_path / "theirs")
    model = import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours").model
    assert model.tokenizer is None and not model.heads and model.frame_seconds == 0.02


def test_what_cannot_be_imported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(source: str) -> str:
        with pytest.raises(IsoglossError) as caught:
            import_model(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "names no format. Write hf:FOLDER" in refusal("hg:/tmp")
    assert f"There is no folder {tmp_path / 'nowhere'}" in refusal(f"hf:{tmp_path / 'nowhere'}")
    saved(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs/config.json").read_text())

    def changed(**values: Any) -> str:
        (tmp_path / "theirs/config.json").write_text(json.dumps(config | values))
        return refusal(f"hf:{tmp_path / 'theirs'}")

    known = "whisper, wav2vec2, hubert, data2vec-audio, wavlm, wav2vec2-conformer, wav2vec2-bert"
    assert f'The model type "unispeech" cannot be imported; these can: {known}.' in changed(model_type="unispeech")
    assert "hidden_act: relu, and only gelu" in changed(hidden_act="relu")
    assert "is wanted" in changed(num_conv_pos_embeddings=8)
    assert "The weights hold besides" in changed(num_hidden_layers=1)
    monkeypatch.setitem(comparing.BOUNDS, "hf", 0.0)
    assert "more than 0; nothing was written" in changed()


def test_whisper_under_other_names_may_have_a_configuration_of_its_own(tmp_path: Path) -> None:
    model = transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=64,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
            encoder_ffn_dim=256,
            decoder_ffn_dim=256,
        )
    )
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text('{"n_mels": 80}')
    safetensors.torch.save_file(openai_names(model.state_dict()), tmp_path / "theirs/model.safetensors")
    found = import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert found.kind == "Whisper" and found.difference is None
    with pytest.raises(IsoglossError, match='no adapters, and none for "ro"; leave out --language'):
        import_model(f"ct2:{tmp_path / 'theirs'}", tmp_path / "ours", language="ro")


def test_only_a_prefix_says_that_a_model_is_foreign() -> None:
    assert is_foreign("hf:folder") and is_foreign("ct2:folder")
    assert not is_foreign("runs/hf") and not is_foreign("C:/models") and not is_foreign("hf")


def test_an_imported_encoder_is_fine_tuned_in_one_line(letters: Path, tmp_path: Path) -> None:
    theirs = saved(tmp_path / "ctc")
    theirs.wav2vec2.save_pretrained(tmp_path / "theirs")
    run = tmp_path / "run"
    line = ["finetune", f"hf:{tmp_path / 'theirs'}", "--data", letters, "--out", run, "--minutes", "0.1"]
    assert cli.run([str(word) for word in line]) == 0
    model = load_model(run / "model")
    assert model.decoders == ("ctc",) and model.frame_seconds == 0.02 and (run / "imported/config.json").exists()
