"""The laws of speech and text together without stretching: SLAM, mSLAM, masked text, SpeechT5."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from isogloss.data.loading import Batch
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.objectives.base import BaseConfig, Clock
from isogloss.objectives.best_rq import CodesConfig
from isogloss.objectives.slam import (
    MaskedTextConfig,
    MSlamConfig,
    SlamConfig,
    SpansConfig,
    blanked,
    mean_by_row,
    mismatched_pairs,
)
from isogloss.objectives.speecht5 import (
    SpeechT5SpeechConfig,
    SpeechT5TextConfig,
    distance,
    ending,
    infilled,
    uniformity,
)
from isogloss.sequence import Sequence
from small_objectives import LANGUAGES, TEXTS, gradients, joint_model, pairs, rows, sentences, take

CODES = CodesConfig(codes=50, start_probability=0.05, mask_ms=120)
UNSTRETCHED = [SlamConfig(), MSlamConfig(), MaskedTextConfig(), SpeechT5TextConfig()]


def model(upsampling: str = "none", attention: bool = True) -> Model:
    return joint_model(*(("attention", "speech") if attention else ()), upsampling=upsampling)


def built(config: Any, subject: Model) -> Any:
    """The objective, in evaluation mode like the model."""
    subject.eval()
    return config.build(subject.spec).eval()


@pytest.mark.parametrize("config", UNSTRETCHED, ids=lambda config: config.name)
def test_text_that_is_stretched_is_refused(config: BaseConfig) -> None:
    with pytest.raises(IsoglossError, match="upsampling: none"):
        config.build(model("repeat").spec)


@pytest.mark.parametrize("config", [SpeechT5SpeechConfig(), SpeechT5TextConfig()], ids=lambda config: config.name)
def test_speecht5_wants_its_decoders(config: BaseConfig) -> None:
    with pytest.raises(IsoglossError, match=r"add attention: \{\} and speech: \{\} to model\.heads"):
        config.build(model(attention=False).spec)


def test_what_is_hidden_does_not_leak_and_each_side_reads_the_other() -> None:
    """Other symbols under the mask change the loss of text only; other symbols beside it what is made of the speech."""
    subject = model()
    objective = built(MSlamConfig(speech=CODES, hidden=SpansConfig(share=0.4, span=2)), subject)
    batch = objective.prepare(pairs(), True)
    tokens, mask = batch.extras["units"], batch.extras["units_mask"]
    assert mask.any() and (~mask & tokens.valid).any() and not (mask & ~tokens.valid).any()
    speech = subject.encode_speech(subject.features(batch.audio), batch.languages)

    def states(symbols: Tensor) -> Tensor:
        hidden = blanked(tokens.with_values(symbols), mask)
        text = subject.encode_text(hidden, batch.languages)
        together: Tensor = objective.together(subject, speech, text, batch)[0].values
        return together

    other = (tokens.values % 5) + 1
    before = states(tokens.values)
    assert torch.equal(before, states(torch.where(mask, other, tokens.values)))
    changed = (before - states(torch.where(mask, tokens.values, other))).abs().amax(dim=(1, 2))
    assert bool((changed > 0).all())


def test_mslam_is_the_formula_and_ctc_gets_the_speech_alone() -> None:
    subject = model(attention=False)
    weights = {"heads": 0.7, "head_weights": {"language": 0}, "intermediate": 0}
    objective = built(MSlamConfig(speech=CODES, **weights), subject)
    batch = objective.prepare(pairs(), True)
    torch.manual_seed(4)
    loss = objective(subject, batch, Clock())
    tokens, symbols = batch.extras["units"], batch.extras["units_mask"]
    torch.manual_seed(4)
    features = subject.features(batch.audio)
    speech = subject.encode_speech(objective.speech.corrupt(features, batch.extras["mask"]), batch.languages)
    text = subject.encode_text(blanked(tokens, symbols), batch.languages)
    spoken = written = torch.zeros(())
    for row in range(3):
        length, units = int(speech.lengths[row]), int(text.lengths[row])
        joined = torch.cat([speech.values[row, :length], text.values[row, :units]])[None]
        together = Sequence(joined, torch.tensor([length + units]))
        through = subject.encode_shared(together, languages=[LANGUAGES[row]]).final.values[0]
        hidden = torch.tensor(batch.extras["targets"][row])
        codes = objective.speech.codes(features, row * speech.values.shape[1] + hidden)
        assert len(hidden)
        spoken = spoken + cross_entropy(objective.speech.softmax(through[:length][hidden]), codes[:, 0])
        places = symbols[row].nonzero()[:, 0]
        assert len(places)
        scores = objective.hidden.softmax(through[length + 1 + places])
        written = written + cross_entropy(scores, tokens.values[row, places])
    alone = objective.head_losses(subject, subject.encode_shared(speech, (2,), batch.languages), batch)
    expected = {"speech": (spoken, 1), "text": (written, 1), "ctc": (alone.terms["ctc"].total, 0.7)}
    assert loss.terms.keys() == expected.keys()
    for name, (total, weight) in expected.items():
        term = loss.terms[name]
        assert (term.count, term.weight) == (3, weight)
        assert term.total.item() == pytest.approx(total.item(), rel=1e-4)


def test_clips_of_one_text_are_no_mismatch() -> None:
    objective = built(SlamConfig(speech=CODES), model())
    states = Sequence(torch.randn(3, 4, 64), torch.tensor([4, 4, 4]))
    both = objective.matching_loss(states, states, ["a", "b", "c"], [1, 2, 0])
    logits = objective.same(states.values[:, 0])[:, 0]
    right, wrong = -logits.sigmoid().log(), -(-logits).sigmoid().log()
    assert_close(both, (right + wrong) / 2)
    some = objective.matching_loss(states, states, ["a", "a", "c"], [2, 0, 1])
    assert_close(some, (right + wrong * torch.tensor([1, 0, 1])) / 2)


def test_a_mismatched_pair_has_the_transcript_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """L_STM gets each clip with its own text and with that of another; sentences are compared normalised."""
    subject = model()
    objective = built(SlamConfig(speech=CODES), subject)
    together, seen = objective.together, []
    monkeypatch.setattr(objective, "together", lambda *given: seen.append(given[2]) or together(*given))
    take(objective, subject, pairs())
    own, strange = seen
    others = mismatched_pairs(TEXTS, LANGUAGES)
    assert all(place != other for place, other in enumerate(others))
    for row, other in enumerate(others):
        length = int(own.lengths[other])
        assert strange.lengths[row] == length
        assert torch.equal(strange.values[row, :length], own.values[other, :length])
    same = built(SlamConfig(speech=CODES, hidden=SpansConfig(share=0.01)), subject)
    asked: list[Any] = []
    monkeypatch.setattr(same, "matching_loss", lambda *given: asked.append(given[2:]) or torch.zeros(3))
    take(same, subject, pairs(texts=["Da nu.", "ok", "da nu"]))
    assert asked == [(["da nu", "ok", "da nu"], [1, 2, 1])]


def test_a_language_head_is_there_only_where_it_learns() -> None:
    configs = SlamConfig(), SlamConfig(heads=1.0), MSlamConfig()
    assert [config.trains("language", "language") for config in configs] == [False, True, True]


def test_a_mismatched_transcript_is_of_the_same_language_where_there_is_one() -> None:
    assert mismatched_pairs(["a", "b", "c", "d"], ["ro", "el", "ro", "be"]) == [2, 2, 0, 0]
    assert mismatched_pairs(["a", "a", "c"], ["ro", "ro", "el"]) == [2, 2, 0]
    assert mismatched_pairs(["a", "a"], ["ro", "ro"]) == [0, 1] and mismatched_pairs([""], ["ro"]) == [0]


def test_slam_trains_no_heads_and_masked_text_no_speech_side(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model()
    objective = built(SlamConfig(speech=CODES), subject)
    loss = take(objective, subject, pairs())
    assert loss.terms.keys() == {"speech", "text", "same"} and objective.figures(subject, [pairs()]) == {}
    assert not any(name.startswith("heads.") for name in gradients(loss, subject))
    for untouched in (subject.features, subject.encoder.embed, subject.encoder.stack.blocks[0]):
        monkeypatch.setattr(untouched, "forward", None)
    for config in (MaskedTextConfig(), SpeechT5TextConfig()):
        found = gradients(take(built(config, subject), subject, sentences()), subject)
        assert found and not any(name.startswith(("encoder.embed", "encoder.stack.blocks.0.")) for name in found)


def test_texts_are_hidden_by_the_share_and_span_of_their_recipe() -> None:
    objective = built(MaskedTextConfig(hidden=SpansConfig(share=0.15, span=5)), model())
    batch = Batch([str(n) for n in range(300)], sentences().audio, ["da nu ok a b c d e " * 4] * 300, ["ro"] * 300)
    mask = objective.prepare(batch, True).extras["units_mask"]
    assert abs(float(mask.float().mean()) - 0.15) < 0.02
    assert len(mask.unique(dim=0)) > 250  # each row draws its own


def test_means_by_row() -> None:
    assert mean_by_row(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 4).tolist() == [2.0, 0.0, 5.0, 0.0]


def test_speecht5_hides_what_the_paper_hides() -> None:
    """57 % of the frames, in spans of ten frames of 20 ms."""
    objective = built(SpeechT5SpeechConfig(), model())
    batch = pairs(["da"] * 40, ["ro"] * 40, [240_240] * 40)
    mask = objective.prepare(batch, True).extras["mask"]
    assert abs(float(mask.float().mean()) - 0.57) < 0.02
    edges = torch.nn.functional.pad(mask.long(), (1, 1)).diff()
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    inside = ends[:, 1] < mask.shape[1]
    assert int((ends - starts)[inside, 1].min()) == 20


def test_the_temperature_of_the_codes_falls_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geometrically from 2 to 0.5 in the first seven tenths of the stage."""
    subject = model()
    given: list[float] = []
    mix = subject.heads["speech"].mix
    monkeypatch.setattr(subject.heads["speech"], "mix", lambda x, tau: given.append(tau) or mix(x, tau))
    speech, text = (built(config, subject) for config in (SpeechT5SpeechConfig(speech=CODES), SpeechT5TextConfig()))
    for step in (0, 35, 70, 100):
        take(speech, subject, pairs(), Clock(step, 100))
        take(text, subject, sentences(), Clock(step, 100))
    assert given == pytest.approx([2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])


