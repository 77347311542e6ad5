"""Public corpora that people download themselves; `isogloss prepare NAME=FOLDER` reads their layouts.

Where lhotse has a recipe it is called. Four are read here: CoVoST 2 and VoxLingua107, which lhotse
does not have, VoxCeleb, whose lhotse recipe fetches a trial list from the network, and Common Voice,
whose recipe stops at the first broken clip. The splits are the official ones.
"""

import contextlib
import io
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isogloss.data.corpus import Corpus, Reader
from isogloss.data.foreign import from_lhotse
from isogloss.data.manifests import SPLITS, Utterance
from isogloss.data.rows import make_id
from isogloss.data.tables import Malformed, read_rows
from isogloss.errors import AudioError, IsoglossError
from isogloss.text.languages import normalise_language

BROKEN_FRAMES = 10**10  # longer than any file, so that lhotse drops no segment of a broken one


def read_librispeech(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """LibriSpeech or its mini version: train-clean-100/SPEAKER/CHAPTER/*.flac with *.trans.txt."""
    from lhotse.recipes import prepare_librispeech

    parts = _run("librispeech", root, lambda _: prepare_librispeech(root))
    for part, manifests in sorted(parts.items()):
        yield from _utterances(manifests, "librispeech", "en", part.partition("-")[0])


def read_mls(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Multilingual LibriSpeech: mls_polish/{train,dev,test}/transcripts.txt with flac or opus files."""
    from lhotse.recipes import prepare_mls

    _require(any(root.glob("mls_*")), root, "mls_LANGUAGE folders")
    opus = any(root.glob("mls_*_opus"))
    yield from _by_language("mls", _run("mls", root, lambda _: prepare_mls(root, opus=opus)))


def read_fleurs(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """FLEURS: ro_ro/{train,dev,test}/*.wav with metadata/ro_ro/{train,dev,test}.tsv.

    The number of a sentence is the same in all languages, so it is the concept; FLEURS does not
    name speakers (lhotse numbers the recordings of a sentence instead).
    """
    from lhotse.recipes import prepare_fleurs

    languages = sorted(folder.name for folder in root.glob("metadata/*") if (root / folder.name).is_dir())
    _require(languages, root, "metadata/LANGUAGE folders beside LANGUAGE folders")
    found = _run("fleurs", root, lambda output: prepare_fleurs(root, output, languages=languages))
    for utterance in _by_language("fleurs", found):
        sentence = utterance.id.partition("/")[2].partition("_")[0]
        yield replace(utterance, speaker=None, concept=sentence)


def read_common_voice(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Common Voice from release 8 on: ro/{train,dev,test}.tsv beside ro/clips/*.mp3, or the folder ro itself.

    Without these three, all of validated.tsv is read, in no split.
    """
    folders = [folder for folder in (root, *sorted(root.iterdir())) if folder.is_dir()]
    given = [folder / f"{split}.tsv" for folder in folders for split in SPLITS]
    tables = [table for table in given if table.is_file()]
    official = {table.parent for table in tables}
    validated = (folder / "validated.tsv" for folder in folders if folder not in official)
    tables += [table for table in validated if table.is_file()]
    _require(tables, root, "LANGUAGE/train.tsv")
    for table in tables:
        name = table.parent.resolve().name
        for row in _table(table, ("client_id", "path", "sentence"), dropped):
            clip = Path(row["path"])
            yield Utterance(
                id=make_id(f"{name}/{clip.stem}"),
                audio=table.parent / "clips" / clip,
                language=normalise_language(row.get("locale") or name),
                source="commonvoice",
                text=row["sentence"].strip() or None,
                speaker=row["client_id"] or None,
                split=table.stem if table.stem in SPLITS else None,
            )


def is_common_voice(root: Path) -> bool:
    """Whether a folder is a language of a release of Common Voice, or holds such folders."""
    tables = [table for place in ("", "*/") for table in root.glob(f"{place}*.tsv")]
    named = [table for table in tables if table.stem in (*SPLITS, "validated") and (table.parent / "clips").is_dir()]
    return any({"client_id", "path", "sentence"} <= {*read_rows(table)[0]} for table in named)


def read_voxpopuli(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """VoxPopuli's transcribed part: raw_audios/en/**/*.ogg and asr_en.tsv.gz, both below the folder."""
    tables = {
        table.name.removeprefix("asr_").removesuffix(".tsv.gz"): table for table in root.rglob("asr_*.tsv.gz")
    }
    languages = sorted(folder.name for folder in root.glob("raw_audios/*") if folder.is_dir())
    _require(languages, root, "raw_audios/LANGUAGE")
    for language in languages:
        _require(
            tables.get(language), root, f"asr_{language}.tsv.gz, the transcripts (VoxPopuli: annotations/asr)"
        )
        recipe = partial(_voxpopuli, root, language, tables[language])
        yield from _by_language("voxpopuli", _run("voxpopuli", root, recipe))


def _voxpopuli(root: Path, language: str, table: Path, output: Path) -> Any:
    from lhotse.recipes import prepare_voxpopuli

    # lhotse would download the table if it did not find it in its output folder.
    shutil.copy(table, output)
    return {language: prepare_voxpopuli(root, output, lang=language)}


def read_covost2(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """CoVoST 2 over Common Voice 4, in one folder: fr/validated.tsv, fr/clips/*.mp3, covost_v2.fr_en.tsv.

    All target languages of a source become its translations. As in CoVoST's own script, a clip
    marked train_covost is training data and other marks are outside the corpus.
    """
    pairs = sorted(root.rglob("covost_v2.*_*.tsv"))
    _require(pairs, root, "covost_v2.SOURCE_TARGET.tsv")
    sources = defaultdict(list)
    for pair in pairs:
        source, _, target = pair.name.removeprefix("covost_v2.").removesuffix(".tsv").partition("_")
        sources[source].append((normalise_language(target), pair))
    for source, targets in sources.items():
        translations: dict[str, dict[str, str]] = defaultdict(dict)
        splits = {}
        for target, pair in targets:
            for row in _table(pair, ("path", "translation", "split"), dropped):
                translations[row["path"]][target] = row["translation"]
                splits[row["path"]] = row["split"].replace("train_covost", "train")
        for row in _table(root / source / "validated.tsv", ("path", "sentence", "client_id"), dropped):
            if splits.get(row["path"]) not in ("train", "dev", "test"):
                dropped["outside CoVoST 2"] += 1
                continue
            yield Utterance(
                id=make_id(Path(row["path"]).stem),
                audio=root / source / "clips" / row["path"],
                language=normalise_language(source),
                source="covost2",
                text=row["sentence"].strip() or None,
                speaker=row["client_id"],
                translations=translations[row["path"]],
                split=splits[row["path"]],
            )


def read_voxceleb(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """VoxCeleb 1: vox1_meta.csv and wav/SPEAKER/VIDEO/*.wav; its language is not recorded (und)."""
    columns = ("VoxCeleb1 ID", "Set")
    splits = {row[columns[0]]: row["Set"].strip() for row in _table(root / "vox1_meta.csv", columns, dropped)}
    files = _audio(root, "wav/*/*/*.wav")
    _require(files, root, "wav/SPEAKER/VIDEO/*.wav")
    for file in files:
        video, speaker = file.parent.name, file.parent.parent.name
        yield Utterance(
            id=make_id(f"{speaker}/{video}/{file.stem}"),
            audio=file,
            language="und",
            source="voxceleb",
            speaker=speaker,
            split="test" if splits.get(speaker) == "test" else "train",
        )


def read_voxlingua107(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """VoxLingua107: ro/VIDEO__U__S1---0000.000-0005.230.wav, and the verified dev/ro/*.wav.

    The video stands for the speaker: whoever talks in it, they must not be on both sides.
    """
    files = _audio(root, "*/*.wav", "dev/*/*.wav")
    _require(files, root, "LANGUAGE/*.wav")
    for file in files:
        split = "dev" if file.parent.parent != root else "train"
        yield Utterance(
            id=make_id(str(file.relative_to(root).with_suffix(""))),
            audio=file,
            language=normalise_language(file.parent.name),
            source="voxlingua107",
            speaker=file.stem.partition("__U__")[0],
            split=split,
        )


def _run(name: str, root: Path, recipe: Callable[[Path], Any]) -> Any:
    """What a lhotse recipe returns, given a folder for its own manifests; its chatter is kept quiet."""
    silence = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as output,
        _lenient_headers(),
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        try:
            return recipe(Path(output))
        # A recipe raises whatever the layout made it stumble over.
        except Exception as error:
            reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]
            raise IsoglossError(
                f"lhotse's recipe for {name} cannot read {root} ({reason}); is the folder complete?"
            ) from error


@contextlib.contextmanager
def _lenient_headers() -> Iterator[None]:
    """Let a recipe pass over broken files, which it would stop at; `prepare` counts them afterwards."""
    from lhotse.audio import backend

    from isogloss.audio.reading import info

    class Headers(backend.AudioBackend):
        def info(self, path_or_fd: Any, force_opus_sampling_rate: int | None = None) -> Any:
            try:
                header = info(path_or_fd)
            except AudioError:
                rate = 16000
                return backend.LibsndfileCompatibleAudioInfo(1, BROKEN_FRAMES, rate, BROKEN_FRAMES / rate)
            return backend.LibsndfileCompatibleAudioInfo(
                header.channels, header.frames, header.sample_rate, header.seconds
            )

    previous = backend.get_current_audio_backend()
    backend.set_current_audio_backend(Headers())
    try:
        yield
    finally:
        backend.set_current_audio_backend(previous)


def _by_language(source: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Utterance]:
    """{language: {split: manifests}} as utterances; the language leads their ids, which may repeat across."""
    for folder, splits in sorted(found.items()):
        for split, manifests in sorted(splits.items()):
            for utterance in _utterances(manifests, source, folder, split):
                yield replace(utterance, id=f"{folder}/{utterance.id}")


def _utterances(manifests: Mapping[str, Any], source: str, language: str, split: str) -> Iterator[Utterance]:
    cuts = {recording.id: recording.to_cut() for recording in manifests["recordings"]}
    for said in manifests["supervisions"]:
        yield from_lhotse(cuts[said.recording_id], said, language, source, split, Path())


def _table(path: Path, columns: tuple[str, ...], dropped: Counter[str]) -> Iterator[dict[str, str]]:
    """Rows of a table that has these columns; rows of too many or too few fields are dropped."""
    heading, rows = read_rows(path)
    missing = sorted(set(columns) - set(heading))
    if missing:
        raise IsoglossError(f"{path} has no column {', '.join(missing)}; is it the original file?")
    for _, row in rows:
        if isinstance(row, Malformed):
            dropped[f"row of {path.name} with too many or too few fields"] += 1
        else:
            yield row


def _audio(root: Path, *patterns: str) -> list[Path]:
    """Files in order of name, without those that macOS writes beside them (._NAME)."""
    return sorted(file for pattern in patterns for file in root.glob(pattern) if not file.name.startswith("."))


def _require(found: Any, root: Path, what: str) -> None:
    if not found:
        raise IsoglossError(f"{root} does not look like this corpus: it holds no {what}.")


_FLEURS_LANGUAGES = """
af am ar as ast az be bg bn-IN bs ca ceb ckb cs cy da de el en es-419 et fa ff fi fil fr ga gl gu ha he
hi hr hu hy id ig is it ja jv ka kam kea kk km kn ko ky lb lg ln lo lt luo lv mi mk ml mn mr ms mt my nb
ne nl nso ny oc om or pa pl ps pt-BR ro ru sd-IN sk sl sn so sr sv sw-KE ta te tg th tr uk umb ur uz vi
wo xh yo yue zh zu
"""
_VOXLINGUA_LANGUAGES = """
ab af am ar as az ba be bg bn bo br bs ca ceb cs cy da de el en eo es et eu fa fi fil fo fr gl gn gu gv
ha haw he hi hr ht hu hy ia id is it ja jv ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne
nl nn no oc pa pl ps pt ro ru sa sco sd si sk sl sn so sq sr su sv sw ta te tg th tk tr tt uk ur uz vi war
yi yo zh
"""


def _corpus(
    name: str,
    title: str,
    languages: str,
    hours: float | None,
    speakers: str,
    text: str,
    licence: str,
    read: Reader,
) -> Corpus:
    minutes = None if hours is None else 60 * hours
    return Corpus(name, title, "public", tuple(languages.split()), minutes, speakers, text, licence, (), read)


# fmt: off
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        _corpus("librispeech", "LibriSpeech: read audiobooks", "en", 982, "2484", "sentences",
                "CC-BY-4.0", read_librispeech),
        _corpus("commonvoice", "Common Voice: sentences read by volunteers", "", None, "anonymous ids",
                "sentences", "CC0-1.0", read_common_voice),
        _corpus("fleurs", "FLEURS: the same sentences read in 102 languages", _FLEURS_LANGUAGES, 1400,
                "not named", "sentences, parallel by number", "CC-BY-4.0", read_fleurs),
        _corpus("mls", "Multilingual LibriSpeech: read audiobooks", "de en es fr it nl pl pt", 50500, "6332",
                "sentences", "CC-BY-4.0", read_mls),
        _corpus("voxpopuli", "VoxPopuli: speeches in the European Parliament, transcribed part",
                "cs de en es et fi fr hr hu it lt nl pl ro sk sl", 1800, "4295", "sentences",
                "CC0-1.0", read_voxpopuli),
        _corpus("covost2", "CoVoST 2: Common Voice 4 with translations",
                "ar ca cy de en es et fa fr id it ja lv mn nl pt ru sl sv ta tr zh", 2880,
                "anonymous ids", "sentences and translations", "CC0-1.0", read_covost2),
        _corpus("voxceleb", "VoxCeleb 1: interviews, for speaker verification", "und", 352, "1251", "none",
                "CC-BY-4.0 (metadata)", read_voxceleb),
        _corpus("voxlingua107", "VoxLingua107: videos in 107 languages", _VOXLINGUA_LANGUAGES, 6628,
                "by video", "none", "CC-BY-4.0 (metadata)", read_voxlingua107),
    )
}
# fmt: on
