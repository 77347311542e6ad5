"""Endpoints of the space that speech and text share: vectors of sentences and of speech, and a search among them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from torch import Tensor

from isogloss.audio.windows import WINDOW_SECONDS
from isogloss.errors import AudioError
from isogloss.model.index import Found
from isogloss.model.pieces import Piece, Recordings
from isogloss.model.space import PAUSE, embed_query, embed_speech, embed_text
from isogloss.serving.asked import (
    EmbeddingRequest,
    FieldsT,
    RecordingFields,
    SearchRequest,
    SpeechEmbeddingFields,
    SpeechSearchFields,
    check_model,
    fields_of,
)
from isogloss.serving.problems import Problem
from isogloss.serving.service import Service, told
from isogloss.serving.uploads import read_json, received_form
from isogloss.text.languages import normalise_language

RecordingT = TypeVar("RecordingT", bound=RecordingFields)


def add_vectors(app: FastAPI, service: Service) -> None:
    """Add `/v1/embeddings` and `/v1/search` to an application."""
    settings = service.settings
    numbers = {item: number for number, item in enumerate(service.index.items)} if service.index else {}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> dict[str, Any]:
        """Vectors of sentences (JSON), or of the stretches of speech in a recording (a form)."""
        if _is_form(request):
            fields, _, pieces, vectors = await _of_speech(service, request, SpeechEmbeddingFields)
            places: list[dict[str, Any]] = [{"start": part.start, "end": part.end} for part in pieces]
            return _embeddings(settings.name, vectors, fields.encoding_format, places, 0)
        asked = await _json(service, request, EmbeddingRequest)
        check_model(asked.model, settings.name)
        with told():
            tags = [_tag(asked.language)] * len(asked.texts)
            work = service.worker.call(embed_text, service.recogniser.model, asked.texts, tags)
            found = await service.answer(request, work)
        count = sum(map(len, asked.texts))
        return _embeddings(settings.name, found.last, asked.encoding_format, [{}] * len(tags), count)

    @app.post("/v1/search")
    async def search(request: Request) -> dict[str, Any]:
        """What lies nearest to a sentence (JSON) or to a recording of speech (a form)."""
        if service.index is None:
            raise Problem(404, "This server has no index to search in; start it with --index.", code="no_index")
        asked: SearchRequest | SpeechSearchFields
        if _is_form(request):
            asked, name, pieces, vectors = await _of_speech(service, request, SpeechSearchFields)
            if not pieces:
                raise Problem(422, f"Nothing is said in {name}; search by a recording of speech.", param="file")
        else:
            asked = written = await _json(service, request, SearchRequest)
            with told():
                tag = _tag(written.language)
                work = service.worker.call(embed_query, service.recogniser.model, written.query, tag)
                vectors = (await service.answer(request, work)).last
        found = await asyncio.to_thread(service.index.nearest, vectors.mean(dim=0), asked.count, asked.only)
        return {"results": [_result(numbers[one.item], one) for one in found]}


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


async def _json(service: Service, request: Request, kind: type[FieldsT]) -> FieldsT:
    body = await read_json(request, service.settings)
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Problem(400, "The body of the request is no JSON object.")
    with told():
        return kind.parse(values, "The request")


def _tag(language: str | None) -> str | None:
    return None if language is None else normalise_language(language)


async def _of_speech(
    service: Service, request: Request, kind: type[RecordingT]
) -> tuple[RecordingT, str, list[Piece], Tensor]:
    """The fields of a form, the name of its recording, the stretches of speech in it and their vectors, (N, D)."""
    async with received_form(request, service.settings) as form:
        with told():
            fields = fields_of(form, kind)
            check_model(fields.model, service.settings.name)
        await service.measured(form, longest=WINDOW_SECONDS)
        with told(form):
            work = service.worker.call(_embedded, service, form.file, _tag(fields.language))
            pieces, vectors = await service.answer(request, work)
    return fields, form.name, pieces, vectors


def _embedded(service: Service, path: Path, tag: str | None) -> tuple[list[Piece], Tensor]:
    recordings = Recordings([path], max_pause=PAUSE)
    pieces, vectors = embed_speech(service.recogniser.model, recordings, languages=[tag], vad=True)
    if error := recordings.errors.get(0):
        raise AudioError(str(error), error.cause)
    return pieces, vectors.last


def _embeddings(
    model: str, vectors: Tensor, encoding: str, places: list[dict[str, Any]], count: int
) -> dict[str, Any]:
    """OpenAI's answer. places: what else is known of each vector. count: characters read."""
    rows = np.ascontiguousarray(vectors.numpy(), dtype="<f4")
    data = [
        {
            "object": "embedding",
            "index": number,
            "embedding": base64.b64encode(row.tobytes()).decode() if encoding == "base64" else row.tolist(),
            **place,
        }
        for number, (row, place) in enumerate(zip(rows, places, strict=True))
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _result(number: int, found: Found) -> dict[str, Any]:
    item = found.item
    speech = item.kind == "speech"
    answer = {
        "id": number,
        "score": round(found.score, 4),
        "text": None if speech else item.name,
        "language": item.language,
        "audio": item.name if speech else None,
    }
    return answer | ({"start": item.start, "end": item.end} if speech else {})
