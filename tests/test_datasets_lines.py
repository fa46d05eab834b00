"""Texts as people have them: line ends, marks, and what is no text."""

import pytest

from replications.datasets.lines import numbered_lines, read_lines, read_text
from replications.datasets.litter import entries, is_litter, pictures
from replications.errors import UserError

TEXT = "chair 1\n\ntäble 2 \n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_the_same_however_they_are_stored(tmp_path, newline, coding):
    path = tmp_path / "list.txt"
    path.write_bytes(TEXT.replace("\n", newline).encode(coding))
    assert read_lines(path) == ["chair 1", "täble 2"]
    assert numbered_lines(path) == [(1, "chair 1"), (3, "täble 2 ")]
    assert read_text(path).split() == TEXT.split()


@pytest.mark.parametrize(
    ("data", "says"), [(b"a\0b", "character 1 is zero"), (b"ab\xff", r"not UTF-8 text \(byte 2\)")]
)
def test_what_is_no_text_is_one_line(tmp_path, data, says):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"cannot read .*list\.txt: it is .*{says}"):
        read_lines(tmp_path / "list.txt")


def test_a_text_that_is_missing_or_a_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt is missing: see what"):
        read_lines(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_lines(tmp_path)


def test_litter_is_told_by_its_name_in_any_folder(tmp_path):
    bad = ".DS_Store ._a.jpg @eaDir a/@eaDir/b.jpg __MACOSX/a/b.jpg a/Thumbs.db a/.git/b .hidden/c.jpg #recycle/a.jpg"
    good = "a.jpg a/b.jpg ./a.jpg ../a.jpg a@b.jpg a.b/c #1/a.jpg"
    assert all(is_litter(name) for name in bad.split()) and not any(is_litter(name) for name in good.split())
    for name in ("b.jpg", "a.PNG", "._b.jpg", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.jpg").mkdir()
    assert [path.name for path in pictures(entries(tmp_path))] == ["a.PNG", "b.jpg"]
