"""`isogloss prepare`: a named corpus or the user's own speech becomes one folder ready to train on.

    source ── Utterances ── headers read ── long speech segmented ── splits drawn and checked ── DIR

The folder appears whole or not at all; what was left out, and why, is counted on its card.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isogloss.audio.channels import Channel
from isogloss.data.corpus import Corpus
from isogloss.data.fetch import cache_folder, fetch_packages
from isogloss.data.finding import Aside
from isogloss.data.importers import read_source
from isogloss.data.intake import Given, Intake, Progress, Rules
from isogloss.data.manifests import (
    CARD,
    TEXT,
    Utterance,
    count_cuts,
    fingerprint,
    language_of,
    source_of,
    split_of,
    text_of,
    write_card,
    write_cuts,
)
from isogloss.data.recipes import all_corpora
from isogloss.data.rows import language_named
from isogloss.data.splits import assign_splits, check_splits, find_leaks, held_out_texts
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.files import atomic_folder, require_new
from isogloss.text.corpus import clean_text, read_text_lines, write_text_lines
from isogloss.text.languages import normalise_language
from isogloss.text.normalise import NORMALISER_VERSION

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def prepare(
    source: str,
    out: Path,
    *,
    language: str | None = None,
    languages: Sequence[str] | None = None,
    split_by: str = "text",
    dev: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    max_seconds: float = 30.0,
    max_bad: float = 0.01,
    channel: Channel | Literal["each"] = "mix",
    tiers: Sequence[str] = (),
    text: Sequence[Path] = (),
    cache: Path | None = None,
    words: bool = False,
    allow_leak: bool = False,
    overwrite: bool = False,
    processes: int = 0,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the corpus folder `out` (see `manifests`) and return its card.

    source: the name of a corpus that can be fetched, NAME=FOLDER for one the user has, or a path
    (see `importers`). language: of clips that do not say theirs; languages: keep only these, which
    changes nothing about what is drawn for dev and test.
    split_by, dev, test, seed: see `splits.assign_splits`; splits that the corpus has are kept.
    max_seconds: longer clips are dropped if transcribed, else segmented by voice activity.
    max_bad: the share of broken clips above which it stops. channel: of recordings that do not say which is meant;
    "each" makes a clip of every one, where there is no transcript. tiers: of annotations, those to take (see
    `tiers.choose`). text: files of unspoken text to add, less what is said in dev and test. words: drop transcribed
    clips whose text is a single letter or has figures, which are not spelled as they are spoken. allow_leak: keep
    standard splits that share texts (public corpora: always, and the card says so). processes: that read the audio,
    beside this one; the result is the same. on_progress: told a stage and how much of it is done.

    Raises IsoglossError; nothing is then written.
    """
    if language is not None:
        language = normalise_language(language)
    out = out.expanduser().absolute()
    require_new(out, overwrite)
    wanted = {normalise_language(tag) for tag in languages} if languages else None
    advance = on_progress or (lambda stage, done: None)
    given = resolve(source, language, cache, progress=on_progress is not None, tiers=tiers)
    if missing := [path for path in text if not path.is_file()]:
        raise IsoglossError(f"{missing[0]} is no file; give a file of sentences.")
    with atomic_folder(out, CARD) as folder:
        intake = Intake(Rules(folder, out, max_seconds, wanted, channel, words))
        cuts = sorted(intake.cuts(given, advance, processes), key=lambda cut: cut.id)
        intake.refuse_if_broken(source, max_bad)
        intake.refuse_if_nothing(source, cuts)
        cuts, leaks = _split(cuts, intake, split_by, (dev, test), seed, allow_leak or given.kind == "public")
        write_cuts(folder, cuts)
        lines = _write_text(folder, text, language, cuts)
        card = {
            "name": given.name,
            "title": given.title,
            "source": source,
            "licence": given.licence,
            "sources": dict(sorted(Counter(source_of(cut) for cut in cuts).items())),
            "clips": len(cuts),
            "transcribed": sum(text_of(cut) is not None for cut in cuts),
            "hours": round(sum(cut.duration for cut in cuts) / 3600, 4),
            "languages": count_cuts(cuts),
            "dropped": dict(sorted(intake.dropped.items())),
            "broken": {cause: len(messages) for cause, messages in sorted(intake.broken.items())},
            "aside": intake.aside.plain(),
            "text": lines,
            "notes": given.notes,
            "splits": {"by": split_by, "dev": dev, "test": test, "seed": seed, "leaks": leaks},
            "max_seconds": max_seconds,
            "channel": channel,
            "words": words,
            "normaliser": NORMALISER_VERSION,
            "fingerprint": fingerprint(cuts),
        }
        write_card(folder, card)
    return card


