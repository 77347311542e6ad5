"""Words that are likelier to be said than the model thinks: names, places, products.

A text gains `bonus` nats for each of its symbols that lies in a hotword: once, however many hotwords it lies in
(`Ana` in `Ana Maria`, `New York` and `York Times` of which `York` is one). All hotwords are one automaton that reads
symbols (Aho & Corasick 1975). What may yet become a hotword gains at once, and is given back where it breaks off.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as ListOf

State = tuple[int, int]
"""The longest beginning of a hotword that the text ends in, as a node of the automaton, and which of its symbols lie
in a whole hotword: one bit each, the last symbol's lowest."""
START: State = (0, 0)


class Hotwords:
    """words: symbols of each, none of them empty. bonus: nats a symbol."""

    def __init__(self, words: Iterable[ListOf[int]], bonus: float = 1.5):
        self.bonus = bonus
        self._following: list[dict[int, int]] = [{}]
        self._length = [0]
        self._whole = [0]  # length of the longest hotword that a node ends in
        for word in words:
            self._add(word)
        self._shorter = [0] * len(self._following)  # the longest beginning that a node ends in, itself apart
        self._link()

    def step(self, state: State, symbol: int) -> tuple[State, float]:
        """The state after another symbol, and the nats gained by it, or given back."""
        node, held = state
        reached = self._reached(node, symbol)
        length = self._length[reached]
        # What the longest beginning no longer holds keeps its gain where it lies in a whole hotword.
        left = (held << 1) >> length
        held = ((held << 1) | _ones(self._whole[reached])) & _ones(length)
        return (reached, held), self.bonus * (length + left.bit_count() - self._length[node])

    def end(self, state: State) -> float:
        """The nats given back where the text ends."""
        node, held = state
        return self.bonus * (held.bit_count() - self._length[node])

    def _add(self, word: ListOf[int]) -> None:
        node = 0
        for symbol in word:
            if symbol not in self._following[node]:
                self._following[node][symbol] = len(self._following)
                self._following.append({})
                self._length.append(self._length[node] + 1)
                self._whole.append(0)
            node = self._following[node][symbol]
        self._whole[node] = len(word)

    def _link(self) -> None:
        """The shorter ones first, on which the longer ones rest."""
        waiting = deque([0])
        while waiting:
            node = waiting.popleft()
            for symbol, child in self._following[node].items():
                shorter = self._shorter[child] = self._reached(self._shorter[node], symbol) if node else 0
                self._whole[child] = self._whole[child] or self._whole[shorter]
                waiting.append(child)

    def _reached(self, node: int, symbol: int) -> int:
        while node and symbol not in self._following[node]:
            node = self._shorter[node]
        return self._following[node].get(symbol, 0)


def _ones(count: int) -> int:
    return (1 << count) - 1
