"""Language tags: whatever a corpus or a user writes becomes one canonical BCP 47 tag.

`langcodes` is imported on first use: it reads tables, and most commands never ask.
"""

from functools import cache, lru_cache
from typing import Any

from isogloss.errors import IsoglossError, did_you_mean

# Corpora mean Portugal as often as Brazil by plain `pt`, so that here the likely region says something too.
_REGION_COUNTS = frozenset({"pt"})


# Not without bound: a server is asked for whatever its clients write.
@lru_cache(4096)
def normalise_language(tag: str) -> str:
    """The canonical BCP 47 tag of a tag in any spelling, an ISO 639 code or an English name: one tag a language.

    `RO`, `ron`, `rum`, `ro_RO`, `ro-Latn`, `Romanian` -> `ro`; `pt_BR` -> `pt-BR`, `zh-TW`, `sr-Latn`, `ro-MD`
    stay. A script and a region that CLDR expects of the language anyway (its likely subtags) go, others stay.
    Withdrawn codes follow CLDR (`iw` -> `he`, `sh` -> `sr-Latn`), as do individual languages that it files under
    their macrolanguage (`arb` -> `ar`, `cmn` -> `zh`). Where a word is both a code and a name (`Ga`), the code wins.
    Raises IsoglossError for an empty word and for what is neither; it names the nearest English name.
    """
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    word = tag.strip()
    if not word:
        raise IsoglossError("The language is empty: give a BCP 47 tag, an ISO 639 code or an English name.")
    try:
        language = langcodes.Language.get(langcodes.standardize_tag(word.replace("_", "-"), macro=True))
        if language.is_valid():
            return _shortest(language)
    except LanguageTagError:
        pass
    named = _code_of_name(word)
    if named is None:
        hint = did_you_mean(word.lower(), _english_names().keys())
        raise IsoglossError(
            f'Unknown language "{tag}": give a BCP 47 tag, an ISO 639 code or an English name.{hint}'
        )
    return _shortest(langcodes.Language.get(langcodes.standardize_tag(named, macro=True)))


def _shortest(language: Any) -> str:
    """The tag without the script and the region that its language has anyway (UTS 35, "Remove Likely Subtags")."""
    whole = language.maximize()
    parts = [("script", "territory"), ("script",), ("territory",)]
    if language.language in _REGION_COUNTS:
        parts = [("script",)]
    for dropped in parts if language.language else []:  # of no language nothing is likely
        shorter = language.update_dict(dict.fromkeys(dropped))
        if shorter.maximize() == whole:
            return str(shorter.to_tag())
    return str(language.to_tag())


@lru_cache(4096)
def language_name(tag: str) -> str:
    """The English name of a language, `pt-BR` -> `Portuguese (Brazil)`; raises as normalise_language."""
    import langcodes

    return langcodes.Language.get(normalise_language(tag)).display_name()


def alpha3(tag: str) -> str:
    """The ISO 639-3 code of a language, `ro` -> `ron`; raises as normalise_language."""
    import langcodes

    return langcodes.Language.get(normalise_language(tag)).to_alpha3()


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
