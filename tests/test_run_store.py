"""The work store and the results: several processes at one row, damaged files, disks that refuse."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from replications import catalogue, running
from replications.cli import main
from replications.datasets import checksum
from replications.datasets.prepare import prepare
from replications.errors import REMEDIES, RunFailure, UserError, disk_error, naming_changes
from replications.records import RunRecord, read_run, run_path, write_atomic, write_record

ROOT = Path(__file__).parent.parent
ADDRESS = "pointnet/pointnet"


@pytest.fixture
def finished(tmp_path) -> tuple:
    """A spec whose run lies finished, with arrays, in the work store."""
    spec = catalogue.resolve(ADDRESS, "smoke", 0)
    prints = running.fingerprints(spec)
    work = running.work_folder(tmp_path / "work", prints)
    work.mkdir(parents=True)
    record = RunRecord(
        status="finished",
        fingerprint=prints.run,
        code_fingerprint=prints.code,
        data_fingerprint=prints.data,
        spec=spec,
        metrics={"accuracy": 50.0},
    )
    np.savez_compressed(work / "arrays.npz", score=np.random.default_rng(0).normal(size=20_000))
    write_record(record, work / "run.json")
    return spec, work, tmp_path


RESTORE = """
import sys
from pathlib import Path
from replications import catalogue, running
from replications.records import run_path
from replications.running import store
spec, folder = catalogue.resolve("pointnet/pointnet", "smoke", 0), Path(sys.argv[1])
work = running.work_folder(folder / "work", running.fingerprints(spec))
record = running.restore(spec, work_root=folder / "work", results=folder / "results")
for _ in range(150):
    store.publish(record, work, run_path(folder / "results", spec.paper, spec.method, 0))
