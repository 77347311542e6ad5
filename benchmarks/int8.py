"""int8 weights: what they save, and what they cost.

    python benchmarks/int8.py --model DIR --data DIR… --json benchmarks/results/int8.json
                                                                           (in the project's environment)

The same clips, in the languages that the model writes, are read by it and by itself with int8 weights, frame by frame,
the language told. `± CER` is the difference on the same clips with the 95 % interval of the paired bootstrap, languages
together; above 0 int8 is worse.
Time is of the whole evaluation, with reading the files.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from common import environment, finish, parser, rate, table

from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.predictions import errors
from isogloss.metrics.bootstrap import paired_difference
from isogloss.metrics.error_rates import ErrorCounts
from isogloss.model.folder import WEIGHTS, load_model, quantise_model


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="isogloss model folder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    options = arguments.parse_args()
    languages = list(load_model(options.model).config.alphabets)
    with tempfile.TemporaryDirectory() as temporary:
        small = Path(temporary) / "int8"
        quantise_model(options.model, small)
        folders = {"float32": options.model, "int8": small}
        rows: list[dict[str, Any]] = []
        counts: dict[str, ErrorCounts] = {}
        for name, folder in folders.items():
            began = time.perf_counter()
            asked: dict[str, Any] = {"tasks": ["recognition"], "languages": languages, "tell_language": True, "beam": 1}
            predictions = evaluate(folder, options.data, **asked).predictions
            taken = time.perf_counter() - began
            counts[name] = errors([prediction for prediction in predictions if prediction.scored])
            size = round((folder / WEIGHTS).stat().st_size / 1e6, 1)
            about = {"weights": name, "MB": size, "clips": len(predictions), "s": round(taken, 1)}
            rows.append(about | rate(counts[name], digits=2))
    exact, rounded = counts["float32"], counts["int8"]
    found = paired_difference(rounded.errors, exact.errors, exact.totals)
    rows[-1]["± CER"] = round(100 * found.difference, 2)
    rows[-1]["± 95 %"] = f"{100 * found.interval.low:+.2f} – {100 * found.interval.high:+.2f}"
    table("int8 weights", rows)
    finish(options.json, environment() | {"rows": rows})


if __name__ == "__main__":
    main()
