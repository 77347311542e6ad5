"""Train, dev and test: drawn by hash, disjoint in text across languages, in speaker or in source.

Two clips hang together when a test on one could be answered from having trained on the other: they
say the same text (after normalisation, in whatever language), one says a translation of the other,
both have a translation in common, be it into a language that nobody speaks here, or they name the
same concept; with `by="speaker"` or `by="source"`, when they share that. Connected clips form a
group, and a group lies in one split. Groups are ordered by a hash of the seed and their texts, so
neither the order nor the place of the files matters.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from isogloss.data.manifests import (
    SPLITS,
    audio_of,
    concept_of,
    examples,
    language_of,
    source_of,
    speaker_of,
    split_of,
    translations_of,
)
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

KINDS = ("text", "speaker", "source")
MIN_TEXTS = 20  # a language with so many distinct texts gets dev and test clips whatever the shares


@dataclass
class Group:
    """Clips that must stay together; `order` is the hash that draws them."""

    order: str
    cuts: list["MonoCut"]
    clips: Counter[str] = field(init=False)
    split: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.clips = Counter(language_of(cut) for cut in self.cuts)
        self.split = min(filter(None, map(split_of, self.cuts)), default=None)


def assign_splits(
    cuts: Sequence["MonoCut"], by: str = "text", dev: float = 0.1, test: float = 0.1, seed: int = 0
) -> dict[str, str]:
    """{clip id: split}; shares are of clips, per language. A split that a clip already has is kept.

    A language always keeps something to train on, unless the shares add up to 1: `test=1` makes a
    corpus that is only tested on.

    With `by="speaker"` or `"source"` a text may stand on both sides. It then stays in test (else
    in dev), and the other clips that say it are left out of the answer: both laws hold.

    Raises IsoglossError for shares above 1, an unknown `by`, clips without a speaker, where many texts are all tied
    together, and where keeping both laws would cost more than half of the training clips.
    """
    if not (dev >= 0 and test >= 0 and dev + test <= 1):
        raise IsoglossError(f"Shares of {dev} dev and {test} test do not add up to at most 1; correct them.")
    groups = _groups(cuts, by, seed)
    # Standard splits are complete as they are: clips without one go with their group or to train.
    if not any(map(split_of, cuts)):
        texts = _texts_per_language(cuts)
        for split, share in (("test", test), ("dev", dev)):
            if share:
                _draw(groups, split, share, texts)
        if by == "text" and 0 < dev + test < 1:
            _require_choice(groups, max(texts.values(), default=0))
    rest = "train" if dev + test < 1 else "test" if test else "dev"
    splits = {cut.id: split_of(cut) or group.split or rest for group in groups for cut in group.cuts}
    return splits if by == "text" else _without_shared_texts(cuts, splits, by)


def check_splits(cuts: Sequence["MonoCut"], by: str = "text") -> None:
    """Raise IsoglossError, with examples, if train, dev and test share a text or what `by` names."""
    leaks = find_leaks(cuts, "text") + (find_leaks(cuts, by) if by != "text" else [])
    if leaks:
        raise IsoglossError(
            f"The splits leak: {len(leaks)} texts{'' if by == 'text' else f' or {by}s'} are in more than one "
            f"({examples(leaks)}). Remove the split column to have them drawn anew, or allow the leak."
        )


def find_leaks(cuts: Sequence["MonoCut"], by: str = "text") -> list[str]:
    """Each key that stands in more than one split, as `"key" (train: clip, test: clip)`."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for cut, keys in zip(cuts, _keys(cuts, by), strict=True):
        for key in keys:
            places[key].setdefault(split_of(cut) or "train", cut.id)
    leaks = []
    for key, clips in sorted(places.items()):
        if len(clips) > 1:
            where = ", ".join(f"{split}: {clips[split]}" for split in SPLITS if split in clips)
            leaks.append(f'"{key.partition(":")[2]}" ({where})')
    return leaks


def held_out_texts(cuts: Iterable["MonoCut"]) -> set[str]:
    """Normalised texts of all dev and test clips and their translations, which no training text may hold."""
    held_out: set[str] = set()
    for cut in cuts:
        if split_of(cut) in ("dev", "test"):
            held_out.update(_texts(cut))
    return held_out


