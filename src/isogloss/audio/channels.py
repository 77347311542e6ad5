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


def parse_channel(text: str) -> Channel | Literal["each"]:
    """What the command line says: 1, 2, …, mix or each. Raises IsoglossError for anything else."""
    if text in ("mix", "each"):
        return cast(Literal["mix", "each"], text)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise IsoglossError(f'"{text}" is no channel; give 1, 2, …, mix (all averaged) or each (one recording a channel).')


def require_channel(name: str, channel: Channel, channels: int) -> None:
    """Raise AudioError where a recording with so many channels does not have this one."""
    if channel != "mix" and not (isinstance(channel, int) and 1 <= channel <= channels):
        there = "is 1 channel" if channels == 1 else f"are {channels} channels"
        raise AudioError(f"{name} has no channel {channel}: there {there}; give mix or a number.", "unreadable")


class Mixer:
    """Makes one channel of several, block by block; `instead` tells afterwards whether that was a mistake.

    Raises AudioError for a channel that is not there.
    """

    def __init__(self, name: str, channel: Channel, channels: int):
        require_channel(name, channel, channels)
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
        is_audible = powers.sum() > _ROUNDING * squares.trace()
        if not (is_audible and covariance.sum() < _CANCELLED * powers.sum()):
            return None
        return 1 + int(np.argmax(powers >= _LOUD * powers.max()))


class SwitchingMixer:
    """Averages what arrives block by block, until the channels are found to cancel: from then on a loud one alone.

    is_file: whether the name is that of a file. Raises AudioError for a channel that is not there.
    """

    def __init__(self, name: str, channel: Channel, channels: int, *, is_file: bool = False):
        self._mixer = Mixer(name, channel, channels)
        self._name = name
        self._is_file = is_file

    def __call__(self, block: Block) -> NDArray[np.float32]:
        """(n, channels) -> (n,)."""
        mixed = self._mixer(block)
        if instead := self._mixer.instead:
            warn_of_cancelling(self._name, instead, is_file=self._is_file)
            self._mixer = Mixer(self._name, instead, block.shape[1])
            mixed = self._mixer(block)
        return mixed


def warn_of_cancelling(name: str, channel: int, *, is_file: bool = False) -> None:
    """Say that the channels of a recording cancel; of a file, which may be read again and again, only once."""
    (_warn_once if is_file else _warn)(name, channel)


def _warn(name: str, channel: int) -> None:
    _log.warning("%s: its channels cancel when averaged (out of phase?); channel %d is read alone.", name, channel)


_warn_once = lru_cache(maxsize=1024)(_warn)
