"""Real clips for tests, fetched once into the cache; a machine without apt or network skips, and says why."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from commands import Outcome, Run
from isogloss import cli
from isogloss.data.fetch import cache_folder, fetch_packages
from isogloss.data.manifests import Utterance
from isogloss.data.prepare import prepare
from isogloss.data.recipes import CORPORA
from isogloss.errors import IsoglossError
from isogloss.model.folder import save_model
from small_models import build

# How long an example takes is the machine's business.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

SMALL = ("pocketsphinx-testdata", "gcin-voice", "klettres-data")  # 2, 8 and 40 MB


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def fetched() -> Callable[..., Path]:
    """`fetched("PACKAGE", …)`: the cache folder with these Debian packages unpacked, or a skip."""

    def fetch(*packages: str) -> Path:
        cache = cache_folder()
        try:
            fetch_packages(packages, cache, progress=False)
        except IsoglossError as error:
            pytest.skip(str(error))
        return cache

    return fetch


@pytest.fixture(scope="session")
def debian_cache(fetched: Callable[..., Path]) -> Path:
    """The cache folder with the three small packages unpacked in it."""
    return fetched(*SMALL)


@pytest.fixture(scope="session")
def letters(debian_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spoken letters of Spanish and Italian, prepared, with some text that nobody spoke."""
    folder = tmp_path_factory.mktemp("data")
    texts = [folder / "es.txt", folder / "it.txt"]
    texts[0].write_text("hola\nbuenos días\nuna casa\nque tal\n", encoding="utf-8")
    texts[1].write_text("ciao\nbuon giorno\nuna casa\ncome va\n", encoding="utf-8")
    prepare("klettres", folder / "letters", languages=["es", "it"], cache=debian_cache, text=texts)
    return folder / "letters"


@pytest.fixture(scope="session")
def clips(debian_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Twelve short utterances: four English sentences, letters in five languages, two Mandarin syllables."""
    scratch = tmp_path_factory.mktemp("clips")
    sentences = _read("pocketsphinx-testdata", debian_cache, scratch)
    syllables = _read("gcin-voice", debian_cache, scratch)
    by_language = groupby(_read("klettres", debian_cache, scratch), key=lambda letter: letter.language)
    letters = (next(group) for _, group in by_language)  # lazily: the recipe decodes what it yields
    return [*islice(sentences, 4), *islice(letters, 6), *islice(syllables, 2)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("verb", …)` -> (exit code, standard output, standard error)."""

    def call(*arguments: object) -> Outcome:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with random weights."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(build(), folder, "# A card\n")
    return folder


@pytest.fixture(scope="session")
def gcompris() -> Path:
    """A clone of GCompris-voices: $ISOGLOSS_GCOMPRIS, or shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared/data/GCompris-voices"
    clone = Path(os.environ.get("ISOGLOSS_GCOMPRIS", beside))
    if not (clone / "en").is_dir():
        pytest.skip("no clone of GCompris-voices; set ISOGLOSS_GCOMPRIS to one")
    return clone


def _read(name: str, root: Path, scratch: Path) -> Iterator[Utterance]:
    return CORPORA[name].read(root, scratch / name, Counter())
