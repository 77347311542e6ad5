"""MAESTRO and MOST: the formulas, where gradients go, what text alone touches, and durations that sum to the frames."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from isogloss.audio.augment import SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset
from isogloss.errors import IsoglossError
from isogloss.model.alignment import Aligner, align
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.lattice import forward_backward, weighted_cost
from isogloss.objectives.base import Clock, Loss
from isogloss.objectives.maestro import (
    AlignedMLMConfig,
    MaestroConfig,
    Matching,
    MatchingConfig,
    duration_loss,
    matching_loss,
    weighted_matching_loss,
)
from isogloss.objectives.most import MostConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer
from isogloss.training.recipe import StageRecipe
from isogloss.training.stage import Stage
from small_objectives import TEXTS, gradients, joint_model, pairs, rows, sentences, take, with_teacher

HEADS: dict[str, tuple[str, ...]] = {"ctc": (), "transducer": ("transducer",)}


def model(head: str = "ctc", dropout: float = 0.0, upsampling: str = "repeat") -> Model:
    return joint_model(*HEADS[head], upsampling=upsampling, dropout=dropout)


def built(config: MatchingConfig | AlignedMLMConfig, subject: Model) -> Any:
    """The objective with its aligner, in evaluation mode like the model."""
    return with_teacher(config.build(subject.spec), subject.eval()).eval()


def states_of(subject: Model, batch: Batch) -> tuple[Sequence, Sequence]:
    """Features of a batch, and what comes out of all blocks, (B, T, F) and (B, T/4, D)."""
    features = subject.features(batch.audio)
    return features, subject.encode_shared(subject.encode_speech(features)).final


def poisoned(tokens: Sequence) -> Sequence:
    """The same texts with other padding."""
    wider = torch.nn.functional.pad(tokens.values, (0, 3), value=2)
    return Sequence(wider.where(Sequence(wider, tokens.lengths).valid, 2), tokens.lengths)


def random_states(frames: int) -> Sequence:
    """Random states of one utterance."""
    return Sequence(torch.randn(1, frames, 64), torch.tensor([frames]))


def total(loss: Loss) -> float:
    """Σ weight · sum: the loss before it is divided by the three utterances."""
    return sum(term.weight * term.total.item() for term in loss.terms.values())


@pytest.mark.parametrize("aligner", [None, 0.9])
@pytest.mark.parametrize("head", HEADS)
def test_durations_sum_to_the_frames_of_the_encoder(head: str, aligner: float | None) -> None:
    subject = model(head)
    objective = built(MaestroConfig(aligner=aligner), subject)
    batch = objective.prepare(pairs(), True)
    tokens = batch.extras["units"]
    features, states = states_of(subject, batch)
    lasting, found = align(objective.aligner(subject, features, states, batch), tokens)
    assert bool(found.all())
    assert torch.equal(lasting.values.sum(dim=1), states.lengths)
    assert torch.equal(lasting.lengths, tokens.lengths + 1)
    assert bool((lasting.values >= 0).all())
    if head == "ctc":  # each symbol has a frame of its own
        assert all(bool((row[1:] >= 1).all()) for row in lasting.unpad())


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_the_formula(head: str) -> None:
    """L_heads + 2 L_MM + 3 L_dur with the parts counted one utterance at a time."""
    subject = model(head)
    objective = built(MostConfig(matching=2.0, duration=3.0, head_weights={"language": 0}), subject)
    loss = take(objective, subject, pairs())
    expected = 0.0
    for row in range(3):
        batch = objective.prepare(rows(pairs(), slice(row, row + 1)), True)
        features, tokens = subject.features(batch.audio), batch.extras["units"]
        speech = subject.encode_speech(features)
        encoded = subject.encode_shared(speech, (2,))
        heads = objective.head_losses(subject, encoded, batch)
        lasting, _ = align(objective.aligner(subject, features, encoded.final, batch), tokens)
        text = subject.encode_text(tokens, batch.languages, lasting)
        matching = (speech.values - text.values).square().mean()
        predicted = subject.text.duration(subject.text.embed(tokens, batch.languages))
        duration = (predicted - (1 + lasting.values).log()).square().mean()
        expected += total(heads) + 2 * matching.item() + 3 * duration.item()
    assert loss.value.item() == pytest.approx(expected / 3, rel=1e-4)
    assert all(term.count == 3 for term in loss.terms.values()) and objective.counts(pairs()) == {}
    assert loss.stats["aligned"].total.item() == 3


def test_the_loss_adds_up_and_padding_changes_nothing() -> None:
    subject = model("transducer")
    objective = built(MaestroConfig(aligner=0.9, mask=None), subject)
    whole, padded = take(objective, subject, pairs()), take(objective, subject, pairs(pad=3000, poison=float("nan")))
    first, rest = (take(objective, subject, rows(pairs(), part)) for part in (slice(0, 1), slice(1, 3)))
    assert total(padded) == pytest.approx(total(whole), rel=1e-5)
    assert total(first) + total(rest) == pytest.approx(total(whole), rel=1e-5)
    for name, mean in {**whole.terms, **whole.stats}.items():
        if name != "blank":  # a share of the frames of a batch
            parts = [{**half.terms, **half.stats}[name].total.item() for half in (first, rest)]
            assert sum(parts) == pytest.approx(mean.total.item(), rel=1e-3), name


@pytest.mark.parametrize("head", HEADS)
def test_padding_of_texts_changes_nothing(head: str) -> None:
    subject = model(head)
    for config, batch in ((MaestroConfig(aligner=None), pairs()), (AlignedMLMConfig(), sentences())):
        objective = built(config, subject)
        prepared = objective.prepare(batch, False)
        other = prepared.with_extras({name: poisoned(prepared.extras[name]) for name in ("units", "symbols")})
        plain, padded = (objective(subject, one, Clock()).value.item() for one in (prepared, other))
        assert padded == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("upsampling", ["repeat", "none"])
def test_matching_moves_only_the_side_that_it_should(upsampling: str) -> None:
    """MOST's matching leaves every gradient of the speech side as it was, bit for bit; MAESTRO's does not."""
    subject = model("ctc" if upsampling == "repeat" else "transducer", upsampling=upsampling)

    def found(both_sides: bool, weight: float) -> dict[str, Tensor]:
        objective = built(MostConfig(both_sides=both_sides, matching=weight), subject)
        return gradients(take(objective, subject, pairs()), subject)

    without, stopped, through = found(False, 0.0), found(False, 5.0), found(True, 5.0)
    sides = [name for name in without if not name.startswith("text.")]
    assert sides and all(torch.equal(without[name], stopped[name]) for name in sides)
    first = next(name for name in sides if name.startswith("encoder."))
    assert not torch.equal(without[first], through[first])
    text = [name for name in stopped if name.startswith("text.")]
    assert any(not torch.equal(stopped[name], without.get(name, torch.zeros(()))) for name in text)
    moved = ["text.symbols.weight", *(["text.duration.output.weight"] if upsampling == "repeat" else [])]
    assert all(bool(stopped[name].abs().sum() > 0) for name in moved)


@pytest.mark.parametrize("head", HEADS)
def test_text_alone_never_touches_the_speech_side(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(head).train()
    objective = AlignedMLMConfig().build(subject.spec).train()
    below = {name for name, _ in subject.named_parameters() if name.startswith("encoder.")}
    shared = {name for name in below if name.startswith(("encoder.stack.blocks.1.", "encoder.stack.blocks.2."))}
    for untouched in (subject.features, subject.encoder.stack.blocks[0]):
        monkeypatch.setattr(untouched, "forward", None)
    found = gradients(take(objective, subject, sentences()), subject)
    assert shared <= found.keys() and not any(".blocks.0." in name for name in found if name in below)
    assert not any(name.startswith(("features", "encoder.subsampling", "encoder.embed")) for name in found)
    assert not any(name.startswith("text.duration") for name in found)  # durations are given, not learned, by text
    assert found["heads.ctc.output.weight"].abs().sum() > 0
    assert not any(name.startswith("heads.language") for name in found)


def test_pairs_have_aligned_durations_and_text_has_predicted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model()
    asked = []
    monkeypatch.setattr(subject.text, "durations", lambda units: asked.append("predicted") or units.with_values(
        torch.ones(units.values.shape[:2], dtype=torch.int64)
    ))  # fmt: skip
    take(built(MaestroConfig(aligner=None), subject), subject, pairs())
    assert asked == []
    loss = take(built(AlignedMLMConfig(mask=None), subject), subject, sentences())
    assert asked == ["predicted"]
    assert loss.stats["frames"].total.item() == sum(len(text) + 1 for text in TEXTS)


def stage_of(config: MaestroConfig, subject: Model) -> Stage:
    """A stage that has begun, of one objective."""
    values = {"name": "test", "steps": 4, "seconds": {"paired": 1.0}, "objectives": [config.plain()]}
    stage = Stage(StageRecipe.parse(values, "test"), subject)
    stage.begin()
    return stage


def test_the_aligner_follows_and_has_no_dropout() -> None:
    subject = model(dropout=0.5).train()
    stage = stage_of(MaestroConfig(aligner=0.5), subject).train()
    objective: Any = stage.objectives["maestro"]
    batch = objective.prepare(pairs(), True)
    features, states = states_of(subject, batch)
    units = batch.extras["units"]
    first, again = (align(objective.aligner(subject, features, states, batch), units)[0].values for _ in range(2))
    assert torch.equal(first, again)
    before = objective.ema.copy.ctc_head().output.weight.clone()
    with torch.no_grad():
        subject.ctc_head().output.weight.add_(1.0)
    stage.after_step({})
    moved = objective.ema.copy.ctc_head().output.weight - before
    assert_close(moved, torch.full_like(moved, 1 - 2 / 11), rtol=1e-4, atol=1e-5)
    assert list(objective.parameters()) == []  # none of the copy's is trained
    assert any(name.startswith("ema.copy.") for name in objective.state_dict())


def test_the_model_aligns_where_there_is_no_slow_copy() -> None:
    objective: Any = stage_of(MaestroConfig(aligner=None), model()).objectives["maestro"]
    assert objective.ema is None and objective.state_dict() == {}


def test_the_aligner_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """SpecAugment hides features from what learns, not from what aligns."""
    subject = model()
    objective = built(MaestroConfig(augment=SpecAugmentConfig(freq_masks=4, time_masks=9)), subject).train()
    encoded, encode = [], objective.ema.copy.encode
    monkeypatch.setattr(objective.ema.copy, "encode", lambda x, **rest: encoded.append(x) or encode(x, **rest))
    take(objective, subject, pairs())
    assert_close(encoded[0].values, subject.features(pairs().audio).values, equal_nan=True)


def test_a_pair_without_a_path_is_left_out() -> None:
    """More symbols than frames: CTC has no path; its pair teaches neither durations nor states."""
    subject = model()
    objective = built(MostConfig(), subject)
    whole = pairs(texts=["da nu", "ok ok ok", "a b c d e"], samples=[16000, 400, 22000])
    loss, others = (take(objective, subject, rows(whole, part)) for part in (slice(None), slice(None, None, 2)))
    assert loss.stats["aligned"].total.item() == 2 and loss.stats["infeasible"].total.item() == 1
    assert torch.isfinite(loss.value)
    for part in ("matching", "duration"):
        assert loss.terms[part].total.item() == pytest.approx(others.terms[part].total.item(), rel=1e-4)


def test_more_symbols_than_frames_are_written_by_a_transducer() -> None:
    """It may write several in a frame; their durations are 0, and all sum to the frames."""
    subject = model("transducer")
    objective = built(MaestroConfig(aligner=None), subject)
    short = objective.prepare(pairs(["a b c d e da nu ok " * 4], ["ro"], [4000]), True)
    loss, tokens = objective(subject, short, Clock()), short.extras["units"]
    _, states = states_of(subject, short)
    lasting, found = align(Aligner.of(subject, states), tokens)
    assert tokens.lengths.item() > states.lengths.item() == lasting.values.sum().item() and bool(found)
    assert loss.stats["aligned"].total.item() == 1 and torch.isfinite(loss.value)
    assert loss.terms["matching"].total > 0


def test_an_empty_text_and_a_one_letter_text_are_no_trouble() -> None:
    subject = model("transducer")
    for config in (MaestroConfig(), MostConfig(), AlignedMLMConfig(noise=1.0)):
        objective = built(config, subject).train()
        found = gradients(take(objective, subject.train(), pairs(["", "a", None])), subject)
        assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_masks_hide_states_of_both_sides() -> None:
    subject = model().eval()
    everything = SpecAugmentConfig(freq_masks=0, time_masks=60, time_share=1.0)
    for build in (lambda mask: AlignedMLMConfig(mask=mask), lambda mask: MaestroConfig(mask=mask, aligner=None)):
        objective, plain = (build(mask).build(subject.spec).train() for mask in (everything, None))
        batch = pairs() if isinstance(objective, Matching) else sentences()
        hidden, shown = (take(one, subject, batch).terms["ctc"].total for one in (objective, plain))
        assert hidden != shown


def test_noise_is_as_large_as_asked_and_for_training_alone() -> None:
    subject = model().eval()
    objective = AlignedMLMConfig(noise=1.5).build(subject.spec)
    torch.manual_seed(0)
    values = torch.tensor([3.0, 0.5]).repeat(32) * torch.randn(2, 4000, 64) + 7.0
    values[1, 1000:] = torch.nan
    text = Sequence(values, torch.tensor([4000, 1000]))
    added = [noisy - plain for noisy, plain in zip(objective.train().noisy(text).unpad(), text.unpad(), strict=True)]
    assert torch.cat(added).mean(dim=0).abs().max() < 0.3
    assert_close(torch.cat(added).std(dim=0), 1.5 * torch.tensor([3.0, 0.5]).repeat(32), rtol=0.1, atol=0)
    single = Sequence(values[:1, :1], torch.tensor([1]))
    assert_close(objective.noisy(single).values, single.values)
    assert objective.eval().noisy(text) is text
    still, moved = (AlignedMLMConfig(mask=None, noise=noise).build(subject.spec).train() for noise in (0.0, 1.5))
    assert take(still, subject, sentences()).value != take(moved, subject, sentences()).value
    assert still.noisy(text) is text


def test_the_formulas_alone() -> None:
    speech = Sequence(torch.tensor([[[1.0, 2.0], [3.0, 5.0]]]), torch.tensor([1]))
    text = Sequence(torch.tensor([[[0.0, 0.0], [torch.nan, 9.0]]]), torch.tensor([1]))
    assert matching_loss(speech, text).tolist() == [2.5]
    lasting = Sequence(torch.tensor([[1, 3, 7]]), torch.tensor([2]))
    predicted = torch.log(torch.tensor([[1.0, 4.0, 2.0]]))
    assert_close(duration_loss(predicted, lasting), torch.log(torch.tensor([2.0])).square() / 2)


def test_weighted_matching_is_the_sum_over_frames_and_symbols() -> None:
    """Σ_t γ(t, u) |e_s(t) - ê_t(u+1)|², mean over the symbols, with posteriors counted by hand from the arcs."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3, 4], [5, 0, 0]]), torch.tensor([3, 1]))
    speech = Sequence(torch.randn(2, 5, 64), torch.tensor([5, 4]))
    text = Sequence(torch.randn(2, 4, 64), torch.tensor([4, 2]))
    aligner = Aligner(speech, subject.heads["transducer"])
    found = weighted_matching_loss(speech, text, tokens, aligner)
    lengths = speech.lengths, tokens.lengths
    weights = forward_backward(*subject.heads["transducer"].arcs(speech, tokens), lengths).label
    for row in range(2):
        total = sum(
            float(weights[row, t, u]) * float((speech.values[row, t] - text.values[row, u + 1]).square().mean())
            for t in range(int(speech.lengths[row])) for u in range(int(tokens.lengths[row]))
        )  # fmt: skip
        assert found[row].item() == pytest.approx(total / int(tokens.lengths[row]), rel=1e-4)


