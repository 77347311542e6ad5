"""Do speech and text of one sentence meet? Retrieval of each by the other, layer by layer (arXiv 2304.14514 §4).

    own            a clip, and its sentence
    written in L   a clip, and what it says in another language
    spoken in L    a clip, and a clip that says the same in another language

Speech is unmasked and encoded whole, text is stretched by predicted durations; mean states, cosine. Every sentence is
in a pool once. Beside the figures stand what proves nothing: chance, shuffled pairs, the same network with random
weights, and the length alone, for the mean state may tell how long something takes to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from isogloss.data.manifests import language_of
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data
from isogloss.evaluation.figures import repeated
from isogloss.evaluation.pairs import Pair, Scores, Space, encode_pairs, own, spoken_too, translated
from isogloss.evaluation.table import Lines, Measure, Row, Table
from isogloss.evaluation.task import Task
from isogloss.metrics.retrieval import pools, retrieval
from isogloss.model.model import Model
from isogloss.text.corpus import TextLine
from isogloss.text.languages import normalise_language

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

LEAST = 2
"""Pairs without which there is nothing to confuse."""

POOLS = "standard deviation over pools"
MEASURES = (
    Measure(name="R@1", about="share whose counterpart is the nearest", better="higher", spread=POOLS),
    Measure(name="R@5", about="share whose counterpart is among the five nearest", better="higher", spread=POOLS),
    Measure(name="MRR", about="mean reciprocal rank of the counterpart", better="higher", spread=POOLS),
)
ABOUT = (
    "Clips look for what they say, and sentences for the clips that say them, by the cosine of mean states after each "
    "block that speech and text share; the first is that in which text enters. Every sentence is in a pool once. What "
    "proves nothing stands beside: chance, pairs in another order, the same network with random weights, and the "
    "length alone."
)


class Retrieval(Task):
    """Speech found by its text and text by its speech, block by block."""

    place: ClassVar[int] = 50

    pool: int = Field(1000, ge=LEAST, description="sentences in a pool")
    resamples: int = Field(5, ge=1, description="pools, where there are more sentences")
    across: tuple[str, ...] = Field((), description="languages to be found by clips of the others")

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model with a text encoder."""
        if model.model.text is None:
            return "The model has no text encoder, so that nothing written can be compared with speech."
        return None

    def run(self, model: Recogniser, data: Data) -> Table:
        """How often each finds the other, of all that is asked for."""
        asked = self._pairs(model, data)
        every = [pair for pairs in asked.values() if len(pairs) >= LEAST for pair in pairs]
        if not every:
            raise IsoglossError("Fewer than two clips say different things in a language that the text encoder knows.")
        last = model.model.encoder.layers
        blocks = range(model.model.text_encoder.entry, last + 1)
        twin = _random_twin(model.model), range(last, last + 1)
        trained, random = encode_pairs([(model.model, blocks), twin], every, data)
        rows = [row for name, pairs in asked.items() for row in self._rows(name, pairs, trained, random)]
        if not rows:
            raise IsoglossError("Fewer than two of the clips could be read; prepare the data again.")
        found = {row.keys["pairs"] for row in rows}
        missing = [name for name in asked if name not in found]
        return Table(
            task=self.name(),
            title="Retrieval",
            about=ABOUT,
            items="pairs",
            keys=("pairs", "direction", "block"),
            measures=MEASURES,
            rows=tuple(rows),
            notes=tuple(f"Not measured, for there are fewer than {LEAST} such pairs: {name}." for name in missing),
            pictures=(Lines(measure="R@1", over="block"),),
        )

    def _pairs(self, model: Recogniser, data: Data) -> dict[str, list[Pair]]:
        """What is looked for, by what it is called."""
        read = model.model.config.text_languages
        asked = {"own": own([cut for cut in data.cuts if language_of(cut) in read])}
        for language in map(normalise_language, self.across):
            asked[f"written in {language}"] = translated(data.cuts, language)
            asked[f"spoken in {language}"] = spoken_too(data.cuts, language)
        return asked

    def _rows(self, name: str, pairs: list[Pair], trained: Space, random: Space) -> Iterator[Row]:
        """There and back, block by block."""
        pairs = [pair for pair in pairs if trained.holds(pair) and random.holds(pair)]
        if len(pairs) < LEAST:
            return
        drawn = pools(len(pairs), self.pool, self.resamples)
        blocks = {layer: trained.scores(pairs, layer) for layer in trained.layers}
        trivial = controls(blocks[max(blocks)], random.scores(pairs, max(blocks)), *trained.lengths(pairs))
        kind = "text" if isinstance(pairs[0][1], TextLine) else "other speech"
        for direction, back in ((f"speech → {kind}", False), (f"{kind} → speech", True)):
            beside = {way: measured(table, drawn, back) for way, table in trivial.items()}
            for layer, table in blocks.items():
                values = measured(table, drawn, back)
                baselines = {m: {way: float(np.mean(of[m])) for way, of in beside.items()} for m in values}
                figures = {m: repeated(values[m], len(drawn[0]), baselines[m]) for m in values}
                keys = {"pairs": name, "direction": direction, "block": str(layer)}
                yield Row(keys=keys, headline=name == "own" and layer == max(blocks), figures=figures)


def controls(last: Scores, random: Scores, clips: NDArray[np.int64], others: NDArray[np.int64]) -> dict[str, Scores]:
    """What proves nothing, (N, N) each.

    last, random: scores after the last block, (N, N). clips, others: frames of both sides, (N,).
    """
    shuffled = np.random.default_rng(0).permutation(len(last))
    return {
        "random weights": random,
        "shuffled pairs": last[:, shuffled],
        "length alone": -np.abs(clips[:, None] - others[None]).astype(np.float64),
        "chance": np.zeros_like(last),
    }


def measured(scores: Scores, drawn: list[NDArray[np.int64]], back: bool) -> dict[str, list[float]]:
    """The measures in each pool of pairs; back: candidates look for queries."""
    results = [retrieval((scores.T if back else scores)[np.ix_(pool, pool)]) for pool in drawn]
    return {
        "R@1": [result.first for result in results],
        "R@5": [result.five for result in results],
        "MRR": [result.reciprocal for result in results],
    }


def _random_twin(model: Model) -> Model:
    """The same network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = model.config.model_copy(update={"weights": "float32"})
        return Model(config, model.tokenizer).to(next(model.parameters()).device).eval()
