"""Verbs that search among speech and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import FAILED, AudioArguments, Device, ModelFolder, Ray, app, loaded
from isogloss.cli.speech import all_read
from isogloss.errors import counted

if TYPE_CHECKING:
    from torch import Tensor

    from isogloss.cli.recordings import Recording, Work
    from isogloss.errors import AudioError
    from isogloss.model.recogniser import Progress

    Vector = tuple[float, float, Tensor]
    """Of what is said between two times, in seconds."""


@app.command()
def embed(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="folder for the index", show_default=False)],
    audio: AudioArguments = [],  # noqa: B006 - typer reads it
    text: Annotated[
        list[Path] | None, typer.Option(help="file of sentences to add to the index; may be repeated")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="language of sentences where neither they nor a file name like ro.txt state it")
    ] = None,
    device: Device = "auto",
    ray: Ray = None,
) -> None:
    """Build a search index of recordings and sentences. Long recordings are cut at pauses."""
    from isogloss.cli.recordings import find_recordings
    from isogloss.data.rows import language_named
    from isogloss.files import require_replaceable
    from isogloss.model.index import ITEMS, Index, Item
    from isogloss.model.pieces import Recordings
    from isogloss.model.space import PAUSE, embed_speech, embed_text
    from isogloss.text.corpus import read_text_lines
    from isogloss.text.languages import normalise_language

    require_replaceable(out, ITEMS)
    recordings = find_recordings(audio)
    tag = None if language is None else normalise_language(language)
    lines = [line for path in text or [] for line in read_text_lines(path, language_named(path) or tag)]
    items = [Item("text", line.text, language=line.language) for line in lines]
    texts, tags = [line.text for line in lines], [line.language for line in lines]
    vectors = list(embed_text(loaded(model, device).model, texts, tags).last) if lines else []

    def opened(device: str) -> Work[list[Vector]]:
        network = loaded(model, device).model

        def work(recordings: list[Recording], on_progress: Progress) -> list[list[Vector] | AudioError]:
            sources, channels = [one.source for one in recordings], [one.channel for one in recordings]
            heard = Recordings(sources, channels=channels, max_pause=PAUSE)
            pieces, found = embed_speech(network, heard, languages=[tag] * len(recordings), vad=True)
            own: list[list[Vector]] = [[] for _ in recordings]
            for piece, vector in zip(pieces, found.last, strict=True):
                own[piece.owner].append((piece.start, piece.end, vector))
            return [heard.errors.get(owner, vectors) for owner, vectors in enumerate(own)]

        return work

    found: dict[Recording, list[Vector]] = {}
    whole = all_read(recordings, opened, found.__setitem__, device, ray)
    for recording in filter(found.__contains__, recordings):
        for start, end, vector in found[recording]:
            items.append(Item("speech", recording.name, round(start, 2), round(end, 2)))
            vectors.append(vector)
    Index(items, vectors, model).save(out)
    print(f"{out}: {counted(len(items), 'entry', 'entries')}")
    if not whole:
        raise typer.Exit(FAILED)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="folder made by isogloss embed")],
    query: Annotated[str, typer.Argument(help="a sentence, or a recording")],
    language: Annotated[str | None, typer.Option(help="language of the query")] = None,
    only: Annotated[Literal["speech", "text"] | None, typer.Option(help="show only speech or only text")] = None,
    most: Annotated[int, typer.Option(min=1, help="how many entries to show")] = 5,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="folder of the model, if it was moved since isogloss embed")
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="output format")] = "text",
    device: Device = "auto",
) -> None:
    """Search an index of speech and text by a sentence or recording."""
    import json

    from isogloss.cli.recordings import is_recording
    from isogloss.errors import IsoglossError
    from isogloss.model.index import load_index
    from isogloss.model.space import embed_query, embed_speech
    from isogloss.text.languages import normalise_language

    known = load_index(index, model)
    network = loaded(known.model, device).model
    tag = None if language is None else normalise_language(language)
    if is_recording(query):
        pieces, vectors = embed_speech(network, [query], languages=[tag], vad=True)
        if not pieces:
            raise IsoglossError(f"Nothing is said in {query}; search by a recording of speech.")
    else:
        vectors = embed_query(network, query, tag)
    found = known.nearest(vectors.last.mean(dim=0), most, only)
    if format == "json":
        terminal.write(json.dumps([one.plain() for one in found], ensure_ascii=False, indent=1) + "\n")
        return
    for one in found:
        item = one.item
        place = f"  {item.start:.2f} – {item.end:.2f} s" if item.kind == "speech" else f"  [{item.language}]"
        terminal.write(f"{one.score:.3f}  {item.name}{place}\n")
