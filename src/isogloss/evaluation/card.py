"""Figures on the model card: what an evaluation found, written into the model folder's README.md."""

import re
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.evaluation.figures import ALL, Evaluation, Mean, Rate
from isogloss.evaluation.tables import limits, name_of, percent, span, where
from isogloss.files import write_text
from isogloss.model.folder import CARD

END = "<!-- end of isogloss figures -->"


def add_figures(model_folder: Path, evaluation: Evaluation) -> None:
    """Write the figures into the card, in place of earlier ones on the same data; the rest stays.

    Raises IsoglossError if the folder has no card.
    """
    path = model_folder / CARD
    try:
        card = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise IsoglossError(f"{path} is missing or no UTF-8 text; restore it.") from None
    begin = f"<!-- isogloss figures: {where(evaluation)} -->"
    card = re.sub(f"{re.escape(begin)}.*?{re.escape(END)}\n*", "", card, flags=re.DOTALL)
    block = f"{begin}\n{figures_as_markdown(evaluation)}{END}\n\n"
    before, heading, after = card.partition("## Limits")
    if heading:
        write_text(path, before + block + heading + after)
    else:
        write_text(path, f"{card.rstrip()}\n\n{block}".lstrip())


def figures_as_markdown(evaluation: Evaluation) -> str:
    """The section `## Figures on …` of a model card."""
    conditions = evaluation.conditions
    parts = [
        f"## Figures on {where(evaluation)}\n",
        f"{evaluation.clips} clips, {evaluation.seconds / 60:.1f} minutes "
        f"(fingerprint `{conditions.fingerprint[:16]}`). In brackets 95 % intervals: bootstrap over clips "
        f"for error rates, Wilson for accuracy. Texts are normalised ({conditions.normaliser}) unless said "
        "raw.\n",
    ]
    if evaluation.languages:
        parts.append(_recognition(evaluation))
    if evaluation.identification:
        parts.append(_identification(evaluation))
    parts.append("".join(f"- {sentence}\n" for sentence in [*limits(evaluation), *_always(evaluation)]))
    return "\n".join(parts)


def _recognition(evaluation: Evaluation) -> str:
    rows = []
    for tag, figures in evaluation.languages.items():
        rows.append([f"{name_of(tag)} (`{tag}`)", str(figures.clips)])
        rows[-1] += [_bracketed(rate) for rate in (figures.cer, figures.wer, figures.cer_raw, figures.wer_raw)]
    mean = evaluation.mean_cer
    if mean is not None:
        rows.append(["**mean of languages**", "", f"**{_bracketed(mean)}**", "", "", ""])
    return _table(["language", "clips", "CER", "WER", "CER, raw", "WER, raw"], rows)


def _identification(evaluation: Evaluation) -> str:
    rows = [
        [
            "all sources" if group == ALL else group,
            str(figures.clips),
            f"{percent(figures.accuracy)} [{span(figures)}]",
            percent(figures.macro_f1),
            percent(figures.chance),
            f"{percent(figures.majority)} (`{figures.majority_language}`)",
        ]
        for group, figures in evaluation.identification.items()
    ]
    heads = ["language identified", "clips", "accuracy", "macro F1", "chance", "always the most frequent"]
    return _table(heads, rows)


def _bracketed(figure: Rate | Mean | None) -> str:
    return percent(figure) if figure is None else f"{percent(figure)} [{span(figure)}]"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _always(evaluation: Evaluation) -> list[str]:
    """What holds for every evaluation."""
    speed = evaluation.real_time_factor
    used = ", ".join(f"{name} {version}" for name, version in evaluation.conditions.versions.items())
    return [
        "Intervals take clips as independent; clips of one speaker are not, so they are rather too narrow.",
        f"Measured with {used}." + (f" {speed:.3f} seconds of work a second of audio." if speed else ""),
    ]
