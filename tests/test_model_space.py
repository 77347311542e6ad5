"""Vectors of speech and text: the mean of states, order, long recordings, and what cannot be embedded."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.space import embed_query, embed_speech, embed_text, pooled
from isogloss.model.spec import ModelConfig
from isogloss.nn.adapters import AdapterConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from small_models import sound
from test_encoders_text import model
from test_nn_adapters import random_up


def test_a_vector_is_the_mean_of_states() -> None:
    values = torch.randn(2, 5, 3)
    values[1, 2:] = torch.nan
    found = pooled(Sequence(values, torch.tensor([5, 2])))
    for row, length in enumerate((5, 2)):
        mean = values[row, :length].mean(dim=0)
        assert_close(found[row], mean / mean.norm())


def test_speech_is_embedded_in_its_order_and_alone_as_among_others() -> None:
    subject = model()
    clips = [sound(3, 1), sound(1, 2), sound(2, 3)]
    pieces, together = embed_speech(subject, clips, (1, 2))
    assert [piece.owner for piece in pieces] == [0, 1, 2] and together.frames.tolist() == [75, 25, 50]
    for place, clip in enumerate(clips):
        _, alone = embed_speech(subject, [clip], (1, 2))
        for layer in (1, 2):
            assert_close(alone.layers[layer][0], together.layers[layer][place], atol=1e-4, rtol=1e-4)
    _, last = embed_speech(subject, clips)
    assert list(last.layers) == [2] and torch.equal(last.layers[2], together.layers[2])
    assert_close(last.layers[2].norm(dim=-1), torch.ones(3))


def test_a_recording_goes_through_the_adapter_of_its_language() -> None:
    encoder = preset("test").model_copy(update={"adapters": AdapterConfig(bottleneck=3, groups={"ro": ("ro",)})})
    torch.manual_seed(0)
    subject = Model(ModelConfig(encoder=encoder)).eval()
    random_up(subject)
    clips = [sound(1, 1), sound(2, 2)]
    told, untold = (embed_speech(subject, clips, languages=tags)[1].last for tags in (["ro", None], ()))
    assert (told[0] - untold[0]).norm() > 0.01
    assert_close(told[1], untold[1])


def test_text_is_embedded_alone_as_among_others() -> None:
    subject = model()
    texts, tags = ["da", "ok не", "da ok"] * 15, ["ro", "ru", "ro"] * 15
    together = embed_text(subject, texts, tags, (1, 2))
    for place in (0, 1, 44):
        alone = embed_text(subject, [texts[place]], [tags[place]], (1, 2))
        assert_close(alone.layers[1][0], together.layers[1][place], atol=1e-5, rtol=1e-4)
        assert alone.frames.tolist() == together.frames[[place]].tolist()


def test_what_has_no_vector_is_told() -> None:
    subject = model()
    with pytest.raises(IsoglossError, match="empty after normalisation"):
        embed_text(subject, ["da", " ?! "], ["ro", "ro"])
    strange = Model(subject.config, build_tokenizer(CharactersConfig(unknown=True), ["da ok"])).eval()
    with pytest.raises(IsoglossError, match="'漢 字' is in letters that the model has never seen"):
        embed_query(strange, "漢 字", "ro")
    assert_close(embed_query(strange, "da 漢", "ro").last, embed_text(strange, ["da 漢"], ["ro"]).last)
    with pytest.raises(IsoglossError, match="no layer 9; give one from 0 to 2"):
        embed_speech(subject, [np.zeros(16000, dtype=np.float32)], (9,))
    with pytest.raises(IsoglossError, match="enters after block 1; it has no states of block 0"):
        embed_text(subject, ["da"], ["ro"], (0,))
    with pytest.raises(IsoglossError, match="does not know the language"):
        embed_text(subject, ["da"], ["fr"])
