"""When each word is said: a model's word times beside the phone alignment of festvox-ru.

    python benchmarks/word_times.py --data data/festvox-ru --model DIR --json benchmarks/results/word_times.json

The corpus aligns phones and not words. A word has as many phones as its letters ask for (none for ь and ъ, two
for я е ё ю at its beginning and after a vowel or sign); sentences are kept in which these numbers add up to the phones
aligned and every pause falls between words. Measured are
all words when the model is told the text (forced alignment), and those that each decoder writes as the reference
has them: |error| of starts and ends, the mean of the signed error (above 0: the model is late), and the share within
50 ms. A frame of the encoder is 40 ms long. `spread evenly` gives each word the share of the clip that its letters
have of the text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table
from lhotse.cut import MonoCut
from numpy.typing import NDArray

import isogloss
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, read_cuts, text_of
from isogloss.decoding.words import Word
from isogloss.metrics.error_rates import matching_words
from isogloss.model.alignment import locate
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise

VOWELS, SILENT, IOTATED = set("аеёиоуыэюя"), set("ьъ"), set("еёюя")
PAUSE = "pau"
NEAR = 0.05
Span = tuple[float, float]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="festvox-ru made by isogloss prepare")
    arguments.add_argument("--model", type=Path, required=True, help="a model that writes Russian")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    options = arguments.parse_args()
    recogniser = isogloss.load(options.model)
    aligned = [(cut, spans) for cut in read_cuts(options.data, options.split) if (spans := word_spans(cut))]
    audio = [waveform(cut) for cut, _ in aligned]
    told = [
        (word, place, (cut, spans))
        for (cut, spans), samples in zip(aligned, audio, strict=True)
        for place, word in enumerate(forced(recogniser.model, samples, normalise(text_of(cut) or "", "ru")))
    ]
    rows: list[dict[str, Any]] = [
        {"times of": "ctc, told the text"} | errors([(word.start, word.end) for word, _, _ in told], told),
        {"times of": "… spread evenly"} | errors([even_span(cut, place) for _, place, cut in told], told),
    ]
    for decoder in recogniser.model.decoders:
        found = recogniser.transcribe(audio, language="ru", decoder=decoder, vad=False)
        pairs = [pair for (cut, spans), made in zip(aligned, found, strict=True) for pair in matched(cut, spans, made)]
        rows.append({"times of": decoder} | errors([(word.start, word.end) for word, _, _ in pairs], pairs))
    table(f"{len(aligned)} clips of festvox-ru, {options.split} split", rows)
    finish(options.json, environment() | {"split": options.split, "clips": len(aligned), "rows": rows})


def word_spans(cut: MonoCut) -> list[Span]:
    """Start and end of each word of the normalised text; none where letters and phones do not agree."""
    phones = [(p.start, p.end, p.symbol) for p in (cut.supervisions[0].alignment or {}).get("phone", [])]
    spoken = [number for number, phone in enumerate(phones) if phone[2] != PAUSE]
    counts = [sum(letters_to_phones(word)) for word in normalise(text_of(cut) or "", "ru").split()]
    if sum(counts) != len(spoken) or 0 in counts:
        return []
    ends = np.cumsum(counts)
    runs = [spoken[end - count : end] for end, count in zip(ends, counts, strict=True)]
    if any(run[-1] - run[0] != len(run) - 1 for run in runs):  # a pause inside a word
        return []
    return [(phones[run[0]][0], phones[run[-1]][1]) for run in runs]


def letters_to_phones(word: str) -> list[int]:
    """How many phones each letter of a word stands for."""
    counts, before = [], "ь"
    for letter in word:
        opens = before in SILENT or before in VOWELS
        counts.append(0 if letter in SILENT else 2 if letter in IOTATED and opens else 1)
        before = letter
    return counts


@torch.inference_mode()
def forced(model: Model, samples: NDArray[np.float32], text: str) -> list[Word]:
    """The words of a text where CTC's best path through it has them."""
    states = model.encode(model.features(Sequence.from_list([torch.from_numpy(samples)])), languages=["ru"]).final
    return model.words(locate(model, states, [text], ["ru"])[0])


def matched(cut: MonoCut, spans: list[Span], made: Any) -> list[tuple[Word, int, tuple[MonoCut, list[Span]]]]:
    """The words that stand where the reference has them: as written, their place in the reference, the reference."""
    said = normalise(text_of(cut) or "", "ru")
    words = made.words
    (pairs,) = matching_words([said], [" ".join(word.text for word in words)])
    return [(words[written], place, (cut, spans)) for place, written in pairs]


def even_span(reference: tuple[MonoCut, list[Span]], place: int) -> Span:
    """The share of the clip that the letters of a word have of the text."""
    cut, _ = reference
    text = normalise(text_of(cut) or "", "ru")
    words = text.split()
    before = sum(len(word) + 1 for word in words[:place])
    return before / len(text) * cut.duration, (before + len(words[place])) / len(text) * cut.duration


def errors(found: list[Span], pairs: list[tuple[Word, int, tuple[MonoCut, list[Span]]]]) -> dict[str, Any]:
    """Milliseconds, and shares in %."""
    figures: dict[str, Any] = {"words": len(pairs)}
    if not pairs:
        return figures
    off = np.array(found) - np.array([spans[place] for _, place, (_, spans) in pairs])
    for name, column in (("start", off[:, 0]), ("end", off[:, 1])):
        figures[f"{name}: median |error| ms"] = round(1000 * float(np.median(np.abs(column))), 1)
        figures[f"{name}: mean error ms"] = round(1000 * float(column.mean()), 1)
        figures[f"{name}: within 50 ms %"] = round(100 * float((np.abs(column) <= NEAR).mean()), 1)
    return figures


if __name__ == "__main__":
    main()
