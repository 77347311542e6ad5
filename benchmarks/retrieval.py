"""Speech found by its text and text by its speech, layer by layer, beside what proves nothing.

    python benchmarks/retrieval.py --model runs/most/model --data data/tuxpaint --languages bg es ro ru
        --json benchmarks/results/retrieval.json                                   (in the project's environment)

Held-out clips, one a sentence; cosine of mean states (isogloss.evaluation.retrieval). The block in which text enters is
the output of the two encoders alone, the last is that of the shared blocks. R@1, R@5 and MRR in %, mean and standard
deviation over the pools. With --across, clips are also to find what they say in each of these languages, written and,
where the data have it, spoken.
"""

from __future__ import annotations

from pathlib import Path

from common import environment, finish, parser, table

from isogloss.data.manifests import SPLITS, language_of, read_cuts
from isogloss.evaluation.retrieval import own, retrieve, spoken_too, translated
from isogloss.model.folder import load_model


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
    cuts = [cut for folder in options.data for cut in read_cuts(folder, options.split)]
    cuts = [cut for cut in cuts if language_of(cut) in options.languages]
    model = load_model(options.model)
    asked = {"own": own([cut for cut in cuts if language_of(cut) in model.config.text_languages])}
    for language in options.across:
        asked[f"written in {language}"] = translated(cuts, language)
        asked[f"spoken in {language}"] = spoken_too(cuts, language)
    found = {name: retrieve(model, pairs, options.pool, options.resamples) for name, pairs in asked.items() if pairs}
    rows = [{"what": name} | row.plain() for name, some in found.items() for row in some]
    table("retrieval", rows)
    finish(options.json, environment() | {"languages": options.languages, "rows": rows})


if __name__ == "__main__":
    main()
