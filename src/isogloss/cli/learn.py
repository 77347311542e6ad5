"""Verbs that train a model and evaluate it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isogloss.cli import terminal
from isogloss.cli.app import (
    BeamWidth,
    Device,
    JsonFile,
    LanguageModel,
    LanguageModelWeight,
    ModelFolder,
    app,
    listed,
)
from isogloss.evaluation.tasks import task_names

if TYPE_CHECKING:
    from isogloss.training.recipe import Recipe

Resume = Annotated[bool, typer.Option("--resume", help="continue an interrupted run")]
Minutes = Annotated[
    float | None, typer.Option(min=0.1, help="minutes of training, with as many steps as fit", show_default=False)
]
Processes = Annotated[
    int, typer.Option(min=1, help="processes that share the cores; small models train faster in several")
]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="YAML file, or name of a shipped recipe: see docs/recipes.md")],
    out: Annotated[Path, typer.Option(help="folder of the run", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="change a field of the recipe: stages.0.steps=500")
    ] = None,
    resume: Resume = False,
    minutes: Minutes = None,
    processes: Processes = 1,
) -> None:
    """Train a model from a recipe. The model is then in the sub-folder `model` of the run."""
    from isogloss.training.recipe import load_recipe

    print(_trained(load_recipe(recipe, overrides), out, processes, resume, minutes))


@app.command()
def finetune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help='model folder, "released", or weights of others: hf:FOLDER, ct2:FOLDER'
        ),
    ],
    data: Annotated[list[Path], typer.Option(help="prepared corpus; may be repeated", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder of the run", show_default=False)],
    languages: Annotated[str, typer.Option(help="only clips in these languages: ro,pt-BR")] = "",
    way: Annotated[
        Literal["adapters", "whole"] | None, typer.Option(help="what to train; by default the amount of data decides")
    ] = None,
    resume: Resume = False,
    minutes: Minutes = None,
    processes: Processes = 1,
) -> None:
    """Fine-tune a model on your speech. Chooses how from the amount of transcribed data, and says why."""
    from isogloss.adaptation.finetune import plan
    from isogloss.cli.exchange import imported
    from isogloss.interop.importing import is_foreign
    from isogloss.model.released import RELEASED, released_folder

    if is_foreign(model):
        start = imported(model, out / "imported")
    else:
        start = released_folder() if model == RELEASED else Path(model)
    chosen = plan(start, data, languages=tuple(listed(languages) or ()), way=way, minutes=minutes)
    for reason in chosen.reasons:
        terminal.note(reason)
    print(_trained(chosen.recipe, out, processes, resume, minutes))


def _trained(recipe: Recipe, out: Path, processes: int, resume: bool, minutes: float | None) -> Path:
    """The model folder of a run."""
    from isogloss.training.checkpoint import newest_checkpoint
    from isogloss.training.interruption import Interrupted
    from isogloss.training.launch import train_in_processes  # slow to import: a wrong recipe is told before it
    from isogloss.training.trainer import train as work

    try:
        if processes > 1:
            return train_in_processes(recipe, out, processes, resume=resume, minutes=minutes)
        return work(recipe, out, resume=resume, minutes=minutes, console=terminal.remarks())
    except Interrupted as end:
        _say_how_to_go_on(end.step)
        raise
    except KeyboardInterrupt:
        found = newest_checkpoint(out)
        _say_how_to_go_on(found.state["step"] if found else None)
        raise


def _say_how_to_go_on(step: int | None) -> None:
    """Once for all processes that torchrun started. step: of the last checkpoint."""
    if os.environ.get("RANK", "0") == "0":
        begin = "the beginning" if step is None else f"step {step}, where it was saved last"
        terminal.note(f"Give the same command with --resume to go on from {begin}.")


@app.command()
def label(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="prepared corpus with untranscribed clips")],
    teacher: Annotated[
        str, typer.Option(help="model folder, or ct2:FOLDER, a whole Whisper of CTranslate2", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    languages: Annotated[str, typer.Option(help="only clips in these languages: ro,pt-BR")] = "",
    confidence: Annotated[float, typer.Option(min=0, max=1, help="leave out texts less sure than this")] = 0.6,
    shortest: Annotated[float, typer.Option(min=0, help="leave out clips shorter than so many seconds")] = 1.0,
) -> None:
    """Transcribe untranscribed clips by a teacher. A student then learns from them as from transcripts."""
    from isogloss.adaptation import pseudo_labels

    with terminal.counting("Transcribing") as advance:
        card = pseudo_labels.label(
            data,
            pseudo_labels.teacher_named(teacher),
            out,
            name=Path(teacher.partition(":")[2] or teacher).resolve().name,
            languages=tuple(listed(languages) or ()),
            confidence=confidence,
            shortest=shortest,
            on_progress=lambda done, total: advance("clips", done, total),
        )
    reasons = ", ".join(f"{reason}: {count}" for reason, count in card["dropped"].items()) or "none"
    terminal.note(f"{card['clips']} clips, {card['hours']:.2f} h, have a text now. Left out: {reasons}.")
    print(out)


@app.command()
def lm(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
    texts: Annotated[
        list[Path] | None, typer.Argument(metavar="TEXT", help="text files, .txt or .jsonl, also .gz")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="prepared corpus, whose train texts are added; may be repeated")
    ] = None,
    language: Annotated[str | None, typer.Option(help="language of .txt files")] = None,
    order: Annotated[int, typer.Option(min=1, help="n of the n-gram model, in symbols")] = 6,
) -> None:
    """Train an n-gram language model over the symbols of a model."""
    from isogloss.training.language_model import train_language_model

    notes = train_language_model(model, out, texts=texts or [], data=data or [], language=language, order=order)
    terminal.note(" · ".join(f"{name}: {value}" for name, value in notes.items()))
    print(out)


@app.command()
def quantise(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="model folder")],
    out: Annotated[Path, typer.Option(help="folder to write", show_default=False)],
) -> None:
    """Store a model's weights as 8-bit integers. The result is about a quarter of the size and cannot be trained."""
    from isogloss.model.folder import WEIGHTS, quantise_model

    quantise_model(model, out)
    before, after = ((folder / WEIGHTS).stat().st_size / 1e6 for folder in (model, out))
    terminal.note(f"{before:.1f} MB of weights became {after:.1f} MB; isogloss evaluate says what that costs.")
    print(out)


