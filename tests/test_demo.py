"""The demo's choice of a recipe; that it runs is what its users see first, and takes a quarter of an hour."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from isogloss.cli.demo import Demo, _fine_tuning, _recipe
from isogloss.data.manifests import TEXT
from isogloss.model.released import find_released


def test_text_is_brought_in_where_the_corpus_has_some(letters: Path, tmp_path: Path) -> None:
    assert _recipe(letters, ("es",)).name == "most-tiny"
    for file in letters.iterdir():
        if file.is_file() and file.name != TEXT:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    without = _recipe(tmp_path, ("es",))
    assert without.name == "usm-tiny" and without.data.folders == (tmp_path,) and without.data.languages == ("es",)


def test_the_released_model_is_fine_tuned_where_it_is_installed(letters: Path, tmp_path: Path) -> None:
    start = find_released()
    if start is None:
        pytest.skip("isogloss-model is not installed; pip install ./model")
    console = Console(file=io.StringIO())
    recipe = _fine_tuning(Demo(tmp_path, None, ("es",), 1.0, start, console), letters)
    assert recipe.model.start_from == start and recipe.data.folders == (letters,)
    assert "transcribed speech in es" in console.file.getvalue()  # type: ignore[attr-defined]
