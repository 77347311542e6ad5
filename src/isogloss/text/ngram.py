"""An n-gram language model over a tokenizer's symbols: interpolated modified Kneser-Ney.

    p(w | h) = (c(h w) - D(c)) / Σ_v c(h v) + γ(h) p(w | h')          h' = h without its oldest symbol

c are counts at the highest order and numbers of different left neighbours below it; D has a value for counts
of one, two and more, from the counts of counts (Chen & Goodman 1998, §3). Being over the recogniser's own
symbols, it scores a hypothesis symbol by symbol, in any script, without a lexicon. Symbol 0 stands before
the first symbol of a sentence and after its last.
"""

from collections.abc import Iterable
from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, read_json, write_json

BOUNDARY = 0
LEAST = 0.05
REMEMBERED = 3_000_000
"""Probabilities kept of contexts that were looked up."""
FORMAT = 2
CONFIG, COUNTS = "config.json", "ngram.safetensors"
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order, sorted: symbols are digits of `keys` to the base V, the oldest first.

    shares: (N,) discounted probabilities. contexts: (M,) keys without their last digit; backoffs: (M,) γ.
    """

    keys: Integers
    shares: Floats
    contexts: Integers
    backoffs: Floats


class NGram:
    """p(next symbol | last symbols), for all next symbols at once.

    calibration: slope and offset of the log-odds of words that a recogniser found with it, if that was measured.
    """

    def __init__(self, vocabulary: int, orders: list[_Order], calibration: tuple[float, float] | None = None):
        self.vocabulary = vocabulary
        self.orders = orders
        self.calibration = calibration
        even = np.full(vocabulary, 1 / vocabulary)
        self._even = even, np.log(even)
        self._known: dict[tuple[int, ...], tuple[Floats, Floats]] = {}

    @property
    def order(self) -> int:
        """The longest n-gram, in symbols."""
        return len(self.orders)

    def context(self, tokens: ListOf[int]) -> tuple[int, ...]:
        """What the next symbol depends on after these: equal contexts have equal successors."""
        memory = self.order - 1
        return tuple([*[BOUNDARY] * memory, *tokens][len(tokens) :]) if memory else ()

    def scores(self, context: tuple[int, ...]) -> Floats:
        """log p of each symbol after a context, (V,); that of 0 is of the sentence's end."""
        if len(self._known) * self.vocabulary > REMEMBERED:
            self._known.clear()
        return self._looked_up(context)[1]

    def _looked_up(self, context: tuple[int, ...]) -> tuple[Floats, Floats]:
        """p and log p of each symbol after a context."""
        found = self._known.get(context)
        if found is None:
            found = self._known[context] = self._interpolated(context)
        return found

    def _interpolated(self, context: tuple[int, ...]) -> tuple[Floats, Floats]:
        shorter = self._looked_up(context[1:]) if context else self._even
        order, key = self.orders[len(context)], _key(context, self.vocabulary)
        place = int(np.searchsorted(order.contexts, key))
        if place == len(order.contexts) or order.contexts[place] != key:
            return shorter  # a context never seen
        start, end = np.searchsorted(order.keys, [key * self.vocabulary, (key + 1) * self.vocabulary])
        shares = shorter[0] * order.backoffs[place]
        shares[order.keys[start:end] % self.vocabulary] += order.shares[start:end]
        return shares, np.log(shares)

    def log_probability(self, tokens: ListOf[int]) -> float:
        """log p of a whole sentence, its end included, in nats."""
        whole = [*tokens, BOUNDARY]
        return float(sum(self.scores(self.context(whole[:place]))[symbol] for place, symbol in enumerate(whole)))

    def seen(self) -> list[Floats]:
        """p of the last symbol of each n-gram that was seen, order by order as in `keys`."""
        found: list[Floats] = []
        for length, order in enumerate(self.orders):
            size = self.vocabulary**length
            shorter = (
                found[-1][np.searchsorted(self.orders[length - 1].keys, order.keys % size)]
                if found
                else np.full(len(order.keys), 1 / self.vocabulary)
            )
            places = np.searchsorted(order.contexts, order.keys // self.vocabulary)
            found.append(order.shares + order.backoffs[places] * shorter)
        return found

    def perplexity(self, sentences: Iterable[ListOf[int]]) -> float:
        """exp of the mean surprise a symbol, ends included."""
        total, count = 0.0, 0
        for tokens in sentences:
            total += self.log_probability(tokens)
            count += len(tokens) + 1
        return float(np.exp(-total / max(1, count)))


def train_ngram(sentences: Iterable[ListOf[int]], vocabulary: int, order: int = 6) -> NGram:
    """Count and smooth. sentences: symbols in 1 … V-1 each.

    Raises IsoglossError where there is no text, or where order and vocabulary are too large together.
    """
    if order < 1 or vocabulary**order >= 2**63:
        most = int(63 * np.log(2) / np.log(vocabulary))
        raise IsoglossError(f"An order of {order} is not between 1 and {most}, the most for {vocabulary} symbols.")
    windows = [_windows(tokens, order) for tokens in sentences]
    if not any(len(found) > 1 for found in windows):
        raise IsoglossError("There is no text to learn a language model from.")
    grams, counts = np.unique(_keys(np.concatenate(windows), vocabulary), return_counts=True)
    orders = [_smoothed(grams, counts, vocabulary)]
    for length in range(order - 1, 0, -1):
        size = vocabulary**length
        shorter, places, neighbours = np.unique(grams % size, return_inverse=True, return_counts=True)
        uses = np.bincount(places, weights=counts).astype(np.int64)
        # At the start of a sentence there is only one left neighbour: uses say more.
        begins = (shorter // (size // vocabulary) == BOUNDARY) & (length > 1)
        grams, counts = shorter, uses
        orders.append(_smoothed(shorter, np.where(begins, uses, neighbours), vocabulary))
    return NGram(vocabulary, orders[::-1])


def _windows(tokens: ListOf[int], order: int) -> Integers:
    """Every symbol and the end, each behind the order - 1 symbols before it: (U+1, order)."""
    padded = np.array([*[BOUNDARY] * (order - 1), *tokens, BOUNDARY], dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(padded, order)


def _keys(rows: Integers, vocabulary: int) -> Integers:
    keys = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        keys = keys * vocabulary + column
    return keys


def _key(context: ListOf[int], vocabulary: int) -> int:
    key = 0
    for symbol in context:
        key = key * vocabulary + symbol
    return key


def _smoothed(keys: Integers, counts: Integers, vocabulary: int) -> _Order:
    discount = _discounts(counts)[np.minimum(counts, 3)]
    contexts, places = np.unique(keys // vocabulary, return_inverse=True)
    totals = np.bincount(places, weights=counts)
    backoffs = np.bincount(places, weights=discount) / totals
    return _Order(keys, (counts - discount) / totals[places], contexts, backoffs)


def _discounts(counts: Integers) -> Floats:
    """D for counts of 0, 1, 2 and 3 or more (Chen & Goodman 1998, eq. 26); a half where counts are too few to say.

    Never nothing: what was not seen must stay possible.
    """
    ones, twos, threes, fours = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if not (ones and twos and threes):
        return np.array([0.0, 0.5, 0.5, 0.5])
    share = ones / (ones + 2 * twos)
    found = [1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    return np.array([0.0, *np.clip(found, LEAST, [0.999, 1.999, 2.999])])


def save_ngram(model: NGram, folder: Path, symbols: str, notes: dict[str, object]) -> None:
    """Write the folder, whole or not at all. symbols: digest of the tokenizer. notes: for people."""
    import safetensors.numpy

    arrays = {
        f"{part}.{number}": array
        for number, order in enumerate(model.orders, start=1)
        for part, array in _packed(order, model.vocabulary).items()
    }
    with atomic_folder(folder, COUNTS) as temporary:
        safetensors.numpy.save_file(arrays, temporary / COUNTS)
        config = {
            "format": FORMAT,
            "order": model.order,
            "vocabulary": model.vocabulary,
            "calibration": model.calibration,
        }
        write_json(temporary / CONFIG, config | {"symbols": symbols, "notes": notes})


def load_ngram(folder: Path, symbols: str) -> NGram:
    """Read a folder; raises IsoglossError if it is none, or is over the symbols of another tokenizer."""
    import safetensors
    import safetensors.numpy

    if not (folder / CONFIG).is_file():
        raise IsoglossError(f"{folder} is no language model: it holds no {CONFIG}; make one with isogloss lm.")
    config = read_json(folder / CONFIG)
    if config.get("format") != FORMAT or "order" not in config:
        raise IsoglossError(f"{folder / CONFIG} is not that of a language model this isogloss reads.")
    if config["symbols"] != symbols:
        raise IsoglossError(f"{folder} was made for a model with other symbols; make one for this model: isogloss lm.")
    try:
        arrays = safetensors.numpy.load_file(folder / COUNTS)
        orders = [_unpacked(arrays, n, config["vocabulary"]) for n in range(1, config["order"] + 1)]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise IsoglossError(f"{folder / COUNTS} is damaged ({error}); make the language model again.") from None
    calibration = config.get("calibration")
    return NGram(config["vocabulary"], orders, calibration and tuple(calibration))


def _packed(order: _Order, vocabulary: int) -> dict[str, NDArray[Any]]:
    """As it is stored: for each context how many symbols follow and which; probabilities in three digits."""
    small = np.uint8 if vocabulary < 256 else np.uint32
    counts = np.diff(np.searchsorted(order.keys, np.append(order.contexts, order.contexts[-1] + 1) * vocabulary))
    return {
        "contexts": order.contexts,
        "backoffs": order.backoffs.astype(np.float16),
        "counts": counts.astype(small),
        "symbols": (order.keys % vocabulary).astype(small),
        "shares": order.shares.astype(np.float16),
    }


def _unpacked(arrays: dict[str, NDArray[Any]], number: int, vocabulary: int) -> _Order:
    contexts, backoffs, counts, symbols, shares = (
        arrays[f"{part}.{number}"] for part in ("contexts", "backoffs", "counts", "symbols", "shares")
    )
    keys = np.repeat(contexts, counts) * vocabulary + symbols
    return _Order(keys, shares.astype(np.float64), contexts, backoffs.astype(np.float64))
