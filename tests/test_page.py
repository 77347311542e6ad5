"""The page in a real browser: what people do with it, and what it says where something is wrong."""

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import soxr
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

import small_models
from isogloss.audio.reading import read
from isogloss.data.manifests import Utterance
from isogloss.model.index import Index, Item
from isogloss.model.recogniser import Recogniser
from isogloss.model.results import Transcript
from isogloss.model.space import embed_query, embed_text
from isogloss.serving import writers
from served import served

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60_000  # milliseconds that a busy machine may take for anything
expect.set_options(timeout=SECONDS)


@contextmanager
def serving(recogniser: Recogniser, **settings: Any) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    with served(recogniser, **settings) as running:
        yield f"http://127.0.0.1:{running.port}/"


@pytest.fixture(scope="module")
def spoken(clips: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two English sentences one after the other, at the rate of a sound card."""
    path = tmp_path_factory.mktemp("spoken") / "two sentences.wav"
    samples = np.concatenate([read(clip.audio) for clip in clips[:2]])
    soundfile.write(path, soxr.resample(samples, 16000, 48000), 48000)
    return path


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Browser]:
    """Chromium, in which the microphone hears the sentences again and again."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    fake = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={spoken}"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=fake)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(small_models.build())


@pytest.fixture(scope="module")
def address(recogniser: Recogniser) -> Iterator[str]:
    with serving(recogniser) as at:
        yield at


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`opened(address, **context)`: the page, which must neither break nor reach for anything but its server."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def visit(address: str, **how: Any) -> Page:
        contexts.append(browser.new_context(**how))
        contexts[-1].set_default_timeout(SECONDS)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: "Security Policy" in said.text and wrong.append(said.text))
        page.on("request", lambda asked: asked.url.startswith((address, "blob:")) or wrong.append(asked.url))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


def transcribed(page: Page, file: Path | dict[str, Any]) -> Locator:
    """The words of a file that is chosen."""
    page.locator("#file").set_input_files(file)
    expect(page.get_by_role("status").first).to_contain_text("Transcribed")
    return page.locator("#words button")


def test_a_file_becomes_words_with_times_and_confidence(
    opened: Callable[..., Page], address: str, recogniser: Recogniser, spoken: Path
) -> None:
    page = opened(address)
    words = transcribed(page, spoken)
    expected = recogniser.transcribe(spoken)
    assert words.all_inner_texts() == [word.text for word in expected.words]
    for i in (0, len(expected.words) - 1):
        word = expected.words[i]
        expect(words.nth(i)).to_have_accessible_description(f"0:{word.start:04.1f} · {round(100 * word.confidence)} %")
        marked = words.nth(i).locator(".unsure, .doubtful")
        expect(marked).to_have_count(int(word.confidence < 0.8))
    shares = page.locator("#languages li").all_inner_texts()
    names = {"ro": "Romanian", "ru": "Russian"}
    assert [" ".join(row.split()) for row in shares] == [
        f"{names[tag]} {round(100 * share)} %" for tag, share in expected.probabilities.items()
    ]


WATCH = """() => {
  window.seen = [];
  new MutationObserver(() => window.seen.push([
    document.querySelectorAll('#words p').length, document.getElementById('status').textContent,
  ])).observe(document.getElementById('words'), { childList: true });
}"""


def test_words_appear_segment_by_segment(
    opened: Callable[..., Page], address: str, spoken: Path, tmp_path: Path
) -> None:
    sentence = read(spoken)
    soundfile.write(tmp_path / "long.wav", np.concatenate([sentence, np.zeros(48000), sentence]), 16000)
    page = opened(address)
    page.evaluate(WATCH)
    transcribed(page, tmp_path / "long.wav")
    count = page.locator("#words p").count()
    assert count > 1
    meanwhile = [seen for seen, status in page.evaluate("window.seen") if status.startswith("Transcribing")]
    assert meanwhile[-1] == count


def test_streamed_segments_have_what_the_whole_has(address: str, spoken: Path) -> None:
    asked: dict[str, Any] = {"file": spoken, "model": "small", "response_format": "verbose_json"}
    with openai.OpenAI(base_url=f"{address}v1", api_key="none") as client:
        ask = client.audio.transcriptions.create
        whole = ask(timestamp_granularities=["word", "segment"], **asked).to_dict()
        *parts, done = ask(stream=True, **asked)
    segments = [part.segment for part in parts]
    assert [word for segment in segments for word in segment.pop("words")] == whole["words"]
    assert segments == whole["segments"]
    assert {key: getattr(done, key) for key in whole} == whole