def test_infilling_leaves_one_blank_a_span() -> None:
    draw, hidden, total = np.random.default_rng(1), 0, 0
    for size in range(1, 200):
        symbols = draw.integers(1, 6, size).tolist()
        spoiled = infilled(symbols, 0.3, 3.5, draw)
        kept = iter(symbols)
        assert all(symbol in kept for symbol in spoiled if symbol)  # in order
        hidden += size - sum(symbol != 0 for symbol in spoiled)
        total += size
    assert 0.27 < hidden / total < 0.33
    whole = [infilled(list(range(1, 21)), 0.9, 1000.0, np.random.default_rng(seed)) for seed in range(300)]
    assert all(row.count(0) <= 1 for row in whole)  # a span that never ends hides the spans that start in it
    found = [row for row in whole if row.count(0)]
    assert found and all(row == [*range(1, len(row)), 0] for row in found)


def test_a_span_may_hide_nothing() -> None:
    """A blank where nothing is missing: how much is, the model must find out (BART)."""
    rows_found = [infilled([1, 2, 3, 4, 5], 0.3, 0.5, np.random.default_rng(seed)) for seed in range(400)]
    inserted = [row for row in rows_found if [symbol for symbol in row if symbol] == [1, 2, 3, 4, 5] and 0 in row]
    assert len(inserted) > 40 and any([symbol for symbol in row if symbol] != [1, 2, 3, 4, 5] for row in rows_found)
    assert infilled([], 0.3, 3.5, np.random.default_rng(0)) == []


