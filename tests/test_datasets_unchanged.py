"""A prepared set that is not what was prepared is noticed when it is opened, at little cost, and `fetch` repairs it."""

import contextlib
import errno
import json
import os
import resource
import time

import numpy as np
import pytest
import tiny_lfw
from test_datasets_prepare import tiny_registry

from replications.datasets import arrays, checksum, prepare, registry, unchanged
from replications.errors import UserError


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "load", tiny_registry)
    monkeypatch.setattr(unchanged, "_noted", {})
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    tiny_lfw.write(mirror)
    return mirror


@pytest.fixture
def data(mirror, tmp_path):
    """A folder of data with the set 'tiny', old enough for the clock to tell a change."""
    prepare.prepare("tiny", tmp_path / "data", mirror, workers=1)
    time.sleep(2 * unchanged.SETTLED_NS / 1e9)
    return tmp_path / "data"


def in_new_process(monkeypatch):
    """What a process that starts now knows."""
    monkeypatch.setattr(unchanged, "_noted", {})


def flip(path, where=-1):
    """Change one byte, and put the file's times back as copying programs do."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.seek(where, os.SEEK_END if where < 0 else os.SEEK_SET)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def reads(monkeypatch):
    """The files whose bytes were read for a checksum."""
    found = []

    def digest(path):
        found.append(path.name)
        return checksum.digest(path)

    monkeypatch.setattr(unchanged, "digest", digest)
    return found


@pytest.mark.parametrize("name", ["images", "identity", "pairs"])
def test_a_changed_byte_is_noticed_and_repaired(data, mirror, name, monkeypatch, capsys):
    path = arrays.set_path("tiny", data)
    whole = (path / f"{name}.npy").read_bytes()
    arrays.open_set("tiny", data)
    flip(path / f"{name}.npy")
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{name}.npy has changed .*'python -m replications fetch tiny'") as told:
            arrays.open_set("tiny", data)
        assert "\n" not in str(told.value)
        in_new_process(monkeypatch)
    assert prepare.prepare("tiny", data, mirror, workers=1) == path
    assert f"preparing 'tiny' again: {path / name}.npy has changed" in capsys.readouterr().err
    assert (path / f"{name}.npy").read_bytes() == whole
    arrays.open_set("tiny", data)


def test_arrays_that_changed_places_are_noticed(data):
    path = arrays.set_path("tiny", data)
    np.save(path / "images.npy", np.load(path / "images.npy")[::-1])
    with pytest.raises(UserError, match=r"images.npy has changed"):
        arrays.open_set("tiny", data)


def test_an_unchanged_set_is_not_read_again(data, monkeypatch, reads):
    in_new_process(monkeypatch)
    arrays.open_set("tiny", data)
    reads.clear()  # what was written just before it was prepared
    in_new_process(monkeypatch)
    arrays.open_set("tiny", data)
    assert reads == [], "it is noted beside the set"
    prepare.prepare("tiny", data)
    assert len(reads) == len(arrays.open_set("tiny", data).arrays), "fetch always reads"


def test_a_copied_set_is_read_once(data, tmp_path, monkeypatch, reads):
    copy = tmp_path / "copy"
    os.system(f"cp -pR {data} {copy}")
    in_new_process(monkeypatch)
    time.sleep(2 * unchanged.SETTLED_NS / 1e9)
    arrays.open_set("tiny", copy)
    assert reads, "other files, although of the same times"
    reads.clear()
    in_new_process(monkeypatch)
    arrays.open_set("tiny", copy)
    assert reads == []


@pytest.mark.parametrize("note", [None, b"", b"{", b"[]", b'{"images": 3}', b"[" * 100_000])
def test_a_note_of_any_form_is_no_harm(data, monkeypatch, note):
    in_new_process(monkeypatch)
    path = arrays.set_path("tiny", data)
    if note is None:
        unchanged.note_path(path).unlink(missing_ok=True)
    else:
        unchanged.note_path(path).write_bytes(note)
    arrays.open_set("tiny", data)
    flip(path / "images.npy")
    with pytest.raises(UserError, match=r"images.npy has changed"):
        arrays.open_set("tiny", data)


def test_in_a_read_only_folder_a_process_reads_once(data, monkeypatch, reads):
    def refuse(path, content):
        raise UserError("read-only")

    monkeypatch.setattr(unchanged, "write_atomic", refuse)
    unchanged.note_path(arrays.set_path("tiny", data)).unlink(missing_ok=True)
    in_new_process(monkeypatch)
    arrays.open_set("tiny", data)
    assert reads
    reads.clear()
    arrays.open_set("tiny", data)
    assert reads == []


def manifest(data):
    return arrays.set_path("tiny", data) / "set.json"


def changed_manifest(**changes):
    def change(path):
        meta = json.loads(path.read_text())
        meta.update(changes)
        path.write_text(json.dumps(meta))

    return change


def drop(key):
    def change(path):
        meta = json.loads(path.read_text())
        del meta[key]
        path.write_text(json.dumps(meta))

    return change


def forms(change):
    def write(path):
        meta = json.loads(path.read_text())
        change(meta["arrays"])
        meta.pop("sha256")
        path.write_text(json.dumps(meta))

    return write


def to_folder(path):
    path.unlink()
    path.mkdir()


MANIFESTS = {
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[1, 2]"),
    "a number": lambda path: path.write_text("3"),
    "null": lambda path: path.write_text("null"),
    "text": lambda path: path.write_text('"set"'),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "a folder": to_folder,
    "no arrays": drop("arrays"),
    "no fingerprint": drop("fingerprint"),
    "no facts": drop("facts"),
    "arrays as a list": changed_manifest(arrays=["images"]),
    "arrays empty": changed_manifest(arrays={}),
    "another set": changed_manifest(key="other"),
    "another version": changed_manifest(fingerprint="0" * 64),
    "other facts": changed_manifest(facts={}),
    "no checksum": forms(lambda arrays: arrays["images"].pop("sha256")),
    "a shape of text": forms(lambda arrays: arrays["images"].update(shape="large")),
    "a name outside": forms(lambda arrays: arrays.update({"../../images": arrays["images"]})),
    "an absolute name": forms(lambda arrays: arrays.update({"/tmp/images": arrays["images"]})),
    "an array more": forms(lambda arrays: arrays.update(other=arrays["images"])),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_of_another_form_is_one_line_and_repaired(data, mirror, change):
    good = manifest(data).read_bytes()
    change(manifest(data))
    with pytest.raises(UserError, match="fetch tiny") as told:
        arrays.open_set("tiny", data)
    assert "\n" not in str(told.value)
    prepare.prepare("tiny", data, mirror, workers=1)
    assert manifest(data).read_bytes() == good


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((((", b"x" * 300]
)
def test_an_array_of_another_form_is_one_line_and_repaired(data, mirror, content):
    path = arrays.set_path("tiny", data) / "images.npy"
    good = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"images.npy is damaged .* fetch tiny") as told:
        arrays.open_set("tiny", data)
    assert "\n" not in str(told.value)
    prepare.prepare("tiny", data, mirror, workers=1)
    assert path.read_bytes() == good


def test_what_else_lies_in_the_folder_is_no_harm(data):
    (arrays.set_path("tiny", data) / ".DS_Store").write_bytes(b"x")
    (arrays.set_path("tiny", data) / "other.npy").write_bytes(b"x")
    assert "other" not in arrays.open_set("tiny", data).arrays


# A file that cannot be read is not a damaged one


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOMEM])
@pytest.mark.parametrize("where", ["manifest", "array", "checksum"])
def test_what_cannot_be_read_is_not_taken_for_damaged(data, mirror, monkeypatch, number, where):
    path = arrays.set_path("tiny", data)
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if where == "manifest":
            patch.setattr("pathlib.Path.read_bytes", fail)
        elif where == "array":
            patch.setattr(np.lib.format, "open_memmap", fail)
        else:
            patch.setattr("pathlib.Path.open", fail)
        for act in (arrays.open_set, prepare.prepare):
            if act is arrays.open_set and where == "checksum":
                continue  # not read again
            with pytest.raises(UserError, match=os.strerror(number)) as told:
                act("tiny", data)
            assert "damaged" not in str(told.value) and "\n" not in str(told.value) and str(path) in str(told.value)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_too_many_open_files_leave_the_set_alone(data):
    path = arrays.set_path("tiny", data)
    before = sorted(path.iterdir())
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/", os.O_RDONLY))
        for act in (arrays.open_set, prepare.prepare):
            with pytest.raises(UserError, match=r"Too many open files .*ulimit"):
                act("tiny", data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)
    assert sorted(path.iterdir()) == before
    arrays.open_set("tiny", data)
