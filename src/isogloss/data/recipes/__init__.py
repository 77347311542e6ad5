"""The closed list of corpora that `isogloss corpora` shows and `isogloss prepare NAME` reads.

Listing is instant: a recipe's own file is imported when its `read` is called. Minutes, speakers and
text are what was measured from the decoded audio of the packages in Debian 12.
"""

import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from isogloss.data.corpus import Corpus, Reader
from isogloss.data.manifests import Utterance


def _recipe(module: str) -> Reader:
    def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
        recipe = importlib.import_module(f"isogloss.data.recipes.{module}")
        yield from recipe.read(root, scratch, dropped)

    return read


def _languages(tags: str) -> tuple[str, ...]:
    return tuple(tags.split())


_ALL = (
    Corpus(
        name="tuxpaint",
        title="Tux Paint stamps: captions read aloud in fourteen languages",
        kind="debian",
        languages=_languages("be bg ca da el en es fr lt ml nl pt-BR ro ru"),
        minutes=150.6,
        speakers="about 1 per language",
        text="sentences; translations in 78 languages and varieties",
        licence="GPL-2+",
        packages=("tuxpaint-stamps-default",),
        read=_recipe("tuxpaint"),
    ),
    Corpus(
        name="festvox-ru",
        title="MSU Russian voice for Festival: read sentences with a phone alignment",
        kind="debian",
        languages=("ru",),
        minutes=99.5,
        speakers="1",
        text="sentences and phones with times",
        licence="BSD-like",
        packages=("festvox-ru",),
        read=_recipe("festvox_ru"),
    ),
    Corpus(
        name="fillets",
        title="Fish Fillets NG: acted dialogues",
        kind="debian",
        languages=("cs", "nl"),
        minutes=198.1,
        speakers="2 leads per language and about 25 side roles in Czech",
        text="sentences; translations in 15 languages and varieties",
        licence="GPL-2+",
        packages=("fillets-ng-data", "fillets-ng-data-cs", "fillets-ng-data-nl"),
        read=_recipe("fillets"),
    ),
    Corpus(
        name="drascula",
        title="Drascula, the Vampire Strikes Back: acted dialogues",
        kind="debian",
        languages=("en", "es"),
        minutes=88.1,
        speakers="10 roles per language",
        text="sentences; translations in 6 languages",
        licence="free distribution (Drascula licence)",
        packages=("drascula", "drascula-spanish"),
        read=_recipe("drascula"),
    ),
    Corpus(
        name="asterisk",
        title="Asterisk telephone prompts",
        kind="debian",
        languages=_languages("en es fr it ru"),
        minutes=124.9,
        speakers="1 per language",
        text="numbers, letters, days and months; prompt ids shared by languages for the rest",
        licence="CC-BY-SA-3.0 (ru: CC-BY-3.0)",
        packages=tuple(f"asterisk-core-sounds-{language}-g722" for language in _languages("en es fr it ru")),
        read=_recipe("asterisk"),
    ),
    Corpus(
        name="klettres",
        title="KLettres: letters and syllables",
        kind="debian",
        languages=_languages("ar cs da de en en-GB es fr he hu it lt ml nb nds nl pt-BR ru tn uk"),
        minutes=51.0,
        speakers="1 per language",
        text="letters and syllables",
        licence="GPL-2+",
        packages=("klettres-data",),
        read=_recipe("klettres"),
    ),
    Corpus(
        name="ktuberling",
        title="KTuberling: names of things",
        kind="debian",
        languages=_languages("ca da de el en es fi fr ga gl it lt nds nl nn pt ro ru sl sr sv uk wa"),
        minutes=31.1,
        speakers="1 per language",
        text="none; concept ids shared by languages",
        licence="GPL-2+",
        packages=("ktuberling-data",),
        read=_recipe("ktuberling"),
    ),
    Corpus(
        name="gcin-voice",
        title="gcin: Mandarin syllables by two speakers",
        kind="debian",
        languages=("zh",),
        minutes=13.7,
        speakers="2",
        text="none; bopomofo and tone as the concept id",
        licence="GPL-3 or LGPL-3 (speaker 3), CC-BY-3.0 (speaker 5)",
        packages=("gcin-voice",),
        read=_recipe("gcin_voice"),
    ),
    Corpus(
        name="pocketsphinx-testdata",
        title="PocketSphinx test data: read sentences and commands",
        kind="debian",
        languages=("en",),
        minutes=0.8,
        speakers="a few",
        text="sentences",
        licence="BSD-2-Clause",
        packages=("pocketsphinx-testdata",),
        read=_recipe("pocketsphinx_testdata"),
    ),
    Corpus(
        name="gcompris",
        title="GCompris voices: a clone of the repository gcompris/GCompris-voices",
        kind="local",
        languages=_languages(
            "af ar ast bg br ca cs da de el en eo es eu fi fr gd he hi hu id it kn lt mr nb nl pa pl pt"
            " pt-BR ro ru sk sl so sr sv th tr ur zh zh-TW"
        ),
        minutes=399.7,
        speakers="1 to 5 per language, named",
        text="letters and, with gcompris-qt-data, words; concept ids shared by languages for the rest",
        licence="per file: GPL-2+, GPL-3+, CC-BY-SA or public domain",
        packages=("gcompris-qt-data",),
        read=_recipe("gcompris"),
    ),
)

CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _ALL}


def all_corpora() -> dict[str, Corpus]:
    """Every corpus that is known: these and the public ones that lhotse reads."""
    from isogloss.data import public  # its imports take a while

    return {**CORPORA, **public.CORPORA}
