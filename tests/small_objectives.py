"""Small models with all that objectives need, batches for them, and a step of an objective by hand."""

from collections.abc import Sequence as ListOf
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isogloss.data.loading import Batch
from isogloss.data.needs import Needs
from isogloss.encoders.embed import EmbedConfig, IdentityConfig
from isogloss.encoders.presets import preset
from isogloss.encoders.recurrent import RecurrentConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.text import TextEncoderConfig
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.ema import EMA
from isogloss.objectives.base import Clock, Loss, Objective
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import CharactersConfig, build_tokenizer

TEXTS = ["da nu da", "ok", "a b c d e"]
LANGUAGES = ["ro", "ru", "ro"]
SAMPLES = [16000, 9000, 22000]
HEADS: dict[str, dict[str, Any]] = {
    "ctc": {},
    "transducer": {"predictor": {"kind": "lstm", "width": 8}, "joiner": 12},
    "attention": {"layers": 1, "width": 32, "heads": 2, "dropout": 0.0},
    "speech": {"prenet": 16, "channels": 8, "codes": 10, "dropout": 0.0},
    "language": {},
}
START = Clock()


def joint_model(*heads: str, upsampling: str = "none", dropout: float = 0.0) -> Model:
    """A model of three blocks, two of which text shares, with CTC, these heads and that of the language."""
    torch.manual_seed(0)
    blocks = preset("test").blocks.model_copy(update={"layers": 3, "dropout": dropout})
    text = TextEncoderConfig(
        entry=1, convolutions=1, layers=1, duration_layers=1, refiner=1, dropout=dropout, upsampling=upsampling
    )
    config = ModelConfig(
        encoder=preset("test").model_copy(update={"blocks": blocks}),
        heads={name: HEADS[name] for name in HEADS if name in ("ctc", *heads, "language")},
        text=text, text_languages=("ro", "ru"), languages=("ro", "ru"), alphabets={"ro": (1,), "ru": (2,)},
    )  # fmt: skip
    return Model(config, build_tokenizer(CharactersConfig(), TEXTS))


def causal_model(embed: EmbedConfig | None = None) -> Model:
    """A model with three recurrent layers that have a state for every frame of features."""
    torch.manual_seed(0)
    blocks = RecurrentConfig(layers=3, width=16, dropout=0.0)
    encoder = SpeechEncoderConfig(embed=embed or IdentityConfig(), blocks=blocks)
    return Model(ModelConfig(encoder=encoder, heads={}))


def pairs(
    texts: ListOf[str | None] = TEXTS,
    languages: ListOf[str] = LANGUAGES,
    samples: ListOf[int] = SAMPLES,
    pad: int = 0,
    poison: float = 0.0,
) -> Batch:
    """Noise with texts; `poison` in the padding, which is `pad` samples longer than it need be."""
    generator = torch.Generator().manual_seed(0)
    audio = Sequence.from_list([0.1 * torch.randn(n, generator=generator) for n in samples])
    values = nn.functional.pad(audio.values, (0, pad))
    audio = Sequence(values.where(Sequence(values, audio.lengths).valid, poison), audio.lengths)
    names = [f"clip-{number}" for number in range(len(texts))]
    return Batch(names, audio, list(texts), list(languages), 3, speakers=["a", "b", *"a" * len(texts)][: len(texts)])


def sentences(texts: ListOf[str | None] = TEXTS, languages: ListOf[str] = LANGUAGES) -> Batch:
    """Texts that nobody spoke."""
    nothing = Sequence(torch.zeros(len(texts), 0), torch.zeros(len(texts), dtype=torch.int64))
    return Batch([f"text-{number}" for number in range(len(texts))], nothing, list(texts), list(languages), 3)


def batch_for(needs: Needs, **how: Any) -> Batch:
    """Pairs, or sentences where no audio is needed."""
    return pairs(**how) if needs.audio else sentences(**{k: v for k, v in how.items() if k in ("texts", "languages")})


def rows(batch: Batch, chosen: slice) -> Batch:
    """Some clips of a batch as a batch of their own, with the seeds that they had and no more padding than they need.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, Sequence):
            return Sequence.from_list(value.unpad()[chosen])
        if isinstance(value, dict):
            return {name: cut(part) for name, part in value.items()}
        return value[chosen] if isinstance(value, list) else value

    parts = {field.name: cut(getattr(batch, field.name)) for field in fields(batch)}
    return replace(batch, **parts | {"views": [cut(view) for view in batch.views]})


def take(objective: Objective, model: Model, batch: Batch, clock: Clock = START) -> Loss:
    """What an objective makes of a batch."""
    return objective(model, objective.prepare(batch, objective.training), clock)


def with_teacher(objective: Objective, model: Model) -> Objective:
    """The objective with its slow copy of the model, if it wants one."""
    if objective.teacher(START) is not None:
        objective.ema = EMA(objective.followed(model), objective.warms_up)
    return objective


def gradients(loss: Loss, model: Model, objective: Objective | None = None) -> dict[str, Tensor]:
    """What each parameter of the model got of a loss, and those of an objective as `own.NAME`."""
    named = dict(model.named_parameters())
    if objective is not None:
        named |= {f"own.{name}": parameter for name, parameter in objective.named_parameters()}
    found = torch.autograd.grad(loss.value, list(named.values()), allow_unused=True)
    return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}


def said(text: str, language: str, seed: int) -> np.ndarray:
    """A synthesiser: noise that its arguments determine, as long as the text."""
    draw = np.random.default_rng([len(text), ord(language[1]), seed])
    return 0.1 * draw.standard_normal(4000 + 1000 * len(text)).astype(np.float32)
