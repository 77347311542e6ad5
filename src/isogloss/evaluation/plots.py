"""The plots of a report: learning curves, error rates by language, confusion of languages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from isogloss.evaluation.figures import Evaluation, Identification, Rate
from isogloss.evaluation.history import Curve, StageHistory
from isogloss.evaluation.svg import ACCENT, INK, PAPER, RULE, SERIES, axes, draw
from isogloss.evaluation.tables import name_of

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WORST = 1.5
"""Error rates beyond this are drawn at the edge, with their value."""
NUMBERED = 12
"""Up to so many languages a confusion matrix has numbers in its cells."""


def losses(stage: StageHistory, name: str) -> Markup:
    """Training loss of a stage with its spread, and the loss on the dev split."""

    def paint(figure: Figure) -> None:
        ax = axes(figure)
        curve, looks = stage.curve("loss"), stage.looks("loss")
        if curve is not None:
            _draw_curve(ax, curve, SERIES[0], "training")
        if looks:
            ax.plot(*zip(*looks, strict=True), "o-", color=SERIES[1], markersize=3, linewidth=1, label="dev")
        ax.legend(loc="upper right")
        _label(ax, "loss (nats)")

    return draw(name, f"Loss over the steps of stage {stage.name}", paint)


def curve(stage: StageHistory, key: str, name: str, label: str, *, share: bool = False) -> Markup:
    """Any other quantity of the training log; share: shown in percent."""

    def paint(figure: Figure) -> None:
        ax = axes(figure)
        found = stage.curve(key)
        if found is not None:
            _draw_curve(ax, found, SERIES[2], None)
            ax.set_ylim(bottom=0)
        if share:
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _label(ax, label)

    return draw(name, f"{label} over the steps of stage {stage.name}", paint)


def dev_error_rates(stage: StageHistory, name: str) -> Markup:
    """Dev CER over steps: a line a language while colours last, else grey lines and their mean."""
    languages = stage.languages()

    def paint(figure: Figure) -> None:
        ax = axes(figure)
        few = len(languages) <= len(SERIES)
        ends = []
        for number, tag in enumerate(languages):
            looks = stage.looks(f"cer/{tag}")
            colour = SERIES[number] if few else RULE
            style: dict[str, Any] = {"color": colour, "linewidth": 1.2, "markersize": 2.5}
            ax.plot(*zip(*looks, strict=True), marker="o" if few else "", **style)
            if few:
                ends.append((looks[-1], tag, colour))
        mean = stage.looks("cer")
        if len(languages) > 1 and mean:
            dashes = (0, (4, 1.5)) if few else "-"
            ax.plot(*zip(*mean, strict=True), color=INK, linewidth=2.2, linestyle=dashes)
            ends.append((mean[-1], "mean", INK))
        ax.set_ylim(0, min(1.05, ax.get_ylim()[1]))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _label(ax, "CER on the dev split")
        _label_ends(ax, ends)

    return draw(name, f"Character error rate on the dev split over the steps of stage {stage.name}", paint)


def error_rates(systems: dict[str, Evaluation], name: str) -> Markup:
    """CER by language with intervals: bars for the first system, markers for the others."""
    first = next(iter(systems.values()))
    tags = sorted(first.languages, key=lambda tag: _value(first.languages[tag].cer), reverse=True)
    rates = [e.languages[tag].cer for e in systems.values() for tag in tags if tag in e.languages]
    edge = min(WORST, 1.04 * max([rate.high for rate in rates if rate is not None] or [0.1]))

    def paint(figure: Figure) -> None:
        ax = axes(figure)
        rows = np.arange(len(tags))
        shares = [first.languages[tag].cer for tag in tags]
        ax.barh(rows, [_value(rate) for rate in shares], height=0.62, color=ACCENT, alpha=0.35, linewidth=0)
        for number, evaluation in enumerate(systems.values()):
            offset = 0.56 * ((len(systems) - 1) / 2 - number) / len(systems)
            for row, tag in zip(rows, tags, strict=True):
                rate = evaluation.languages[tag].cer if tag in evaluation.languages else None
                if rate is not None:
                    _draw_rate(ax, rate, row + offset, number, edge)
        ax.set_yticks(rows, [name_of(tag) for tag in tags], color=INK)
        ax.grid(axis="x")
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        ax.set_xlim(0, edge)
        ax.set_ylim(-0.6, len(tags) - 0.4)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xlabel("character error rate, with 95 % interval")
        if len(systems) > 1:
            # Points of its own: a system whose every rate lies beyond the edge has none in the picture.
            points = [ax.plot([], [], label=label, **_point(i))[0] for i, label in enumerate(systems)]
            figure.legend(handles=points, loc="outside upper left", ncols=2, handletextpad=0.4, columnspacing=1.2)

    height = 0.75 + len(tags) * max(0.26, 0.13 * len(systems)) + 0.16 * ((len(systems) + 1) // 2)
    return draw(name, "Character error rate by language", paint, height=height)


def confusion(figures: Identification, name: str) -> Markup:
    """Which language was taken for which: rows are spoken, columns guessed, depth is the share of a row."""
    counts = np.array(figures.confusion, dtype=np.float64)
    spoken = counts.sum(axis=1) > 0
    counts, rows = counts[spoken], [tag for tag, any_ in zip(figures.labels, spoken, strict=True) if any_]
    shares = counts / counts.sum(axis=1, keepdims=True)

    numbered = len(figures.labels) <= NUMBERED
    cell = min(0.42, 3.2 / len(figures.labels))

    def paint(figure: Figure) -> None:
        ax = axes(figure)
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            colour = ACCENT if rows[row] == figures.labels[column] else SERIES[1]
            fill = {"facecolor": colour, "alpha": 0.12 + 0.88 * share, "linewidth": 0}
            ax.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **fill))
            if numbered:
                style: dict[str, Any] = {
                    "color": PAPER if share > 0.55 else INK,
                    "ha": "center",
                    "va": "center",
                    "fontsize": 7,
                }
                ax.text(column, row, f"{counts[row, column]:.0f}", **style)
        ax.set(xlim=(-0.5, len(figures.labels) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal")
        size = max(4.5, min(8.0, 0.62 * 72 * cell))
        ax.set_xticks(range(len(figures.labels)), figures.labels, fontsize=size)
        ax.set_yticks(range(len(rows)), rows, fontsize=size)
        ax.tick_params(length=0, labelcolor=INK)
        ax.tick_params("x", rotation=0 if numbered else 90)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("language guessed")
        ax.set_ylabel("language spoken")

    width, height = 0.75 + cell * len(figures.labels), 0.6 + cell * len(rows)
    return draw(name, "Confusion matrix of languages", paint, width=width, height=height)


def _draw_curve(ax: Axes, curve: Curve, colour: str, label: str | None) -> None:
    ax.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(curve.steps, curve.means, color=colour, label=label)


def _label(ax: Axes, title: str) -> None:
    """The y axis is named above the plot, where it reads without turning the head."""
    ax.set_title(title, loc="left", color=INK)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    ax.margins(x=0.01)


def _label_ends(ax: Axes, ends: Sequence[tuple[tuple[int, float], str, str]]) -> None:
    """Names at the right ends of lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    ranked = sorted(ends, key=lambda end: end[0][1])
    places = _apart([value for (_, value), _, _ in ranked], 0.07 * (high - low), high)
    for ((step, _), text, colour), place in zip(ranked, places, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": colour}
        ax.annotate(text, (step, place), xytext=(5, 0), annotation_clip=False, **style)


def _apart(values: list[float], gap: float, high: float) -> list[float]:
    """Rising values at least `gap` apart and, where there is room, none above `high`."""
    places = list(values)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    limit = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


def _draw_rate(ax: Axes, rate: Rate, row: float, number: int, edge: float) -> None:
    style = _point(number)
    if rate.value > edge:
        ax.annotate(f"{rate.value:.0%} →", (edge, row), ha="right", va="center", color=style["color"], fontsize=7)
        return
    ax.plot([rate.low, min(rate.high, edge)], [row, row], color=style["color"], linewidth=1)
    ax.plot([rate.value], [row], clip_on=False, **style)


def _point(number: int) -> dict[str, Any]:
    """How the rates of system `number` are drawn."""
    return {
        "color": INK if number == 0 else SERIES[number % len(SERIES)],
        "linestyle": "",
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
    }


def _value(rate: Rate | None) -> float:
    return rate.value if rate is not None else 0.0