TASKS = ", ".join(task_names())


@app.command()
def evaluate(
    model: ModelFolder,
    data: Annotated[list[Path], typer.Option(help="prepared corpus; may be repeated", show_default=False)],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"task to run; may be repeated; by default all that are possible: {TASKS}"),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="TASK.KEY=VALUE", help="options of tasks: retrieval.pool=200")
    ] = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="split to measure on")] = "test",
    languages: Annotated[str, typer.Option(help="only clips in these languages: ro,pt-BR")] = "",
    tell_language: Annotated[
        bool, typer.Option("--tell-language", help="give the model the language of each clip")
    ] = False,
    beam: BeamWidth = None,
    lm: LanguageModel = None,
    lm_weight: LanguageModelWeight = 0.5,
    json: JsonFile = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write an HTML report with figures, clips and training curves"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Evaluate a model on held-out speech. Error rates, languages, retrieval and more, with intervals and baselines."""
    from isogloss.evaluation.evaluate import evaluate as work
    from isogloss.evaluation.terminal import render
    from isogloss.files import require_writable, write_json
    from isogloss.training.hardware import choose_device

    if json:
        require_writable(json)
    if report:
        from isogloss.evaluation.report import require_report, write_report

        require_report(model.absolute().parent, report)
        if json and json.absolute() == report.with_suffix(".json").absolute():
            raise typer.BadParameter("the report writes a file of that name; choose another", param_hint="--json")
    with terminal.counting("Evaluating") as advance:
        found = work(
            model,
            data,
            tasks=task or (),
            options=options or (),
            split=split,
            languages=listed(languages),
            tell_language=tell_language,
            beam=beam,
            language_model=lm,
            weight=lm_weight,
            device=choose_device(device),
            on_progress=lambda name, done, total: advance(f"clips, {name}", done, total),
        )
    terminal.results().print(render(found))
    if json:
        write_json(json, found.plain())
    if report:
        write_report(model.absolute().parent, found, report)


@app.command()
def probe(
    model: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL",
            help="folder of a model, log_mel, mfcc, or random:PRESET; may be repeated",
            show_default=False,
        ),
    ],
    data: Annotated[list[Path], typer.Option(help="prepared corpus; may be repeated", show_default=False)],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="phones, language, speaker or concept; may be repeated; default language"),
    ] = None,
    other: Annotated[
        list[Path] | None, typer.Option(help="prepared corpus whose clips are all test clips, in place of the others")
    ] = None,
    languages: Annotated[str, typer.Option(help="only clips in these languages: ro,pt-BR")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="probes that are fitted, of which the mean is shown")] = 3,
    json: JsonFile = None,
    device: Device = "auto",
) -> None:
    """Probe what a representation holds. A linear layer on frozen states tells phones, languages, speakers."""
    from isogloss.evaluation.probing import parts_of
    from isogloss.evaluation.probing import probe as work
    from isogloss.evaluation.representations import representation
    from isogloss.evaluation.terminal import Printed
    from isogloss.files import require_writable, write_json
    from isogloss.training.hardware import choose_device

    if json:
        require_writable(json)
    named = [representation(name, choose_device(device)) for name in model]
    with terminal.counting("Probing") as advance:
        tables = work(
            named,
            task or ["language"],
            parts_of(data, other or [], listed(languages)),
            seeds=seeds,
            on_progress=lambda name, done, total: advance(f"clips, {name}", done, total),
        )
    where = ", ".join(folder.name for folder in [*data, *(other or [])])
    terminal.results().print(Printed(tables[0], f"{len(named)} representations", where))
    if json:
        write_json(json, {"tables": [table.plain() for table in tables]})


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for data, run, model and report")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="your own speech instead of the fetched corpus: anything prepare accepts")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="minutes of training; by default 6, from scratch 15.5")
    ] = None,
    languages: Annotated[str, typer.Option(help="only these languages: ro,bg")] = "",
    scratch: Annotated[
        bool, typer.Option("--scratch", help="do not start from the released model: pre-train, add text, fine-tune")
    ] = False,
) -> None:
    """Run everything on real speech. Fetches, fine-tunes or trains, evaluates, transcribes."""
    from isogloss.cli.demo import run_demo

    run_demo(out, data=data, languages=tuple(listed(languages) or ()), minutes=minutes, scratch=scratch)
