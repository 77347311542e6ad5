"""Which languages are near relatives: branches whose languages can help each other (groups of ISO 639-5)."""

FAMILIES = {
    "albanian": "sq",
    "armenian": "hy",
    "baltic": "lt lv",
    "bantu": "bem kg ki lg ln lua ny rw sn ss st sw tn ts ve xh zu",
    "celtic": "br cy ga gd gv kw",
    "dravidian": "kn ml ta te",
    "finnic": "et fi vep vro",
    "germanic": "af da de en fo fy gsw is lb nb nds nl nn no sv yi",
    "greek": "el grc",
    "indic": "as awa bho bn gu hi kok mai mr ne or pa sa sd si ur",
    "iranian": "ckb fa ku os ps tg",
    "japonic": "ja",
    "kartvelian": "ka",
    "khmeric": "km",
    "koreanic": "ko",
    "malayo-polynesian": "ceb fil haw id jv mg mi ms sm su tl to",
    "mongolic": "mn",
    "romance": "an ast ca co es fr fur gl it la lld mo oc pt rm ro sc scn wa",
    "semitic": "am ar arz he mt ti",
    "sinitic": "cdo gan hak nan wuu yue zh",
    "slavic": "be bg bs cnr cs csb dsb hr hsb mk pl ru rue sh sk sl sr uk",
    "tai": "lo th",
    "turkic": "az ba crh cv kk ky tk tr tt ug uz",
    "uralic": "hu kpv mhr myv se udm",
    "vasconic": "eu",
    "vietic": "vi",
}
_FAMILY = {tag: name for name, tags in FAMILIES.items() for tag in tags.split()}


def family(language: str) -> str | None:
    """The family of a BCP 47 tag, whatever its script or region; None if it is not listed."""
    return _FAMILY.get(language.partition("-")[0])
