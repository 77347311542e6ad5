"""Word and character error rates, by Levenshtein alignment (jiwer), over a whole corpus."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from isogloss.metrics.checks import require_pairs

Unit = Literal["word", "character"]


@dataclass(frozen=True)
class ErrorRate:
    """(S + D + I) / N over a corpus; above 1 if there are more insertions than correct units.

    total: N, the units of the references. rate is NaN if total is 0, whatever was inserted.
    """

    rate: float
    substitutions: int
    deletions: int
    insertions: int
    total: int


@dataclass(frozen=True)
class ErrorCounts:
    """Errors and reference units of each utterance, (N,) int64 each: what resampling works on."""

    substitutions: npt.NDArray[np.int64]
    deletions: npt.NDArray[np.int64]
    insertions: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        return self.substitutions + self.deletions + self.insertions


def error_rates(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> ErrorRate:
    """The corpus-level error rate: errors of all utterances over units of all references.

    Texts are compared as they are; normalise both or neither. A word is what white space separates;
    a character is a code point, one space between words included. An empty reference adds its
    insertions and no units. Raises ValueError if the two lists differ in length.
    """
    counts = error_counts(references, hypotheses, unit)
    errors, total = int(counts.errors.sum()), int(counts.totals.sum())
    return ErrorRate(
        rate=errors / total if total else float("nan"),
        substitutions=int(counts.substitutions.sum()),
        deletions=int(counts.deletions.sum()),
        insertions=int(counts.insertions.sum()),
        total=total,
    )


def error_counts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> ErrorCounts:
    """The same, utterance by utterance: for bootstrap intervals and for finding the worst clips."""
    import jiwer

    require_pairs(references, hypotheses)
    kinds = ("substitute", "delete", "insert")
    counts = np.zeros((len(references), 4), dtype=np.int64)
    if references:
        process = jiwer.process_words if unit == "word" else jiwer.process_characters
        output = process(_single_spaced(references), _single_spaced(hypotheses))
        for row, chunks, units in zip(counts, output.alignments, output.references, strict=True):
            row[3] = len(units)
            for chunk in chunks:
                if chunk.type in kinds:
                    length = max(
                        chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
                    )
                    row[kinds.index(chunk.type)] += length
    return ErrorCounts(*counts.T)


def matching_words(references: Sequence[str], hypotheses: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Of each utterance the (place in the reference, place in the hypothesis) of words that the alignment has equal."""
    import jiwer

    require_pairs(references, hypotheses)
    if not references:
        return []
    output = jiwer.process_words(_single_spaced(references), _single_spaced(hypotheses))
    return [
        [
            (chunk.ref_start_idx + offset, chunk.hyp_start_idx + offset)
            for chunk in chunks
            if chunk.type == "equal"
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
        ]
        for chunks in output.alignments
    ]


def right_words(references: Sequence[str], hypotheses: Sequence[str]) -> list[list[bool]]:
    """Of each hypothesis, which of its words stand in the alignment as the reference has them."""
    found = [[False] * len(hypothesis.split()) for hypothesis in hypotheses]
    for row, pairs in zip(found, matching_words(references, hypotheses), strict=True):
        for _, place in pairs:
            row[place] = True
    return found


def nearest_to_others(texts: Sequence[str], most: int = 100, seed: int = 0) -> str:
    """Of `most` texts drawn at random, the one with the fewest character errors if it is said instead of each of them.

    A recogniser that always writes it needs no audio: what it reaches is the trivial error rate of the texts.
    """
    drawn = random.Random(seed).sample(list(texts), min(most, len(texts)))
    # Texts that are equal are compared once.
    distinct = Counter(drawn)
    others, copies = list(distinct), np.array(list(distinct.values()))
    return min(others, key=lambda text: int(copies @ error_counts(others, [text] * len(others), "character").errors))


def _single_spaced(texts: Sequence[str]) -> list[str]:
    # jiwer does so for words only, and knows no other white space than the space.
    return [" ".join(text.split()) for text in texts]
