"""The one exception a user is meant to read, and the words that sentences for users are made of."""

import difflib
import re
from collections.abc import Iterable

# Control characters, line and paragraph ends, marks that turn the direction of text, lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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

    def __reduce__(self) -> tuple[type["AudioError"], tuple[str, str]]:
        return type(self), (str(self), self.cause)  # for processes that read audio


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`' Did you mean "x"?'` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 clip`, `2 clips`; `things` where the plural is not made with an s."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def lasting(seconds: float) -> str:
    """`3 s`, `3.1 min`, `12.0 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def printable(text: str) -> str:
    """One line that cannot speak to a terminal: control characters, and bytes that are no UTF-8, as escapes."""
    return _UNPRINTABLE.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    if 0xDC80 <= code < 0xDD00:  # how Python holds a byte of a file name that it could not decode
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
