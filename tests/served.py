"""A server of a small model on a free port, in a thread of the tests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import soundfile

from isogloss.model.recogniser import Recogniser
from isogloss.serving.app import create_app
from isogloss.serving.server import Server, bound, server_of
from isogloss.serving.service import Service
from isogloss.serving.settings import Settings
from small_models import RATE, sound

TRANSCRIPTIONS = "/v1/audio/transcriptions"


@dataclass
class Running:
    """A server that runs. client: of HTTP, for paths."""

    port: int
    server: Server
    service: Service
    client: httpx.Client

    def active(self) -> int:
        """Requests inside."""
        return int(self.client.get("/health").json()["active"])


@contextmanager
def served(recogniser: Recogniser, **settings: Any) -> Iterator[Running]:
    """A server that ends with the block. settings: `Settings`, and `index` and `beam` of `create_app`."""
    more = {key: settings.pop(key) for key in ("index", "beam") if key in settings}
    app = create_app(recogniser, Settings(**{"name": "small", "grace": 5.0} | settings), **more)
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = server_of(app)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield Running(port, server, app.state.service, client)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)


def clip(folder: Path, seconds: float = 2.5, seed: int = 0, name: str = "clip.wav") -> Path:
    """A file of a made voice."""
    soundfile.write(folder / name, np.asarray(sound(seconds, seed)), RATE)
    return folder / name