def test_each_text_is_spoiled_in_its_own_way() -> None:
    objective = built(SpeechT5TextConfig(), model())
    batch = sentences([TEXTS[2]] * 20, ["ro"] * 20)
    spoiled = objective.prepare(batch, True).extras
    rows_found = [tuple(row.tolist()) for row in spoiled["units"].unpad()]
    assert len(set(rows_found)) > 5
    assert all(row.tolist() == spoiled["symbols"].unpad()[0].tolist() for row in spoiled["symbols"].unpad())
    last = objective.prepare(rows(batch, slice(19, 20)), True).extras["units"].unpad()[0]
    assert tuple(last.tolist()) == rows_found[-1]


def test_speech_and_text_together_teach_all_of_speecht5() -> None:
    subject = model()
    found: set[str] = set()
    for config, batch in ((SpeechT5SpeechConfig(speech=CODES), pairs()), (SpeechT5TextConfig(), sentences())):
        objective = built(config, subject).train()
        found |= gradients(take(objective, subject.train(), batch), subject).keys()
    assert {name for name, _ in subject.named_parameters()} - found == {
        *("heads.ctc.output.weight", "heads.ctc.output.bias"),
        *(name for name, _ in subject.named_parameters() if name.startswith("heads.language.")),
    }


def test_a_frame_is_written_from_those_before_it() -> None:
    subject = model().eval()
    features = subject.features(pairs().audio)
    states = subject.encode(features).final
    rough, fine, end = subject.heads["speech"](states, features, subject.heads["attention"])
    assert rough.values.shape == fine.values.shape == features.values.shape
    assert end.shape == (3, states.values.shape[1])
    later = features.with_values(features.values.clone())
    later.values[:, 40:] += 1.0
    changed = subject.heads["speech"](states, later, subject.heads["attention"])[0].values
    assert_close(changed[:, :44], rough.values[:, :44])  # steps of four frames: what is in 40-43 is told to the next
    assert not torch.allclose(changed[2, 44:48], rough.values[2, 44:48])


