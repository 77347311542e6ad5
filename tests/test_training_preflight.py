"""What is noticed before the first step: transcripts that cannot fit their audio, and audio that is gone."""

from pathlib import Path

import pytest
from lhotse.cut import MonoCut

from isogloss.data.manifests import read_cuts
from isogloss.errors import IsoglossError
from isogloss.objectives.recognition import RecognitionConfig
from isogloss.training.preflight import check_readable
from small_models import build


@pytest.fixture
def cuts(letters: Path) -> list[MonoCut]:
    """Twenty clips of a second or so, in letters the model knows."""
    found = read_cuts(letters, "train")[:20]
    for cut in found:
        cut.supervisions[0].text = "ab"
    return found


def check_feasible(cuts: list[MonoCut]) -> None:
    RecognitionConfig().build(build().spec).check(cuts)


def test_transcripts_longer_than_their_audio_are_refused(cuts: list[MonoCut]) -> None:
    check_feasible(cuts)
    cuts[3].supervisions[0].text = "abc" * 400
    with pytest.raises(IsoglossError, match=f"1 of 20 transcripts are too long for their audio .as {cuts[3].id}"):
        check_feasible(cuts)


def test_one_such_transcript_in_a_hundred_is_not_worth_stopping_for(cuts: list[MonoCut]) -> None:
    odd, *others = cuts
    odd.supervisions[0].text = "abc" * 400
    check_feasible([odd, *others * 6])


def test_equal_neighbours_need_a_frame_between_them(cuts: list[MonoCut]) -> None:
    frames = round(cuts[0].duration * 25)
    cuts[0].supervisions[0].text = "ab" * (frames // 2 - 2)
    check_feasible(cuts[:1])
    cuts[0].supervisions[0].text = "a" * 2 * (frames // 2 - 2)
    with pytest.raises(IsoglossError, match="too long for their audio"):
        check_feasible(cuts[:1])


def test_audio_that_is_gone_is_noticed(cuts: list[MonoCut]) -> None:
    check_readable(cuts)
    for cut in cuts[:15]:
        cut.recording.sources[0].source = "/nowhere/clip.ogg"
    with pytest.raises(IsoglossError, match=r"cannot be read; the first: .*clip\.ogg"):
        check_readable(cuts)
