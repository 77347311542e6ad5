"""Transcripts in the forms that OpenAI's clients expect, with more in them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from isogloss.decoding.words import Word
from isogloss.model.results import Segment, Transcript
from isogloss.serving import writers

Granularities = Iterable[str]


def response(transcript: Transcript, form: str, granularities: Granularities) -> Response:
    """A transcript as json, verbose_json, text, srt or vtt."""
    if form == "verbose_json":
        return JSONResponse(verbose(transcript, granularities))
    if form == "json":
        return JSONResponse({"text": writers.plain(transcript.text)})
    media = "text/vtt" if form == "vtt" else "text/plain"
    return PlainTextResponse(writers.WRITERS[form]("", transcript), media_type=f"{media}; charset=utf-8")


def verbose(transcript: Transcript, granularities: Granularities) -> dict[str, Any]:
    """Everything that is known. probabilities: of languages, where the language was not told."""
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language,
        "duration": round(transcript.seconds, 3),
        "text": writers.plain(transcript.text),
    }
    if "word" in granularities:
        found["words"] = [word_fields(word) for word in transcript.words]
    if "segment" in granularities:
        found["segments"] = [_segment(number, part) for number, part in enumerate(transcript.segments)]
    return found | {"probabilities": rounded(transcript.probabilities), "no_speech": transcript.no_speech}


def timed_segment(number: int, part: Segment) -> dict[str, Any]:
    """A segment with its words."""
    return _segment(number, part) | {"words": [word_fields(word) for word in part.words]}


def rounded(probabilities: dict[str, float]) -> dict[str, float]:
    """Languages by falling probability."""
    return {tag: round(share, 4) for tag, share in probabilities.items()}


def word_fields(word: Word) -> dict[str, Any]:
    """A word, its times in seconds and its confidence."""
    return {
        "word": writers.plain(word.text),
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
    }


def event(kind: str, **values: Any) -> str:
    """A server-sent event."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | values, ensure_ascii=False)}\n\n"


def _segment(number: int, part: Segment) -> dict[str, Any]:
    """OpenAI's fields, as Whisper defines them, and the confidence."""
    text = writers.plain(part.text)
    written = text.encode()
    return {
        "id": number,
        "seek": round(100 * part.start),
        "start": round(part.start, 3),
        "end": round(part.end, 3),
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": math.log(max(part.confidence, 1e-6)),
        "compression_ratio": len(written) / len(zlib.compress(written)),
        "no_speech_prob": part.no_speech or 0.0,
        "confidence": round(part.confidence, 4),
    }
