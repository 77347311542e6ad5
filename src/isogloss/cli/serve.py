"""The verb that answers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isogloss.cli import terminal
from isogloss.cli.app import BeamWidth, Device, LanguageModel, LanguageModelWeight, ModelFolder, app, loaded
from isogloss.errors import IsoglossError

LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command()
def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 = every network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="what clients call the model; the name of its folder")] = None,
    index: Annotated[Path | None, typer.Option(help="folder made by isogloss embed, to search in")] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="folder of adapters from isogloss finetune; may be repeated")
    ] = None,
    beam: BeamWidth = None,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = 0.5,
    api_key_file: Annotated[
        Path | None, typer.Option(help="file with the key that clients must send; else $ISOGLOSS_API_KEY, if set")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="site whose pages may use the server; may be repeated")
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="MB of one request")] = 100,
    max_seconds: Annotated[float, typer.Option(min=1, help="of one recording")] = 3600,
    queue: Annotated[int, typer.Option(min=1, help="requests at once; more are asked to come again")] = 64,
    timeout: Annotated[float, typer.Option(min=1, help="seconds in which a request is answered")] = 600,
    device: Device = "auto",
) -> None:
    """Serve a model over HTTP, with a page. OpenAI's endpoints for transcription and embeddings, live text, search."""
    try:
        from isogloss.serving.app import create_app
        from isogloss.serving.server import bound
        from isogloss.serving.server import serve as run
    except ImportError as error:
        raise IsoglossError(f"The server needs more packages ({error}): pip install 'isogloss[serve]'.") from None
    from isogloss.model.index import load_index
    from isogloss.serving.settings import MIB, Settings, read_key

    settings = Settings(
        name=name or model.resolve().name,
        key=read_key(api_key_file),
        origins=tuple(cors or ()),
        max_upload=max_upload * MIB,
        max_seconds=max_seconds,
        queue=queue,
        timeout=timeout,
    )
    with bound(host, port) as listening:  # before anything is loaded
        known = None if index is None else load_index(index, model)
        recogniser = loaded(model, device, adapter)
        search = recogniser.search(beam, language_model=lm, weight=lm_weight)
        if not recogniser.model.decoders:
            terminal.note(f"{model} cannot transcribe: it was pre-trained on speech alone. It is served for the rest.")
        if host not in LOCAL and settings.key is None:
            terminal.note(f"Everybody who reaches {host}:{port} may use this server; give it --api-key-file.")
        run(create_app(recogniser, settings, known, search), listening)
