"""Reading Qt's binary resource files (.rcc), in which GCompris keeps its texts.

"qres", version, offsets of tree, data and names (32 bits, big-endian)
tree   22 bytes a node (14 in version 1): name offset, flags; folder: children, first child;
       file: country, language, data offset
names  length in UTF-16 units, hash, UTF-16-BE        data   length, bytes
"""

import struct
import zlib

from isogloss.errors import IsoglossError

_COMPRESSED, _FOLDER, _ZSTANDARD = 1, 2, 4


def read_rcc(data: bytes) -> dict[str, bytes]:
    """{path: content} of a resource file, zlib content unpacked; content in Zstandard is left out.

    Raises IsoglossError if it is not such a file, or is damaged.
    """
    try:
        magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
        if magic != b"qres" or version not in (1, 2, 3):
            raise IsoglossError("This is not a Qt resource file that is known; fetch gcompris-qt-data again.")
        return _Reader(data, tree, contents, names, 14 if version == 1 else 22).read()
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise IsoglossError(
            f"The Qt resource file is damaged ({error}); fetch gcompris-qt-data again."
        ) from None


class _Reader:
    def __init__(self, data: bytes, tree: int, contents: int, names: int, node_bytes: int):
        self._data = data
        self._tree = tree
        self._contents = contents
        self._names = names
        self._node_bytes = node_bytes

    def read(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        waiting = [(0, "")]
        while waiting:
            node, parent = waiting.pop()
            at = self._tree + node * self._node_bytes
            name, flags = struct.unpack_from(">IH", self._data, at)
            path = f"{parent}/{self._name(name)}" if node else ""
            if flags & _FOLDER:
                count, first = struct.unpack_from(">II", self._data, at + 6)
                # Children come after their folder: what points back is damage, and would never end.
                if first <= node or first + count > len(self._data) // self._node_bytes:
                    raise struct.error("a folder holds itself")
                waiting += [(child, path) for child in range(first, first + count)]
            elif not flags & _ZSTANDARD:
                (offset,) = struct.unpack_from(">I", self._data, at + 10)
                files[path] = self._content(offset, bool(flags & _COMPRESSED))
        return files

    def _name(self, offset: int) -> str:
        at = self._names + offset
        (length,) = struct.unpack_from(">H", self._data, at)
        return self._data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")

    def _content(self, offset: int, compressed: bool) -> bytes:
        at = self._contents + offset
        (size,) = struct.unpack_from(">I", self._data, at)
        content = self._data[at + 4 : at + 4 + size]
        return zlib.decompress(content[4:]) if compressed else content
