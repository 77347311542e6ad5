"""MAESTRO and MOST: the formulas, where gradients go, what text alone touches, and durations that sum to the frames."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from isogloss.audio.augment import SpecAugmentConfig
from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.transducer import TransducerConfig
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.lattice import forward_backward, weighted_cost
from isogloss.nn.predictors import LSTMConfig
from isogloss.objectives.base import Loss
from isogloss.objectives.maestro import (
    AlignedMLMConfig,
    MaestroConfig,
    Matching,
    Reader,
    align,
    duration_loss,
    matching_loss,
    weighted_matching_loss,
)
from isogloss.objectives.most import MostConfig
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TEXTS = ["da nu", "ok", "a b c d e"]
LANGUAGES = ["ro", "ru", "ro"]
HEADS = {
    "ctc": {"ctc": {}, "language": {}},
    "transducer": {
        "ctc": {}, "transducer": TransducerConfig(predictor=LSTMConfig(width=8), joiner=12), "language": {}
    },
}  # fmt: skip


def model(head: str = "ctc", dropout: float = 0.0, upsampling: str = "repeat") -> Model:
    torch.manual_seed(0)
    blocks = preset("test").blocks.model_copy(update={"layers": 3, "dropout": dropout})
    text = TextEncoderConfig(
        entry=1, convolutions=1, layers=1, duration_layers=1, refiner=1, dropout=dropout, upsampling=upsampling
    )
    config = ModelConfig(
        encoder=preset("test").model_copy(update={"blocks": blocks}), heads=HEADS[head], text=text,
        text_languages=("ro", "ru"), languages=("ro", "ru"), alphabets={"ro": (1,), "ru": (2,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(), TEXTS))


def poisoned(tokens: Sequence) -> Sequence:
    """The same texts with other padding."""
    wider = torch.nn.functional.pad(tokens.values, (0, 3), value=2)
    return Sequence(wider.where(Sequence(wider, tokens.lengths).valid, 2), tokens.lengths)


def pairs(rows: slice = slice(None), pad: int = 0, poison: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    items = [0.1 * torch.randn(n, generator=generator) for n in (16000, 9000, 22000)][rows]
    audio = Sequence.from_list(items)
    values = torch.nn.functional.pad(audio.values, (0, pad))
    audio = audio.__class__(values.where(audio.__class__(values, audio.lengths).valid, poison), audio.lengths)
    return Batch(list("abc")[rows], audio, TEXTS[rows], LANGUAGES[rows])


def sentences() -> Batch:
    return Batch(list("xyz"), Sequence(torch.zeros(3, 0), torch.zeros(3, dtype=torch.int64)), TEXTS, LANGUAGES)


def gradients(subject: Model, loss: Loss) -> dict[str, Tensor]:
    subject.zero_grad(set_to_none=True)
    loss.total.backward()
    return {name: p.grad.clone() for name, p in subject.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("aligner", [None, 0.9])
@pytest.mark.parametrize("head", HEADS)
def test_durations_sum_to_the_frames_of_the_encoder(head: str, aligner: float | None) -> None:
    subject = model(head)
    objective = MaestroConfig(aligner=aligner).build(subject).eval()
    batch = pairs()
    features, tokens = objective.features(batch.audio), objective.targets(batch)
    states = subject.encode_shared(subject.encode_speech(features)).final
    lasting, found = align(objective.reader(features, states, batch), tokens)
    assert bool(found.all())
    assert torch.equal(lasting.values.sum(dim=1), states.lengths)
    assert torch.equal(lasting.lengths, tokens.lengths + 1)
    assert bool((lasting.values >= 0).all())
    if head == "ctc":  # each symbol has a frame of its own
        assert all(bool((row[1:] >= 1).all()) for row in lasting.unpad())


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_the_formula(head: str) -> None:
    """L_heads + 2 L_MM + 3 L_dur with the parts counted one utterance at a time."""
    subject = model(head).eval()
    objective = MostConfig(matching=2.0, duration=3.0, language=0.0).build(subject).eval()
    loss = objective(pairs())
    total = torch.zeros(())
    for row in range(3):
        batch = pairs(slice(row, row + 1))
        features, tokens = subject.features(batch.audio), objective.targets(batch)
        heard = subject.encode_speech(features)
        encoded = subject.encode_shared(heard, (2,))
        heads, _ = objective.read_off(encoded, tokens, batch)
        lasting, _ = align(objective.reader(features, encoded.final, batch), tokens)
        read = subject.encode_text(tokens, batch.languages, lasting)
        matching = (heard.values - read.values).square().mean()
        predicted = subject.text.duration(subject.text.embed(tokens, batch.languages))
        duration = (predicted - (1 + lasting.values).log()).square().mean()
        total = total + heads + 2 * matching + 3 * duration
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert loss.count == objective.count(pairs()) == 3
    assert loss.parts["aligned"].item() == 3


def test_the_loss_adds_up_and_padding_changes_nothing() -> None:
    objective = MaestroConfig(aligner=0.9, mask=None).build(model("transducer")).eval()
    whole, padded = objective(pairs()), objective(pairs(pad=3000, poison=float("nan")))
    first, rest = objective(pairs(slice(0, 1))), objective(pairs(slice(1, 3)))
    assert padded.total.item() == pytest.approx(whole.total.item(), rel=1e-5)
    assert (first.total + rest.total).item() == pytest.approx(whole.total.item(), rel=1e-5)
    for name, part in whole.parts.items():
        if name != "blank":  # a share of the frames of a batch
            assert (first.parts[name] + rest.parts[name]).item() == pytest.approx(part.item(), rel=1e-3), name


@pytest.mark.parametrize("head", HEADS)
def test_padding_of_texts_changes_nothing(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(head).eval()
    for config, batch in ((MaestroConfig(aligner=None), pairs()), (AlignedMLMConfig(), sentences())):
        objective = config.build(subject).eval()
        plain = objective(batch).total.item()
        units, targets = objective.units, objective.targets
        monkeypatch.setattr(objective, "units", lambda batch, units=units: poisoned(units(batch)))
        monkeypatch.setattr(objective, "targets", lambda batch, targets=targets: poisoned(targets(batch)))
        assert objective(batch).total.item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("upsampling", ["repeat", "none"])
def test_matching_moves_only_the_side_that_it_should(upsampling: str) -> None:
    """MOST's matching leaves every gradient of the speech side as it was, bit for bit; MAESTRO's does not."""
    subject = model("ctc" if upsampling == "repeat" else "transducer", upsampling=upsampling).eval()
    speech = ("features", "encoder", "ctc", "language", "transducer")

    def found(both_sides: bool, weight: float) -> dict[str, Tensor]:
        objective = MostConfig(both_sides=both_sides, matching=weight).build(subject).eval()
        return gradients(subject, objective(pairs()))

    without, stopped, through = found(False, 0.0), found(False, 5.0), found(True, 5.0)
    sides = [name for name in without if name.startswith(speech)]
    assert sides and all(torch.equal(without[name], stopped[name]) for name in sides)
    assert not torch.equal(without["encoder.embed.first.weight"], through["encoder.embed.first.weight"])
    text = [name for name in stopped if name.startswith("text.")]
    assert any(not torch.equal(stopped[name], without.get(name, torch.zeros(()))) for name in text)
    moved = ["text.symbols.weight", *(["text.duration.output.weight"] if upsampling == "repeat" else [])]
    assert all(bool(stopped[name].abs().sum() > 0) for name in moved)


@pytest.mark.parametrize("head", HEADS)
def test_text_alone_never_touches_the_speech_side(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model(head).train()
    for untouched in (subject.features, subject.encoder.embed, subject.encoder.stack.blocks[0]):
        monkeypatch.setattr(untouched, "forward", None)
    loss = AlignedMLMConfig().build(subject)(sentences())
    found = gradients(subject, loss)
    assert not any(name.startswith(("encoder.embed", "encoder.stack.blocks.0.")) for name in found)
    assert any(name.startswith("encoder.stack.blocks.1.") for name in found)
    assert not any(name.startswith("text.duration") for name in found)  # durations are given, not learned, by text
    assert found["heads.ctc.output.weight"].abs().sum() > 0 and "heads.language.output.weight" not in found


def test_pairs_have_aligned_durations_and_text_has_predicted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model().eval()
    asked = []
    monkeypatch.setattr(subject.text, "durations", lambda units: asked.append("predicted") or units.with_values(
        torch.ones(units.values.shape[:2], dtype=torch.int64)
    ))  # fmt: skip
    MaestroConfig().build(subject)(pairs())
    assert asked == []
    loss = AlignedMLMConfig(mask=None).build(subject)(sentences())
    assert asked == ["predicted"]
    assert loss.parts["frames"].item() == sum(len(text) + 1 for text in TEXTS)


def test_the_aligner_follows_and_has_no_dropout() -> None:
    subject = model(dropout=0.5).train()
    objective = MaestroConfig(aligner=0.5).build(subject).train()
    batch = pairs()
    features, tokens = objective.features(batch.audio), objective.targets(batch)
    states = subject.encode_shared(subject.encode_speech(features)).final
    first, again = (align(objective.reader(features, states, batch), tokens)[0].values for _ in range(2))
    assert torch.equal(first, again)
    before = objective.aligner.copy.heads["ctc"].output.weight.clone()
    with torch.no_grad():
        subject.heads["ctc"].output.weight.add_(1.0)
    objective.after_step()
    moved = objective.aligner.copy.heads["ctc"].output.weight - before
    assert_close(moved, torch.full_like(moved, 1 - 2 / 11), rtol=1e-4, atol=1e-5)
    trained = {id(parameter) for parameter in objective.parameters()}
    assert trained <= {id(parameter) for parameter in subject.parameters()}


def test_the_aligner_hears_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """SpecAugment hides features from what learns, not from what aligns."""
    objective = MaestroConfig(augment=SpecAugmentConfig(freq_masks=4, time_masks=9)).build(model()).train()
    heard = []
    reader = objective.reader
    monkeypatch.setattr(objective, "reader", lambda features, *rest: heard.append(features) or reader(features, *rest))
    objective(pairs())
    assert_close(heard[0].values, objective.features(pairs().audio).values, equal_nan=True)


def test_a_pair_without_a_path_is_left_out() -> None:
    """More symbols than frames: CTC has no path; its pair teaches neither durations nor states."""
    subject = model().eval()
    objective = MostConfig().build(subject).eval()
    whole = pairs()

    def heard(rows: list[int]) -> Loss:
        audio = Sequence(whole.audio.values[rows], torch.tensor([16000, 400, 22000])[rows])
        told = (whole.ids, ["da nu", "ok ok ok", "a b c d e"], LANGUAGES)
        ids, texts, languages = ([values[row] for row in rows] for values in told)
        return objective(Batch(ids, audio, texts, languages))

    loss, others = heard([0, 1, 2]), heard([0, 2])
    assert loss.parts["aligned"].item() == 2 and loss.parts["infeasible"].item() == 1
    assert torch.isfinite(loss.total)
    for part in ("matching", "duration"):
        assert loss.parts[part].item() == pytest.approx(others.parts[part].item(), rel=1e-4)


def test_more_symbols_than_frames_are_written_by_a_transducer() -> None:
    """It may write several in a frame; their durations are 0, and all sum to the frames."""
    subject = model("transducer").eval()
    objective = MaestroConfig(aligner=None).build(subject).eval()
    long = "a b c d e da nu ok " * 4
    short = Batch(["a"], Sequence(pairs().audio.values[:1, :4000], torch.tensor([4000])), [long], ["ro"])
    loss = objective(short)
    tokens = objective.targets(short)
    states = subject.encode_shared(subject.encode_speech(subject.features(short.audio))).final
    lasting, found = align(Reader.of(subject, states), tokens)
    assert tokens.lengths.item() > states.lengths.item() == lasting.values.sum().item() and bool(found)
    assert loss.parts["aligned"].item() == 1 and torch.isfinite(loss.total) and loss.parts["matching"] > 0


def test_an_empty_text_and_a_one_letter_text_are_no_trouble() -> None:
    subject = model("transducer").train()
    audio = pairs().audio
    odd = Batch(list("abc"), audio, ["", "a", None], LANGUAGES)
    for config in (MaestroConfig(), MostConfig(), AlignedMLMConfig(noise=1.0)):
        found = gradients(subject, config.build(subject)(odd))
        assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_masks_hide_states_of_both_sides() -> None:
    subject = model().eval()
    everything = SpecAugmentConfig(freq_masks=0, time_masks=60, time_share=1.0)
    for build in (lambda mask: AlignedMLMConfig(mask=mask), lambda mask: MaestroConfig(mask=mask, aligner=None)):
        objective = build(everything).build(subject)
        plain = build(None).build(subject)
        batch = sentences() if not isinstance(objective, Matching) else pairs()
        assert objective.train()(batch).parts["ctc"] != plain.train()(batch).parts["ctc"]


def test_noise_is_as_large_as_asked_and_for_training_alone() -> None:
    subject = model().eval()
    objective = AlignedMLMConfig(noise=1.5).build(subject)
    torch.manual_seed(0)
    values = torch.tensor([3.0, 0.5]).repeat(32) * torch.randn(2, 4000, 64) + 7.0
    values[1, 1000:] = torch.nan
    read = Sequence(values, torch.tensor([4000, 1000]))
    added = [noisy - plain for noisy, plain in zip(objective.train().noisy(read).unpad(), read.unpad(), strict=True)]
    assert torch.cat(added).mean(dim=0).abs().max() < 0.3
    assert_close(torch.cat(added).std(dim=0), 1.5 * torch.tensor([3.0, 0.5]).repeat(32), rtol=0.1, atol=0)
    single = Sequence(values[:1, :1], torch.tensor([1]))
    assert_close(objective.noisy(single).values, single.values)
    assert objective.eval().noisy(read) is read
    plain = AlignedMLMConfig(mask=None).build(subject).train()(sentences()).total
    assert AlignedMLMConfig(mask=None, noise=1.5).build(subject).train()(sentences()).total != plain
    assert AlignedMLMConfig().build(subject).train().noisy(read) is read


def test_the_formulas_alone() -> None:
    heard = Sequence(torch.tensor([[[1.0, 2.0], [3.0, 5.0]]]), torch.tensor([1]))
    read = Sequence(torch.tensor([[[0.0, 0.0], [torch.nan, 9.0]]]), torch.tensor([1]))
    assert matching_loss(heard, read).tolist() == [2.5]
    lasting = Sequence(torch.tensor([[1, 3, 7]]), torch.tensor([2]))
    predicted = torch.log(torch.tensor([[1.0, 4.0, 2.0]]))
    assert_close(duration_loss(predicted, lasting), torch.log(torch.tensor([2.0])).square() / 2)


def test_weighted_matching_is_the_sum_over_frames_and_symbols() -> None:
    """Σ_t γ(t, u) |e_s(t) - ê_t(u+1)|², mean over the symbols, with posteriors counted by hand from the arcs."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3, 4], [5, 0, 0]]), torch.tensor([3, 1]))
    heard = Sequence(torch.randn(2, 5, 64), torch.tensor([5, 4]))
    read = Sequence(torch.randn(2, 4, 64), torch.tensor([4, 2]))
    reader = Reader(heard, subject.heads["ctc"], subject.heads["transducer"])
    found = weighted_matching_loss(heard, read, tokens, reader)
    weights = forward_backward(*subject.heads["transducer"].arcs(heard, tokens), (heard.lengths, tokens.lengths)).label
    for row in range(2):
        total = sum(
            float(weights[row, t, u]) * float((heard.values[row, t] - read.values[row, u + 1]).square().mean())
            for t in range(int(heard.lengths[row])) for u in range(int(tokens.lengths[row]))
        )  # fmt: skip
        assert found[row].item() == pytest.approx(total / int(tokens.lengths[row]), rel=1e-4)