def test_weighted_matching_of_a_certain_alignment_is_the_distance_along_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a posterior of one path only it is the Viterbi alignment's mean squared distance."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3]]), torch.tensor([2]))
    speech, text = random_states(4), random_states(3)
    written = {(1, 0), (1, 1)}  # both symbols in frame 1
    label = torch.full((1, 4, 3), -1e4, dtype=torch.float64)
    for frame, symbol in written:
        label[0, frame, symbol] = 0.0
    blank = torch.where(label == 0, -1e4, 0.0)
    monkeypatch.setattr(subject.heads["transducer"], "arcs", lambda *_, **__: (blank, label))
    aligner = Aligner(speech, subject.heads["transducer"])
    frames = subject.heads["transducer"].align(speech, tokens)
    assert frames.tolist() == [[1, 1]]
    along = torch.stack([(speech.values[0, frames[0, u]] - text.values[0, u + 1]).square().mean() for u in range(2)])
    assert_close(weighted_matching_loss(speech, text, tokens, aligner), along.mean()[None])


def test_soft_matching_moves_the_alignment_where_the_speech_side_moves() -> None:
    """ASTRA's other form, of the same lattice and costs; only where no side is still does the transducer learn."""
    subject = model("transducer", upsampling="none").eval()

    def slopes(**changes: object) -> dict[str, Tensor]:
        objective = built(MaestroConfig(aligner=None, **changes), subject)
        return gradients(take(objective, subject, pairs()), subject)

    name = next(name for name, _ in subject.named_parameters() if name.startswith("heads.transducer."))
    without, hard, soft = slopes(matching=0.0), slopes(), slopes(soft=True)
    assert torch.equal(without[name], hard[name]) and not torch.allclose(without[name], soft[name])
    still = slopes(soft=True, both_sides=False)
    first = next(name for name in still if name.startswith("encoder."))
    assert_close(still[first], without[first])
    tokens = Sequence(torch.tensor([[2, 3, 4]]), torch.tensor([3]))
    speech, text = random_states(5), random_states(4)
    transducer = subject.heads["transducer"]
    for arcs, fused in zip(*(transducer.arcs(speech, tokens, graph) for graph in (True, False)), strict=True):
        assert_close(arcs[:, :, :3], fused[:, :, :3], rtol=1e-4, atol=1e-5)
    aligner, sizes = Aligner(speech, transducer), (speech.lengths, tokens.lengths)
    cost = torch.zeros(1, 5, 4)
    for t in range(5):
        for u in range(3):
            cost[0, t, u] = (speech.values[0, t] - text.values[0, u + 1]).square().mean()
    expected = weighted_cost(*transducer.arcs(speech, tokens), cost, sizes) / 3
    assert_close(weighted_matching_loss(speech, text, tokens, aligner, soft=True), expected, rtol=1e-4, atol=1e-5)


