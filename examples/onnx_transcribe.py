"""Transcribe recordings at 16 kHz with a model that `isogloss export --format onnx` wrote; neither torch nor isogloss.

    python onnx_transcribe.py FOLDER one.wav two.flac …                 (needs numpy, onnxruntime and soundfile)
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

folder, *paths = map(Path, sys.argv[1:])
session = onnxruntime.InferenceSession(folder / "model.onnx")
known = json.loads((folder / "symbols.json").read_text(encoding="utf-8"))

clips = []
for path in paths:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != known["sample_rate"]:
        sys.exit(f"{path} has {rate} samples a second; convert it to {known['sample_rate']}.")
    clips.append(samples.mean(axis=1))
lengths = np.array([len(clip) for clip in clips])
audio = np.stack([np.pad(clip, (0, lengths.max() - len(clip))) for clip in clips])

scores, frames = session.run(["log_probabilities", "frames"], {"audio": audio, "lengths": lengths})
for path, best, count in zip(paths, scores.argmax(axis=2), frames, strict=True):
    best = best[:count]
    written = best[(best != known["blank"]) & (best != np.r_[-1, best[:-1]])]  # runs are one symbol
    text = "".join(known["symbols"][symbol] for symbol in written)
    # Symbols may be parts of characters.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    print(path, " ".join(text.split()), sep="\t")
