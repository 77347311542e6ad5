"""Splits: the same whatever the order, never leaking, and fair to every language."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.audio.reading import AudioInfo
from isogloss.data.manifests import Utterance, count_cuts, split_of, to_cut
from isogloss.data.splits import assign_splits, check_splits, find_leaks, held_out_texts
from isogloss.errors import IsoglossError

SECOND = AudioInfo(seconds=1.0, sample_rate=16000, channels=1, format="WAV/PCM_16", frames=16000)
WORDS = {"en": "word", "ro": "cuvânt", "ru": "слово", "el": "λέξη"}


def corpus(*utterances):
    return [to_cut(utterance, SECOND) for utterance in utterances]


def utterance(number, text, language="en", **other):
    return Utterance(
        f"u{number:04d}", Path(f"{number}.wav"), language, other.pop("source", "a"), text, **other
    )


def split(cuts, **how):
    splits = assign_splits(cuts, **how)
    kept = [cut for cut in cuts if cut.id in splits]
    for cut in kept:
        cut.custom["split"] = splits[cut.id]
    return kept


@st.composite
def parallel_clips(draw):
    """Up to 120 clips of numbered sentences in four languages, some with their translations beside them."""
    kinds = st.tuples(
        st.integers(0, 30), st.sampled_from(sorted(WORDS)), st.booleans(), st.integers(0, 5), st.booleans()
    )
    made = []
    for number, (sentence, language, translated, speaker, silent) in enumerate(
        draw(st.lists(kinds, min_size=1, max_size=120))
    ):
        texts = {tag: f"{word.title()} {sentence}!" for tag, word in WORDS.items()}
        text = None if silent and number % 4 == 0 else texts.pop(language)
        translations = texts if translated and text else {}
        made.append(utterance(number, text, language, translations=translations, speaker=f"s{speaker}"))
    return made


@settings(max_examples=60)
@given(parallel_clips(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_splits_are_deterministic_and_do_not_depend_on_order(made, seed, shuffler):
    first = assign_splits(corpus(*made), seed=seed)
    shuffler.shuffle(made)
    assert assign_splits(corpus(*made), seed=seed) == first


@settings(max_examples=60)
@given(parallel_clips(), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.1, 0.4]))
def test_no_text_or_translation_is_in_two_splits(made, dev, test):
    cuts = split(corpus(*made), dev=dev, test=test)
    assert len(cuts) == len(made)
    check_splits(cuts)
    # Independently of the code under test: a sentence with its translations beside it is one sentence in all languages.
    for number in {u.text.split()[1] for u in made if u.translations}:
        concerned = [cut for cut in cuts if (cut.supervisions[0].text or "").endswith(f" {number}")]
        assert len({split_of(cut) for cut in concerned}) == 1


@settings(max_examples=40)
@given(parallel_clips())
def test_splits_by_speaker_share_neither_speaker_nor_text(made):
    cuts = corpus(*made)
    try:
        kept = split(cuts, by="speaker", test=0.3)
    except IsoglossError as error:
        assert "would lose" in str(error)  # everybody says the same few sentences
        return
    check_splits(kept, "speaker")
    by_speaker = {}
    for cut in kept:
        by_speaker.setdefault(cut.supervisions[0].speaker, set()).add(split_of(cut))
    assert all(len(splits) == 1 for splits in by_speaker.values())


def test_shares_are_those_asked_for_in_every_language():
    made = [
        utterance(1000 * index + number, f"{word} {number}", language)
        for index, (language, word) in enumerate(WORDS.items())
        for number in range(200)
    ]
    counts = count_cuts(split(corpus(*made), dev=0.1, test=0.2))
    for language in WORDS:
        assert [counts[language][name]["clips"] for name in ("train", "dev", "test")] == [140, 20, 40]


def test_twenty_distinct_texts_are_enough_for_every_split_and_fewer_never_lose_training():
    large = [utterance(number, f"word {number}") for number in range(2000)]
    small = [utterance(5000 + number, f"слово {number}", "ru") for number in range(20)]
    tiny = [utterance(6000, "λέξη", "el")]
    counts = count_cuts(split(corpus(*large, *small, *tiny), dev=0.01, test=0.01))
    assert set(counts["ru"]) == {"train", "dev", "test"}
    assert set(counts["el"]) == {"train"}


def test_a_language_of_few_clips_is_not_held_out_whole():
    english = [utterance(number, f"word {number}") for number in range(60)]
    rare = ("ga", "cy", "br", "gd", "gv", "kw")
    links = [
        utterance(100 + index, f"focal {index}", language, translations={"en": f"word {10 * index}"})
        for index, language in enumerate(rare)
    ]
    counts = count_cuts(split(corpus(*english, *links), test=0.45, dev=0.45))
    assert all("train" in splits for splits in counts.values())
    assert {"train", "dev", "test"} == set(counts["en"])


def test_a_corpus_can_be_for_testing_only():
    made = [utterance(number, f"word {number % 7}", sorted(WORDS)[number % 4]) for number in range(50)]
    assert set(assign_splits(corpus(*made), dev=0.0, test=1.0).values()) == {"test"}
    halves = assign_splits(corpus(*(utterance(n, f"w {n}") for n in range(50))), dev=0.5, test=0.5)
    assert set(halves.values()) == {"dev", "test"} and 24 <= Counter(halves.values())["dev"] <= 26


def test_other_seed_other_splits():
    cuts = corpus(*(utterance(number, f"word {number}") for number in range(100)))
    assert assign_splits(cuts, seed=0) != assign_splits(cuts, seed=1)


def test_normalised_equals_are_one_text():
    made = [utterance(number, text) for number in range(0, 200, 2) for text in (f"Word {number}",)]
    made += [utterance(number + 1, f"  word, {number}… ") for number in range(0, 200, 2)]
    splits = assign_splits(corpus(*made), test=0.3)
    assert all(splits[f"u{n:04d}"] == splits[f"u{n + 1:04d}"] for n in range(0, 200, 2))
    assert set(splits.values()) == {"train", "dev", "test"}


def test_concept_shared_by_languages_stays_together():
    made = [
        utterance(100 * index + number, None, language, concept=f"c{number}")
        for index, language in enumerate(WORDS)
        for number in range(50)
    ]
    splits = assign_splits(corpus(*made))
    assert Counter(splits.values())["test"] == 20
    for number in range(50):
        assert len({splits[f"u{100 * index + number:04d}"] for index in range(4)}) == 1


def test_segments_of_one_untranscribed_recording_stay_together():
    made = [
        Utterance(f"r{recording}/{segment}", Path(f"{recording}.wav"), "en", "a")
        for recording in range(30)
        for segment in range(5)
    ]
    splits = assign_splits(corpus(*made), test=0.2)
    assert set(splits.values()) == {"train", "dev", "test"}
    for recording in range(30):
        assert len({splits[f"r{recording}/{segment}"] for segment in range(5)}) == 1


def test_split_by_source_holds_out_whole_sources():
    made = [
        utterance(1000 * index + number, f"{source} {number}", source=source)
        for index, (source, size) in enumerate({"a": 300, "b": 60, "c": 30}.items())
        for number in range(size)
    ]
    counts = Counter((cut.custom["source"], split_of(cut)) for cut in split(corpus(*made), by="source"))
    assert counts == {("a", "train"): 300, ("b", "test"): 60, ("c", "dev"): 30}


def test_split_by_speaker_drops_training_clips_that_say_a_held_out_text():
    made = [
        utterance(100 * speaker + number, f"own {speaker} {number}", speaker=f"s{speaker}")
        for speaker in range(10)
        for number in range(20)
    ]
    made += [utterance(2000 + speaker, "Good morning", speaker=f"s{speaker}") for speaker in range(10)]
    kept = split(corpus(*made), by="speaker")
    check_splits(kept, "speaker")
    said = [cut for cut in kept if cut.supervisions[0].text == "Good morning"]
    assert [split_of(cut) for cut in said] == ["test"]
    assert len(kept) == 201


def test_split_by_speaker_that_would_empty_training_is_refused():
    made = [utterance(10 * s + n, f"digit {n}", speaker=f"s{s}") for s in range(20) for n in range(10)]
    with pytest.raises(IsoglossError, match=r"would lose 160 of 160 training clips.*split by text"):
        assign_splits(corpus(*made), by="speaker")


def test_split_by_speaker_without_speakers_is_refused():
    with pytest.raises(IsoglossError, match=r"2 of 2 clips have no speaker \(u0000, u0001\)"):
        assign_splits(corpus(utterance(0, "a"), utterance(1, "b")), by="speaker")


def test_unknown_kind_names_the_nearest():
    with pytest.raises(IsoglossError, match=r'not by "speakers"\. Did you mean "speaker"\?'):
        assign_splits(corpus(utterance(0, "a")), by="speakers")


@pytest.mark.parametrize(("dev", "test"), [(0.5, 0.6), (-0.1, 0.1), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(dev, test):
    with pytest.raises(IsoglossError, match="do not add up to at most 1"):
        assign_splits(corpus(utterance(0, "a")), dev=dev, test=test)


def test_standard_splits_are_kept_and_clips_without_one_follow_their_text():
    made = [
        utterance(0, "one", split="test"),
        utterance(1, "two", split="train"),
        utterance(2, "One."),
        utterance(3, "three"),
    ]
    assert assign_splits(corpus(*made)) == {
        "u0000": "test",
        "u0001": "train",
        "u0002": "test",
        "u0003": "train",
    }


def test_leaking_standard_splits_are_told_with_examples():
    cuts = split(
        corpus(
            utterance(0, "Bună ziua!", "ro", split="train"),
            utterance(1, "good day", split="test", translations={"ro": "bună ziua"}),
            utterance(2, "other", split="test"),
        )
    )
    assert find_leaks(cuts) == ['"bună ziua" (train: u0000, test: u0001)']
    with pytest.raises(IsoglossError, match=r"1 texts are in more than one.*bună ziua"):
        check_splits(cuts)


def test_held_out_texts_cover_translations_into_languages_nobody_speaks():
    made = [
        utterance(0, "Cat!", split="test", translations={"fi": "Kissa."}),
        utterance(1, "Dog", split="train", translations={"fi": "Koira"}),
    ]
    assert held_out_texts(split(corpus(*made))) == {"cat", "kissa"}


def test_parallel_sentences_that_meet_in_a_language_nobody_speaks_stay_together():
    """Twenty sentences in three languages; each is tied to the others by its English translation alone."""
    made = [
        utterance(20 * index + number, f"{word} {number}", language, translations={"en": f"Sentence {number}."})
        for index, (language, word) in enumerate([("ro", "propoziție"), ("ru", "фраза"), ("el", "πρόταση")])
        for number in range(20)
    ]
    splits = assign_splits(corpus(*made), dev=0.2, test=0.2)
    for number in range(20):
        assert len({splits[f"u{20 * index + number:04d}"] for index in range(3)}) == 1
    assert Counter(splits.values()) == {"train": 36, "dev": 12, "test": 12}
    halves = corpus(*made)
    for cut in halves:
        cut.custom["split"] = "test" if cut.supervisions[0].language == "ro" else "train"
    assert len(find_leaks(halves)) == 20


def test_a_translation_that_ties_everything_is_named():
    made = [utterance(n, f"word {n}", translations={"fi": "sana", "hu": f"szó {n // 2}"}) for n in range(100)]
    with pytest.raises(IsoglossError, match=r'100 clips hang together .* 100 of them by "sana"'):
        assign_splits(corpus(*made))
    assert set(assign_splits(corpus(*made), dev=0.0, test=0.0).values()) == {"train"}
    assert set(assign_splits(corpus(*made), dev=0.0, test=1.0).values()) == {"test"}
    pieces = [Utterance(f"r/{segment}", Path("r.wav"), "en", "a") for segment in range(30)]
    assert set(assign_splits(corpus(*pieces)).values()) == {"train"}


def test_random_order_of_clips_of_one_language_is_not_the_order_of_their_names():
    made = [utterance(number, f"word {number:03d}") for number in range(100)]
    chosen = [id for id, name in assign_splits(corpus(*made)).items() if name == "test"]
    assert len(chosen) == 10
    assert sorted(chosen) != [f"u{n:04d}" for n in range(10)]
