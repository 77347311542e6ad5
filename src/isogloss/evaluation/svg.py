"""Figures whose colours belong to the page: drawn by matplotlib, inlined as SVG.

Matplotlib wants fixed colours, the page has a light and a dark mode. So figures are drawn in marker
colours that occur nowhere else, and each marker becomes a CSS variable of the page.
"""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any, cast

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, QUIET, RULE, PAPER, ACCENT = (f"#a0b0c{number}" for number in range(5))
SERIES = tuple(f"#a0b0d{number}" for number in range(7))
"""Marker colours; the page holds a palette that colour-blind readers can tell apart (Okabe and Ito)."""

_VARIABLES = {INK: "ink", QUIET: "quiet", RULE: "rule", PAPER: "paper", ACCENT: "accent"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
WIDTH = 3.9
"""Inches of a figure that fills a phone's screen; the page shows two of them side by side elsewhere."""

FULL_REM = 33.0
"""How wide such a figure may grow, so that its letters stay about as large as the text."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: every script the reader's fonts have, and searchable
    "svg.hashsalt": "isogloss",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": INK,
}


def draw(
    name: str, label: str, paint: Callable[[Figure], None], *, width: float = WIDTH, height: float = 2.5
) -> Markup:
    """An inline <svg> that `paint` draws on an empty figure.

    name: unique on the page, made of letters and hyphens. label: what the figure shows, for readers
    who do not see it. width, height: inches.
    """
    with matplotlib.rc_context(cast(Any, _STYLE)), warnings.catch_warnings():
        # The page's fonts show the text, whatever matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Markup(_inlined(buffer.getvalue(), name, label))


def axes(figure: Figure) -> Axes:
    """The only axes of a figure."""
    only: Axes = figure.subplots()
    return only


def _inlined(svg: str, name: str, label: str) -> str:
    """Without XML prologue, metadata, namespaces and fixed size; ids that are unique on the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', body)
    assert view is not None
    full = float(view[1].split()[2]) / 72 / WIDTH * FULL_REM
    body = re.sub(r"<svg[^>]*>", "", body, count=1)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    # The fonts are the page's.
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", body)
    body = "\n".join(line.rstrip() for line in body.splitlines() if line.strip())
    attributes = f'viewBox="{view[1]}" style="max-width: {full:.1f}rem" role="img"'
    return f'<svg {attributes} aria-label="{escape(label, quote=True)}">\n{body}'
