"""A model put to use: `Recogniser` on audio of every kind and length."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.reading import read
from isogloss.audio.vad import segment
from isogloss.audio.waveform import WaveformConfig
from isogloss.data.manifests import Utterance
from isogloss.decoding.beam import Beam
from isogloss.encoders.embed import EmbedConfig, IdentityConfig, ProjectionConfig, SubsamplingConfig
from isogloss.encoders.presets import preset
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import TransformerConfig
from isogloss.errors import AudioError, IsoglossError
from isogloss.heads.ctc import CTCHead
from isogloss.model import pieces
from isogloss.model.model import Model
from isogloss.model.recogniser import Recogniser
from isogloss.model.results import Transcript
from isogloss.model.spec import ModelConfig
from isogloss.sequence import Sequence
from isogloss.text.scripts import scripts
from isogloss.text.tokenizers import ByteTokenizer
from small_models import RATE, build, sound


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(build())


def test_every_kind_of_audio_gives_the_same(recogniser: Recogniser, tmp_path: Path) -> None:
    samples = (sound(2.5) * 32767).round().astype(np.int16)
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    floats = (samples / 32768).astype(np.float32)
    kinds = [
        path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), floats, torch.from_numpy(floats),
        samples, (floats, RATE), (torch.from_numpy(floats), RATE), np.stack([floats, floats]),
    ]  # fmt: skip
    expected = recogniser.transcribe(path), recogniser.identify(path), recogniser.encode(path)
    assert expected[0].text
    for kind in kinds:
        if isinstance(kind, io.BytesIO):  # a stream is read once
            assert recogniser.transcribe(kind) == expected[0]
            continue
        assert recogniser.transcribe(kind) == expected[0]
        assert recogniser.identify(kind) == expected[1]
        assert torch.equal(recogniser.encode(kind), expected[2])


def test_another_rate_is_resampled(recogniser: Recogniser) -> None:
    hidden = recogniser.encode((sound(1.0), 8000))
    assert hidden.shape == (50, recogniser.model.encoder.width)  # 2 s
    assert recogniser.transcribe((sound(1.0), 48000)).seconds == pytest.approx(1 / 3, abs=1e-3)


def test_a_list_is_one_by_one(recogniser: Recogniser) -> None:
    audio = [sound(seconds, seed=i) for i, seconds in enumerate((2.0, 0.3, 7.5, 1e-5, 4.0, 31.0))]
    together, alone = recogniser.transcribe(audio), [recogniser.transcribe(item) for item in audio]
    assert isinstance(together, list) and len(together) == len(audio)
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.language, one.seconds) == (other.text, other.language, other.seconds)
        assert [(w.text, w.start, w.end) for w in one.words] == [(w.text, w.start, w.end) for w in other.words]
        assert [w.confidence for w in one.words] == pytest.approx([w.confidence for w in other.words], abs=1e-4)
    for one, other in zip(recogniser.identify(audio), [recogniser.identify(item) for item in audio], strict=True):
        assert one.language == other.language
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    for one, item in zip(recogniser.encode(audio), audio, strict=True):
        torch.testing.assert_close(one, recogniser.encode(item), atol=1e-4, rtol=0)
    assert recogniser.transcribe([]) == recogniser.identify([]) == recogniser.encode([]) == []


@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 640, 1000])
def test_very_short_audio_has_a_frame(recogniser: Recogniser, samples: int) -> None:
    audio = sound(1)[:samples]
    assert isinstance(recogniser.transcribe(audio), Transcript)
    found = recogniser.transcribe(audio, vad=False)
    assert found.seconds == pytest.approx(samples / RATE)
    hidden = recogniser.encode(audio)
    assert hidden.shape[0] >= 1 and torch.isfinite(hidden).all()
    assert all(0 <= s.start <= s.end <= max(found.seconds, 0.04) for s in found.segments)
    identified = recogniser.identify(audio, vad=False)
    assert sum(identified.probabilities.values()) == pytest.approx(1, abs=1e-5)
    # A clip that is too short for a frame is encoded with silence behind it.
    padded = recogniser.identify(np.pad(audio, (0, max(0, recogniser.model.framing.least(1) - samples))), vad=False)
    assert identified.probabilities == pytest.approx(padded.probabilities, abs=1e-4)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 29.0, 40.0])
def test_where_nobody_speaks_nothing_is_written(recogniser: Recogniser, seconds: float) -> None:
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(time))
    for audio in (0 * time, 0 * time + 0.1, 0.1 * np.sin(2 * np.pi * 440 * time), noise):
        written, identified = recogniser.transcribe(audio), recogniser.identify(audio)
        assert written.text == "" and written.segments == () and written.seconds == pytest.approx(seconds)
        for found in (written, identified):
            assert found.language is None and found.probabilities == {} and 0.7 < found.no_speech <= 1
    # Whoever does not want speech looked for gets an answer for everything.
    everything = recogniser.identify(0 * time, vad=False)
    assert sum(everything.probabilities.values()) == pytest.approx(1, abs=1e-5) and everything.no_speech is None


def test_what_surrounds_a_clip_changes_nothing(recogniser: Recogniser, clips: list[Utterance]) -> None:
    """The same stretch is written, with times of the recording, whatever stands around it."""
    noise = np.random.default_rng(0).normal(0, 1e-3, 2 * RATE).astype(np.float32)
    for clip in (read(clips[0].audio), read(clips[4].audio), sound(2)):
        alone = recogniser.transcribe(clip)
        (first, *_), (*_, last) = alone.segments, alone.segments
        for around in (np.zeros(2 * RATE, np.float32), noise):
            found = recogniser.transcribe(np.concatenate([around, clip, around]))
            assert found.segments[0].start - 2 == pytest.approx(first.start, abs=0.2)
            assert found.segments[-1].end - 2 == pytest.approx(last.end, abs=0.25)
            assert len(found.segments) == len(alone.segments)


def test_joined_clips_are_parted_at_their_pauses(recogniser: Recogniser, clips: list[Utterance]) -> None:
    sentences = [read(clip.audio) for clip in clips[:4]]
    alone = recogniser.transcribe(sentences)
    pause = np.zeros(RATE, np.float32)
    joined = recogniser.transcribe(np.concatenate([part for one in sentences for part in (one, pause)]))
    starts, position = [], 0.0
    for one, transcript in zip(sentences, alone, strict=True):
        starts += [position + part.start for part in transcript.segments]
        position += len(one) / RATE + 1
    assert [part.start for part in joined.segments] == pytest.approx(starts, abs=0.2)


def test_how_sure_it_is_that_nobody_speaks(recogniser: Recogniser) -> None:
    found = recogniser.transcribe(sound(3))
    assert found.no_speech < 0.2 and found.segments[0].no_speech == pytest.approx(found.no_speech, abs=1e-3)
    assert json.loads(json.dumps(found.plain()))["segments"][0]["no_speech"] < 0.2
    assert recogniser.transcribe(sound(3), vad=False).segments[0].no_speech is None


def test_transcribing_and_identifying_agree_on_the_language(recogniser: Recogniser) -> None:
    clips = [sound(2), sound(3, seed=1)]
    for transcript, identified in zip(recogniser.transcribe(clips), recogniser.identify(clips), strict=True):
        assert (transcript.language, transcript.probabilities) == (identified.language, identified.probabilities)
    assert recogniser.transcribe(clips[0], language="ro").probabilities == {}


def test_a_language_restricts_the_symbols(recogniser: Recogniser) -> None:
    audio = sound(6)
    free = recogniser.transcribe(audio)
    assert set(free.text) - set("abc ") and set(free.text) - set("ade ")
    for language, allowed in (("ro", {1, 2, 3}), ("ru", {1, 4, 5})):
        found = recogniser.transcribe(audio, language=language)
        assert found.language == language
        letters = {recogniser.model.tokenizer.decode([symbol]) for symbol in allowed}
        assert found.text and set(found.text) <= letters | {" "}
    assert free.language == recogniser.identify(audio).language
    for tag in ("ron", "Romanian", "RO"):
        assert recogniser.transcribe(audio, language=tag) == recogniser.transcribe(audio, language="ro")
    with pytest.raises(IsoglossError, match=r'"rup"\. Did you mean "ru"\? It writes: ro, ru\.'):
        recogniser.transcribe(audio, language="rup")
    with pytest.raises(IsoglossError, match="language is empty"):
        recogniser.transcribe(audio, language="")


def test_each_recording_of_a_batch_has_its_own_constraints(recogniser: Recogniser) -> None:
    audio = [sound(4), sound(3, 1), sound(5, 2), sound(2, 3)]
    search = recogniser.beam(4, hotwords=["eee"], hotword_bonus=20)
    told = {
        "language": ["ro", None, "ru", "ru"],
        "beam": [None, search, None, search],
        "letters": [None, None, "d", None],
        "decoder": ["ctc", None, None, "ctc"],
    }
    together = recogniser.transcribe(audio, **told)
    for place, (found, clip) in enumerate(zip(together, audio, strict=True)):
        alone = recogniser.transcribe(clip, **{name: values[place] for name, values in told.items()})
        assert (found.text, found.language) == (alone.text, alone.language)
        assert [(w.text, w.start) for w in found.words] == [(w.text, w.start) for w in alone.words]
    assert "eee" in together[1].text and set(together[2].text) - {" "} == {"d"}
    with pytest.raises(IsoglossError, match="4 recordings have 2 values of language"):
        recogniser.transcribe(audio, language=["ro", "ru"])
    with pytest.raises(IsoglossError, match='none of the letters "xyz"; give some of these: abcde'):
        recogniser.transcribe(audio, letters="xyz")
    with pytest.raises(IsoglossError, match='no decoder "transducer"'):
        recogniser.transcribe(audio, decoder=[None, None, None, "transducer"])


@pytest.mark.parametrize("beam", [None, Beam(width=2)])
def test_the_model_itself_writes_what_the_recogniser_does(beam: Beam | None) -> None:
    """One script a word wherever it decodes: what is calibrated and measured is what is served."""
    model, audio = build(alphabet="abcбг "), sound(4)
    with torch.inference_mode():
        states = model.encode(model.features(Sequence.from_list([torch.from_numpy(audio)]))).final
        found = model.search(states, beam)[0][0] if beam else model.decode(states)[0]
        plain = model.head("ctc", CTCHead).greedy(1)
        plain.feed(states)
    text = Recogniser(model).transcribe(audio, vad=False, beam=beam).text
    assert " ".join(model.tokenizer.decode(found.tokens).split()) == text
    assert all(len(scripts(word)) == 1 for word in text.split())
    assert any(len(scripts(word)) > 1 for word in model.tokenizer.decode(plain.drafts[0].tokens).split())


def test_letters_are_taken_as_transcripts_have_them(recogniser: Recogniser) -> None:
    assert recogniser.transcribe(sound(4), letters="DA") == recogniser.transcribe(sound(4), letters="ad")
    assert recogniser.transcribe(sound(4), letters="D").text


def test_letters_in_bytes_are_refused() -> None:
    """Two bytes of ă and ș also make other letters."""
    encoder = preset("test")
    written = Recogniser(Model(ModelConfig(encoder=encoder), ByteTokenizer()))
    assert set(written.transcribe(sound(3), letters="ab", vad=False).text) <= {"a", "b", " "}
    with pytest.raises(IsoglossError, match='spells "ăș" in bytes'):
        written.transcribe(sound(3), letters="abăȘ")


def test_a_language_that_is_given_is_not_identified(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    identify = recogniser.model.identify
    monkeypatch.setattr(recogniser.model, "identify", lambda states: heads.append(len(states)) or identify(states))
    recogniser.transcribe([sound(2), sound(2, 1)], language=["ro", "ru"])
    assert not heads
    recogniser.transcribe([sound(2), sound(2, 1)], language=["ro", None])
    assert heads


def test_what_cannot_be_done_is_told_before_anything_is_read(recogniser: Recogniser, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="not taught to write"):
        recogniser.transcribe(tmp_path / "gone.wav", language="fr")
    with pytest.raises(IsoglossError, match='no decoder "attention"'):
        recogniser.transcribe(tmp_path / "gone.wav", decoder="attention")


def test_broken_recordings_leave_the_others_done(recogniser: Recogniser, tmp_path: Path) -> None:
    audio = [sound(2), tmp_path / "gone.wav", b"no audio", sound(3, 1)]
    for method in (recogniser.transcribe, recogniser.identify, recogniser.encode):
        found = method(audio, errors="return")
        assert [isinstance(one, AudioError) for one in found] == [False, True, True, False]
        assert "gone.wav" in str(found[1])
        whole = method([audio[0], audio[3]])
        assert str(found[0]) == str(whole[0]) and str(found[3]) == str(whole[1])


@pytest.mark.parametrize("vad", [True, False])
def test_progress_is_told_in_seconds_of_audio(recogniser: Recogniser, vad: bool) -> None:
    told: list[tuple[float, float]] = []
    audio = [sound(2), np.concatenate([np.zeros(40 * RATE, np.float32), sound(3)]), np.zeros(RATE, np.float32)]
    recogniser.transcribe(audio, vad=vad, on_progress=lambda done, total: told.append((done, total)))
    done = [seconds for seconds, _ in told]
    assert done == sorted(done) and done[-1] == 46 and len(done) > 2
    assert {total for _, total in told} == {46}


def test_a_channel_is_asked_of_what_reads(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(audio: np.ndarray, channel: int | str = "mix", **limits: object) -> np.ndarray:
        asked.append(channel)
        return audio

    monkeypatch.setattr(pieces, "as_waveform", spy)
    recogniser.transcribe([sound(1), sound(1)], channel=[2, "mix"])
    recogniser.identify(sound(1), channel=1)
    assert asked == [2, "mix", 1]


def test_words_lie_in_their_segments_in_order(recogniser: Recogniser) -> None:
    for seed in range(5):
        found = recogniser.transcribe(sound(5 + seed, seed))
        words = [word for segment in found.segments for word in segment.words]
        assert " ".join(word.text for word in words) == found.text
        for earlier, later in itertools.pairwise(words):
            assert earlier.start < earlier.end <= later.start
        assert all(0 <= s.confidence <= 1 for s in found.segments)
        assert words[0].start >= 0 and words[-1].end <= found.seconds + 0.04
        assert json.loads(json.dumps(found.plain()))["text"] == found.text


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_layers_of_hidden_states(recogniser: Recogniser, layer: int | None) -> None:
    audio = sound(2)
    hidden = recogniser.encode(audio, layer=layer)
    features = recogniser.model.features(Sequence.from_list([torch.from_numpy(audio)]))
    with torch.no_grad():
        encoded = recogniser.model.encoder(features, layers=(0, 1, 2))
    expected = encoded.final if layer is None else encoded.layers[layer]
    torch.testing.assert_close(hidden, expected.values[0], atol=1e-6, rtol=0)
    assert not hidden.requires_grad


def test_a_layer_that_is_not_there_is_one_sentence(recogniser: Recogniser) -> None:
    for layer in (3, -1):
        with pytest.raises(IsoglossError, match=f"no layer {layer}; give one from 0 to 2"):
            recogniser.encode(sound(1), layer=layer)


def test_frame_n_of_long_audio_starts_at_n_times_40_ms(recogniser: Recogniser) -> None:
    for seconds in (30.0, 30.001, 75.3):
        audio = sound(seconds)
        hidden = recogniser.encode(audio)
        assert abs(len(hidden) - seconds * 25) <= 1
        for start in range(0, int(seconds), 30):
            piece = recogniser.encode(audio[start * RATE : (start + 30) * RATE])
            rows = hidden[start * 25 : start * 25 + len(piece)]
            torch.testing.assert_close(rows, piece, atol=1e-4, rtol=0)


FRAMES = {
    "log-mel, 25 Hz": (LogMelConfig(normalisation="none"), SubsamplingConfig(channels=4)),
    "log-mel, 100 Hz": (LogMelConfig(normalisation="none"), IdentityConfig()),
    "waveform, 50 Hz": (WaveformConfig(channels=6, norm="layer"), ProjectionConfig()),
}


@pytest.mark.parametrize("parts", FRAMES.values(), ids=FRAMES)
def test_long_audio_has_the_frames_of_the_whole(
    parts: tuple[FeaturesConfig, EmbedConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    blocks = TransformerConfig(layers=1, width=16 if parts[1].kind != "identity" else 80, heads=2)
    encoder = SpeechEncoderConfig(embed=parts[1], blocks=blocks)
    recogniser = Recogniser(Model(ModelConfig(features=parts[0], encoder=encoder)))
    framing, audio = recogniser.model.framing, sound(7.3)
    whole = recogniser.encode(audio, layer=0)
    monkeypatch.setattr(pieces, "LONGEST", 1.01)
    monkeypatch.setattr(pieces, "WINDOW_SECONDS", 3.0)
    edges = framing.padding // framing.stride + 1  # frames that see zeros where the whole has samples
    for samples in (1, 399, framing.least(40) - 1, framing.least(40), 7 * RATE, len(audio)):
        found = recogniser.encode(audio[:samples], layer=0)
        assert len(found) == max(1, framing.frames(samples))
        soundfile.write(tmp_path / "long.wav", audio[:samples], RATE, subtype="FLOAT")
        torch.testing.assert_close(recogniser.encode(tmp_path / "long.wav", layer=0), found, atol=1e-4, rtol=0)
    length = round(1.01 * RATE) // framing.stride
    inner = [frame for frame in range(len(whole)) if edges <= frame % length < length - edges]
    torch.testing.assert_close(found[inner], whole[inner], atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", FRAMES.values(), ids=FRAMES)
def test_states_are_repeated_for_every_log_mel_frame(
    parts: tuple[FeaturesConfig, EmbedConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as log-mel features have, whether they are the model's own or not, also of audio in pieces."""
    torch.manual_seed(0)
    blocks = TransformerConfig(layers=1, width=16 if parts[1].kind != "identity" else 80, heads=2)
    model = Model(ModelConfig(features=parts[0], encoder=SpeechEncoderConfig(embed=parts[1], blocks=blocks)))
    recogniser, times = Recogniser(model), round(100 * model.frame_seconds)
    monkeypatch.setattr(pieces, "LONGEST", 1.01)
    clips = [sound(3.0)[:samples] for samples in (1, 399, 400, 799, 16000, 16079, 16400, 16560, 40399)]
    found = recogniser.encode(clips, frame_ms=10)
    for clip, plain, states in zip(clips, recogniser.encode(clips), found, strict=True):
        features = LogMelConfig().build()(Sequence.from_list([torch.from_numpy(clip)]))
        assert len(states) == int(features.lengths[0])
        assert abs(len(states) - times * len(plain)) < times + 2
        for frame, state in enumerate(states):
            assert torch.equal(state, plain[min(frame // times, len(plain) - 1)])
    own = 1000 * model.frame_seconds
    assert torch.equal(recogniser.encode(clips[-1], frame_ms=own)[:50], recogniser.encode(clips[-1])[:50])
    for wrong in (own / 1.5, 2 * own, 0.0, -10.0, 0.1, float("nan")):
        with pytest.raises(IsoglossError, match=rf"^frame_ms .* is impossible: states of this model last {own:g} ms"):
            recogniser.encode(clips, frame_ms=wrong)


def test_whisper_features_have_frames_of_their_own() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoderConfig(embed=ProjectionConfig(), blocks=TransformerConfig(layers=1, width=16, heads=2))
    model = Model(ModelConfig(features=LogMelConfig(flavour="whisper"), encoder=encoder))
    assert len(Recogniser(model).encode(sound(1.0), frame_ms=10)) == 100


def test_long_speech_is_covered(recogniser: Recogniser, clips: list[Utterance]) -> None:
    """Real sentences with pauses between them: every one lies in a segment, none is longer than 30 s."""
    pieces, spans, position = [], [], 0
    sentences = [read(c.audio, start=c.start, duration=c.duration) for c in clips[:4]]
    for sentence in sentences * 3:
        pieces += [np.zeros(RATE, np.float32), sentence]
        spans.append(((position + RATE) / RATE, (position + RATE + len(sentence)) / RATE))
        position += RATE + len(sentence)
    audio = np.concatenate(pieces)
    assert len(audio) > 40 * RATE
    found = recogniser.transcribe(audio)
    assert found.seconds == pytest.approx(len(audio) / RATE)
    assert len(found.segments) > 1
    for part in found.segments:
        assert 0 <= part.start < part.end <= found.seconds and part.end - part.start <= 30.001
        assert all(part.start <= w.start < w.end <= part.end + 0.04 for w in part.words)
    for start, end in spans:
        middle = (start + end) / 2
        assert any(segment.start <= middle <= segment.end for segment in found.segments)


def test_pieces_count_by_their_length(recogniser: Recogniser, clips: list[Utterance]) -> None:
    """The geometric mean of what the classifier says of each piece, weighted by seconds."""
    speech = np.concatenate([read(c.audio, start=c.start, duration=c.duration) for c in clips[:4]] * 2)
    for audio in (sound(3), np.concatenate([speech, speech])):
        scores, seconds = torch.zeros(2), 0.0
        segments = segment(audio, max_pause=pieces.PAUSE, pad=pieces.PAD)
        for start, end in segments:
            piece = torch.from_numpy(audio[round(start * RATE) : round(end * RATE)])
            with torch.no_grad():
                states = recogniser.model.encoder(recogniser.model.features(Sequence.from_list([piece]))).final
                scores += recogniser.model.identify(states)[0].log_softmax(dim=-1) * (end - start)
            seconds += end - start
        expected = dict(zip(recogniser.languages, (scores / seconds).softmax(dim=-1).tolist(), strict=True))
        assert recogniser.identify(audio).probabilities == pytest.approx(expected, abs=1e-3)
        assert abs(expected["ro"] - 0.5) > 0.01
    assert len(segments) > 1


def test_sureness_of_a_language_does_not_depend_on_pauses(recogniser: Recogniser, clips: list[Utterance]) -> None:
    """The mean is one over what was encoded, not over the silence that was left out."""
    speech = np.concatenate([read(c.audio, start=c.start, duration=c.duration) for c in clips[:4]])
    close = np.concatenate([np.tile(speech, 3), np.zeros(40 * RATE, np.float32)])
    far = np.concatenate([np.tile(speech, 3), np.zeros(300 * RATE, np.float32)])
    first, second = recogniser.identify([close, far])
    assert first.probabilities == pytest.approx(second.probabilities, abs=0.01)


def test_a_model_without_heads_says_what_it_cannot_do() -> None:
    bare = Recogniser(build(languages=(), recognises=False))
    assert bare.encode(sound(1)).shape == (25, 64)
    with pytest.raises(IsoglossError, match="pre-trained on speech alone"):
        bare.transcribe(sound(1))
    with pytest.raises(IsoglossError, match="does not identify languages"):
        bare.identify(sound(1))
    with pytest.raises(IsoglossError, match="no tokenizer"):
        bare.model.processor.tokens("a")


@pytest.mark.parametrize("method", ["transcribe", "identify", "encode"])
def test_bad_audio_is_one_sentence(recogniser: Recogniser, tmp_path: Path, method: str) -> None:
    (tmp_path / "text.wav").write_text("this is no audio", encoding="utf-8")
    (tmp_path / "empty.wav").touch()
    nan = np.array([0.1, np.nan, 0.2], np.float32)
    bad = [
        tmp_path / "gone.wav",
        tmp_path / "text.wav",
        tmp_path / "empty.wav",
        b"",
        nan,
        np.zeros(0, np.float32),
    ]
    for audio in bad:
        with pytest.raises(IsoglossError) as error:
            getattr(recogniser, method)([sound(1), audio])
        assert "\n" not in str(error.value)


def test_segments_are_told_minute_by_minute(recogniser: Recogniser) -> None:
    done: list[float] = []
    told: list[tuple[float, float]] = []
    recogniser.transcribe(
        sound(150),
        vad=False,
        on_progress=lambda seconds, _: done.append(seconds),
        on_segment=lambda _, segment: told.append((segment.start, done[-1])),
    )
    assert [start for start, _ in told] == [0, 30, 60, 90, 120]
    assert all(seconds <= start + 60 for start, seconds in told)


def test_a_beam_searches_and_greedy_is_its_narrow_end(recogniser: Recogniser) -> None:
    clips = [sound(2), sound(3, seed=1)]
    found = recogniser.transcribe(clips, beam=recogniser.beam(4))
    assert [transcript.seconds for transcript in found] == [2, 3]
    for transcript in found:
        for word in (word for part in transcript.segments for word in part.words):
            assert 0 <= word.start < word.end <= transcript.seconds
    several = recogniser.transcribe(clips[0], beam=recogniser.beam(4, most=3)).segments[0].alternatives
    assert [other.text for other in several][:1] == [found[0].text] and 1 < len(several) <= 3
    assert [other.score for other in several] == sorted((other.score for other in several), reverse=True)
    favoured = recogniser.transcribe(clips, beam=recogniser.beam(4, hotwords=["eee"], hotword_bonus=50))
    assert any("eee" in transcript.text for transcript in favoured)


def test_a_beam_that_cannot_be_is_told(recogniser: Recogniser, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="beam of 0"):
        recogniser.beam(0)
    with pytest.raises(IsoglossError, match="no letters"):
        recogniser.beam(hotwords=[" "])
    with pytest.raises(IsoglossError, match="loaded from a folder"):
        recogniser.beam(language_model=tmp_path)
    with pytest.raises(IsoglossError, match='no decoder "transducer"'):
        recogniser.transcribe(sound(1), beam=recogniser.beam(2), decoder="transducer")
