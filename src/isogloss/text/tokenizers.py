"""Tokenizers: text to ids and back without loss. Id 0 stands for no text in any of them: it is the blank of CTC and
transducer, and where the attention decoder ends.

A tokenizer takes text as it is; whoever wants normalised targets normalises first.

    folder/tokenizer.json    the kind and, for characters, the inventory
    folder/tokenizer.model   sentencepiece only: its own model format
"""

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import atomic_file, read_json, sha256, write_json

BLANK = END = 0
UNKNOWN = "\ufffd"

_log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """What a model asks of its tokenizer."""

    @property
    def size(self) -> int:
        """The number of ids, the blank included: the width V of an output layer."""

    def encode(self, text: str) -> list[int]:
        """Ids in 1 … size-1."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; blanks are silent. Raises LookupError for an id outside 0 … size-1."""

    def spelling(self) -> list[bytes]:
        """The UTF-8 bytes of every id; none for the blank."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into an existing or new folder."""


class BytesConfig(BaseModel):
    """UTF-8 bytes: 257 ids, every text of every language, nothing to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["bytes"] = "bytes"


class CharactersConfig(BaseModel):
    """One id per code point of the training texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["characters"] = "characters"
    unknown: bool = Field(
        default=False, description="map all other characters to one id (U+FFFD) instead of refusing them"
    )


class SentencePieceConfig(BaseModel):
    """Pieces learned from the training texts, with bytes for what they do not cover."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["sentencepiece"] = "sentencepiece"
    size: int = Field(default=1024, ge=258, description="largest number of ids, blank and 256 bytes included")
    model: Literal["unigram", "bpe"] = Field(default="unigram", description="algorithm that chooses the pieces")
    coverage: float = Field(
        default=1.0,
        ge=0.98,
        le=1,
        description="share of character occurrences covered by pieces; the rest become bytes",
    )


TokenizerConfig = Annotated[BytesConfig | CharactersConfig | SentencePieceConfig, Field(discriminator="kind")]


class ByteTokenizer:
    """UTF-8 bytes as ids 1 … 256; a sequence that is not UTF-8 decodes with U+FFFD in its place."""

    size = 257

    def encode(self, text: str) -> list[int]:
        return [byte + 1 for byte in text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> str:
        _check_range(ids, self.size)
        return bytes(i - 1 for i in ids if i != BLANK).decode("utf-8", errors="replace")

    def spelling(self) -> list[bytes]:
        return [b"", *(bytes([byte]) for byte in range(256))]

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.json", {"kind": "bytes"})


class CharacterTokenizer:
    """One id per character of an inventory.

    symbols: distinct single characters; symbol i has id i + 1. If U+FFFD is among them, every other
    character gets its id (logged once each); otherwise such a character is an error.
    """

    def __init__(self, symbols: Sequence[str]):
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols, start=1)}
        if len(self._ids) != len(self.symbols) or any(len(symbol) != 1 for symbol in self.symbols):
            raise IsoglossError("A character inventory must list distinct single characters; rebuild it.")
        self._logged: set[str] = set()

    @classmethod
    def build(cls, config: CharactersConfig, texts: Iterable[str]) -> "CharacterTokenizer":
        """The sorted inventory of the texts."""
        inventory = {character for text in texts for character in text}
        if not inventory:
            raise IsoglossError("A character tokenizer needs training text; the texts given are empty.")
        return cls(sorted(inventory | ({UNKNOWN} if config.unknown else set())))

    def extended(self, texts: Iterable[str]) -> "CharacterTokenizer":
        """With the characters of more texts behind its own, whose ids stay."""
        return CharacterTokenizer([*self.symbols, *self.unknown("".join(texts))])

    @property
    def size(self) -> int:
        return len(self.symbols) + 1

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of a text that are not in the inventory, sorted."""
        return sorted({character for character in text if character not in self._ids})

    def encode(self, text: str) -> list[int]:
        if missing := self.unknown(text):
            self._meet_unknown(missing, text)
        return [self._ids.get(character) or self._ids[UNKNOWN] for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        _check_range(ids, self.size)
        return "".join(self.symbols[i - 1] for i in ids if i != BLANK)

    def spelling(self) -> list[bytes]:
        return [b"", *(symbol.encode() for symbol in self.symbols)]

    def save(self, folder: Path) -> None:
        write_json(folder / "tokenizer.json", {"kind": "characters", "symbols": list(self.symbols)})

    def _meet_unknown(self, missing: list[str], text: str) -> None:
        names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in missing)
        if UNKNOWN not in self._ids:
            raise IsoglossError(
                f"The tokenizer does not know {names} in {text[:60]!r}; "
                "add such text to its training texts, allow `unknown`, or use bytes."
            )
        if new := set(missing) - self._logged:
            self._logged |= new
            _log.warning("The tokenizer does not know %s; read as %s.", names, UNKNOWN)


