"""A recipe: everything that decides a training run, as plain YAML.

    model   what is built          data    what it learns from
    stages  one after another: objectives, seconds of audio a step, steps, optimizer, what is frozen;
            or something that is fitted in one pass
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.perturb import PerturbConfig
from isogloss.config import Config, load_yaml, override
from isogloss.encoders.presets import preset, preset_features
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.text import TextEncoderConfig
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.heads import Heads, usual_heads
from isogloss.objectives import AnyFit, ObjectiveConfig
from isogloss.text.languages import normalise_language
from isogloss.text.tokenizers import TokenizerConfig

SHIPPED = Path(__file__).parents[1] / "recipes"


class AdapterRecipe(Config):
    """Adapters beside the blocks; where those are frozen, what is trained is saved without its base."""

    share: Literal["language", "family", "all"] = Field("language", description="who share one")
    bottleneck: int | None = Field(None, ge=1, description="width inside; by default one for 2 % of the encoder")
    after: int = Field(0, ge=0, description="first blocks, which have none; Maestro-U has adapters after text.entry")


class ModelRecipe(Config):
    """The model; what depends on the data (symbols, languages) is read off the data."""

    encoder: SpeechEncoderConfig = Field(
        default_factory=lambda: preset("tiny"), description="a preset's name, or the configuration itself"
    )
    features: FeaturesConfig = Field(
        default_factory=LogMelConfig, description="what the encoder is given of audio; by default those of its preset"
    )
    tokenizer: TokenizerConfig | None = Field(None, description="symbols of the recogniser; none to pre-train only")
    heads: Heads = Field(default_factory=usual_heads, description="all of its heads: [ctc, language] or {ctc: {}, …}")
    text: TextEncoderConfig | None = Field(None, description="a text encoder that shares upper blocks: {} for defaults")
    start_from: Path | None = Field(None, description="model folder whose features and encoder are taken over")
    keep: Literal["encoder", "all"] = Field(
        "encoder", description="all = its symbols and heads too; parts that it lacks are added"
    )
    adapters: AdapterRecipe | None = Field(None, description="adapters in the encoder or `start_from`: {} for defaults")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """A preset's name stands for its encoder, and for the features where none are given."""
        if isinstance(values, dict) and isinstance(name := values.get("encoder"), str):
            return {"features": preset_features(name)} | values | {"encoder": preset(name)}
        return values


class DataRecipe(Config):
    """Prepared corpora (`isogloss prepare`); transcribed clips serve as untranscribed speech too."""

    folders: tuple[Path, ...] = Field(description="folders made by isogloss prepare")
    weights: dict[str, float] = Field({}, description="relative weight by corpus name; 1 where not given")
    languages: tuple[Annotated[str, AfterValidator(normalise_language)], ...] = Field(
        (), description="only these languages; all if empty"
    )
    shortest: float = Field(0.3, ge=0, description="seconds; shorter clips are left out")
    longest: float = Field(20.0, gt=0, description="seconds; longer clips are left out")
    translations: bool = Field(False, description="translations of train clips serve as unspoken text")
    speeds: tuple[float, ...] = Field((1.0,), description="each clip is heard at one of these speeds, drawn anew")
    max_bad: float = Field(0.01, ge=0, le=1, description="share of unreadable clips above which the run stops")
    workers: int = Field(2, ge=1, description="threads that read audio")


class AdamWRecipe(Config):
    """AdamW with a warm-up."""

    peak: float = Field(1e-3, gt=0, description="highest learning rate")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps that climb to it")
    schedule: Literal["cosine", "linear", "inverse_sqrt", "constant"] = Field("cosine", description="after that")
    floor: float = Field(0.02, ge=0, le=1, description="last learning rate as a share of the peak")
    betas: tuple[float, float] = Field((0.9, 0.98), description="decay of the moments")
    weight_decay: float = Field(0.01, ge=0, description="on matrices and kernels, never on norms, gains and biases")


class OptimizerRecipe(AdamWRecipe):
    """AdamW, and what is done with all parameters together."""

    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights that are exported; 0 = none")


class StageRecipe(Config):
    """One stage of training."""

    name: str = Field(description="shown in logs and reports")
    steps: int = Field(ge=1, description="optimizer steps")
    objectives: tuple[ObjectiveConfig, ...] = Field(min_length=1, description="what is minimised")
    seconds: dict[str, float] = Field(
        description="seconds of audio in a step by stream: speech, paired (with transcripts), text (as if spoken)"
    )
    batch_seconds: float = Field(
        100.0,
        gt=0,
        description="padded seconds of audio that fit into memory at once; a step has as many micro-batches as that "
        "takes, rounded up to a multiple of the processes",
    )
    temperature: float = Field(1.0, gt=0, description="flattens the shares of languages; 1 = as in the data")
    temperatures: dict[str, float] = Field({}, description="others for some streams; USM has text: 3")
    perturb: PerturbConfig | None = Field(
        None, description="pauses, noise and other levels for clips with transcripts: {} for defaults"
    )
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe, description="how it is minimised")
    optimizers: dict[str, AdamWRecipe] = Field({}, description="others, for parameters whose names start so: encoder")
    freeze: tuple[str, ...] = Field((), description="parameters whose names start so are not trained: [heads, text]")
    best: str | None = Field(
        None, description="dev figure that chooses the weights: cer, loss, …, or last; by default cer, else loss"
    )
    highest: bool = Field(False, description="whether the highest value of `best` is chosen, and not the lowest")
    evaluate_every: int = Field(200, ge=1, description="steps between looks at the dev split")
    save_every: int = Field(200, ge=1, description="steps between checkpoints")


class FitRecipe(Config):
    """A stage that fits something to the training clips in one pass."""

    name: str = Field(
        pattern=r"^\w[\w .-]*$", description="of the stage, and of the artefact and labels it leaves: a folder's name"
    )
    fit: AnyFit = Field(description="what is fitted")
    batch_seconds: float = Field(100.0, gt=0, description="padded seconds of audio that fit into memory at once")

    @property
    def steps(self) -> int:
        """None that an optimizer takes."""
        return 0


def _is_fit(stage: Any) -> str:
    return "fit" if "fit" in (stage if isinstance(stage, dict) else vars(stage)) else "train"


AnyStage = Annotated[
    Annotated[StageRecipe, Tag("train")] | Annotated[FitRecipe, Tag("fit")], Discriminator(_is_fit)
]


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
    stages: tuple[AnyStage, ...] = Field(min_length=1, description="what is done, one after another")

    @property
    def training(self) -> tuple[StageRecipe, ...]:
        """The stages that train."""
        return tuple(stage for stage in self.stages if isinstance(stage, StageRecipe))

    def with_training(self, stages: tuple[StageRecipe, ...]) -> "Recipe":
        """The recipe with others in place of the stages that train."""
        following = iter(stages)
        changed = [next(following) if isinstance(stage, StageRecipe) else stage for stage in self.stages]
        return self.model_copy(update={"stages": tuple(changed)})


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
