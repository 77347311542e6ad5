"""What a packed corpus is on disk: shards that are read in one go, and an index that says where in them a clip lies.

    DIR/shar/cuts.000000.jsonl       the cuts of a shard, one a line         } lhotse's Shar format:
    DIR/shar/recording.000000.tar    their audio, one file a clip            } CutSet.from_shar(in_dir="DIR/shar")
    DIR/index.safetensors            columns with a row for each clip, in the order of the shards
    DIR/corpus.json, text.jsonl.gz   as in a prepared corpus
    DIR/store.json                   only where shards are fetched from elsewhere when they are read (`store`)

A shard holds clips of one split, corpus and language. The index is mapped into memory and not read: what a run needs of
it grows by 0.3 GB for 10 million clips. A cut has the tar as its source, and in `cut.custom["stored"]` where its audio
begins there, how many bytes it has, and their CRC-32.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from isogloss.audio.sources import Member
from isogloss.data.store import FOLDER, Store
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

INDEX = "index.safetensors"
ABOUT, FORMAT = "isogloss", 1
Column = NDArray[Any]
KNOWN: dict[str, type[np.generic]] = {
    **{"durations": np.float64, "pairs": np.int32, "splits": np.int8, "said": np.int64, "named": np.bool_},
    **{"digests": np.int64, "shards": np.int32},
}
"""What is known of each clip: see `Clips`."""
PLACES: dict[str, type[np.generic]] = {
    **{"line_at": np.int64, "line_size": np.int32, "line_check": np.int64},
    **{"audio_at": np.int64, "audio_size": np.int64, "audio_check": np.int64},
}
"""Where its cut and its audio lie in the files of the shard: first byte, bytes, and their CRC-32."""
COLUMNS = KNOWN | PLACES


@cache  # paths take as long to make as clips to read
def cuts_file(folder: Path, shard: int) -> Path:
    """Where the cuts of a shard are."""
    return folder / FOLDER / f"cuts.{shard:06d}.jsonl"


@cache
def audio_file(folder: Path, shard: int) -> Path:
    """Where the audio of a shard is."""
    return folder / FOLDER / f"recording.{shard:06d}.tar"


def is_packed(folder: Path) -> bool:
    """Whether the folder is a packed corpus, all of it written."""
    return (folder / INDEX).is_file()


class Shards:
    """The clips of a packed corpus.

    names: pairs of a corpus and a language. columns: see `COLUMNS`, (N,) each.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.store = Store.of(self.folder)
        path = folder / INDEX
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[ABOUT])
                if about["format"] != FORMAT:
                    raise IsoglossError(f"{path} is of another version of isogloss; pack the corpus again.")
                self.names = [(source, language) for source, language in about["names"]]
                self.columns: dict[str, Column] = {name: file.get_tensor(name).numpy() for name in COLUMNS}
                self._places = [self.columns[name] for name in ("shards", *PLACES)]
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise IsoglossError(f"{path} cannot be read ({error}); pack the corpus again.") from None

    def __len__(self) -> int:
        return len(self.columns["durations"])

    def cut(self, row: int) -> MonoCut:
        """A clip; raises AudioError, which names it, where its shard is missing or damaged."""
        from lhotse import AudioSource
        from lhotse.serialization import deserialize_item

        shard, *numbers = (int(column[row]) for column in self._places)
        path, tar = cuts_file(self.folder, shard), audio_file(self.folder, shard)
        if self.store is not None:
            self.store.need(path, tar)
        cut: MonoCut = deserialize_item(json.loads(Member(path, f"clip {row}", *numbers[:3]).read_bytes()))
        cut.recording.sources = [AudioSource("file", [0], str(tar))]
        cut.custom = cut.custom or {}
        cut.custom["stored"] = numbers[3:]
        return cut
