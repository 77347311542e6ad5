"""The same folder by another name, and the fingerprint of what was trained on."""

from pathlib import Path
from typing import Any

import pytest

from isogloss.audio.reading import AudioInfo
from isogloss.data.clips import Clips
from isogloss.data.loading import as_cut
from isogloss.data.manifests import Utterance, fingerprint, language_of, read_card, to_cut, write_card
from isogloss.errors import IsoglossError
from isogloss.text.corpus import TextLine
from isogloss.training import checkpoint
from isogloss.training.card import describe
from isogloss.training.checkpoint import save_checkpoint, to_resume
from isogloss.training.recipe import Recipe

MINUTE = AudioInfo(seconds=60.0, sample_rate=16000, channels=1, format="WAV/PCM_16", frames=960000)


def recipe(*folders: Path | str, **data: Any) -> Recipe:
    stage = {"name": "one", "steps": 1, "seconds": {"speech": 8}, "objectives": [{"name": "best_rq"}]}
    values = {"name": "r", "data": {"folders": [str(f) for f in folders], **data}, "stages": [stage]}
    return Recipe.parse(values, "test")


def test_one_folder_by_several_names_is_no_other_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "corpus", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    save_checkpoint(run, 1, {}, {"recipe": recipe(tmp_path / "corpus").plain()})
    for name in ("corpus", "link", "./other/../corpus", tmp_path / "link"):
        found = to_resume(run, recipe(name).plain(), resume=True, fitted=False)
        assert found is not None and found.state["step"] == 1
    with pytest.raises(IsoglossError, match=r"another recipe \(changed: data.folders.0\)"):
        to_resume(run, recipe("other").plain(), resume=True, fitted=False)


def test_languages_of_a_recipe_are_canonical() -> None:
    assert recipe("x", languages=["ro-RO", "Romanian", "pt_BR"]).data.languages == ("ro", "ro", "pt-BR")
    with pytest.raises(IsoglossError, match='Unknown language "Romanain"'):
        recipe("x", languages=["Romanain"])


def test_the_card_names_what_was_trained_on_as_the_corpus_does(tmp_path: Path) -> None:
    cuts = [to_cut(Utterance(f"u{n}", Path("/a.wav"), "ro", "own", f"text {n}"), MINUTE) for n in range(3)]
    write_card(tmp_path, {"name": "own", "licence": "CC0-1.0", "fingerprint": fingerprint(cuts)})
    whole = describe(recipe(tmp_path), [read_card(tmp_path)], Clips.of(cuts[::-1]), Clips.of(cuts), Clips.of([]))
    assert whole.count(f"`{fingerprint(cuts)}`") == 2
    assert "| own | CC0-1.0 |" in whole and "| 3 clips of own |" in whole and "unspoken" not in whole
    texts = [as_cut(TextLine("una casa", "it", "text"))]
    some = Clips.of(cuts[:2])
    part = describe(recipe(tmp_path), [read_card(tmp_path)], some, some, Clips.of(texts))
    assert part.count(f"`{fingerprint(cuts)}`") == part.count(f"`{fingerprint(cuts[:2])}`") == 1
    assert f"| 1 unspoken sentence | `{fingerprint(texts)}` |" in part
    assert part.count(f"`{fingerprint(texts)}`") == 1


def test_a_cut_of_an_unknown_language_is_und() -> None:
    cut = to_cut(Utterance("u", Path("/a.wav"), "ro", "own"), MINUTE)
    cut.supervisions[0].language = None
    assert language_of(cut) == "und"
    assert language_of(cut.drop_supervisions()) == "und"


def test_checkpoints_of_another_version_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        save_checkpoint(tmp_path / "run", 1, {}, {"recipe": recipe(tmp_path).plain()})
    with pytest.raises(IsoglossError, match="begun by another version of isogloss"):
        to_resume(tmp_path / "run", recipe(tmp_path).plain(), resume=True, fitted=False)