def test_the_losses_of_written_speech() -> None:
    features = Sequence(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]]), torch.tensor([2]))
    written = features.with_values(torch.tensor([[[1.0, 0.0], [3.0, 3.0], [torch.nan, 0.0]]]))
    assert distance(written, features).tolist() == [0.75]
    logits = torch.tensor([[0.3, -0.2, 5.0]])
    right = -(torch.sigmoid(-logits[0, 0]).log() + 5 * torch.sigmoid(logits[0, 1]).log()) / 2
    assert_close(ending(logits, torch.tensor([2])), right[None])
    assert uniformity(torch.full((2, 10), 0.1)) < uniformity(torch.eye(10)[:2]) == 0


def test_a_tenth_of_the_states_are_codes_while_training() -> None:
    subject = model()
    subject.heads["speech"].mixed = 0.1
    states = Sequence(torch.randn(4, 500, 64), torch.tensor([500, 400, 500, 500]))
    mixed, likely = subject.heads["speech"].train().mix(states, 2.0)
    changed = (mixed.values != states.values).any(dim=-1)
    assert not (changed & ~states.valid).any()
    assert 0.07 < changed.sum() / states.lengths.sum() < 0.13
    assert len(mixed.values[changed].unique(dim=0)) <= 100  # two groups of ten codes
    assert_close(likely.sum(dim=-1), torch.ones(2))
    assert torch.equal(subject.heads["speech"].eval().mix(states, 2.0)[0].values, states.values)
