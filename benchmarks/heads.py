"""The heads of one model side by side: CTC, transducer and attention decoder, without and with a language model.

    python benchmarks/heads.py --model runs/heads/model --lm lm --data data/tuxpaint data/fillets data/drascula
        data/festvox-ru --json benchmarks/results/heads.json                       (in the project's environment)

The heads share the encoder and were trained together (heads.yaml). CER in % of held-out clips, as many of each
language, the language told; with the 95 % interval of the bootstrap over clips, languages together. `no search` decides
step by step; with a language model each head is searched with a beam of 8, and CTC's probability of the text counts
half in ranking what the attention decoder writes. Times are of one thread, encoder and search together.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table
from lhotse.cut import MonoCut

import isogloss
from isogloss.data.loading import language_of, text_of, waveform
from isogloss.data.manifests import SPLITS, read_cuts
from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.metrics.error_rates import ErrorCounts, error_counts
from isogloss.model.recogniser import Recogniser
from isogloss.text.normalise import normalise


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--lm", type=Path, required=True, help="language model made by isogloss lm")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--clips", type=int, default=35, help="of each language, evenly over the split")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    recogniser = isogloss.load(options.model)
    search = recogniser.beam(language_model=options.lm)
    clips = chosen(options.data, options.split, recogniser, options.clips)
    rows = []
    for decoder in recogniser.model.decoders:
        for name, beam in (("no search", None), ("beam 8 + LM", search)):
            how = {"decoder": decoder, "beam": beam}
            rows.append({"head": decoder, "search": name} | figures(recogniser, clips, how))
    table(f"{sum(map(len, clips.values()))} clips of the {options.split} split: CER in %", rows)
    finish(options.json, environment() | {"data": [folder.name for folder in options.data], "rows": rows})


def chosen(folders: list[Path], split: str, recogniser: Recogniser, most: int) -> dict[str, list[MonoCut]]:
    """Transcribed clips of each language that the model writes, spread evenly."""
    found: dict[str, list[MonoCut]] = defaultdict(list)
    for cut in (cut for folder in folders for cut in read_cuts(folder, split)):
        if text_of(cut) and language_of(cut) in recogniser.model.config.alphabets:
            found[language_of(cut)].append(cut)
    places = {tag: np.linspace(0, len(cuts) - 1, min(most, len(cuts))).round() for tag, cuts in found.items()}
    return {tag: [found[tag][int(place)] for place in places[tag]] for tag in sorted(found)}


def figures(recogniser: Recogniser, clips: dict[str, list[MonoCut]], how: dict[str, Any]) -> dict[str, Any]:
    """CER of each language, of their mean, and how long it took."""
    counts, seconds, taken = {}, 0.0, 0.0
    for language, cuts in clips.items():
        audio = [waveform(cut) for cut in cuts]
        began = time.perf_counter()
        heard = recogniser.transcribe(audio, language=language, **how)
        taken += time.perf_counter() - began
        seconds += sum(cut.duration for cut in cuts)
        references = [normalise(text_of(cut) or "", language) for cut in cuts]
        counts[language] = error_counts(references, [normalise(one.text, language) for one in heard], unit="character")
    sure = bootstrap_interval(*together(counts))
    rates = {language: round(100 * float(n.errors.sum() / n.totals.sum()), 1) for language, n in counts.items()}
    return rates | {
        "mean": round(float(np.mean(list(rates.values()))), 1),
        "all": f"{100 * sure.low:.1f} – {100 * sure.high:.1f}",
        "real-time factor": round(taken / seconds, 4),
    }


def together(counts: dict[str, ErrorCounts]) -> tuple[Any, Any]:
    """Errors and characters of all clips."""
    return np.concatenate([n.errors for n in counts.values()]), np.concatenate([n.totals for n in counts.values()])


if __name__ == "__main__":
    main()
