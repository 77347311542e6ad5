"""Verbs that take models from other toolkits, and give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from isogloss.cli import terminal
from isogloss.cli.app import app
from isogloss.errors import IsoglossError, did_you_mean


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="hf:FOLDER (transformers, or Whisper in safetensors) or ct2:FOLDER (CTranslate2)")
    ],
    out: Annotated[Path, typer.Option(help="model folder to write", show_default=False)],
    probe: Annotated[
        Path | None, typer.Option(help="clip on which to compare with the original; by default a made sound")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="language whose adapter and letters are taken, of a model that has them (MMS)")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="model folder whose weights need not be written again, as of another language")
    ] = None,
) -> None:
    """Import an encoder from another toolkit. Its states are first compared with the original's."""
    print(imported(source, out, probe, language, base))


def imported(
    source: str, out: Path, probe: Path | None = None, language: str | None = None, base: Path | None = None
) -> Path:
    """The model folder made of a model of others; one that is there already is kept."""
    from isogloss.interop.importing import import_model
    from isogloss.model.folder import CONFIG

    if (out / CONFIG).exists():
        return out
    found = import_model(source, out, probe, language, base)
    model = found.model
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    about = f"{found.kind}: {size:.1f} M parameters, {model.encoder.layers} blocks of width {model.encoder.width}, "
    terminal.note(f"{about}{1 / model.frame_seconds:g} frames a second.")
    if found.difference is None:
        terminal.note(f"Not compared with the original: {found.library} is not installed (isogloss[interop]).")
    else:
        terminal.note(f"Its states differ from those of {found.library} by {found.difference:.1e} of their size.")
    return out


def _transformers(model: Path, out: Path, kind: str | None) -> None:
    """A folder of transformers."""
    from isogloss.interop.exporting import export_transformers

    found = export_transformers(model, out, kind)
    for sentence in found.left_out:
        terminal.note(sentence)
    terminal.note(f"Written as {found.kind}; {found.loader}.from_pretrained loads it.")
    if found.difference is None:
        terminal.note("Not compared with the original: transformers is not installed (isogloss[interop]).")
    else:
        terminal.note(f"Its states differ from those of transformers by {found.difference:.1e} of their size.")


EXPORTS: dict[str, Callable[[Path, Path, str | None], None]] = {"hf": _transformers}
"""By the name of a format, what writes it."""


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    format: Annotated[str, typer.Option(help=f"format to write: {', '.join(EXPORTS)}")] = "hf",
    type: Annotated[
        str | None, typer.Option(help="model_type of transformers to write, as hubert; by default the first that fits")
    ] = None,
) -> None:
    """Export a model to another toolkit: hf is a folder that transformers loads."""
    if format not in EXPORTS:
        raise IsoglossError(f'"{format}" is no format.{did_you_mean(format, EXPORTS)} Known: {", ".join(EXPORTS)}.')
    EXPORTS[format](model, out, type)
    print(out)
