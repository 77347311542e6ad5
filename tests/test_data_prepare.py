"""prepare: from whatever holds speech to a folder that is whole, checked and the same every time."""

import gzip
import json
import os
import random
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio import windows
from isogloss.audio.reading import AudioInfo, info, read
from isogloss.data.loading import waveform
from isogloss.data.manifests import (
    CARD,
    CUTS,
    Utterance,
    audio_of,
    fingerprint,
    language_of,
    read_card,
    read_cuts,
    split_of,
    text_of,
    to_cut,
    write_cuts,
)
from isogloss.data.prepare import prepare
from isogloss.errors import IsoglossError

MINUTE = AudioInfo(seconds=60.0, sample_rate=16000, channels=1, format="WAV/PCM_16", frames=960000)


@pytest.fixture
def speech(clips, tmp_path):
    """A folder with three short real clips: a.wav, b.flac, c.ogg."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for name, clip in zip(("a.wav", "b.flac", "c.ogg"), clips, strict=False):
        soundfile.write(folder / name, read(clip.audio, duration=1.0), 16000)
    return folder


def table(folder, rows, columns="audio,text,language", name="clips.csv"):
    path = folder / name
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def many(count=40):
    return [("abc"[n % 3] + (".wav", ".flac", ".ogg")[n % 3], f"Propoziția {n}", "ro") for n in range(count)]


def distinct(rows):
    """Ids come from paths, which repeat here."""
    return [(*row, f"clip{number:03d}") for number, row in enumerate(rows)]


COLUMNS = "audio,text,language,id"


def no_traces(folder):
    return not [path for path in folder.iterdir() if path.name.startswith(".tmp-")]


def test_a_table_becomes_a_corpus(speech, tmp_path):
    source = table(speech, distinct(many()), COLUMNS)
    stages = []
    card = prepare(str(source), tmp_path / "out", test=0.2, on_progress=lambda *stage: stages.append(stage))
    assert card == read_card(tmp_path / "out")
    assert (card["clips"], card["name"], card["broken"], card["dropped"]) == (40, "clips", {}, {})
    assert {name: card["languages"]["ro"][name]["clips"] for name in ("train", "dev", "test")} == {
        "train": 28,
        "dev": 4,
        "test": 8,
    }
    assert stages[-1] == ("clips", 40)
    cuts = read_cuts(tmp_path / "out")
    assert [cut.supervisions[0].text for cut in cuts] == [row[1] for row in many()]
    assert all(audio_of(cut).is_absolute() and audio_of(cut).is_file() for cut in cuts)
    assert len(read_cuts(tmp_path / "out", "test")) == 8
    assert no_traces(tmp_path)


def test_a_corpus_moves_with_the_recordings_beside_it(speech, tmp_path):
    prepare(str(table(speech, distinct(many()), COLUMNS)), tmp_path / "out", test=0.2)
    before = read_cuts(tmp_path / "out")
    place = tmp_path / "elsewhere" / "project"
    place.mkdir(parents=True)
    for entry in [entry for entry in tmp_path.iterdir() if entry.name != "elsewhere"]:
        entry.rename(place / entry.name)
    after = read_cuts(place / "out")
    names = [audio_of(cut).relative_to(tmp_path) for cut in before]
    assert [audio_of(cut).relative_to(place) for cut in after] == names
    assert all(audio_of(cut).is_file() for cut in after)


def test_same_input_in_any_order_gives_the_same_bytes(speech, tmp_path):
    rows = distinct(many())
    first = prepare(str(table(speech, rows, COLUMNS)), tmp_path / "one")
    random.Random(1).shuffle(rows)
    second = prepare(str(table(speech, rows, COLUMNS)), tmp_path / "two")
    assert (tmp_path / "one" / CUTS).read_bytes() == (tmp_path / "two" / CUTS).read_bytes()
    assert first["fingerprint"] == second["fingerprint"]
    rows[0] = (rows[0][0], "altceva", *rows[0][2:])
    assert (
        prepare(str(table(speech, rows, COLUMNS)), tmp_path / "three")["fingerprint"] != first["fingerprint"]
    )


def test_processes_that_read_change_nothing(clips, speech, tmp_path):
    """Among them long speech that is segmented, clips that are dropped and one that is broken."""
    rows = many(150)
    (speech / "broken.wav").write_bytes(b"RIFF")
    english = [read(clip.audio) for clip in clips[:4]]
    silence = np.zeros(8000, np.float32)
    soundfile.write(speech / "talk.wav", np.concatenate([part for clip in english for part in (clip, silence)]), 16000)
    source = table(speech, distinct([*rows, ("broken.wav", "zz", "ro"), ("talk.wav", "", "en")]), COLUMNS)
    written, told = [], []
    for processes in (0, 2):
        out = tmp_path / f"out-{processes}"
        given = {"max_seconds": 4, "max_bad": 0.1, "processes": processes}
        prepare(str(source), out, on_progress=lambda *at: told.append(at), **given)
        assert told[-1] == ("clips", len(rows) + 2)
        written.append([(out / name).read_bytes() for name in (CARD, CUTS)])
    assert written[0] == written[1]
    card = read_card(tmp_path / "out-2")
    assert card["broken"] and card["languages"]["en"]


def test_segments_of_a_file_become_cuts_with_an_offset(speech, tmp_path):
    rows = [("a.wav", "unu", "ro", 0.25, 0.5), ("a.wav", "doi", "ro", 0.75, 0.3)]
    prepare(str(table(speech, rows, "audio,text,language,start,duration")), tmp_path / "out")
    first, second = read_cuts(tmp_path / "out")
    assert (first.start, first.duration, second.start) == (0.25, 0.5, 0.75)
    # 0.3 s from 0.75 s reach past the end of the file by less than a rounding error may.
    assert second.duration == pytest.approx(0.25)
    heard = first.load_audio()[0]
    assert np.allclose(heard, read(speech / "a.wav", start=0.25, duration=0.5), atol=1e-4)


def test_a_few_broken_clips_are_skipped_and_counted(speech, tmp_path):
    (speech / "empty.wav").write_bytes(b"")
    rows = distinct([*many(300), ("empty.wav", "x", "ro"), ("gone.wav", "y", "ro")])
    card = prepare(str(table(speech, rows, COLUMNS)), tmp_path / "out")
    assert (card["clips"], card["broken"]) == (300, {"empty": 1, "missing": 1})


def test_too_many_broken_clips_stop_with_a_table_of_causes(speech, tmp_path):
    (speech / "empty.wav").write_bytes(b"")
    (speech / "text.wav").write_text("this is no audio")
    (speech / "cut.wav").write_bytes((speech / "a.wav").read_bytes()[:9000])
    soundfile.write(speech / "zero.wav", np.zeros(0), 16000)
    broken = [(name, "x", "ro") for name in ("empty.wav", "text.wav", "cut.wav", "zero.wav", "gone.wav")]
    source = table(speech, distinct([*many(20), *broken]), COLUMNS)
    with pytest.raises(IsoglossError) as caught:
        prepare(str(source), tmp_path / "out")
    head, *causes = str(caught.value).splitlines()
    assert "5 of 25 clips" in head and "(20.0%, allowed: 1.0%)" in head and "--max-bad" in head
    assert sorted(line.split()[0] for line in causes) == [
        "empty",
        "missing",
        "no_frames",
        "truncated",
        "unreadable",
    ]
    assert all(line.split()[1] == "1" for line in causes)
    assert not (tmp_path / "out").exists() and no_traces(tmp_path)
    assert prepare(str(source), tmp_path / "out", max_bad=0.2)["clips"] == 20


def test_a_segment_beyond_its_file_is_broken(speech, tmp_path):
    source = table(speech, [("a.wav", "unu", "ro", 0.5, 5.0)], "audio,text,language,start,duration")
    with pytest.raises(IsoglossError, match=r"truncated +1 .*a\.wav ends at 1\.00 s"):
        prepare(str(source), tmp_path / "out")


def test_folder_with_content_is_left_alone_unless_told_otherwise(speech, tmp_path):
    source = str(table(speech, distinct(many()), COLUMNS))
    out = tmp_path / "out"
    out.mkdir()
    prepare(source, out)  # an empty folder is free to use
    (out / "precious.txt").write_text("mine")
    with pytest.raises(IsoglossError, match=r"out exists already; choose another folder or give --overwrite"):
        prepare(source, out)
    assert (out / "precious.txt").is_file()
    prepare(source, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["corpus.json", "cuts.jsonl.gz"]


def test_a_corpus_is_not_replaced_by_one_made_of_its_own_audio(speech, tmp_path):
    (tmp_path / "out/audio").mkdir(parents=True)
    (speech / "a.wav").rename(tmp_path / "out/audio/a.wav")
    with pytest.raises(IsoglossError, match="holds something else"):
        prepare(str(tmp_path / "out/audio"), tmp_path / "out", language="ro", overwrite=True)
    (tmp_path / "out/corpus.json").write_text("{}", encoding="utf-8")
    with pytest.raises(IsoglossError, match=r"a\.wav lies in .*out, which is to be replaced"):
        prepare(str(tmp_path / "out/audio"), tmp_path / "out", language="ro", overwrite=True)
    assert (tmp_path / "out/audio/a.wav").is_file()


def test_ctrl_c_leaves_nothing_half_written(speech, tmp_path):
    def interrupt(stage, done):
        if done == 7:
            raise KeyboardInterrupt

    source = str(table(speech, distinct(many()), COLUMNS))
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", on_progress=interrupt)
    assert not (tmp_path / "out").exists() and no_traces(tmp_path)
    prepare(source, tmp_path / "out")
    before = (tmp_path / "out" / CUTS).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", overwrite=True, seed=5, on_progress=interrupt)
    assert (tmp_path / "out" / CUTS).read_bytes() == before and no_traces(tmp_path)


def test_duplicate_ids_are_told_together(speech, tmp_path):
    rows = [("a.wav", "x", "ro", name) for name in ("one", "one", "two", "two", "three")]
    with pytest.raises(IsoglossError, match=r"2 duplicate ids \(one, two\)"):
        prepare(str(table(speech, rows, COLUMNS)), tmp_path / "out")


def test_a_leaking_split_is_refused(speech, tmp_path):
    rows = [("a.wav", "Bună ziua", "ro", "train"), ("b.flac", "bună ziua!", "ro", "test")]
    source = str(table(speech, rows, "audio,text,language,split"))
    with pytest.raises(IsoglossError, match=r'splits leak: 1 texts .*"bună ziua" \(train: a, test: b\)'):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    card = prepare(source, tmp_path / "out", allow_leak=True)
    assert card["splits"]["leaks"] == ['"bună ziua" (train: a, test: b)']


def test_long_transcribed_clips_are_dropped_and_short_ones_too(clips, speech, tmp_path):
    soundfile.write(speech / "long.wav", np.tile(read(clips[0].audio), 20)[: 16000 * 31], 16000)
    soundfile.write(speech / "blip.wav", read(clips[0].audio)[:800], 16000)
    rows = [("long.wav", "x", "ro"), ("blip.wav", "y", "ro"), ("a.wav", "z", "ro")]
    card = prepare(str(table(speech, rows)), tmp_path / "out")
    assert (card["clips"], card["dropped"]) == (1, {"longer than 30 s": 1, "shorter than 0.1 s": 1})


def test_long_untranscribed_speech_is_segmented_and_stays_in_one_split(clips, tmp_path):
    pytest.importorskip("silero_vad")
    folder = tmp_path / "talks"
    folder.mkdir()
    silence = np.zeros(8000, np.float32)
    english = [read(clip.audio) for clip in clips[:4]]
    talk = np.concatenate([part for waveform in english * 3 for part in (waveform, silence)])
    soundfile.write(folder / "talk.wav", talk, 16000)
    card = prepare(str(folder), tmp_path / "out", language="en", max_seconds=8.0)
    cuts = read_cuts(tmp_path / "out")
    assert len(cuts) > 3 and cuts[0].id == "talk/0001"
    assert all(0.1 <= cut.duration <= 8.0 and cut.supervisions[0].text is None for cut in cuts)
    assert all(one.end <= other.start + 1e-3 for one, other in pairwise(cuts))
    assert len({split_of(cut) for cut in cuts}) == 1
    spoken = sum(map(len, english)) * 3 / 16000
    assert 0.5 * spoken < card["hours"] * 3600 < 1.1 * spoken


def test_parts_of_a_file_that_cannot_seek_are_cut_from_a_copy(clips, tmp_path):
    """An m4a is decoded from its beginning for every clip; its copy is not, and whole files need none."""
    talk = np.concatenate([read(clip.audio) for clip in clips[:4]])
    for name in ("talk.m4a", "short.m4a"):
        with av.open(str(tmp_path / name), "w", format="ipod") as output:
            stream = output.add_stream("aac", rate=16000, layout="mono")
            samples = talk if name == "talk.m4a" else talk[:16000]
            frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
            frame.sample_rate = 16000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                output.mux(packet)
    rows = [("talk.m4a", 2, 1, "doi"), ("talk.m4a", 0, 1, "unu"), ("short.m4a", "", "", "trei")]
    prepare(str(table(tmp_path, rows, "audio,start,duration,text")), tmp_path / "out", language="ro", dev=0, test=0)
    cuts = {cut.supervisions[0].text: cut for cut in read_cuts(tmp_path / "out")}
    (copy,) = (tmp_path / "out/audio").iterdir()
    assert [audio_of(cuts[text]) for text in ("unu", "doi", "trei")] == [copy, copy, tmp_path / "short.m4a"]
    assert np.allclose(waveform(cuts["doi"]), read(tmp_path / "talk.m4a", start=2, duration=1), atol=1e-4)


def test_channels_are_averaged_taken_alone_or_made_clips_of_their_own(speech, tmp_path):
    (speech / "c.ogg").unlink()
    left, right = read(speech / "a.wav"), read(speech / "b.flac")
    soundfile.write(speech / "call.wav", np.stack([left, right], axis=1), 16000, "FLOAT")

    def prepared(**how):
        out = tmp_path / f"out-{how.get('channel')}"
        prepare(str(speech), out, language="ro", overwrite=True, dev=0, test=0, max_bad=1, **how)
        return {cut.id: waveform(cut) for cut in read_cuts(out)}

    assert np.allclose(prepared()["call"], (left + right) / 2)
    assert np.array_equal(prepared(channel=1)["call"], left) and np.array_equal(prepared(channel=1)["a"], left)
    assert prepared(channel=2).keys() == {"call"}  # the others have none
    each = prepared(channel="each")
    assert each.keys() == {"a", "b", "call/channel-1", "call/channel-2"}
    assert np.array_equal(each["call/channel-2"], right)
    (speech / "call.txt").write_text("Alo?", encoding="utf-8")
    with pytest.raises(IsoglossError, match="has 2 channels and one transcript; give --channel mix or a number"):
        prepared(channel="each")


def test_no_word_is_cut_where_a_window_of_a_long_recording_ends(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(windows.Running.window, "__defaults__", (6.0,))
    pause = np.zeros(12000, np.float32)
    soundfile.write(tmp_path / "talk.wav", np.concatenate([read(clips[0].audio)[:32000], pause] * 10), 16000)
    prepare(str(tmp_path), tmp_path / "out", language="en", max_seconds=3.0, dev=0, test=0)
    ends = [cut.end for cut in read_cuts(tmp_path / "out")]
    assert len(ends) >= 9 and all(end % 2.75 > 1.5 for end in ends)  # between two readings, never within one


def test_languages_are_filtered_and_a_missing_one_is_told(speech, tmp_path):
    rows = [("a.wav", "unu", "ro"), ("b.flac", "один", "ru")]
    source = str(table(speech, rows))
    assert set(prepare(source, tmp_path / "out", languages=["Russian"])["languages"]) == {"ru"}
    with pytest.raises(IsoglossError, match=r"No clip .* is left\. Its languages are ro, ru"):
        prepare(source, tmp_path / "other", languages=["uk"])
    with pytest.raises(IsoglossError, match='Unknown language "Rusian"'):
        prepare(source, tmp_path / "other", languages=["Rusian"])


def test_splits_do_not_depend_on_the_languages_kept(speech, tmp_path):
    """Parallel texts tie languages together, so that a draw among the kept ones alone would be another."""
    rows = [(*row[:2], "ro") for row in many()] + [(*row[:2], "bg") for row in many()[::3]]
    rows += [(*row[:2], "ru") for row in many()[::2]]
    source = str(table(speech, distinct(rows), COLUMNS))
    prepare(source, tmp_path / "all")
    prepare(source, tmp_path / "two", languages=["bg", "ru"])
    whole = {cut.id: split_of(cut) for cut in read_cuts(tmp_path / "all")}
    part = {cut.id: split_of(cut) for cut in read_cuts(tmp_path / "two")}
    assert part == {cut.id: whole[cut.id] for cut in read_cuts(tmp_path / "all") if language_of(cut) != "ro"}
    assert set(part.values()) == {"train", "dev", "test"}


def test_what_is_wrong_with_languages_that_are_not_kept_is_not_counted(speech, tmp_path):
    (speech / "broken.wav").write_bytes(b"no audio")
    soundfile.write(speech / "short.wav", np.zeros(160), 16000)
    rows = [("a.wav", "unu", "ro"), ("broken.wav", "doi", "ru"), ("short.wav", "trei", "ru")]
    card = prepare(str(table(speech, rows)), tmp_path / "out", languages=["ro"])
    assert card["clips"] == 1 and not card["dropped"] and not card["broken"]


def test_unspoken_text_is_added_without_what_is_held_out(speech, tmp_path):
    lines = [
        {
            "audio": "a.wav",
            "text": "Pisica",
            "language": "ro",
            "split": "test",
            "translations": {"fi": "Kissa."},
        },
        {"audio": "b.flac", "text": "Câinele", "language": "ro", "split": "train"},
    ]
    source = speech / "clips.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (speech / "ro.txt").write_text("PISICA!\nCâinele.\nCalul\nCalul\n", encoding="utf-8")
    (speech / "fi.txt").write_text("kissa\nkoira\n", encoding="utf-8")
    (speech / "el.txt").write_text("\n \n", encoding="utf-8")
    for texts, told in (([speech / "sv.txt"], "sv.txt is no file"), ([speech / "el.txt"], "no sentence is left")):
        with pytest.raises(IsoglossError, match=told):
            prepare(str(source), tmp_path / "none", text=texts)
        assert not (tmp_path / "none").exists()
    card = prepare(str(source), tmp_path / "out", text=[speech / "ro.txt", speech / "fi.txt"])
    with gzip.open(tmp_path / "out/text.jsonl.gz", "rt", encoding="utf-8") as file:
        kept = [(line["language"], line["text"]) for line in map(json.loads, file)]
    assert kept == [("ro", "câinele"), ("ro", "calul"), ("fi", "koira")]
    assert card["text"]["excluded"] == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tuxpiant", r'neither a file, a folder nor a known corpus\. Did you mean "tuxpaint"\?'),
        ("librispech=/data", r'Did you mean "librispeech"'),
        ("librispeech", r"not fetched; give its folder with librispeech=FOLDER"),
        ("librispeech=/not/there", r"/not/there, given for librispeech, is no folder"),
    ],
)
def test_unknown_sources_are_named(tmp_path, source, message):
    with pytest.raises(IsoglossError, match=message):
        prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_corpus_by_name_with_audio_that_had_to_be_converted(debian_cache, tmp_path):
    card = prepare("pocketsphinx-testdata", tmp_path / "out", cache=debian_cache)
    assert card["licence"] and card["sources"] == {"pocketsphinx-testdata": card["clips"]}
    cuts = read_cuts(tmp_path / "out")
    converted = [cut for cut in cuts if audio_of(cut).is_relative_to(tmp_path / "out" / "audio")]
    assert converted
    assert all(info(audio_of(cut)).seconds >= cut.duration for cut in cuts)


def test_file_names_that_are_not_utf8(speech, tmp_path):
    odd = os.fsencode(speech) + b"/\xe2ro\xff.wav"
    (speech / "a.wav").rename(os.fsdecode(odd))
    prepare(str(speech), tmp_path / "out", language="ro")
    assert any(os.fsencode(audio_of(cut)) == odd for cut in read_cuts(tmp_path / "out"))


# The manifest itself


@st.composite
def utterances(draw):
    plain = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
    return Utterance(
        id=draw(st.from_regex(r"[A-Za-z0-9._/-]{1,20}", fullmatch=True)),
        audio=Path("/speech") / draw(st.from_regex(r"\w{1,10}", fullmatch=True)),
        language="ro",
        source=draw(st.sampled_from(["a", "b"])),
        text=draw(st.none() | plain),
        start=draw(st.sampled_from([0.0, 0.5, 1.25])),
        duration=draw(st.none() | st.sampled_from([0.5, 58.0])),
        speaker=draw(st.none() | plain),
        translations=draw(st.dictionaries(st.sampled_from(["en", "fi"]), plain)),
        phones=tuple(draw(st.lists(st.tuples(st.just(0.25), st.just(0.5), plain), max_size=2))),
        split=draw(st.sampled_from([None, "train", "dev", "test"])),
    )


@settings(max_examples=30)
@given(st.lists(utterances(), max_size=4, unique_by=lambda utterance: utterance.id))
def test_cuts_come_back_as_they_were(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("cuts")
    cuts = [to_cut(utterance, MINUTE) for utterance in made]
    write_cuts(folder, cuts)
    assert read_cuts(folder) == cuts
    assert fingerprint(reversed(cuts)) == fingerprint(cuts)
    assert read_cuts(folder, "dev") == [cut for cut in cuts if split_of(cut) == "dev"]


def test_a_broken_line_is_named(tmp_path):
    cuts = [to_cut(Utterance(f"u{n}", Path("/a.wav"), "ro", "s"), MINUTE) for n in range(3)]
    write_cuts(tmp_path, cuts)
    lines = gzip.decompress((tmp_path / CUTS).read_bytes()).splitlines()
    for broken, reason in (
        (b'{"id": 1', "not valid JSON"),
        (b'{"id": "x"}', "not a lhotse object"),
        (b"7", "unreadable"),
    ):
        (tmp_path / CUTS).write_bytes(gzip.compress(b"\n".join([lines[0], broken, lines[2]])))
        with pytest.raises(IsoglossError, match=rf"cuts\.jsonl\.gz, line 2: {reason}"):
            read_cuts(tmp_path)


def test_duplicates_and_impossible_times_are_told_in_one_message(tmp_path):
    good = to_cut(Utterance("a", Path("/a.wav"), "ro", "s"), MINUTE).to_dict()
    late = {**good, "id": "late", "start": -1.0}
    with gzip.open(tmp_path / CUTS, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in (good, good, late))
    with pytest.raises(IsoglossError, match=r"1 duplicate id \(a\); 1 negative or empty time \(late\)"):
        read_cuts(tmp_path)


def test_a_folder_that_is_no_corpus(tmp_path):
    with pytest.raises(IsoglossError, match="is no prepared corpus"):
        read_cuts(tmp_path)
    with pytest.raises(IsoglossError, match='There is no split "exam"'):
        read_cuts(tmp_path, "exam")


def test_words_alone_are_kept_of_transcripts_and_everything_untranscribed(speech, tmp_path):
    texts = ["trei", "T", "13", "la ora 7", "î", "două case", "5 mere"]
    rows = [("a.wav", text, "ro", f"clip{number}") for number, text in enumerate(texts)] + [("b.flac", "", "ro", "no")]
    source = table(speech, rows, COLUMNS)
    card = prepare(str(source), tmp_path / "out", words=True, dev=0, test=0)
    assert [text_of(cut) for cut in read_cuts(tmp_path / "out")] == ["trei", "două case", None]
    assert card["dropped"] == {"a letter or figures": 5} and card["words"]
    assert prepare(str(source), tmp_path / "all", dev=0, test=0)["clips"] == 8
