"""The laws of speech and text together without stretching: SLAM, mSLAM, SpeechT5, TTS4Pretrain, sentence vectors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torch.testing import assert_close

from isogloss.data.loading import Batch
from isogloss.encoders.presets import preset
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.heads.attention import AttentionConfig
from isogloss.heads.speech import SpeechDecoderConfig
from isogloss.model.model import Model
from isogloss.model.space import pooled
from isogloss.model.spec import ModelConfig
from isogloss.nn.dropout import Dropout
from isogloss.objectives.base import BaseConfig, Loss
from isogloss.objectives.best_rq import CodesConfig
from isogloss.objectives.slam import MaskedTextConfig, MSlamConfig, SlamConfig, SpansConfig, mean_by_row, strangers
from isogloss.objectives.sonar import SonarConfig, contrastive, wordings
from isogloss.objectives.speecht5 import (
    SpeechT5SpeechConfig,
    SpeechT5TextConfig,
    distance,
    ending,
    uniformity,
)
from isogloss.objectives.tts4pretrain import TTS4Pretrain2Config, TTS4PretrainConfig, divergence
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TEXTS = ["da nu da", "ok", "a b c d e"]
LANGUAGES = ["ro", "ru", "ro"]
CODES = CodesConfig(codes=50, start_probability=0.05, mask_ms=120)
ALL = [
    SlamConfig(speech=CODES),
    MSlamConfig(speech=CODES),
    MaskedTextConfig(),
    SpeechT5SpeechConfig(speech=CODES),
    SpeechT5TextConfig(),
    SonarConfig(),
    SonarConfig(both_sides=True, translated=0.5),
]


DECODERS = {
    "attention": AttentionConfig(layers=1, width=32, heads=2, dropout=0.0),
    "speech": SpeechDecoderConfig(prenet=16, channels=8, codes=10, dropout=0.0),
}


def model(upsampling: str = "none", attention: bool = True) -> Model:
    torch.manual_seed(0)
    blocks = preset("test").blocks.model_copy(update={"layers": 3, "dropout": 0.0})
    text = TextEncoderConfig(entry=1, convolutions=0, layers=0, refiner=0, dropout=0.0, upsampling=upsampling)
    config = ModelConfig(
        encoder=preset("test").model_copy(update={"blocks": blocks}),
        heads={"ctc": {}} | (DECODERS if attention else {}) | {"language": {}},
        text=text, text_languages=("ro", "ru"), languages=("ro", "ru"), alphabets={"ro": (1,), "ru": (2,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(), TEXTS))


def said(text: str, language: str, seed: int) -> np.ndarray:
    """A synthesiser: noise that its arguments determine, as long as the text."""
    draw = np.random.default_rng([len(text), ord(language[1]), seed])
    return 0.1 * draw.standard_normal(4000 + 1000 * len(text)).astype(np.float32)


def pairs(rows: slice = slice(None), pad: int = 0, poison: float = 0.0, texts: list[str] = TEXTS) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio = Sequence.from_list([0.1 * torch.randn(n, generator=generator) for n in (16000, 9000, 22000)][rows])
    values = torch.nn.functional.pad(audio.values, (0, pad))
    valid = Sequence(values, audio.lengths).valid
    audio = Sequence(values.where(valid, poison), audio.lengths)
    return Batch(list("abc")[rows], audio, texts[rows], LANGUAGES[rows], 3)


def sentences(rows: slice = slice(None), texts: list[str] = TEXTS) -> Batch:
    count = len(texts[rows])
    nothing = Sequence(torch.zeros(count, 0), torch.zeros(count, dtype=torch.int64))
    return Batch(list("xyz")[rows], nothing, texts[rows], LANGUAGES[rows], 3)


def batch_for(objective: Any, **how: Any) -> Batch:
    return sentences() if objective.kind == "text" else pairs(**how)


def gradients(subject: Any, loss: Loss) -> dict[str, Tensor]:
    subject.zero_grad(set_to_none=True)
    loss.total.backward()
    return {name: p.grad.clone() for name, p in subject.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_everything_registered_learns_and_padding_changes_nothing(config: BaseConfig) -> None:
    objective = config.build(model()).train()
    torch.manual_seed(1)
    loss = objective(batch_for(objective))
    found = gradients(objective, loss)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
    # Of these a loss may need a part.
    apart: tuple[str, ...] = ("encoder.", "text.", "features.", "language.")
    apart += ("attention.", "decoder.") if config.name.startswith("speecht5") else ()
    assert {name for name, _ in objective.named_parameters() if not name.startswith(apart)} <= found.keys()
    assert loss.count == objective.count(batch_for(objective)) == 3
    objective.eval()
    torch.manual_seed(1)
    plain = objective(batch_for(objective)).total.item()
    if objective.kind != "text" and config.name != "speecht5_speech" and "slam" not in config.name:
        poisoned = objective(pairs(pad=3000, poison=float("nan"))).total.item()
        assert poisoned == pytest.approx(plain, rel=1e-4)
    elif objective.kind != "text":  # masks of speech are drawn over the padded width: the same width, other padding
        torch.manual_seed(1)
        assert objective(batch_for(objective, poison=float("nan"))).total.item() == pytest.approx(plain, rel=1e-4)


def poisoned(told: Callable[..., Sequence]) -> Callable[..., Sequence]:
    """The same texts with other padding."""

    def padded(*asked: Any) -> Sequence:
        tokens = told(*asked)
        return Sequence(tokens.values.where(tokens.valid, 2), tokens.lengths)

    return padded


@pytest.mark.parametrize("config", [c for c in ALL if c.name != "speecht5_speech"], ids=lambda config: config.name)
def test_padding_of_texts_changes_nothing(config: BaseConfig) -> None:
    objective = config.build(model()).eval()
    torch.manual_seed(1)
    plain = objective(batch_for(objective)).total.item()
    for name in {"_units", "_written"} & vars(objective).keys():
        setattr(objective, name, poisoned(getattr(objective, name)))
    torch.manual_seed(1)
    assert objective(batch_for(objective)).total.item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_empty_and_one_letter_texts_are_no_trouble(config: BaseConfig) -> None:
    subject = model()
    objective = config.build(subject).train()
    odd = ["", "a", ""]
    batch = sentences(texts=odd) if objective.kind == "text" else pairs(texts=odd)
    loss = objective(batch)
    assert torch.isfinite(loss.total)
    if loss.total.requires_grad:
        assert all(torch.isfinite(gradient).all() for gradient in gradients(subject, loss).values())


@pytest.mark.parametrize("config", [c for c in ALL if c.name != "sonar"], ids=lambda config: config.name)
def test_text_that_is_stretched_is_refused(config: BaseConfig) -> None:
    if config.name != "speecht5_speech":
        with pytest.raises(IsoglossError, match="upsampling: none"):
            config.build(model("repeat"))
    if config.name.startswith("speecht5"):
        with pytest.raises(IsoglossError, match=r"add model\.heads\.attention: \{\} and model\.heads\.speech"):
            config.build(model(attention=False))


def test_what_is_hidden_does_not_leak_and_each_side_reads_the_other() -> None:
    """Other symbols under the mask change the loss of text only; other symbols beside it what is made of the speech."""
    subject = model().eval()
    objective = MSlamConfig(speech=CODES, hidden=SpansConfig(share=0.4, span=2)).build(subject).eval()
    batch = pairs()
    tokens = objective.targets(batch)
    mask = objective.hidden.mask(tokens, batch.seed)
    assert mask.any() and (~mask & tokens.valid).any()
    heard = subject.encode_speech(subject.features(batch.audio), batch.languages)

    def states(symbols: Tensor) -> Tensor:
        hidden = tokens.with_values(symbols.masked_fill(mask, 0))
        return objective.together(heard, subject.encode_text(hidden, batch.languages), batch)[0].values

    other = (tokens.values % 5) + 1
    before = states(tokens.values)
    assert torch.equal(before, states(torch.where(mask, other, tokens.values)))
    changed = (before - states(torch.where(mask, tokens.values, other))).abs().amax(dim=(1, 2))
    assert bool((changed > 0).all())


def test_mslam_is_the_formula_and_ctc_hears_the_speech_alone() -> None:
    subject = model(attention=False).eval()
    objective = MSlamConfig(speech=CODES, heads=0.7, language=0.0, intermediate=0.0).build(subject).eval()
    batch = pairs()
    torch.manual_seed(4)
    loss = objective(batch)
    tokens = objective.targets(batch)
    torch.manual_seed(4)
    features = subject.features(batch.audio)
    corrupted, frames = objective.speech.hide(features, batch.seed)
    symbols = objective.hidden.mask(tokens, batch.seed)
    heard = subject.encode_speech(corrupted, batch.languages)
    read = subject.encode_text(tokens.with_values(tokens.values.masked_fill(symbols, 0)), batch.languages)
    total = torch.zeros(())
    for row in range(3):
        length, units = int(heard.lengths[row]), int(read.lengths[row])
        joined = torch.cat([heard.values[row, :length], read.values[row, :units]])[None]
        together = Sequence(joined, torch.tensor([length + units]))
        through = subject.encode_shared(together, languages=[LANGUAGES[row]]).final.values[0]
        hidden = frames[row, :length]
        codes = objective.speech.codes(features, frames & (torch.arange(3) == row)[:, None])
        if hidden.any():
            total = total + cross_entropy(objective.speech.softmax(through[:length][hidden]), codes[:, 0])
        places = symbols[row].nonzero()[:, 0]
        if len(places):
            scores = objective.hidden.softmax(through[length + 1 + places])
            total = total + cross_entropy(scores, tokens.values[row, places])
    alone, _ = objective.read_off(subject.encode_shared(heard, (2,), batch.languages), tokens, batch)
    assert loss.total.item() == pytest.approx((total + 0.7 * alone).item(), rel=1e-4)


def test_clips_of_one_text_are_no_mismatch() -> None:
    objective = SlamConfig(speech=CODES).build(model()).eval()
    states = Sequence(torch.randn(3, 4, 64), torch.tensor([4, 4, 4]))
    both = objective.told_apart(states, states, ["a", "b", "c"], [1, 2, 0])
    logits = objective.same(states.values[:, 0])[:, 0]
    right, wrong = -logits.sigmoid().log(), -(-logits).sigmoid().log()
    assert_close(both, (right + wrong).sum() / 2)
    some = objective.told_apart(states, states, ["a", "a", "c"], [2, 0, 1])
    assert_close(some, (right.sum() + wrong[0] + wrong[2]) / 2)


def test_a_mismatched_pair_has_the_transcript_of_another() -> None:
    """L_STM reads each clip with its own text and with a stranger's; sentences are told apart as they are read."""
    objective = SlamConfig(speech=CODES).build(model()).eval()
    read, seen = objective.together, []
    objective.together = lambda heard, text, batch: seen.append(text) or read(heard, text, batch)
    batch = pairs()
    objective(batch)
    own, strange = seen
    others = strangers(TEXTS, LANGUAGES)
    assert all(place != other for place, other in enumerate(others))
    for row, other in enumerate(others):
        length = int(own.lengths[other])
        assert strange.lengths[row] == length
        assert torch.equal(strange.values[row, :length], own.values[other, :length])
    same = SlamConfig(speech=CODES, hidden=SpansConfig(share=0.01)).build(model()).eval()
    asked = []
    same.told_apart = lambda *given: asked.append(given[2:]) or torch.zeros(())
    same(pairs(texts=["Da nu.", "ok", "da nu"]))
    assert asked == [(["da nu", "ok", "da nu"], [1, 2, 1])]


