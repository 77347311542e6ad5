"""A model in onnxruntime, with float32 and with int8 weights, beside torch: time and errors on the same clips.

    python benchmarks/onnx_models.py --model DIR --data DIR… --json benchmarks/results/onnx_models.json
                                                                           (in the project's environment)

Held-out clips in the languages that the model writes go through all three in the same padded batches, from waveform to
the likeliest symbol of each frame of CTC, any symbol after any other. `± CER` is the difference from torch on the same
clips, with the 95 % interval of the paired bootstrap. `frames` is the share of frames whose likeliest symbol is that of
torch, `log p` the largest difference of log-probabilities.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from common import environment, finish, interleaved, parser, rate, table, timing_rows
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import language_of, read_cuts, text_of
from isogloss.decoding.greedy import greedy
from isogloss.interop.onnx_export import GRAPH, export_onnx
from isogloss.metrics.bootstrap import paired_difference
from isogloss.metrics.error_rates import ErrorCounts, error_counts
from isogloss.model.folder import load_model
from isogloss.model.model import Model
from isogloss.sequence import Sequence
from isogloss.text.normalise import normalise

TORCH = "torch float32"
System = Callable[[Sequence], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""A batch of waveforms (B, S) -> log-probabilities (B, T, V) and frames (B,)."""


def main() -> None:
    arguments = parser(__doc__, repetitions=5)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder with a CTC head")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--batch", type=int, default=8, help="clips encoded together")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    cuts = [cut for folder in options.data for cut in read_cuts(folder, "test") if text_of(cut)]
    cuts = sorted((cut for cut in cuts if language_of(cut) in model.config.alphabets), key=lambda cut: cut.duration)
    said = [normalise(text_of(cut) or "", language_of(cut)) for cut in cuts]
    clips = [torch.from_numpy(waveform(cut)) for cut in cuts]
    batches = [Sequence.from_list(clips[i : i + options.batch]) for i in range(0, len(clips), options.batch)]
    systems: dict[str, System] = {TORCH: _torch(model)}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, int8 in (("onnxruntime float32", False), ("onnxruntime int8", True)):
            folder = Path(temporary) / name
            export_onnx(options.model, folder, int8=int8)
            systems[name] = _onnxruntime(folder / GRAPH, options.threads)
            sizes[name] = round((folder / GRAPH).stat().st_size / 1e6, 1)
    timings = interleaved({name: lambda s=s: [s(batch) for batch in batches] for name, s in systems.items()}, options)
    rows = timing_rows(timings, dict.fromkeys(systems, TORCH))
    seconds = sum(len(clip) for clip in clips) / SAMPLE_RATE
    scores = {name: [row for batch in batches for row in _rows(*system(batch))] for name, system in systems.items()}
    counts = {name: _errors(model, found, said) for name, found in scores.items()}
    for row in rows:
        name = row["what"]
        row |= {"real-time factor": round(timings[name].median / seconds, 4), "MB": sizes.get(name, "")}
        row |= rate(counts[name], digits=2)
        if name != TORCH:
            row |= _beside(scores[name], scores[TORCH], counts[name], counts[TORCH])
    table(f"{len(clips)} clips, {seconds / 60:.1f} minutes, {options.batch} at once", rows)
    about = {"clips": len(clips), "seconds": round(seconds, 1), "onnxruntime": onnxruntime.__version__, "rows": rows}
    finish(options.json, environment() | about)


def _torch(model: Model) -> System:
    @torch.inference_mode()
    def run(audio: Sequence) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = model.ctc_head()(model.encode(model.features(audio)).final)
        return scores.values.numpy(), scores.lengths.numpy()

    return run


def _onnxruntime(path: Path, threads: int) -> System:
    asked = onnxruntime.SessionOptions()
    asked.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, asked, providers=["CPUExecutionProvider"])

    def run(audio: Sequence) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        inputs = {"audio": audio.values.numpy(), "lengths": audio.lengths.numpy()}
        scores, frames = session.run(["log_probabilities", "frames"], inputs)
        return scores, frames

    return run


def _rows(scores: NDArray[np.float32], frames: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """(T, V) of each clip."""
    return [row[:count] for row, count in zip(scores, frames, strict=True)]


def _errors(model: Model, scores: list[NDArray[np.float32]], said: list[str]) -> ErrorCounts:
    assert model.tokenizer is not None
    found = greedy(Sequence.from_list([torch.from_numpy(row) for row in scores]))
    return error_counts(said, [normalise(model.tokenizer.decode(path.tokens)) for path in found], "character")


def _beside(
    found: list[NDArray[np.float32]], base: list[NDArray[np.float32]], counts: ErrorCounts, exact: ErrorCounts
) -> dict[str, Any]:
    pairs = list(zip(found, base, strict=True))
    same = np.concatenate([ours.argmax(axis=1) == theirs.argmax(axis=1) for ours, theirs in pairs])
    change = paired_difference(counts.errors, exact.errors, exact.totals)
    low, high = 100 * change.interval.low, 100 * change.interval.high
    return {
        "± CER": round(100 * change.difference, 2),
        "± 95 %": f"{low:+.2f} – {high:+.2f}",
        "frames": round(float(same.mean()), 5),
        "log p": float(f"{max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs):.1e}"),
    }


if __name__ == "__main__":
    main()
