"""Verbs about this installation."""

from __future__ import annotations

import typer

from isogloss.cli import terminal
from isogloss.cli.app import FAILED, app


@app.command()
def doctor() -> None:
    """Check this machine. Versions, processor, precision, memory, what can be fetched."""
    from isogloss.cli.doctor import examine, render

    findings = examine()
    terminal.results().print(render(findings))
    if any(found.verdict == "problem" for found in findings):
        raise typer.Exit(FAILED)


@app.command()
def version() -> None:
    """Print the version."""
    from isogloss import __version__

    print(__version__)
