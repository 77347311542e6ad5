"""The released model beside Whisper base on the same clips, corpus by corpus, from transcripts made before.

    isogloss evaluate --model MODEL --data DIR --task recognition --tell-language --json released/CORPUS.json
    python benchmarks/whisper_base.py --data DIR --limit 32 --json whisper/CORPUS.json    (in the peers' environment)
    python benchmarks/released.py --model released=released 'frame by frame'=greedy --hypotheses whisper
        --json benchmarks/results/released.json

Each name is a folder with a file a corpus. Every system is told the language; both texts are normalised alike; only
clips count that all have transcribed. `± first` is as in `recognition.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import environment, finish, parser, table
from recognition import Predictions, compare, from_file

from isogloss.evaluation.predictions import Prediction
from isogloss.files import read_json
from isogloss.text.normalise import NORMALISER_VERSION


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", nargs="+", required=True, metavar="NAME=DIR", help="files of isogloss evaluate")
    arguments.add_argument("--hypotheses", type=Path, required=True, help="folder with files of whisper_base.py")
    options = arguments.parse_args()
    models = {name: Path(folder) for name, _, folder in (model.partition("=") for model in options.model)}
    rows: list[dict[str, Any]] = []
    for file in sorted(options.hypotheses.glob("*.json")):
        peer = read_json(file)
        systems = {name: from_evaluation(folder / file.name) for name, folder in models.items()}
        found = compare(systems | {peer["system"]: from_file(peer)})
        table(f"{file.stem}: CER in %", found)
        rows += [{"corpus": file.stem} | row for row in found]
    finish(options.json, environment() | {"normaliser": NORMALISER_VERSION, "rows": rows})


def from_evaluation(file: Path) -> Predictions:
    """The predictions of an evaluation that `isogloss evaluate --json` wrote."""
    made = [Prediction(**value) for value in read_json(file)["predictions"]]
    return {prediction.key: prediction for prediction in made}


if __name__ == "__main__":
    main()
