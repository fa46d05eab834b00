"""Preparing a set: whole or not at all, continued after a kill, once for two processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_lfw
from tiny_rows import FORM, die, square

from replications.datasets import arrays, prepare, registry, rows
from replications.datasets.faces import lfw
from replications.datasets.registry import PreparedSetEntry, Registry, Source, Variant
from replications.datasets.rows import JOURNAL, Job, cut, fill_rows
from replications.errors import UserError

TESTS = Path(__file__).parent
PATHS = os.pathsep.join([str(TESTS.parent), str(TESTS)])


def tiny_registry(**options) -> Registry:
    roles = {"images": "lfw.tgz", "people": "people.txt", "pairs": "pairs.txt"}
    sources = {role: Source(title=role, licence="none", variants=(Variant(path=name),)) for role, name in roles.items()}
    entry = PreparedSetEntry(
        title="Tiny",
        kind="public",
        preparer="faces.lfw",
        options=tiny_lfw.OPTIONS | options,
        sources={role: role for role in roles},
        prepared_bytes=40_000,
    )
    return Registry(sources=sources, sets={"tiny": entry})


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A mirror with the tiny LFW, and 'tiny' as the one set there is. Returns the mirror."""
    monkeypatch.setattr(registry, "load", tiny_registry)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    tiny_lfw.write(mirror)
    return mirror


def test_a_set_is_prepared_opened_and_not_made_twice(tiny, tmp_path, monkeypatch):
    path = prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    fingerprint = registry.data_fingerprint("tiny")
    assert path == tmp_path / f"data/prepared/tiny-{fingerprint[:12]}"
    found = arrays.open_set("tiny", tmp_path / "data")
    assert (found.key, found.path, found.fingerprint) == ("tiny", path, fingerprint)
    assert found.arrays["images"].shape == (13, 28, 28, 3)
    assert not found.arrays["images"].flags.writeable
    assert found.meta["facts"]["num_pairs"] == 8
    assert found.meta["files"]["images"]["name"] == "lfw.tgz"
    assert str(tmp_path) not in json.dumps(found.meta)
    assert sorted(p.name for p in path.iterdir()) == sorted([*(f"{n}.npy" for n in found.arrays), "set.json"])
    monkeypatch.setattr(prepare, "fetch", None)  # not needed any more
    assert prepare.prepare("tiny", tmp_path / "data") == path


def test_a_set_that_is_not_there_says_how_to_get_it(tiny, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"'tiny' is not prepared .* 'python -m replications fetch tiny'"):
        arrays.open_set("tiny", tmp_path / "data")
    old = prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    monkeypatch.setattr(registry, "load", lambda: tiny_registry(size=32))
    with pytest.raises(UserError, match="outdated version, tiny-"):
        arrays.open_set("tiny", tmp_path / "data")
    prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    assert f"note: {old} is an outdated version" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "removed", "another form", "manifest"])
def test_a_damaged_set_is_told_and_made_again(tiny, tmp_path, damage):
    path = prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    whole = np.load(path / "images.npy")
    if damage == "cut":
        (path / "images.npy").write_bytes((path / "images.npy").read_bytes()[:-1])
    elif damage == "removed":
        (path / "images.npy").unlink()
    elif damage == "another form":
        np.save(path / "images.npy", whole[1:])
    else:
        (path / "set.json").write_text("{")
    with pytest.raises(UserError, match=r"prepare it again with .* fetch tiny"):
        arrays.open_set("tiny", tmp_path / "data")
    assert prepare.prepare("tiny", tmp_path / "data", tiny, workers=1) == path
    assert np.array_equal(arrays.open_set("tiny", tmp_path / "data").arrays["images"], whole)


def test_nothing_is_shown_until_it_is_complete(tiny, tmp_path, monkeypatch):
    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_form", stop)  # the last thing before the set gets its name
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    with pytest.raises(UserError, match="not prepared"):
        arrays.open_set("tiny", tmp_path / "data")


def test_other_files_than_those_it_was_begun_with_start_it_anew(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_form", None)
    with pytest.raises(TypeError):
        prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    monkeypatch.undo()
    monkeypatch.setattr(registry, "load", tiny_registry)
    members = tiny_lfw.pictures()
    first = next(iter(members))
    tiny_lfw.write(tiny, members | {first: tiny_lfw.jpeg(99)})
    prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    (tmp_path / "fresh").mkdir()
    prepare.prepare("tiny", tmp_path / "fresh", tiny, workers=1)
    one, two = (arrays.open_set("tiny", tmp_path / root).arrays["images"] for root in ("data", "fresh"))
    assert np.array_equal(one, two)


def test_too_little_room_is_told_at_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda: huge)
    huge = tiny_registry()
    huge.sets["tiny"] = huge.sets["tiny"].model_copy(update={"prepared_bytes": 10**18})
    with pytest.raises(UserError, match=r"no space left for .* more are needed"):
        prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)


# --- rows: what makes a preparation resumable


