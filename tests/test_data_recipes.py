"""Recipes: each parser on a tiny tree of its corpus's layout, and the real packages by their counts."""

import json
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from isogloss.audio.reading import info
from isogloss.data.manifests import Utterance
from isogloss.data.recipes import CORPORA, all_corpora
from isogloss.data.recipes.asterisk import exact_words
from isogloss.data.recipes.common import language_tag, safe_id
from isogloss.data.recipes.drascula import parse_texts
from isogloss.data.recipes.klettres import trimmed
from isogloss.data.recipes.rcc import read_rcc
from isogloss.errors import IsoglossError


def sound(path: Path, seconds: float = 0.5, seed: int = 0) -> Path:
    """Write noise, told apart by its seed; the container is FLAC whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16000))
    sf.write(path, waveform.clip(-1, 1), 16000, format="FLAC", subtype="PCM_16")
    return path


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read(name: str, root: Path) -> tuple[dict[str, Utterance], Counter[str]]:
    dropped: Counter[str] = Counter()
    found = list(CORPORA[name].read(root, root / "scratch", dropped))
    assert len({utterance.id for utterance in found}) == len(found)
    assert {utterance.source for utterance in found} <= {name}
    return {utterance.id: utterance for utterance in found}, dropped


# The registry


def test_listing_imports_no_recipe_and_nothing_heavy() -> None:
    code = (
        "import sys; from isogloss.data.recipes import CORPORA; print(*CORPORA);"
        "print([name for name in sys.modules if name.startswith('isogloss.data.recipes.')"
        " or name in ('torch', 'lhotse', 'soundfile', 'numpy')])"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert listed.splitlines() == [" ".join(CORPORA), "[]"]


def test_every_entry_is_complete() -> None:
    known = all_corpora()
    assert set(CORPORA) < set(known)
    for name, corpus in known.items():
        assert corpus.name == name
        assert corpus.kind in ("debian", "local", "public")
        assert corpus.title and corpus.licence and corpus.text and corpus.speakers
        assert corpus.packages or corpus.kind == "public"
    for corpus in CORPORA.values():
        assert list(corpus.languages) == sorted({language_tag(tag) for tag in corpus.languages})


@pytest.mark.parametrize("name", CORPORA)
def test_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match=str(tmp_path)):
        list(CORPORA[name].read(tmp_path / "absent", tmp_path, Counter()))


@pytest.mark.parametrize(
    ("locale", "tag"),
    [
        ("pt_BR", "pt-BR"),
        ("nb", "nb"),
        ("zh_TW", "zh-TW"),
        ("sr@latin", "sr-Latn"),
        ("sr@ijekavianlatin", "sr-Latn-ijekavsk"),
        ("ca@valencia", "ca-valencia"),
        ("en", "en"),
    ],
)
def test_locale_names_become_tags(locale: str, tag: str) -> None:
    assert language_tag(locale) == tag


def test_unknown_modifier_is_an_error() -> None:
    with pytest.raises(IsoglossError, match="@klingon"):
        language_tag("sr@klingon")


def test_ids_are_safe_and_stay_apart() -> None:
    assert safe_id("ㄅㄚ3/5") == "u3105u311a3/5"
    assert safe_id("animals/a_b-c.d") == "animals/a_b-c.d"


# festvox-ru


def test_festvox_strips_stress_and_reads_phones(tmp_path: Path) -> None:
    voice = tmp_path / "festvox-ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits"
    text(voice / "etc/txt.done.data", '( ru_0001 "Прядь вол+ос, за - ухо!" )\n( ru_0002 "Нет." )\n')
    text(voice / "lab/ru_0001.lab", "#\n0.10000 125 pau\n0.25000 125 v\n0.60000 125 a\n")
    sound(voice / "wav/ru_0001.wav", 0.5)
    found, dropped = read("festvox-ru", tmp_path)
    assert dropped == {"missing": 1}
    assert found["ru_0001"].text == "Прядь волос, за - ухо!"
    (a, b, c) = found["ru_0001"].phones
    assert a == (0.0, 0.1, "pau")
    assert b == (0.1, pytest.approx(0.15), "v")
    assert c == (0.25, pytest.approx(0.25), "a")  # ends with the file


# fillets


def fillets_tree(root: Path) -> Path:
    script = root / "fillets-ng-data/usr/share/games/fillets-ng/script"
    text(
        script / "reef/dialogs_en.lua",
        'dialogId("re-m-ahoj", "font_small", "Hi, \\"crab\\"!")\n'
        'dialogId("x-v-1", "", "One.")\n--dialogId("gone", "font_big", "No.")\n'
        'dialogId("krab", "font_crab", "Hm.")\ndialogId("re-v-n", "font_big", "%1 coins.")\n',
    )
    text(
        script / "reef/dialogs_cs.lua",
        'dialogId("re-m-ahoj", "font_small", "Hello, crab!")\ndialogStr("Ahoj, \\"krabe\\"!\\nHej.")\n\n\n'
        'dialogId("x-v-1", "", "One.")\ndialogStr("Jedna.")\n'
        'dialogId("krab", "font_crab", "Hm.")\ndialogStr("Hm, hm.")\n'
        'dialogId("re-v-n", "font_big", "%1 coins.")\ndialogStr("%1 mincí.")\n',
    )
    text(script / "reef/dialogs_de_CH.lua", 'dialogId("krab", "font_crab", "Hm.")\ndialogStr("Hmm.")\n')
    text(script / "reef/dialogs_sl.lua", 'dialogId("krab", "font_crab", "Hm.")\ndialogStr("")\n')
    text(script / "ship/dialogs_nl.lua", 'dialogId("krab", "font_both", "Other.")\ndialogStr("Ander.")\n')
    text(script / "share/bore_dialogs_cs.lua", 'dialogId("b", "font_big", "Bore.")\ndialogStr("Nuda.")\n')
    for language, names in {
        "cs": ("reef/cs/re-m-ahoj", "reef/cs/x-v-1", "reef/cs/krab", "reef/cs/re-v-n", "share/bore/cs/b"),
        "nl": ("ship/nl/krab", "reef/nl/krab"),
    }.items():
        folder = root / f"fillets-ng-data-{language}/usr/share/games/fillets-ng/sound"
        for name in names:
            sound(folder / f"{name}.ogg")
    sf.write(folder / "ship/nl/empty.ogg", np.zeros(0), 16000, format="OGG", subtype="VORBIS")
    text(script / "ship/dialogs_en.lua", 'dialogId("empty", "font_big", "…")\n')
    with (script / "ship/dialogs_nl.lua").open("a", encoding="utf-8") as file:
        file.write('dialogId("empty", "font_big", "…")\ndialogStr("Leeg.")\n')
    return root


def test_fillets_roles_texts_and_rules(tmp_path: Path) -> None:
    found, dropped = read("fillets", fillets_tree(tmp_path))
    assert set(found) == {
        "reef/cs/re-m-ahoj",
        "reef/cs/x-v-1",
        "reef/cs/krab",
        "share/bore/cs/b",
        "ship/nl/krab",
    }
    assert dropped == {"placeholder in text": 1, "no text": 1, "no_frames": 1}
    crab = found["reef/cs/re-m-ahoj"]
    assert (crab.text, crab.role, crab.speaker) == ('Ahoj, "krabe"! Hej.', "small", "fillets-cs-small")
    assert crab.translations == {"en": 'Hi, "crab"!'}  # the English file's wording, not the stale copy
    assert found["reef/cs/x-v-1"].role == "big"
    assert found["reef/cs/krab"].translations == {"en": "Hm.", "de-CH": "Hmm."}
    assert (found["ship/nl/krab"].text, found["ship/nl/krab"].speaker) == ("Ander.", "fillets-nl-both")


# tuxpaint


def test_tuxpaint_rules(tmp_path: Path) -> None:
    stamps = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals"
    for seed, name in enumerate(("cat", "cow", "dog")):
        text(stamps / f"{name}.txt", f"A {name}.\nro.utf8=O {name}.\nca@valencia.utf8=Un {name}.\nlt.utf8=\n")
        sound(stamps / f"{name}_desc_ro.ogg", 0.5, seed)
    sound(stamps / "dog.ogg", 0.5, 9)  # a bark
    text(stamps / "fly.txt", "A fly.\nro.utf8=O muscă foarte, foarte mare.\n")
    sound(stamps / "fly_desc_ro.ogg", 0.5, 4)  # 56 characters a second, the median is 12
    text(stamps / "gnu.txt", "A gnu.\nro.utf8=O gnu.\n")
    sound(stamps / "gnu_desc_ro.ogg", 1.5, 5)  # 4 characters a second
    text(stamps / "hen.txt", "A cat.\nro.utf8=O cat.\n")
    (stamps / "hen_desc_ro.ogg").write_bytes((stamps / "cat_desc_ro.ogg").read_bytes())
    sound(stamps / "cat_desc_lt.ogg", 0.5, 6)
    sound(stamps / "ant_desc_lt.ogg", 0.5, 7)
    sound(stamps / "cat_desc.ogg", 0.5, 0)  # the same sound as Romanian, in another language: stays
    sound(stamps / "cow_desc_pt_BR.wav", 0.5, 8)
    (stamps / "bee_desc_ca.ogg").symlink_to("cat_desc.ogg")
    found, dropped = read("tuxpaint", tmp_path)
    assert dropped == {"identical audio": 1, "speaking rate": 2}
    assert {name.removeprefix("animals/"): clip.text for name, clip in found.items()} == {
        "cat_desc_ro": "O cat.",
        "cow_desc_ro": "O cow.",
        "dog_desc_ro": "O dog.",
        "cat_desc": "A cat.",
        "cat_desc_lt": None,
        "ant_desc_lt": None,
        "cow_desc_pt_BR": None,
    }
    assert found["animals/cat_desc_ro"].translations == {"en": "A cat.", "ca-valencia": "Un cat."}
    assert found["animals/cow_desc_pt_BR"].language == "pt-BR"
    assert found["animals/cow_desc_pt_BR"].speaker == "tuxpaint-pt-BR"


def test_tuxpaint_keeps_the_copy_that_has_text(tmp_path: Path) -> None:
    stamps = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    text(stamps / "b.txt", "A cat.\n")
    for name in "ab":
        sound(stamps / f"{name}_desc.ogg")
    found, _ = read("tuxpaint", tmp_path)
    assert list(found) == ["b_desc"]


# drascula


def drascula_dat(tables: Iterable[list[dict[str, str]]]) -> bytes:
    """A drascula.dat with one row in each table of numbers and these text tables."""
    encodings = {"en": "cp850", "es": "cp850", "de": "cp850", "fr": "cp850", "it": "cp850", "ru": "cp1251"}
    rows = b"".join(struct.pack(">H", 1) + bytes(size) for size in (4, 4, 4, 2, 4, 2, 4, 2, 2, 20, 20, 10, 8))
    out = b"DRASCULA\x06" + rows + struct.pack(">H", 6)
    for entries in tables:
        out += struct.pack(">H", len(entries))
        for language, encoding in encodings.items():
            packed = bytes(2)
            for entry in entries:
                line = entry.get(language, "").encode(encoding) + b"\0"
                line += bytes(4 - (len(line) + 2) % 4)
                packed += struct.pack(">H", len(line) + 2) + line
            out += struct.pack(">H", len(packed)) + packed
    return out


def test_drascula_reads_text_table_and_raw_audio(tmp_path: Path) -> None:
    hero = [{}, {"en": "HELLO", "es": "¿Qué?", "ru": "Привет"}, {"en": "ONLY"}]
    igor = [{}, {"en": "MASTER", "es": "Maestro"}]
    tables = [hero, [], [], [], [], igor, [], [], [], []]
    english = tmp_path / "drascula/usr/share/scummvm/drascula/en"
    spanish = tmp_path / "drascula-spanish/usr/share/scummvm/drascula/es"
    english.mkdir(parents=True)
    spanish.mkdir(parents=True)
    (english / "drascula.dat").write_bytes(drascula_dat(tables))
    wave = (128 + 100 * np.sin(np.arange(11025) * 0.1)).astype(np.uint8).tobytes()
    for path in (
        english / "1.ALS",
        english / "S1.ALS",
        english / "9.ALS",
        spanish / "1.ALS",
        spanish / "I1.ALS",
    ):
        path.write_bytes(wave)
    (spanish / "2.ALS").symlink_to(english / "1.ALS")
    found, dropped = read("drascula", tmp_path)
    assert set(found) == {"en/1", "es/1", "es/I1"}
    assert dropped == {"not speech": 1, "no text": 1}
    assert found["es/1"].text == "¿Qué?"
    assert found["es/1"].translations == {"en": "HELLO", "ru": "Привет"}
    assert found["es/I1"].speaker == "drascula-es-igor"
    assert info(found["en/1"].audio).sample_rate == 16000
    assert info(found["en/1"].audio).seconds == pytest.approx(1.0, abs=0.01)


@given(st.integers(min_value=0, max_value=400))
def test_drascula_cut_short_is_one_error(size: int) -> None:
    whole = drascula_dat([[{"en": "HELLO"}]] * 10)
    assert parse_texts(whole)["BJ"] == [{"en": "HELLO"}]
    with pytest.raises(IsoglossError, match=r"drascula\.dat"):
        parse_texts(whole[: min(size, len(whole) - 40)])


# asterisk


def test_asterisk_words_and_concepts(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for language in ("en", "es", "fr", "it", "ru"):
        voice = (
            tmp_path / f"asterisk-core-sounds-{language}-g722/usr/share/asterisk/sounds/{language}_XX_f_Voice"
        )
        for prompt in (
            "digits/7",
            "digits/day-0",
            "letters/a",
            "queue-youarenext",
            "silence/1",
            "beep",
            "empty",
        ):
            path = voice / f"{prompt}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if prompt == "empty" else b"\xda" * 4000)
    found, dropped = read("asterisk", tmp_path)
    assert dropped["not speech"] == 10
    assert sum(dropped.values()) == 15  # an empty file of each language besides
    assert {clip.concept for clip in found.values()} == {
        "digits/7",
        "digits/day-0",
        "letters/a",
        "queue-youarenext",
    }
    assert found["it/digits/day-0"].text == "domenica"
    assert found["fr/letters/a"].text == "a"
    assert found["ru/letters/a"].text is None
    assert found["es/queue-youarenext"].text is None
    assert found["es/digits/7"].speaker == "asterisk-es"
    assert info(found["es/digits/7"].audio).frames == 8000  # half a byte a sample


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "ru"])
def test_asterisk_word_lists_are_whole(language: str) -> None:
    words = exact_words(language)
    assert sum(prompt.startswith("digits/day-") for prompt in words) == 7
    assert sum(prompt.startswith("digits/mon-") for prompt in words) == 12
    assert sum(prompt.startswith("letters/") for prompt in words) == (0 if language == "ru" else 26)
    assert len(set(words.values())) == len(words)
    assert words["digits/90"] == {
        "en": "ninety", "es": "noventa", "fr": "quatre-vingt-dix", "it": "novanta", "ru": "девяносто"
    }[language]  # fmt: skip


# klettres, ktuberling, gcin-voice


def test_trimming_keeps_speech_and_margin() -> None:
    waveform = np.zeros(3 * 16000, dtype=np.float32)
    waveform[16000:32000] = np.sin(np.arange(16000) * 0.3)
    start, duration = trimmed(waveform)
    assert start == pytest.approx(0.85, abs=0.011)
    assert duration == pytest.approx(1.30, abs=0.021)
    assert trimmed(np.ones(16000, dtype=np.float32)) == (0.0, 1.0)
    assert trimmed(np.zeros(16000, dtype=np.float32)) == (0.0, 1.0)  # silence is for others to judge
    assert trimmed(np.ones(10, dtype=np.float32)) == (0.0, 10 / 16000)


def test_klettres_lists_each_recording_once(tmp_path: Path) -> None:
    sounds = tmp_path / "klettres-data/usr/share/klettres"
    text(
        sounds / "pt_BR/sounds.xml",
        '<klettres><language code="pt_BR"><alphabet><sound name="ã" file="pt_BR/alpha/a.ogg"/>'
        '<sound name="b" file="pt_BR/alpha/b.ogg"/></alphabet><syllables>'
        '<sound name="ba" file="pt_BR/alpha/a.ogg"/></syllables></language></klettres>',
    )
    sound(sounds / "pt_BR/alpha/a.ogg")
    found, dropped = read("klettres", tmp_path)
    assert list(found) == ["pt_BR/alpha/a"]
    assert dropped == {"missing": 1, "identical audio": 1}
    clip = found["pt_BR/alpha/a"]
    assert (clip.text, clip.language, clip.speaker) == ("ã", "pt-BR", "klettres-pt-BR")
    assert (clip.start, clip.duration) == (0.0, 0.5)


def test_ktuberling_drops_the_same_speech_in_another_script(tmp_path: Path) -> None:
    sounds = tmp_path / "ktuberling-data/usr/share/ktuberling/sounds"
    for locale in ("sr@latin", "sr", "fr"):
        text(
            sounds / f"{locale}.soundtheme", f'<language><sound name="hat" file="{locale}/x.ogg"/></language>'
        )
        sound(sounds / f"{locale}/x.ogg", seed=locale == "fr")
    found, dropped = read("ktuberling", tmp_path)
    assert {(clip.language, clip.concept, clip.text) for clip in found.values()} == {
        ("sr", "hat", None),
        ("fr", "hat", None),
    }
    assert dropped == {"identical audio": 1}


def test_gcin_voice_has_two_speakers(debian_cache: Path) -> None:
    found, dropped = read("gcin-voice", debian_cache)
    assert Counter(clip.speaker for clip in found.values()) == {"gcin-voice-3": 1200, "gcin-voice-5": 1158}
    assert not dropped
    assert found["u3105u311a3/3"].concept == "ㄅㄚ3"


def test_pocketsphinx_testdata(debian_cache: Path, tmp_path: Path) -> None:
    dropped: Counter[str] = Counter()
    found = list(CORPORA["pocketsphinx-testdata"].read(debian_cache, tmp_path, dropped))
    assert (len(found), sum(clip.text is not None for clip in found), dropped) == (14, 12, Counter())
    assert sum(info(clip.audio).seconds for clip in found) / 60 == pytest.approx(0.78, abs=0.01)
    texts = {clip.id: clip.text for clip in found}
    assert texts["cards/003"] == "seven of clubs"
    assert texts["raw/goforward"] == "go forward ten meters"


def test_clips_are_twelve_in_several_languages(clips: list[Utterance]) -> None:
    assert len(clips) == 12
    assert len({clip.language for clip in clips}) >= 6
    assert all(info(clip.audio).seconds > 0 for clip in clips)


# gcompris and Qt resources


def rcc(files: dict[str, bytes], version: int = 3) -> bytes:
    """A resource file with one folder `lang` that holds `files`; those in .json are compressed."""
    names, tree, data = bytearray(), bytearray(), bytearray()
    stamp = bytes(8) if version > 1 else b""

    def name(word: str) -> int:
        at = len(names)
        names.extend(struct.pack(">HI", len(word), 0) + word.encode("utf-16-be"))
        return at

    tree += struct.pack(">IHII", 0, 2, 1, 1) + stamp
    tree += struct.pack(">IHII", name("lang"), 2, len(files), 2) + stamp
    for word, content in files.items():
        packed = word.endswith(".json")
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        tree += struct.pack(">IHHHI", name(word), int(packed), 0, 0, len(data)) + stamp
        data += struct.pack(">I", len(stored)) + stored
    start = 20 if version < 3 else 24
    header = struct.pack(">4s4I", b"qres", version, start, start + len(tree), start + len(tree) + len(data))
    return header + bytes(start - 20) + bytes(tree) + bytes(data) + bytes(names)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_rcc_round_trip(version: int) -> None:
    files = {"content-fr.json": b'{"ant.ogg": "fourmi"}' * 20, "köder.txt": b"plain"}
    assert read_rcc(rcc(files, version)) == {f"/lang/{name}": content for name, content in files.items()}


@given(st.binary(max_size=60), st.integers(min_value=0, max_value=200))
def test_damaged_rcc_is_one_error_or_nothing(noise: bytes, at: int) -> None:
    whole = bytearray(rcc({"a.json": b"{}", "b": b"x"}))
    whole[at : at + len(noise)] = noise
    try:
        read_rcc(bytes(whole))
    except IsoglossError as error:
        assert "fetch gcompris-qt-data again" in str(error)


def test_gcompris_texts_and_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOGLOSS_CACHE", str(tmp_path / "cache"))
    clone = tmp_path / "clone"
    names = (
        "alphabet/U0061",
        "alphabet/U0063U0068",
        "alphabet/U0031",
        "alphabet/10",
        "words/ant",
        "words/bee",
    )
    for name in (*names, "intro/piano", "colors/red"):
        sound(clone / f"pt_BR/{name}.ogg")
    (clone / "pt_BR/words/cow.ogg").write_bytes(b"broken")
    text(
        clone / "LICENSE",
        "./pt_BR/words:\nant.ogg   Zo\u00eb <zoe@example.org> 2015 / GPL V3+\nbee.ogg  Public Domain\n\n"
        "./pt_BR/alphabet:\nU0061.ogg   Ana B. (voice), C (tech) / GPL 2 +\n10.ogg   GPL V3+\n",
    )
    content = json.dumps({"ant.ogg": " formiga", "U0031.ogg": "um", "red.ogg": "vermelho", "bee.ogg": " "})
    package = tmp_path / "cache/gcompris-qt-data/usr/share/gcompris-qt/rcc/lang.rcc"
    package.parent.mkdir(parents=True)
    package.write_bytes(rcc({"content-pt_BR.json": content.encode()}))
    found, dropped = read("gcompris", clone)
    short = {name.removeprefix("pt_BR/"): clip for name, clip in found.items()}
    assert {name: clip.text for name, clip in short.items()} == {
        "alphabet/10": "10",
        "alphabet/U0031": "um",
        "alphabet/U0061": "a",
        "alphabet/U0063U0068": "ch",
        "colors/red": None,
        "intro/piano": None,
        "words/ant": "formiga",
        "words/bee": None,
    }
    assert dropped == {"unreadable": 1}
    assert {name: clip.speaker for name, clip in short.items() if clip.speaker} == {
        "words/ant": "gcompris-pt-BR-zo\u00eb",
        "alphabet/U0061": "gcompris-pt-BR-ana-b",
    }
    assert short["words/ant"].concept == "words/ant"
    assert short["words/ant"].language == "pt-BR"


def test_gcompris_needs_a_clone(tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="give a clone of GCompris-voices"):
        list(CORPORA["gcompris"].read(tmp_path, tmp_path, Counter()))


# The real packages: {corpus: (clips, minutes, transcribed, dropped)}

MEASURED = {
    "festvox-ru": (620, 99.5, 620, {}),
    "fillets": (3405, 198.1, 3405, {"no text": 70, "placeholder in text": 21, "no_frames": 2}),
    "tuxpaint": (6088, 150.6, 6027, {"identical audio": 964, "speaking rate": 380, "not a caption": 1}),
    "drascula": (1481, 88.1, 1481, {"no text": 46, "not speech": 36}),
    "klettres": (1829, 51.1, 1829, {"identical audio": 6, "missing": 141}),
    "ktuberling": (1804, 31.1, 0, {"identical audio": 65, "missing": 199}),
    "gcin-voice": (2358, 13.7, 0, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_real_corpus(name: str, fetched: Callable[..., Path], tmp_path: Path) -> None:
    corpus = CORPORA[name]
    dropped: Counter[str] = Counter()
    found = list(corpus.read(fetched(*corpus.packages), tmp_path, dropped))
    clips, minutes, transcribed, rules = MEASURED[name]
    assert (len(found), sum(clip.text is not None for clip in found), dropped) == (clips, transcribed, rules)
    spoken = sum(info(clip.audio).seconds for clip in found) / 60
    assert spoken == pytest.approx(minutes, abs=0.06)
    assert spoken == pytest.approx(corpus.minutes, abs=0.06)
    assert {clip.language for clip in found} == set(corpus.languages)
    assert len({clip.id for clip in found}) == clips


@pytest.mark.slow
def test_real_asterisk_shares_prompts(fetched: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("av")
    corpus = CORPORA["asterisk"]
    dropped: Counter[str] = Counter()
    found = list(corpus.read(fetched(*corpus.packages), tmp_path, dropped))
    assert len(found) == 2745
    assert dropped["not speech"] == 85
    by_prompt = Counter(clip.concept for clip in found)
    assert sum(count == 5 for count in by_prompt.values()) == 478  # 495 less 10 silences and 7 noises
    assert sum(info(clip.audio).seconds for clip in found) / 60 == pytest.approx(corpus.minutes, abs=0.1)


@pytest.mark.slow
def test_real_fillets_pairs(fetched: Callable[..., Path], tmp_path: Path) -> None:
    corpus = CORPORA["fillets"]
    found = list(corpus.read(fetched(*corpus.packages), tmp_path, Counter()))
    levels = [clip for clip in found if not clip.id.startswith("share/")]
    assert Counter(clip.language for clip in levels) == {"cs": 1692, "nl": 1526}
    assert all("en" in clip.translations for clip in found)
    spoken_in = Counter(clip.id.replace("/nl/", "/").replace("/cs/", "/") for clip in levels)
    assert sum(count == 2 for count in spoken_in.values()) == 1405
    assert len({clip.role for clip in found if clip.language == "cs"}) > 25


@pytest.mark.slow
def test_real_gcompris(gcompris: Path, fetched: Callable[..., Path], tmp_path: Path) -> None:
    fetched("gcompris-qt-data")
    dropped: Counter[str] = Counter()
    found = list(CORPORA["gcompris"].read(gcompris, tmp_path, dropped))
    assert len(found) + dropped["unreadable"] == 13995
    assert {clip.language for clip in found} == set(CORPORA["gcompris"].languages)
    words = [clip for clip in found if (clip.concept or "").startswith("words/")]
    assert sum(clip.text is not None for clip in words) > 4800
    assert sum(clip.speaker is not None for clip in found) > 11000