def test_weighted_matching_is_as_exact_under_autocast() -> None:
    """|a|² + |b|² - 2ab of nearly equal states is a difference that bf16 does not know."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3]]), torch.tensor([2]))
    states = torch.randn(1, 1, 64)
    speech = Sequence(states + 0.01 * torch.randn(1, 4, 64), torch.tensor([4]))
    text = Sequence(states + 0.01 * torch.randn(1, 3, 64), torch.tensor([3]))
    aligner = Aligner(speech, subject.heads["transducer"])
    plain = weighted_matching_loss(speech, text, tokens, aligner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(weighted_matching_loss(speech, text, tokens, aligner), plain, rtol=0.05, atol=0)


def test_without_upsampling_text_is_neither_stretched_nor_timed() -> None:
    subject = model("transducer", upsampling="none").train()
    tokens = Sequence(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    assert subject.encode_text(tokens, ["ro"]).lengths.tolist() == [4] and subject.text.duration is None
    with pytest.raises(IsoglossError, match="knows no durations"):
        subject.text.durations(subject.text.embed(tokens, ["ro"]))
    loss = take(built(MaestroConfig(), subject), subject, pairs())
    assert "duration" not in loss.terms and gradients(loss, subject)["text.symbols.weight"].abs().sum() > 0
    assert torch.isfinite(take(built(AlignedMLMConfig(), subject), subject, sentences()).value)
    bare = model("ctc", upsampling="none")
    with pytest.raises(IsoglossError, match=r"add transducer: \{\} to model\.heads"):
        take(built(MaestroConfig(), bare), bare, pairs())


def test_a_model_without_text_encoder_is_told() -> None:
    bare = Model(ModelConfig(encoder=preset("test")), build_tokenizer(CharactersConfig(), TEXTS))
    for config in (MaestroConfig(), MostConfig(), AlignedMLMConfig()):
        with pytest.raises(IsoglossError, match=r"no text encoder; add model\.text: \{\}"):
            config.build(bare.spec)
