"""Archives are not trusted: nothing outside the target, no links, limits that hold, all or nothing."""

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from replications.datasets import extract as module
from replications.datasets.extract import extract, open_zip, read_member, tar_files
from replications.errors import UserError

FILES = {"top/a.txt": b"a" * 1000, "top/deep/b.bin": bytes(range(256)) * 40, "top/empty": b""}


def make_tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def make_zip(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            bundle.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    return (make_zip if path.suffix == ".zip" else make_tar)(path, files)


def link(name: str, kind: bytes, to: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(archive: Path, match: str, **limits) -> str:
    """Extract, expect a refusal in one line that names the archive, and nothing left behind."""
    outside = set(archive.parent.parent.rglob("*"))
    with pytest.raises(UserError, match=match) as error:
        extract(archive, archive.parent / "out", **limits)
    text = str(error.value)
    assert "\n" not in text and str(archive) in text
    left = set(archive.parent.parent.rglob("*")) - outside
    assert {path.name for path in left} <= {".out.lock"}
    return text


@pytest.fixture
def room(tmp_path):
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.xz", "x.tar", "x.zip"])
def test_a_good_archive_arrives_whole(room, name):
    target = extract(make(room / name, FILES), room / "out")
    assert contents(target) == {name.removeprefix("top/"): data for name, data in FILES.items()}
    two_tops = extract(make(room / f"two-{name}", {"a/1": b"1", "b/2": b"2"}), room / "two")
    assert contents(two_tops) == {"a/1": b"1", "b/2": b"2"}


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
@pytest.mark.parametrize("bad", ["../evil", "top/../../evil", "/abs/evil", "top\\..\\..\\evil", "C:/evil"])
def test_nothing_lands_outside(room, name, bad):
    refused(make(room / name, {"top/good": b"1", bad: b"2"}), "outside the target")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(room, kind):
    refused(make_tar(room / "x.tar.gz", FILES, link("top/evil", kind)), "link or a device")


def test_a_link_in_a_zip_is_refused(room):
    refused(make_zip(room / "x.zip", {"evil": b"/etc/passwd"}, stat.S_IFLNK | 0o777), "link or a device")


@pytest.mark.parametrize("name", ["x.tar.xz", "x.zip"])
def test_the_limits_hold(room, name):
    archive = make(room / name, {f"top/{i}": b"\0" * 1_000_000 for i in range(5)})  # packs to a few kB
    refused(archive, "more than 4000000 bytes", most_bytes=4_000_000)
    refused(archive, "more than 4 files", most_files=4)
    assert len(contents(extract(archive, room / "out", most_bytes=5_000_000, most_files=5))) == 5


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.zip"])
@pytest.mark.parametrize("kept", [0, 1, 30, 0.5, 0.9])
def test_a_truncated_archive_is_told(room, name, kept):
    noise = bytes((i * i * 31 + i // 7) % 251 for i in range(60_000))
    archive = make(room / name, {"top/a": noise, "top/b": noise[::-1]})
    data = archive.read_bytes()
    archive.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    refused(archive, "truncated or damaged")


def test_damage_inside_a_zip_is_told(room):
    archive = make_zip(room / "x.zip", {"a": b"something " * 500})
    data = bytearray(archive.read_bytes())
    data[40] ^= 0xFF
    archive.write_bytes(data)
    refused(archive, "truncated or damaged")


def test_one_name_twice_is_refused(room):
    archive = room / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for data in (b"1", b"2"):
            info = tarfile.TarInfo("top/a")
            info.size = 1
            tar.addfile(info, io.BytesIO(data))
    refused(archive, "twice")


def test_what_is_there_stays_and_what_a_killed_process_left_goes(room):
    archive = make_tar(room / "x.tar", FILES)
    half = room / ".out.unpacking"
    half.mkdir()
    (half / "half").write_bytes(b"old")
    assert set(contents(extract(archive, room / "out"))) == {"a.txt", "deep/b.bin", "empty"}
    assert not half.exists()
    (room / "out/a.txt").write_bytes(b"mine")
    extract(archive, room / "out")
    assert (room / "out/a.txt").read_bytes() == b"mine"


def test_a_full_disk_leaves_nothing(room, monkeypatch):
    archive = make_tar(room / "x.tar", FILES)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_unpack", full)
    with pytest.raises(UserError, match="no space left for"):
        extract(archive, room / "out")
    assert {path.name for path in room.iterdir()} == {"x.tar", ".out.lock"}


def test_a_tar_is_read_in_its_order_without_unpacking(room):
    archive = make_tar(room / "x.tar.xz", FILES, link("top", tarfile.DIRTYPE, ""))
    assert [(name, stream.read()) for name, stream in tar_files(archive)] == list(FILES.items())
    with pytest.raises(UserError, match="link or a device"):
        list(tar_files(make_tar(room / "y.tar.xz", FILES, link("top/l", tarfile.SYMTYPE))))


def tar_of(path: Path, *entries: tuple[str, bytes], pax: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax or {}
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["", ".", "./", "/", "//", "./."])
def test_a_file_without_a_name_is_refused_or_passed_over(room, name):
    """In a tar; a zip has no such kind: what ends with a slash there is a folder."""
    archive = tar_of(room / "x.tar", ("a", b"1"), (name, b"2"))
    refused(archive, "a file whose name is|outside the target")
    archive = room / "x.zip"
    make_zip(archive, {"a": b"1", name: b"2"})
    if name.endswith("/"):
        assert contents(extract(archive, room / "out")) == {"a": b"1"}
    else:
        refused(archive, "a file whose name is")


def test_folders_named_dot_are_passed_over(room):
    with tarfile.open(room / "x.tar", "w") as tar:
        for name in (".", "./", "./top", "./top/."):
            tar.addfile(link(name, tarfile.DIRTYPE, ""))
        info = tarfile.TarInfo("./top/./a")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    assert contents(extract(room / "x.tar", room / "out")) == {"a": b"1"}


@pytest.mark.parametrize("method", [1, 9, 97, 99, 65535])
def test_a_packing_that_cannot_be_read_is_told_with_its_member(room, method):
    archive = make_zip(room / "x.zip", {"top/a": b"something"})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = data.index(mark) + place
        data[at : at + 2] = method.to_bytes(2, "little")
    archive.write_bytes(data)
    refused(archive, "top/a is packed in a way that cannot be read here")
    with pytest.raises(UserError, match="top/a is packed in a way that cannot be read here"):
        read_member(open_zip(archive), "top/a")


def test_an_encrypted_zip_is_told_with_its_member(room):
    archive = make_zip(room / "x.zip", {"top/a": b"something"})
    data = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + place] |= 1
    archive.write_bytes(data)
    refused(archive, "top/a is encrypted")
    with pytest.raises(UserError, match=r"x\.zip: top/a is truncated or damaged.*encrypted"):
        read_member(open_zip(archive), "top/a")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_in_a_zip_is_refused_also_where_it_is_not_unpacked(room):
    with zipfile.ZipFile(room / "x.zip", "w") as bundle:
        bundle.writestr("top/a", "1")
        bundle.writestr("top/a", "2")
    refused(room / "x.zip", "top/a twice")
    with pytest.raises(UserError, match="top/a twice"):
        open_zip(room / "x.zip")


@pytest.mark.parametrize("cut", [0, 1, 100, 511])
def test_a_plain_tar_that_ends_between_two_files_is_told(room, cut):
    """tarfile takes a header that is not there, or not whole, for the end of the archive."""
    whole = tar_of(room / "x.tar", ("top/a", b"1" * 512), ("top/b", b"2" * 512)).read_bytes()
    (room / "x.tar").write_bytes(whole[: 1024 + cut])
    refused(room / "x.tar", "truncated or damaged")
    with pytest.raises(UserError, match="truncated or damaged"):
        list(tar_files(room / "x.tar"))


@pytest.mark.parametrize("place", [0, 100, 124, 148, 156, 257])
def test_a_damaged_header_in_the_middle_of_a_tar_is_told(room, place):
    data = bytearray(tar_of(room / "x.tar", ("top/a", b"1" * 512), ("top/b", b"2"), ("top/c", b"3")).read_bytes())
    data[1024 + place] ^= 0x5A
    (room / "x.tar").write_bytes(data)
    refused(room / "x.tar", "truncated or damaged")


@pytest.mark.parametrize("pax", [{"size": "abc"}, {"size": "-5"}, {"path": "../evil"}, {"path": "."}, {"path": ""}])
def test_odd_extended_headers_are_refused_or_without_effect(room, pax):
    archive = tar_of(room / "x.tar", ("top/a", b"1"), pax=pax)
    try:
        found = contents(extract(archive, room / "out"))
    except UserError as error:
        assert "\n" not in str(error) and str(archive) in str(error)
        assert {path.name for path in room.iterdir()} <= {"x.tar", ".out.lock"}
    else:
        assert list(found.values()) == [b"1"]


@pytest.mark.parametrize("name", ["x.tar", "x.zip"])
@pytest.mark.parametrize("long", ["n" * 300, "top/" + "n" * 5000, "d/" * 3000 + "a", "two\nlines/../../x"])
def test_names_that_no_disk_takes_are_one_line(room, name, long):
    text = refused(make(room / name, {"top/good": b"1", long: b"2"}), "cannot be a file here|outside the target")
    assert len(text) < 600


def test_trailing_garbage_does_no_harm_and_a_wrong_crc_is_told_with_its_member(room):
    archive = make_zip(room / "x.zip", {"top/a": b"something"})
    data = archive.read_bytes()
    stored = bytearray(data)
    at = stored.index(b"PK\1\2") + 16
    stored[at] ^= 1
    archive.write_bytes(stored)
    refused(archive, "top/a is truncated or damaged")
    tar = tar_of(room / "x.tar", ("top/a", b"1"))
    tar.write_bytes(tar.read_bytes() + b"garbage" * 1000)
    assert contents(extract(tar, room / "out")) == {"a": b"1"}


def test_a_tar_that_ends_with_a_zip_is_a_tar(room):
    zipped = make_zip(room / "y.zip", {"b": b"2"}).read_bytes()
    tar_of(room / "x.tar", ("top/a", b"1"), ("top/y.zip", zipped))
    assert zipfile.is_zipfile(room / "x.tar")
    assert contents(extract(room / "x.tar", room / "out")) == {"a": b"1", "y.zip": zipped}


def test_a_bomb_is_refused_long_before_the_disk_is_full(room, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1_000_000)
    archive = make(room / "x.zip", {"a": b"\0" * 3_000_000})  # 3 kB
    refused(archive, "unpacks to more than 1000000 bytes")


def test_what_file_managers_put_into_an_archive_does_not_hide_its_folder(room):
    for name in ("x.tar", "x.zip"):
        archive = make(room / name, {"__MACOSX/top/._a": b"x", ".DS_Store": b"x", "top/a": b"1"})
        assert contents(extract(archive, room / f"{name}-out")) == {"a": b"1"}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def test_bytes_flipped_anywhere_give_the_files_or_one_line(room, name):
    archive = make(room / name, FILES)
    whole, rng = archive.read_bytes(), random.Random(0)
    for number in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(min(len(data), 3000))] = rng.randrange(256)
        archive.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            extract(archive, room / f"out{number}")
        except UserError as error:
            assert "\n" not in str(error) and str(archive) in str(error)
            assert not (room / f"out{number}").exists() and not (room / f".out{number}.unpacking").exists()