def test_a_language_head_is_there_only_where_it_learns() -> None:
    assert not SlamConfig().identifies and SlamConfig(heads=1.0).identifies and MSlamConfig().identifies


def test_a_mismatched_transcript_is_of_the_same_language_where_there_is_one() -> None:
    assert strangers(["a", "b", "c", "d"], ["ro", "el", "ro", "be"]) == [2, 2, 0, 0]
    assert strangers(["a", "a", "c"], ["ro", "ro", "el"]) == [2, 2, 0]
    assert strangers(["a", "a"], ["ro", "ro"]) == [0, 1] and strangers([""], ["ro"]) == [0]


def test_slam_trains_no_heads_and_masked_text_no_speech_side(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model()
    objective = SlamConfig(speech=CODES).build(subject)
    assert not objective.transcribes and objective.ctc is None
    assert not any("ctc" in name for name in gradients(subject, objective(pairs())))
    for untouched in (subject.features, subject.encoder.embed, subject.encoder.stack.blocks[0]):
        monkeypatch.setattr(untouched, "forward", None)
    for config in (MaskedTextConfig(), SpeechT5TextConfig()):
        found = gradients(subject, config.build(subject)(sentences()))
        assert found and not any(name.startswith(("encoder.embed", "encoder.stack.blocks.0.")) for name in found)


def test_means_by_row() -> None:
    assert mean_by_row(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 4).tolist() == [2.0, 0.0, 5.0, 0.0]


def test_spoken_text_is_learned_like_speech() -> None:
    subject = model("repeat").eval()
    objective = TTS4PretrainConfig(speech=CODES, masked=2.0, auxiliary=3.0).build(subject, said).eval()
    torch.manual_seed(2)
    loss = objective(sentences())
    clips = [said(text, tag, 3 + row) for row, (text, tag) in enumerate(zip(TEXTS, LANGUAGES, strict=True))]
    audio = Sequence.from_list([torch.from_numpy(clip) for clip in clips])
    spoken = Batch(list("xyz"), audio, TEXTS, LANGUAGES, 3)
    torch.manual_seed(2)
    heads, _ = objective.read_off(objective.encoded(spoken), objective.targets(spoken), spoken)
    masked = objective.masked(spoken)
    assert loss.total.item() == pytest.approx((3 * heads + 2 * 3 * masked.total / masked.count).item(), rel=1e-4)
    assert loss.parts["seconds"].item() == pytest.approx(audio.lengths.sum().item() / 16000)
    assert TTS4PretrainConfig(masked=0).build(subject, said).masked is None


@pytest.mark.parametrize("attention", [True, False])
def test_real_and_synthetic_speech_agree_where_they_are_the_same(attention: bool) -> None:
    subject = model("repeat", attention).eval()
    batch = pairs()
    clips = {text: clip.numpy() for text, clip in zip(TEXTS, batch.audio.unpad(), strict=True)}
    same = TTS4Pretrain2Config().build(subject, lambda text, *_: clips[text]).eval()(batch)
    assert same.parts["consistency"].item() == pytest.approx(0.0, abs=1e-5)
    assert same.total.item() == pytest.approx(2 * same.parts["synthetic"].item(), rel=1e-4)
    objective = TTS4Pretrain2Config(consistency=5.0, auxiliary=2.0).build(subject, said).eval()
    loss = objective(batch)
    assert loss.parts["consistency"] > 0
    found = gradients(subject, loss)
    assert found["encoder.embed.first.weight"].abs().sum() > 0
    tokens = objective.targets(batch)
    states = objective.encoded(batch).final
    p = objective.posteriors(states, tokens)
    assert p.values.shape[:2] == (3, max(map(len, TEXTS)) + attention)
    assert_close(p.values.exp().sum(dim=-1), torch.ones(p.values.shape[:2]))


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    p, q = (torch.randn(2, 4, 6).log_softmax(dim=-1) for _ in range(2))
    lengths = torch.tensor([4, 2])
    found = divergence(Sequence(p, lengths), Sequence(q.clone(), lengths))
    expected = [kl_div(q[row, :n], p[row, :n], log_target=True, reduction="batchmean") for row, n in enumerate([4, 2])]
    assert_close(found, torch.stack(expected))


def test_sentences_find_their_texts() -> None:
    speech, text = (torch.nn.functional.normalize(torch.randn(4, 8), dim=-1) for _ in range(2))
    said = [{"a"}, {"b", "б"}, {"c"}, {"d"}]
    loss, right = contrastive(speech, text, said, 0.5)
    scores = speech @ text.T / 0.5
    own = torch.arange(4)
    expected = cross_entropy(scores, own, reduction="sum") + cross_entropy(scores.T, own, reduction="sum")
    assert_close(loss, expected / 2)
    assert right == (scores.argmax(dim=1) == own).sum()
    # The second sentence once more, in another language: it is no wrong answer to the first two.
    twice, _ = contrastive(speech[[0, 1, 1]], text[[0, 1, 1]], [*said[:2], {"б", "β"}], 0.5)
    alone, _ = contrastive(speech[:2], text[:2], said[:2], 0.5)
    assert torch.isfinite(twice) and twice < 3 * alone
    assert contrastive(text, text, said, 0.01)[1] == 4


def test_the_teacher_is_not_taught() -> None:
    subject = model()
    batch = pairs()
    found = gradients(subject, SonarConfig().build(subject)(batch))
    assert not any(name.startswith("text.") for name in found)
    taught = gradients(subject, SonarConfig(both_sides=True).build(subject)(batch))
    assert taught["text.symbols.weight"].abs().sum() > 0
    asked = []

    def teacher(texts: list[str], languages: list[str]) -> Tensor:
        asked.append((texts, languages))
        return torch.ones(len(texts), 5)

    objective = SonarConfig(contrast=0.0).build(subject, teacher, 5)
    loss = objective(batch)
    states = subject.encode(subject.features(batch.audio), languages=LANGUAGES).final
    vectors = torch.nn.functional.normalize(objective.project(pooled(states)), dim=-1)
    assert_close(loss.total, (vectors - 5**-0.5).square().sum())
    assert asked == [(TEXTS, LANGUAGES)]


def test_the_teacher_has_no_dropout_and_leaves_the_student_as_it_was() -> None:
    subject = model()
    for module in subject.modules():
        if isinstance(module, Dropout):
            module.threshold = 128
    objective = SonarConfig().build(subject).train()
    before = {name: part.training for name, part in subject.named_modules()}
    subject.text.train()
    first, again = (objective.teacher(TEXTS, LANGUAGES, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first, again)
    assert {name: part.training for name, part in subject.named_modules()} == before
    taught = SonarConfig(both_sides=True).build(subject).train()
    first, again = (taught.teacher(TEXTS, LANGUAGES, torch.device("cpu")) for _ in range(2))
    assert not torch.equal(first, again)


def test_contrast_is_as_exact_under_autocast() -> None:
    speech, text = (torch.nn.functional.normalize(torch.randn(8, 64), dim=-1) for _ in range(2))
    said = [{str(row)} for row in range(8)]
    plain, _ = contrastive(speech, text, said, 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(contrastive(speech, text, said, 0.07)[0], plain, rtol=1e-5, atol=0)


def test_the_teacher_may_read_translations() -> None:
    """Of languages that it knows, in training alone, in as many sentences as asked."""
    objective = SonarConfig(translated=1.0).build(model())
    batch = replace(pairs(), translations=[{"ru": "да", "xx": "oui"}, {"xx": "oui"}, {}])
    assert objective.train().readings(batch) == (["да", *TEXTS[1:]], ["ru", *LANGUAGES[1:]])
    assert objective.eval().readings(batch) == (TEXTS, LANGUAGES)
    assert SonarConfig().build(model()).train().readings(batch) == (TEXTS, LANGUAGES)
    abroad = SonarConfig(translated=1.0).build(model(), lambda texts, languages: torch.ones(len(texts), 5), 5)
    assert abroad.train().readings(batch)[1][1] == "xx"
    assert wordings(batch)[:2] == [{TEXTS[0], "да", "oui"}, {TEXTS[1], "oui"}]
    torch.manual_seed(0)
    half = SonarConfig(translated=0.5).build(model()).train()
    assert 30 < sum(half.readings(batch)[1][0] == "ru" for _ in range(100)) < 70
    assert wordings(pairs())[1] == {TEXTS[1]}
    assert wordings(replace(pairs(), texts=["Da,  nu!", "ok", "a"]))[0] == {"da nu"}


def test_infilling_leaves_one_blank_a_span() -> None:
    objective = SpeechT5TextConfig(share=0.3, span=3.5).build(model())
    tokens = Sequence(torch.randint(1, 6, (200, 60)), torch.randint(1, 61, (200,)))
    spoiled = objective.infilled(tokens, 1)
    for symbols, left in zip(tokens.unpad(), spoiled.unpad(), strict=True):
        assert not ((left[1:] == 0) & (left[:-1] == 0)).any()
        kept = iter(symbols.tolist())
        assert all(any(symbol == other for other in kept) for symbol in left[left != 0].tolist())  # in order
    hidden = tokens.lengths.sum() - (spoiled.zero_padding().values != 0).sum()
    assert 0.25 < hidden / tokens.lengths.sum() < 0.35
    again = objective.infilled(tokens, 1)
    assert torch.equal(again.values, spoiled.values)


def test_speech_and_text_together_teach_all_of_speecht5() -> None:
    subject = model()
    found = set()
    for config, batch in ((SpeechT5SpeechConfig(speech=CODES), pairs()), (SpeechT5TextConfig(), sentences())):
        found |= gradients(subject, config.build(subject).train()(batch)).keys()
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
    mixed, likely = subject.heads["speech"].train().mix(states)
    changed = (mixed.values != states.values).any(dim=-1)
    assert not (changed & ~states.valid).any()
    assert 0.07 < changed.sum() / states.lengths.sum() < 0.13
    assert len(mixed.values[changed].unique(dim=0)) <= 100  # two groups of ten codes
    assert_close(likely.sum(dim=-1), torch.ones(2))
    assert torch.equal(subject.heads["speech"].eval().mix(states)[0].values, states.values)
