"""The application all verbs join, and the options they share."""

from pathlib import Path
from typing import Annotated, Any

import typer

FAILED, BUG, STOPPED = 1, 70, 130

app = typer.Typer(
    name="isogloss",
    help="One representation of speech and text in many languages: prepare, train, transcribe, measure.",
    epilog="Every verb explains itself with --help; --debug anywhere shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich's Markdown alone would take half the time that help may take
    pretty_exceptions_enable=False,
)



def _released() -> Path:
    from isogloss.model.released import released_folder  # with it comes torch

    return released_folder()


ModelFolder = Annotated[
    Path,
    typer.Option(
        "--model",
        "-m",
        help="model folder; the released model by default",
        default_factory=_released,
        show_default=False,
    ),
]
AudioArguments = Annotated[
    list[str], typer.Argument(metavar="AUDIO", help="audio files, folders of them, or - for standard input")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto = a GPU if there is one")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="spread the work over a Ray cluster: local starts one of this machine's cores, auto or HOST:PORT join one",
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the figures to a JSON file")]
BeamWidth = Annotated[
    int | None,
    typer.Option(min=1, help="beam width of the search, 1 = greedy; by default 8 where there is a language model"),
]
LanguageModel = Annotated[
    Path | None, typer.Option(help="language model made by isogloss lm; turns on beam search")
]
LanguageModelWeight = Annotated[float, typer.Option(min=0, help="weight of the language model")]


def listed(words: str) -> list[str] | None:
    """`ro, bg` -> ["ro", "bg"]; None for nothing."""
    return [word.strip() for word in words.split(",") if word.strip()] or None


def loaded(folder: Path, device: str, adapters: list[Path] | None = None) -> Any:
    """The recogniser in a model folder, with adapters of it."""
    from isogloss.model.recogniser import load
    from isogloss.training.hardware import choose_device

    return load(folder, choose_device(device), adapters or ())
