"""``new paper`` and ``new task`` in a copy of the package: what they write is checked, resolved, run and reported."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from replications import catalogue
from replications.catalogue import PACKAGE
from replications.cli import main
from replications.planning.check import name_problem

TASKS = sorted(path.parent.name for path in PACKAGE.glob("tasks/*/tiers.yaml"))
RUN = ("new_face_verification", "new_point_classification", "word_shapes")  # the last one is a task

# What planning does of each new method, and no torch for it.
PLANNED = """
import sys
from replications import catalogue
from replications.running import fingerprints
for address in sys.argv[1:]:
    spec = catalogue.resolve(address, "smoke", 0)
    prints = fingerprints(spec)
    assert not [name for name in prints.modules if "skeleton" in name], prints.modules
assert "torch" not in sys.modules
"""


def command(folder, *words):
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)


def replications(folder, *words) -> str:
    done = command(folder, "-m", "replications", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "replications", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config", "workflows"):
        shutil.copytree(PACKAGE.parent / name, folder / name)
    shutil.copy(PACKAGE.parent / "pyproject.toml", folder)
    script = "from replications.cli import main\n"
    calls = [["new", "paper", f"new_{task}", "--task", task] for task in TASKS] + [["new", "task", "word_shapes"]]
    done = command(folder, "-c", f"{script}for words in {calls}:\n    assert main(words) == 0")
    assert done.returncode == 0, done.stderr
    return folder


NEW = [f"new_{task}" for task in TASKS] + ["word_shapes_baseline"]


def test_what_is_new_is_in_order_and_planned_without_torch(copy):
    for paper in NEW:
        assert not re.search(
            r"new_paper|new_task|primary_metric", (copy / f"replications/papers/{paper}/paper.yaml").read_text()
        )
    assert "are in order" in replications(copy, "check")
    done = command(copy, "-c", PLANNED, *(f"{paper}/{paper}" for paper in NEW))
    assert done.returncode == 0, done.stderr
    for words in (["check"], ["format", "--check"]):
        done = command(copy, "-m", "ruff", *words, "--no-cache", "replications/papers", "replications/tasks")
        assert done.returncode == 0, done.stdout


def test_the_examples_in_a_new_paper_are_right_as_they_stand(copy):
    """Each commented key, uncommented, is one that the catalogue knows."""
    path = copy / "replications/papers/new_face_verification/paper.yaml"
    kept = path.read_text()
    text = re.sub(r"^( *)# (?=\s*(?:-|[a-z_]+:))", r"\1", kept, flags=re.M)
    assert text.count("\n    #") == 0 and "\nclaims:" in text and "    weights:" in text
    path.write_text(
        text.replace("weights: model:read", "weights: model:build").replace(" effect: ratio", " effect: difference")
    )
    try:
        assert "1 papers with 1 claims are in order" in replications(copy, "check", "new_face_verification")
    finally:
        path.write_text(kept)


@pytest.mark.end_to_end
def test_new_papers_and_a_new_task_run_and_are_reported_at_once(copy):
    """One bad method among them, which does not stop the others; data are prepared by the command."""
    model = copy / "replications/papers/new_image_classification/model.py"
    skeleton = model.read_text()
    model.write_text(skeleton.replace("    return Network(", "    raise TypeError(", 1))
    done = command(copy, "-m", "replications", "run", "new_image_classification", *RUN, "--tier", "smoke")
    model.write_text(skeleton)
    assert done.returncode == 1 and "error: new_image_classification/new_image_classification: " in done.stderr
    assert "1 of 4 methods failed (new_image_classification/new_image_classification)" in done.stdout
    records = {path.parts[-3]: json.loads(path.read_text()) for path in copy.glob("results/smoke/runs/*/*/*/run.json")}
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(
        ("new_face_verification", "new_point_classification", "word_shapes_baseline"), "finished"
    )
    said = replications(copy, "run", *RUN, "--tier", "smoke")  # from the store
    assert "3 methods have run" in said and len(re.findall("seed 0: Accuracy", said)) == 3
    replications(copy, "report", "--papers", "word_shapes_baseline", "--tier", "smoke")
    assert "Word shapes" in (copy / "results/smoke/index.html").read_text()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("L-Softmax", "(for instance 'l_softmax')"),
        ("3d", "is not a valid name"),
        ("a" * 41, "is not a valid name"),
        ("", "is not a valid name"),
        ("../x", "is not a valid name"),
        ("train_0", "reserved by Snakemake"),
        ("all", "reserved by Snakemake"),
        ("class", "reserved by Snakemake or Python"),
        ("faces_mini", "is a data set"),
        ("lsoftmax", ""),
    ],
)
def test_names(key, words):
    problem = name_problem(key)
    assert words in problem and bool(problem) == bool(words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper", "new_detection_2d", "--task", "detection_2d"], "papers/new_detection_2d is already there"),
        (["paper", "word_shapes", "--task", "detection_2d"], "tasks/word_shapes is already there"),
        (["task", "new_detection_2d"], "papers/new_detection_2d is already there"),
        (["task", "base"], "tasks/base.py is already there"),
        (["paper", "fresh", "--task", "detection_2"], "unknown task 'detection_2' (did you mean 'detection_2d'?)"),
        (["paper", "Fresh", "--task", "detection_2d"], "'Fresh' is not a valid name"),
        (["paper", "fresh"], "--task"),
    ],
)
def test_what_cannot_be_new_is_one_line_and_leaves_nothing(copy, words, line, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "PAPERS", copy / "replications/papers")
    monkeypatch.setattr(catalogue, "TASKS", copy / "replications/tasks")
    before = sorted((copy / "replications").rglob("*.yaml"))
    assert main(["new", *words]) == 2
    said = capsys.readouterr().err
    assert line in said and len(said.splitlines()) == 1
    assert sorted((copy / "replications").rglob("*.yaml")) == before
