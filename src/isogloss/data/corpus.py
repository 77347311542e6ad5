"""`Corpus`: what is known of a corpus before it is read."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isogloss.data.manifests import Utterance

# (root, scratch, dropped) -> utterances. root holds the unpacked packages, one folder each, or is the
# user's own copy of a local or public corpus; scratch takes audio that had to be converted to FLAC;
# dropped counts, by cleaning rule, the clips that were left out.
Reader = Callable[[Path, Path, Counter[str]], Iterator[Utterance]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is known of a corpus, and the function that reads it.

    kind: "debian" (fetched by package), "local" (the user gives the folder of a clone) or "public"
    (the user gives the folder of a public corpus). languages: BCP 47 tags. minutes: of speech that the
    recipe yields, before silence is trimmed; None where it depends on the release.
    packages: Debian packages; a local corpus works without them and only gains text by them.
    """

    name: str
    title: str
    kind: Literal["debian", "local", "public"]
    languages: tuple[str, ...]
    minutes: float | None
    speakers: str
    text: str
    licence: str
    packages: tuple[str, ...]
    read: Reader
