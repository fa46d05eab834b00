"""Text and sequence sets: the generators' languages, and the official layouts on small files made here."""

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pytest

from replications.datasets.text import brackets, dictionary, imdb, listops, lra, recall
from replications.datasets.text import files as text_files
from replications.errors import UserError

LISTOPS = {"train": 300, "validation": 20, "test": 40, "min_length": 8, "max_length": 60, "max_depth": 5, "max_args": 5}


def arrays(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_listops_have_the_values_of_their_expressions_and_keep_the_limits(tmp_path):
    facts = listops.prepare(tmp_path, LISTOPS, {}, 1)
    found = arrays(tmp_path)
    assert found["tokens"].shape == (360, 59) and np.bincount(found["split"]).tolist() == [300, 20, 40]
    assert ((found["length"] > 8) & (found["length"] < 60)).all()
    assert len({row.tobytes() for row in found["tokens"]}) == 360
    for row, length, label in zip(found["tokens"], found["length"], found["label"], strict=True):
        assert not row[length:].any() and row[:length].all()
        assert evaluated(" ".join(listops.TOKENS[token] for token in row[:length])) == label
    assert 0.1 <= facts["majority"] < 0.4


def evaluated(text):
    """An evaluator of its own: Python's."""
    names = {"[MIN": "min_", "[MAX": "max_", "[MED": "med_", "[SM": "sm_"}
    functions = {
        "min_": lambda *v: min(v),
        "max_": lambda *v: max(v),
        "med_": lambda *v: int(np.median(v)),
        "sm_": lambda *v: sum(v) % 10,
    }
    words = [names[w] + "(" if w in names else ")," if w == "]" else w + "," for w in text.split()]
    return eval("".join(words).rstrip(","), functions)


def test_listops_are_the_same_however_they_are_drawn(tmp_path):
    options = listops.check_options(LISTOPS)
    whole = listops.draw_rows(options, range(5, 15))
    part = listops.draw_rows(options, range(9, 11))
    assert np.array_equal(whole["tokens"][4:6], part["tokens"])
    digest = hashlib.sha256(whole["tokens"].tobytes()).hexdigest()
    assert digest.startswith("43b4c77d9af8"), digest


def test_the_published_notation_is_read():
    tokens = listops.parse("( ( ( ( [MED 2 ) 9 ) ( ( [SM 8 ) 7 ) ] ) ) ] )")
    assert [listops.TOKENS[t] for t in tokens] == ["[MED", "2", "9", "[SM", "8", "7", "]", "]"]
    assert listops.evaluate(tokens) == 5
    with pytest.raises(UserError, match="'FIRST' is not a word"):
        listops.parse("[MIN FIRST 2 ]")


@pytest.mark.parametrize(
    "change, message",
    [({"max_length": 9}, "no length is between"), ({"depth": 3}, "depth"), ({"test": 0}, "test: Input should be")],
)
def test_wrong_listops_options_are_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        listops.prepare(tmp_path, {**LISTOPS, **change}, {}, 1)


def test_more_sequences_than_there_are_is_an_error(tmp_path):
    with pytest.raises(UserError, match="fewer than"):
        listops.prepare(
            tmp_path,
            {**LISTOPS, "train": 5000, "min_length": 3, "max_length": 5, "max_depth": 2, "max_args": 2},
            {},
            1,
        )


def test_recall_can_be_answered_from_what_came_before(tmp_path):
    recall.prepare(
        tmp_path, {"train": 50, "validation": 1, "test": 9, "pairs": 6, "keys": 9, "values": 5, "seed": 1}, {}, 1
    )
    found = arrays(tmp_path)
    for row, asked in zip(found["tokens"], found["asked"], strict=True):
        known = dict(zip(row[:12:2].tolist(), row[1:12:2].tolist(), strict=True))
        assert len(known) == 6 and max(known) < 9 and min(known.values()) >= 9
        places = np.flatnonzero(asked)
        assert places.tolist() == list(range(13, 24, 2))
        assert [known[row[place - 1]] for place in places] == row[places].tolist()
    with pytest.raises(UserError, match="as many different keys"):
        recall.prepare(tmp_path, {"train": 1, "validation": 1, "test": 1, "pairs": 6, "keys": 4, "values": 5}, {}, 1)


def test_brackets_close_what_was_opened_last(tmp_path):
    options = {"train": 60, "validation": 1, "test": 9, "length": 30, "kinds": 3, "max_depth": 4, "seed": 2}
    brackets.prepare(tmp_path, options, {}, 1)
    found, deepest = arrays(tmp_path), 0
    for row, asked in zip(found["tokens"].astype(int), found["asked"], strict=True):
        stack = []
        for token, is_asked in zip(row, asked, strict=True):
            assert is_asked == (token >= 3)
            if token < 3:
                stack.append(token)
            else:
                assert token - 3 == stack.pop()
            deepest = max(deepest, len(stack))
        assert not stack
    assert deepest == 4


def test_the_embedded_text_is_that_of_the_lock(tmp_path):
    from replications.datasets.registry import find_set

    options = find_set("dictionary_text").options
    facts = dictionary.prepare(tmp_path, options, {}, 1)
    found = arrays(tmp_path)
    assert facts["bytes"] == {"train": 1873413, "validation": 59770, "test": 142155}
    digest = hashlib.sha256(found["text"].tobytes()).hexdigest()
    assert digest.startswith("fc9e528eca56"), digest
    wrong = {**options, "files": dict.fromkeys(options["files"], "0" * 64)}
    with pytest.raises(UserError, match=r"is another text .*install the timm of envs/requirements\.txt"):
        dictionary.prepare(tmp_path, wrong, {}, 1)


def reviews(path, mode):
    with tarfile.open(path, mode) as tar:
        for split in ("train", "test"):
            for kind in ("pos", "neg"):
                for i in range(4):
                    add(tar, f"aclImdb/{split}/{kind}/{i}_{5 + i}.txt", f"{split} {kind} {i} \xff".encode("latin-1"))
        add(tar, "aclImdb/train/unsup/0_0.txt", b"without a label")
        add(tar, "aclImdb/imdb.vocab", b"words")


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("suffix, mode", [("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_reviews_become_text_or_classes_from_either_archive(tmp_path, suffix, mode):
    archive = tmp_path / f"reviews.{suffix}"
    reviews(archive, mode)
    base = {"validation": 0.25, "reviews": [7, 8], "leave_out": ["train/neg/2"]}
    text, classes = tmp_path / "text", tmp_path / "classes"
    text.mkdir()
    classes.mkdir()
    imdb.prepare(text, {"form": "text", **base}, {"reviews": archive}, 1)
    found = arrays(text)
    whole = found["text"].tobytes()
    assert b"train neg 2" not in whole and b"label" not in whole and whole.count(b"\xff\n") == 15
    start, _, end, stop = found["splits"]
    assert b"test" not in whole[start:end] and whole[end:stop].count(b"test") == 8
    imdb.prepare(classes, {"form": "classes", "length": 9, **base}, {"reviews": archive}, 1)
    found = arrays(classes)
    assert np.bincount(found["split"]).tolist() == [6, 1, 8]
    for row, length, label in zip(found["tokens"], found["length"], found["label"], strict=True):
        assert (b"pos" in row.tobytes()) == label and length == 9
    with pytest.raises(UserError, match=r"has \[7, 8\] reviews"):
        imdb.prepare(text, {"form": "text", **base, "reviews": [8, 8]}, {"reviews": archive}, 1)


def test_enwik8_is_cut_by_position(tmp_path):
    content = bytes(range(200))
    (tmp_path / "enwik8").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as bundle:
        bundle.writestr("enwik8", content)
    for name in ("enwik8", "enwik8.zip"):
        text_files.prepare(tmp_path, {"bytes": [150, 20, 20]}, {"text": tmp_path / name}, 1)
        found = arrays(tmp_path)
        assert found["text"].tobytes() == content[:190] and found["splits"].tolist() == [0, 150, 170, 190]
    with pytest.raises(UserError, match="has 200 bytes, expected 290"):
        text_files.prepare(tmp_path, {"bytes": [250, 20, 20]}, {"text": tmp_path / "enwik8"}, 1)


def test_wikitext_and_books_are_split_as_they_come(tmp_path):
    names = {"train": "w/wiki.train.tokens", "validation": "w/wiki.valid.tokens", "test": "w/wiki.test.tokens"}
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as bundle:
        for split, name in names.items():
            bundle.writestr(name, f" = {split} = \n")
    text_files.prepare(tmp_path, {"members": names}, {"text": tmp_path / "w.zip"}, 1)
    assert arrays(tmp_path)["text"].tobytes() == b" = train = \n = validation = \n = test = \n"
    with pytest.raises(UserError, match="has no file missing"):
        text_files.prepare(tmp_path, {"members": {**names, "test": "missing"}}, {"text": tmp_path / "w.zip"}, 1)
    books = tmp_path / "pg19"
    for split in names:
        (books / split).mkdir(parents=True)
        for book in (2, 1):
            (books / split / f"{book}.txt").write_text(f"{split} {book};")
    text_files.prepare(tmp_path, {"folders": {split: split for split in names}}, {"text": books}, 1)
    assert arrays(tmp_path)["text"].tobytes().startswith(b"train 1;train 2;validation 1;")
    for path in (books / "test").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="the test text is empty"):
        text_files.prepare(tmp_path, {"folders": {split: split for split in names}}, {"text": books}, 1)


def test_the_arenas_listops_are_read(tmp_path):
    for name, count in zip(lra.FILES, (3, 1, 2), strict=True):
        lines = ["Source\tTarget", *["( ( ( [MAX 2 ) 9 ) ] )\t9"] * count]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    lra.prepare(tmp_path, {"length": 3}, {"listops": tmp_path}, 1)
    found = arrays(tmp_path)
    assert found["tokens"].shape == (6, 3) and found["label"].tolist() == [9] * 6
    assert [listops.TOKENS[t] for t in found["tokens"][0]] == ["[MAX", "2", "9"]
    assert found["split"].tolist() == [0, 0, 0, 1, 2, 2]
    (tmp_path / lra.FILES[2]).write_text("a\tb\n")
    with pytest.raises(UserError, match="expected Source and Target"):
        lra.prepare(tmp_path, {"length": 3}, {"listops": tmp_path}, 1)


def test_the_arenas_listops_with_a_mark_and_windows_line_ends(tmp_path):
    for name in lra.FILES:
        (tmp_path / name).write_bytes(b"\xef\xbb\xbfSource\tTarget\r\n( ( ( [MAX 2 ) 9 ) ] )\t9\r\n")
    lra.prepare(tmp_path, {"length": 3}, {"listops": tmp_path}, 1)
    assert arrays(tmp_path)["label"].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    "row", ["( [MAX 2 ) 9\t10", "9\t-1", "9\tnine", "9", "\t9", "9\t", "[AND 2\t9", "x" * 200_000 + "\t1"]
)
def test_a_wrong_line_of_listops_is_named(tmp_path, row):
    for name in lra.FILES:
        (tmp_path / name).write_text(f"Source\tTarget\n9\t9\n{row}\n")
    with pytest.raises(UserError, match=r"basic_train\.tsv") as error:
        lra.prepare(tmp_path, {"length": 3}, {"listops": tmp_path}, 1)
    assert "\n" not in str(error.value)


def test_what_file_managers_leave_is_no_book(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.txt").write_text("book")
        (tmp_path / split / "._1.txt").write_bytes(b"\0\5\x16\7")
    folders = {split: split for split in ("train", "validation", "test")}
    text_files.prepare(tmp_path, {"folders": folders}, {"text": tmp_path}, 1)
    assert arrays(tmp_path)["text"].tobytes() == b"bookbookbook"
