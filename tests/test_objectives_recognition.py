"""Recognition: what is added up, what is counted, and that it can learn real speech by heart."""

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
from isogloss.objectives.base import Loss
from isogloss.objectives.recognition import Recognition, RecognitionConfig, blank_share
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import ByteTokenizer, CharactersConfig, build_tokenizer

TEXTS = ["da", "не", "ok go", ""]
LANGUAGES = ("ro", "ru")


def encoder(dropout: float = 0.0, layers: int = 2) -> SpeechEncoderConfig:
    config = preset("test")
    return config.model_copy(update={"blocks": config.blocks.model_copy(update={"dropout": dropout, "layers": layers})})


def objective(
    languages: tuple[str, ...] = LANGUAGES, layers: int = 2, conditioning: tuple[int, ...] = (), **values: object
) -> Recognition:
    torch.manual_seed(0)
    heads = {"ctc": {"conditioning": conditioning}, "language": {}}
    config = ModelConfig(encoder=encoder(layers=layers), languages=languages, heads=heads)
    model = Model(config, ByteTokenizer())
    return RecognitionConfig.parse(values, "test").build(model).eval()


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
    rq, clips = objective(intermediate=0.4, language=0.25, layers=layers), batch()
    assert rq.middle == ((layers + 1) // 2,)
    loss = rq(clips)
    last = middle = language = torch.zeros(())
    for row, samples in enumerate(clips.audio.unpad()):
        features = rq.features(Sequence.from_list([samples]))
        encoded = rq.encoder(features, layers=rq.middle)
        last = last + slow_ctc(rq.ctc(encoded.final).values[0], TEXTS[row])
        middle = middle + slow_ctc(rq.ctc(encoded.layers[rq.middle[0]]).values[0], TEXTS[row])
        assert rq.language is not None
        wanted = torch.tensor([LANGUAGES.index(clips.languages[row])])
        language = language + cross_entropy(rq.language(encoded.final), wanted)
    assert loss.count == rq.count(clips) == 4
    for name, expected in (("ctc", last), ("ctc_middle", middle), ("language", language)):
        assert loss.parts[name].item() == pytest.approx(expected.item(), rel=1e-4)
        assert not loss.parts[name].requires_grad
    assert loss.total.item() == pytest.approx((0.6 * last + 0.4 * middle + 0.25 * language).item(), rel=1e-4)


def test_self_conditioned_ctc_is_the_formula() -> None:
    """x_n + W softmax(CTC(x_n)) goes into the next block; L_mid is the mean over the blocks n."""
    rq, clips = objective(layers=4, conditioning=(1, 3), intermediate=0.4, language=0.0), batch()
    last = middle = torch.zeros(())
    for row, samples in enumerate(clips.audio.unpad()):
        states = rq.encoder(rq.features(Sequence.from_list([samples])), layers=(0,)).layers[0]
        x = states.values
        for number, block in enumerate(rq.encoder.stack.blocks, start=1):
            x = block(x, states.valid, None)
            if number in (1, 3):
                middle = middle + slow_ctc(rq.ctc(states.with_values(x)).values[0], TEXTS[row]) / 2
                x = x + rq.ctc.conditioning.back(rq.ctc.output(x).softmax(dim=-1))
        last = last + slow_ctc(rq.ctc(states.with_values(x)).values[0], TEXTS[row])
    loss = rq(clips)
    assert loss.total.item() == pytest.approx((0.6 * last + 0.4 * middle).item(), rel=1e-4)
    loss.total.backward()
    assert rq.ctc.conditioning.back.weight.grad.abs().sum() > 0


def test_conditioning_on_the_last_block_is_told() -> None:
    with pytest.raises(IsoglossError, match="1 to 1"):
        objective(conditioning=(2,))


def test_weights_of_zero_leave_their_part_out() -> None:
    plain = objective(intermediate=0.0, language=0.0)
    loss = plain(batch())
    assert {"ctc_middle", "language", "language_accuracy"}.isdisjoint(loss.parts)
    assert plain.language is None
    assert torch.equal(loss.total.detach(), loss.parts["ctc"])


def test_one_language_is_not_guessed() -> None:
    loss = objective(languages=())(batch())
    assert "language" not in loss.parts and "ctc" in loss.parts


def test_the_loss_adds_up() -> None:
    subject = objective()
    with torch.no_grad():
        whole, first, second = (
            subject(batch()),
            subject(batch(first=0, last=2)),
            subject(batch(first=2, last=4)),
        )
    assert whole.count == first.count + second.count
    assert whole.total.item() == pytest.approx((first.total + second.total).item(), rel=1e-5)
    for name in ("ctc", "ctc_middle", "language", "language_accuracy", "infeasible"):
        assert whole.parts[name].item() == pytest.approx((first.parts[name] + second.parts[name]).item(), rel=1e-4)


def test_padding_changes_nothing() -> None:
    subject, clips = objective(conditioning=(1,)), batch()
    audio = clips.audio
    values = torch.where(audio.valid, audio.values, torch.nan)
    values = torch.nn.functional.pad(values, (0, 7000), value=torch.nan)
    padded = Batch(clips.ids, Sequence(values, audio.lengths), clips.texts, clips.languages)
    plain, noisy = subject(clips), subject(padded)
    assert noisy.total.item() == pytest.approx(plain.total.item(), rel=1e-5)
    noisy.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in subject.parameters() if p.grad is not None)


