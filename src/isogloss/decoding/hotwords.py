"""Words that are likelier to be said than the model thinks: names, places, products.

All of them are one automaton that reads symbols (Aho & Corasick 1975). Each symbol of a hotword gains
`bonus` nats; what was gained is given back where the word breaks off unfinished.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as ListOf

START = 0


class Hotwords:
    """A state is the longest beginning of a hotword that the text ends in; `START` is none.

    words: symbols of each, none of them empty. bonus: nats a symbol.
    """

    def __init__(self, words: Iterable[ListOf[int]], bonus: float = 1.5):
        self.bonus = bonus
        self._following: list[dict[int, int]] = [{}]
        self._length = [0]
        self._unfinished = [0]  # symbols read since a word was finished
        self._ends = self._grown(words)
        self._shorter = self._linked()  # the longest beginning that a state ends in, itself apart

    def step(self, state: int, symbol: int) -> tuple[int, float]:
        """The state after another symbol, and the nats gained by it, or given back."""
        if symbol in self._following[state]:
            return self._following[state][symbol], self.bonus
        reached = self._reached(self._shorter[state], symbol) if state else START
        return reached, self.bonus * (self._length[reached] - self._unfinished[state])

    def end(self, state: int) -> float:
        """The nats given back where the text ends."""
        return -self.bonus * self._unfinished[state]

    def _grown(self, words: Iterable[ListOf[int]]) -> set[int]:
        ends = set()
        for word in words:
            state = START
            for symbol in word:
                if symbol not in self._following[state]:
                    self._following[state][symbol] = len(self._following)
                    self._following.append({})
                    self._length.append(self._length[state] + 1)
                state = self._following[state][symbol]
            ends.add(state)
        return ends

    def _linked(self) -> list[int]:
        shorter = [START] * len(self._following)
        self._shorter = shorter
        self._unfinished = [0] * len(self._following)
        waiting = deque([START])
        while waiting:
            state = waiting.popleft()
            for symbol, child in self._following[state].items():
                shorter[child] = self._reached(shorter[state], symbol) if state else START
                self._unfinished[child] = 0 if child in self._ends else self._unfinished[state] + 1
                waiting.append(child)
        return shorter

    def _reached(self, state: int, symbol: int) -> int:
        while state and symbol not in self._following[state]:
            state = self._shorter[state]
        return self._following[state].get(symbol, START)
