"""The heads of one model side by side: CTC, transducer and attention decoder, without and with a language model.

    python benchmarks/heads.py --model runs/heads/model --adapters runs/heads-adapters/model --lm lm
        --data data/tuxpaint data/fillets data/drascula data/festvox-ru --hypotheses build/whisper-base.json
        --json benchmarks/results/heads.json                               (in the project's environment)

The heads share the encoder and were trained together (heads.yaml). CER in % of held-out clips by language, the
language told, its mean and that of WER; `clips` is the 95 % interval of the CER over all clips together (bootstrap).
`no search` decides step by step; with a language model each head is searched with a beam of 8, and CTC's probability
of the text counts half in ranking what the attention decoder writes. With adapters each language goes through one of
its own, trained with the heads on the frozen encoder (heads-adapters.yaml). `one sentence` gets no audio: the
train transcript of the language that is nearest to the others. The clips are those of the hypotheses, made
beforehand by `whisper_base.py --limit 35` in the peers' environment. Times are of one thread, encoder and search
together.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, finish, parser, table
from lhotse.cut import MonoCut

import isogloss
from isogloss.data.loading import waveform
from isogloss.data.manifests import SPLITS, language_of, read_cuts, text_of
from isogloss.evaluation.data import Key, key_of
from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.metrics.error_rates import ErrorCounts, Unit, error_counts, nearest_to_others
from isogloss.model.recogniser import Recogniser
from isogloss.text.normalise import normalise


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--adapters", type=Path, help="adapters of that model")
    arguments.add_argument("--lm", type=Path, required=True, help="language model made by isogloss lm")
    arguments.add_argument("--hypotheses", type=Path, required=True, help="file of whisper_base.py")
    arguments.add_argument("--split", choices=SPLITS, default="test")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    recogniser = isogloss.load(options.model)
    search = recogniser.beam(language_model=options.lm)
    peer = json.loads(options.hypotheses.read_text(encoding="utf-8"))
    written = {(clip["source"], clip["id"]): clip["text"] for clip in peer["clips"]}
    clips = chosen(options.data, options.split, recogniser, written.keys())
    texts = {language: [written[key_of(cut)] for cut in cuts] for language, cuts in clips.items()}
    rows = [{"head": peer["system"], "search": ""} | figures(clips, texts)]
    rows.append({"head": "one sentence", "search": ""} | figures(clips, one_sentence(options.data, clips)))
    adapted = [isogloss.load(options.model, adapters=[options.adapters])] if options.adapters else []
    for decoder in recogniser.model.decoders:
        ways = [("no search", recogniser, None), ("beam 8 + LM", recogniser, search)]
        for name, reader, beam in ways + [("adapters, no search", reader, None) for reader in adapted]:
            texts, factor = transcripts(reader, clips, {"decoder": decoder, "beam": beam})
            rows.append({"head": decoder, "search": name} | figures(clips, texts) | {"real-time factor": factor})
    table(f"{sum(map(len, clips.values()))} clips of the {options.split} split: CER in %", rows)
    finish(options.json, environment() | {"data": [folder.name for folder in options.data], "rows": rows})


def chosen(data: list[Path], split: str, recogniser: Recogniser, wanted: Collection[Key]) -> dict[str, list[MonoCut]]:
    """The wanted clips of each language that the model writes."""
    found: dict[str, list[MonoCut]] = defaultdict(list)
    for cut in (cut for folder in data for cut in read_cuts(folder, split)):
        if key_of(cut) in wanted and text_of(cut) and language_of(cut) in recogniser.model.config.alphabets:
            found[language_of(cut)].append(cut)
    return dict(sorted(found.items()))


def one_sentence(data: list[Path], clips: dict[str, list[MonoCut]]) -> dict[str, list[str]]:
    """For every clip the train transcript of its language that is nearest to a hundred others."""
    said: dict[str, list[str]] = defaultdict(list)
    for cut in (cut for folder in data for cut in read_cuts(folder, "train")):
        if text := normalise(text_of(cut) or "", language_of(cut)):
            said[language_of(cut)].append(text)
    return {language: [nearest_to_others(said[language])] * len(cuts) for language, cuts in clips.items()}


def transcripts(
    recogniser: Recogniser, clips: dict[str, list[MonoCut]], how: dict[str, Any]
) -> tuple[dict[str, list[str]], float]:
    """What a head writes in each language, and its real-time factor."""
    texts, seconds, taken = {}, 0.0, 0.0
    for language, cuts in clips.items():
        audio = [waveform(cut) for cut in cuts]
        began = time.perf_counter()
        texts[language] = [one.text for one in recogniser.transcribe(audio, language=language, vad=False, **how)]
        taken += time.perf_counter() - began
        seconds += sum(cut.duration for cut in cuts)
    return texts, round(taken / seconds, 4)


def figures(clips: dict[str, list[MonoCut]], texts: dict[str, list[str]]) -> dict[str, Any]:
    """CER of each language, the means of CER and WER."""
    counts: dict[Unit, dict[str, ErrorCounts]] = {"character": {}, "word": {}}
    for language, cuts in clips.items():
        references = [normalise(text_of(cut) or "", language) for cut in cuts]
        hypotheses = [normalise(text, language) for text in texts[language]]
        for unit, found in counts.items():
            found[language] = error_counts(references, hypotheses, unit=unit)
    cer, wer = (
        {language: round(100 * float(n.errors.sum() / n.totals.sum()), 1) for language, n in found.items()}
        for found in counts.values()
    )
    sure = bootstrap_interval(*together(counts["character"]))
    return cer | {
        "CER": round(float(np.mean(list(cer.values()))), 1),
        "clips": f"{100 * sure.low:.1f} – {100 * sure.high:.1f}",
        "WER": round(float(np.mean(list(wer.values()))), 1),
    }


def together(counts: dict[str, ErrorCounts]) -> tuple[Any, Any]:
    """Errors and characters of all clips."""
    return np.concatenate([n.errors for n in counts.values()]), np.concatenate([n.totals for n in counts.values()])


if __name__ == "__main__":
    main()