def _groups(cuts: Sequence["MonoCut"], by: str, seed: int) -> list[Group]:
    """Connected clips, in the order in which they are drawn."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    keys = _keys(cuts, by)
    for own in keys:
        for other in own[1:]:
            parents[root(other)] = root(own[0])
    members: dict[str, list[int]] = defaultdict(list)
    for index, own in enumerate(keys):
        members[root(own[0])].append(index)
    groups = []
    for indices in members.values():
        # Paths differ between machines, so a group without any text is named after its clips.
        names = [key for index in indices for key in keys[index] if not key.startswith("file:")]
        name = min(names or [cuts[index].id for index in indices])
        order = hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()
        groups.append(Group(order, [cuts[index] for index in indices]))
    return sorted(groups, key=lambda group: group.order)


def _keys(cuts: Sequence["MonoCut"], by: str) -> list[list[str]]:
    """What ties each clip to others, at least one key a clip."""
    if by not in KINDS:
        raise IsoglossError(f'Splits go by {", ".join(KINDS)} and not by "{by}".{did_you_mean(by, KINDS)}')
    if by == "source":
        return [[f"source:{source_of(cut)}"] for cut in cuts]
    if by == "speaker":
        return _speaker_keys(cuts)
    return [_text_keys(cut) or [f"file:{audio_of(cut)}"] for cut in cuts]


def _speaker_keys(cuts: Sequence["MonoCut"]) -> list[list[str]]:
    nameless = [cut.id for cut in cuts if not speaker_of(cut)]
    if nameless:
        raise IsoglossError(
            f"{len(nameless)} of {len(cuts)} clips have no speaker ({examples(nameless)}); "
            "name their speakers or split by text."
        )
    return [[f"speaker:{source_of(cut)}/{speaker_of(cut)}"] for cut in cuts]


def _text_keys(cut: "MonoCut") -> list[str]:
    concept = concept_of(cut)
    named = [f"concept:{concept}"] if concept else []
    return [f"text:{text}" for text in dict.fromkeys(_texts(cut))] + named


def _texts(cut: "MonoCut") -> list[str]:
    """What a clip says, in all languages in which that is known, normalised."""
    said = cut.supervisions[0]
    pairs = [(said.language, said.text), *translations_of(cut).items()]
    return [plain for language, text in pairs for plain in _normalised(text, language)]


# A parallel corpus repeats each sentence in the translations of all its readings.
@lru_cache(maxsize=1 << 17)
def _normalised(text: str | None, language: str) -> tuple[str, ...]:
    """The normalised text alone in a tuple, nothing if nothing is left of it."""
    plain = normalise(text, language) if text else ""
    return (plain,) if plain else ()


def _texts_per_language(cuts: Sequence["MonoCut"]) -> dict[str, int]:
    """Distinct texts of each language; a clip without text counts as one of its own."""
    texts: dict[str, set[str]] = defaultdict(set)
    for cut in cuts:
        said = cut.supervisions[0]
        texts[language_of(cut)].update(_normalised(said.text, said.language) or [f"\0{cut.id}"])
    return {language: len(distinct) for language, distinct in texts.items()}


def _draw(groups: list[Group], split: str, share: float, texts: dict[str, int]) -> None:
    """Put free groups into `split` until each language has its share there, or at least one group."""
    clips = Counter(language_of(cut) for group in groups for cut in group.cuts)
    due = Counter(
        {
            language: max(round(share * count), int(texts[language] >= MIN_TEXTS))
            for language, count in clips.items()
        }
    )
    left = Counter(language for group in groups if group.split is None for language in group.clips)
    for group in groups:
        gain = sum(min(count, due[language]) for language, count in group.clips.items())
        # A group that mostly serves languages already served would unbalance them.
        if group.split is None and 0 < gain >= group.clips.total() / 2 and _strips(group, left) == 0:
            group.split = split
            due.subtract(group.clips)
            due = +due
            left.subtract(group.clips.keys())
    served = {language for group in groups if group.split == split for language in group.clips}
    for language in sorted(texts.keys() - served):
        if texts[language] >= MIN_TEXTS:
            _draw_smallest(groups, split, language)


def _require_choice(groups: list[Group], texts: int) -> None:
    """Refuse clips of which none could be held out, though one language has many texts, because all hang together."""
    if texts < MIN_TEXTS or any(group.split for group in groups):
        return
    largest = max(groups, key=lambda group: len(group.cuts)).cuts
    shared = Counter(key for cut in largest for key in _text_keys(cut))
    if shared:  # else they are of one recording
        key, count = shared.most_common(1)[0]
        raise IsoglossError(
            f"{len(largest)} clips hang together by what they say or mean, as {count} of them by "
            f'"{key.partition(":")[2]}", so that none can be held out. Prepare them without translations that stand '
            "for many sentences, or name their splits."
        )


def _draw_smallest(groups: list[Group], split: str, language: str) -> None:
    """Give a language its one group, unless that would leave it nothing to train on."""
    free = [group for group in groups if group.split is None]
    left = Counter(spoken for group in free for spoken in group.clips)
    candidates = [group for group in free if group.clips[language]]
    if len(candidates) > 1:
        min(candidates, key=lambda group: (_strips(group, left), group.clips.total())).split = split


def _strips(group: Group, left: Counter[str]) -> int:
    """How many languages have no other group left to train on."""
    return sum(left[language] <= 1 for language in group.clips)


def _without_shared_texts(cuts: Sequence["MonoCut"], splits: dict[str, str], by: str) -> dict[str, str]:
    """Leave out training (then dev) clips that say a held-out text."""
    keys = dict(zip((cut.id for cut in cuts), _keys(cuts, "text"), strict=True))
    drawn = {cut.id for cut in cuts if split_of(cut) is None}
    test = {key for id, split in splits.items() if split == "test" for key in keys[id]}
    dev = {key for id, split in splits.items() if split == "dev" for key in keys[id]} - test
    forbidden = {"test": set(), "dev": test, "train": test | dev}
    kept = {
        id: split for id, split in splits.items() if id not in drawn or forbidden[split].isdisjoint(keys[id])
    }
    before, after = (sum(split == "train" for split in answer.values()) for answer in (splits, kept))
    if before and after < before / 2:
        raise IsoglossError(
            f"A split by {by} would lose {before - after} of {before} training clips, because their texts "
            "are also held out; split by text, or hold out smaller shares."
        )
    return kept
