"""The model folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import isogloss
from isogloss.audio.log_mel import LogMelConfig
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.files import read_json, write_json
from isogloss.model import folder as model_folder
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model
from isogloss.model.recogniser import Recogniser
from isogloss.model.spec import ModelConfig
from isogloss.nn.masks import ChunkContext
from isogloss.sequence import Sequence
from small_models import build, sound


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    save_model(build(), path, "# A card\n", {"name": "test"})
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(path: Path) -> str:
    """The one sentence a folder is refused with."""
    with pytest.raises(IsoglossError) as error:
        load_model(path)
    message = str(error.value)
    assert "\n" not in message and message[-1] in ".?"
    return message


def test_a_model_survives_its_folder_bit_by_bit(saved: Path) -> None:
    assert {file.name for file in saved.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "README.md"
    }  # fmt: skip
    model, loaded = build(), load_model(saved)
    assert not loaded.training
    assert loaded.config == model.config
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    before, after = Recogniser(model), isogloss.load(saved)
    audio = sound(3)
    assert before.transcribe(audio) == after.transcribe(audio)
    assert before.identify(audio) == after.identify(audio)
    assert torch.equal(before.encode(audio), after.encode(audio))
    assert loaded.processor.tokens("abc") == model.processor.tokens("abc")
    assert read_json(saved / "config.json")["recipe"] == {"name": "test"}


@pytest.mark.parametrize("normalisation", ["running", "corpus"])
def test_statistics_and_context_are_part_of_the_folder(tmp_path: Path, normalisation: str) -> None:
    torch.manual_seed(0)
    encoder = preset("test").model_copy(update={"context": ChunkContext(size=7)})
    model = Model(ModelConfig(features=LogMelConfig(normalisation=normalisation), encoder=encoder))
    audio = Sequence.from_list([torch.from_numpy(sound(2))])
    if normalisation == "corpus":
        model.features.normaliser.fit([model.features.log_mel(audio)])
    model.train().features(audio)
    model.eval()
    save_model(model, tmp_path / "m", "")
    loaded = load_model(tmp_path / "m")
    assert loaded.encoder.config.context == ChunkContext(size=7)
    assert loaded.tokenizer is None and not loaded.heads
    assert torch.equal(loaded.features(audio).values, model.features(audio).values)
    assert loaded.features.normaliser.count == 198


def test_the_card_may_be_edited_and_missing(copy: Path) -> None:
    (copy / "README.md").write_text("other words", encoding="utf-8")
    load_model(copy)
    (copy / "README.md").unlink()
    load_model(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_flipped_byte_is_found(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for place in np.linspace(0, len(content) - 1, 16).astype(int).tolist():
        for bits in (0xFF, 0x01):
            broken = bytearray(content)
            broken[place] ^= bits
            (copy / name).write_bytes(broken)
            assert name in refused(copy)
    (copy / name).write_bytes(content)
    load_model(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_truncated_or_missing_file_is_found(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for keep in (0, 1, len(content) // 2, len(content) - 2):
        (copy / name).write_bytes(content[:keep])
        assert name in refused(copy)
    (copy / name).unlink()
    assert name in refused(copy)


@pytest.mark.parametrize(("change", "said"), [(1, "; update isogloss."), (-1, "; train it again.")])
def test_another_format_is_refused(copy: Path, change: int, said: str) -> None:
    config = read_json(copy / "config.json")
    other = model_folder.FORMAT + change
    write_json(copy / "config.json", config | {"format": other, "unheard": "of"})
    message = refused(copy)
    assert f"model format {other}, this isogloss reads {model_folder.FORMAT}" in message and message.endswith(said)


def test_what_is_no_model_folder_is_said(tmp_path: Path, copy: Path) -> None:
    assert "There is no model folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused(tmp_path / "empty")
    for other in ("[]", '{"model_type": "bert"}', '{"format": "1"}'):
        (copy / "config.json").write_text(other, encoding="utf-8")
        assert "not the configuration of an isogloss model" in refused(copy)


def reseal(path: Path, weights: dict[str, torch.Tensor] | None = None, **model: object) -> None:
    """Write other contents with valid digests: what only a faulty writer would produce."""
    if weights is not None:
        safetensors.torch.save_file(weights, path / "model.safetensors")
    config = read_json(path / "config.json")
    del config["digest"]
    config["files"]["model.safetensors"] = model_folder.sha256(path / "model.safetensors")
    config["model"] |= model
    write_json(path / "config.json", config | {"digest": model_folder._digest(config)})


def test_tensors_must_be_those_of_the_configuration(copy: Path) -> None:
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    reseal(copy, weights)
    load_model(copy)
    reseal(copy, weights | {"extra": torch.zeros(1)})
    assert '"extra"' in refused(copy)
    missing = {name: tensor for name, tensor in weights.items() if name != "heads.ctc.output.bias"}
    reseal(copy, missing)
    assert '"heads.ctc.output.bias"' in refused(copy)
    reseal(copy, weights | {"heads.ctc.output.bias": torch.zeros(3)})
    assert '"heads.ctc.output.bias" has shape (3,), not (7,)' in refused(copy)
    reseal(copy, weights, unheard=1)
    assert 'unknown key "unheard"' in refused(copy)


def test_a_broken_safetensors_file_with_a_valid_digest_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not a header   ")
    reseal(copy)
    assert "not a readable safetensors file" in refused(copy)


def test_saving_replaces_the_folder_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {file.name: file.read_bytes() for file in copy.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(model_folder, "write_json", full)
        with pytest.raises(IsoglossError, match=r"Cannot write .*: No space left on device; nothing was changed\."):
            save_model(build(seed=1), copy, "new")
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == old
    assert [file.name for file in copy.parent.iterdir()] == ["model"]
    save_model(build(seed=1, recognises=False), copy, "new")
    assert not (copy / "tokenizer.json").exists()
    assert load_model(copy).tokenizer is None


def test_a_seed_and_a_configuration_make_a_model() -> None:
    first, second, third = build(seed=1), build(seed=1), build(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.encoder.parameters()), next(third.encoder.parameters()))
    assert ModelConfig.parse(json.loads(json.dumps(first.config.plain())), "json") == first.config
    assert first.frame_seconds == pytest.approx(0.04)
