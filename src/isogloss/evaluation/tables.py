"""An evaluation as tables for the terminal, and the words that all ways of showing it share."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isogloss.evaluation.figures import ALL, FEW, Evaluation, Identification, Mean, Rate, Recognition
from isogloss.text.languages import language_name

CONFUSIONS = 5


def percent(value: float | None) -> str:
    """`12.3 %`, or a dash for what is not defined."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(figure: Rate | Mean | Identification | None) -> str:
    """The interval, `11.0 – 13.8`, in percent."""
    return "" if figure is None else f"{100 * figure.low:.1f} – {100 * figure.high:.1f}"


def name_of(tag: str) -> str:
    """A language's English name."""
    return "unknown" if tag == "und" else language_name(tag)


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
    said = [
        f"{sum(conditions.broken.values())} clips could not be read and are left out "
        f"({', '.join(f'{cause} {count}' for cause, count in conditions.broken.items())})."
        if conditions.broken
        else "",
        f"{conditions.trained_clips} of these clips were trained on: the figures say nothing about new speech."
        if conditions.trained_clips
        else "",
        f"Fewer than {FEW} clips in {', '.join(few)}: their intervals are too narrow." if few else "",
        "Which corpora the model was trained on is not known here, so figures do not tell same and other "
        "sources apart."
        if conditions.trained_sources is None
        else "",
        f"Not trained on: {', '.join(unheard)}." if unheard else "",
        "All clips are from corpora that were also trained on (other sentences): language identification may rest "
        "on voices and microphones."
        if conditions.trained_sources is not None and not unheard and evaluation.identification
        else "",
        "The system was told which language is spoken." if conditions.language_told else "",
    ]
    return [sentence for sentence in said if sentence]


def render(evaluation: Evaluation) -> RenderableType:
    """What `isogloss evaluate` prints."""
    parts: list[RenderableType] = []
    if evaluation.languages:
        parts.append(_recognition_table(evaluation))
    if evaluation.identification:
        parts.append(_identification_table(evaluation))
    return Group(*parts, *(Padding(line, (0, 1)) for line in _closing(evaluation)))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=True, padding=(0, 1))


def _recognition_table(evaluation: Evaluation) -> Table:
    table = _table(f"{evaluation.conditions.system}: recognition ({evaluation.conditions.split})")
    table.add_column("language", header_style="dim", no_wrap=True)
    for name in ("clips", "minutes", "CER", "95 %", "WER", "95 %", "raw CER", "raw WER"):
        quiet = name in ("clips", "minutes", "95 %", "raw CER", "raw WER")
        table.add_column(name, justify="right", style="dim" if quiet else "", header_style="dim", no_wrap=True)
    for tag, figures in evaluation.languages.items():
        table.add_row(Text.assemble(name_of(tag), (f" {tag}", "dim")), *_cells(figures))
    table.add_section()
    if evaluation.mean_cer is not None:
        mean = evaluation.mean_cer
        table.add_row(
            "mean of languages", "", "", Text(percent(mean.value), "bold cyan"), span(mean), *[""] * 4, style="bold"
        )
    if evaluation.overall is not None:
        table.add_row("all clips as one", *_cells(evaluation.overall))
    return table


def _cells(figures: Recognition) -> tuple[str, ...]:
    few = "*" if figures.clips < FEW else ""
    return (
        f"{figures.clips}{few}",
        f"{figures.seconds / 60:.1f}",
        percent(figures.cer and figures.cer.value),
        span(figures.cer),
        percent(figures.wer and figures.wer.value),
        span(figures.wer),
        percent(figures.cer_raw and figures.cer_raw.value),
        percent(figures.wer_raw and figures.wer_raw.value),
    )


def _identification_table(evaluation: Evaluation) -> Table:
    table = _table(f"{evaluation.conditions.system}: which language is it?")
    table.add_column("clips from", header_style="dim", no_wrap=True)
    for name in ("clips", "accuracy", "95 %", "macro F1", "chance", "most frequent"):
        quiet = name in ("clips", "95 %", "chance", "most frequent")
        table.add_column(name, justify="right", style="dim" if quiet else "", header_style="dim", no_wrap=True)
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
    if ALL in evaluation.identification:
        mistakes = confusions(evaluation.identification[ALL])[:CONFUSIONS]
        told = ", ".join(f"{spoken} → {guessed} ({count})" for spoken, guessed, count in mistakes)
        lines.append(Text(f"Most frequent mistakes: {told}." if told else "No language was mistaken for another."))
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
