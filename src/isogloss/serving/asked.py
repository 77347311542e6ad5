"""What clients ask for: OpenAI's fields, and those of our own."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Literal, TypeVar

from pydantic import Field, field_validator

from isogloss.config import Config
from isogloss.decoding.beam import Beam
from isogloss.errors import IsoglossError
from isogloss.model.engine import Request
from isogloss.model.recogniser import Recogniser
from isogloss.serving.problems import Problem
from isogloss.serving.uploads import Form
from isogloss.text.languages import normalise_language

FieldsT = TypeVar("FieldsT", bound=Config)
IGNORED = ("temperature", "chunking_strategy", "include[]", "user")
"""Fields of OpenAI's that change nothing here; the response says so in the header X-Isogloss-Ignored."""
GRANULARITIES = "timestamp_granularities[]"
MOST_HOTWORDS = 100
REMEMBERED = 64
"""Sets of hotwords whose searches are kept: requests that share one are decoded together."""
LONGEST_TEXT = 1000
"""Characters of a text that is embedded or searched by."""
MOST_TEXTS = 256


class RecordingFields(Config):
    """What may be said of any recording."""

    model: str | None = Field(None, description="name of the model, as /v1/models has it")
    language: str | None = Field(None, max_length=100, description="what is spoken; BCP 47, ISO 639 or English name")


class TranscriptionFields(RecordingFields):
    """What `/v1/audio/transcriptions` understands beside the file."""

    prompt: str = Field("", max_length=10_000, description="words to expect, such as names, separated by commas")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = Field(
        "json", description="form of the answer"
    )
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field(
        ("word", "segment"), alias=GRANULARITIES, description="what verbose_json has times of"
    )
    stream: bool = Field(False, description="answer segment by segment, as server-sent events")

    @field_validator("timestamp_granularities", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class EmbeddingRequest(Config):
    """What `/v1/embeddings` takes of sentences."""

    input: str | list[str] = Field(description="a sentence or several")
    model: str | None = Field(None, description="name of the model, as /v1/models has it")
    encoding_format: Literal["float", "base64"] = Field("float", description="numbers, or float32 in base64")
    language: str | None = Field(None, max_length=100, description="of the sentences")
    user: str | None = Field(None, description="ignored")

    @property
    def texts(self) -> list[str]:
        """The sentences; raises Problem for more or longer ones than are embedded at once."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not 1 <= len(texts) <= MOST_TEXTS or max(map(len, texts)) > LONGEST_TEXT:
            raise Problem(
                400, f"Give 1 to {MOST_TEXTS} texts of at most {LONGEST_TEXT} characters in a request.", param="input"
            )
        return texts


class SearchRequest(Config):
    """What `/v1/search` takes."""

    query: str = Field(max_length=LONGEST_TEXT, description="a sentence to search by")
    count: int = Field(5, ge=1, le=100, description="entries to return")
    language: str | None = Field(None, max_length=100, description="of the query")
    only: Literal["speech", "text"] | None = Field(None, description="only speech, or only text")


class SpeechEmbeddingFields(RecordingFields):
    """What `/v1/embeddings` takes beside a file."""

    encoding_format: Literal["float", "base64"] = Field("float", description="numbers, or float32 in base64")


class SpeechSearchFields(RecordingFields):
    """What `/v1/search` takes beside a file."""

    count: int = Field(5, ge=1, le=100, description="entries to return")
    only: Literal["speech", "text"] | None = Field(None, description="only speech, or only text")


def fields_of(form: Form, kind: type[FieldsT]) -> FieldsT:
    """The fields of a form; those left empty count as not given. Raises IsoglossError for what is not understood."""
    given: dict[str, object] = {}
    for key, values in form.fields.items():
        if key in IGNORED or not any(values):
            continue
        given[key] = tuple(values) if key == GRANULARITIES else values[-1]
    return kind.parse(given, "The form")


class Searches:
    """Searches by the hotwords that clients send, on top of the server's own search. base: that one, or None."""

    def __init__(self, recogniser: Recogniser, base: Beam | None):
        self._recogniser, self._base = recogniser, base
        self._with = lru_cache(REMEMBERED)(self._made)

    def of(self, prompt: str) -> Beam | None:
        """The search for a prompt; names in it are parted by commas or ends of lines, else each word is one."""
        parts = re.split(r"[,;\n]", prompt) if re.search(r"[,;\n]", prompt) else prompt.split()
        words = tuple(dict.fromkeys(part.strip() for part in parts if any(map(str.isalpha, part))))
        return self._with(words[:MOST_HOTWORDS]) if words else self._base

    def _made(self, words: tuple[str, ...]) -> Beam:
        search = self._recogniser.beam(hotwords=words)
        return search if self._base is None else replace(self._base, hotwords=search.hotwords)


def check_model(name: str | None, served: str) -> None:
    """Raises Problem for a model that is not served."""
    if name not in (None, served):
        raise Problem(404, f'There is no model "{name}" here; this server has "{served}".', param="model",
                      code="model_not_found")  # fmt: skip


def check_language(recogniser: Recogniser, language: str | None) -> str | None:
    """The tag of a language that the model can write; raises Problem for another, and where it writes nothing."""
    try:
        tag = None if language is None else normalise_language(language)
        recogniser.engine.check([Request(language=tag)])
    except IsoglossError as error:
        raise Problem(400, str(error), param=language and "language") from None
    return tag
