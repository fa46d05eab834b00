"""A report outlives its pictures: one that cannot be drawn or saved is a line under Problems, and takes nothing along.

The records are the published ones, without arrays; the arrays beside them are made up.
"""

import dataclasses
import functools
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from picture_arrays import run_arrays, set_arrays
from published import unpack_runs

from replications import catalogue
from replications.errors import UserError
from replications.reporting import drawing, forest, plots, process_pool, report, style
from replications.reporting.album import TierAlbum, pictures
from replications.reporting.verify import verify

OF_TASK = {
    "face_verification": ("faces", {"wrong"}),
    "detection_3d": ("rooms", {"rooms", "gain", "precision_recall"}),
    "detection_2d": (
        "detection",
        {
            "convergence", "decoder_layers", "queries", "detections", "decoder_attention", "encoder_attention",
            "matching",
        },
    ),
    "language_modelling": ("language", {"length", "time", "attention"}),
    "image_classification": ("images", {"reconstructions", "mask_ratio", "labels", "attention", "throughput"}),
    "point_classification": ("points", {"parts", "clouds", "reconstructions", "kept", "confusions"}),
}  # fmt: skip
OF_RECORDS = {"gain", "convergence", "decoder_layers", "length", "time", "mask_ratio", "labels", "throughput", "kept"}
TASKS = sorted(OF_TASK)


@pytest.fixture(scope="module")
def papers():
    return catalogue.papers()


@pytest.fixture(scope="module")
def results_of(tmp_path_factory):
    """Records of two seeds of a task, copied once, with made up arrays beside them, made anew for each test."""
    made = {}

    def of(task):
        if task not in made:
            made[task] = tmp_path_factory.mktemp(task) / "mini"
            unpack_runs(f"mini-{OF_TASK[task][0]}-cpu", made[task], seeds=2)
        for path in made[task].glob("runs/*/*/seed*/run.json"):
            np.savez(path.with_name("arrays.npz"), **run_arrays(task))
        return made[task]

    return of


@pytest.fixture
def quick(monkeypatch):
    """Pictures are made, here, and not written; only those of the tasks."""
    monkeypatch.setattr(process_pool, "cpu_count", lambda: 1)
    monkeypatch.setattr(style, "save", lambda figure, folder, name: None)
    for name in ("score_curves", "cost_plot", "seeds_plot", "training_curves"):
        monkeypatch.setattr(plots, name, lambda *args: None)
    monkeypatch.setattr(forest, "forest_plot", lambda verdicts: None)


@functools.cache
def derived(results, task):
    keys = [key for key, paper in catalogue.papers().items() if paper.task == task]
    return report.derive(results, "mini", catalogue.papers(), methods=(), selected=keys)


def draw(results, task, open_arrays=None):
    """Names of the task's pictures that are drawn, and the problems told."""
    records, boards, _, result = derived(results, task)
    records = dataclasses.replace(records, problems=[])
    found = drawing.draw(
        results, results, records, boards, [], result, lambda key: {"kind": "procedural"},
        open_arrays or (lambda key: set_arrays(task)),
    )  # fmt: skip
    names = {Path(plot.file).stem.removesuffix(f"_{task}") for plot in found.get(task, ())}
    assert all("\n" not in line for line in records.problems)
    return names, records.problems


@pytest.mark.parametrize("task", TASKS)
def test_with_everything_in_place_every_picture_is_drawn(task, results_of, quick):
    assert draw(results_of(task), task) == (OF_TASK[task][1], [])


