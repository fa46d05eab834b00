"""Folders as no run leaves them: the report comes all the same, names what is wrong, and verifies."""

import json
import math
import os
import re
import shutil

import pytest
from reporting_factory import DEVIATIONS, TASKS, describe_set, faces, papers, write_results

from replications.reporting import drawing, process_pool, report, style
from replications.reporting.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, seeds=2, pairs=60)
    return results


def runs(folder):
    return sorted(folder.glob("runs/*/*/seed*/run.json"))


def edit(paths, change):
    for path in paths:
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))


def change(part, **changes):
    """Change a part of every record, or its top level ('')."""
    return lambda folder: edit(runs(folder), lambda record: (record[part] if part else record).update(changes))


def texts(*contents):
    """The first records hold something else."""

    def spoil(folder):
        for path, content in zip(runs(folder), contents, strict=False):
            path.write_bytes(content)

    return spoil


def every_history(value):
    def spoil(record):
        for point in record["history"]:
            point["values"] = dict.fromkeys(point["values"], value)

    return lambda folder: edit(runs(folder), spoil)


def every_curve(**changes):
    return lambda folder: edit(runs(folder), lambda record: [c.update(changes) for c in record["curves"].values()])


def every_metric(value):
    return lambda folder: edit(
        runs(folder), lambda record: record.update(metrics=dict.fromkeys(record["metrics"], value))
    )


def failed(folder):
    changes = {"status": "failed", "reason": "diverged", "metrics": {}, "curves": {}, "history": []}
    edit(runs(folder), lambda record: record.update(changes))


def one_seed(folder):
    for path in folder.glob("runs/*/*/seed1"):
        shutil.rmtree(path)


def removed_method(folder):
    shutil.move(folder / "runs/arcface/softmax", folder / "runs/arcface/gone")
    shutil.copytree(folder / "runs/deepid", folder / "runs/<b>x & y|")


def folders_and_loops(folder):
    first, second, third, *_ = runs(folder)
    first.unlink(), first.mkdir()
    second.unlink(), second.symlink_to(second.name)
    third.with_name("arrays.npz").unlink(), third.with_name("arrays.npz").mkdir()


def damaged_speeds(folder):
    first, second, *_ = sorted(folder.glob("throughput/*/*.json"))
    first.write_text("{")
    edit([second], lambda record: record.update(train_samples_per_second=math.inf))


def foreign_files(folder):
    (folder / report.MANIFEST).write_text(
        '{"tier": "mini", "methods": [], "selected": null, "seeds": [], "files": ["plots"]}'
    )
    (folder / "runs" / "notes.txt").write_text("mine")
    (folder / "runs" / "arcface" / "arcface" / "seedx").mkdir()


# What is done to the folder, and what its page says of it: words under Problems, or elsewhere.
CASES = {
    "nothing there": (lambda folder: shutil.rmtree(folder), "no record of arcface/arcface"),
    "only speeds": (lambda folder: shutil.rmtree(folder / "runs"), "No run has finished yet"),
    "cut": (lambda folder: texts(runs(folder)[0].read_bytes()[:300])(folder), 'id="problems"'),
    "empty, binary, other JSON": (texts(b"", os.urandom(99), b"[]", b"null", b'"x"', b"1e999"), "run.json"),
    "other schema": (change("", schema_version=99), "is of schema 99, not 1"),
    "other fields": (change("", metrics={"accuracy": "high"}), 'id="problems"'),
    "other task": (change("spec", task="nosuch"), "is of task nosuch"),
    "removed method": (removed_method, "left out"),
    "failed": (failed, "2 diverged"),
    "one seed": (one_seed, "1/1"),
    "no metric": (change("", metrics={}), "Face verification"),
    "huge metrics": (every_metric(1e308), "Face verification"),
    "infinite metrics": (every_metric(math.inf), "that is not a number"),
    "cost of nothing": (
        change("cost", flops_per_sample=0, train_seconds=0, total_seconds=0, samples_per_second=0),
        "Cost",
    ),
    "negative cost": (change("cost", flops_per_sample=-5, train_seconds=-1), "Cost"),
    "infinite cost": (change("cost", flops_per_sample=math.inf, train_seconds=math.nan), "Cost"),
    "histories of NaN": (every_history(math.nan), "Face verification"),
    "infinite histories": (every_history(math.inf), "Face verification"),
    "curves of NaN": (every_curve(y=[math.nan, math.nan], x=[0.0, 1.0]), "Face verification"),
    "curves of two lengths": (every_curve(y=[0.0]), "roc_face_verification cannot be drawn"),
    "empty extras": (
        change("", extra={"worst_pairs": 5}, data={}, category=None),
        "wrong pairs|wrong_face|pictures of",
    ),
    "no provenance": (change("", provenance=None), "unknown device"),
    "folders and loops": (folders_and_loops, "run.json"),
    "damaged speeds": (damaged_speeds, "throughput/"),
    "foreign files": (foreign_files, "Face verification"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_a_report_comes(name, made, tmp_path, monkeypatch):
    spoil, said = CASES[name]
    folder = tmp_path / "mini"
    shutil.copytree(made, folder)
    spoil(folder)
    monkeypatch.setattr(process_pool, "cpu_count", lambda: 1)
    monkeypatch.setattr(style, "save", lambda figure, *_: figure.draw_without_rendering())
    if not re.search("NaN|cost|infinite|huge|curves|extras|loops", name):
        monkeypatch.setattr(drawing, "draw", lambda *args: {})
    files = report.build(
        folder, "mini", papers(), tasks=TASKS, deviations=DEVIATIONS, describe_set=describe_set,
        open_arrays=lambda key: faces(8),
    )  # fmt: skip
    page = "".join(path.read_text() for name, path in files.items() if name.endswith(".html"))
    assert any(word in page for word in said.split("|"))
    for ending in ("csv", "md", "tex", "json"):
        assert files[f"claims.{ending}"].stat().st_size
    json.loads(files["claims.json"].read_text())
    wrong = verify(folder, "mini", papers(), tasks=TASKS, deviations=DEVIATIONS, describe_set=describe_set)
    if name == "no metric":
        assert wrong and all("auc: None in the record" in line for line in wrong)
    elif name == "folders and loops":
        assert len(wrong) == 1 and "arrays.npz: cannot be scored again (IsADirectoryError" in wrong[0]
    elif name != "huge metrics":  # which overflow
        assert wrong == []
