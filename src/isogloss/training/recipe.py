"""A recipe: everything that decides a training run, as plain YAML.

    model   what is built          data    what it learns from
    stages  one after another: objectives, seconds of audio a step, steps, optimizer, what is frozen
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from isogloss.audio.perturb import PerturbConfig
from isogloss.config import Config, load_yaml, override
from isogloss.data.loading import Kind
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.heads.attention import AttentionConfig
from isogloss.heads.speech import SpeechDecoderConfig
from isogloss.heads.transducer import TransducerConfig
from isogloss.model.frontend import FrontendConfig
from isogloss.objectives import ObjectiveConfig
from isogloss.text.tokenizers import TokenizerConfig

SHIPPED = Path(__file__).parents[1] / "recipes"


def _encoder(value: Any) -> Any:
    return preset(value) if isinstance(value, str) else value


class AdapterRecipe(Config):
    """Adapters beside the blocks; where those are frozen, what is trained is saved without its base."""

    share: Literal["language", "family", "all"] = Field("language", description="who share one")
    bottleneck: int | None = Field(None, ge=1, description="width inside; by default one for 2 % of the encoder")
    after: int = Field(0, ge=0, description="first blocks, which have none; Maestro-U has adapters after text.entry")


class ModelRecipe(Config):
    """The model; what depends on the data (symbols, languages) is read off the data."""

    encoder: Annotated[SpeechEncoderConfig, BeforeValidator(_encoder)] = Field(
        default_factory=lambda: preset("tiny"), description="a preset's name, or the configuration itself"
    )
    frontend: FrontendConfig = Field(default_factory=FrontendConfig, description="features and normalisation")
    tokenizer: TokenizerConfig | None = Field(None, description="symbols of the recogniser; none to pre-train only")
    transducer: TransducerConfig | None = Field(None, description="a transducer beside the CTC head: {} for defaults")
    attention: AttentionConfig | None = Field(None, description="an attention decoder beside the CTC head: {} likewise")
    speech: SpeechDecoderConfig | None = Field(None, description="lets the attention decoder write speech too: {}")
    phonemes: bool = Field(False, description="a second CTC head writes phonemes (espeak-ng, extra synthesis)")
    text: TextEncoderConfig | None = Field(None, description="a text encoder that shares upper blocks: {} for defaults")
    conditioning: tuple[int, ...] = Field(
        (), description="blocks after which CTC's symbols are told to the next ones (self-conditioning)"
    )
    start_from: Path | None = Field(None, description="model folder whose front end and encoder are taken over")
    keep: Literal["encoder", "all"] = Field(
        "encoder", description="all = its symbols and heads too; parts that it lacks are added"
    )
    adapters: AdapterRecipe | None = Field(None, description="adapters in the encoder or `start_from`: {} for defaults")


class DataRecipe(Config):
    """Prepared corpora (`isogloss prepare`); transcribed clips serve as untranscribed speech too."""

    folders: tuple[Path, ...] = Field(description="folders made by isogloss prepare")
    weights: dict[str, float] = Field({}, description="relative weight by corpus name; 1 where not given")
    languages: tuple[str, ...] = Field((), description="only these languages; all if empty")
    shortest: float = Field(0.3, ge=0, description="seconds; shorter clips are left out")
    longest: float = Field(20.0, gt=0, description="seconds; longer clips are left out")
    translations: bool = Field(False, description="translations of train clips serve as unspoken text")
    speeds: tuple[float, ...] = Field((1.0,), description="each clip is heard at one of these speeds, drawn anew")
    perturb: PerturbConfig | None = Field(None, description="pauses, noise, levels of transcribed clips: {}")
    max_bad: float = Field(0.01, ge=0, le=1, description="share of unreadable clips above which the run stops")
    workers: int = Field(2, ge=1, description="threads that read audio")


class AdamWRecipe(Config):
    """AdamW with a warm-up."""

    peak: float = Field(1e-3, gt=0, description="highest learning rate")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps that climb to it")
    schedule: Literal["cosine", "linear", "inverse_sqrt", "constant"] = Field("cosine", description="after that")
    floor: float = Field(0.02, ge=0, le=1, description="last learning rate as a share of the peak")
    betas: tuple[float, float] = Field((0.9, 0.98), description="decay of the moments")
    weight_decay: float = Field(0.01, ge=0, description="on matrices; never on biases, norms and buffers")


class OptimizerRecipe(AdamWRecipe):
    """AdamW, and what is done with all parameters together."""

    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights that are exported; 0 = none")


class StageRecipe(Config):
    """One stage of training."""

    name: str = Field(description="shown in logs and reports")
    steps: int = Field(ge=1, description="optimizer steps")
    objectives: tuple[ObjectiveConfig, ...] = Field(min_length=1, description="what is minimised")
    seconds: dict[Kind, float] = Field(
        description="seconds a step hears of speech and of paired data, and would hear of text if it were spoken"
    )
    batch_seconds: float = Field(100.0, gt=0, description="padded seconds of audio that fit into memory at once")
    temperature: float = Field(1.0, gt=0, description="flattens the shares of languages; 1 = as in the data")
    temperatures: dict[Kind, float] = Field({}, description="others for some kinds of data; USM has text: 3")
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe, description="how it is minimised")
    optimizers: dict[str, AdamWRecipe] = Field({}, description="others, for parameters whose names start so: encoder")
    freeze: tuple[str, ...] = Field((), description="parameters whose names start so are not trained")
    evaluate_every: int = Field(200, ge=1, description="steps between looks at the dev split")
    save_every: int = Field(200, ge=1, description="steps between checkpoints")


class Recipe(Config):
    """A whole run."""

    name: str = Field(description="of the system")
    seed: int = Field(0, ge=0, description="decides weights, order, masks and noise")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto = bf16 where it is faster")
    device: str = Field("auto", description="auto = a GPU if there is one")
    compile: bool = Field(False, description="torch.compile the encoder")
    tensorboard: bool = Field(False, description="write TensorBoard curves beside log.jsonl")
    keep: int = Field(2, ge=1, description="checkpoints kept beside the best")
    model: ModelRecipe = Field(default_factory=ModelRecipe, description="what is built")
    data: DataRecipe = Field(description="what it learns from")
    stages: tuple[StageRecipe, ...] = Field(min_length=1, description="what is done, one after another")


def load_recipe(recipe: str | Path, assignments: list[str] | None = None) -> Recipe:
    """Read a recipe, by path or by the name of one that comes with isogloss, with `key=value` overrides."""
    path = Path(recipe)
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}
    if not path.exists():
        if str(recipe) not in shipped:
            near = did_you_mean(path.stem, shipped)
            raise IsoglossError(f'There is no recipe "{recipe}".{near} Shipped: {", ".join(shipped)}; or give a file.')
        path = shipped[str(recipe)]
    return Recipe.parse(override(load_yaml(path), assignments or []), str(recipe))