@pytest.mark.parametrize("task", TASKS)
def test_each_picture_that_fails_is_one_line_and_the_others_are_drawn(task, results_of, quick, monkeypatch):
    broken = sorted(OF_TASK[task][1])[-1]

    def fail():
        raise IndexError("out\nof bounds")

    def spoilt(task, album):
        for picture in pictures(task, album):
            if picture.name == broken:
                object.__setattr__(picture, "draw", fail)
            yield picture

    monkeypatch.setattr(drawing, "pictures", spoilt)
    names, problems = draw(results_of(task), task)
    assert names == OF_TASK[task][1] - {broken}
    assert len(problems) == 1
    assert problems[0].startswith(
        f"the picture {broken}_{task} cannot be drawn: out of bounds (IndexError, tasks/base.py"
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_fails_while_it_chooses_keeps_what_came_before(task, results_of, quick, monkeypatch):
    def spoilt(task, album):
        for number, picture in enumerate(pictures(task, album)):
            if number == 1:
                break
            yield picture
        next(iter(()))  # StopIteration, which a generator turns into a RuntimeError

    monkeypatch.setattr(drawing, "pictures", spoilt)
    names, problems = draw(results_of(task), task)
    assert len(names) == 1 and len(problems) == 1
    assert problems[0].startswith("pictures of ") and "RuntimeError" in problems[0]


@pytest.mark.parametrize("task", TASKS)
def test_without_arrays_what_the_records_give_is_drawn(task, results_of, quick):
    results = results_of(task)
    for path in results.glob("runs/*/*/seed*/arrays.npz"):
        path.unlink()
    names, problems = draw(results, task)
    if task == "face_verification":
        assert names == {"wrong"} and not problems, "its picture needs a set, no arrays"
    else:
        assert names == OF_TASK[task][1] & OF_RECORDS
        assert len(problems) == 1 and "no arrays.npz beside the record of " in problems[0]


def cut(array):
    return array.reshape(-1)[:1]


def emptied(array):
    return array[:0]


def nans(array):
    return np.full(array.shape, np.nan) if array.dtype.kind == "f" else array


@pytest.mark.parametrize("task", [task for task in TASKS if run_arrays(task)])
@pytest.mark.parametrize("spoil", [cut, emptied, nans, "keys", "bytes", "pickled"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_spoilt_arrays_take_down_no_more_than_their_pictures(task, spoil, results_of, quick, monkeypatch):
    if spoil is nans:  # seen by what draws the figure
        monkeypatch.setattr(style, "save", lambda figure, folder, name: figure.draw_without_rendering())
    results, arrays = results_of(task), run_arrays(task)
    for path in results.glob("runs/*/*/seed*/arrays.npz"):
        if spoil == "bytes":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif spoil == "pickled":
            np.savez(path, **dict.fromkeys(arrays, np.array([{}], dtype=object)))
        elif spoil == "keys":  # every second one is gone
            np.savez(path, **dict(list(arrays.items())[::2]))
        else:
            np.savez(path, **{name: spoil(array) for name, array in arrays.items()})
    names, problems = draw(results, task)
    assert names >= OF_TASK[task][1] & OF_RECORDS
    if spoil in ("bytes", "pickled"):
        assert len(problems) == len(set(problems)) and all("arrays.npz is damaged (" in line for line in problems)


@pytest.mark.parametrize("task", ["detection_2d", "face_verification"])
@pytest.mark.parametrize(
    "error", [UserError("data set 'x' is not prepared"), KeyError("arrays"), OSError(24, "Too many")]
)
def test_a_set_that_is_not_there_or_not_whole(task, error, results_of, quick):
    def missing(key):
        raise error

    names, problems = draw(results_of(task), task, open_arrays=missing)
    assert names == OF_TASK[task][1] - {
        "wrong", "detections", "decoder_attention", "encoder_attention", "matching"
    }  # fmt: skip
    assert len(problems) == 1 and problems[0].startswith("pictures of ") and str(error.args[-1]) in problems[0]


def test_a_set_that_lacks_an_array(results_of, quick):
    names, problems = draw(results_of("face_verification"), "face_verification", open_arrays=lambda key: {})
    assert not names and len(problems) == 1
    assert problems[0].startswith(
        "the picture wrong_face_verification cannot be drawn: 'images' (KeyError, tasks/face_"
    )


@pytest.fixture
def whole(tmp_path):
    """Records of two tasks, as a person copies them from a publication."""
    for name in ("rooms", "points"):
        unpack_runs(f"mini-{name}-cpu", tmp_path / "mini")
    return tmp_path / "mini"


def build(results, papers):
    told = {"kind": "public", "citation": None}
    return report.build(
        results, "mini", papers, methods=(), selected=["votenet", "sonet"], describe_set=lambda key: told
    )


def test_none_of_the_suites_own_plots_takes_the_tables_down(whole, papers, monkeypatch):
    def fail(*args):
        raise ValueError("no plot today")

    for name in ("score_curves", "cost_plot", "seeds_plot", "training_curves"):
        monkeypatch.setattr(plots, name, fail)
    monkeypatch.setattr(forest, "forest_plot", fail)
    monkeypatch.setattr(drawing, "pictures", fail)
    files = build(whole, papers)
    page = files["index.html"].read_text()
    assert page.count("no plot today") == page.count(
        "<li>", page.index('<h2 id="problems"'), page.index('id="effects"')
    )
    assert "the picture claims cannot be drawn" in page and "the picture cost_detection_3d cannot be drawn" in page
    assert "pictures of Point cloud classification are missing" in page
    assert "<img" not in page and "leaderboard_detection_3d.csv" in files
    assert verify(whole, "mini", papers, describe_set=lambda key: {"kind": "public", "citation": None}) == []


def test_a_picture_that_cannot_be_saved_is_not_on_the_page(whole, papers, monkeypatch):
    """One raises in the middle, one kills its process, as a machine without memory does."""

    def save(figure, folder, name):
        svg, png = style.paths(folder, name)
        folder.mkdir(exist_ok=True)
        svg.write_text("<svg/>")
        if name == "cost_detection_3d":
            raise OSError(28, "No space left on device")
        if name == "claims":
            os.kill(os.getpid(), signal.SIGKILL)
        png.write_text(name)

    monkeypatch.setattr(process_pool, "cpu_count", lambda: 2)
    monkeypatch.setattr(style, "save", save)
    files = build(whole, papers)
    page = files["index.html"].read_text()
    assert "the picture cost_detection_3d cannot be saved: [Errno 28] No space left on device (OSError)" in page
    assert "the picture claims cannot be saved: a process ended with exit code -9 (RuntimeError)" in page
    assert (
        not {f"plots/{name}.{end}" for name in ("cost_detection_3d", "claims") for end in ("svg", "png")} & files.keys()
    )
    assert 'src="plots/cost_point_classification.svg"' in files["point_classification.html"].read_text()
    assert "plots/claims.svg" not in page
    assert json.loads(files["claims.json"].read_text())["verdicts"]


def test_damaged_scores_do_not_end_the_check(results_of, papers, tmp_path):
    shutil.copytree(results_of("detection_3d"), tmp_path / "mini")
    results = tmp_path / "mini"
    (results / "runs/votenet/votenet/seed1/arrays.npz").write_bytes(b"PK")
    _, boards, verdicts, result = report.derive(results, "mini", papers, methods=(), selected=["votenet"])
    for name, text in report.table_files(boards, verdicts, "mini", result).items():
        (results / name).write_text(text)
    manifest = {"tier": "mini", "methods": [], "selected": ["votenet"], "seeds": None, "files": []}
    (results / "report.json").write_text(json.dumps(manifest))
    wrong = verify(results, "mini", papers)
    assert any(line.startswith("runs/votenet/votenet/seed1/arrays.npz: cannot be scored again (") for line in wrong)


def test_album_arrays_of_a_run_without_a_record_are_no_problem(results_of, papers):
    results = results_of("language_modelling")
    records, boards, _, _ = report.derive(results, "mini", papers, methods=(), selected=["flash"])
    album = TierAlbum(boards[0], records, results, lambda key: {}, None)
    assert album.arrays("flash/flash", 99) == {} and album.problems() == []
