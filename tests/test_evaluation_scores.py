"""Scores of predictions against values worked out by hand, and against those of the code before tasks."""

from typing import Any

import numpy as np
import pytest

from isogloss.evaluation.data import OTHER, SAME
from isogloss.evaluation.figures import RESAMPLES
from isogloss.evaluation.predictions import Prediction
from isogloss.evaluation.results import Conditions
from isogloss.evaluation.table import Matrix, Table
from isogloss.evaluation.tasks import calibration, language
from isogloss.evaluation.tasks.calibration import ALL_WORDS, CERTAIN
from isogloss.evaluation.tasks.language import ALL, CHANCE, MOST_FREQUENT
from isogloss.evaluation.tasks.recognition import MEAN, ONE_SENTENCE, TOGETHER, score
from isogloss.metrics.classification import wilson_interval


def prediction(number: int, language: str, said: str | None, heard: str | None, **more: Any) -> Prediction:
    values = {"id": f"c{number}", "source": "s1", "seconds": 2.0, "language": language}
    return Prediction.parse(values | {"reference": said, "hypothesis": heard} | more, "test")


def conditions(**more: Any) -> Conditions:
    values: dict[str, Any] = {"system": "sys", "data": ("d",), "split": "test", "fingerprint": "f" * 64}
    values |= {"clips": {"s1": 3}, "seconds": 6.0}
    return Conditions.parse(values | {"versions": {"isogloss": "0"}} | more, "test")


TEXTS = [
    # normalised "hello world" (11 characters, 2 words), one substitution
    prediction(0, "en", "Hello, world!", "hello wurld"),
    # "abcd" (4, 1), right
    prediction(1, "en", "abcd", "abcd"),
    # "да нет" (6, 2), three characters lost
    prediction(2, "ru", "Да, нет.", "нет"),
]


def test_rates_are_corpus_level_and_worked_out_by_hand() -> None:
    table = score(TEXTS)
    assert table.figure("CER", language="en").value == pytest.approx(1 / 15)
    assert table.figure("WER", language="en").value == pytest.approx(1 / 3)
    assert table.figure("CER", language="ru").value == pytest.approx(3 / 6)
    # Raw: "Hello, world!" has 13 characters; H/h, the comma, o/u and ! are wrong.
    assert table.figure("CER, raw", language="en").value == pytest.approx(4 / 17)
    # Raw words "Hello," and "world!" are both wrong.
    assert table.figure("WER, raw", language="en").value == pytest.approx(2 / 3)
    assert table.figure("CER", language="en").items == 2


def test_the_whole_pools_clips_and_the_mean_does_not_weigh_languages() -> None:
    table = score(TEXTS)
    assert table.figure("CER", TOGETHER).value == pytest.approx(4 / 21)
    assert table.figure("CER", MEAN).value == pytest.approx((1 / 15 + 3 / 6) / 2)
    assert table.figure("CER", MEAN).items == table.figure("CER", TOGETHER).items == 3


def test_one_sentence_is_what_writing_it_always_would_reach() -> None:
    # "cab" is wrong by 1 and 2 characters in "cat" and "dab", "dab" by 1 and 2, "cat" by 1 and 2 and no less in sum.
    clips = [prediction(n, "en", said, "") for n, said in enumerate(["cab", "cat", "dab"])]
    table = score(clips)
    assert table.figure("CER", language="en").baselines == {ONE_SENTENCE: pytest.approx((0 + 1 + 1) / 9)}
    assert table.figure("CER", language="en").value == 1.0
    other = prediction(9, "ru", "абвг", "абвг")  # its own sentence is always right
    both = score([*clips, other])
    assert both.figure("CER", MEAN).baselines == {ONE_SENTENCE: pytest.approx((2 / 9 + 0) / 2)}
    assert both.figure("CER", TOGETHER).baselines == {ONE_SENTENCE: pytest.approx(2 / 13)}


