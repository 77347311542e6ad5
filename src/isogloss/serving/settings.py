"""What a server is told when it starts, and what it allows whom."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from isogloss.errors import IsoglossError

KEY_VARIABLE = "ISOGLOSS_API_KEY"
MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Limits and manners of a server.

    name: of the model, for clients. key: what clients must send as bearer token; None lets everybody in. origins:
    other sites whose pages may use the server. max_upload: bytes of a request; max_seconds: of one recording; queue:
    requests received, waiting or worked on at once; timeout: seconds in which a request is answered. stall: seconds
    without a byte after which an upload is given up, slowest: bytes a second that it must bring on average. grace:
    seconds for requests in flight when the server is told to stop.
    """

    name: str = "isogloss"
    key: str | None = None
    origins: tuple[str, ...] = ()
    max_upload: int = 100 * MIB
    max_seconds: float = 3600.0
    queue: int = 64
    timeout: float = 600.0
    stall: float = 15.0
    slowest: float = 4096.0
    grace: float = 30.0


DEFAULTS = Settings()


def read_key(file: Path | None) -> str | None:
    """The API key: what the file holds, else the variable ISOGLOSS_API_KEY; None for neither."""
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IsoglossError(f"The API key cannot be read from {file}: {error}.") from None
    if not key or not key.isprintable():
        raise IsoglossError(f"{file} holds no API key; write one line of letters and digits into it.")
    return key
