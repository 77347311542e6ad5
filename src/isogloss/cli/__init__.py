"""The command line: verbs only, each calls one function of the room that owns the work.

Results go to standard output, everything else to standard error. Nothing heavy is imported before
a verb runs, so that help answers at once.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence

from isogloss import terminal
from isogloss.cli.app import BUG, FAILED, STOPPED, app
from isogloss.cli.data import corpora, inspect, prepare
from isogloss.cli.learn import demo, evaluate, lm, train
from isogloss.cli.speech import encode, identify, transcribe

# Verbs are shown in the order in which they are imported.
from isogloss.cli.find import embed, search  # isort: skip
from isogloss.cli.system import doctor, version

__all__ = ["app", "corpora", "demo", "doctor", "embed", "encode", "evaluate", "identify", "inspect", "lm", "main"]
__all__ += ["prepare", "run", "search", "train", "transcribe", "version"]


def main() -> int:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Transcripts are in any script, whatever the locale, and names of files need not be UTF-8.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run a command line without the program's name and return its exit code.

    0 done · 1 something the user can mend · 2 usage · 70 a bug · 130 stopped by Ctrl-C.
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
