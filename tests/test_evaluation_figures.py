"""Figures against values worked out by hand."""

import json
from typing import Any

import pytest

from isogloss.evaluation.figures import (
    ALL,
    OTHER,
    RESAMPLES,
    SAME,
    Conditions,
    Evaluation,
    Prediction,
    score,
)
from isogloss.evaluation.tables import confusions, limits
from isogloss.metrics.classification import wilson_interval


def prediction(number: int, language: str, said: str | None, heard: str | None, **more: Any) -> Prediction:
    values = {"id": f"c{number}", "source": "s1", "seconds": 2.0, "language": language}
    return Prediction.parse(values | {"reference": said, "hypothesis": heard} | more, "test")


def conditions(**more: Any) -> Conditions:
    values: dict[str, Any] = {"system": "sys", "data": ("d",), "split": "test", "fingerprint": "f" * 64}
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
    english, russian = score(TEXTS, conditions()).languages.values()
    assert (english.cer.errors, english.cer.total, english.cer.value) == (1, 15, pytest.approx(1 / 15))
    assert (english.wer.errors, english.wer.total) == (1, 3)
    assert (russian.cer.errors, russian.cer.total) == (3, 6)
    # Raw: "Hello, world!" has 13 characters; H/h, the comma, o/u and ! are wrong.
    assert (english.cer_raw.errors, english.cer_raw.total) == (4, 17)
    # Raw words "Hello," and "world!" are both wrong.
    assert (english.wer_raw.errors, english.wer_raw.total) == (2, 3)
    assert english.clips == 2
    assert english.seconds == 4.0


def test_the_whole_pools_clips_and_the_mean_does_not_weigh_languages() -> None:
    evaluation = score(TEXTS, conditions())
    assert evaluation.overall.cer.value == pytest.approx(4 / 21)
    assert evaluation.mean_cer.value == pytest.approx((1 / 15 + 3 / 6) / 2)
    assert evaluation.seconds == 6.0


def test_intervals_hold_the_value_and_shrink_with_the_data() -> None:
    def some(copies: int) -> Evaluation:
        pattern = [("abcdefghij", "abcdefghij"), ("abcdefghij", "abcdexghiy"), ("abcdefghij", "abc")]
        clips = [prediction(10 * i + j, "en", *pair) for i in range(copies) for j, pair in enumerate(pattern)]
        return score(clips, conditions())

    small, large = some(3), some(60)
    for found in (small.languages["en"].cer, small.mean_cer, large.languages["en"].cer, large.mean_cer):
        assert found.value == pytest.approx(0.3)
        assert found.low < 0.3 < found.high
    for few, many in ((small.languages["en"].cer, large.languages["en"].cer), (small.mean_cer, large.mean_cer)):
        assert many.high - many.low < 0.4 * (few.high - few.low)


def test_the_interval_of_the_mean_draws_clips_within_each_language() -> None:
    # Each language is the same in each of its clips: whatever is drawn, the mean is (0 + 1/2) / 2.
    clips = [prediction(i, "en", "ab", "ab") for i in range(3)] + [prediction(9, "ru", "аб", "а")]
    mean = score(clips, conditions()).mean_cer
    assert (mean.value, mean.low, mean.high) == (0.25, 0.25, 0.25)
    assert RESAMPLES >= 1000


def test_clips_without_a_text_do_not_count_in_error_rates() -> None:
    silent = [prediction(7, "en", None, "something"), prediction(8, "en", " …! ", "noise"), *TEXTS]
    evaluation = score(silent, conditions())
    assert evaluation.clips == 5
    assert evaluation.overall == score(TEXTS, conditions()).overall
    nothing = score(silent[:2], conditions())
    assert nothing.overall is None
    assert nothing.mean_cer is None
    assert nothing.languages == {}


def test_a_script_without_spaces_has_no_word_error_rate() -> None:
    evaluation = score([*TEXTS, prediction(5, "zh", "你好世界", "你好四界")], conditions())
    chinese = evaluation.languages["zh"]
    assert (chinese.cer.errors, chinese.cer.total, chinese.wer, chinese.wer_raw) == (1, 4, None, None)
    assert evaluation.overall.wer == score(TEXTS, conditions()).overall.wer


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
    known = conditions(known_languages=("en", "ru", "bg", "cs"), trained_sources=("heard", "elsewhere"))
    evaluation = score(GUESSES, known)
    every, same, other = (evaluation.identification[group] for group in (ALL, SAME, OTHER))
    assert (every.clips, every.unknown, every.accuracy, every.chance) == (4, 1, 0.75, 0.25)
    assert (every.majority, every.majority_language) == (0.75, "en")
    assert (every.labels, every.confusion) == (("en", "ru"), ((2, 1), (0, 1)))
    # F1: en 2·2/(2·2+0+1) = 0.8, ru 2·1/(2·1+1+0) = 2/3
    assert every.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    interval = wilson_interval(3, 4)
    assert (every.low, every.high) == (interval.low, interval.high)
    assert (same.clips, same.accuracy, other.clips, other.accuracy) == (2, 1.0, 2, 0.5)
    assert confusions(every) == [("en", "ru", 1)]
    assert evaluation.sources == {"heard": (2, True), "new": (3, False)}


def test_unknown_training_sources_are_not_passed_off_as_other_sources() -> None:
    evaluation = score(GUESSES, conditions(known_languages=("en", "ru")))
    assert list(evaluation.identification) == [ALL]
    assert evaluation.sources == {"heard": (2, None), "new": (3, None)}
    assert any("not known" in sentence for sentence in limits(evaluation))


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"broken": {"missing": 2}}, "missing 2"),
        ({"trained_clips": 3}, "3 of the clips were trained on"),
        ({"language_told": True}, "told"),
        ({"trained_sources": ("s1",), "known_languages": ("en",)}, "does not know ru"),
        ({"trained_sources": ("s2",)}, "Not trained on: s1"),
        ({}, "Fewer than 20 clips in en, ru"),
    ],
)
def test_limits_are_said(more: dict[str, Any], word: str) -> None:
    assert any(word in sentence for sentence in limits(score(TEXTS, conditions(**more))))


def test_an_evaluation_survives_strict_json() -> None:
    evaluation = score([*TEXTS, *GUESSES], conditions(known_languages=("en", "ru"), trained_sources=()))
    text = json.dumps(evaluation.plain(), allow_nan=False)
    assert Evaluation.parse(json.loads(text), "test") == evaluation


def test_real_time_factor() -> None:
    assert score(TEXTS, conditions(working_seconds=3.0)).real_time_factor == 0.5
    assert score(TEXTS, conditions()).real_time_factor is None
