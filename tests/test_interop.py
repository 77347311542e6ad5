"""Models of other toolkits become model folders: same states, same CTC outputs, or one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from isogloss import cli
from isogloss.errors import IsoglossError
from isogloss.interop import comparing
from isogloss.interop.importing import import_model, is_foreign
from isogloss.model.folder import load_model
from isogloss.sequence import Sequence
from small_models import sound

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
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


def saved(kind: str, folder: Path, normalised: bool = False, **changes: Any) -> Any:
    """A random model of transformers, in which no parameter is as it was initialised, and its folder."""
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCTC")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    about = {"do_normalize": normalised, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return model


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert"])
@pytest.mark.parametrize("changes", [{}, LARGE], ids=["base", "large"])
@torch.no_grad()
def test_states_and_outputs_are_those_of_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = saved(kind, tmp_path / "theirs", normalised=bool(changes), **changes)
    found = import_model(f"hf:{tmp_path / 'theirs'}", tmp_path / "ours")
    assert found.difference is not None and found.difference < 1e-5
    model = load_model(tmp_path / "ours")
    audio = torch.from_numpy(sound(2))
    if changes:
        audio = (audio - audio.mean()) / (audio.var(correction=0) + 1e-7).sqrt()
    expected = theirs(audio[None], output_hidden_states=True)
    encoded = model.encode(model.features(Sequence.from_list([torch.from_numpy(sound(2))])), (0, 1))
    for number in (0, 1):
        assert_close(encoded.layers[number].values, expected.hidden_states[number], rtol=1e-4, atol=1e-4)
    letters = [0, 3, 4, 5, 6, 7, 8]  # without the marks of beginning and end
    wanted = expected.logits[..., letters].log_softmax(dim=-1)
    assert_close(model.ctc_head()(encoded.final).values, wanted, rtol=1e-4, atol=1e-4)
    assert model.tokenizer is not None
    assert model.tokenizer.decode(model.tokenizer.encode("tea at' é")) == "tea at' �"


def test_an_encoder_alone_comes_without_symbols(tmp_path: Path) -> None:
    theirs = saved("Wav2Vec2", tmp_path / "ctc")
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
    saved("Wav2Vec2", tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs/config.json").read_text())

    def changed(**values: Any) -> str:
        (tmp_path / "theirs/config.json").write_text(json.dumps(config | values))
        return refusal(f"hf:{tmp_path / 'theirs'}")

    assert 'The model type "wavlm" cannot be imported; these can: whisper, wav2vec2, hubert.' in changed(
        model_type="wavlm"
    )
    assert "hidden_act: relu, and only gelu" in changed(hidden_act="relu")
    assert "is wanted" in changed(num_conv_pos_embeddings=8)
    assert "The weights hold besides" in changed(num_hidden_layers=1)
    monkeypatch.setitem(comparing.BOUNDS, "hf", 0.0)
    assert "more than 0; nothing was written" in changed()


def test_only_a_prefix_says_that_a_model_is_foreign() -> None:
    assert is_foreign("hf:folder") and is_foreign("ct2:folder")
    assert not is_foreign("runs/hf") and not is_foreign("C:/models") and not is_foreign("hf")


def test_an_imported_encoder_is_fine_tuned_in_one_line(letters: Path, tmp_path: Path) -> None:
    theirs = saved("Wav2Vec2", tmp_path / "ctc")
    theirs.wav2vec2.save_pretrained(tmp_path / "theirs")
    run = tmp_path / "run"
    line = ["finetune", f"hf:{tmp_path / 'theirs'}", "--data", letters, "--out", run, "--minutes", "0.1"]
    assert cli.run([str(word) for word in line]) == 0
    model = load_model(run / "model")
    assert model.decoders == ("ctc",) and model.frame_seconds == 0.02 and (run / "imported/config.json").exists()
