"""The letters of a CTC head: vocab.json and tokenizer_config.json of transformers beside our tokenizer.

    vocab.json      "<pad>" (the blank), "|" (a space), "<unk>", letters; what else there is writes nothing
"""

from collections.abc import Mapping
from typing import Any

from isogloss.errors import IsoglossError, did_you_mean
from isogloss.text.languages import alpha3
from isogloss.text.tokenizers import UNKNOWN, CharacterTokenizer, Tokenizer

BLANKS = ("<pad>", "[PAD]", "<blank>")
UNKNOWNS = ("<unk>", "[UNK]")
SPACE = "|"
SHOWN = 20
"""Languages of a list that a sentence names."""


def language_of_vocabulary(vocabulary: Mapping[str, Any], adapters: list[str], asked: str | None) -> str | None:
    """The name under which a folder has the letters of a language; None where it has one vocabulary for all.

    vocabulary: vocab.json, by language in MMS. adapters: the names of its adapters. asked: such a name or a BCP 47
    tag. Raises IsoglossError where that is unknown, or where a language must be named.
    """
    known = sorted(name for name, value in vocabulary.items() if isinstance(value, dict)) or adapters
    if not known:
        if asked is not None:
            raise IsoglossError(f'The model has no adapters, and none for "{asked}"; leave out --language.')
        return None
    if asked is None:
        raise IsoglossError(f"The model has letters by language; name one with --language: {_some(known)}.")
    found = asked if asked in known else alpha3(asked)
    if found not in known:
        raise IsoglossError(
            f'The model has no language "{asked}".{did_you_mean(asked, known)} It has {_some(known)}.'
        )
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"


def read_vocabulary(vocabulary: Mapping[str, int], config: Mapping[str, Any]) -> tuple[CharacterTokenizer, list[int]]:
    """Our tokenizer, and the rows of their output layer in its order, blank first.

    config: tokenizer_config.json. Letters become small where that keeps them apart, as our transcripts are. What else
    stands in a vocabulary (marks of beginning and end) is left out, for nothing is written by it.
    """
    blank = next((name for name in BLANKS if name in vocabulary), None)
    if blank is None:
        raise IsoglossError("vocab.json has no <pad>, which CTC uses as its blank; import the model without it.")
    unknown = next((name for name in UNKNOWNS if name in vocabulary), None)
    spelled = {config.get("word_delimiter_token") or SPACE: " "} | ({unknown: UNKNOWN} if unknown else {})
    names = [name for name in vocabulary if len(name) == 1 or name in spelled]
    symbols = [spelled.get(name, name) for name in names]
    small = [symbol.lower() for symbol in symbols]
    if len(set(small)) == len(small) and all(len(symbol) == 1 for symbol in small):
        symbols = small
    return CharacterTokenizer(symbols), [vocabulary[blank], *(vocabulary[name] for name in names)]


def written_vocabulary(tokenizer: Tokenizer | None) -> tuple[dict[str, int], dict[str, Any]] | None:
    """vocab.json, in the order of our symbols, and tokenizer_config.json; None for symbols that are no letters."""
    if not isinstance(tokenizer, CharacterTokenizer):
        return None
    space = " " if SPACE in tokenizer.symbols else SPACE
    spelled = {" ": space, UNKNOWN: UNKNOWNS[0]}
    names = [BLANKS[0], *(spelled.get(symbol, symbol) for symbol in tokenizer.symbols)]
    config = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": BLANKS[0],
        "unk_token": UNKNOWNS[0] if UNKNOWN in tokenizer.symbols else BLANKS[0],
        "word_delimiter_token": space,
        "bos_token": None,
        "eos_token": None,
        "do_lower_case": False,
    }
    return {name: number for number, name in enumerate(names)}, config
