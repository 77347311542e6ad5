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
    Ray,
    app,
    listed,
    loaded,
)
from isogloss.cli.outputs import LINES, Files, Lines, Output, Resume, StandardOutput, remaining

if TYPE_CHECKING:
    from isogloss.cli.recordings import Recording, Result, Work
    from isogloss.errors import AudioError
    from isogloss.model.recogniser import Progress
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
    out: Annotated[
        Path | None, typer.Option(help="folder for one file per recording, or FILE.jsonl for all, with --format json")
    ] = None,
    resume: Resume = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="transcribe live, word by word; AUDIO is - (raw samples) or microphone")
    ] = False,
    encoding: Annotated[str, typer.Option(help="encoding of raw samples: s16le, s16be, f32le, u8 …")] = "s16le",
    rate: Annotated[int, typer.Option(help="sample rate of raw samples, Hz")] = 16000,
    channels: Annotated[int, typer.Option(help="channels of raw samples")] = 1,
    channel: ChannelChoice = "mix",
    vad: VoiceActivity = True,
    device: Device = "auto",
    ray: Ray = None,
) -> None:
    """Transcribe recordings or live speech."""
    if stream:
        if (beam or 1) > 1 or nbest > 1 or lm or hotwords:
            raise typer.BadParameter("--stream decides frame by frame; leave out --beam, --nbest, --lm and --hotwords")
        if out or resume or ray or not vad:
            raise typer.BadParameter(
                "--stream writes all speech to standard output; leave out --out, --resume, --ray and --no-vad"
            )
        from isogloss.audio.channels import parse_channel
        from isogloss.cli.live import RawSamples, transcribe_live

        wanted = parse_channel(channel)
        if wanted == "each":
            raise typer.BadParameter("--stream transcribes one channel; give --channel a number or mix")
        raw = RawSamples(encoding, rate, channels, wanted)
        transcribe_live(audio, lambda: loaded(model, device, adapter), language, decoder, format, raw)
        return
    from isogloss.cli.recordings import by_method, find_recordings
    from isogloss.serving import writers
    from isogloss.text.languages import normalise_language

    recordings = find_recordings(audio, channel)
    if out is None and format in ("srt", "vtt", "textgrid") and len(recordings) > 1:
        raise typer.BadParameter(f"{format} of several recordings needs a folder; add --out FOLDER")
    tag = None if language is None else normalise_language(language)
    words = listed(hotwords) or ()
    heading = writers.TSV_HEADING if format == "tsv" else ""
    output = _output(recordings, out, resume, format, heading)
    write = writers.WRITERS[format]

    def opened(device: str) -> Work[Transcript]:
        recogniser = loaded(model, device, adapter)
        if tag is None and (known := recogniser.unsure_of):
            terminal.note(f"This model does not identify languages; give --language ({', '.join(known)}).")
        search = recogniser.search(beam, most=nbest, language_model=lm, weight=lm_weight, hotwords=words)
        return by_method(partial(recogniser.transcribe, language=tag, decoder=decoder, beam=search, vad=vad))

    def show(recording: Recording, transcript: Transcript) -> None:
        if vad and not transcript.segments:
            terminal.note(f"No speech found in {recording.name}.")
        output.write(recording, write(recording.name, transcript))

    each(remaining(recordings, output, out, resume), opened, show, device, ray)


@app.command()
def identify(
    audio: AudioArguments,
    model: ModelFolder,
    format: Annotated[Literal["text", "json", "tsv"], typer.Option(help="output format")] = "text",
    out: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="file for all, with --format json")] = None,
    resume: Resume = False,
    channel: ChannelChoice = "mix",
    vad: VoiceActivity = True,
    device: Device = "auto",
    ray: Ray = None,
) -> None:
    """Identify the language of recordings."""
    from isogloss.cli.recordings import by_method, find_recordings
    from isogloss.serving import writers

    recordings = find_recordings(audio, channel)
    if out and out.suffix != LINES:
        raise typer.BadParameter(f"--out is one file for all; name it FILE{LINES}")
    heading = writers.IDENTIFICATION_HEADING if format == "tsv" else ""
    output = _output(recordings, out, resume, format, heading)
    write = writers.IDENTIFICATION_WRITERS[format]

    def opened(device: str) -> Work[Identification]:
        return by_method(partial(loaded(model, device).identify, vad=vad))

    def show(recording: Recording, found: Identification) -> None:
        if found.language is None and format == "tsv":  # which has no row for it
            terminal.note(f"No speech found in {recording.name}.")
        output.write(recording, write(recording.name, found))

    each(remaining(recordings, output, out, resume), opened, show, device, ray)