def test_weighted_matching_of_a_certain_alignment_is_the_distance_along_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a posterior of one path only it is the Viterbi alignment's mean squared distance."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3]]), torch.tensor([2]))
    heard, read = Sequence(torch.randn(1, 4, 64), torch.tensor([4])), Sequence(torch.randn(1, 3, 64), torch.tensor([3]))
    written = {(1, 0), (1, 1)}  # both symbols in frame 1
    label = torch.full((1, 4, 3), -1e4, dtype=torch.float64)
    for frame, symbol in written:
        label[0, frame, symbol] = 0.0
    blank = torch.where(label == 0, -1e4, 0.0)
    monkeypatch.setattr(subject.heads["transducer"], "arcs", lambda *_, **__: (blank, label))
    reader = Reader(heard, subject.heads["ctc"], subject.heads["transducer"])
    frames = subject.heads["transducer"].align(heard, tokens)
    assert frames.tolist() == [[1, 1]]
    along = torch.stack([(heard.values[0, frames[0, u]] - read.values[0, u + 1]).square().mean() for u in range(2)])
    assert_close(weighted_matching_loss(heard, read, tokens, reader), along.mean()[None])


def test_soft_matching_moves_the_alignment_where_the_speech_side_moves() -> None:
    """ASTRA's other form, of the same lattice and costs; only where no side is still does the transducer hear of it."""
    subject = model("transducer", upsampling="none").eval()

    def slopes(**changes: object) -> dict[str, Tensor]:
        objective = MaestroConfig(aligner=None, **changes).build(subject).eval()
        return gradients(subject, objective(pairs()))

    name = next(name for name, _ in subject.named_parameters() if name.startswith("heads.transducer."))
    without, hard, soft = slopes(matching=0.0), slopes(), slopes(soft=True)
    assert torch.equal(without[name], hard[name]) and not torch.allclose(without[name], soft[name])
    still = slopes(soft=True, both_sides=False)
    assert_close(still["encoder.embed.first.weight"], without["encoder.embed.first.weight"])
    tokens = Sequence(torch.tensor([[2, 3, 4]]), torch.tensor([3]))
    heard, read = Sequence(torch.randn(1, 5, 64), torch.tensor([5])), Sequence(torch.randn(1, 4, 64), torch.tensor([4]))
    transducer = subject.heads["transducer"]
    for arcs, fused in zip(*(transducer.arcs(heard, tokens, graph) for graph in (True, False)), strict=True):
        assert_close(arcs[:, :, :3], fused[:, :, :3], rtol=1e-4, atol=1e-5)
    reader, sizes = Reader(heard, subject.heads["ctc"], subject.heads["transducer"]), (heard.lengths, tokens.lengths)
    cost = torch.zeros(1, 5, 4)
    for t in range(5):
        for u in range(3):
            cost[0, t, u] = (heard.values[0, t] - read.values[0, u + 1]).square().mean()
    expected = weighted_cost(*subject.heads["transducer"].arcs(heard, tokens), cost, sizes) / 3
    assert_close(weighted_matching_loss(heard, read, tokens, reader, soft=True), expected, rtol=1e-4, atol=1e-5)


