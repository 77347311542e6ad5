"""The laws of sentence vectors, and of text that a machine speaks: SONAR and TTS4Pretrain."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, normalize
from torch.testing import assert_close

from isogloss.data.loading import Batch
from isogloss.model.model import Model
from isogloss.model.space import pooled
from isogloss.nn.dropout import Dropout
from isogloss.objectives.base import Loss
from isogloss.objectives.best_rq import BestRQ, BestRQConfig, CodesConfig
from isogloss.objectives.consistency import difference
from isogloss.objectives.recognition import RecognitionConfig
from isogloss.objectives.sonar import Sonar, SonarConfig, contrastive, same_wording, wordings
from isogloss.objectives.tts4pretrain import TTS4Pretrain2Config, TTS4PretrainConfig
from isogloss.sequence import Sequence
from small_objectives import LANGUAGES, TEXTS, gradients, joint_model, pairs, said, sentences, take

CODES = CodesConfig(codes=50, start_probability=0.05, mask_ms=120)


def sonar(subject: Model, **values: Any) -> Sonar:
    return SonarConfig(**values).build(subject.spec)


def texts_of(objective: Sonar, batch: Batch, training: bool = True) -> tuple[list[str], list[str]]:
    """What the teacher gets, and in which languages."""
    extras = objective.prepare(batch, training).extras
    return extras["texts"], extras["tags"]


def totals(loss: Loss) -> dict[str, float]:
    return {name: term.weight * term.total.item() for name, term in loss.terms.items()}


def test_spoken_text_is_learned_like_speech() -> None:
    subject = joint_model("attention", upsampling="repeat").eval()
    config = TTS4PretrainConfig(speech=CODES, masked=2.0, auxiliary=3.0)
    objective = config.build(subject.spec, said).eval()
    batch = sentences()
    torch.manual_seed(2)
    loss = take(objective, subject, batch)
    clips = [said(text, tag, seed) for text, tag, seed in zip(TEXTS, LANGUAGES, batch.seeds, strict=True)]
    spoken = replace(batch, audio=Sequence.from_list([torch.from_numpy(clip) for clip in clips]))
    heads = RecognitionConfig(head_weights={"language": 0}).build(subject.spec).eval()
    masked = BestRQConfig(**CODES.model_dump()).build(subject.spec).eval()
    assert isinstance(masked, BestRQ)
    masked.masked.load_state_dict(objective.masked.state_dict())
    expected = {name: 3 * total for name, total in totals(take(heads, subject, spoken)).items()}
    torch.manual_seed(2)
    alone = take(masked, subject, spoken)
    assert totals(loss) == pytest.approx(expected | {"codes": 2 * totals(alone)["codes"]}, rel=1e-4)
    assert loss.terms["codes"].count == alone.terms["codes"].count > 0
    assert loss.stats["seconds"].total.item() == pytest.approx(spoken.seconds)
    without = TTS4PretrainConfig(masked=0).build(subject.spec, said)
    assert without.masked is None and "codes" not in take(without, subject, batch).terms
    assert without.counts(batch) == {} and without.state_dict() == {}


def test_each_sentence_has_a_voice_that_its_seed_draws() -> None:
    subject = joint_model()
    asked: list[int] = []
    objective = TTS4PretrainConfig(masked=0).build(subject.spec, lambda *given: asked.append(given[2]) or said(*given))
    batch = replace(sentences(), seeds=[7, 9, 11])
    objective.prepare(batch, True)
    assert asked == [7, 9, 11]


@pytest.mark.parametrize("attention", [True, False])
def test_real_and_synthetic_speech_agree_where_they_are_the_same(attention: bool) -> None:
    subject = joint_model(*(["attention"] if attention else []), upsampling="repeat").eval()
    batch = pairs()
    clips = {text: clip.numpy() for text, clip in zip(TEXTS, batch.audio.unpad(), strict=True)}
    same = TTS4Pretrain2Config().build(subject.spec, lambda text, *_: clips[text]).eval()
    found = totals(take(same, subject, batch))
    assert found.pop("consistency") == pytest.approx(0.0, abs=1e-5)
    real = {name: total for name, total in found.items() if not name.startswith("synthetic_")}
    assert {name: found[f"synthetic_{name}"] for name in real} == pytest.approx(real, rel=1e-4)
    assert len(found) == 2 * len(real) and ("attention" in real) == attention and "language" not in real
    objective = TTS4Pretrain2Config(consistency=5.0, auxiliary=2.0).build(subject.spec, said).eval()
    loss = take(objective, subject, batch)
    assert loss.terms["consistency"].total > 0 and loss.terms["consistency"].weight == 5.0
    assert loss.terms["synthetic_ctc"].weight == 2 * loss.terms["ctc"].weight
    assert all(slope.isfinite().all() for slope in gradients(loss, subject).values())
    prepared = objective.prepare(batch, False)
    tokens = prepared.extras["symbols"]
    p = objective.posteriors(subject, objective.encoded(subject, subject.features(batch.audio), prepared).final, tokens)
    assert p.values.shape[:2] == (3, max(map(len, TEXTS)) + attention)
    assert_close(p.values.exp().sum(dim=-1), torch.ones(p.values.shape[:2]))


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    p, q = (torch.randn(2, 4, 6).log_softmax(dim=-1) for _ in range(2))
    lengths = torch.tensor([4, 2])
    found = difference(Sequence(p, lengths), Sequence(q.clone(), lengths), "kl")
    expected = [kl_div(q[row, :n], p[row, :n], log_target=True, reduction="batchmean") for row, n in enumerate([4, 2])]
    assert_close(found, torch.stack(expected))


def test_sentences_find_their_texts() -> None:
    speech, text = (normalize(torch.randn(4, 8), dim=-1) for _ in range(2))
    words = [{"a"}, {"b", "б"}, {"c"}, {"d"}]
    loss, right = contrastive(speech, text, same_wording(words), 0.5)
    scores = speech @ text.T / 0.5
    own = torch.arange(4)
    expected = cross_entropy(scores, own, reduction="sum") + cross_entropy(scores.T, own, reduction="sum")
    assert_close(loss, expected / 2)
    assert right == (scores.argmax(dim=1) == own).sum()
    # The second sentence once more, in another language: it is no wrong answer to the first two.
    twice, _ = contrastive(speech[[0, 1, 1]], text[[0, 1, 1]], same_wording([*words[:2], {"б", "β"}]), 0.5)
    alone, _ = contrastive(speech[:2], text[:2], same_wording(words[:2]), 0.5)
    assert torch.isfinite(twice) and twice < 3 * alone
    assert contrastive(text, text, same_wording(words), 0.01)[1] == 4


def test_the_teacher_is_not_taught() -> None:
    subject = joint_model()
    batch = pairs()
    found = gradients(take(sonar(subject), subject, batch), subject)
    assert not any(name.startswith("text.") for name in found)
    taught = gradients(take(sonar(subject, both_sides=True), subject, batch), subject)
    assert taught["text.symbols.weight"].abs().sum() > 0
    asked = []

    def teacher(texts: list[str], languages: list[str]) -> Tensor:
        asked.append((texts, languages))
        return torch.ones(len(texts), 5)

    objective = SonarConfig(contrast=0.0).build(subject.spec, teacher, 5)
    loss = take(objective, subject, batch)
    states = subject.encode(subject.features(batch.audio), languages=LANGUAGES).final
    assert objective.project is not None
    vectors = normalize(objective.project(pooled(states)), dim=-1)
    assert_close(loss.terms["squares"].total, (vectors - 5**-0.5).square().sum())
    assert loss.value.item() == pytest.approx(loss.terms["squares"].total.item() / 3)
    assert asked == [(TEXTS, LANGUAGES)]


def test_the_teacher_has_no_dropout_and_leaves_the_student_as_it_was() -> None:
    subject = joint_model().train()
    for module in subject.modules():
        if isinstance(module, Dropout):
            module.threshold = 128
    still, taught = sonar(subject), sonar(subject, both_sides=True)
    batch = still.prepare(pairs(), True)
    before = {name: part.training for name, part in subject.named_modules()}
    first, again = (still.text_vectors(subject, batch) for _ in range(2))
    assert torch.equal(first, again)
    assert {name: part.training for name, part in subject.named_modules()} == before
    first, again = (taught.text_vectors(subject, batch) for _ in range(2))
    assert not torch.equal(first, again)


def test_contrast_is_as_exact_under_autocast() -> None:
    speech, text = (normalize(torch.randn(8, 64), dim=-1) for _ in range(2))
    words = [{str(row)} for row in range(8)]
    plain, _ = contrastive(speech, text, same_wording(words), 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(contrastive(speech, text, same_wording(words), 0.07)[0], plain, rtol=1e-5, atol=0)


def test_the_teacher_may_get_translations() -> None:
    """Of languages that it knows, in training alone, in as many sentences as asked."""
    subject = joint_model()
    objective = sonar(subject, translated=1.0)
    assert objective.needs.languages == {"ro", "ru"} and SonarConfig(translated=0.5).translates
    batch = replace(pairs(), translations=[{"ru": "nu", "xx": "oui"}, {"xx": "oui"}, {}])
    assert texts_of(objective, batch) == (["nu", *TEXTS[1:]], ["ru", *LANGUAGES[1:]])
    assert texts_of(objective, batch, training=False) == (TEXTS, LANGUAGES)
    assert texts_of(sonar(subject), batch) == (TEXTS, LANGUAGES)
    abroad = SonarConfig(translated=1.0).build(subject.spec, lambda texts, _: torch.ones(len(texts), 5), 5)
    assert texts_of(abroad, batch)[1][1] == "xx"
    assert wordings(batch)[:2] == [{TEXTS[0], "nu", "oui"}, {TEXTS[1], "oui"}]
    half = sonar(subject, translated=0.5)
    drawn = [texts_of(half, replace(batch, seed=seed, seeds=[]))[1][0] for seed in range(100)]
    assert 30 < drawn.count("ru") < 70
    assert wordings(pairs())[1] == {TEXTS[1]}
    assert wordings(replace(pairs(), texts=["Da,  nu!", "ok", "a"]))[0] == {"da nu"}
