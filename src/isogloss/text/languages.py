"""Language tags: whatever a corpus or a user writes becomes one canonical BCP 47 tag.

`langcodes` is imported on first use: it reads tables, and most commands never ask.
"""

from functools import cache
from typing import Any

from isogloss.errors import IsoglossError, did_you_mean


@cache
def normalise_language(tag: str) -> str:
    """The canonical BCP 47 tag (CLDR form) of a tag, an ISO 639 code or an English name.

    `pt_BR` -> `pt-BR`, `ron` -> `ro`, `cmn_hans_cn` -> `zh-Hans-CN`, `iw` -> `he`, `sh` -> `sr-Latn`,
    `Scottish Gaelic` -> `gd`. Where a word is both a code and a name (`Ga`), the code wins. Codes of
    individual languages that CLDR files under their macrolanguage follow it (`arb` -> `ar`).
    Raises IsoglossError for what is neither; it names the nearest English name.
    """
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    word = tag.strip().replace("_", "-")
    try:
        language = langcodes.Language.get(langcodes.standardize_tag(word, macro=True))
        if language.is_valid():
            return language.to_tag()
    except LanguageTagError:
        pass
    named = _code_of_name(tag.strip())
    if named is None:
        hint = did_you_mean(tag.strip().lower(), _english_names().keys())
        raise IsoglossError(
            f'Unknown language "{tag}": give a BCP 47 tag, an ISO 639 code or an English name.{hint}'
        )
    return langcodes.standardize_tag(named, macro=True)


@cache
def language_name(tag: str) -> str:
    """The English name of a language, `pt-BR` -> `Portuguese (Brazil)`; raises as normalise_language."""
    import langcodes

    return langcodes.Language.get(normalise_language(tag)).display_name()


def _code_of_name(name: str) -> str | None:
    # Only exact names: the library's own search also takes a prefix, which reads "Romanain" as Aromanian.
    from language_data.names import get_trie_value, normalize_name

    key = normalize_name(name)
    return str(get_trie_value(_english_names(), key)) if key in _english_names() else None


@cache
def _english_names() -> Any:
    from language_data.names import load_trie
    from language_data.util import data_filename

    return load_trie(data_filename("trie/en/name_to_language.marisa"))
