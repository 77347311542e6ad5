"""Verbs that prepare speech and look at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import FAILED, JsonFile, app, listed
from isogloss.errors import counted, lasting


@app.command()
def corpora() -> None:
    """List the corpora that isogloss knows by name."""
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
def methods(json: JsonFile = None) -> None:
    """List the self-supervised methods and their sizes."""
    from rich import box
    from rich.table import Table

    from isogloss.files import write_json
    from isogloss.training.methods import methods as work

    found = work()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for heading in ("method", "paper", "recipe", "size", "encoder"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "of these kept"):
        table.add_column(heading, no_wrap=True, justify="right")
    for method in found:
        said = [method["name"], method["paper"], method["recipe"] or ""]
        for size, about in method["presets"].items():
            counts = (f"{about[key]:,}".replace(",", " ") for key in ("parameters", "encoder_parameters"))
            table.add_row(*said, size, about["encoder"], *counts)
            said = ["", "", ""]
    terminal.results().print(table)
    if json:
        write_json(json, found)


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="name of a known corpus, NAME=FOLDER, or a path: see docs/data.md")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    language: Annotated[
        str | None, typer.Option(help="language of clips that state none; outranks names of folders")
    ] = None,
    languages: Annotated[str, typer.Option(help="keep only these languages: ro,pt-BR")] = "",
    split_by: Annotated[
        Literal["text", "speaker", "source"], typer.Option(help="what no two splits may share")
    ] = "text",
    dev: Annotated[float, typer.Option(min=0, max=1, help="share of the dev split")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="share of the test split")] = 0.1,
    seed: Annotated[int, typer.Option(help="seed of the random splits")] = 0,
    max_seconds: Annotated[
        float, typer.Option(help="longer clips are cut at pauses, or dropped if transcribed")
    ] = 30.0,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="stop if a larger share of the clips is broken")] = 0.01,
    channel: Annotated[
        str,
        typer.Option(metavar="N|each|mix", help="one channel by number, each if untranscribed, or their mean"),
    ] = "mix",
    tiers: Annotated[str, typer.Option(help="tiers of annotations that are transcripts: Ana,tx@*")] = "",
    text: Annotated[
        list[Path] | None, typer.Option(help="file of sentences without recordings to add; may be repeated")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="folder for downloaded packages")] = None,
    words: Annotated[
        bool, typer.Option("--words", help="drop clips whose transcript is a single letter or has figures")
    ] = False,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="accept given splits that share texts")] = False,
    processes: Annotated[int, typer.Option(min=0, help="that read the audio; worth it for hours of it")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing folder")] = False,
) -> None:
    """Prepare a known corpus or your own recordings for training."""
    from isogloss.audio.channels import parse_channel
    from isogloss.data.prepare import prepare as work

    with terminal.counting("Preparing") as advance:
        card = work(
            source,
            out,
            language=language,
            languages=listed(languages),
            split_by=split_by,
            dev=dev,
            test=test,
            seed=seed,
            max_seconds=max_seconds,
            max_bad=max_bad,
            channel=parse_channel(channel),
            tiers=listed(tiers) or (),
            text=text or (),
            cache=cache,
            words=words,
            allow_leak=allow_leak,
            processes=processes,
            overwrite=overwrite,
            on_progress=advance if sys.stderr.isatty() else None,
        )
    clips, languages = counted(card["clips"], "clip"), " ".join(card["languages"])
    print(f"{out}: {clips}, {lasting(card['hours'] * 3600)}, languages: {languages}")
    for line in _account(card):
        terminal.note(line)
    terminal.note(f"Look at it with: isogloss inspect {out}")


def _account(card: dict[str, Any]) -> Iterator[str]:
    """What became of everything that the source held, in sentences."""
    yield f"With a transcript: {card['transcribed']}, without: {card['clips'] - card['transcribed']}."
    aside = card["aside"]
    if words := aside["words"]:
        yield f"Taken as no transcript: {_listed(words)}; in quotation marks it is a word."
    if sentences := card["text"]:
        yield f"Unspoken sentences: {sentences['kept']} of {sentences['read']}."
    left_out = card["dropped"] | card["broken"]
    yield f"Clips left out: {sum(left_out.values())}" + (f" ({_listed(left_out)})." if left_out else ".")
    if files := aside["files"]:
        yield f"Files left aside: {_listed(files)}."
    if lines := aside["lines"]:
        yield f"Lines left aside: {_listed(lines)}."
    if columns := aside["columns"]:
        yield f"Columns that are not used: {', '.join(columns)}."
    if tiers := aside["tiers"]:
        yield f"Tiers that are not used: {', '.join(tiers)}."


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counts.items())


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="a prepared corpus")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    audio: Annotated[
        Literal["flac", "wav", "opus"], typer.Option(help="flac: lossless; wav: read fastest; opus: smallest")
    ] = "flac",
    hours: Annotated[float, typer.Option(min=0.001, help="of audio in a shard, about")] = 1.0,
    seed: Annotated[int, typer.Option(help="seed of the order of the clips")] = 0,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="stop if a larger share of the clips is broken")] = 0.01,
    processes: Annotated[int | None, typer.Option(min=0, help="that write; by default one a core")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a packed corpus")] = False,
) -> None:
    """Pack a prepared corpus into few large files.

    They are tar files in lhotse's Shar format. The same command goes on with one that was stopped.
    """
    import os

    from isogloss.data.packing import pack as work

    with terminal.counting("Packing") as advance:
        card = work(
            folder,
            out,
            audio=audio,
            hours=hours,
            seed=seed,
            max_bad=max_bad,
            processes=len(os.sched_getaffinity(0)) if processes is None else processes,
            overwrite=overwrite,
            on_progress=advance if sys.stderr.isatty() else None,
        )
    packed = card["packed"]
    print(
        f"{out}: {counted(card['clips'], 'clip')}, {lasting(card['hours'] * 3600)}, in "
        f"{counted(packed['shards'], 'shard')} of {packed['audio']}"
    )
    if left_out := packed["left out"]:
        terminal.note(f"{counted(len(left_out), 'clip')} could not be read: {', '.join(left_out)}.")


@app.command()
def attach(
    url: Annotated[str, typer.Argument(help="where a packed corpus lies: s3://…, gs://…, https://…, any of fsspec")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    keep: Annotated[float, typer.Option(min=0, help="GB of shards on this disk at most")] = 50.0,
) -> None:
    """Use a packed corpus of a remote store.

    Its shards are fetched when they are read.
    """
    from isogloss.data.manifests import CARD, TEXT
    from isogloss.data.shards import INDEX, Shards
    from isogloss.data.store import attach as work

    work(url, out, keep=int(keep * 1e9), names=(INDEX, CARD), optional=(TEXT,))
    print(f"{out}: {counted(len(Shards(out)), 'clip')} of {url}; at most {keep:g} GB of them are kept here")


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="a prepared corpus")],
    deep: Annotated[
        bool, typer.Option("--deep", help="also read the audio, to find silent, damaged and duplicate files")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Show what a corpus contains and what in it needs checking."""
    from isogloss.data.inspection import inspect as work
    from isogloss.data.inspection import render
    from isogloss.files import write_json

    found = work(folder, deep=deep)
    terminal.results().print(render(found))
    if json:
        write_json(json, found.plain())
    if unreadable := [f"{clip} ({cause})" for cause, ids in found.unreadable.items() for clip in ids]:
        said = f"{counted(len(unreadable), 'clip')} cannot be read: {', '.join(unreadable)}"
        terminal.complain(f"{said}; mend the files, or prepare the corpus again without them.")
        raise typer.Exit(FAILED)
