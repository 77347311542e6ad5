"""Which utterances are trained on, in which order: a pure function of a seed and a position.

Round r draws as many utterances as the corpus has, languages in proportion to a temperature,
each language from its own endless sequence of permutations, so that between rounds no utterance of
a language is drawn two times more than another. The draws are sorted into batches of similar
duration, and the batches shuffled. Since nothing but (round, index) is remembered, resuming is
exact and costs one round, and every process of a group computes the same plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


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
    or corpus and language. weights: relative weight by group, beside the temperature.
    """

    def __init__(
        self,
        durations: NDArray[np.float64],
        groups: Indices,
        *,
        batch_seconds: float,
        temperature: float = 1.0,
        weights: NDArray[np.float64] | None = None,
        seed: int = 0,
    ):
        self.durations = durations
        self.batch_seconds = batch_seconds
        self.seed = seed
        self._last: tuple[int, list[Indices]] | None = None
        self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        hours = np.array([durations[member].sum() for member in self.members])
        share = shares(hours, temperature) * (1.0 if weights is None else weights)
        # A group's share is of time; its draws are clips, hence the division by its mean duration.
        clips = share / np.array([durations[member].mean() for member in self.members])
        self.quotas = np.maximum(1, np.round(clips / clips.sum() * len(durations))).astype(np.int64)

    def round(self, number: int) -> list[Indices]:
        """All batches of a round."""
        chosen = np.concatenate([self._draw(group, number) for group in range(len(self.members))])
        random = np.random.default_rng([self.seed, 1, number])
        # Sorting by a jittered duration keeps padding small and neighbours changing between rounds.
        jitter = random.uniform(0.9, 1.1, len(chosen))
        order = chosen[np.argsort(self.durations[chosen] * jitter, kind="stable")]
        batches = list(self._fill(order))
        return [batches[position] for position in random.permutation(len(batches))]

    def _remembered(self, number: int) -> list[Indices]:
        """`round`, without computing it again for each step."""
        if self._last is None or self._last[0] != number:
            self._last = (number, self.round(number))
        return self._last[1]

    def batches(self, position: Position) -> Iterator[tuple[Indices, Position]]:
        """Batches from a position on, without end, each with the position that follows it."""
        number, index = position.round, position.index
        while True:
            batches = self._remembered(number)
            for following in range(index + 1, len(batches) + 1):
                yield batches[following - 1], Position(number, following)
            number, index = number + 1, 0

    def _draw(self, group: int, number: int) -> Indices:
        """Round `number` of a group: its next `quota` utterances in an endless chain of permutations."""
        member, quota = self.members[group], int(self.quotas[group])
        first, last = number * quota, (number + 1) * quota
        passes = range(first // len(member), (last - 1) // len(member) + 1)
        chain = [np.random.default_rng([self.seed, 0, group, n]).permutation(member) for n in passes]
        start = first - passes.start * len(member)
        return np.concatenate(chain)[start : start + quota]

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