def test_browsers_are_told_to_keep_to_this_server(address: str) -> None:
    with urllib.request.urlopen(address) as response:
        policy = response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-cache"
    sources = {source for rule in policy.split(";") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'", "blob:"}
    assert "frame-ancestors 'none'" in policy


def test_the_spectrogram_shows_where_the_sound_is(opened: Callable[..., Page], address: str, tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000)
    tone[:8000] = 0.0
    soundfile.write(tmp_path / "tone.wav", tone, 16000)
    page = opened(address)
    page.locator("#file").set_input_files(tmp_path / "tone.wav")
    expect(page.locator("#spectrogram")).to_be_visible()
    page.wait_for_function("() => document.getElementById('scale').children.length > 0")
    pixel = """([x, y]) => {
      const canvas = document.getElementById('spectrogram');
      return [...canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
    }"""
    loud, quiet, above = (page.evaluate(pixel, at) for at in ([0.75, 0.75], [0.25, 0.75], [0.75, 0.25]))
    assert quiet == above != loud
    assert sum(loud[:3]) < sum(quiet[:3])


def test_a_word_that_is_clicked_is_heard_and_no_more(
    opened: Callable[..., Page], address: str, recogniser: Recogniser, spoken: Path
) -> None:
    page = opened(address)
    words = transcribed(page, spoken)
    word = recogniser.transcribe(spoken).words[2]
    page.evaluate("document.getElementById('audio').addEventListener('play', () => { window.played = true; })")
    words.nth(2).click()
    expect(words.nth(2)).to_have_class("now")
    page.wait_for_function("() => window.played && document.getElementById('audio').paused")
    assert page.evaluate("document.getElementById('audio').currentTime") == pytest.approx(word.end + 0.04, abs=0.02)


def test_exports_equal_those_of_the_command_line(
    opened: Callable[..., Page], address: str, recogniser: Recogniser, spoken: Path
) -> None:
    page = opened(address)
    transcribed(page, spoken)
    saved = {}
    for name in ("SRT", "VTT", "JSON", "Text"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        saved[download.value.suggested_filename] = download.value.path().read_text(encoding="utf-8")
    expected: Transcript = recogniser.transcribe(spoken)
    assert saved["two sentences.srt"] == writers.srt("", expected)
    assert saved["two sentences.vtt"] == writers.vtt("", expected)
    assert saved["two sentences.txt"] == writers.text("", expected)
    words = json.loads(saved["two sentences.json"])["words"]
    assert [(word["word"], word["start"]) for word in words] == [
        (word.text, pytest.approx(word.start, abs=1e-3)) for word in expected.words
    ]


def test_what_is_recorded_is_transcribed_and_can_be_saved(
    opened: Callable[..., Page], address: str, spoken: Path, tmp_path: Path
) -> None:
    page = opened(address, permissions=["microphone"])
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#elapsed")).to_have_text(re.compile("0:0[2-9]"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").first).to_contain_text("Transcribed")
    expect(page.locator("#words button").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the recording").click()
    recorded, rate = soundfile.read(download.value.path())
    assert rate == 16000
    assert 1.5 < len(recorded) / rate < 60
    # The microphone hears the file: somewhere in it lies the same second.
    heard, original = recorded[8000:24000], read(spoken)
    original = np.concatenate([original, original])
    energy = np.sqrt(np.convolve(original**2, np.ones(len(heard)), "valid"))
    likeness = np.correlate(original, heard, "valid") / np.maximum(energy * np.linalg.norm(heard), 1e-9)
    assert likeness.max() > 0.9


def test_words_come_while_a_streaming_model_listens(opened: Callable[..., Page]) -> None:
    with serving(Recogniser(small_models.streaming())) as address:
        page = opened(address, permissions=["microphone"])
        expect(page.locator("#model")).not_to_be_empty()
        page.get_by_role("button", name="Record").click()
        expect(page.locator("#final")).to_have_text(re.compile("[abc]"))
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status").first).to_contain_text("Transcribed")


def test_a_refused_microphone_is_told_and_files_still_work(
    opened: Callable[..., Page], address: str, spoken: Path
) -> None:
    page = opened(address)  # which lets nobody use the microphone
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("alert")).to_contain_text("not allowed to use the microphone")
    expect(transcribed(page, spoken).first).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


SILENT = (
    """navigator.mediaDevices.getUserMedia = async () => new AudioContext().createMediaStreamDestination().stream"""
)


def test_an_empty_recording_is_told(opened: Callable[..., Page], address: str) -> None:
    page = opened(address)
    page.evaluate(SILENT)
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was recorded")
    expect(page.get_by_role("button", name="Record")).to_be_enabled()


def test_unusable_files_are_told_and_what_was_there_stays(
    opened: Callable[..., Page], address: str, spoken: Path
) -> None:
    page = opened(address)
    said = transcribed(page, spoken).all_inner_texts()
    page.locator("#file").set_input_files({"name": "notes.wav", "mimeType": "audio/wav", "buffer": b"no sound" * 99})
    expect(page.get_by_role("alert")).to_contain_text("notes.wav")
    expect(page.get_by_role("alert")).to_contain_text("FLAC")  # among the formats that can be read
    page.get_by_role("button", name="two sentences.wav").click()
    expect(page.locator("#words button")).to_have_text(said)
    page.locator("#file").set_input_files({"name": "nothing.wav", "mimeType": "audio/wav", "buffer": b""})
    expect(page.get_by_role("alert")).to_have_text("nothing.wav is empty: there is nothing in it to transcribe.")
    expect(page.locator("#words button")).to_have_text(said)


def test_a_server_that_is_gone_costs_no_recording(opened: Callable[..., Page], address: str, spoken: Path) -> None:
    page = opened(address)
    page.route("**/transcriptions", lambda route: route.abort())
    page.locator("#file").set_input_files(spoken)
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute("**/transcriptions")
    page.get_by_role("button", name="Transcribe again").click()
    expect(page.locator("#words button").first).to_be_visible()


def test_everything_works_from_the_keyboard(opened: Callable[..., Page], address: str, spoken: Path) -> None:
    page = opened(address)
    focused = page.locator(":focus")

    def tab_to(name: str) -> None:
        for _ in range(25):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id || document.activeElement.dataset.format") == name:
                expect(focused).to_have_css("outline-style", "solid")
                return
        raise AssertionError(f"the tab key does not reach {name}")

    with page.expect_file_chooser() as chooser:  # from early on: the browser takes a moment to hand choosers over
        tab_to("choose")
        page.keyboard.press("Enter")
    chooser.value.set_files(spoken)
    words = page.locator("#words button")
    expect(words.first).to_be_visible()
    tab_to("seek")
    page.keyboard.press("Tab")
    expect(words.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(words.nth(1)).to_have_class("now")
    page.keyboard.press("End")
    expect(words.last).to_be_focused()
    tab_to("srt")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "two sentences.srt"


def test_a_key_is_asked_for_where_the_server_wants_one(
    opened: Callable[..., Page], recogniser: Recogniser, spoken: Path
) -> None:
    with serving(recogniser, key="secret") as address:
        page = opened(address)
        expect(page.get_by_role("alert")).to_contain_text("API key")
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.get_by_label("API key")).to_be_hidden()
        expect(transcribed(page, spoken).first).to_be_visible()


def test_without_a_key_or_an_index_nothing_speaks_of_them(opened: Callable[..., Page], address: str) -> None:
    page = opened(address)
    expect(page.get_by_label("Language").locator("option")).to_have_text(
        ["Detect automatically", "Romanian", "Russian"]
    )
    expect(page.get_by_label("API key")).to_be_hidden()
    expect(page.get_by_role("search")).to_be_hidden()


def test_the_index_is_searched(opened: Callable[..., Page], tmp_path: Path, spoken: Path) -> None:
    model = small_models.with_text().eval()
    sentences = ["abba", "cab", "dead bee"]
    vectors = embed_text(model, sentences, ["ro"] * 3).last
    items = [
        *(Item("text", sentence, language="ro") for sentence in sentences[:2]),
        Item("speech", "bee.ogg", 1.0, 2.5),
    ]
    index = Index(items, vectors, tmp_path)
    expected = index.nearest(embed_query(model, "cab", None).last[0], 10)
    with serving(Recogniser(model), index=index) as address:
        page = opened(address)
        page.get_by_label("Find in the index").fill("cab")
        page.keyboard.press("Enter")
        expect(page.locator("#results li p:first-child")).to_have_text([found.item.name for found in expected])
        facts = page.locator("#results li p:last-child").all_inner_texts()
        like = page.get_by_role("button", name="Search by the recording")
        expect(like).to_be_disabled()
        page.set_input_files("#file", spoken)
        with page.expect_response("**/v1/search") as answered:
            like.click()
        assert [found["id"] for found in answered.value.json()["results"]] != []
        expect(page.locator("#found")).to_contain_text("found, the nearest first")
    for found, told in zip(expected, facts, strict=True):
        known = "Romanian" if found.item.kind == "text" else "0:01.0–0:02.5"
        assert told == f"{known} · similarity {found.score:.2f}"


CONTRAST = """() => {
  const channels = (element, property) => getComputedStyle(element)[property].match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const colour = channels(element, 'backgroundColor');
    return colour[3] === 0 ? behind(element.parentElement) : colour;
  };
  const texts = [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility() &&
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return texts.map((element) => {
    const [a, b] = [light(channels(element, 'color')), light(behind(element))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), element.textContent.trim()];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark_and_on_a_narrow_screen(
    opened: Callable[..., Page], address: str, spoken: Path, scheme: str
) -> None:
    page = opened(address, color_scheme=scheme, viewport={"width": 360, "height": 700})
    transcribed(page, spoken)
    page.get_by_label("Show time and confidence").check()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (scheme == "light")
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 20
    assert min(contrasts) > [4.5]
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_resampling_agrees_with_soxr(opened: Callable[..., Page], address: str) -> None:
    page = opened(address)
    for rate in (44100, 48000, 8000):
        sound = soxr.resample(small_models.sound(0.4), 16000, rate)
        pieces = """async ([rate, samples]) => {
          const { Resampler, joined } = await import('/sound.js');
          const resampler = new Resampler(rate);
          const chunks = [];
          for (let at = 0; at < samples.length; at += 512)
            chunks.push(resampler.push(Float32Array.from(samples.slice(at, at + 512))));
          return [...joined(chunks)];
        }"""
        found = np.array(page.evaluate(pieces, [rate, sound.tolist()]))
        expected = soxr.resample(sound, rate, 16000)[: len(found)]
        assert len(found) > 6200
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
