"""Models go out as folders of transformers: the same tensors after a round trip, the same logits, or one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.testing import assert_close

from isogloss import cli
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.embed import ConvolutionsConfig, ProjectionConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.errors import IsoglossError
from isogloss.heads.classifier import ClassifierConfig
from isogloss.heads.ctc import CTCConfig
from isogloss.interop.exporting import export_transformers
from isogloss.interop.importing import import_model
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.masks import ChunkContext
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer
from small_models import build, sound

transformers = pytest.importorskip("transformers")

LETTERS = CharacterTokenizer([" ", "'", "a", "b", "ă", "\ufffd"])
BLOCKS = {"layers": 2, "width": 32, "heads": 4, "position": "none"}


def wav2vec2(norm: str = "post", **changes: Any) -> SpeechEncoderConfig:
    blocks = TransformerConfig.parse(
        BLOCKS | {"norm": norm, "convolution": ConvolutionalPositionConfig(kernel=16, groups=4)} | changes, "test"
    )
    return SpeechEncoderConfig(embed=ProjectionConfig(), blocks=blocks)


def trained(folder: Path, encoder: SpeechEncoderConfig, tokenizer: Tokenizer | None = LETTERS, **config: Any) -> Model:
    """A model as training here leaves it: no parameter as it was initialised, with CTC and a head for languages."""
    torch.manual_seed(0)
    found = {
        "features": WaveformConfig(channels=12, norm="layer", normalisation="utterance"),
        "heads": {"ctc": CTCConfig(), "language": ClassifierConfig()},
        "languages": ("ro", "ru"),
    }
    model = Model(ModelConfig(encoder=encoder, **(found | config)), tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, folder, "# A model\n")
    return model


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


@torch.no_grad()
def test_a_recogniser_trained_here_and_its_processor(tmp_path: Path) -> None:
    model = trained(tmp_path / "ours", wav2vec2("pre"))
    found = export_transformers(tmp_path / "ours", tmp_path / "theirs")
    assert found.difference is not None and found.difference < 1e-5
    assert (found.kind, found.loader) == ("wav2vec2", "Wav2Vec2ForCTC")
    assert found.left_out == ["The head language stays here: transformers has none of its kind."]
    theirs, report = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path / "theirs")
    clips = [sound(2), sound(1.3, seed=1)]
    inputs = processor(clips, sampling_rate=16000, return_tensors="pt", padding=True)
    logits = theirs(**inputs).logits.log_softmax(dim=-1)
    batch = Sequence.from_list([torch.from_numpy(clip) for clip in clips])
    ours = model.ctc_head()(model.encode(model.features(batch)).final)
    for row, expected in zip(ours.unpad(), logits, strict=True):
        assert_close(expected[: len(row)], row, rtol=1e-4, atol=1e-4)
    ids = LETTERS.encode("ab a'ă?")
    assert processor.tokenizer("ab a'ă?").input_ids == ids
    assert processor.tokenizer.decode(ids, group_tokens=False) == "ab a'ă<unk>"
    text = LETTERS.decode(torch.unique_consecutive(logits[0].argmax(-1)).tolist())
    assert processor.decode(logits[0].argmax(-1)) == text.replace("\ufffd", "<unk>").strip()


@pytest.mark.parametrize("tokenizer", [None, CharacterTokenizer(["a", "|", " "])], ids=["none", "bar"])
def test_what_is_exported_comes_back_as_it_was(tokenizer: Tokenizer | None, tmp_path: Path) -> None:
    model = trained(tmp_path / "ours", wav2vec2(), tokenizer, heads={"ctc": CTCConfig()})
    export_transformers(tmp_path / "ours", tmp_path / "theirs")
    back = import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "back").model
    expected = model.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in back.state_dict().items())
    assert back.config.encoder == model.config.encoder and back.config.features == model.config.features
    if tokenizer is not None:
        assert back.tokenizer is not None and back.tokenizer.spelling() == tokenizer.spelling()


def test_hubert_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    trained(tmp_path / "ours", wav2vec2())
    line = ["export", tmp_path / "ours", "--format", "hf", "--type", "hubert", "--out", tmp_path / "theirs"]
    assert cli.run([str(word) for word in line]) == 0
    assert "hubert.encoder.layer_norm.weight" in weights(tmp_path / "theirs")
    assert isinstance(transformers.AutoModelForCTC.from_pretrained(tmp_path / "theirs"), transformers.HubertForCTC)


def whisper(dropout: float = 0.0) -> dict[str, Any]:
    blocks = TransformerConfig(layers=2, width=128, heads=2, position="none", dropout=dropout)
    features = LogMelConfig(flavour="whisper", low_hz=0.0, normalisation="whisper")
    return {"encoder": SpeechEncoderConfig(embed=ConvolutionsConfig(), blocks=blocks), "features": features}


@torch.no_grad()
def test_an_encoder_of_whisper_trained_here(tmp_path: Path) -> None:
    """Its keys have got a bias, which transformers has none for: it changes nothing."""
    model = trained(tmp_path / "ours", **whisper())
    found = export_transformers(tmp_path / "ours", tmp_path / "theirs")
    assert found.difference is not None and found.difference < 1e-4
    assert found.left_out[0] == "The CTC head stays here: transformers has no whisper with CTC."
    assert found.loader == "WhisperEncoder" and "lm_head.weight" not in weights(tmp_path / "theirs")
    back = import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "back").model
    expected = model.state_dict()
    for name, value in back.state_dict().items():
        if name.endswith("qkv.bias"):
            assert not value[128:256].any() and torch.equal(value[:128], expected[name][:128])
        else:
            assert torch.equal(value, expected[name])


def test_a_published_whisper_comes_back_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=128,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        num_mel_bins=128,
    )
    theirs = transformers.WhisperModel(config)
    theirs.save_pretrained(tmp_path / "theirs")
    import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours")
    export_transformers(tmp_path / "ours", tmp_path / "back")
    expected, found = theirs.encoder.state_dict(), weights(tmp_path / "back")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def refusal(folder: Path, out: Path, kind: str | None = None) -> str:
    with pytest.raises(IsoglossError) as caught:
        export_transformers(folder, out, kind)
    return str(caught.value)


def test_what_transformers_has_no_place_for_is_one_sentence(tmp_path: Path) -> None:
    ours, out = tmp_path / "ours", tmp_path / "out"
    save_model(build(), ours, "")
    assert refusal(ours, out).startswith("transformers has no architecture for this encoder: the nearest, ")
    trained(ours, wav2vec2(position="rotary"))
    assert refusal(ours, out).endswith("has encoder.blocks.position: none, and the model rotary.")
    trained(ours, wav2vec2("post").model_copy(update={"context": ChunkContext(size=8)}))
    assert "encoder.context" in refusal(ours, out)
    trained(ours, wav2vec2(), heads={"ctc": CTCConfig(conditioning=(1,))})
    assert "self-conditioned CTC" in refusal(ours, out)
    assert refusal(ours, out, "hubrt") == (
        '"hubrt" is no model type that is exported. Did you mean "hubert"? These are: '
        f"{', '.join(families())}."
    )
    model = trained(ours, wav2vec2())
    save_model(model.quantised(), ours, "")
    assert "int8" in refusal(ours, out)
    assert not out.exists()


def families() -> list[str]:
    from isogloss.interop.families import FAMILIES

    return list(FAMILIES)


def test_symbols_that_are_no_letters_stay_with_a_word(tmp_path: Path) -> None:
    trained(tmp_path / "ours", wav2vec2(), ByteTokenizer(), heads={"ctc": CTCConfig()})
    found = export_transformers(tmp_path / "ours", tmp_path / "theirs")
    (sentence,) = found.left_out
    assert sentence == "The CTC head stays here: its symbols are bytes or pieces, and transformers' are letters."
    assert found.loader == "Wav2Vec2Model" and not (tmp_path / "theirs/vocab.json").exists()


def test_nothing_but_an_export_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "ours", wav2vec2())
    trained(tmp_path / "other", wav2vec2())
    assert cli.run(["export", str(tmp_path / "ours"), "--format", "hf", "--out", str(tmp_path / "other")]) == 1
    assert "other is there and holds something else" in capsys.readouterr().err
    assert load_model(tmp_path / "other").tokenizer is not None
    for _ in range(2):
        assert cli.run(["export", str(tmp_path / "ours"), "--format", "hf", "--out", str(tmp_path / "theirs")]) == 0
    card = (tmp_path / "theirs/README.md").read_text()
    assert "from transformers import Wav2Vec2ForCTC" in card and "* The head language stays here" in card
    assert json.loads((tmp_path / "theirs/config.json").read_text())["vocab_size"] == 7
    assert cli.run(["export", str(tmp_path / "ours"), "--format", "hff", "--out", str(tmp_path / "x")]) == 2
    assert "'hff' is not one of 'hf', 'onnx'" in capsys.readouterr().err
