"""Public corpora: tiny trees of their layouts, made of real clips, read as their makers split them."""

import gzip
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from isogloss.audio.reading import read
from isogloss.data.manifests import audio_of, read_cuts, split_of
from isogloss.data.prepare import prepare
from isogloss.data.public import CORPORA
from isogloss.errors import IsoglossError
from isogloss.text.languages import normalise_language

SPLITS = ("train", "dev", "test")


@pytest.fixture
def save(clips):
    """Writes a real clip of at most a second to a path, in the format of its suffix."""
    taken = iter(range(1000))

    def save(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = clips[next(taken) % len(clips)]
        form = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, read(clip.audio)[:16000], 16000, **form)
        return path

    return save


def write(path, *lines, separator="\t"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines), encoding="utf-8")


def take(name, root):
    dropped = Counter()
    found = list(CORPORA[name].read(root, root / "unused", dropped))
    assert len({utterance.id for utterance in found}) == len(found)
    assert all(utterance.audio.is_file() and utterance.source == name for utterance in found)
    return {utterance.id: utterance for utterance in found}, dropped


def librispeech(root, save):
    for part, chapter in (
        ("train-clean-5", "103-1240"),
        ("dev-clean-2", "84-121123"),
        ("test-other", "367-130732"),
    ):
        folder = root / part / chapter.replace("-", "/")
        write(
            folder / f"{chapter}.trans.txt",
            *((f"{chapter}-000{n}", f"SENTENCE {n} OF {chapter}") for n in range(2)),
            separator=" ",
        )
        for number in range(2):
            save(folder / f"{chapter}-000{number}.flac")


def test_librispeech(tmp_path, save):
    librispeech(tmp_path, save)
    found, _ = take("librispeech", tmp_path)
    assert len(found) == 6
    one = found["84-121123-0001"]
    assert (one.split, one.language, one.speaker) == ("dev", "en", "84")
    assert (one.text, one.duration) == ("SENTENCE 1 OF 84-121123", None)
    assert Counter(utterance.split for utterance in found.values()) == dict.fromkeys(SPLITS, 2)


@pytest.mark.parametrize("kind", ["flac", "opus"])
def test_mls(tmp_path, save, kind):
    for language in ("polish", "german"):
        folder = tmp_path / (f"mls_{language}_opus" if kind == "opus" else f"mls_{language}")
        write(folder / "metainfo.txt", ("SPEAKER", "GENDER"), ("10", "F"), separator=" | ")
        for split in SPLITS:
            write(folder / split / "transcripts.txt", (f"10_20_{split}", f"zdanie {split} {language}"))
            save(folder / split / "audio/10/20" / f"10_20_{split}.{kind}")
    found, _ = take("mls", tmp_path)
    one = found["polish/10_20_dev"]
    assert (one.language, one.split, one.speaker, one.text) == ("pl", "dev", "10", "zdanie dev polish")
    assert len(found) == 6


def test_fleurs_sentences_are_parallel_and_speakers_unknown(tmp_path, save):
    for language, text in (("ro_ro", "propoziția"), ("cmn_hans_cn", "句子")):
        for index, split in enumerate(SPLITS):
            audio = save(tmp_path / language / split / f"90{index}.wav")
            row = (1000 + index, audio.name, f"{text} {index}.", f"{text} {index}", "c | h", 0, "FEMALE")
            row = (*row[:5], soundfile.info(audio).frames, row[6])
            write(tmp_path / "metadata" / language / f"{split}.tsv", row)
    found, _ = take("fleurs", tmp_path)
    romanian, chinese = (found[f"{language}/1002_1_902"] for language in ("ro_ro", "cmn_hans_cn"))
    assert (romanian.language, chinese.language) == ("ro", "zh")
    assert (romanian.concept, chinese.concept, romanian.split) == ("1002", "1002", "test")
    assert (romanian.speaker, romanian.text, romanian.duration) == (None, "propoziția 2", None)


COMMON_VOICE = (
    "client_id",
    "path",
    "sentence",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
)


def test_common_voice(tmp_path, save):
    for split in ("train", "test"):
        clip = save(tmp_path / "ro/clips" / f"common_voice_ro_{split}.mp3")
        row = ["abc", clip.name, f'Zise "{split}"', 2, 0, "", "", "", "", "ro", ""]
        write(tmp_path / "ro" / f"{split}.tsv", COMMON_VOICE, row)
    found, _ = take("commonvoice", tmp_path)
    assert {utterance.split for utterance in found.values()} == {"train", "test"}
    one = found["ro/common_voice_ro_test"]
    assert (one.text, one.language, one.speaker) == ('Zise "test"', "ro", "abc")


def common_voice(root, save, **tables):
    for name, number in tables.items():
        rows = []
        for n in range(number):
            clip = save(root / "clips" / f"common_voice_{name}_{n}.mp3")
            rows.append([f"abc{n}", clip.name, f"{name} {n}", 2, 0, "", "", "", "", "pt", ""])
        write(root / f"{name}.tsv", COMMON_VOICE, *rows)


@pytest.mark.parametrize("place", ["", "pt"])
def test_a_release_of_common_voice_is_known_by_its_layout(tmp_path, save, place):
    common_voice(tmp_path / "pt", save, train=2, dev=1, test=1, other=1)
    with (tmp_path / "pt/train.tsv").open("a", encoding="utf-8") as table:
        table.write("too\tfew\n")
    card = prepare(str(tmp_path / place), tmp_path / "out")
    assert {split_of(cut): cut.supervisions[0].speaker for cut in read_cuts(tmp_path / "out")} == {
        "train": "abc1",
        "dev": "abc0",
        "test": "abc0",
    }
    assert (card["clips"], card["languages"].keys()) == (4, {"pt"})
    assert card["aside"]["lines"] == {"row of train.tsv with too many or too few fields": 1}