def test_each_corpus_has_a_row_where_there_are_several() -> None:
    elsewhere = prediction(3, "en", "ab", "x", source="s2")
    table = score([*TEXTS, elsewhere], frozenset({"s1"}))
    keys = [tuple(row.keys.values()) for row in table.rows if row.keys]
    assert keys == [("en", "all", "all"), ("en", "s1", "same"), ("en", "s2", "other"), ("ru", "s1", "same")]
    assert table.figure("CER", language="en").value == pytest.approx(3 / 17)
    assert table.figure("CER", language="en", corpus="s1") == score(TEXTS).figure("CER", language="en").model_copy(
        update={"baselines": table.figure("CER", corpus="s1").baselines}
    )
    assert table.figure("CER", corpus="s2", voices="other").value == 1.0


def test_intervals_hold_the_value_and_shrink_with_the_data() -> None:
    def some(copies: int) -> Table:
        pattern = [("abcdefghij", "abcdefghij"), ("abcdefghij", "abcdexghiy"), ("abcdefghij", "abc")]
        return score([prediction(10 * i + j, "en", *pair) for i in range(copies) for j, pair in enumerate(pattern)])

    small, large = some(3), some(60)
    for label, keys in (("", {"language": "en"}), (MEAN, {})):
        few, many = (table.figure("CER", label, **keys) for table in (small, large))
        for found in (few, many):
            assert found.value == pytest.approx(0.3)
            assert found.low < 0.3 < found.high
        assert many.high - many.low < 0.4 * (few.high - few.low)


def test_the_interval_of_the_mean_draws_clips_within_each_language() -> None:
    # Each language is the same in each of its clips: whatever is drawn, the mean is (0 + 1/2) / 2.
    clips = [prediction(i, "en", "ab", "ab") for i in range(3)] + [prediction(9, "ru", "аб", "а")]
    mean = score(clips).figure("CER", MEAN)
    assert (mean.value, mean.low, mean.high) == (0.25, 0.25, 0.25)
    assert RESAMPLES >= 1000


def test_clips_without_a_text_do_not_count_in_error_rates() -> None:
    silent = [prediction(7, "en", None, "something"), prediction(8, "en", " …! ", "noise"), *TEXTS]
    assert score(silent) == score(TEXTS)
    nothing = score(silent[:2])
    assert nothing.rows == nothing.pictures == nothing.notes == ()


def test_a_script_without_spaces_has_no_word_error_rate() -> None:
    table = score([*TEXTS, prediction(5, "zh", "你好世界", "你好四界")])
    assert table.figure("CER", language="zh").value == pytest.approx(1 / 4)
    for name in ("WER", "WER, raw"):
        word = table.figure(name, language="zh")
        assert (word.value, word.low, word.high, word.items) == (None, None, None, 0)
    assert table.figure("WER", TOGETHER) == score(TEXTS).figure("WER", TOGETHER)


def guessed(number: int, language: str, guess: str, source: str) -> Prediction:
    return prediction(number, language, None, None, guess=guess, probability=0.5, source=source)


GUESSES = [
    guessed(0, "en", "en", "heard"),
    guessed(1, "en", "en", "heard"),
    guessed(2, "en", "ru", "new"),
    guessed(3, "ru", "ru", "new"),
    guessed(4, "fi", "en", "new"),  # a language the system does not know
]


def test_language_identification_by_sources() -> None:
    table = language.score(GUESSES, ("en", "ru", "bg", "cs"), frozenset({"heard", "elsewhere"}))
    every, same, other = (table.figure("accuracy", voices=kind) for kind in (ALL, SAME, OTHER))
    assert (every.items, every.value) == (4, 0.75)
    assert every.baselines == {CHANCE: 0.25, MOST_FREQUENT: 0.75}
    # F1: en 2·2/(2·2+0+1) = 0.8, ru 2·1/(2·1+1+0) = 2/3
    assert table.figure("macro F1", voices=ALL).value == pytest.approx((0.8 + 2 / 3) / 2)
    interval = wilson_interval(3, 4)
    assert (every.low, every.high) == (interval.low, interval.high)
    assert (same.items, same.value, other.items, other.value) == (2, 1.0, 2, 0.5)
    assert [row.keys["voices"] for row in table.rows if row.headline] == [SAME, OTHER]
    matrix = table.pictures[0]
    assert isinstance(matrix, Matrix) and matrix.title == "other voices"
    assert (matrix.labels, matrix.counts) == (("en", "ru"), ((0, 1), (0, 1)))
    assert "Most frequent mistakes: en → ru (1)." in table.notes
    assert any("does not know fi: 1 clips" in note for note in table.notes)


