"""The plots of a run: how losses and error rates changed while it was trained."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from isogloss.evaluation.history import Curve, StageHistory
from isogloss.evaluation.svg import INK, RULE, SERIES, axes, draw


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
