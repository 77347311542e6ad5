"""The command line: verbs only, each calls one function of the room that owns the work.

Results go to standard output, everything else to standard error. Nothing heavy is imported before
a verb runs, so that help answers at once.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isogloss import terminal

if TYPE_CHECKING:
    from isogloss.recordings import Recording

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

ModelFolder = Annotated[Path, typer.Option("--model", "-m", help="model folder", show_default=False)]
AudioArguments = Annotated[list[str], typer.Argument(metavar="AUDIO", help="files, folders, or - for standard input")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto is a GPU if there is one")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures there, as JSON")]


def main() -> int:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # transcripts are in any script, whatever the locale
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run a command line without the program's name and return its exit code.

    0 done · 1 something the user can mend · 2 usage · 70 a bug · 130 stopped by Ctrl-C.
    """
    debug = "--debug" in arguments
    if not debug:
        warnings.simplefilter("ignore")
    code = 0
    try:
        app([argument for argument in arguments if argument != "--debug"], prog_name="isogloss")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:
        if debug:
            terminal.remarks().print_exception()
        terminal.complain(terminal.sentence(error))
        return FAILED if terminal.is_mendable(error) else BUG
    if code == STOPPED:
        terminal.complain("Stopped; nothing was left half-written.")
    return code


@app.command()
def corpora() -> None:
    """List the corpora known by name."""
    from rich import box
    from rich.table import Table

    from isogloss.data.recipes import all_corpora

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for heading in ("name", "how", "minutes", "languages", "text", "licence"):
        table.add_column(heading, no_wrap=heading in ("name", "how"))
    for corpus in all_corpora().values():
        minutes = "" if corpus.minutes is None else f"{corpus.minutes:.0f}"
        languages = f"{len(corpus.languages)}: {' '.join(corpus.languages)}" if corpus.languages else "many"
        how = "fetched" if corpus.kind == "debian" else f"{corpus.name}=FOLDER"
        table.add_row(corpus.name, how, minutes, languages, corpus.text, corpus.licence)
    terminal.results().print(table)


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="a corpus by name, NAME=FOLDER, or a path: see docs/data.md")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    language: Annotated[str | None, typer.Option(help="of clips that do not say theirs")] = None,
    languages: Annotated[str, typer.Option(help="keep only these, as in ro,pt-BR")] = "",
    split_by: Annotated[Literal["text", "speaker", "source"], typer.Option(help="what splits never share")] = "text",
    dev: Annotated[float, typer.Option(min=0, max=1, help="share of the dev split")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="share of the test split")] = 0.1,
    seed: Annotated[int, typer.Option(help="decides the splits")] = 0,
    max_seconds: Annotated[float, typer.Option(help="longer clips are segmented, or dropped if transcribed")] = 30.0,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="share of broken clips above which it stops")] = 0.01,
    text: Annotated[list[Path] | None, typer.Option(help="file of unspoken text to add; may be repeated")] = None,
    cache: Annotated[Path | None, typer.Option(help="where fetched packages are kept")] = None,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="keep given splits that share texts")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
) -> None:
    """Make a corpus ready to train on. From a known corpus, or from your own speech."""
    from isogloss.data.prepare import prepare as work

    with terminal.counting("Preparing") as told:
        card = work(
            source,
            out,
            language=language,
            languages=_listed(languages),
            split_by=split_by,
            dev=dev,
            test=test,
            seed=seed,
            max_seconds=max_seconds,
            max_bad=max_bad,
            text=text or (),
            cache=cache,
            allow_leak=allow_leak,
            overwrite=overwrite,
            on_progress=told if sys.stderr.isatty() else None,
        )
    print(f"{out}: {card['clips']} clips, {card['hours'] * 60:.1f} min, languages: {' '.join(card['languages'])}")
    left_out = sum(card["dropped"].values()) + sum(card["broken"].values())
    terminal.note(f"Clips left out: {left_out}. Look at it with: isogloss inspect {out}")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="a prepared corpus")],
    deep: Annotated[bool, typer.Option("--deep", help="read the audio too: silence, damage, equal files")] = False,
    json: JsonFile = None,
) -> None:
    """Show what a corpus holds. And what in it deserves a look before training."""
    from isogloss.data.inspection import inspect as work
    from isogloss.data.inspection import render
    from isogloss.files import write_json

    found = work(folder, deep=deep)
    terminal.results().print(render(found))
    if json:
        write_json(json, found.plain())


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped one: see docs/recipes.md")],
    out: Annotated[Path, typer.Option(help="folder of the run", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="as in stages.0.steps=500")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run was cut off")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="as many steps as fit into this time", show_default=False)
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="that share the cores; a small model wants several")] = 1,
) -> None:
    """Train a recipe into a folder. The model then lies in its sub-folder `model`."""
    from isogloss.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    from isogloss.training.launch import train_in_processes  # slow to import: a wrong recipe is told before it
    from isogloss.training.trainer import train as work

    try:
        if processes > 1:
            model = train_in_processes(loaded, out, processes, resume=resume, minutes=minutes)
        else:
            model = work(loaded, out, resume=resume, minutes=minutes, console=terminal.remarks())
    except KeyboardInterrupt:
        terminal.note("Give the same command with --resume to go on.")
        raise
    print(model)


