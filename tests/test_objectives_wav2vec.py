"""wav2vec and vq-wav2vec: sizes, losses term by term, what may not be seen, codes, and what each gradient reaches."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.testing import assert_close

from isogloss.adaptation.finetune import plan
from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.causal_cnn import CausalCNNConfig
from isogloss.encoders.embed import EmbedConfig, IdentityConfig
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.quantised import GumbelConfig, NearestConfig, QuantisedFeatures
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.model.model import Model
from isogloss.model.recogniser import Recogniser
from isogloss.model.spec import ModelConfig
from isogloss.nn.quantizers import GumbelQuantizer, NearestQuantizer
from isogloss.objectives.base import Clock, Objective
from isogloss.objectives.vq_wav2vec import VQWav2VecConfig
from isogloss.objectives.wav2vec import Wav2VecConfig
from isogloss.sequence import Sequence
from isogloss.training.journal import read_log
from isogloss.training.methods import methods
from isogloss.training.recipe import load_recipe
from isogloss.training.trainer import begin, train
from small_objectives import START, causal_model, pairs, take

SIZES = {
    # (with features and encoder, and with what only pre-training needs)
    ("wav2vec", "base"): (12_344_832, 15_496_704),
    ("wav2vec", "large"): (29_390_848, 32_542_720),  # 32.5 million, as published
    ("vq_wav2vec", "gumbel"): (30_917_248, 34_069_120),  # 34 million, as published
    ("vq_wav2vec", "k-means"): (29_868_032, 33_019_904),
}
QUANTISED = [
    GumbelConfig(codes=7),
    GumbelConfig(codes=7, shared=False),
    NearestConfig(codes=7),
    NearestConfig(codes=7, shared=False),
]


def small(embed: EmbedConfig) -> Model:
    """A model from the waveform with causal convolutions, as the paper's are, but narrow; its codes vary."""
    torch.manual_seed(0)
    features = WaveformConfig(
        channels=8, kernels=(10, 8, 4, 4, 4, 1), strides=(5, 4, 2, 2, 2, 1), norm="layer", log_compression=True
    )
    encoder = SpeechEncoderConfig(embed=embed, blocks=CausalCNNConfig(kernels=(2, 3, 4), width=16))
    model = Model(ModelConfig(features=features, encoder=encoder, heads={}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if isinstance(embed, GumbelConfig):
            for layer in quantiser(model).quantizer.choose[::2]:
                layer.weight.mul_(5)
                layer.bias.zero_()
        elif isinstance(embed, NearestConfig):
            quantiser(model).quantizer.codes.normal_()
    return model


def quantiser(model: Model) -> QuantisedFeatures:
    embed = model.encoder.embed
    assert isinstance(embed, QuantisedFeatures)
    return embed


def test_models_have_the_published_number_of_parameters() -> None:
    found = {method["name"]: method["presets"] for method in methods()}
    counted = {place: found[place[0]][place[1]] for place in SIZES}
    assert {place: (one["encoder_parameters"], one["parameters"]) for place, one in counted.items()} == SIZES
    assert set(found["wav2vec"]) == {"tiny", "base", "large"}
    # Released models share the bias of the 12 affine layers, whose output is 512 wide.
    assert SIZES["wav2vec", "large"][1] - 11 * 512 == 32_537_088


def written_out(objective: Objective, z: Sequence, c: Sequence, others: Tensor, ahead: int, count: int) -> list[Tensor]:
    """The losses of all frames, candidate by candidate."""
    found = []
    for row, (clip, context) in enumerate(zip(z.unpad(), c.unpad(), strict=True)):
        for t in range(len(clip) - ahead):
            total = torch.zeros(())
            for k in range(1, ahead + 1):
                guess = objective.get_submodule(f"predict.{k - 1}")(context[t])
                total = total - (1 / (1 + (-(guess @ clip[t + k])).exp())).log()
                wrong = [clip[int(n)] for n in others[row, t] if n != t + k]
                terms = [-(1 / (1 + (guess @ other).exp())).log() for other in wrong]
                total = total + count * torch.stack(terms).mean() if terms else total
            found.append(total / (1 + count) / ahead)
    return found


@pytest.mark.parametrize("embed", [IdentityConfig(), *QUANTISED[::2]], ids=lambda embed: embed.kind)
def test_the_loss_is_its_formula(embed: EmbedConfig) -> None:
    model, batch = small(embed).eval(), pairs(samples=[8000, 5000, 700])
    kind = Wav2VecConfig if embed.kind == "identity" else VQWav2VecConfig
    objective = kind(ahead=3, distractors=6).build(model.spec).eval()
    prepared = objective.prepare(batch, True)
    loss = objective(model, prepared, START)
    z = model.encoder.embed(model.features(batch.audio))
    c = model.encoder.contextualise(z).final
    expected = written_out(objective, z, c, prepared.extras["others"], 3, 6)
    assert_close(loss.terms["contrastive"].total, torch.stack(expected).sum(), rtol=1e-4, atol=1e-3)
    assert loss.terms["contrastive"].count == len(expected) > 50


def test_every_binary_term_starts_at_ln_2() -> None:
    """To the digit where all scores are zero, and nearly so with random weights."""
    models = {"wav2vec": causal_model(), "vq_wav2vec": small(GumbelConfig())}
    for name, config in (("wav2vec", Wav2VecConfig()), ("vq_wav2vec", VQWav2VecConfig())):
        model, batch = models[name].eval(), pairs(samples=[16000, 9000, 22000])
        objective = config.build(model.spec)
        fresh = take(objective, model, batch).terms["contrastive"]
        assert float(fresh.total.detach() / fresh.count) == pytest.approx(math.log(2), abs=0.25)
        with torch.no_grad():
            for parameter in objective.parameters():
                parameter.zero_()
        loss = take(objective, model, batch).terms["contrastive"]
        assert float(loss.total.detach() / loss.count) == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("embed", [IdentityConfig(), *QUANTISED], ids=str)
def test_nothing_of_the_future_is_seen(embed: EmbedConfig) -> None:
    """Features, codewords and states whose samples end before a change of the audio stay to the bit."""
    model, audio = small(embed).double().eval(), 0.1 * torch.randn(1, 16000, dtype=torch.float64)
    changed = audio.clone()
    changed[:, 8000:] += torch.randn(8000)
    clips = [Sequence(values, torch.tensor([16000])) for values in (audio, changed)]
    before, after = (model.encode(model.features(clip), layers=(0,)) for clip in clips)
    known = model.framing.frames(8000)
    for one, other in ((before.layers[0], after.layers[0]), (before.final, after.final)):
        assert torch.equal(one.values[:, :known], other.values[:, :known])
        assert not torch.equal(one.values[:, known:], other.values[:, known:])


def slope(function: Callable[[Tensor], Tensor], place: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a scalar function by central differences."""
    found = torch.zeros_like(place)
    for index in range(place.numel()):
        moved = torch.zeros_like(place).flatten()
        moved[index] = step
        moved = moved.view_as(place)
        found.view(-1)[index] = (function(place + moved) - function(place - moved)) / (2 * step)
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_of_gumbel_codes_is_that_of_the_softmax(shared: bool) -> None:
    """Of the soft choice with the same noise, by finite differences, while what comes out is the hard choice."""
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(3, 2, 4, 6, hidden=5, shared=shared).double().train()
    x, weight, temperature = torch.randn(4, 3).double(), torch.randn(4, 6).double(), 0.7
    torch.manual_seed(9)
    noise = -torch.empty(4, 2, 4).exponential_().log().double()
    books = quantizer.codes.detach().expand(2, -1, -1)

    def logits(x: Tensor) -> Tensor:
        return quantizer.choose(x).detach().unflatten(-1, (2, 4)) + noise

    def soft(x: Tensor) -> Tensor:
        chosen = (logits(x) / temperature).softmax(dim=-1)
        return (torch.einsum("ngv,gvd->ngd", chosen, books).flatten(1) * weight).sum()

    torch.manual_seed(9)
    place = x.clone().requires_grad_()
    found = quantizer(place, temperature)
    codes = logits(x).argmax(dim=-1)
    assert torch.equal(found.codes, codes)
    assert_close(found.vectors, torch.cat([books[g][codes[:, g]] for g in range(2)], dim=1), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((found.vectors * weight).sum(), place)
    assert_close(gradient, slope(soft, x), rtol=1e-4, atol=1e-5)
    assert float(gradient.abs().max()) > 0.01


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_of_the_nearest_codeword_goes_to_what_it_stands_for(shared: bool) -> None:
    """∂f/∂ẑ at the codeword, as it is, to z; and from there to the features: by finite differences of both."""
    torch.manual_seed(0)
    quantizer = NearestQuantizer(6, 2, 4, shared).double()
    x, weight = torch.randn(5, 6).double(), torch.randn(5, 6).double()
    with torch.no_grad():
        quantizer.codes.copy_(torch.randn_like(quantizer.codes))

    def objective(words: Tensor) -> Tensor:
        return (weight * words).sin().sum()

    place = x.clone().requires_grad_()
    found = quantizer(place)
    distances = torch.cdist(found.inputs.view(5, 2, 3).transpose(0, 1), quantizer.codes.expand(2, -1, -1))
    assert torch.equal(found.codes, distances.argmin(dim=-1).T)
    assert_close(found.copied, found.words)
    gradient, none = torch.autograd.grad(objective(found.copied), [place, quantizer.codes], allow_unused=True)
    at_words = slope(objective, found.words.detach())
    assert_close(gradient, slope(lambda x: (quantizer(x).inputs.detach() * at_words).sum(), x), rtol=1e-4, atol=1e-6)
    assert none is None and float(gradient.abs().max()) > 0.01


@pytest.mark.parametrize("embed", QUANTISED, ids=str)
def test_codes_are_the_same_alone_and_in_a_batch(embed: EmbedConfig) -> None:
    """With NaN behind, while training, in bf16; their codewords are what enters the blocks."""
    model, batch = small(embed).eval(), pairs(samples=[16000, 9000, 22000], pad=5000, poison=math.nan)
    features = model.features(batch.audio)
    features = features.with_values(features.values.where(features.valid[..., None], math.nan))
    together = quantiser(model).codes(features)
    assert together.values.shape[2] == embed.groups and together.lengths.tolist() == features.lengths.tolist()
    for alone, clip in zip(together.unpad(), batch.audio.unpad(), strict=True):
        one = model.features(Sequence.from_list([clip]))
        assert torch.equal(quantiser(model).codes(one).values[0], alone)
        assert len(alone.unique(dim=0)) > 3
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        again = quantiser(model).codes(features)
    assert all(torch.equal(*pair) for pair in zip(again.unpad(), together.unpad(), strict=True))
    assert quantiser(model).training
    samples = batch.audio.unpad()[0].numpy()
    words = Recogniser(model.eval()).encode(samples, layer=0)
    books = quantiser(model).quantizer.codes.detach().expand(embed.groups, -1, -1)
    codes = together.unpad()[0]
    assert_close(words, torch.cat([books[g][codes[:, g]] for g in range(embed.groups)], dim=1), rtol=0, atol=1e-6)


def test_each_square_moves_only_what_it_should() -> None:
    """The first codewords, the second what comes before them; neither is moved by the prediction or the other."""
    model, batch = small(NearestConfig(codes=7)), pairs(samples=[16000, 9000, 22000])
    objective = VQWav2VecConfig(ahead=3).build(model.spec)
    loss = take(objective, model, batch)
    named = {**dict(model.named_parameters()), **{f"own.{name}": p for name, p in objective.named_parameters()}}
    reached = {}
    for name, term in loss.terms.items():
        found = torch.autograd.grad(term.total, list(named.values()), allow_unused=True, retain_graph=True)
        reached[name] = {key for key, gradient in zip(named, found, strict=True) if gradient is not None}
    before = {name for name in named if name.startswith("features.")}
    before |= {f"encoder.embed.quantizer.{name}" for name in ("project.weight", "norm.weight", "norm.bias")}
    assert reached["codewords"] == {"encoder.embed.quantizer.codes"}
    assert reached["commitment"] == before
    assert reached["contrastive"] == named.keys() - {"encoder.embed.quantizer.codes"}
    assert loss.terms["commitment"].weight == 0.25 and loss.terms["codewords"].weight == 1.0
    found = quantiser(model).quantizer(model.features(batch.audio).values.flatten(0, 1))
    squares = (found.inputs - found.words).detach().square().mean(dim=1).view(3, -1)
    lengths = model.spec.frames(batch.audio.lengths).tolist()
    expected = sum(float(row[: length - 3].sum()) for row, length in zip(squares, lengths, strict=True))
    for name in ("codewords", "commitment"):
        assert float(loss.terms[name].total.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("embed", QUANTISED, ids=str)
def test_whatever_is_trained_on_codewords_reaches_the_whole_quantiser(embed: EmbedConfig) -> None:
    """As fine-tuning does, which would else stop because of codewords that nothing moves."""
    model = small(embed).train()
    states = model.encode(model.features(pairs().audio)).final.zero_padding().values
    states.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.embed.parameters())
    assert all(p.grad is not None for p in model.features.parameters())


def test_diversity_is_that_of_codes_without_noise() -> None:
    model, batch = small(GumbelConfig(codes=7)), pairs(samples=[16000, 9000, 22000])
    objective = VQWav2VecConfig(ahead=3, diversity=0.1).build(model.spec)
    loss = take(objective, model, batch).terms["diversity"]
    logits = quantiser(model).quantizer.choose(model.features(batch.audio).values).unflatten(-1, (2, 7))
    lengths = model.spec.frames(batch.audio.lengths).tolist()
    rows = [row[: length - 3] for row, length in zip(logits.softmax(dim=-1), lengths, strict=True)]
    shares = torch.cat(rows).mean(dim=0)
    expected = (14 - (-(shares * shares.log()).sum(dim=-1)).exp().sum()) / 14
    assert_close(loss.total, expected * loss.count, rtol=1e-4, atol=1e-4)
    assert loss.weight == 0.1 and loss.count == sum(map(len, rows))


def test_the_temperature_is_that_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, seen = small(GumbelConfig(codes=7)), pairs(), []
    objective = VQWav2VecConfig(ahead=3).build(model.spec)
    original = quantiser(model).quantizer.forward

    def listening(x: Tensor, temperature: float) -> object:
        seen.append(temperature)
        return original(x, temperature)

    monkeypatch.setattr(quantiser(model).quantizer, "forward", listening)
    for step in (0, 35, 70, 100):
        take(objective, model, batch, Clock(step, 100))
    assert seen == pytest.approx([2.0, 1.0, 0.5, 0.5])


def test_an_encoder_that_will_not_do_is_one_sentence() -> None:
    with torch.device("meta"):
        unlike = Model(ModelConfig(encoder=preset("tiny"), heads={})).spec
    for config in (Wav2VecConfig(), VQWav2VecConfig()):
        with pytest.raises(IsoglossError, match="sees nothing of the future"):
            config.build(unlike)
    with pytest.raises(IsoglossError, match="quantises its features"):
        VQWav2VecConfig().build(causal_model().spec)
    with pytest.raises(IsoglossError, match=r"diversity is of embed: \{kind: gumbel\}"):
        VQWav2VecConfig(diversity=0.1).build(small(NearestConfig()).spec)
    for name in ("wav2vec_base", "wav2vec_large", "vq_wav2vec_gumbel"):
        with torch.device("meta"):
            model = Model(ModelConfig(encoder=preset(name), features=preset_features(name), heads={}))
        assert model.cannot_stream is None and model.frame_seconds == 0.01


def test_clips_too_short_for_what_is_ahead_have_no_loss() -> None:
    for embed, config in ((IdentityConfig(), Wav2VecConfig()), (NearestConfig(codes=7), VQWav2VecConfig())):
        model = small(embed).eval()
        loss = take(config.build(model.spec).eval(), model, pairs(samples=[100, 465, 2000]))
        assert float(loss.value.detach()) == 0.0 and not any(term.count for term in loss.terms.values())


NEAREST = [
    "model.encoder={embed: {kind: nearest, codes: 20}, blocks: {kind: cnn, kernels: [2, 3], width: 32}}",
    "stages.0.objectives=[{name: vq_wav2vec}]",
]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("wav2vec-tiny", []), ("vq-wav2vec-tiny", []), ("vq-wav2vec-tiny", NEAREST)],
    ids=["wav2vec", "gumbel", "nearest"],
)
def test_recipes_train_and_what_they_made_is_fine_tuned(
    name: str, changes: list[str], letters: Path, tmp_path: Path
) -> None:
    """On real clips; losses fall, more than one code is in use, and a recogniser starts from the encoder."""
    sizes = [f"data.folders=[{letters}]", "data.shortest=0.3", *changes]
    sizes += [f"stages.0.{change}" for change in ("steps=24", "evaluate_every=12", "seconds.speech=12")]
    train(load_recipe(name, sizes), tmp_path / "run", console=Console(quiet=True))
    steps = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    losses = [record["loss"] for record in steps]
    assert len(losses) == 24 and sum(losses[-8:]) < sum(losses[:8])
    begin(plan(tmp_path / "run/model", [letters]).recipe, tmp_path / "tuned", resume=False)
    if name == "vq-wav2vec-tiny":
        assert min(record["vq_wav2vec/code_perplexity"] for record in steps) > 1.5
