"""Recognition: what is added up, what is counted, and that it can learn real speech by heart."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, ctc_loss

from isogloss.audio.augment import SpecAugmentConfig
from isogloss.audio.reading import read
from isogloss.data.loading import Batch
from isogloss.data.manifests import Utterance
from isogloss.decoding.greedy import greedy
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.objectives.recognition import Recognition, RecognitionConfig, blank_share
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import ByteTokenizer, CharactersConfig, build_tokenizer
from small_objectives import gradients, take

TEXTS = ["da", "не", "ok go", ""]
LANGUAGES = ("ro", "ru")


def encoder(dropout: float = 0.0, layers: int = 2) -> SpeechEncoderConfig:
    config = preset("test")
    return config.model_copy(update={"blocks": config.blocks.model_copy(update={"dropout": dropout, "layers": layers})})


def build(
    languages: tuple[str, ...] = LANGUAGES, layers: int = 2, conditioning: tuple[int, ...] = (), **values: object
) -> tuple[Recognition, Model]:
    """The objective and the model it is for."""
    torch.manual_seed(0)
    heads = {"ctc": {"conditioning": conditioning}, "language": {}}
    config = ModelConfig(encoder=encoder(layers=layers), languages=languages, heads=heads)
    model = Model(config, ByteTokenizer())
    return RecognitionConfig.parse(values, "test").build(model.spec).eval(), model.eval()


def batch(lengths: tuple[int, ...] = (16000, 12000, 20000, 8000), first: int = 0, last: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    items = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    languages = ["ro", "ru", "ro", "ru"]
    audio = Sequence.from_list(items[first:last])
    return Batch([str(i) for i in range(first, last)], audio, TEXTS[first:last], languages[first:last])


def slow_ctc(log_probabilities: Tensor, text: str) -> Tensor:
    """Nats a symbol of one utterance of UTF-8 bytes."""
    target = torch.tensor([byte + 1 for byte in text.encode()], dtype=torch.int64)
    loss = ctc_loss(log_probabilities, target, [len(log_probabilities)], [len(target)], reduction="sum")
    return loss / max(1, len(target))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_loss_is_the_formula(layers: int) -> None:
    """(1 - w) L_ctc + w L_mid + v L_lid, each utterance alone."""
    subject, model = build(intermediate=0.4, head_weights={"language": 0.25}, layers=layers)
    clips, ctc = batch(), model.ctc_head()
    middle_block = (layers + 1) // 2
    loss = take(subject, model, clips)
    last = middle = language = torch.zeros(())
    for row, samples in enumerate(clips.audio.unpad()):
        features = model.features(Sequence.from_list([samples]))
        encoded = model.encoder(features, layers=(middle_block,))
        last = last + slow_ctc(ctc(encoded.final).values[0], TEXTS[row])
        middle = middle + slow_ctc(ctc(encoded.layers[middle_block]).values[0], TEXTS[row])
        wanted = torch.tensor([LANGUAGES.index(clips.languages[row])])
        language = language + cross_entropy(model.identify(encoded.final), wanted)
    for name, expected, weight in (("ctc", last, 0.6), ("ctc_middle", middle, 0.4), ("language", language, 0.25)):
        term = loss.terms[name]
        assert term.total.item() == pytest.approx(expected.item(), rel=1e-4)
        assert (term.count, term.weight) == (4, pytest.approx(weight))
    assert loss.terms.keys() == {"ctc", "ctc_middle", "language"}
    assert loss.value.item() == pytest.approx((0.6 * last + 0.4 * middle + 0.25 * language).item() / 4, rel=1e-4)


def test_self_conditioned_ctc_is_the_formula() -> None:
    """x_n + W softmax(CTC(x_n)) goes into the next block; L_mid is the mean over the blocks n."""
    subject, model = build(layers=4, conditioning=(1, 3), intermediate=0.4, head_weights={"language": 0})
    clips, ctc = batch(), model.ctc_head()
    last = middle = torch.zeros(())
    for row, samples in enumerate(clips.audio.unpad()):
        states = model.encoder(model.features(Sequence.from_list([samples])), layers=(0,)).layers[0]
        x = states.values
        for number, block in enumerate(model.encoder.stack.blocks, start=1):
            x = block(x, states.valid, None)
            if number in (1, 3):
                middle = middle + slow_ctc(ctc(states.with_values(x)).values[0], TEXTS[row]) / 2
                x = x + ctc.conditioning.back(ctc.output(x).softmax(dim=-1))
        last = last + slow_ctc(ctc(states.with_values(x)).values[0], TEXTS[row])
    loss = take(subject, model, clips)
    assert loss.value.item() == pytest.approx((0.6 * last + 0.4 * middle).item() / 4, rel=1e-4)
    assert gradients(loss, model)["heads.ctc.conditioning.back.weight"].abs().sum() > 0


def test_conditioning_on_the_last_block_is_told() -> None:
    with pytest.raises(IsoglossError, match="1 to 1"):
        build(conditioning=(2,))


def test_weights_of_zero_leave_their_part_out() -> None:
    subject, model = build(intermediate=0.0, head_weights={"language": 0})
    loss = take(subject, model, batch())
    assert loss.terms.keys() == {"ctc"} and "language_accuracy" not in loss.stats
    assert not any(name.startswith("heads.language") for name in gradients(loss, model))
    assert torch.equal(loss.value, loss.terms["ctc"].total / 4)


def test_a_head_that_the_model_does_not_have_is_named() -> None:
    with pytest.raises(IsoglossError, match=r"head_weights: the model has no head lid; it has ctc, language"):
        build(head_weights={"lid": 0})


def test_one_language_is_not_guessed() -> None:
    subject, model = build(languages=())
    assert take(subject, model, batch()).terms.keys() == {"ctc", "ctc_middle"}


def test_the_loss_adds_up() -> None:
    subject, model = build()
    with torch.no_grad():
        whole, first, second = (
            take(subject, model, part) for part in (batch(), batch(first=0, last=2), batch(first=2, last=4))
        )
    for name, mean in {**whole.terms, **whole.stats}.items():
        one, two = ({**half.terms, **half.stats}[name] for half in (first, second))
        assert float(mean.count) == float(one.count) + float(two.count)
        if name != "blank":  # a share of the frames of a batch
            assert float(mean.total) == pytest.approx(float(one.total) + float(two.total), rel=1e-4)


def test_padding_changes_nothing() -> None:
    subject, model = build(conditioning=(1,))
    clips = batch()
    audio = clips.audio
    values = torch.where(audio.valid, audio.values, torch.nan)
    values = torch.nn.functional.pad(values, (0, 7000), value=torch.nan)
    padded = replace(clips, audio=Sequence(values, audio.lengths))
    plain, noisy = take(subject, model, clips), take(subject, model, padded)
    assert noisy.value.item() == pytest.approx(plain.value.item(), rel=1e-5)
    assert all(torch.isfinite(slope).all() for slope in gradients(noisy, model).values())


def test_what_cannot_be_aligned_is_counted_and_adds_nothing() -> None:
    subject, model = build(languages=())
    clips = batch((16000, 1600))
    long = "this is far too much to say in two frames"
    texts: list[str | None] = ["da", long]
    loss = take(subject, model, Batch(["a", "b"], clips.audio, texts, ["ro", "ro"]))
    alone = take(subject, model, Batch(["a"], Sequence.from_list(clips.audio.unpad()[:1]), ["da"], ["ro"]))
    assert loss.stats["infeasible"].total.item() == 1
    for name, term in loss.terms.items():
        assert term.total.item() == pytest.approx(alone.terms[name].total.item(), rel=1e-5)
        assert term.count == 2
    assert all(torch.isfinite(slope).all() for slope in gradients(loss, model).values())


def test_targets_are_normalised_text() -> None:
    subject, _ = build()
    clips = batch((8000, 8000))
    composed = Batch(["a", "b"], clips.audio, ["Cafe\u0301!", None], ["ro", "ru"])
    extras = subject.prepare(composed, True).extras
    first, second = extras["symbols"].unpad()
    assert ByteTokenizer().decode(first.tolist()) == "café"
    assert len(second) == 0 and extras["language"].tolist() == [0, 1]


def test_clips_in_a_language_that_is_not_identified_do_not_count_for_its_head() -> None:
    """As a dev split may have them, and clips whose language nobody knows."""
    subject, model = build()
    clips = batch((16000, 12000, 20000), last=3)
    with torch.no_grad():
        loss = take(subject, model, replace(clips, languages=["ro", "und", "ru"]))
        wanted = [
            float(cross_entropy(model.identify(states_of(model, clips, row)), torch.tensor([language])))
            for row, language in ((0, 0), (2, 1))
        ]
    assert loss.terms["language"].count == 2 and loss.stats["language_accuracy"].count == 2
    assert float(loss.terms["language"].total) == pytest.approx(sum(wanted), rel=1e-5)
    assert loss.terms["ctc"].count == 3


def states_of(model: Model, clips: Batch, row: int) -> Sequence:
    """The states of one clip alone."""
    return model.encode(model.features(Sequence.from_list(clips.audio.unpad()[row : row + 1]))).final


def test_what_a_head_is_decides_and_not_its_name() -> None:
    heads = {"characters": {"kind": "ctc"}, "lid": {"kind": "classifier"}}
    model = Model(ModelConfig(encoder=encoder(), languages=LANGUAGES, heads=heads), ByteTokenizer())
    subject = RecognitionConfig(intermediate=0.4).build(model.spec)
    loss = take(subject, model, batch())
    weights = {name: round(term.weight, 3) for name, term in loss.terms.items()}
    assert weights == {"characters": 0.6, "characters_middle": 0.4, "lid": 0.1}
    assert {alarm.stat for alarm in subject.health()} == {"blank"}


def test_a_model_without_symbols_cannot_learn_to_recognise() -> None:
    with pytest.raises(IsoglossError, match=r"recognition needs a head that predicts symbols; add model\.tokenizer"):
        RecognitionConfig().build(Model(ModelConfig(encoder=preset("test"))).spec)


def test_augmentation_works_in_training_only() -> None:
    subject, model = build(augment="LD")
    assert isinstance(subject.weights.augment, SpecAugmentConfig)
    clips = batch()
    with torch.no_grad():
        assert torch.equal(take(subject, model, clips).value, take(*build(), clips).value)
        subject.train()
        torch.manual_seed(1)
        first = take(subject, model, clips).value
        torch.manual_seed(1)
        assert torch.equal(take(subject, model, clips).value, first)
        assert not torch.equal(take(subject, model, clips).value, first)


def test_the_objective_holds_no_weights_and_trains_all_of_the_model() -> None:
    subject, model = build()
    assert subject.state_dict() == {}
    found = gradients(take(subject.train(), model.train(), batch()), model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(slope.abs().max() > 0 for slope in found.values())


def test_autocast_gives_nearly_the_same_loss() -> None:
    subject, model = build()
    exact = take(subject, model, batch()).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = take(subject, model, batch()).value
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_blank_share_counts_valid_frames() -> None:
    scores = torch.zeros(2, 4, 3)
    scores[0, :3, 0] = 1.0
    scores[0, 3, 1] = 1.0
    scores[1, 0, 2] = 1.0
    scores[1, 1:, 0] = 9.0  # padding
    assert blank_share(Sequence(scores, torch.tensor([4, 1]))).item() == pytest.approx(3 / 5)
    assert blank_share(Sequence(scores, torch.tensor([0, 0]))).item() == 0.0


def test_it_learns_four_real_clips_by_heart(clips: list[Utterance]) -> None:
    """CTC and the language, to the last character."""
    chosen = [clips[4], clips[7], clips[10], clips[11]]
    texts = ["alpha", "beta gama", "дом", "ok"]  # what is said does not matter for learning by heart
    tokenizer = build_tokenizer(CharactersConfig(), texts)
    torch.manual_seed(0)
    model = Model(ModelConfig(encoder=encoder(), languages=("ro", "ru")), tokenizer)
    subject = RecognitionConfig(head_weights={"language": 0.3}).build(model.spec).train()
    audio = Sequence.from_list(
        [torch.from_numpy(read(clip.audio, start=clip.start, duration=clip.duration)) for clip in chosen]
    )
    memory = Batch([clip.id for clip in chosen], audio, list(texts), ["ro", "ru", "ru", "ro"])
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(120):
        loss = take(subject, model, memory).value
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if losses[-1] < 0.05:
            break
    assert losses[-1] < 0.1 * losses[0]
    subject.eval()
    model.eval()
    with torch.no_grad():
        scores = model.ctc_head()(model.encoder(model.features(audio)).final)
        final = take(subject, model, memory)
    assert [tokenizer.decode(found.tokens) for found in greedy(scores)] == texts
    assert final.stats["language_accuracy"].total.item() == 4
