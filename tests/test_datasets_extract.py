"""Archives are not trusted: nothing outside the target, no links, limits that hold, all or nothing."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from replications.datasets import extract as module
from replications.datasets.extract import extract, tar_files
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
