"""The demo's choice of a recipe; that it runs is what its users see first, and takes a quarter of an hour."""

from pathlib import Path

from isogloss.cli.demo import _recipe
from isogloss.data.manifests import TEXT


def test_text_is_brought_in_where_the_corpus_has_some(letters: Path, tmp_path: Path) -> None:
    assert _recipe(letters, ("es",)).name == "most-tiny"
    for file in letters.iterdir():
        if file.is_file() and file.name != TEXT:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    without = _recipe(tmp_path, ("es",))
    assert without.name == "usm-tiny" and without.data.folders == (tmp_path,) and without.data.languages == ("es",)
