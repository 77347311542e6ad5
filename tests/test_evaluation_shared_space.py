"""How near speech and text lie: figures of real clips, and a space that is one."""

from pathlib import Path

import pytest
import torch

from isogloss.data.manifests import read_cuts
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data
from isogloss.evaluation.shared_space import shared_space
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from test_encoders_text import SMALL


def build(upsampling: str = "repeat") -> Model:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=preset("test"), text=SMALL.model_copy(update={"heads": 4, "upsampling": upsampling}),
        text_languages=("es", "it", "fr"), alphabets={"es": (1,), "it": (1,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(unknown=True), ["abcdefghijklmnopqrstuvwxyz "]))


def test_random_weights_have_no_space_in_common(letters: Path) -> None:
    cuts = read_cuts(letters, "train")[:40]
    found = shared_space(build(), cuts, Data(cuts))
    assert [layer.number for layer in found.layers] == [1, 2] and found.clips == len(cuts) >= found.aligned > 10
    for layer in found.layers:
        assert 0 <= layer.shuffled < 0.2 and layer.cka < 0.5
        assert layer.distance == pytest.approx(1.0, abs=0.3) and layer.spread > 0
    assert found.durations.shape[1] == 2 and (found.durations >= 0).all()
    assert found.trivial_duration_error <= found.duration_error + 5
    again = shared_space(build(), cuts, Data(cuts))
    assert again.layers == found.layers


def test_a_text_that_is_its_speech_is_at_no_distance(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    heard: list[Sequence] = []
    encode = model.encode

    def remember(*arguments: object, **named: object) -> object:
        encoded = encode(*arguments, **named)
        heard.append(encoded.layers[1])
        return encoded

    monkeypatch.setattr(model, "encode", remember)
    monkeypatch.setattr(model, "encode_text", lambda *_: heard[-1])
    cuts = read_cuts(letters, "train")[:20]
    for layer in shared_space(model, cuts, Data(cuts)).layers:
        assert layer.cka == pytest.approx(1.0, abs=1e-5)
        assert layer.distance == pytest.approx(0.0, abs=1e-6) and layer.spread == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_compared_is_told(letters: Path) -> None:
    with pytest.raises(IsoglossError, match="the data hold none"):
        shared_space(build(), [], Data([]))
    with pytest.raises(IsoglossError, match="does not stretch texts"):
        shared_space(build("none"), read_cuts(letters, "train")[:3], Data([]))


def test_broken_clips_are_counted_and_the_others_compared(letters: Path) -> None:
    cuts = read_cuts(letters, "train")[:40]
    cuts[0].recording.sources[0].source = "/nowhere.wav"
    data = Data(cuts)
    found = shared_space(build(), cuts, data)
    assert found.clips == len(cuts) - 1 and data.causes == {"missing": 1}
    with pytest.raises(IsoglossError, match=r"None of the 1 clips could be read \(missing 1\)"):
        shared_space(build(), cuts[:1], Data(cuts[:1]))
