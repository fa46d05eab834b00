"""Resolving runs: what comes over what, and what a person is told when a name is wrong."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from replications import catalogue
from replications.cli import main
from replications.errors import UserError
from replications.planning import check
from replications.running.context import derived_seed
from replications.tasks.base import Metric

PAPER = """
title: A paper
authors: [A. Author]
venue: Somewhere
year: 2020
bibtex: "@article{a}"
task: toy_task
methods:
  plain: {title: Plain, build: "model:build"}
  wide:
    title: Wide
    build: "model:build"
    options: {width: 2.0}
    recipe: {steps: 50}
    why: the paper trains it longer
    per_tier:
      mini: {options: {width: 3.0}}
    tiers: [smoke, mini]
claims:
  - id: X1
    statement: wider is better
    where: Table 1
    subject: {method: toy/wide, metric: accuracy}
    reference: {method: other/plain, metric: accuracy}
    direction: greater
    smallest_effect: 0.5
    tiers: [mini]
"""
TIERS = """
smoke: {data: {train: toy_set}, recipe: {batch_size: 4, epochs: 1, lr: 0.1}, options: {width: 1.0, depth: 2}}
mini: {data: {train: toy_set}, recipe: {batch_size: 8, epochs: 2, lr: 0.1}, task: {resolution: 32}}
"""
README = """# A paper

## Deviations

1. We do this
   instead of that.
2. And the other.

## Implementation details

