"""Asterisk telephone prompts: five languages, one speaker each, 495 prompts common to all.

    sounds/xx_YY_g_Speaker/ID.g722     ID like queue-youarenext, digits/7, letters/a, phonetic/b_p

The packages hold no transcript: the words of numbers, days, months and letters follow from the ID, and
every other prompt is untranscribed speech whose ID is a concept shared by the languages.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType

from isogloss.audio.raw import read_g722
from isogloss.data.manifests import Utterance
from isogloss.data.recipes.common import converted, existing, files, safe_id

LANGUAGES = ("en", "es", "fr", "it", "ru")
_SOUNDS = (
    "ascending-2tone",
    "descending-2tone",
    "beep",
    "beeperr",
    "confbridge-join",
    "confbridge-leave",
    "tt-monkeys",
)

# 0 to 20, then the tens to 90; the days from Sunday; the months from January.
_NUMBERS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince"
    " dieciséis diecisiete dieciocho diecinueve veinte treinta cuarenta cincuenta sesenta setenta ochenta"
    " noventa",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
    " dix-sept dix-huit dix-neuf vingt trente quarante cinquante soixante soixante-dix quatre-vingts"
    " quatre-vingt-dix",
    "it": "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici"
    " quindici sedici diciassette diciotto diciannove venti trenta quaranta cinquanta sessanta settanta"
    " ottanta novanta",
    "ru": "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать тринадцать"
    " четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать двадцать тридцать сорок"
    " пятьдесят шестьдесят семьдесят восемьдесят девяносто",
}
_DAYS = {
    "en": "Sunday Monday Tuesday Wednesday Thursday Friday Saturday",
    "es": "domingo lunes martes miércoles jueves viernes sábado",
    "fr": "dimanche lundi mardi mercredi jeudi vendredi samedi",
    "it": "domenica lunedì martedì mercoledì giovedì venerdì sabato",
    "ru": "воскресенье понедельник вторник среда четверг пятница суббота",
}
_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    # As dates need them: "5 января".
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}


def read(root: Path, scratch: Path, dropped: Counter[str]) -> Iterator[Utterance]:
    """Yield the prompts of all five languages, converted to FLAC; dropped: not speech (silence, beeps)."""
    for language in LANGUAGES:
        words = exact_words(language)
        package = existing(root / f"asterisk-core-sounds-{language}-g722/usr/share/asterisk/sounds")
        for voice in sorted(package.iterdir()):
            for audio in files(voice, "*.g722"):
                prompt = audio.relative_to(voice).with_suffix("").as_posix()
                if prompt.startswith("silence/") or prompt in _SOUNDS:
                    dropped["not speech"] += 1
                    continue
                flac = converted(scratch, safe_id(f"{language}/{prompt}"), partial(read_g722, audio), dropped)
                if flac:
                    yield _utterance(flac, language, prompt, words.get(prompt))


def _utterance(audio: Path, language: str, prompt: str, text: str | None) -> Utterance:
    return Utterance(
        id=safe_id(f"{language}/{prompt}"),
        audio=audio,
        language=language,
        source="asterisk",
        text=text,
        speaker=f"asterisk-{language}",
        concept=prompt,
    )


def exact_words(language: str) -> MappingProxyType[str, str]:
    """{prompt: what it says} for the prompts whose words follow from their id."""
    values = [*range(21), *range(30, 100, 10)]
    words = {f"digits/{value}": word for value, word in zip(values, _NUMBERS[language].split(), strict=True)}
    words |= {f"digits/day-{day}": word for day, word in enumerate(_DAYS[language].split())}
    words |= {f"digits/mon-{month}": word for month, word in enumerate(_MONTHS[language].split())}
    if language != "ru":  # there the Latin letters are read by their English names
        words |= {f"letters/{letter}": letter for letter in "abcdefghijklmnopqrstuvwxyz"}
    return MappingProxyType(words)
