"""What a decoder writes: symbols with frames and how sure it is of them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hypothesis:
    """A decoded token sequence.

    tokens: symbol ids. frames: (first, last + 1) encoder frames of each symbol. probabilities: of each
    symbol, the mean over its frames. score: what a beam search ranked it by, in nats; 0 from greedy
    decoding. interpolated: no alignment was found, and the frames are spread evenly.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    probabilities: list[float]
    score: float = 0.0
    interpolated: bool = False

    @property
    def confidence(self) -> float:
        """The mean probability of the symbols; 0 where there is none."""
        return sum(self.probabilities) / max(1, len(self.probabilities))


@dataclass
class Draft:
    """A hypothesis that grows frame by frame; `held` are the probabilities of each symbol, frame by frame."""

    tokens: list[int] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)
    held: list[list[float]] = field(default_factory=list)
    interpolated: bool = False

    def write(self, symbol: int, frame: int, probability: float) -> None:
        """Another symbol."""
        self.tokens.append(symbol)
        self.frames.append((frame, frame + 1))
        self.held.append([probability])

    def hold(self, frame: int, probability: float) -> None:
        """The last symbol is still said at this frame."""
        if self.frames:
            self.frames[-1] = (self.frames[-1][0], frame + 1)
            self.held[-1].append(probability)

    def drop(self, count: int) -> None:
        """Forget the first symbols, which have been read."""
        del self.tokens[:count], self.frames[:count], self.held[:count]

    def hypothesis(self) -> Hypothesis:
        """As it stands."""
        means = [sum(values) / len(values) for values in self.held]
        return Hypothesis(list(self.tokens), list(self.frames), means, interpolated=self.interpolated)