def test_weighted_matching_is_as_exact_under_autocast() -> None:
    """|a|² + |b|² - 2ab of nearly equal states is a difference that bf16 does not know."""
    subject = model("transducer").eval()
    tokens = Sequence(torch.tensor([[2, 3]]), torch.tensor([2]))
    states = torch.randn(1, 1, 64)
    heard = Sequence(states + 0.01 * torch.randn(1, 4, 64), torch.tensor([4]))
    read = Sequence(states + 0.01 * torch.randn(1, 3, 64), torch.tensor([3]))
    reader = Reader(heard, subject.heads["ctc"], subject.heads["transducer"])
    plain = weighted_matching_loss(heard, read, tokens, reader)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(weighted_matching_loss(heard, read, tokens, reader), plain, rtol=0.05, atol=0)


def test_without_upsampling_text_is_neither_stretched_nor_timed() -> None:
    subject = model("transducer", upsampling="none").train()
    tokens = Sequence(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    assert subject.encode_text(tokens, ["ro"]).lengths.tolist() == [4] and subject.text.duration is None
    with pytest.raises(IsoglossError, match="knows no durations"):
        subject.text.durations(subject.text.embed(tokens, ["ro"]))
    loss = MaestroConfig().build(subject)(pairs())
    assert "duration" not in loss.parts and gradients(subject, loss)["text.symbols.weight"].abs().sum() > 0
    assert torch.isfinite(AlignedMLMConfig().build(subject)(sentences()).total)
    with pytest.raises(IsoglossError, match=r"add model\.heads\.transducer"):
        MaestroConfig().build(model("ctc", upsampling="none"))(pairs())


def test_a_model_without_text_encoder_is_told() -> None:
    bare = Model(ModelConfig(encoder=preset("test")), build_tokenizer(CharactersConfig(), TEXTS))
    for config in (MaestroConfig(), MostConfig(), AlignedMLMConfig()):
        with pytest.raises(IsoglossError, match=r"no text encoder; train one with model\.text"):
            config.build(bare)
