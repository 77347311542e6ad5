"""The one exception a user is meant to read."""

import difflib
from collections.abc import Iterable


class IsoglossError(Exception):
    """Something the user can mend: one sentence that names the thing and the mend.

    The command line prints it without a traceback; a library caller catches it as one type.
    """


class AudioError(IsoglossError):
    """An audio file or buffer that cannot be used; `cause` is a short slug for counting.

    Causes: missing, empty, unreadable, truncated, too_long, too_large, not_finite, no_frames.
    """

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`' Did you mean "x"?'` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
