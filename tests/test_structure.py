"""The plan of the house, kept by tests: imports go down, no room knows a paper by name, files stay small."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "replications"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PAPERS = {path.parent.name for path in PACKAGE.glob("papers/*/paper.yaml")}

# A module may import from its own storey or from one below. Where two rooms share a storey, BESIDE says who may
# look into whom.
STOREYS = {
    "errors": 0,
    "looks": 0,
    "portable": 0,
    "spec": 0,
    "records": 0,
    "archive": 0,
    "parsing": 0,
    "progress": 0,
    "fingerprint": 0,
    "catalogue": 1,
    "request": 2,
    "datasets": 2,
    "training": 2,
    "measurement": 2,
    "layers": 3,
    "tasks": 4,
    "papers": 5,
    "reporting": 6,
    "running": 7,
    "planning": 8,
    "cli": 9,
    "__main__": 10,
}
BESIDE = {("measurement", "training")}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> set[str]:
    """Names of the package's modules that a file imports, also inside functions and relatively."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.update([name, *(f"{name}.{alias.name}" for alias in node.names)])
    return {name for name in found if name.split(".")[0] == "replications"}


IMPORTS = {path: imports(path) for path in FILES}


def test_imports_go_down():
    wrong = []
    for path in FILES:
        here = room(module_name(path))
        if not here:
            continue
        assert here in STOREYS, f"the room '{here}' has no storey: add it to the plan"
        for name in IMPORTS[path]:
            there = room(name)
            if there not in STOREYS or there == here:
                continue
            beside = STOREYS[there] == STOREYS[here] and (here, there) in BESIDE
            if not (STOREYS[there] < STOREYS[here] or beside or STOREYS[there] == 0):
                wrong.append(f"{module_name(path)} imports {name}, which lies above it")
    assert not wrong, wrong


# Families of data sets share what lies beside their folders; which one may use another's modules is said here.
FAMILIES = {path.parent.name for path in PACKAGE.glob("datasets/*/__init__.py")}
FAMILIES_BESIDE = {("rooms", "points")}


def test_families_of_data_sets_keep_to_themselves():
    wrong = []
    for path in sorted(PACKAGE.glob("datasets/**/*.py")):
        here = path.relative_to(PACKAGE / "datasets").parts[0]
        for name in IMPORTS[path]:
            place, family = [*name.split("."), "", ""][1:3]
            if place == "datasets" and family in FAMILIES - {here} and (here, family) not in FAMILIES_BESIDE:
                wrong.append(f"{here} imports {name}, which is another family's")
    assert not wrong, wrong


def test_no_room_knows_a_paper_by_name():
    wrong = []
    for path in FILES:
        parts = path.relative_to(PACKAGE).parts
        own = parts[1] if parts[0] == "papers" and len(parts) > 2 else None
        for name in IMPORTS[path]:
            pieces = name.split(".")
            if len(pieces) > 2 and pieces[1] == "papers" and pieces[2] != own:
                wrong.append(f"{path.name} imports another paper's {name}: common ground belongs in layers/")
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Constant) and node.value in PAPERS and node.value != own:
                wrong.append(f"{path.name}:{node.lineno} names the paper '{node.value}'")
    assert not wrong, wrong


def test_papers_have_what_the_plan_asks_for():
    assert PAPERS
    for key in PAPERS:
        readme = (PACKAGE / "papers" / key / "README.md").read_text(encoding="utf-8")
        assert "## Deviations" in readme, f"papers/{key}/README.md has no numbered deviations"


def test_files_hold_one_idea():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 420}
    assert not long, f"files over about 400 lines: {long}"


@pytest.mark.parametrize(
    "module", ["catalogue", "fingerprint", "cli", "datasets.registry", "tasks.base", "planning.front"]
)
def test_planning_does_not_import_torch(module):
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'timm'}"
    code = f"import sys, replications.{module}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_no_zip_cuts_its_longer_side_in_silence():
    """Where lengths may differ, a slice says so: a network of four levels once had two."""
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
                strict = [word.value for word in node.keywords if word.arg == "strict"]
                if not (strict and getattr(strict[0], "value", None) is True):
                    wrong.append(f"{path}:{node.lineno}")
    assert not wrong, wrong


def test_no_module_imports_itself_in_a_circle():
    """Imports for type checkers and inside functions count too: two that need each other need a third module."""
    files = {module_name(path): path for path in FILES}
    graph = {}
    for name, path in files.items():
        named = {other for other in IMPORTS[path] if other in files}
        graph[name] = {other for other in named if not f"{name}.".startswith(f"{other}.")}  # not its own packages

    def reached(start: str) -> set[str]:
        found, waiting = set(), [start]
        while waiting:
            new = graph[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    assert not [name for name in graph if name in reached(name)]
