"""Verbs that use a model on recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import (
    FAILED,
    AudioArguments,
    BeamWidth,
    Device,
    LanguageModel,
    LanguageModelWeight,
    ModelFolder,
    app,
    listed,
    loaded,
)

if TYPE_CHECKING:
    from isogloss.cli.recordings import Recording, Result, Work
    from isogloss.model.results import Identification, Transcript

ChannelChoice = Annotated[
    str, typer.Option(metavar="N|each|mix", help="one channel by number, each separately, or their mean")
]
VoiceActivity = Annotated[bool, typer.Option("--vad/--no-vad", help="detect speech and skip the rest")]


@app.command()
def transcribe(
    audio: AudioArguments,
    model: ModelFolder,
    language: Annotated[str | None, typer.Option(help="language of the recordings, if known")] = None,
    decoder: Annotated[str | None, typer.Option(help="head to decode with: ctc, transducer, attention")] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="folder of adapters from isogloss finetune; may be repeated")
    ] = None,
    beam: BeamWidth = None,
    nbest: Annotated[int, typer.Option(min=1, help="number of likeliest texts to show, with --format json")] = 1,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = 0.5,
    hotwords: Annotated[str, typer.Option(help="words to expect, as in Ana,Cluj; turns on beam search")] = "",
    format: Annotated[
        Literal["text", "json", "tsv", "srt", "vtt", "ctm", "textgrid"], typer.Option(help="output format")
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="folder for one file per recording")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="transcribe live, word by word; AUDIO is - (raw samples) or microphone")
    ] = False,
    encoding: Annotated[str, typer.Option(help="encoding of raw samples: s16le, s16be, f32le, u8 …")] = "s16le",
    rate: Annotated[int, typer.Option(help="sample rate of raw samples, Hz")] = 16000,
    channels: Annotated[int, typer.Option(help="channels of raw samples")] = 1,
    channel: ChannelChoice = "mix",
    vad: VoiceActivity = True,
    device: Device = "auto",
) -> None:
    """Transcribe recordings or live speech."""
    if stream:
        if (beam or 1) > 1 or nbest > 1 or lm or hotwords:
            raise typer.BadParameter("--stream decides frame by frame; leave out --beam, --nbest, --lm and --hotwords")
        if out or not vad:
            raise typer.BadParameter("--stream writes all speech to standard output; leave out --out and --no-vad")
        from isogloss.audio.channels import parse_channel
        from isogloss.cli.live import RawSamples, transcribe_live

        wanted = parse_channel(channel)
        if wanted == "each":
            raise typer.BadParameter("--stream transcribes one channel; give --channel a number or mix")
        raw = RawSamples(encoding, rate, channels, wanted)
        transcribe_live(audio, lambda: loaded(model, device, adapter), language, decoder, format, raw)
        return
    from isogloss.cli.recordings import find_recordings, places
    from isogloss.serving import writers
    from isogloss.text.languages import normalise_language

    recordings = find_recordings(audio, channel)
    if out is None and format in ("srt", "vtt", "textgrid") and len(recordings) > 1:
        raise typer.BadParameter(f"{format} of several recordings needs a folder; add --out FOLDER")
    files = places(recordings, out, writers.SUFFIXES[format]) if out else {}
    tag = None if language is None else normalise_language(language)
    recogniser = loaded(model, device, adapter)
    if tag is None and (known := recogniser.unsure_of):
        terminal.note(f"This model does not identify languages; give --language ({', '.join(known)}).")
    write = writers.WRITERS[format]
    heading = writers.TSV_HEADING if format == "tsv" else ""
    prefixed = format == "text" and len(recordings) > 1

    def show(recording: Recording, transcript: Transcript) -> None:
        if vad and not transcript.segments:
            terminal.note(f"No speech found in {recording.name}.")
        if recording in files:
            _save(files[recording], heading + write(recording.name, transcript))
        else:
            terminal.write(f"{recording.name}\t" * prefixed + write(recording.name, transcript))

    words = listed(hotwords) or ()
    search = recogniser.search(beam, most=nbest, language_model=lm, weight=lm_weight, hotwords=words)
    if not files:
        terminal.write(heading)
    options = {"language": tag, "decoder": decoder, "beam": search, "vad": vad, "errors": "return"}
    each(recordings, partial(recogniser.transcribe, **options), show)


@app.command()
def identify(
    audio: AudioArguments,
    model: ModelFolder,
    format: Annotated[Literal["text", "json", "tsv"], typer.Option(help="output format")] = "text",
    channel: ChannelChoice = "mix",
    vad: VoiceActivity = True,
    device: Device = "auto",
) -> None:
    """Identify the language of recordings."""
    from isogloss.cli.recordings import find_recordings
    from isogloss.serving import writers

    recordings = find_recordings(audio, channel)
    write = writers.IDENTIFICATION_WRITERS[format]
    prefixed = format == "text" and len(recordings) > 1
    recogniser = loaded(model, device)
    terminal.write(writers.IDENTIFICATION_HEADING if format == "tsv" else "")

    def show(recording: Recording, found: Identification) -> None:
        if found.language is None and format == "tsv":  # which has no row for it
            terminal.note(f"No speech found in {recording.name}.")
        terminal.write(f"{recording.name}\t" * prefixed + write(recording.name, found))

    each(recordings, partial(recogniser.identify, vad=vad, errors="return"), show)


@app.command()
def encode(
    audio: AudioArguments,
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="folder for one .safetensors file per recording", show_default=False)],
    layer: Annotated[int | None, typer.Option(help="0 = before the first block; the last by default")] = None,
    device: Device = "auto",
) -> None:
    """Write the encoder's hidden states. A file has a tensor `states` of shape (frames, width)."""
    from isogloss.cli.recordings import find_recordings, places
    from isogloss.files import atomic_file

    recordings = find_recordings(audio)
    files = places(recordings, out, ".safetensors")
    recogniser = loaded(model, device)
    from isogloss.model.folder import write_tensors

    about = {
        "frame_seconds": str(recogniser.model.frame_seconds),
        "layer": "last" if layer is None else str(layer),
    }

    def save(recording: Recording, states: Any) -> None:
        with atomic_file(files[recording]) as temporary:
            write_tensors(temporary, {"states": states.contiguous()}, about | {"audio": recording.name})
        print(files[recording])

    each(recordings, partial(recogniser.encode, layer=layer, errors="return"), save)


def each(
    recordings: Sequence[Recording], work: Work[Result], show: Callable[[Recording, Result], None]
) -> None:
    """Work on all recordings; broken ones are reported and make the exit code 1."""
    if not all_read(recordings, work, show):
        raise typer.Exit(FAILED)


def all_read(
    recordings: Sequence[Recording], work: Work[Result], show: Callable[[Recording, Result], None]
) -> bool:
    """Work on all recordings and report broken ones; returns whether there were none."""
    from isogloss.cli.recordings import process

    def complain(error: Exception) -> None:
        with bar.aside():
            terminal.complain(str(error))

    done = 0
    with terminal.AudioBar("Working") as bar:
        for recording, result in process(recordings, work, complain, bar.advance if bar.shown else None):
            with bar.aside():
                show(recording, result)
            done += 1
    if done < len(recordings) > 1:
        terminal.complain(f"{len(recordings) - done} of {len(recordings)} recordings could not be read.")
    return done == len(recordings)


def _save(path: Path, text: str) -> None:
    from isogloss.files import write_text

    write_text(path, text)
    print(path)