def test_unknown_training_sources_are_not_passed_off_as_other_sources() -> None:
    table = language.score(GUESSES, ("en", "ru"))
    assert [row.keys for row in table.rows] == [{"voices": ALL}]
    assert any("not known" in note for note in table.notes)
    heard = language.score(GUESSES[:2], ("en", "ru"), frozenset({"heard"}))
    assert any("voices and microphones" in note for note in heard.notes)


def test_calibration_by_hand() -> None:
    clips = [
        prediction(0, "en", "one two", "one too", confidences=(0.9, 0.5)),
        prediction(1, "ru", "да", "да", confidences=(0.9,)),
        prediction(2, "ru", "да", "да нет", confidences=(0.1,)),  # as many words are told as are not written
    ]
    table = calibration.score(clips)
    found = table.figure("ECE", ALL_WORDS)
    # Two words of confidence 0.9, both right; one of 0.5, wrong.
    assert found.value == pytest.approx((2 * 0.1 + 0.5) / 3) and found.items == 3
    assert found.baselines == {CERTAIN: pytest.approx(1 / 3)}
    assert table.figure("right", language="en").value == 0.5
    assert table.figure("claimed", ALL_WORDS).value == pytest.approx(2.3 / 3)
    assert calibration.score(TEXTS).rows == ()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"broken": {"missing": 2}}, "missing 2"),
        ({"trained_clips": 3}, "3 of the clips were trained on"),
        ({"language_told": True}, "told"),
        ({"search": "beam 8"}, "searched with beam 8"),
        ({"trained_sources": ("s2",)}, "Not trained on: s1"),
    ],
)
def test_limits_are_said(more: dict[str, Any], word: str) -> None:
    assert any(word in sentence for sentence in conditions(**more).limits)
    assert not any(word in sentence for sentence in conditions().limits)


def test_few_clips_are_said() -> None:
    assert score(TEXTS).notes == ("Fewer than 20 clips in en, ru: their intervals are too narrow.",)
    many = [prediction(n, "en", "abc", "abd") for n in range(20)]
    assert score(many).notes == ()


def test_real_time_factor() -> None:
    assert conditions(working_seconds=3.0).real_time_factor == 0.5
    assert conditions().real_time_factor is None


# --- the same values as before there were tasks ---

SENTENCES = {
    "es": ["El gato duerme en la casa.", "¡Un pingüino nada muy bien!", "Las tijeras están sobre la mesa",
           "¿Dónde vive el erizo?", "una flor roja", "El tren llega a las 5."],
    "ro": ["O pisică doarme în casă.", "Pinguinul înoată foarte bine!", "Foarfecele sunt pe masă",
           "Unde trăiește ariciul?", "o floare roșie"],
    "ru": ["Кошка спит в доме.", "Пингвин хорошо плавает!", "Ножницы лежат на столе", "Где живёт ёж?",
           "красный цветок", "да", "нет"],
    "zh": ["你好世界", "企鹅会游泳"],
}  # fmt: skip


def corrupted(text: str, generator: np.random.Generator) -> str:
    kept = [c for c in text.lower() if generator.random() > 0.15]
    return "".join(c + ("a" if generator.random() < 0.05 else "") for c in kept)


@pytest.fixture(scope="module")
def frozen() -> list[Prediction]:
    """Predictions that the code before tasks scored too (commit bf9253f)."""
    generator = np.random.default_rng(7)
    tags = list(SENTENCES)
    found = []
    for tag, sentences in SENTENCES.items():
        for number, sentence in enumerate(sentences):
            heard = corrupted(sentence, generator)
            words = np.round(generator.uniform(0.4, 1.0, len(heard.split())), 4)
            guess = tag if generator.random() > 0.3 else tags[number % 3]
            source = "tux" if number % 3 else "klettres"
            more = {"source": source, "confidences": tuple(words.tolist()), "guess": guess, "probability": 0.6}
            found.append(prediction(number, tag, sentence, heard, **more))
    return found


