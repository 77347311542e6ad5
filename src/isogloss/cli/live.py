"""`isogloss transcribe --stream`: words while they are said, from raw samples or a microphone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from isogloss.audio.pcm import PCM, microphone, pieces
from isogloss.cli import terminal
from isogloss.errors import IsoglossError
from isogloss.serving import writers
from isogloss.text.languages import normalise_language

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

SOURCES = ("-", "microphone")


def transcribe_live(
    audio: list[str],
    load: Callable[[], Recogniser],
    language: str | None,
    decoder: str | None,
    format: str,
    raw: tuple[str, int, int],
) -> None:
    """Write each word to standard output as soon as it is complete.

    audio: one of `SOURCES`. load: gives the model, once everything else is known to be right. raw:
    encoding, rate and channels of the samples on standard input.
    """
    if len(audio) != 1 or audio[0] not in SOURCES:
        raise IsoglossError("--stream listens to one source: - for raw samples on standard input, or microphone.")
    if format not in writers.WORD_WRITERS:
        raise IsoglossError(f"--stream writes {', '.join(writers.WORD_WRITERS)}, not {format}.")
    tag = None if language is None else normalise_language(language)
    source = pieces(sys.stdin.buffer, PCM(*raw)) if audio == ["-"] else microphone()
    write = writers.WORD_WRITERS[format]
    for word in load().stream(source, language=tag, decoder=decoder):
        terminal.write(write(word))
        sys.stdout.flush()
    terminal.write("\n" if format == "text" else "")
