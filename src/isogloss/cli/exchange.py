"""Verbs that take models from other toolkits, and give them models and data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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
    language: Annotated[
        str | None, typer.Option(help="language whose adapter and letters are taken, of a model that has them (MMS)")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="model folder whose weights need not be written again, as of another language")
    ] = None,
) -> None:
    """Import an encoder from another toolkit. Its states are first compared with the original's."""
    print(imported(source, out, probe, language, base))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="ORGANISATION/MODEL on the Hugging Face hub")],
    revision: Annotated[str, typer.Option(help="branch, tag or commit")] = "main",
    language: Annotated[str | None, typer.Option(help="whose adapter to fetch too, of a model that has some")] = None,
) -> None:
    """Fetch a model from the Hugging Face hub. Only safetensors, JSON and tokenizers; the commit is recorded."""
    from isogloss.interop.hub import is_ours, origin
    from isogloss.interop.hub import pull as fetch

    folder = fetch(name, revision, language)
    found = origin(folder)
    if found is not None:
        terminal.note(f"{found.name} at commit {found.commit}.")
    if is_ours(folder):
        terminal.note(f"Next: isogloss transcribe --model {folder} RECORDING")
    else:
        adapter = f" --language {language}" if language else ""
        terminal.note(f"Next: isogloss import hf:{folder} --out models/{name.rpartition('/')[2]}{adapter}")
    print(folder)


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


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="model folder, or prepared corpus", show_default=False)
    ],
    format: Annotated[
        Literal["hf", "onnx", "parquet", "kaldi", "nemo"],
        typer.Option(
            help="of a model: hf (a folder that transformers loads), onnx; of a corpus: parquet (Hugging Face "
            "datasets, audio inside), kaldi (data directories), nemo (manifests)"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an exported corpus that is there")] = False,
    type: Annotated[
        str | None, typer.Option(help="hf: model_type to write, as hubert; by default the first that fits")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="onnx: round weights to 8-bit integers")] = False,
    language: Annotated[str | None, typer.Option(help="onnx: language whose adapter is taken")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="onnx: clip on which to compare; by default a made sound")
    ] = None,
) -> None:
    """Export a model or a corpus to another toolkit. A model is first compared with what is written."""
    given = {"overwrite": overwrite, "type": type, "int8": int8, "language": language, "probe": probe}
    write = FORMATS[format]
    for name, value in given.items():
        if value and name not in write.options:
            raise typer.BadParameter(f"--format {format} has no such choice", param_hint=f"--{name}")
    write.function(source, out, **{name: given[name] for name in write.options})


def _transformers(model: Path, out: Path, *, type: str | None) -> None:
    """A folder of transformers."""
    from isogloss.interop.exporting import export_transformers

    found = export_transformers(model, out, type)
    for sentence in found.left_out:
        terminal.note(sentence)
    terminal.note(f"Written as {found.kind}; {found.loader}.from_pretrained loads it.")
    if found.difference is None:
        terminal.note("Not compared with the original: transformers is not installed (isogloss[interop]).")
    else:
        terminal.note(f"Its states differ from those of transformers by {found.difference:.1e} of their size.")
    print(out)


def _onnx(model: Path, out: Path, **how: Any) -> None:
    """ONNX graphs."""
    from isogloss.interop.onnx_export import described, export_onnx

    about = export_onnx(model, out, **how)
    terminal.note(f"Outputs differ from those of the model by {about.difference:.1e} at most.")
    if how["int8"]:
        terminal.note(f"With int8 weights {described(about)}.")
    print(out)


def _corpus(format: str, source: Path, out: Path, *, overwrite: bool) -> None:
    """A corpus as others read it."""
    from isogloss.data.exporting import export as work

    with terminal.counting("Exporting") as advance:
        clips = work(source, out, format, overwrite=overwrite, on_progress=advance if sys.stderr.isatty() else None)
    print(f"{out}: {counted(clips, 'clip')}")


class Format(NamedTuple):
    """What writes a format, and which options of the verb it takes."""

    function: Callable[..., None]
    options: tuple[str, ...]


FORMATS = {
    "hf": Format(_transformers, ("type",)),
    "onnx": Format(_onnx, ("int8", "language", "probe")),
    **{name: Format(partial(_corpus, name), ("overwrite",)) for name in ("parquet", "kaldi", "nemo")},
}