1. Not a deviation.
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Two papers of one task on disk, and nothing else."""
    for key, text in {"toy": PAPER, "other": PAPER.replace("other/plain", "toy/plain")}.items():
        folder = tmp_path / "papers" / key
        folder.mkdir(parents=True)
        (folder / "paper.yaml").write_text(text if key == "toy" else text.split("claims:")[0])
        (folder / "README.md").write_text(README)
    (tmp_path / "tasks" / "toy_task").mkdir(parents=True)
    (tmp_path / "tasks" / "toy_task" / "tiers.yaml").write_text(TIERS)
    monkeypatch.setattr(catalogue, "PAPERS", tmp_path / "papers")
    monkeypatch.setattr(catalogue, "TASKS", tmp_path / "tasks")
    for cached in (catalogue.papers, catalogue.task_tiers):
        cached.cache_clear()
    yield tmp_path
    for cached in (catalogue.papers, catalogue.task_tiers):
        cached.cache_clear()


def test_a_method_lies_over_its_task_and_its_tier_over_the_method(house):
    smoke, mini = (catalogue.resolve("toy/wide", tier, 3) for tier in ("smoke", "mini"))
    assert smoke.options == {"width": 2.0, "depth": 2} and mini.options == {"width": 3.0}
    assert (smoke.recipe.steps, smoke.recipe.epochs, smoke.recipe.batch_size) == (50, None, 4)
    assert (smoke.seed, mini.task_options, smoke.data) == (3, {"resolution": 32}, {"train": "toy_set"})


def test_an_assignment_lies_over_everything(house):
    spec = catalogue.resolve("toy/wide", "mini", 0, ["recipe.epochs=7", "options.width=9", "task.resolution=16"])
    assert (spec.recipe.epochs, spec.recipe.steps) == (7, None)
    assert (spec.options["width"], spec.task_options["resolution"]) == (9, 16)


def test_differences_are_those_that_change_the_comparison(house):
    assert catalogue.differences("toy/wide", "mini") == {"recipe.steps": (None, 50)}
    assert catalogue.differences("toy/plain", "mini") == {}


def test_changes_are_merged_into_options_of_options_and_told_by_their_place(house):
    tiers, paper = house / "tasks" / "toy_task" / "tiers.yaml", house / "papers" / "toy" / "paper.yaml"
    tiers.write_text(TIERS.replace("{resolution: 32}", "{sweep: {lengths: [1, 2], stamps: 3}, extra: {x: 1}}"))
    change = "task: {sweep: {stamps: 5}, extra: null}\n    recipe: {optimizer_options: {eps: 1.0}, steps: 50}"
    paper.write_text(PAPER.replace("recipe: {steps: 50}", change))
    spec = catalogue.resolve("toy/wide", "mini", 0)
    assert spec.task_options == {"sweep": {"lengths": [1, 2], "stamps": 5}}
    assert catalogue.differences("toy/wide", "mini") == {
        "recipe.optimizer_options": (None, {"eps": 1.0}),
        "recipe.steps": (None, 50),
        "task.sweep.stamps": (3, 5),
        "task.extra": ({"x": 1}, None),
    }
    assert catalogue.resolve("toy/plain", "mini", 0).task_options["sweep"]["stamps"] == 3


def test_a_paper_needs_what_its_claims_compare_with(house):
    assert catalogue.methods_of(["toy"], "mini") == ["other/plain", "toy/plain", "toy/wide"]
    assert catalogue.methods_of(["other"], "mini") == ["other/plain", "other/wide"]


def test_a_change_by_hand_is_named_in_the_spec_and_decides_only_by_its_place(house):
    path = house / "tasks" / "toy_task" / "tiers.yaml"
    path.write_text(TIERS.replace("{resolution: 32}", "{sweep: {lengths: [1, 2], stamps: 3}}"))
    changed = catalogue.resolve("toy/plain", "mini", 0, ["recipe.lr=0.1", "task.sweep.stamps=5"])
    plain = catalogue.resolve("toy/plain", "mini", 0)
    assert changed.changes == ("recipe.lr=0.1", "task.sweep.stamps=5") and plain.changes == ()
    assert changed.task_options == {"sweep": {"lengths": [1, 2], "stamps": 5}}
    assert plain.task_options == {"sweep": {"lengths": [1, 2], "stamps": 3}}, "the tier's own is left as it was"
    same = catalogue.resolve("toy/plain", "mini", 0, ["recipe.lr=0.1"])
    assert same.canonical_json() == plain.canonical_json() and same.changes


def test_deviations_are_the_numbered_list_of_their_section(house):
    assert catalogue.deviations("toy") == {1: "We do this instead of that.", 2: "And the other."}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("toy/wid", "mini", 0), "unknown method 'toy/wid' (did you mean 'wide'?)"),
        (("tov/wide", "mini", 0), "unknown paper 'tov' (did you mean 'toy'?)"),
        (("toy", "mini", 0), "'toy' is not an address 'paper/method'"),
        (("toy/wide", "minni", 0), "unknown tier 'minni' (did you mean 'mini'?)"),
        (("toy/wide", "paper", 0), "task toy_task has no data in tier 'paper' (it has: smoke, mini)"),
        (("toy/plain", "mini", 0, ["recipe.lrr=1"]), "unknown recipe key 'lrr' (did you mean 'lr'?)"),
        (("toy/plain", "mini", 0, ["receipt.lr=1"]), "unknown part 'receipt' (did you mean 'recipe'?)"),
        (("toy/plain", "mini", 0, ["lr=1"]), "is not of the form part.name=value"),
        (("toy/plain", "mini", 0, ["task.resolution.x=1"]), "task has no 'resolution' with parts"),
        (("toy/plain", "mini", 0, ["recipe.lr=-1"]), "recipe.lr: Input should be greater than 0"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(house, arguments, words):
    with pytest.raises(UserError) as error:
        catalogue.resolve(*arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('build: "model:build"\n    options', 'bild: "model:build"\n    options', "methods.wide.bild: unknown key"),
        ("other/plain", "other/plan", "claim X1 names the unknown method 'other/plan'"),
        ("direction: greater", "direction: upwards", "claims.0.direction"),
        ("year: 2020", "year: [", "not valid YAML"),
    ],
)
def test_a_malformed_paper_names_file_and_place(house, old, new, words):
    path = house / "papers" / "toy" / "paper.yaml"
    assert old in PAPER, "the case is out of date"
    path.write_text(PAPER.replace(old, new))
    with pytest.raises(UserError) as error:
        catalogue.papers()
    assert "toy/paper.yaml" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


FILE = "papers/toy/paper.yaml"
BUILD = 'model:build"\n    options'
CHECKED = {  # what is changed in the paper, and what is then said
    "an id twice": ("    tiers: [mini]\n", "    tiers: [mini]\n{claim}", f"{FILE}:28: claim X1 occurs twice"),
    "a deviation": (
        "    tiers: [mini]\n",
        "    tiers: [mini]\n    deviations: [1, 3]\n",
        f"{FILE}:28: claim X1 lists deviation 3, which README.md does not number (it has: 1, 2)",
    ),
    "a key twice": ("    where:", "    where: A\n    where:", f"{FILE}:23: not valid YAML: 'where' is given twice"),
    "a metric": (
        "toy/wide, metric: accuracy",
        "toy/wide, metric: acuracy",
        f"{FILE}:23: claim X1 names the unknown metric 'acuracy' (did you mean 'accuracy'?)",
    ),
    "a reference's metric": (
        "other/plain, metric: accuracy",
        "other/plain, metric: step",
        f"{FILE}:24: claim X1 names the unknown metric 'step'",
    ),
    "a method": ("other/plain", "other/plan", f"{FILE}:24: claim X1 names the unknown method 'other/plan'"),
    "a difference of times": ("metric: accuracy}", "metric: step_ms}", f"{FILE}:23: claim X1 compares 'step_ms' by"),
    "a build": (
        BUILD,
        BUILD.replace("build", "bild"),
        f"{FILE}:12: build of toy/wide names 'bild', which model.py does not have (did you mean 'build'?)",
    ),
    "a method's name": (
        "  plain: {",
        "  plain-x: {",
        f"{FILE}:9: 'plain-x' is not a valid method name: use lower-case",
    ),
    "a module": (
        BUILD,
        BUILD.replace("model", "net"),
        f"{FILE}:12: build of toy/wide names net.py, which papers/toy/ does not have",
    ),
    "a reader": (
        "    options: {width: 2.0}\n",
        "    options: {width: 2.0}\n    weights: model:read\n",
        f"{FILE}:14: weights of toy/wide names 'read'",
    ),
}


@pytest.fixture
def checked_house(house, monkeypatch):
    """The house with models, and a task whose metrics are known."""
    for key in ("toy", "other"):
        (house / "papers" / key / "model.py").write_text("import torch_is_not_there\n\n\ndef build():\n    pass\n")
    metrics = {"accuracy": Metric("A", "%", True, ""), "step_ms": Metric("S", "ms", False, "", scale="log")}
    monkeypatch.setattr(check, "find_task", lambda name: SimpleNamespace(metrics=metrics))
    return house


@pytest.mark.parametrize("kind", CHECKED)
def test_the_check_names_paper_claim_and_line(checked_house, kind, capsys):
    assert main(["check"]) == 0 and "2 papers with 1 claims are in order" in capsys.readouterr().out
    old, new, words = CHECKED[kind]
    assert old in PAPER, "the case is out of date"
    claim = PAPER[PAPER.index("  - id: X1") :]
    path = checked_house / "papers" / "toy" / "paper.yaml"
    path.write_text(PAPER.replace(old, new.replace("{claim}", claim)))
    for arguments in (["check"], ["check", "toy"], ["list", "claims"], ["describe", "toy"]):
        catalogue.papers.cache_clear()
        assert main(arguments) != 0
        told = capsys.readouterr()
        assert words in told.out + told.err
    assert main(["check", "other"]) == (2 if kind == "a key twice" else 0)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("To-y", "papers/To-y: 'To-y' is not a valid name: use a lower-case letter, then up to 39 of a-z, 0-9 and _"),
        ("report", "papers/report: 'report' is reserved by Snakemake"),
        ("faces_mini", "papers/faces_mini: 'faces_mini' is a data set"),
        ("toy_task", "papers/toy_task: 'toy_task' is a task"),
    ],
)
def test_a_folder_that_cannot_be_a_target_or_is_something_else_is_refused(checked_house, folder, words, capsys):
    """Snakemake's names are letters, digits and underscores, and one word stands for one thing."""
    (checked_house / "papers" / "other").rename(checked_house / "papers" / folder)
    paper = checked_house / "papers" / "toy" / "paper.yaml"
    paper.write_text(PAPER.replace("other/plain", f"{folder}/plain"))
    catalogue.papers.cache_clear()
    assert main(["check"]) == 1 and words in capsys.readouterr().out
    assert main(["list"]) == 2


def test_a_function_may_be_imported_or_assigned(checked_house):
    path = checked_house / "papers" / "toy" / "model.py"
    for text in ("from x import y as build", "build = 3", "if True:\n    def build(): ...", "build: int = 3"):
        path.write_text(text)
        assert main(["check", "toy"]) == 0
    path.write_text("def make():\n    build = 3\n")
    assert main(["check", "toy"]) == 1


def test_the_papers_are_in_order_and_the_check_needs_no_torch():
    script = (
        "import sys\nfrom replications.cli import main\ncode = main(['check'])\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script + "sys.exit(code)"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_seeds_derive_from_seed_and_name_alone():
    seeds = {derived_seed(seed, name) for seed in range(3) for name in ("weights/a", "weights/b", "stage/a")}
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, "weights/a") == derived_seed(1, "weights/a")