def check(target: Path) -> None:
    assert np.load(target / "square.npy").tolist() == [[i * i, -i] for i in range(20)]
    assert np.load(target / "name.npy").tolist() == list(range(20))


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_filled_and_a_failure_keeps_the_finished_ones(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("UNLUCKY", "1")
    with pytest.raises(UserError, match="row 13 cannot be read"):
        fill_rows(tmp_path, FORM, cut(range(20), 3), square, workers, "test")
    monkeypatch.delenv("UNLUCKY")
    done = []
    fill_rows(tmp_path, FORM, cut(range(20), 3), lambda v: done.append(list(v)) or square(v), 1, "test")
    assert [12, 13, 14] in done and len(done) < 7
    check(tmp_path)


def test_a_journal_is_believed_only_where_the_rows_are_there(tmp_path):
    fill_rows(tmp_path, FORM, cut(range(20), 5), square, 1, "test")
    lost = np.load(tmp_path / "square.npy", mmap_mode="r+")
    lost[7] = 0  # a page that never reached the disk
    lost.flush()
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write("[15, 5, 99")  # killed while writing
    done = []
    fill_rows(tmp_path, FORM, cut(range(20), 5), lambda v: done.append(list(v)) or square(v), 1, "test")
    assert done == [[5, 6, 7, 8, 9]]
    assert json.loads((tmp_path / JOURNAL).read_text().splitlines()[-1])[:2] == [5, 5]
    check(tmp_path)
    done.clear()
    fill_rows(tmp_path, FORM, cut(range(20), 5), lambda v: done.append(v) or square(v), 1, "test")
    assert not done


def test_a_worker_that_dies_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"a worker process died .* start again"):
        fill_rows(tmp_path, FORM, cut(range(20), 5), die, 2, "test")


def test_rows_of_a_wrong_form_are_refused(tmp_path):
    with pytest.raises(ValueError, match="for a job of 3"):
        fill_rows(tmp_path, FORM, [Job(0, 3, [1, 2])], square, 1, "test")


def test_a_full_disk_is_one_line(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows._Work, "__call__", full)
    with pytest.raises(UserError, match=r"no space left for .*finished work is kept"):
        prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)


# --- processes

CHILD = """
import sys, time
from pathlib import Path
import test_datasets_prepare as t
from replications.datasets import prepare, registry
from replications.datasets.faces import lfw
registry.load = t.tiny_registry
lfw.ROWS_A_JOB = 2
slow, rows_of = float(sys.argv[3]), lfw.face_rows
def face_rows(items, **form):
    print("job", flush=True)
    deadline = time.monotonic() + slow
    while time.monotonic() < deadline and not Path(sys.argv[2], "go").exists():
        time.sleep(0.01)
    return rows_of(items, **form)
lfw.face_rows = face_rows
prepare.prepare("tiny", Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
"""


def child(data: Path, mirror: Path, slow: float) -> subprocess.Popen:
    """Prepare the tiny set in a process that takes `slow` seconds a job, until there is a file 'go'."""
    command = [sys.executable, "-c", CHILD, str(data), str(mirror), str(slow)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": PATHS}
    )


def test_killed_and_started_again_it_goes_on_and_ends_equal(tiny, tmp_path):
    victim = child(tmp_path / "data", tiny, 0.2)
    for _ in range(3):
        assert victim.stdout.readline() == "job\n"
    victim.kill()
    victim.communicate()
    second = child(tmp_path / "data", tiny, 0)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out.count("job") == 5  # of seven: two were finished when it was killed in the third
    prepare.prepare("tiny", tmp_path / "undisturbed", tiny, workers=1)
    one, two = (arrays.open_set("tiny", tmp_path / name) for name in ("data", "undisturbed"))
    assert one.meta == two.meta


def test_two_processes_prepare_a_set_once(tiny, tmp_path):
    first = child(tmp_path / "data", tiny, 60)
    assert first.stdout.readline() == "job\n"
    second = child(tmp_path / "data", tiny, 0)
    assert second.stderr.readline() == "waiting for another process that prepares 'tiny'\n"
    (tiny / "go").touch()
    ends = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ends
    assert ends[0][0].count("job") == 6 and ends[1][0].count("job") == 0


ORPHANS = """
import sys
from pathlib import Path
from replications.datasets.rows import cut, fill_rows
from tiny_rows import FORM, tell_and_sleep
if __name__ == "__main__":
    fill_rows(Path(sys.argv[1]), FORM, cut(range(20), 1), tell_and_sleep, 2, "test")
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": PATHS})
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


# --- numbers that are none


def heights(names: list[str]) -> dict[str, np.ndarray]:
    values = [np.inf if name == "tower" else len(name) for name in names]
    return {"height": np.array(values, np.float32), "number": np.zeros(len(names), np.int32)}


def test_a_row_with_nan_or_infinity_is_refused_where_it_is_written(tmp_path):
    names = ["hut", "house", "barn", "mill", "tower", "shed"]
    form = {"height": ((6,), "float32"), "number": ((6,), "int32")}
    with pytest.raises(UserError, match=r"^tower: .*height, row 4: not finite"):
        fill_rows(tmp_path, form, cut(names, 3), heights, 1, "test")
    names[4] = "inn"
    fill_rows(tmp_path, form, cut(names, 3), heights, 1, "test")
    assert np.load(tmp_path / "height.npy").tolist() == [3, 5, 4, 4, 3, 4]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3,), (3, 2), (3, 2, 2)])
def test_finite_arrays_of_any_shape_pass(shape):
    for kind in (np.float32, np.float64, np.float16, np.int8, bool, np.uint8):
        rows.require_finite(np.ones(shape, kind), "x")


def test_a_preparer_that_forgets_to_look_is_caught(tiny, tmp_path, monkeypatch):
    wrote = lfw.prepare

    def forgetful(target, *rest):
        facts = wrote(target, *rest)
        np.save(target / "boxes.npy", np.concatenate([np.zeros((5000, 7)), np.full((1, 7), np.nan)]))
        return facts

    monkeypatch.setattr(lfw, "prepare", forgetful)
    with pytest.raises(UserError, match=r"boxes, row 5000: not finite"):
        prepare.prepare("tiny", tmp_path / "data", tiny, workers=1)
    assert not list((tmp_path / "data/prepared").glob("tiny-*"))