@app.command()
def transcribe(
    audio: AudioArguments,
    model: ModelFolder,
    language: Annotated[str | None, typer.Option(help="what is spoken, if you know it")] = None,
    decoder: Annotated[
        Literal["transducer", "ctc", "attention"] | None, typer.Option(help="the head that writes")
    ] = None,
    format: Annotated[Literal["text", "json", "tsv", "srt", "vtt"], typer.Option(help="of the result")] = "text",
    out: Annotated[Path | None, typer.Option(help="write one file for each recording here")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="word by word while it is said: - reads raw samples, or microphone")
    ] = False,
    encoding: Annotated[str, typer.Option(help="of raw samples: s16le, s16be, f32le, u8 …")] = "s16le",
    rate: Annotated[int, typer.Option(help="raw samples a second")] = 16000,
    channels: Annotated[int, typer.Option(help="of raw samples")] = 1,
    device: Device = "auto",
) -> None:
    """Write down what is said."""
    if stream:
        from isogloss.live import transcribe_live

        transcribe_live(audio, lambda: _load(model, device), language, decoder, format, (encoding, rate, channels))
        return
    from isogloss import output
    from isogloss.recordings import find_recordings, places
    from isogloss.text.languages import normalise_language

    recordings = find_recordings(audio)
    if out is None and format in ("srt", "vtt") and len(recordings) > 1:
        raise typer.BadParameter(f"{format} of several recordings needs a folder; add --out FOLDER")
    files = places(recordings, out, output.SUFFIXES[format]) if out else {}
    tag = normalise_language(language) if language else None
    recogniser = _load(model, device)
    write = output.WRITERS[format]
    heading = output.TSV_HEADING if format == "tsv" else ""
    prefixed = format == "text" and len(recordings) > 1

    def show(recording: Recording, transcript: Any) -> None:
        if recording in files:
            _save(files[recording], heading + write(recording.name, transcript))
        else:
            terminal.write(f"{recording.name}\t" * prefixed + write(recording.name, transcript))

    if not files:
        terminal.write(heading)
    _each(recordings, lambda waveforms: recogniser.transcribe(waveforms, language=tag, decoder=decoder), show)


@app.command()
def identify(
    audio: AudioArguments,
    model: ModelFolder,
    format: Annotated[Literal["text", "json", "tsv"], typer.Option(help="of the result")] = "text",
    device: Device = "auto",
) -> None:
    """Tell which language is spoken."""
    from isogloss import output
    from isogloss.recordings import find_recordings

    recordings = find_recordings(audio)
    write = output.IDENTIFICATION_WRITERS[format]
    prefixed = format == "text" and len(recordings) > 1
    recogniser = _load(model, device)
    terminal.write(output.IDENTIFICATION_HEADING if format == "tsv" else "")
    _each(
        recordings,
        recogniser.identify,
        lambda recording, found: terminal.write(f"{recording.name}\t" * prefixed + write(recording.name, found)),
    )


