"""Whisper's encoder has the states of `transformers` with the same weights, whatever format these lie in."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.testing import assert_close

from isogloss.errors import IsoglossError
from isogloss.interop import whisper
from isogloss.interop.arrays import read_ctranslate2, read_safetensors_folder
from isogloss.interop.whisper import WHISPER
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence
from small_models import sound

pytest.importorskip("transformers")

WIDTH, LAYERS = 128, 2


@pytest.fixture(scope="module")
def twin() -> Any:
    """A random model of `transformers`, in which no parameter is as it was initialised."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=1,
        encoder_attention_heads=WIDTH // whisper.HEAD_WIDTH,
        decoder_attention_heads=2,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        vocab_size=51865,
    )
    model = WhisperModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def built(found: tuple[ModelConfig, dict[str, Tensor]]) -> Model:
    config, weights = found
    model = Model(config).eval()
    assert model.state_dict().keys() == weights.keys()
    model.load_state_dict(weights)
    return model


def taken(twin: Any, prefix: str = "") -> tuple[ModelConfig, dict[str, Tensor]]:
    config = WHISPER.read(twin.config.to_dict(), {})
    return config, WHISPER.to_ours(config, {prefix + key: value for key, value in twin.state_dict().items()})


def openai_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """As OpenAI calls them."""
    swaps = {
        "encoder.layers.": "encoder.blocks.",
        "self_attn_layer_norm": "attn_ln",
        "self_attn.q_proj": "attn.query",
        "self_attn.k_proj": "attn.key",
        "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out",
        "final_layer_norm": "mlp_ln",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
        "encoder.layer_norm": "encoder.ln_post",
        "encoder.embed_positions.weight": "encoder.positional_embedding",
    }
    found = {}
    for key, value in theirs.items():
        if key.startswith("encoder."):
            for old, new in swaps.items():
                key = key.replace(old, new)
            found[key] = value
    return found


def ctranslate2_arrays(model: Model, kind: str) -> dict[str, np.ndarray]:
    """The arrays of a converted model; kind: float16, bfloat16 or int8 for the matrices of its blocks."""
    names = {
        "encoder.embed.convolutions.0.": "encoder/conv1/",
        "encoder.embed.convolutions.1.": "encoder/conv2/",
        "encoder.stack.norm.": "encoder/layer_norm/",
        "norm_attention.": "self_attention/layer_norm/",
        "attention.qkv.": "self_attention/linear_0/",
        "attention.out.": "self_attention/linear_1/",
        "feed.norm.": "ffn/layer_norm/",
        "feed.expand.": "ffn/linear_0/",
        "feed.project.": "ffn/linear_1/",
    }
    found: dict[str, np.ndarray] = {"encoder/num_heads": np.array(2, np.int16)}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        key = key.replace("encoder.stack.blocks.", "encoder/layer_").replace(".", "/")
        if "layer_norm" in key:
            key = key.replace("weight", "gamma").replace("bias", "beta")
        array = value.numpy()
        if kind == "int8" and "linear" in key and key.endswith("weight"):
            scale = 127 / np.abs(array).max(axis=1)
            found[f"{key}_scale"] = scale.astype(np.float32)
            array = np.rint(array * scale[:, None]).astype(np.int8)
        elif kind == "float16":
            array = array.astype(np.float16)
        found[key] = array
    return found


def write_ctranslate2(path: Path, arrays: dict[str, np.ndarray], aliases: dict[str, str]) -> None:
    """The format that `read_ctranslate2` describes."""
    kinds = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2, np.dtype(np.float16): 4}

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        data += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", kinds[array.dtype], array.nbytes) + array.tobytes()
    data += struct.pack("<I", len(aliases)) + b"".join(string(a) + string(b) for a, b in aliases.items())
    path.write_bytes(data)


def noise(*seconds: float) -> Sequence:
    return Sequence.from_list([torch.from_numpy(sound(s, seed)) for seed, s in enumerate(seconds)])


