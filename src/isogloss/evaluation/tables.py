"""An evaluation as tables for the terminal, and the words that all ways of showing it share."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isogloss.evaluation.figures import ALL, FEW, Evaluation, Identification, Mean, Rate, Recognition
from isogloss.text.languages import language_name

CONFUSIONS = 5


def percent(figure: Rate | Mean | float | None) -> str:
    """`12.3 %`, or a dash for what is not defined."""
    if figure is None:
        return "–"
    return f"{100 * (figure if isinstance(figure, float) else figure.value):.1f} %"


def span(figure: Rate | Mean | Identification | None) -> str:
    """The interval, `11.0 – 13.8`, in percent."""
    return "" if figure is None else f"{100 * figure.low:.1f} – {100 * figure.high:.1f}"


def name_of(tag: str) -> str:
    """A language's English name."""
    return "unknown" if tag == "und" else language_name(tag)


def where(evaluation: Evaluation) -> str:
    """What was evaluated: `tuxpaint, klettres (test)`."""
    names = ", ".join(Path(folder).name for folder in evaluation.conditions.data)
    return f"{names} ({evaluation.conditions.split})"


def confusions(figures: Identification) -> list[tuple[str, str, int]]:
    """(spoken, guessed, clips) of the mistakes, most frequent first."""
    cells = [
        (spoken, guessed, count)
        for spoken, row in zip(figures.labels, figures.confusion, strict=True)
        for guessed, count in zip(figures.labels, row, strict=True)
        if spoken != guessed and count
    ]
    return sorted(cells, key=lambda cell: (-cell[2], cell[0], cell[1]))


def limits(evaluation: Evaluation) -> list[str]:
    """What a reader must know before trusting the figures, a sentence each."""
    conditions = evaluation.conditions
    few = [tag for tag, figures in evaluation.languages.items() if figures.clips < FEW]
    unheard = [name for name, (_, trained) in evaluation.sources.items() if trained is False]
    trained = conditions.trained_sources
    said = []
    if conditions.broken:
        causes = ", ".join(f"{cause} {count}" for cause, count in conditions.broken.items())
        said.append(f"{sum(conditions.broken.values())} clips could not be read and are left out ({causes}).")
    if conditions.trained_clips:
        said.append(f"{conditions.trained_clips} of the clips were trained on: they say nothing about new speech.")
    if few:
        said.append(f"Fewer than {FEW} clips in {', '.join(few)}: their intervals are too narrow.")
    if unheard:
        said.append(f"Not trained on: {', '.join(unheard)}.")
    if trained is None:
        said.append("Which corpora were trained on is not known here: same and other sources are not told apart.")
    elif evaluation.identification and not unheard:
        said.append(
            "All clips are from corpora that were also trained on (other sentences): language identification "
            "may rest on voices and microphones."
        )
    untaught = [tag for tag in evaluation.languages if tag not in conditions.known_languages]
    if untaught and conditions.known_languages:
        said.append(
            f"The system does not know {', '.join(untaught)}: their clips count in error rates, not in "
            "language identification."
        )
    if conditions.search:
        said.append(f"The system searched with {conditions.search}.")
    if conditions.language_told:
        said.append("The system was told which language is spoken.")
    return said


def render(evaluation: Evaluation) -> RenderableType:
    """What `isogloss evaluate` prints."""
    parts: list[RenderableType] = []
    if evaluation.languages:
        parts.append(_recognition_table(evaluation))
    if evaluation.identification:
        parts.append(_identification_table(evaluation))
    tables = (Padding(table, (0, 0, 1, 0)) for table in parts)
    return Group(*tables, *(Padding(line, (0, 1)) for line in _closing(evaluation)))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1))


def _number_column(table: Table, name: str, *, quiet: bool) -> None:
    style = "dim" if quiet else ""
    table.add_column(name, justify="right", style=style, header_style="dim", no_wrap=True)


def _recognition_table(evaluation: Evaluation) -> Table:
    table = _table(f"{evaluation.conditions.system}: recognition on {where(evaluation)}")
    table.add_column("language", header_style="dim", no_wrap=True)
    for name in ("clips", "CER", "95 %", "WER", "95 %"):
        _number_column(table, name, quiet=name not in ("CER", "WER"))
    for tag, figures in evaluation.languages.items():
        table.add_row(Text.assemble(name_of(tag), (f" {tag}", "dim")), *_cells(figures))
    table.add_section()
    if evaluation.mean_cer is not None:
        mean = evaluation.mean_cer
        value = Text(percent(mean), "bold cyan")
        table.add_row("mean of languages", "", value, span(mean), "", "", style="bold")
    if evaluation.overall is not None:
        table.add_row("all clips as one", *_cells(evaluation.overall))
    return table


def _cells(figures: Recognition) -> tuple[str, ...]:
    few = "*" if figures.clips < FEW else ""
    return (
        f"{figures.clips}{few}",
        percent(figures.cer),
        span(figures.cer),
        percent(figures.wer),
        span(figures.wer),
    )


def _identification_table(evaluation: Evaluation) -> Table:
    table = _table(f"{evaluation.conditions.system}: which language is it?")
    table.add_column("clips from", header_style="dim", no_wrap=True)
    for name in ("clips", "accuracy", "95 %", "macro F1", "chance", "most frequent"):
        _number_column(table, name, quiet=name not in ("accuracy", "macro F1"))
    for group, figures in evaluation.identification.items():
        table.add_row(
            "all sources" if group == ALL else group,
            str(figures.clips),
            Text(percent(figures.accuracy), "bold cyan"),
            span(figures),
            percent(figures.macro_f1),
            percent(figures.chance),
            f"{percent(figures.majority)} ({figures.majority_language})",
        )
    return table


def _closing(evaluation: Evaluation) -> list[Text]:
    conditions = evaluation.conditions
    lines = []
    if evaluation.overall is not None:
        cer, wer = percent(evaluation.overall.cer_raw), percent(evaluation.overall.wer_raw)
        lines.append(Text(f"Without text normalisation, all clips as one: CER {cer}, WER {wer}."))
    if (sure := evaluation.confidence) is not None:
        lines.append(
            Text(
                f"Words: {percent(sure.right)} are right, the system claims {percent(sure.claimed)} on average; "
                f"expected calibration error {percent(sure.error)}."
            )
        )
    if ALL in evaluation.identification:
        mistakes = confusions(evaluation.identification[ALL])[:CONFUSIONS]
        told = ", ".join(f"{spoken} → {guessed} ({count})" for spoken, guessed, count in mistakes)
        lines.append(Text(f"Most frequent mistakes: {told or 'none'}."))
    speed = evaluation.real_time_factor
    facts = [
        f"{evaluation.clips} clips",
        f"{evaluation.seconds / 60:.1f} min",
        f"real-time factor {speed:.3f}" if speed else "",
        f"data {conditions.fingerprint[:12]}",
        f"text normalisation {conditions.normaliser}",
        " ".join(f"{name} {version}" for name, version in conditions.versions.items()),
    ]
    lines += [Text(f"Note: {sentence}", "yellow") for sentence in limits(evaluation)]
    return [*lines, Text(" · ".join(fact for fact in facts if fact), "dim")]