"""


def test_several_processes_restore_a_row_at_once(finished):
    spec, work, folder = finished
    command = [sys.executable, "-c", RESTORE, str(folder)]
    jobs = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [job.communicate()[1] for job in jobs] == [""] * 3
    path = run_path(folder / "results", spec.paper, spec.method, 0)
    assert sorted(p.name for p in path.parent.iterdir()) == ["arrays.npz", "run.json"], "and nothing temporary"
    assert path.with_name("arrays.npz").read_bytes() == (work / "arrays.npz").read_bytes()
    read_run(path)


@pytest.mark.parametrize("damage", ["flipped", "cut", "text"])
def test_damaged_arrays_are_not_handed_out(finished, damage, capsys):
    spec, work, folder = finished
    content = bytearray((work / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flipped": bytes(content), "cut": bytes(content[:-30]), "text": b"x" * 40}[damage]
    (work / "arrays.npz").write_bytes(damaged)
    assert running.restore(spec, work_root=folder / "work", results=folder / "results") is None
    assert "arrays.npz is damaged" in capsys.readouterr().err
    (work / "arrays.npz").unlink()
    assert running.restore(spec, work_root=folder / "work", results=folder / "results") is not None


def test_a_flipped_byte_in_a_weights_file_is_noticed(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    assert checksum.is_whole(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(500.0, 504.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    torch.load(path)  # does not notice
    spec = catalogue.resolve("mae/mae", "smoke", 0)
    with pytest.raises(UserError, match=r"weights.pth is damaged"):
        running.score_weights(
            spec, path, data_root=tmp_path, work_root=tmp_path, results=tmp_path, device=torch.device("cpu")
        )


@pytest.mark.parametrize("where", ["work", "results", "data_root"])
@pytest.mark.parametrize("kind", ["a file", "a loop", "a long name", "below a file", "read-only"])
def test_folders_that_are_none_are_one_line(tmp_path, capfd, where, kind):
    folder = tmp_path / "it"
    if kind == "a file":
        folder.write_text("x")
    elif kind == "a loop":
        folder.symlink_to(folder)
    elif kind == "a long name":
        folder = tmp_path / ("x" * 300)
    elif kind == "below a file":
        folder.write_text("x")
        folder = folder / "y"
    else:
        folder = Path("/proc/self/it")  # refused to root, too
    folders = {name: tmp_path / name for name in ("work", "results", "data_root")} | {where: folder}
    words = [f"--{name.replace('_', '-')}={path}" for name, path in folders.items()]
    assert main(["run", ADDRESS, "--tier", "smoke", "--seeds", "0,", "--device", "cpu", *words]) == 2
    told = capfd.readouterr().err.strip().splitlines()
    assert told[-1].startswith("error: ") and "Traceback" not in "".join(told)
    if where != "results":  # without data a run does not come so far
        assert str(folder)[:60] in told[-1] or where == "data_root"


@pytest.mark.parametrize("number", [number for numbers in REMEDIES.values() for number in numbers])
@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "tempfile.NamedTemporaryFile"])
def test_what_cannot_be_written_names_path_reason_and_remedy(tmp_path, monkeypatch, number, call):
    path = tmp_path / "folder" / "run.json"
    write_atomic(path, b"old")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(UserError) as told:
            write_atomic(path, b"new")
    remedy = next(text for text, numbers in REMEDIES.items() if number in numbers)
    assert str(told.value).startswith(f"cannot write {path}: {os.strerror(number)} ({remedy}")
    assert "\n" not in str(told.value)
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "run.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_of_any_kind_is_a_line():
    assert "fix this" in str(disk_error(OSError("odd"), "read", "x"))
    assert str(disk_error(OSError(errno.ENOENT, "gone\nfor ever", "y"), "read", "x")).count("\n") == 0
    assert "cannot read y: " in str(disk_error(OSError(errno.EIO, "I/O", "y"), "read", "x"))
    assert "cannot read y: " in str(disk_error(OSError(errno.EIO, "I/O", b"y"), "read", "x"))
    assert "cannot read x: " in str(disk_error(OSError(errno.EIO, "I/O", 3), "read", "x"))


@pytest.mark.parametrize(
    "change",
    [
        "width=-1",
        "width=0",
        "width=1.5",
        "width=wide",
        "heads=3",
        "depth=many",
        "depth=-1",
        "width=10000000000000",
        "x=1",
    ],
)
def test_options_that_a_model_does_not_take_are_one_line(change, tmp_path):
    name = change.partition("=")[0]
    try:
        spec = catalogue.resolve("transformer/transformer", "smoke", 0, [f"options.{change}"])
    except UserError as refused:
        assert name in str(refused)
        return

    def build():
        context = running.RunContext(spec, torch.device("cpu"), tmp_path, tmp_path)
        model = context.build("text", vocabulary=257, length=16, causal=True, num_classes=None)
        with torch.no_grad():
            model({"tokens": torch.zeros(1, 16, dtype=torch.long), "target": torch.zeros(1, 16, dtype=torch.long)})

    with pytest.raises(UserError, match=f"{name}") as told, naming_changes(spec.address, spec.changes):
        build()
    assert "\n" not in str(told.value)


def test_without_changes_an_error_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), naming_changes("a/b", ()):
        1 / 0  # noqa: B018
    for kept in (RunFailure("diverged", "x"), OSError(1, "x"), UserError("x"), KeyboardInterrupt()):
        with pytest.raises(type(kept)), naming_changes("a/b", ("options.x=1",)):
            raise kept


@pytest.mark.parametrize(
    ("address", "change", "told"),
    [
        ("pointnet/pointnet", "task.also_on=[nowhere]", "no data set for 'nowhere'"),
        ("transformer/transformer", "task.test_bytes=1", "1 bytes, too few for a window"),
        ("transformer/transformer", "task.transfer=[100000]", "too few for a window"),
    ],
)
def test_what_the_data_cannot_give_is_told_before_the_training(address, change, told, tmp_path):
    spec = catalogue.resolve(address, "smoke", 0, [change])
    for key in spec.data.values():
        prepare(key, tmp_path / "data", workers=1)
    folders = {"data_root": tmp_path / "data", "work_root": tmp_path / "work", "results": tmp_path / "results"}
    with pytest.raises(UserError, match=told):
        running.execute(spec, **folders, device=torch.device("cpu"))
    assert not list(tmp_path.rglob("*.ckpt"))