class SentencePieceTokenizer:
    """A sentencepiece model (Kudo and Richardson 2018) with byte fallback and no text changes of its own.

    proto: the bytes of a model trained by `build`: its unknown piece, which byte fallback never emits,
    holds id 0 and so leaves it to the blank.
    """

    def __init__(self, proto: bytes):
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except RuntimeError:
            raise IsoglossError("tokenizer.model is no sentencepiece model; restore or rebuild it.") from None
        self._proto = proto
        # "▁" is sentencepiece's sign for a space; the character itself is spelled in bytes.
        self._underline = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in "▁".encode()]
        if self._processor.unk_id() != BLANK or BLANK in self._underline:
            raise IsoglossError("tokenizer.model has no place for a blank or no bytes; rebuild the tokenizer.")

    @classmethod
    def build(cls, config: SentencePieceConfig, texts: Iterable[str]) -> "SentencePieceTokenizer":
        """Train in memory, on one thread so that the same texts give the same model."""
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(text for text in texts if text),
                model_writer=model,
                model_type=config.model,
                vocab_size=config.size,
                hard_vocab_limit=False,  # A small corpus gives fewer pieces instead of an error.
                character_coverage=config.coverage,
                required_chars="▁",  # Else texts without spaces give a model that reads a space back as "▁".
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                max_sentence_length=1 << 16,
                num_threads=1,
                unk_id=BLANK,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise IsoglossError(_training_failure(error, config)) from None
        return cls(model.getvalue())

    @property
    def size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        first, *others = text.split("▁")
        ids: list[int] = self._processor.encode(first)
        for part in others:
            ids += [*self._underline, *self._processor.encode(part)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        _check_range(ids, self.size)
        return str(self._processor.decode([i for i in ids if i != BLANK]))

    def spelling(self) -> list[bytes]:
        pieces = [self._processor.id_to_piece(i) for i in range(1, self.size)]
        alone = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
        return [b"", *(alone.get(piece) or piece.replace("▁", " ").encode() for piece in pieces)]

    def save(self, folder: Path) -> None:
        with atomic_file(folder / "tokenizer.model") as temporary:
            temporary.write_bytes(self._proto)
        write_json(folder / "tokenizer.json", {"kind": "sentencepiece"})


def build_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer that a configuration describes, learned from texts where there is something to learn."""
    match config:
        case BytesConfig():
            return ByteTokenizer()
        case CharactersConfig():
            return CharacterTokenizer.build(config, texts)
        case SentencePieceConfig():
            return SentencePieceTokenizer.build(config, texts)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read what `save` wrote; raises IsoglossError if a file is missing, broken or of an unknown kind."""
    path = folder / "tokenizer.json"
    value: Any = read_json(path)
    kind = value.get("kind") if isinstance(value, dict) else None
    loaders: dict[str, Callable[[], Tokenizer]] = {
        "bytes": ByteTokenizer,
        "characters": partial(_load_characters, path, value),
        "sentencepiece": partial(_load_sentencepiece, folder / "tokenizer.model"),
    }
    if not isinstance(kind, str) or kind not in loaders:
        raise IsoglossError(f'{path} holds a tokenizer of unknown kind "{kind}".{did_you_mean(str(kind), loaders)}')
    return loaders[kind]()


def digest(folder: Path) -> str:
    """SHA-256 over the tokenizer's files in a folder: equal digests mean equal symbols."""
    files = sorted(folder.glob("tokenizer.*"))
    return hashlib.sha256("".join(f"{file.name} {sha256(file)}\n" for file in files).encode()).hexdigest()


def _load_characters(path: Path, value: dict[str, Any]) -> CharacterTokenizer:
    symbols = value.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise IsoglossError(f"{path} has no list of symbols; restore or rebuild it.")
    return CharacterTokenizer(symbols)


def _load_sentencepiece(path: Path) -> SentencePieceTokenizer:
    try:
        return SentencePieceTokenizer(path.read_bytes())
    except OSError as error:
        raise IsoglossError(f"Cannot read {path}: {error.strerror}.") from None


def _check_range(ids: Sequence[int], size: int) -> None:
    if any(not 0 <= i < size for i in ids):
        raise LookupError(f"token ids must be in 0 … {size - 1}")


def _training_failure(error: RuntimeError, config: SentencePieceConfig) -> str:
    if "required_chars" in str(error):
        return (
            f"size {config.size} is too small for the characters of the training texts; "
            "raise `size` or lower `coverage`."
        )
    if "sentences_.empty()" in str(error):
        return "A sentencepiece tokenizer needs training text; the texts given are empty."
    return f"sentencepiece could not learn from these texts: {error}."
