"""`isogloss demo`: a recogniser of your own with honest figures, in minutes.

    fetch ── prepare ──┬── fine-tune the released model ─────────────────────┬── n-gram model ── evaluate ── report.html
                       └── pre-train (BEST-RQ) ── add text (MOST) ── fine-tune

The second way is that of `--scratch`, and of machines without the released model. Each step leaves a folder in `out`
and is skipped where its result lies there already.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from isogloss.adaptation.finetune import plan
from isogloss.data.manifests import CARD
from isogloss.data.prepare import prepare
from isogloss.errors import counted
from isogloss.evaluation.card import add_figures
from isogloss.evaluation.evaluate import evaluate
from isogloss.evaluation.report import write_report
from isogloss.evaluation.results import Evaluation
from isogloss.evaluation.terminal import render
from isogloss.model.folder import LANGUAGE_MODEL
from isogloss.model.released import find_released
from isogloss.training.interruption import Interrupted
from isogloss.training.language_model import train_language_model
from isogloss.training.launch import train_in_processes, useful_processes
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.source import read_texts

RECIPE, WITHOUT_TEXT = "most-tiny", "usm-tiny"
LANGUAGES = ("be", "el", "es", "ro")
"""Three scripts; the first two languages are weak in larger systems, the others well known to them."""
CORPUS, OTHER = "tuxpaint", "ktuberling"
SHOWN = 6
MINUTES, SCRATCH_MINUTES = 6.0, 15.5


@dataclass(frozen=True)
class Demo:
    """Where things lie, and what was asked for. start: the model to fine-tune, None to train from the beginning."""

    out: Path
    data: Path | None
    languages: tuple[str, ...]
    minutes: float
    start: Path | None
    console: Console

    def step(self, text: str) -> None:
        self.console.print(f"\n[bold cyan]●[/] [bold]{escape(text)}[/]", highlight=False)


def run_demo(
    out: Path,
    *,
    data: Path | None = None,
    languages: tuple[str, ...] = (),
    minutes: float | None = None,
    scratch: bool = False,
    console: Console | None = None,
) -> Path:
    """Fetch, train and evaluate; returns the model folder.

    data: the user's own folder of audio and transcripts instead of the fetched corpus. languages:
    only these. minutes: how long training may take here; the number of steps follows from it. scratch: do not start
    from the released model.
    """
    began = time.monotonic()
    chosen = languages or (() if data else LANGUAGES)
    start = None if scratch else find_released()
    minutes = minutes or (MINUTES if start else SCRATCH_MINUTES)
    demo = Demo(out.absolute(), data, chosen, minutes, start, console or Console())
    corpora = _prepare(demo)
    model = _train(demo, corpora[0])
    _add_language_model(demo, model, corpora[0])
    demo.step("Evaluate on held-out speech: sentences that training never had, in any language")
    evaluation = evaluate(model, corpora)
    demo.console.print(render(evaluation))
    add_figures(model, evaluation)
    report = demo.out / "report.html"
    write_report(demo.out / "run", evaluation, report)
    _show_examples(demo, evaluation)
    _say_goodbye(demo, model, report, time.monotonic() - began)
    return model


def _prepare(demo: Demo) -> list[Path]:
    """The corpus to train on, and one of other speakers for a model that learns to identify languages."""
    if demo.data is not None:
        return [_prepared(demo, str(demo.data), "own", demo.languages)]
    learned = _prepared(demo, CORPUS, CORPUS, demo.languages)
    if demo.start is not None:
        return [learned]
    return [learned, _prepared(demo, OTHER, OTHER, demo.languages, dev=0.0, test=1.0)]


def _prepared(
    demo: Demo, source: str, name: str, languages: tuple[str, ...], dev: float = 0.1, test: float = 0.1
) -> Path:
    folder = demo.out / "data" / name
    if (folder / CARD).exists():
        demo.step(f"{name}: prepared already in {folder}")
        return folder
    demo.step(f"Fetch and prepare {source}")
    with demo.console.status(f"Preparing {name}") as status:
        card = prepare(
            source,
            folder,
            languages=languages or None,
            dev=dev,
            test=test,
            on_progress=lambda stage, done: status.update(f"{stage} · {done}"),
        )
    clips, minutes = counted(card["clips"], "clip"), counted(round(card["hours"] * 60), "minute")
    demo.console.print(f"  {clips}, {minutes}, {counted(len(card['languages']), 'language')}")
    return folder


def _train(demo: Demo, corpus: Path) -> Path:
    """Pre-train and fine-tune for about `minutes`; goes on where a cut-off run stopped."""
    run = demo.out / "run"
    if (run / "model").exists():
        demo.step(f"Trained already: {run / 'model'}")
        return run / "model"
    resume = (run / "checkpoints").exists()
    minutes = counted(round(demo.minutes), "minute")
    if resume:
        demo.step("Resume the training that was interrupted")
    elif demo.start:
        demo.step(f"Fine-tune the released model for about {minutes}; --scratch would train one from the beginning")
    else:
        demo.step(f"Train for about {minutes}: pre-train on speech, add text, fine-tune on transcribed speech")
    recipe = _recipe(corpus, demo.languages) if demo.start is None else _fine_tuning(demo, corpus)
    try:
        return train_in_processes(recipe, run, useful_processes(recipe), resume=resume, minutes=demo.minutes)
    except Interrupted as end:
        demo.console.print(f"  Give the same command to go on from step {end.step}, where it was saved last.")
        raise


def _recipe(corpus: Path, languages: tuple[str, ...]) -> Recipe:
    """With unspoken text where the corpus has some, which Tux Paint's captions without a recording are."""
    for name in (RECIPE, WITHOUT_TEXT):
        recipe = load_recipe(name)
        data = recipe.data.model_copy(update={"folders": (corpus,), "languages": languages})
        if name == WITHOUT_TEXT or read_texts(data):
            break
    return recipe.model_copy(update={"data": data})


