"""Unspoken text as a first-class input: read it, clean it, write it beside a corpus.

Read: .txt (one sentence a line), .jsonl ({"text", "language", "source"} a line), each also with .gz.
Written: text.jsonl.gz.
"""

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.files import atomic_file, numbered_lines, plain_gzip
from isogloss.text.languages import normalise_language
from isogloss.text.normalise import normalise


@dataclass(frozen=True, slots=True)
class TextLine:
    """One sentence: its text, its language (BCP 47) and the name of the corpus it is from."""

    text: str
    language: str
    source: str


def read_text_lines(path: Path, language: str | None = None, source: str | None = None) -> Iterator[TextLine]:
    """The lines of a text corpus, one at a time.

    language: any form `normalise_language` takes; needed for plain text and for lines without one.
    source: a name for lines without one, by default the file's name without its suffixes.
    Raises IsoglossError that names file and line for a broken line, file or language.
    """
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix not in ("txt", "jsonl"):
        raise IsoglossError(f"{path} is no text corpus: give .txt, .jsonl, .txt.gz or .jsonl.gz.")
    default_language = None if language is None else normalise_language(language)
    default_source = source or path.name.partition(".")[0]
    for number, raw in numbered_lines(path):
        value = _parse(raw, f"{path}:{number}") if suffix == "jsonl" else {"text": raw}
        spoken = value.get("language")
        if not spoken and not default_language:
            raise IsoglossError(f"{path}:{number} has no language; name the language of this file.")
        yield TextLine(
            text=value["text"],
            language=normalise_language(spoken) if spoken else str(default_language),
            source=value.get("source") or default_source,
        )


def write_text_lines(lines: Iterable[TextLine], path: Path) -> int:
    """Write a .jsonl.gz atomically and return the number of lines; equal lines give equal bytes."""
    count = 0
    with atomic_file(path) as temporary, plain_gzip(temporary) as file:
        for line in lines:
            file.write(json.dumps(asdict(line), ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def clean_text(
    lines: Iterable[TextLine],
    counts: Counter[str],
    *,
    exclude: Container[str] = frozenset(),
    keep_points: bool = True,
) -> Iterator[TextLine]:
    """Normalise lines and drop those that are empty, excluded or repeated within their language.

    exclude: normalised sentences that must not be trained on: those of the dev and test splits.
    counts: filled while the result is consumed: read, empty, excluded, duplicate, kept.
    """
    seen: set[bytes] = set()
    for line in lines:
        text = normalise(line.text, line.language, keep_points=keep_points)
        # A digest of 16 bytes instead of the sentence: a corpus of 100 million lines still fits.
        key = blake2b(f"{line.language}\n{text}".encode(), digest_size=16).digest()
        counts["read"] += 1
        if not text:
            counts["empty"] += 1
        elif text in exclude:
            counts["excluded"] += 1
        elif key in seen:
            counts["duplicate"] += 1
        else:
            counts["kept"] += 1
            seen.add(key)
            yield TextLine(text, line.language, line.source)


def _parse(raw: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise IsoglossError(f"{place} is not JSON ({error}).") from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise IsoglossError(f'{place} has no "text".')
    if not all(isinstance(value.get(key) or "", str) for key in ("language", "source")):
        raise IsoglossError(f'{place}: "language" and "source" must be strings.')
    return value
