"""Which utterances are trained on, in which order: a pure function of a seed and a position.

A round draws as many utterances as the corpus has, or `ROUND` of a larger one, languages in proportion to a
temperature, each language from its own endless sequence of permutations, so that between rounds no utterance of a
language is drawn two times more than another. The draws are sorted into batches of similar duration, and the batches
shuffled. Since nothing but (round, index) is remembered, resuming is exact and costs one round, and every process of a
group computes the same plan.

Of a corpus in shards the shards are permuted, and then the clips of each, so that a round reads few of them. They are
dealt to as many lanes as a step has micro-batches: batch i is of lane i modulo lanes, and a process that takes some of
a step's micro-batches reads the shards of their lanes and no others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
ROUND = 2**15
"""Utterances in a round of a larger corpus, or in each lane of a round an eighth of so many."""
SPREAD = 8
"""Shards that each lane has in a round, at least: with fewer the lanes would be of unlike length."""


@dataclass(frozen=True)
class Position:
    """How far a plan has been read: batch `index` of round `round` comes next."""

    round: int = 0
    index: int = 0


def shares(sizes: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """p_l ∝ (n_l / N)^(1/T): 1 is natural, larger is flatter (USM uses T = 3 for text)."""
    weight = (sizes / sizes.sum()) ** (1.0 / temperature)
    return weight / weight.sum()


class BatchPlan:
    """Batches of utterance indices, each at most `batch_seconds` of padded audio.

    durations: (N,) seconds. groups: (N,) what is balanced, as small integers: usually language,
    or corpus and language. weights: relative weight by group, beside the temperature. shards: (N,) the file in which an
    utterance lies among others, -1 for none. lanes: among how many the shards of a round are dealt.
    """

    def __init__(
        self,
        durations: NDArray[np.float64],
        groups: NDArray[np.integer],
        *,
        batch_seconds: float,
        temperature: float = 1.0,
        weights: NDArray[np.float64] | None = None,
        shards: NDArray[np.integer] | None = None,
        lanes: int = 1,
        seed: int = 0,
    ):
        self.durations = durations
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.lanes = lanes
        self.shards = np.full(len(durations), -1, dtype=np.int32) if shards is None else shards
        self._last: tuple[int, list[Indices]] | None = None
        present, place = np.unique(groups, return_inverse=True)
        self.members = [self._in_shards(np.flatnonzero(groups == group)) for group in present]
        hours = np.bincount(place, durations)
        share = shares(np.asarray(hours, np.float64), temperature) * (1.0 if weights is None else weights[present])
        # A group's share is of time; its draws are clips, hence the division by its mean duration.
        clips = share / (hours / np.bincount(place))
        most = min(len(durations), max(ROUND, lanes * ROUND // 8))
        self.quotas = np.maximum(1, np.round(clips / clips.sum() * most)).astype(np.int64)

    def round(self, number: int) -> list[Indices]:
        """All batches of a round."""
        chosen = np.concatenate([self._draw(group, number) for group in range(len(self.members))])
        lanes = [self._batches(part, number, lane) for lane, part in enumerate(self._dealt(chosen))]
        # What the longer lanes have more is left to later rounds.
        return [batch for together in zip(*lanes, strict=False) for batch in together]

    def batches(self, position: Position) -> Iterator[tuple[Indices, Position]]:
        """Batches from a position on, without end, each with the position that follows it."""
        number, index = position.round, position.index
        while True:
            batches = self._remembered(number)
            for following in range(index + 1, len(batches) + 1):
                yield batches[following - 1], Position(number, following)
            number, index = number + 1, 0

    def _remembered(self, number: int) -> list[Indices]:
        """`round`, without computing it again for each step."""
        if self._last is None or self._last[0] != number:
            self._last = (number, self.round(number))
        return self._last[1]

    def _in_shards(self, member: Indices) -> list[Indices]:
        """The utterances of a group by shard, those that lie by themselves together."""
        shards = self.shards[member]
        member = member[np.argsort(shards, kind="stable")]
        return np.split(member, np.flatnonzero(np.diff(np.sort(shards))) + 1)

    def _draw(self, group: int, number: int) -> Indices:
        """Round `number` of a group: its next `quota` utterances in an endless chain of permutations."""
        size, quota = sum(map(len, self.members[group])), int(self.quotas[group])
        first, last = number * quota, (number + 1) * quota
        passes = range(first // size, (last - 1) // size + 1)
        return np.concatenate([self._stretch(group, n, first - n * size, last - n * size) for n in passes])

    def _stretch(self, group: int, number: int, first: int, last: int) -> Indices:
        """What there is of places [first, last) of a permutation of a group; only shards in it are permuted."""
        shards = self.members[group]
        order = np.random.default_rng([self.seed, 0, group, number]).permutation(len(shards))
        ends = np.cumsum([len(shards[shard]) for shard in order])
        chosen = []
        begin, end = np.searchsorted(ends, [max(first, 0), min(last, ends[-1]) - 1], side="right")
        for place in range(begin, end + 1):
            shard = shards[order[place]]
            drawn = np.random.default_rng([self.seed, 0, group, number, order[place]]).permutation(shard)
            start = ends[place] - len(shard)
            chosen.append(drawn[max(first - start, 0) : last - start])
        return np.concatenate(chosen)

    def _dealt(self, chosen: Indices) -> list[Indices]:
        """The utterances of each lane, about as long together; all in one where a round has few shards."""
        own = self.shards[chosen]
        shards, place = np.unique(own, return_inverse=True)
        if self.lanes == 1 or (shards >= 0).sum() < SPREAD * self.lanes:
            return [chosen]
        seconds = np.bincount(place, self.durations[chosen])
        lane_of, filled = np.zeros(len(shards), dtype=np.int64), np.zeros(self.lanes)
        for shard in np.argsort(-seconds, kind="stable"):
            if shards[shard] >= 0:
                lane_of[shard] = np.argmin(filled)
                filled[lane_of[shard]] += seconds[shard]
        lanes = np.where(own >= 0, lane_of[place], np.arange(len(chosen)) % self.lanes)
        return [chosen[lanes == lane] for lane in range(self.lanes)]

    def _batches(self, chosen: Indices, number: int, lane: int) -> list[Indices]:
        """Utterances sorted into batches of like duration, in a random order."""
        random = np.random.default_rng([self.seed, 1, number, lane])
        # Sorting by a jittered duration keeps padding small and neighbours changing between rounds.
        jitter = random.uniform(0.9, 1.1, len(chosen))
        order = chosen[np.argsort(self.durations[chosen] * jitter, kind="stable")]
        batches = list(self._fill(order))
        return [batches[position] for position in random.permutation(len(batches))]

    def _fill(self, order: Indices) -> Iterator[Indices]:
        """Cut a list of increasing duration where the padded batch would exceed its seconds."""
        start, longest = 0, 0.0
        for end, index in enumerate(order):
            longest = max(longest, float(self.durations[index]))
            if end > start and longest * (end - start + 1) > self.batch_seconds:
                yield order[start:end]
                start, longest = end, float(self.durations[index])
        if start < len(order):
            yield order[start:]
