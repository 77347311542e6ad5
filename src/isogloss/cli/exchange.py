"""Verbs that take models from other toolkits, and give them to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import app


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


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="ORGANISATION/MODEL on the Hugging Face hub")],
    revision: Annotated[str, typer.Option(help="branch, tag or commit")] = "main",
) -> None:
    """Fetch a model from the Hugging Face hub. Only safetensors, JSON and tokenizers; the commit is recorded."""
    from isogloss.interop.hub import is_ours, origin
    from isogloss.interop.hub import pull as fetch

    folder = fetch(name, revision)
    found = origin(folder)
    if found is not None:
        terminal.note(f"{found.name} at commit {found.commit}.")
    if is_ours(folder):
        terminal.note(f"Next: isogloss transcribe --model {folder} RECORDING")
    else:
        terminal.note(f"Next: isogloss import hf:{folder} --out models/{name.rpartition('/')[2]}")
    print(folder)


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
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    form: Annotated[Literal["onnx"], typer.Option("--format", help="whose format to write")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="round weights to 8-bit integers")] = False,
    language: Annotated[
        str | None, typer.Option(help="language whose adapter is taken, of a model with adapters")
    ] = None,
    probe: Annotated[Path | None, typer.Option(help="clip on which to compare; by default a made sound")] = None,
) -> None:
    """Write a model for other toolkits: as ONNX graphs. They are first compared with the model."""
    from isogloss.interop.onnx_export import described, export_onnx

    about = export_onnx(model, out, int8=int8, language=language, probe=probe)
    terminal.note(f"Outputs differ from those of the model by {about.difference:.1e} at most.")
    if int8:
        terminal.note(f"With int8 weights {described(about)}.")
    print(out)