@torch.no_grad()
def test_features_and_states_are_those_of_transformers(twin: Any) -> None:
    from transformers import WhisperFeatureExtractor

    model = built(taken(twin))
    clips = [row.numpy() for row in noise(3, 1.7).unpad()]
    theirs = WhisperFeatureExtractor()(clips, sampling_rate=16000, return_tensors="pt").input_features
    padded = Sequence.from_list([torch.from_numpy(np.pad(clip, (0, 480_000 - len(clip)))) for clip in clips])
    features = model.features(padded)
    assert_close(features.values, theirs.mT, rtol=0, atol=1e-4)
    expected = twin.encoder(theirs, output_hidden_states=True).hidden_states
    encoded = model.encode(features, tuple(range(LAYERS)))
    for number in range(LAYERS):
        assert_close(encoded.layers[number].values, expected[number], rtol=1e-4, atol=1e-4)
    assert_close(encoded.final.values, expected[-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_short_clips_are_not_padded_to_half_a_minute(twin: Any) -> None:
    model = built(taken(twin))
    together = model.encode(model.features(noise(3, 1.7))).final
    assert together.lengths.tolist() == [150, 85]
    for row, clip in zip(together.unpad(), noise(3, 1.7).unpad(), strict=True):
        assert_close(
            model.encode(model.features(Sequence.from_list([clip]))).final.values[0], row, rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_every_format_gives_the_same_weights(twin: Any, tmp_path: Path) -> None:
    model = built(taken(twin))
    ours = model.state_dict()
    for found in (whisper.from_openai(openai_names(twin.state_dict())), taken(twin, "model.")):
        config, weights = found
        assert config == model.config
        assert weights.keys() == ours.keys() and all(torch.equal(weights[key], ours[key]) for key in ours)
    for kind, bound in (("float32", 0.0), ("float16", 1e-3), ("int8", 5e-3)):
        write_ctranslate2(
            tmp_path / "model.bin", ctranslate2_arrays(model, kind), {"encoder/again": "encoder/num_heads"}
        )
        name, found = read_ctranslate2(tmp_path)
        config, weights = whisper.from_ctranslate2(found)
        assert name == "WhisperSpec" and config == model.config and weights.keys() == ours.keys()
        for key, value in ours.items():
            assert_close(weights[key], value, rtol=bound, atol=bound)


def test_a_model_in_parts_is_one_model(twin: Any, tmp_path: Path) -> None:
    model = built(taken(twin))
    write_ctranslate2(tmp_path / "whole", ctranslate2_arrays(model, "float16"), {})
    data = (tmp_path / "whole").read_bytes()
    for number, place in enumerate(range(0, len(data), 100_000), start=1):
        (tmp_path / f"model.bin.part{number}").write_bytes(data[place : place + 100_000])
    _, whole = read_ctranslate2(tmp_path / "whole")
    _, parts = read_ctranslate2(tmp_path)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match=r"holds no model\.bin; give the folder of a CTranslate2 model"):
        read_ctranslate2(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"nothing of the kind")
    with pytest.raises(IsoglossError, match=r"model\.bin is no whole CTranslate2 model \(its version is"):
        read_ctranslate2(tmp_path)
    (tmp_path / "model.bin").write_bytes(struct.pack("<IH", 6, 100))
    with pytest.raises(IsoglossError, match="it ends too early"):
        read_ctranslate2(tmp_path)
    with pytest.raises(IsoglossError, match=r"model\.bin is pickled, which could run any code; convert it"):
        read_safetensors_folder(tmp_path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(IsoglossError, match=r"holds no \.safetensors file"):
        read_safetensors_folder(tmp_path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_safetensors_folder(tmp_path)) == ["a"]
    with pytest.raises(IsoglossError, match="no layer of an encoder"):
        whisper.from_openai({"encoder.conv1.weight": torch.zeros(8, 4, 3)})
