"""From channels to one: the mean of all, or one of them; and how to tell that the mean is silence.

Two channels out of phase, as a swapped cable gives them, cancel where they are averaged. Channels that have
nothing to do with each other add up in power: the mean of C has the power Σ P_c / C². Where it has less than
a tenth of that, the channels cancel, and a single one is better than all.
"""

import logging
from functools import lru_cache
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.blocks import Block
from isogloss.errors import AudioError, IsoglossError

Channel: TypeAlias = Literal["mix"] | int
"""All channels averaged, or one of them, counted from 1."""

_CANCELLED = 0.1  # of the power that the mean of unrelated channels would have
_LOUD = 0.5  # of the power of the loudest channel; the first channel with that much stands for all
_EVERY = 7  # frames of a block longer than _SHORT tell its powers well enough
_SHORT = 10_000
_ENOUGH = 400  # frames looked at; fewer may cancel by chance
_ROUNDING = 1e-4  # of the power with the offset; variance below it is rounding
_log = logging.getLogger(__name__)


def chosen(channel: Channel | Literal["each"], channels: int) -> list[Channel]:
    """What to read, one after the other, of a recording with so many channels: "each" is a recording a channel."""
    return list(range(1, channels + 1)) if channel == "each" else [channel]


def parse_channel(text: str) -> Channel | Literal["each"]:
    """What the command line says: 1, 2, …, mix or each. Raises IsoglossError for anything else."""
    if text in ("mix", "each"):
        return cast(Literal["mix", "each"], text)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise IsoglossError(f'"{text}" is no channel; give 1, 2, …, mix (all averaged) or each (one recording a channel).')


class Mixer:
    """Makes one channel of several, block by block; `instead` tells afterwards whether that was a mistake.

    Raises AudioError for a channel that is not there.
    """

    def __init__(self, name: str, channel: Channel, channels: int):
        if channel != "mix" and not (isinstance(channel, int) and 1 <= channel <= channels):
            there = "is 1 channel" if channels == 1 else f"are {channels} channels"
            raise AudioError(f"{name} has no channel {channel}: there {there}; give mix or a number.", "unreadable")
        self._channel = channel
        self._sums = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self._count = 0

    def __call__(self, block: Block) -> NDArray[np.float32]:
        """(n, channels) -> (n,)."""
        if block.shape[1] == 1:
            return block[:, 0]
        if self._channel != "mix":
            return np.ascontiguousarray(block[:, self._channel - 1])
        some = np.ascontiguousarray(block[:: _EVERY if len(block) > _SHORT else 1].T)
        with np.errstate(over="ignore", invalid="ignore"):  # samples that are no numbers are refused later
            self._sums += some.sum(axis=1)
            self._products += some @ some.T
        self._count += some.shape[1]
        mixed = block[:, 0].copy()
        for other in range(1, block.shape[1]):
            mixed += block[:, other]
        return mixed / np.float32(block.shape[1])

    @property
    def instead(self) -> int | None:
        """The channel to read instead of the mean where the channels cancel, else None."""
        if self._count < _ENOUGH:
            return None
        squares, means = self._products / self._count, self._sums / self._count
        covariance = squares - np.outer(means, means)  # a constant offset is no sound
        powers = covariance.diagonal()
        heard = powers.sum() > _ROUNDING * squares.trace()
        if not (heard and covariance.sum() < _CANCELLED * powers.sum()):
            return None
        return 1 + int(np.argmax(powers >= _LOUD * powers.max()))


@lru_cache(maxsize=1024)
def warn_of_cancelling(name: str, channel: int) -> None:
    """Say once of each recording that its channels cancel."""
    _log.warning("%s: its channels cancel when averaged (out of phase?); channel %d is read alone.", name, channel)
