"""The classical pipeline beside searching without a lexicon: error rates and time on the same held-out clips.

    python benchmarks/classical.py --model DIR --data DIR… --languages be el es ro
        --json benchmarks/results/classical.json                                   (in the peers' environment)

One model's CTC posteriors are read frame by frame; by prefix search with a 6-gram model of its symbols; and through a
word graph of lexicon and trigram model. Both models are of the train transcripts of the same language. `unknown` is the
share of words of the test clips that the lexicon lacks and the graph can thus never write. English clips are
also read by pocketsphinx with its own acoustic model, 130 000-word lexicon and trigram model, the classical pipeline
as installed. `real-time factor` is of search alone, the encoder's is given apart; pocketsphinx's has everything in it.
Rates are % with the 95 % interval of the bootstrap over clips.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from common import Peers, environment, finish, parser, rate, table
from lhotse.cut import MonoCut
from transcription import Waveform, pocketsphinx_reader

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, language_of, read_cuts, text_of
from isogloss.decoding.beam import Beam
from isogloss.decoding.word_graph import word_graph
from isogloss.metrics.error_rates import error_counts
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.ngram import train_ngram
from isogloss.text.normalise import normalise

Way = Callable[[], list[str]]
Made = TypeVar("Made")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--clips", type=int, default=100, help="of each language at most, evenly over the split")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--order", type=int, default=3, help="words of the word graph's n-gram model")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    peers, rows = Peers(), []
    for language in options.languages:
        rows += of_language(model, language, options, peers)
    table("CTC posteriors, searched in three ways", rows)
    finish(options.json, environment() | {"rows": rows, "missing": peers.missing})


@torch.inference_mode()
def of_language(model: Model, language: str, options: Namespace, peers: Peers) -> list[dict[str, Any]]:
    """A row for each way to read the clips of a language."""
    cuts = {split: of_split(options.data, split, language) for split in (options.split, "train")}
    places = np.linspace(0, len(cuts[options.split]) - 1, min(options.clips, len(cuts[options.split])))
    clips = [cuts[options.split][round(place)] for place in places]
    references = [normalise(text_of(cut) or "", language) for cut in clips]
    sentences = [normalise(text_of(cut) or "", language) for cut in cuts["train"]]
    audio = [waveform(cut) for cut in clips]
    states, encoding = timed(lambda: [encoded(model, samples) for samples in audio])
    seconds = sum(map(len, audio)) / SAMPLE_RATE
    known = {word for sentence in sentences for word in sentence.split()}
    missing = [word not in known for reference in references for word in reference.split()]
    about = {
        "language": language,
        "clips": len(clips),
        "unknown %": round(100 * float(np.mean(missing)), 1),
        "encoder": round(encoding / seconds, 4),
    }
    ways = searches(model, language, sentences, states, options.order)
    if language == "en":
        peers.add(ways, "pocketsphinx", lambda: pocketsphinx(audio, options))
    return [about | row(name, way, references, seconds, language) for name, way in ways.items()]


def searches(model: Model, language: str, sentences: list[str], states: list[Sequence], order: int) -> dict[str, Way]:
    """isogloss's ways to read the states of each clip."""
    assert model.tokenizer is not None
    decode = model.tokenizer.decode
    symbols = train_ngram([model.processor.tokens(text, language) for text in sentences], model.tokenizer.size, 6)
    graph = word_graph(sentences, model.tokenizer, order)
    beam, ctc = Beam(language_model=symbols), model.ctc_head()
    return {
        "frame by frame": lambda: [decode(model.decode(one, "ctc")[0].tokens) for one in states],
        "symbols, 6-gram, beam 8": lambda: [decode(model.search(one, beam, "ctc")[0][0].tokens) for one in states],
        f"words, {order}-gram, graph": lambda: [decode(graph.decode(ctc(one))[0].tokens) for one in states],
    }


def pocketsphinx(audio: list[Waveform], options: Namespace) -> Way:
    read = pocketsphinx_reader(options)
    return lambda: [read(samples) for samples in audio]


def row(name: str, way: Way, references: list[str], seconds: float, language: str) -> dict[str, Any]:
    """Error rates and time of one way."""
    found, taken = timed(way)
    hypotheses = [normalise(text, language) for text in found]
    figures: dict[str, Any] = {"search": name}
    for kind, unit in (("CER", "character"), ("WER", "word")):
        counts = error_counts(references, hypotheses, unit)  # type: ignore[arg-type]
        figures |= rate(counts, kind)
    return figures | {"real-time factor": round(taken / seconds, 4)}


def of_split(folders: list[Path], split: str, language: str) -> list[MonoCut]:
    """The transcribed clips of a language."""
    cuts = [cut for folder in folders for cut in read_cuts(folder, split)]
    return [cut for cut in cuts if language_of(cut) == language and text_of(cut)]


def encoded(model: Model, samples: Waveform) -> Sequence:
    return model.encode(model.features(Sequence.from_list([torch.from_numpy(samples)]))).final


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """What it makes, and the seconds that took."""
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began


if __name__ == "__main__":
    main()
