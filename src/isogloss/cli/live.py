"""`isogloss transcribe --stream`: words while they are said, from raw samples or a microphone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from isogloss.audio.pcm import PCM, microphone, pieces
from isogloss.cli import terminal
from isogloss.errors import IsoglossError
from isogloss.serving import writers
from isogloss.text.languages import normalise_language

if TYPE_CHECKING:
    from isogloss.audio.channels import Channel
    from isogloss.model.recogniser import Recogniser

SOURCES = ("-", "microphone")


class RawSamples(NamedTuple):
    """What bytes on standard input mean; see `PCM`."""

    encoding: str = "s16le"
    rate: int = 16000
    channels: int = 1
    channel: Channel = "mix"


def transcribe_live(
    audio: list[str],
    load: Callable[[], Recogniser],
    language: str | None,
    decoder: str | None,
    format: str,
    raw: RawSamples,
) -> None:
    """Write each word to standard output as soon as it is complete.

    audio: one of `SOURCES`. load: gives the model, once everything else is known to be right. raw: of the samples on
    standard input.
    """
    if len(audio) != 1 or audio[0] not in SOURCES:
        raise IsoglossError("--stream listens to one source: - for raw samples on standard input, or microphone.")
    if format not in writers.WORD_WRITERS:
        raise IsoglossError(f"--stream writes {', '.join(writers.WORD_WRITERS)}, not {format}.")
    if audio == ["microphone"] and raw != RawSamples():
        raise IsoglossError("--encoding, --rate, --channels and --channel are of raw samples; leave them out here.")
    tag = None if language is None else normalise_language(language)
    source = pieces(sys.stdin.buffer, PCM(*raw)) if audio == ["-"] else microphone()
    write = writers.WORD_WRITERS[format]
    for word in load().stream(source, language=tag, decoder=decoder):
        terminal.write(write(word))
        sys.stdout.flush()
    terminal.write("\n" if format == "text" else "")