def test_a_release_without_splits(tmp_path, save):
    common_voice(tmp_path / "my clips", save, validated=3, invalidated=1)
    found, _ = take("commonvoice", tmp_path / "my clips")
    assert {(clip.split, clip.language) for clip in found.values()} == {(None, "pt")} and len(found) == 3


def test_voxpopuli_segments_of_sessions(tmp_path, save):
    columns = (
        "session_id",
        "speaker_id",
        "gender",
        "start_time",
        "end_time",
        "split",
        "normed_text",
        "original_text",
    )
    save(tmp_path / "raw_audios/ro/2019/20190101-0900-PLENARY-1_ro.ogg")
    rows = [
        ("20190101-0900-PLENARY-1", "77", "female", n / 10, n / 10 + 0.1, split, f"text {n}", f"Text {n}.")
        for n, split in enumerate(SPLITS)
    ]
    with gzip.open(tmp_path / "asr_ro.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines("|".join(map(str, row)) + "\n" for row in (columns, *rows))
    found, _ = take("voxpopuli", tmp_path)
    by_split = {utterance.split: utterance for utterance in found.values()}
    assert (by_split["test"].start, by_split["test"].duration) == (0.2, pytest.approx(0.1))
    assert (by_split["dev"].text, by_split["dev"].speaker, by_split["dev"].language) == ("text 1", "77", "ro")


def test_voxpopuli_without_its_transcripts_does_not_go_to_the_network(tmp_path, save):
    save(tmp_path / "raw_audios/ro/2019/20190101-0900-PLENARY-1_ro.ogg")
    with pytest.raises(IsoglossError, match=r"holds no asr_ro\.tsv\.gz"):
        take("voxpopuli", tmp_path)


def test_covost2_joins_translations_to_common_voice(tmp_path, save):
    names = [save(tmp_path / "fr/clips" / f"cv_{n}.mp3").name for n in range(4)]
    write(
        tmp_path / "fr/validated.tsv",
        COMMON_VOICE[:3],
        *((f"c{n}", name, f"Phrase {n}") for n, name in enumerate(names)),
    )
    for target in ("en", "zh-CN"):
        splits = ("train", "train_covost", "test")
        rows = (
            (name, f"{target} {n}", split) for n, (name, split) in enumerate(zip(names, splits, strict=False))
        )
        write(tmp_path / f"covost_v2.fr_{target}.tsv", ("path", "translation", "split"), *rows)
    found, dropped = take("covost2", tmp_path)
    assert {id: utterance.split for id, utterance in found.items()} == {
        "cv_0": "train",
        "cv_1": "train",
        "cv_2": "test",
    }
    assert found["cv_2"].translations == {"en": "en 2", "zh": "zh-CN 2"}
    assert dropped == {"outside CoVoST 2": 1}


def test_voxceleb(tmp_path, save):
    columns = ("VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set")
    write(
        tmp_path / "vox1_meta.csv",
        columns,
        ("id10001", "A", "m", "X", "dev"),
        ("id10270", "B", "f", "Y", "test"),
    )
    for speaker in ("id10001", "id10270"):
        save(tmp_path / "wav" / speaker / "1zcIwhmdeo4" / "00001.wav")
    found, _ = take("voxceleb", tmp_path)
    assert {utterance.speaker: utterance.split for utterance in found.values()} == {
        "id10001": "train",
        "id10270": "test",
    }
    assert {(utterance.language, utterance.text) for utterance in found.values()} == {("und", None)}


def test_voxlingua107(tmp_path, save):
    save(tmp_path / "iw/0-a_B9__U__S1---0000.000-0005.230.wav")
    save(tmp_path / "dev/ro/xYz__U__S79---0789.960-0800.990.wav")
    found, _ = take("voxlingua107", tmp_path)
    assert {(u.language, u.split, u.speaker) for u in found.values()} == {
        ("he", "train", "0-a_B9"),
        ("ro", "dev", "xYz"),
    }


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_a_folder_that_is_something_else_is_told(tmp_path, name):
    with pytest.raises(IsoglossError) as caught:
        take(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_prepare_keeps_official_splits_counts_broken_clips_and_notes_leaks(tmp_path, save):
    root = tmp_path / "LibriSpeech"
    librispeech(root, save)
    transcript = root / "test-other/367/130732/367-130732.trans.txt"
    transcript.write_text(
        transcript.read_text().replace("SENTENCE 0 OF 367-130732", "SENTENCE 0 OF 103-1240")
    )
    (root / "train-clean-5/103/1240/103-1240-0001.flac").write_bytes(b"not flac")
    card = prepare(f"librispeech={root}", tmp_path / "out", max_bad=0.2)
    assert card["broken"] == {"unreadable": 1}
    assert card["splits"]["leaks"] == [
        '"sentence 0 of 103 1240" (train: 103-1240-0000, test: 367-130732-0000)'
    ]
    cuts = read_cuts(tmp_path / "out")
    assert Counter(map(split_of, cuts)) == {"train": 1, "dev": 2, "test": 2}
    assert all(audio_of(cut).is_file() for cut in cuts)


def test_entries_are_in_order():
    for name, corpus in CORPORA.items():
        assert (corpus.name, corpus.kind, corpus.packages) == (name, "public", ())
        assert [normalise_language(tag) for tag in corpus.languages] == list(corpus.languages)
        assert corpus.licence and corpus.title
