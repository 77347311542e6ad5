"""Probes: how well a linear classifier reads something off a representation that stays as it is.

    audio ─ representation ─ layers h_l ─ Σ_l softmax(w)_l h_l ─┬─ of each frame ── linear ─> phone
                                                                └─ mean over frames ─ linear ─> language, speaker …

The protocol is SUPERB's (Yang et al. 2021, arXiv 2105.01051): the representation is frozen, w begins at 0, and the
learning rate alone is searched, on the dev clips, over a fixed grid, for every representation alike. A mean over frames
and a linear layer may change places, so that of clips only the means are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isogloss.data.clips import Clips, joined, open_corpus
from isogloss.data.manifests import SPLITS, concept_of, hash_of, language_of, speaker_of
from isogloss.errors import IsoglossError, did_you_mean
from isogloss.evaluation.data import Data
from isogloss.evaluation.figures import figure
from isogloss.evaluation.representations import Representation
from isogloss.evaluation.table import Lines, Measure, Row, Table
from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.sequence import Sequence as Padded
from isogloss.text.languages import normalise_language

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
STEPS, BATCH = 1000, 256
PHONES = "phones"
OF_CLIPS: dict[str, Callable[[MonoCut], str | None]] = {
    "language": language_of,
    "speaker": speaker_of,
    "concept": lambda cut: concept_of(cut) or None,
}
"""What is read off a clip as a whole."""
TASKS = (PHONES, *OF_CLIPS)
OWN_SPLIT = {"speaker"}
"""Whose classes corpora may keep apart: dev and test clips are then chosen anew, by their ids."""


@dataclass(frozen=True)
class Examples:
    """layers: (N, L, D) float16 of N frames or clips. classes, clips: (N,) which class, and of which clip each is."""

    layers: Tensor
    classes: Tensor
    clips: Tensor

    def __len__(self) -> int:
        return len(self.classes)


class Parts(NamedTuple):
    """The clips a probe is fitted to, chosen on, and measured on."""

    train: list[MonoCut]
    dev: list[MonoCut]
    test: list[MonoCut]


class Probed(NamedTuple):
    """Of a probe: how many right and of how many, by clip of the test part; and the layers' weights."""

    right: np.ndarray
    totals: np.ndarray
    weights: list[float]
    rate: float


