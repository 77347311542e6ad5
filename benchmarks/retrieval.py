"""Speech found by its text and text by its speech, layer by layer, beside what proves nothing.

    python benchmarks/retrieval.py --model runs/most/model --data data/tuxpaint --languages bg es ro ru
        --json benchmarks/results/retrieval.json                                   (in the project's environment)

The task `retrieval` of `isogloss evaluate`, with its options as arguments. With --across, clips are also to find what
they say in each of these languages, written and, where the data have it, spoken.
"""

from __future__ import annotations

from pathlib import Path

from common import environment, finish, parser
from rich.console import Console

from isogloss.data.manifests import SPLITS
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.terminal import render


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a model with a text encoder")
    arguments.add_argument("--data", type=Path, nargs="+", required=True, help="folders made by isogloss prepare")
    arguments.add_argument("--languages", nargs="+", required=True)
    arguments.add_argument("--split", choices=SPLITS, default="test")
    arguments.add_argument("--pool", type=int, default=1000, help="sentences in a pool")
    arguments.add_argument("--resamples", type=int, default=5, help="pools, where there are more sentences")
    arguments.add_argument("--across", nargs="+", default=[], help="languages to be found by clips of the others")
    options = arguments.parse_args()
    found = evaluate(
        options.model,
        options.data,
        tasks=["retrieval"],
        options=[f"retrieval.{name}={getattr(options, name)}" for name in ("pool", "resamples", "across")],
        split=options.split,
        languages=options.languages,
    )
    Console(width=200).print(render(found))
    finish(options.json, environment() | {"languages": options.languages, "evaluation": found.plain()})


if __name__ == "__main__":
    main()
