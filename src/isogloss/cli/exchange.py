"""Verbs that take models from other toolkits, and give them what they read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import app
from isogloss.errors import counted


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="hf:FOLDER (transformers, or Whisper in safetensors) or ct2:FOLDER (CTranslate2)")
    ],
    out: Annotated[Path, typer.Option(help="model folder to write", show_default=False)],
    probe: Annotated[
        Path | None, typer.Option(help="clip on which to compare with the original; by default a made sound")
    ] = None,
) -> None:
    """Import an encoder from another toolkit. Its states are first compared with the original's."""
    print(imported(source, out, probe))


def imported(source: str, out: Path, probe: Path | None = None) -> Path:
    """The model folder made of a model of others; one that is there already is kept."""
    from isogloss.interop.importing import import_model
    from isogloss.model.folder import CONFIG

    if (out / CONFIG).exists():
        return out
    found = import_model(source, out, probe)
    model = found.model
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    about = f"{found.kind}: {size:.1f} M parameters, {model.encoder.layers} blocks of width {model.encoder.width}, "
    terminal.note(f"{about}{1 / model.frame_seconds:g} frames a second.")
    if found.difference is None:
        terminal.note(f"Not compared with the original: {found.library} is not installed (isogloss[interop]).")
    else:
        terminal.note(f"Its states differ from those of {found.library} by {found.difference:.1e} of their size.")
    return out


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="a prepared corpus")],
    format: Annotated[
        Literal["parquet", "kaldi", "nemo"],
        typer.Option(help="parquet: Hugging Face datasets, audio inside; kaldi: data directories; nemo: manifests"),
    ],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what was exported there before")] = False,
) -> None:
    """Export a corpus in a format of other toolkits."""
    EXPORTS[format](source, out, format, overwrite)


def _export_corpus(source: Path, out: Path, format: str, overwrite: bool) -> None:
    from isogloss.data.exporting import export as work

    with terminal.counting("Exporting") as advance:
        clips = work(source, out, format, overwrite=overwrite, on_progress=advance if sys.stderr.isatty() else None)
    print(f"{out}: {counted(clips, 'clip')}")


EXPORTS = dict.fromkeys(("parquet", "kaldi", "nemo"), _export_corpus)
