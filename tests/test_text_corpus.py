"""Unspoken text: reading, cleaning, writing."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from isogloss.errors import IsoglossError
from isogloss.text.corpus import TextLine, clean_text, read_text_lines, write_text_lines

LINES = [
    TextLine("Într-o zi!", "ro", "poveste"),
    TextLine("într-o zi", "ro", "altceva"),
    TextLine("într-o zi", "ca", "poveste"),
    TextLine("…", "ro", "poveste"),
    TextLine("Din test.", "ro", "poveste"),
    TextLine("Irmak", "tr", "öykü"),
]


@pytest.mark.parametrize("name", ["t.jsonl.gz", "deep/er/text.jsonl.gz"])
def test_written_lines_come_back(name: str, tmp_path: Path) -> None:
    assert write_text_lines(LINES, tmp_path / name) == len(LINES)
    assert list(read_text_lines(tmp_path / name)) == LINES


def test_equal_lines_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_text_lines(LINES, tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl.gz"
    write_text_lines(LINES, path)

    def failing():  # type: ignore[no-untyped-def]
        yield LINES[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_text_lines(failing(), path)
    assert list(read_text_lines(path)) == LINES
    assert [file.name for file in tmp_path.iterdir()] == ["text.jsonl.gz"]


def test_plain_text_needs_a_language_and_survives_bom_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "basme.v2.txt"
    path.write_bytes("\ufeffuna\r\ndouă\u2028trei\n\npatru".encode())
    lines = list(read_text_lines(path, language="Romanian"))
    assert [line.text for line in lines] == ["una", "două\u2028trei", "", "patru"]
    assert {(line.language, line.source) for line in lines} == {("ro", "basme")}
    with pytest.raises(IsoglossError, match=r"basme\.v2\.txt:1 has no language"):
        list(read_text_lines(path))


def test_compressed_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"un\ndos\n", mtime=0))
    assert [line.text for line in read_text_lines(path, "ca")] == ["un", "dos"]


def test_capitals_of_a_suffix_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "RO.TXT.GZ").write_bytes(gzip.compress(b"unu\n", mtime=0))
    (tmp_path / "X.JSONL").write_text('{"text": "doi", "language": "ro"}\n')
    assert [line.text for line in read_text_lines(tmp_path / "RO.TXT.GZ", "ro")] == ["unu"]
    assert [line.text for line in read_text_lines(tmp_path / "X.JSONL")] == ["doi"]


def test_a_line_s_own_language_and_source_win(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "x", "language": "ron", "source": "s"}, {"text": "y"}, {"text": "z", "language": None}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert list(read_text_lines(path, "ca", "t")) == [
        TextLine("x", "ro", "s"),
        TextLine("y", "ca", "t"),
        TextLine("z", "ca", "t"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", "give .txt, .jsonl"),
        ("a.gz", b"x", "give .txt, .jsonl"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 1}', 'a.jsonl:2 has no "text"'),
        ("a.jsonl", b"[]", 'a.jsonl:1 has no "text"'),
        ("a.jsonl", b'{"text": "x"', "a.jsonl:1 is not JSON"),
        ("a.jsonl", b'{"text": "x", "language": 3}', "must be strings"),
        ("a.jsonl", b'{"text": "x", "language": "Romanain"}', "Did you mean"),
        ("a.txt", b"x\n\xff\xff", "a.txt, line 2: not UTF-8"),
        ("a.txt.gz", b"no gzip", "unreadable"),
        ("a.txt.gz", gzip.compress(b"abc" * 100, mtime=0)[:-9], "unreadable"),
    ],
)
def test_broken_text_names_file_and_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IsoglossError, match=message):
        list(read_text_lines(tmp_path / name, "ca"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="is missing"):
        list(read_text_lines(tmp_path / "a.txt", "ca"))


def test_cleaning_normalises_drops_and_counts() -> None:
    counts: Counter[str] = Counter()
    kept = list(clean_text(LINES, counts, exclude={"din test"}))
    assert kept == [
        TextLine("într-o zi", "ro", "poveste"),
        TextLine("într-o zi", "ca", "poveste"),
        TextLine("ırmak", "tr", "öykü"),
    ]
    assert counts == {"read": 6, "empty": 1, "excluded": 1, "duplicate": 1, "kept": 3}
