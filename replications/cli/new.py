"""``new paper`` and ``new task``: write a working skeleton to fill in."""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

from replications import catalogue
from replications.cli.options import command
from replications.errors import UserError
from replications.planning.check import name_problem
from replications.tasks.base import find_task

SKELETONS = Path(__file__).parent / "skeletons"


def add(commands: argparse._SubParsersAction) -> None:
    about = "write the skeleton of a paper or a task"
    parser = command(commands, "new", None, about, "new paper lsoftmax --task face_verification")
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    about = "write replications/papers/KEY with a minimal method of a task"
    paper = command(kinds, "paper", new_paper, about, "new paper lsoftmax --task face_verification")
    paper.add_argument("key", metavar="KEY", help="the folder's name: lower-case letters, digits, underscores")
    paper.add_argument("--task", required=True, help="as `list tasks` shows it")
    about = "write replications/tasks/KEY, and a first paper KEY_baseline for it"
    task = command(kinds, "task", new_task, about, "new task word_similarity")
    task.add_argument("key", metavar="KEY", help="the folder's name: lower-case letters, digits, underscores")


def new_paper(args: argparse.Namespace) -> None:
    """Write a paper's folder; raises UserError for an unknown task, or a name that is invalid or taken."""
    task = find_task(args.task)
    _refuse(args.key)
    _write_paper(args.key, task.name, task.primary_metric)
    _print_next(args.key)


def new_task(args: argparse.Namespace) -> None:
    """Write a task's folder and a paper's; raises UserError for a name that is invalid or taken."""
    paper = f"{args.key}_baseline"
    _refuse(args.key)
    _refuse(paper)
    words = {"new_task": args.key, "New task": args.key.replace("_", " ").capitalize()}
    for path in sorted((SKELETONS / "task").glob("*.*")):
        _write(catalogue.TASKS / args.key / path.name, path, words)
    _write_paper(paper, args.key, "accuracy")
    print(f"the protocol is in {catalogue.TASKS / args.key / 'execute.py'}")
    _print_next(paper)


def _refuse(key: str) -> None:
    problem = name_problem(key)
    if problem:
        raise UserError(problem)
    for path in (catalogue.PAPERS / key, catalogue.TASKS / key, catalogue.TASKS / f"{key}.py"):
        if path.exists():
            raise UserError(f"{path} is already there: choose another name, or delete it")


def _write_paper(key: str, task: str, metric: str) -> None:
    folder = catalogue.PAPERS / key
    words = {"new_paper": key, "new_task": task, "primary_metric": metric}
    for name in ("paper.yaml", "README.md"):
        _write(folder / name, SKELETONS / name, words)
    (folder / "__init__.py").touch()
    shutil.copyfile(catalogue.TASKS / task / "skeleton.py", folder / "model.py")


def _write(target: Path, skeleton: Path, words: Mapping[str, str]) -> None:
    """Write a skeleton with its placeholders replaced; imports are sorted again."""
    lines = skeleton.read_text(encoding="utf-8").splitlines(keepends=True)
    for word, replacement in words.items():
        lines = [line.replace(word, replacement) for line in lines]
    places = [index for index, line in enumerate(lines) if line.startswith("from replications.")]
    for index, line in zip(places, sorted(lines[index] for index in places), strict=True):
        lines[index] = line
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(lines), encoding="utf-8")


def _print_next(paper: str) -> None:
    print(f"the method, its bibliography and its deviations are in {catalogue.PAPERS / paper}")
    print(f"try it: python -m replications run {paper}/{paper} --tier smoke")
    print(f"check it: python -m replications check {paper}; python -m pytest tests/test_conformance.py -k {paper}")