BEFORE = {
    ("", "es", "CER"): (0.201492537313, 0.144732878884, 0.253971506635),
    ("", "es", "WER"): (0.566666666667, 0.4, 0.758620689655),
    ("", "es", "CER, raw"): (0.235714285714, 0.175324675325, 0.293683624529),
    ("", "es", "WER, raw"): (0.666666666667, 0.466363636364, 0.866666666667),
    ("", "ro", "CER"): (0.100917431193, 0.0315789473684, 0.155172413793),
    ("", "ro", "WER"): (0.421052631579, 0.157894736842, 0.684210526316),
    ("", "ro", "CER, raw"): (0.133928571429, 0.0612244897959, 0.190476190476),
    ("", "ro", "WER, raw"): (0.526315789474, 0.277777777778, 0.736842105263),
    ("", "ru", "CER"): (0.217391304348, 0.180555555556, 0.254931850789),
    ("", "ru", "WER"): (0.777777777778, 0.545454545455, 0.952380952381),
    ("", "ru", "CER, raw"): (0.252631578947, 0.211764705882, 0.292065340342),
    ("", "ru", "WER, raw"): (0.833333333333, 0.666666666667, 0.952435064935),
    ("", "zh", "CER"): (0.111111111111, 0, 0.25),
    ("", "zh", "WER"): (None, None, None),
    ("", "zh", "CER, raw"): (0.111111111111, 0, 0.25),
    ("", "zh", "WER, raw"): (None, None, None),
    (TOGETHER, "", "CER"): (0.171511627907, 0.131732587457, 0.209244140375),
    (TOGETHER, "", "WER"): (0.582089552239, 0.447751374705, 0.714285714286),
    (TOGETHER, "", "CER, raw"): (0.205056179775, 0.1643282191, 0.245705280541),
    (TOGETHER, "", "WER, raw"): (0.671641791045, 0.542827380952, 0.793650793651),
    (MEAN, "", "CER"): (0.157728095991, 0.116169255895, 0.206189372453),
}
"""(label, language, measure): value and interval."""


@pytest.mark.parametrize(("label", "tag", "measure"), BEFORE)
def test_error_rates_are_those_of_before(frozen: list[Prediction], label: str, tag: str, measure: str) -> None:
    # Of the corpora together, whose rows come first.
    found = score(frozen).figure(measure, label, **({"language": tag} if tag else {}))
    value, low, high = BEFORE[label, tag, measure]
    if value is None:
        assert (found.value, found.low, found.high) == (None, None, None)
    else:
        assert (found.value, found.low, found.high) == pytest.approx((value, low, high), rel=1e-9)


IDENTIFIED = {
    ALL: (18, 0.777777777778, 0.547854156838, 0.909990718914, 0.774603174603, 0.388888888889),
    SAME: (11, 0.818181818182, 0.523019438039, 0.948632310254, 0.804232804233, 0.363636363636),
    OTHER: (7, 0.714285714286, 0.358934451833, 0.917781075996, 0.711111111111, 0.428571428571),
}
"""Clips, accuracy and its interval, macro F1, share of the most frequent language."""


def test_identification_is_that_of_before(frozen: list[Prediction]) -> None:
    table = language.score(frozen, ("es", "ro", "ru"), frozenset({"tux"}))
    assert [row.keys["voices"] for row in table.rows] == list(IDENTIFIED)
    for kind, (clips, value, low, high, macro, most) in IDENTIFIED.items():
        found = table.figure("accuracy", voices=kind)
        assert found.items == clips
        assert (found.value, found.low, found.high) == pytest.approx((value, low, high))
        assert found.baselines == {CHANCE: pytest.approx(1 / 3), MOST_FREQUENT: pytest.approx(most)}
        assert table.figure("macro F1", voices=kind).value == pytest.approx(macro)
    other, same = table.pictures
    assert isinstance(other, Matrix) and other.counts == ((2, 0, 0), (1, 1, 0), (1, 0, 2))
    assert isinstance(same, Matrix) and same.counts == ((2, 1, 1), (0, 3, 0), (0, 0, 4))
    assert "Most frequent language: ru (all voices), es (same voices), ru (other voices)." in table.notes


def test_calibration_is_that_of_before(frozen: list[Prediction]) -> None:
    table = calibration.score(frozen)
    expected = {"claimed": 0.7009539682539684, "right": 0.4603174603174603, "ECE": 0.28507142857142853}
    for measure, value in expected.items():
        found = table.figure(measure, ALL_WORDS)
        assert found.items == 63 and found.value == pytest.approx(value)
