"""Verbs that search among speech and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import FAILED, AudioArguments, Device, ModelFolder, app, loaded
from isogloss.cli.speech import all_read
from isogloss.errors import counted

if TYPE_CHECKING:
    from isogloss.cli.recordings import Recording


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
    network = loaded(model, device).model
    sentences = embed_text(network, [line.text for line in lines], [line.language for line in lines])
    items = [Item("text", line.text, language=line.language) for line in lines]
    vectors = list(sentences.last)

    def embedded(audio: list[Any], *, channel: list[Any], on_progress: Any) -> list[Any]:
        opened = Recordings(audio, channels=channel, max_pause=PAUSE)
        pieces, found = embed_speech(network, opened, languages=[tag] * len(audio), vad=True)
        both = list(zip(pieces, found.last, strict=True))
        own = [[pair for pair in both if pair[0].owner == owner] for owner in range(len(audio))]
        return [opened.errors.get(owner, pairs) for owner, pairs in enumerate(own)]

    def keep(recording: Recording, found: Any) -> None:
        for piece, vector in found:
            items.append(Item("speech", recording.name, round(piece.start, 2), round(piece.end, 2)))
            vectors.append(vector)

    whole = all_read(recordings, embedded, keep)
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