@app.command()
def encode(
    audio: AudioArguments,
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="folder for one .safetensors file per recording", show_default=False)],
    layer: Annotated[int | None, typer.Option(help="0 = before the first block; the last by default")] = None,
    device: Device = "auto",
) -> None:
    """Write the hidden states of speech. A tensor `states` of shape (frames, width) for each recording."""
    from isogloss.files import atomic_file
    from isogloss.recordings import find_recordings, places

    recordings = find_recordings(audio)
    files = places(recordings, out, ".safetensors")
    recogniser = _load(model, device)
    from isogloss.model.folder import write_tensors

    about = {
        "frame_seconds": str(recogniser.model.frame_seconds),
        "layer": "last" if layer is None else str(layer),
    }

    def save(recording: Recording, states: Any) -> None:
        with atomic_file(files[recording]) as temporary:
            write_tensors(temporary, {"states": states.contiguous()}, about | {"audio": recording.name})
        print(files[recording])

    _each(recordings, lambda waveforms: recogniser.encode(waveforms, layer=layer), save)


@app.command()
def evaluate(
    model: ModelFolder,
    data: Annotated[list[Path], typer.Option(help="prepared corpus; may be repeated", show_default=False)],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="which clips")] = "test",
    languages: Annotated[str, typer.Option(help="only clips in these, as in ro,pt-BR")] = "",
    tell_language: Annotated[bool, typer.Option("--tell-language", help="tell the model what is spoken")] = False,
    json: JsonFile = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write a page with figures, clips and the curves of the run there"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure a model on held-out speech. Error rates and language identification, with intervals."""
    from isogloss.evaluation.evaluate import evaluate as work
    from isogloss.evaluation.tables import render
    from isogloss.files import write_json
    from isogloss.training.hardware import choose_device

    with terminal.counting("Evaluating") as told:
        found = work(
            model,
            data,
            split=split,
            languages=_listed(languages),
            tell_language=tell_language,
            device=choose_device(device),
            on_progress=lambda done, total: told("clips", done, total),
        )
    terminal.results().print(render(found))
    if json:
        write_json(json, found.plain())
    if report:
        from isogloss.evaluation.report import write_report

        write_report(model.absolute().parent, found, report)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for data, run, model and report")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="your own speech instead of Debian's: anything prepare reads")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="of training")] = 13.5,
    languages: Annotated[str, typer.Option(help="only these, as in ro,bg")] = "",
) -> None:
    """See it all at work. Fetches speech, pre-trains, fine-tunes, evaluates, transcribes."""
    from isogloss.demo import run_demo

    run_demo(out, data=data, languages=tuple(_listed(languages) or ()), minutes=minutes)


@app.command()
def doctor() -> None:
    """Examine this machine. Versions, processor, precision, memory, what can be fetched."""
    from isogloss.doctor import examine, render

    findings = examine()
    terminal.results().print(render(findings))
    if any(found.verdict == "problem" for found in findings):
        raise typer.Exit(FAILED)


@app.command()
def version() -> None:
    """Print the version."""
    from isogloss import __version__

    print(__version__)


def _listed(words: str) -> list[str] | None:
    """`ro, bg` -> ["ro", "bg"]; None for nothing."""
    return [word.strip() for word in words.split(",") if word.strip()] or None


def _load(folder: Path, device: str) -> Any:
    from isogloss.model.recogniser import load
    from isogloss.training.hardware import choose_device

    return load(folder, choose_device(device))


def _each(
    recordings: Sequence[Recording],
    work: Callable[[list[Any]], list[Any]],
    show: Callable[[Recording, Any], None],
) -> None:
    """Work on all recordings; the broken ones are told and make the exit code 1."""
    from isogloss.recordings import process

    done = 0
    for recording, result in process(recordings, work, lambda error: terminal.complain(str(error))):
        show(recording, result)
        done += 1
    if done < len(recordings):
        if len(recordings) > 1:
            terminal.complain(f"{len(recordings) - done} of {len(recordings)} recordings could not be read.")
        raise typer.Exit(FAILED)


def _save(path: Path, text: str) -> None:
    from isogloss.files import write_text

    write_text(path, text)
    print(path)