def probe(
    representations: Sequence[Representation],
    tasks: Sequence[str],
    parts: Parts,
    *,
    seeds: int = 3,
    steps: int = STEPS,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[Table]:
    """A table of all tasks and representations, and one of the weights of layers.

    on_progress: told what is read, clips done and clips in all. Raises IsoglossError for an unknown task, and where the
    clips do not say what a task asks for.
    """
    rows: list[Row] = []
    layers: list[Row] = []
    for task in tasks:
        if task not in TASKS:
            raise IsoglossError(f'There is no probe "{task}".{did_you_mean(task, TASKS)} Known: {", ".join(TASKS)}.')
        own = labelled(task, divided(parts) if task in OWN_SPLIT else parts)
        names = sorted(set().union(*(said_of(task, cut) for cut in own.train)))
        for one in representations:
            said = f"{task} in {one.name}"
            train, dev, test = (gather(one, task, cuts, names, partial(on_progress, said)) for cuts in own)
            found = measure(train, dev, test, len(names), seeds, steps)
            rows.append(_row(task, one.name, found, train, test, len(names)))
            layers += [
                Row(
                    keys={"task": task, "representation": one.name, "layer": str(number)},
                    figures={"weight": figure(weight, len(train))},
                )
                for number, weight in enumerate(found.weights)
            ]
    return [_table(rows, seeds), _layers(layers)]


def parts_of(data: Sequence[Path], other: Sequence[Path] = (), languages: Sequence[str] | None = None) -> Parts:
    """The splits of prepared corpora, in some languages; where there are `other` corpora, all of their clips for test.
    """
    wanted = None if languages is None else {normalise_language(tag) for tag in languages}

    def opened(folders: Sequence[Path]) -> Clips:
        clips = joined([open_corpus(folder) for folder in folders])
        return clips.select(clips.of_languages(lambda tag: wanted is None or tag in wanted))

    clips = opened(data)
    train, dev, test = (clips.select(clips.in_split(split)) for split in SPLITS)
    return Parts(list(train), list(dev), list(opened(other) if other else test))


def divided(parts: Parts) -> Parts:
    """All clips anew, eight tenths, one and one, by hashes of their ids."""
    every = [cut for cuts in parts for cut in cuts]
    tenths = [abs(hash_of(cut.id)) % 10 for cut in every]

    def some(wanted: range) -> list[MonoCut]:
        return [cut for cut, tenth in zip(every, tenths, strict=True) if tenth in wanted]

    return Parts(some(range(8)), some(range(8, 9)), some(range(9, 10)))


def labelled(task: str, parts: Parts) -> Parts:
    """The clips that say what a task asks for, dev and test clips only if training clips say so too."""
    train = [cut for cut in parts.train if said_of(task, cut)]
    known = set().union(*(said_of(task, cut) for cut in train))
    dev, test = ([cut for cut in cuts if said_of(task, cut) & known] for cuts in parts[1:])
    if len(known) < 2 or not dev or not test:
        raise IsoglossError(
            f"The clips cannot be probed for {task}: {len(known)} classes in {len(train)} training clips, {len(dev)} "
            f"dev and {len(test)} test clips with one of them; give corpora with two classes and clips in all parts."
        )
    return Parts(train, dev, test)


def said_of(task: str, cut: MonoCut) -> set[str]:
    """The classes that a clip has examples of."""
    if task == PHONES:
        return {phone.symbol for phone in (cut.supervisions[0].alignment or {}).get("phone", [])}
    found = OF_CLIPS[task](cut)
    return set() if found is None else {found}


def gather(
    one: Representation,
    task: str,
    cuts: Sequence[MonoCut],
    names: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> Examples:
    """The examples of clips: of each its frames, or their mean."""
    number = {name: place for place, name in enumerate(names)}
    layers: list[Tensor] = []
    classes: list[Tensor] = []
    clips: list[Tensor] = []
    for group in Data(list(cuts), on_progress=on_progress).read(cuts):
        found = one.layers(Padded.from_list([torch.from_numpy(clip) for _, clip in group]))
        by_clip = zip(*(layer.unpad() for layer in found), strict=True)
        for (cut, _), states in zip(group, by_clip, strict=True):
            stacked = torch.stack(states, dim=1).float().cpu()  # (T, L, D)
            if not len(stacked):
                continue
            if task == PHONES:
                places = phones_of(cut, len(stacked), one.frame_seconds, number)
            else:
                (name,) = said_of(task, cut)
                stacked, places = stacked.mean(dim=0, keepdim=True), torch.tensor([number[name]])
            known = places >= 0
            layers.append(stacked[known].half())
            classes.append(places[known])
            clips.append(torch.full((int(known.sum()),), len(clips)))
    return Examples(torch.cat(layers), torch.cat(classes), torch.cat(clips))


def phones_of(cut: MonoCut, frames: int, frame_seconds: float, number: dict[str, int]) -> Tensor:
    """The phone in the middle of each frame, (T,); -1 where there is none, or one that training clips lack."""
    found = torch.full((frames,), -1)
    for phone in cut.supervisions[0].alignment["phone"]:
        first, last = (max(0, round(at / frame_seconds)) for at in (phone.start, phone.start + phone.duration))
        found[first:last] = number.get(phone.symbol, -1)
    return found


def measure(train: Examples, dev: Examples, test: Examples, classes: int, seeds: int, steps: int) -> Probed:
    """Choose the learning rate on dev examples, and measure on test examples; right answers are means over seeds."""
    share = [float(right(fit(train, classes, rate, 0, steps), dev).mean()) for rate in RATES]
    rate = RATES[int(np.argmax(share))]
    fitted = [fit(train, classes, rate, seed, steps) for seed in range(seeds)]
    hits = torch.stack([right(one, test) for one in fitted]).mean(dim=0).double()
    count = int(test.clips.max()) + 1
    totals = torch.bincount(test.clips, minlength=count)
    weights = torch.stack([one.mix() for one in fitted]).mean(dim=0)
    return Probed(torch.bincount(test.clips, hits, count).numpy(), totals.numpy(), weights.tolist(), rate)


class Probe(nn.Module):
    """Σ_l softmax(w)_l h_l, then a linear layer: (M, L, D) -> logits (M, C)."""

    def __init__(self, layers: int, width: int, classes: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.output = nn.Linear(width, classes)

    def mix(self) -> Tensor:
        """How much each layer counts, (L,)."""
        return self.weights.detach().softmax(dim=0)

    def forward(self, layers: Tensor) -> Tensor:
        found: Tensor = self.output(torch.einsum("l,nld->nd", self.weights.softmax(dim=0), layers.float()))
        return found


def fit(train: Examples, classes: int, rate: float, seed: int, steps: int) -> Probe:
    """A probe after so many steps of Adam on batches of `BATCH` examples, its rate falling to 0 linearly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, layers, width = train.layers.shape
        made = Probe(layers, width, classes)
        optimizer = torch.optim.Adam(made.parameters(), lr=rate)
        for step in range(steps):
            chosen = torch.randint(len(train), (min(BATCH, len(train)),))
            loss = cross_entropy(made(train.layers[chosen]), train.classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            optimizer.step()
    return made


@torch.inference_mode()
def right(made: Probe, examples: Examples) -> Tensor:
    """Which examples are recognised, (N,) float."""
    pieces = zip(examples.layers.split(4096), examples.classes.split(4096), strict=True)
    return torch.cat([(made(layers).argmax(dim=1) == classes).float() for layers, classes in pieces])


def _row(task: str, name: str, found: Probed, train: Examples, test: Examples, classes: int) -> Row:
    most = Counter(train.classes.tolist()).most_common(1)[0][0]
    trivial = {"chance": 1 / classes, "most frequent": float((test.classes == most).float().mean())}
    interval = bootstrap_interval(found.right, found.totals)
    share = float(found.right.sum() / found.totals.sum())
    return Row(
        keys={"task": task, "representation": name},
        figures={
            "accuracy": figure(share, len(found.totals), interval, trivial),
            "classes": figure(classes, len(train)),
            "learning rate": figure(found.rate, len(train)),
        },
    )


def _table(rows: Sequence[Row], seeds: int) -> Table:
    return Table(
        task="probe",
        title="Linear probes",
        about="A linear layer on a learned mean of the layers of a frozen representation. The learning rate is the "
        f"best of {len(RATES)} on dev clips; answers are means over {seeds} seeds. Phones are told apart frame by "
        "frame, all else from the mean of a clip's frames.",
        keys=("task", "representation"),
        measures=(
            Measure(
                name="accuracy",
                about="share of test frames or clips that are recognised",
                better="higher",
                spread="95 % interval of the bootstrap over clips",
            ),
            Measure(name="classes", about="how many there are", unit="", better=None),
            Measure(name="learning rate", about="the one chosen", unit="", better=None, minor=True),
        ),
        rows=tuple(rows),
        pictures=(),
    )


def _layers(rows: Sequence[Row]) -> Table:
    return Table(
        task="probe_layers",
        title="Layers of the probes",
        about="How much each layer counts in the mean that a probe has learned; all together make 1. Layers of larger "
        "states count more than their weights say.",
        items="examples",
        keys=("task", "representation", "layer"),
        measures=(Measure(name="weight", about="share of the layer", unit="", better=None),),
        rows=tuple(rows),
        pictures=(Lines(measure="weight", over="layer"),),
    )