def resolve(
    source: str,
    language: str | None = None,
    cache: Path | None = None,
    progress: bool = False,
    tiers: Sequence[str] = (),
) -> Given:
    """Find what `source` means: a corpus to fetch, NAME=FOLDER, or a path. Fetches Debian packages.

    Raises IsoglossError for what is none of them, with the nearest corpus name.
    """
    known = all_corpora()
    name, _, place = source.partition("=")
    path = Path(source).expanduser()
    if name in known:
        corpus = known[name]
        root, notes = _root(corpus, place, cache or cache_folder(), progress)
        return Given(
            name,
            corpus.title,
            corpus.licence,
            corpus.kind,
            lambda scratch, dropped, _: corpus.read(root, scratch, dropped),
            notes,
        )
    if path.exists():
        own = path.resolve().name.partition(".")[0]

        def read(scratch: Path, dropped: Counter[str], aside: Aside) -> Iterator[Utterance]:
            return read_source(path, language, scratch, aside, tiers)

        return Given(own, str(path), "", "own", read, [])
    near = did_you_mean(name, [*known, *(file.name for file in path.absolute().parent.glob("*"))])
    raise IsoglossError(
        f"{source} is neither a file, a folder nor a known corpus.{near} "
        "List the corpora with: isogloss corpora"
    )


def _root(corpus: Corpus, place: str, cache: Path, progress: bool) -> tuple[Path, list[str]]:
    """The folder a corpus is read from, and what could not be had for it."""
    if place:
        root = Path(place).expanduser().absolute()
        if not root.is_dir():
            raise IsoglossError(f"{root}, given for {corpus.name}, is no folder.")
    elif corpus.kind == "debian":
        fetch_packages(corpus.packages, cache, progress)
        return cache, []
    else:
        raise IsoglossError(f"{corpus.name} is not fetched; give its folder with {corpus.name}=FOLDER.")
    if corpus.kind == "local":
        try:
            fetch_packages(corpus.packages, cache, progress)
        except IsoglossError as error:
            return root, [f"prepared without {', '.join(corpus.packages)}, which adds text: {error}"]
    return root, []


def _split(
    cuts: list["MonoCut"],
    intake: Intake,
    by: str,
    shares: tuple[float, float],
    seed: int,
    allow_leak: bool,
) -> tuple[list["MonoCut"], list[str]]:
    """The cuts to keep with their splits, and leaks that were allowed."""
    had_splits = any(map(split_of, cuts))
    splits = assign_splits(cuts, by, *shares, seed)
    wanted = [cut for cut in cuts if intake.keeps(language_of(cut))]
    kept = [cut for cut in wanted if cut.id in splits]
    if len(kept) < len(wanted):
        intake.dropped["text is held out"] += len(wanted) - len(kept)
    for cut in kept:
        cut.custom["split"] = splits[cut.id]
    if had_splits and allow_leak:
        return kept, find_leaks(kept, by)
    check_splits(kept, by)
    return kept, []


def _write_text(
    folder: Path, files: Sequence[Path], language: str | None, cuts: list["MonoCut"]
) -> dict[str, int]:
    """Write the unspoken text less what dev and test say; its line, name or `language` tell the language."""
    if not files:
        return {}
    counts: Counter[str] = Counter()
    lines = chain.from_iterable(read_text_lines(file, language_named(file) or language) for file in files)
    if not write_text_lines(clean_text(lines, counts, exclude=held_out_texts(cuts)), folder / TEXT):
        names = ", ".join(map(str, files))
        raise IsoglossError(f"{names}: no sentence is left that dev and test do not say; give others or none.")
    return dict(counts)
