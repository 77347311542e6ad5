"""A recipe: everything that decides a training run, as plain YAML.

    model   what is built          data    what it learns from
    stages  one after another: objectives, seconds of audio a step, steps, optimizer, what is frozen;
            or something that is fitted
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

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
from isogloss.training.hardware import gpu_memory

SHIPPED = Path(__file__).parents[1] / "recipes"


class AdapterRecipe(Config):
    """Adapters beside the blocks; trained on a frozen base, they are saved without it."""

    share: Literal["language", "family", "all"] = Field("language", description="which languages share an adapter")
    bottleneck: int | None = Field(
        None, ge=1, description="inner width; by default so that an adapter is 2 % of the encoder"
    )
    after: int = Field(
        0, ge=0, description="number of first blocks without adapters; Maestro-U: those before text.entry"
    )


class ModelRecipe(Config):
    """The model; its symbols and languages follow from the data."""

    encoder: SpeechEncoderConfig | None = Field(
        None,
        description="a preset's name, or the configuration itself; by default tiny; that of the model in "
        "`start_from`, where there is one, also instead of a preset",
    )
    features: FeaturesConfig | None = Field(
        None, description="input of the encoder; by default that of its preset, or of the model in `start_from`"
    )
    tokenizer: TokenizerConfig | None = Field(None, description="symbols of the recogniser; null to pre-train only")
    heads: Heads = Field(
        default_factory=usual_heads, description="all heads of the model: [ctc, language] or {ctc: {}, …}"
    )
    text: TextEncoderConfig | None = Field(
        None, description="text encoder that shares the upper blocks: {} for defaults"
    )
    start_from: Path | None = Field(None, description="model folder to take features and encoder from")
    keep: Literal["encoder", "all"] = Field(
        "encoder", description="what to take from `start_from`; all = its symbols and heads too"
    )
    adapters: AdapterRecipe | None = Field(None, description="adapters in the encoder: {} for defaults")
    recompute: bool = Field(
        False,
        description="compute activations of the encoder's blocks again in the backward pass: less memory, more time; "
        "sets `encoder.recompute` of whichever encoder it is",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """A preset's name stands for its encoder, and for the features where none are given.

        A model to start from has both, of whatever size.
        """
        if not isinstance(values, dict):
            return values
        encoder, starts = values.get("encoder") or "tiny", bool(values.get("start_from"))
        if not isinstance(encoder, str):
            return values if starts else {"features": LogMelConfig()} | values
        own = {"encoder": preset(encoder), "features": values.get("features") or preset_features(encoder)}
        return values | ({"encoder": None} if starts else own)


class DataRecipe(Config):
    """Prepared corpora (`isogloss prepare`); transcribed clips serve as untranscribed speech too."""

    folders: tuple[Path, ...] = Field(description="folders written by isogloss prepare, pack or attach")
    weights: dict[str, float] = Field({}, description="relative weights of corpora by name; default 1")
    languages: tuple[Annotated[str, AfterValidator(normalise_language)], ...] = Field(
        (), description="languages to use; all if empty"
    )
    shortest: float = Field(0.3, ge=0, description="seconds; shorter clips are left out")
    longest: float = Field(20.0, gt=0, description="seconds; longer clips are left out")
    translations: bool = Field(False, description="use translations of train clips as unspoken text")
    speeds: tuple[float, ...] = Field((1.0,), description="factors of speed; one is drawn each time a clip is read")
    max_bad: float = Field(0.01, ge=0, le=1, description="largest share of unreadable clips; above it the run stops")
    workers: int | None = Field(
        None,
        ge=0,
        description="processes that read and prepare audio; by default one beside a CPU, and for a GPU its share of "
        "the cores, up to 8; 0 = the training process itself",
    )


class AdamWRecipe(Config):
    """AdamW with a warm-up, and Muon for matrices."""

    peak: float = Field(1e-3, gt=0, description="highest learning rate")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps in which the rate rises to the peak")
    schedule: Literal["cosine", "linear", "inverse_sqrt", "constant"] = Field(
        "cosine", description="course of the rate after the warm-up"
    )
    floor: float = Field(0.02, ge=0, le=1, description="last learning rate as a share of the peak")
    betas: tuple[float, float] = Field((0.9, 0.98), description="decay rates of the moments")
    weight_decay: float = Field(
        0.01, ge=0, description="weight decay of matrices and kernels; norms, gains and biases have none"
    )
    muon: float = Field(
        3.0,
        ge=0,
        description="learning rate of matrices in blocks of encoders, which Muon trains, as a multiple; 0 = AdamW",
    )


class OptimizerRecipe(AdamWRecipe):
    """An optimizer, with settings for all parameters together."""

    clip: float = Field(1.0, gt=0, description="largest norm of the gradient; above it, it is scaled down")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights, which is exported; 0 = no average"
    )


class StageRecipe(Config):
    """One stage of training."""

    name: str = Field(description="name of the stage, for logs and reports")
    steps: int = Field(ge=1, description="optimizer steps")
    objectives: tuple[ObjectiveConfig, ...] = Field(min_length=1, description="the losses to minimise")
    seconds: dict[str, float] = Field(
        description="seconds of audio in a step by stream: speech, paired (with transcripts), text (as if spoken)"
    )
    batch_seconds: float = Field(
        100.0,
        gt=0,
        description="padded seconds of audio that fit into memory at once; a step has as many micro-batches as that "
        "takes, rounded up to a multiple of the processes",
    )
    temperature: float = Field(
        1.0, gt=0, description="flattens the shares of languages, p ∝ hours^(1/T); 1 = as in the data"
    )
    temperatures: dict[str, float] = Field({}, description="temperatures of single streams; USM: {text: 3}")
    perturb: PerturbConfig | None = Field(
        None, description="pauses, noise and levels added to transcribed clips; {} for the defaults"
    )
    optimizer: OptimizerRecipe = Field(default_factory=OptimizerRecipe, description="optimizer and its schedule")
    optimizers: dict[str, AdamWRecipe] = Field(
        {}, description="optimizers of parameters by the beginning of their name: {encoder: {peak: 3.0e-4}}"
    )
    freeze: tuple[str, ...] = Field(
        (), description="beginnings of the names of parameters that are not trained: [heads, text]"
    )
    best: str | None = Field(
        None, description="dev figure that selects the best weights: cer, loss, …, or last; default cer, else loss"
    )
    highest: bool = Field(False, description="choose the highest value of `best`, not the lowest")
    evaluate_every: int = Field(200, ge=1, description="steps between evaluations on the dev split")
    save_every: int = Field(200, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def _named(self) -> Self:
        for stream in self.temperatures.keys() - self.seconds.keys():
            near = did_you_mean(stream, self.seconds)
            raise ValueError(f'temperatures: "{stream}" is no stream of the stage.{near}')
        if self.highest and self.best is None:
            raise ValueError("highest: name the figure whose highest value is best, as in best: accuracy")
        return self


class FitRecipe(Config):
    """A stage that fits something to the training clips instead of training."""

    name: str = Field(pattern=r"^\w[\w .-]*$", description="name of the stage, of its artefact and of its labels")
    fit: AnyFit = Field(description="what to fit, and how")
    batch_seconds: float = Field(100.0, gt=0, description="padded seconds of audio that fit into memory at once")

    @property
    def steps(self) -> int:
        """None that an optimizer takes."""
        return 0


def _is_fit(stage: Any) -> str:
    return "fit" if isinstance(stage, FitRecipe) or (isinstance(stage, dict) and "fit" in stage) else "train"


AnyStage = Annotated[
    Annotated[StageRecipe, Tag("train")] | Annotated[FitRecipe, Tag("fit")], Discriminator(_is_fit)
]


class Recipe(Config):
    """A whole run."""

    name: str = Field(description="name of the system")
    seed: int = Field(0, ge=0, description="seed of initial weights, order of the data, masks and noise")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto = bf16 where it is faster")
    device: str = Field("auto", description="auto = a GPU if there is one")
    compile: bool = Field(False, description="torch.compile the encoder")
    sharding: Literal["none", "full"] = Field(
        "none",
        description="full = of several processes each holds a part of weights, gradients and moments (FSDP2), for "
        "models that do not fit one device",
    )
    tensorboard: bool = Field(False, description="write TensorBoard curves beside log.jsonl")
    keep: int = Field(2, ge=1, description="number of checkpoints to keep beside the best")
    gpus: dict[float, tuple[str, ...]] = Field(
        {},
        description="what is otherwise on a GPU with at least so many GiB, as on the command line: "
        "{16: [model.encoder=small]}; the largest that applies is taken when the recipe is read",
    )
    adapted: tuple[str, ...] = Field((), description="what was taken of `gpus`")
    model: ModelRecipe = Field(default_factory=ModelRecipe, description="the model to build")
    data: DataRecipe = Field(description="the data to train on")
    stages: tuple[AnyStage, ...] = Field(min_length=1, description="the stages, one after another")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.compile and self.sharding != "none":
            raise ValueError("compile: an encoder that is sharded cannot be compiled; leave out one of the two")
        return self

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
    """Read a recipe, by path or by the name of one that comes with isogloss, with `key=value` overrides.

    Where it is to run on a GPU, its own changes for so large ones come first.
    """
    path = Path(recipe)
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}
    if not path.exists():
        if str(recipe) not in shipped:
            near = did_you_mean(path.stem, shipped)
            raise IsoglossError(f'There is no recipe "{recipe}".{near} Shipped: {", ".join(shipped)}; or give a file.')
        path = shipped[str(recipe)]
    asked = assignments or []
    found = Recipe.parse(override(load_yaml(path), asked), str(recipe))
    memory = gpu_memory(found.device) if found.gpus else 0.0
    if not (fitting := [least for least in found.gpus if least <= memory]):
        return found.model_copy(update={"gpus": {}})
    chosen = [change for change in found.gpus[max(fitting)] if not _told(change, asked)]
    changed = Recipe.parse(override(load_yaml(path), [*chosen, *asked]), str(recipe))
    return changed.model_copy(update={"gpus": {}, "adapted": tuple(chosen)})


def _told(change: str, asked: list[str]) -> bool:
    """Whether somebody has said what a change would say."""
    path = change.partition("=")[0]
    return any(path == told or path.startswith(f"{told}.") for told in (one.partition("=")[0] for one in asked))
