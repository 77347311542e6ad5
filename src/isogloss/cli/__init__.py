"""The command line: verbs only, each calls one function of the room that owns the work.

Results go to standard output, everything else to standard error. Nothing heavy is imported before
a verb runs, so that help answers at once.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence

from isogloss.cli import terminal
from isogloss.cli.app import BUG, FAILED, STOPPED, app

# Importing a file registers its verbs; help shows them in this order.
from isogloss.cli import data, exchange, learn, speech, find, serve, system  # noqa: F401  # isort: skip

__all__ = ["app", "main", "run"]


def main() -> int:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Transcripts are in any script, whatever the locale, and names of files need not be UTF-8.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run a command line without the program's name and return its exit code.

    0 done, or saved and ended because a scheduler asked for it · 1 something the user can mend · 2 usage · 70 a bug ·
    130 stopped by Ctrl-C.
    """
    debug = "--debug" in arguments
    if not debug:
        warnings.simplefilter("ignore")
    code = 0
    try:
        app([argument for argument in arguments if argument != "--debug"], prog_name="isogloss")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        code = STOPPED
    except Exception as error:
        if debug:
            terminal.remarks().print_exception()
        terminal.complain(terminal.sentence(error))
        return FAILED if terminal.is_mendable(error) else BUG
    if code == STOPPED:
        terminal.complain("Stopped; nothing was left half-written.")
    return code