def test_what_cannot_be_aligned_is_counted_and_adds_nothing() -> None:
    subject = objective(languages=())
    clips = batch((16000, 1600))
    long = "this is far too much to say in two frames"
    texts: list[str | None] = ["da", long]
    loss = subject(Batch(["a", "b"], clips.audio, texts, ["ro", "ro"]))
    alone = subject(Batch(["a"], Sequence.from_list(clips.audio.unpad()[:1]), ["da"], ["ro"]))
    assert loss.parts["infeasible"].item() == 1
    assert loss.total.item() == pytest.approx(alone.total.item(), rel=1e-5)
    assert loss.count == 2
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in subject.parameters() if p.grad is not None)


def test_targets_are_normalised_text() -> None:
    subject = objective()
    clips = batch((8000, 8000))
    composed = Batch(["a", "b"], clips.audio, ["Cafe\u0301!", None], ["ro", "ru"])
    first, second = subject.targets(composed).unpad()
    assert ByteTokenizer().decode(first.tolist()) == "café"
    assert len(second) == 0


def test_an_untrained_language_is_one_sentence() -> None:
    clips = batch((8000,), last=1)
    with pytest.raises(IsoglossError, match=r'does not know the language "rum"\. Did you mean "ru"\? It knows: ro, ru'):
        objective()(Batch(["a"], clips.audio, ["da"], ["rum"]))


def test_a_model_without_symbols_cannot_learn_to_recognise() -> None:
    with pytest.raises(IsoglossError, match="needs a tokenizer"):
        RecognitionConfig().build(Model(ModelConfig(encoder=preset("test"))))


def test_augmentation_works_in_training_only() -> None:
    subject = objective(augment="LD")
    assert isinstance(subject.weights.augment, SpecAugmentConfig)
    clips = batch()
    with torch.no_grad():
        assert torch.equal(subject(clips).total, objective()(clips).total)
        subject.train()
        torch.manual_seed(1)
        first = subject(clips).total
        torch.manual_seed(1)
        assert torch.equal(subject(clips).total, first)
        assert not torch.equal(subject(clips).total, first)


def test_the_objective_shares_the_models_weights_and_holds_no_others() -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig(encoder=encoder(), languages=LANGUAGES), ByteTokenizer())
    subject = RecognitionConfig().build(model).train()
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in subject.parameters()} == own
    subject(batch()).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_autocast_gives_nearly_the_same_loss() -> None:
    subject, clips = objective(), batch()
    exact = subject(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = subject(clips)
    assert rounded.total.dtype == torch.float32
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.02)


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
    subject = RecognitionConfig(language=0.3).build(model).train()
    audio = Sequence.from_list(
        [torch.from_numpy(read(clip.audio, start=clip.start, duration=clip.duration)) for clip in chosen]
    )
    memory = Batch([clip.id for clip in chosen], audio, list(texts), ["ro", "ru", "ru", "ro"])
    optimizer = torch.optim.AdamW(subject.parameters(), lr=3e-3)
    first: Loss | None = None
    for _ in range(120):
        loss = subject(memory)
        first = first or loss
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(subject.parameters(), 1.0)
        optimizer.step()
        if loss.total < 0.2:
            break
    assert first is not None and loss.total < 0.1 * first.total.detach()
    subject.eval()
    with torch.no_grad():
        scores = model.ctc_head()(model.encoder(model.features(audio)).final)
        final = subject(memory)
    assert [tokenizer.decode(found.tokens) for found in greedy(scores)] == texts
    assert final.parts["language_accuracy"].item() == 4