@app.command()
def encode(
    audio: AudioArguments,
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="folder for one .safetensors file per recording", show_default=False)],
    resume: Resume = False,
    layer: Annotated[int | None, typer.Option(help="0 = before the first block; the last by default")] = None,
    frame_ms: Annotated[
        float | None, typer.Option(help="10 = as many states as log-mel frames of 10 ms, repeated")
    ] = None,
    device: Device = "auto",
    ray: Ray = None,
) -> None:
    """Write the encoder's hidden states. A file has a tensor `states` of shape (frames, width)."""
    from isogloss.cli.recordings import by_method, find_recordings, places
    from isogloss.errors import AudioError
    from isogloss.files import atomic_file

    recordings = find_recordings(audio)
    files = places(recordings, out, ".safetensors")

    def opened(device: str) -> Work[Path]:
        from isogloss.model.folder import write_tensors

        recogniser = loaded(model, device)
        encoded = by_method(partial(recogniser.encode, layer=layer, frame_ms=frame_ms))
        about = {
            "frame_seconds": str(recogniser.model.frame_seconds if frame_ms is None else frame_ms / 1000),
            "layer": "last" if layer is None else str(layer),
        }

        def save(recording: Recording, states: Any) -> Path:
            with atomic_file(files[recording]) as temporary:
                write_tensors(temporary, {"states": states.contiguous()}, about | {"audio": recording.name})
            return files[recording]

        def work(recordings: list[Recording], on_progress: Progress) -> list[Path | AudioError]:
            results = zip(recordings, encoded(recordings, on_progress), strict=True)
            return [found if isinstance(found, AudioError) else save(recording, found) for recording, found in results]

        return work

    left = remaining(recordings, Files(files), out, resume)
    each(left, opened, lambda _, path: print(path), device, ray)


def _output(recordings: Sequence[Recording], out: Path | None, resume: bool, format: str, heading: str) -> Output:
    """Where results in a format go."""
    from isogloss.cli.recordings import places
    from isogloss.serving.writers import SUFFIXES

    if out is None:
        return StandardOutput(heading, named=format == "text" and len(recordings) > 1)
    if out.suffix != LINES:
        return Files(places(recordings, out, SUFFIXES[format]), heading)
    if format != "json":
        raise typer.BadParameter(f"a {LINES} file takes --format json")
    return Lines(out, resume)


def each(
    recordings: Sequence[Recording],
    opened: Callable[[str], Work[Result]],
    show: Callable[[Recording, Result], None],
    device: str,
    ray: str | None,
) -> None:
    """Work on all recordings; broken ones are reported and make the exit code 1."""
    if not all_read(recordings, opened, show, device, ray):
        raise typer.Exit(FAILED)


def all_read(
    recordings: Sequence[Recording],
    opened: Callable[[str], Work[Result]],
    show: Callable[[Recording, Result], None],
    device: str,
    ray: str | None,
) -> bool:
    """Work on all recordings, report broken ones when all are done, and return whether there were none.

    opened: loads on a device what the work needs. ray: the address of a Ray cluster to do it; None for this process.
    """
    from isogloss.cli.recordings import here, on_ray, process

    if not recordings:
        return True
    run = here(opened(device)) if ray is None else on_ray(opened, ray, device)
    broken: list[AudioError] = []
    try:
        with terminal.AudioBar("Working") as bar:
            for recording, result in process(recordings, run, broken.append, bar.advance if bar.shown else None):
                with bar.aside():
                    show(recording, result)
    finally:
        for error in broken:
            terminal.complain(str(error))
    if broken and len(recordings) > 1:
        terminal.complain(f"{len(broken)} of {len(recordings)} recordings could not be read.")
    return not broken
