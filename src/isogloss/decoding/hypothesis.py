"""What a decoder writes: symbols with frames and how sure it is of them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hypothesis:
    """A decoded token sequence.

    tokens: symbol ids. frames: (first, last + 1) encoder frames of each symbol.
    confidence: mean probability of what was written, over the frames that write; 0 where none does.
    score: what a beam search ranked it by, in nats; 0 from greedy decoding.
    """

    tokens: list[int]
    frames: list[tuple[int, int]]
    confidence: float
    score: float = 0.0


@dataclass
class Draft:
    """A hypothesis that grows frame by frame."""

    tokens: list[int] = field(default_factory=list)
    frames: list[tuple[int, int]] = field(default_factory=list)
    probability: float = 0.0
    writing_frames: int = 0

    def write(self, symbol: int, frame: int, probability: float) -> None:
        """Another symbol."""
        self.tokens.append(symbol)
        self.frames.append((frame, frame))
        self.hold(frame, probability)

    def hold(self, frame: int, probability: float) -> None:
        """The last symbol is still said at this frame."""
        if self.frames:
            self.frames[-1] = (self.frames[-1][0], frame + 1)
        self.probability += probability
        self.writing_frames += 1

    def drop(self, count: int) -> None:
        """Forget the first symbols, which have been read."""
        del self.tokens[:count], self.frames[:count]

    def hypothesis(self) -> Hypothesis:
        """As it stands."""
        return Hypothesis(list(self.tokens), list(self.frames), self.probability / max(1, self.writing_frames))