def _fine_tuning(demo: Demo, corpus: Path) -> Recipe:
    """That of `isogloss finetune released`, with its reasons."""
    assert demo.start is not None
    chosen = plan(demo.start, [corpus], languages=demo.languages, minutes=demo.minutes)
    known = [] if demo.data else ["The released model was trained on this corpus too; --data takes speech new to it."]
    for reason in [*known, *chosen.reasons]:
        demo.console.print(f"  {escape(reason)}", highlight=False)
    return chosen.recipe


def _add_language_model(demo: Demo, model: Path, corpus: Path) -> None:
    """An n-gram model of the training transcripts and the unspoken text, in the model's folder."""
    folder = model / LANGUAGE_MODEL
    if not folder.exists():
        demo.step("Train an n-gram model on the training transcripts and the unspoken text")
        train_language_model(model, folder, texts=[], data=[corpus])


def _show_examples(demo: Demo, evaluation: Evaluation) -> None:
    """A few held-out clips, reference above hypothesis."""
    demo.step("Held-out clips")
    table = Table("language", "identified", "reference / hypothesis", box=None, pad_edge=False)
    transcribed = [p for p in evaluation.predictions if p.reference and p.hypothesis is not None]
    for prediction in transcribed[:: max(1, len(transcribed) // SHOWN)][:SHOWN]:
        both = f"[dim]{escape(prediction.reference or '')}[/]\n{escape(prediction.hypothesis or '')}"
        table.add_row(prediction.language, prediction.guess or "", both)
    demo.console.print(table)


def _say_goodbye(demo: Demo, model: Path, report: Path, seconds: float) -> None:
    demo.step(f"Done in {counted(round(seconds / 60), 'minute')}")
    demo.console.print(
        f"  report   {report}\n"
        f"  model    {model}\n\n"
        "Try next:\n"
        f"  isogloss transcribe --model {model} YOUR.wav\n"
        f"  isogloss identify {'' if demo.start else f'--model {model} '}YOUR.wav\n"
        "  isogloss demo --data FOLDER --out my-demo      your own speech: clip.wav beside clip.txt\n"
        "  isogloss train usm-small --out runs/usm-small  a larger model, more corpora",
        highlight=False,
        soft_wrap=True,
    )

