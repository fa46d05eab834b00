"""Which edit of the code makes which runs stale: counted on a copy of the package, over all rows of tier mini."""

import importlib
import json
import shutil
import subprocess
import sys

import pytest

from replications.catalogue import PACKAGE
from replications.spec import Recipe, Strict

# (what is done, file, old text, new text or None: appended) -> the rows that it makes stale
SCRIPT = """
import json, sys
from pathlib import Path
from replications import catalogue
from replications.running import fingerprints
rows = catalogue.methods_of(catalogue.papers(), "mini")
def all_rows():
    return {row: fingerprints(catalogue.resolve(row, "mini", 0)).run for row in rows}
before = all_rows()
found = {}
for name, edits in json.loads(sys.stdin.read()).items():
    kept = {}
    for file, old, new in edits:
        path = Path("replications", file)
        kept[path] = path.read_text() if path.exists() else None
        text = kept[path] or ""
        assert old in text, (file, old)
        path.write_text(text.replace(old, new, 1) if old else text + new)
    after = all_rows()
    found[name] = [row for row in rows if after[row] != before[row]]
    for path, text in kept.items():
        path.write_text(text) if text is not None else path.unlink()
assert all_rows() == before
print(json.dumps({"rows": rows, "found": found}))
"""
HELPER = [
    ("layers/faces/shared.py", "", "X = 1\n"),
    ("papers/cosface/model.py", "", "\nfrom replications.layers.faces import shared\n"),
    ("papers/normface/model.py", "", "\nfrom replications.layers.faces import shared\n"),
]
OPTIONS = "tasks/face_verification/options.py"
METHOD = "    def novel(self):\n        return 1\n\n    @model_validator"
EDITS = {
    "recipe field with a default": [("spec.py", "    optimizer: str", "    novel: float = 0.5\n    optimizer: str")],
    "task option with a default": [(OPTIONS, "    resolution: int", "    novel: int = 3\n    resolution: int")],
    "method of task options": [(OPTIONS, "    @model_validator", METHOD)],
    "unused constant of a task's form": [("tasks/base.py", "", "\nUNUSED = 1\n")],
    "metric description": [("tasks/face_verification/__init__.py", "area under the ROC", "area under the curve")],
    "constant of a record": [("records.py", "", "\nUNUSED = 1\n")],
    "picture": [("tasks/face_verification/pictures.py", "", "\nUNUSED = 1\n")],
    "helper of two papers": HELPER,
    "face head": [("layers/faces/heads.py", "", "\nUNUSED = 1\n")],
    "blocks of ViT": [("layers/images/vision_transformer.py", "", "\nUNUSED = 1\n")],
    "matcher": [("layers/detection/matcher.py", "", "\nUNUSED = 1\n")],
    "set abstraction": [("layers/points/pointnet2.py", "", "\nUNUSED = 1\n")],
    "shared network of points": [("layers/points/shared_mlp.py", "", "\nUNUSED = 1\n")],
    "joint Bayesian": [("layers/faces/verifiers/joint_bayesian.py", "", "\nUNUSED = 1\n")],
    "docstring of the room of points": [("layers/points/__init__.py", "Operations", "All operations")],
    "unit of FLASH": [("papers/flash/gau.py", "", "\nUNUSED = 1\n")],
    "protocol of a task": [("tasks/detection_2d/evaluation.py", "", "\nUNUSED = 1\n")],
    "loop": [("training/loop.py", "", "\nUNUSED = 1\n")],
}


@pytest.fixture(scope="module")
def stale(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "replications", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "config", folder / "config")
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder, input=json.dumps(EDITS), capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    answer = json.loads(out.stdout)
    return answer["rows"], answer["found"]


@pytest.mark.parametrize(
    "edit",
    [
        "unused constant of a task's form",
        "metric description",
        "constant of a record",
        "picture",
        "recipe field with a default",
        "task option with a default",
        "docstring of the room of points",
    ],
)
def test_what_computes_no_number_makes_no_run_stale(stale, edit):
    _, found = stale
    assert found[edit] == []


def papers_of(addresses):
    return {address.partition("/")[0] for address in addresses}


def importing(module):
    """Papers with a module that imports one of the package's, by its text: the next paper needs no line here."""
    files = PACKAGE.glob("papers/*/*.py")
    return {file.parent.name for file in files if f"replications.{module} import" in file.read_text()}


def test_an_edit_makes_those_runs_stale_that_reach_it(stale):
    rows, found = stale
    assert papers_of(found["helper of two papers"]) == {"cosface", "normface"}
    assert papers_of(found["face head"]) == importing("layers.faces.heads") >= {"arcface", "sphereface"}
    assert papers_of(found["blocks of ViT"]) == importing("layers.images.vision_transformer") >= {"mae", "vit"}
    assert papers_of(found["matcher"]) == importing("layers.detection.criterion") >= {"conditional_detr", "detr"}
    assert papers_of(found["set abstraction"]) == {"boxnet", "pointnet2", "votenet"}
    assert papers_of(found["shared network of points"]) == {
        "boxnet", "pointconv", "pointnet", "pointnet2", "shape_costs", "sonet", "votenet"
    }  # fmt: skip
    assert papers_of(found["joint Bayesian"]) == importing("layers.faces.verifiers.joint_bayesian") >= {"deepid"}
    assert papers_of(found["unit of FLASH"]) == {"flash"}
    assert papers_of(found["protocol of a task"]) == importing("layers.detection.model") & papers_of(rows) >= {"detr"}
    assert "eigenfaces/eigenfaces" in found["method of task options"]
    assert found["loop"] == rows


def test_defaults_of_options_are_pinned():
    """The digest of a run leaves default values out, so a default that changes would leave stale runs unnoticed.

    Where this fails because a default changed: write the old value into tiers.yaml where it is meant, or raise
    ``MEANING`` in the module of fingerprints. Where it fails because an option is new: add it to defaults.json.
    """
    pinned = json.loads((PACKAGE.parent / "tests" / "defaults.json").read_text())
    assert defaults() == pinned


def defaults() -> dict[str, dict]:
    """Return the defaults of recipes and of every form in a task's options, by form and field."""
    forms = {"Recipe": Recipe}
    for path in sorted(PACKAGE.glob("tasks/*/options.py")):
        module = importlib.import_module(f"replications.tasks.{path.parent.name}.options")
        own = [form for form in vars(module).values() if isinstance(form, type) and issubclass(form, Strict)]
        forms |= {f"{path.parent.name}.{form.__name__}": form for form in own if form not in (Strict, Recipe)}
    return {
        name: {
            key: json.loads(json.dumps(field.default, default=lambda value: value.model_dump(mode="json")))
            for key, field in form.model_fields.items()
            if not field.is_required()
        }
        for name, form in forms.items()
    }


if __name__ == "__main__":
    print(json.dumps(defaults(), indent=1, sort_keys=True))
