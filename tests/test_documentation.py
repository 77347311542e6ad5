"""The commands and the Python of README and docs, as a reader copies them."""

import re
import shlex
from pathlib import Path

import pytest
import soundfile as sf
import typer.core
import typer.main

from isogloss import cli
from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import read_cuts, text_of
from isogloss.model.folder import save_model
from isogloss.training.recipe import load_recipe
from small_models import build
from test_audio_formats import muxed

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")])


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `isogloss` on a line that begins with `$`."""
    lines = re.findall(r"^\$ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    words = (shlex.split(line, comments=True) for line in lines)
    return [line[line.index("isogloss") + 1 :] for line in words if "isogloss" in line]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_has_a_verb_its_options_and_a_recipe_that_exists(page: Path) -> None:
    application = typer.main.get_command(cli.app)
    assert isinstance(application, typer.core.TyperGroup)
    for verb, *arguments in commands(page):
        context = application.commands[verb].make_context(verb, list(arguments))
        if verb == "train":
            load_recipe(context.params["recipe"], context.params["overrides"])


@pytest.fixture
def workplace(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README takes for granted: a trained demo, recordings with transcripts, others without."""
    save_model(build(alphabet="abcdefghijklmnopqrstuvwxyz "), tmp_path / "demo/run/model", "# A card\n")
    for folder in ("my-recordings", "recordings"):
        (tmp_path / folder).mkdir()
    cuts = [cut for cut in read_cuts(letters, "train") if text_of(cut)][:24]
    for number, cut in enumerate(cuts):
        sf.write(tmp_path / f"my-recordings/{number}.wav", waveform(cut), SAMPLE_RATE)
        (tmp_path / f"my-recordings/{number}.txt").write_text(text_of(cut) or "", encoding="utf-8")
    sf.write(tmp_path / "talk.mp3", waveform(cuts[0]), SAMPLE_RATE, format="MP3")
    (tmp_path / "talk.m4a").write_bytes(muxed(waveform(cuts[0]), SAMPLE_RATE, "ipod", "aac"))
    sf.write(tmp_path / "recordings/one.flac", waveform(cuts[1]), SAMPLE_RATE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sentences.txt").write_text("abc de\ncab\nbed ace\n" * 5, encoding="utf-8")
    model = "demo/run/model"
    assert cli.run(["lm", "sentences.txt", "--language", "ro", "--model", model, "--out", f"{model}/lm"]) == 0
    return tmp_path


def test_the_readme_from_the_first_transcript_to_a_model_of_ones_own(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seconds = "--minutes 0.1 --processes 1 data.shortest=0.1"
    for verb, *arguments in commands(REPOSITORY / "README.md"):
        line = shlex.join([verb, *arguments]).replace("--processes 2", "").replace("--minutes 30", "")
        if "--stream" in line or "model.encoder" in line or verb == "serve":
            continue  # needs a microphone; needs a cluster; does not end
        shortened = {"train": seconds, "finetune": "--minutes 0.1 --processes 1"}.get(verb, "")
        assert cli.run([*shlex.split(line), *shortened.split()]) == 0, (line, capfd.readouterr())
    assert (workplace / "runs/oc-text/model/model.safetensors").exists()


def test_the_python_of_the_readme(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert capsys.readouterr().out.strip()
