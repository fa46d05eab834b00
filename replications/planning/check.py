"""Checks of the catalogue beyond parsing: metrics, scales and functions that paper.yaml names.

Nothing here imports torch or a paper's code.
"""

import ast
import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from replications import catalogue
from replications.datasets import registry
from replications.errors import UserError, nearest
from replications.spec import Claim, Paper
from replications.tasks.base import find_task

# A key is a folder, a module, a Snakemake target and part of file names.
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
METHOD = re.compile(r"[a-z0-9_]{1,60}")
RULES = ("all", "prepare", "report", "throughput")


def name_problem(key: str) -> str:
    """Return why a key is invalid for a paper or task; empty if it is valid. Existing keys are not considered."""
    if not NAME.fullmatch(key):
        plain = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_0123456789")[:40]
        hint = f" (for instance '{plain}')" if NAME.fullmatch(plain) else ""
        return f"'{key}' is not a valid name: use a lower-case letter, then up to 39 of a-z, 0-9 and _{hint}"
    if key in RULES or key.startswith("train_") or keyword.iskeyword(key):
        return f"'{key}' is reserved by Snakemake or Python: choose another name"
    if key in registry.load().sets:
        return f"'{key}' is a data set: choose another name"
    return ""


def refuse(papers: Mapping[str, Paper]) -> None:
    """Raise UserError with the first problem."""
    for line in problems(papers, papers):
        raise UserError(line)


def problems(papers: Mapping[str, Paper], keys: Mapping[str, Paper] | tuple[str, ...]) -> Iterator[str]:
    """Yield the problems of the papers `keys`, one per line: file and line, claim or method, and the remedy."""
    for key in keys:
        problem = name_problem(key)
        if not problem and (catalogue.TASKS / key / "tiers.yaml").exists():
            problem = f"'{key}' is a task: give the paper's folder another name"
        if problem:
            yield f"papers/{key}: {problem}"
        for index, claim in enumerate(papers[key].claims):
            for where, problem in _claim(claim, papers).items():
                yield f"{catalogue.place(key, 'claims', index, *where)}: claim {claim.id} {problem}"
        for name, method in papers[key].methods.items():
            if not METHOD.fullmatch(name):
                where = catalogue.place(key, "methods", name)
                yield f"{where}: '{name}' is not a valid method name: use lower-case letters, digits and underscores"
            for part, function in (("build", method.build), ("weights", method.weights)):
                if function and (problem := _function(catalogue.PAPERS / key, function)):
                    yield f"{catalogue.place(key, 'methods', name, part)}: {part} of {key}/{name} {problem}"


def _claim(claim: Claim, papers: Mapping[str, Paper]) -> dict[tuple[str, ...], str]:
    """Return the problems of a claim, by the key within it."""
    wrong: dict[tuple[str, ...], str] = {}
    for name, side in claim.sides().items():
        metrics = find_task(papers[side.method.partition("/")[0]].task).metrics
        if side.metric not in metrics:
            wrong[name, "metric"] = f"names the unknown metric '{side.metric}'{nearest(side.metric, metrics)}"
        elif metrics[side.metric].scale == "log" and claim.effect != "ratio":
            wrong["subject", "metric"] = f"compares '{side.metric}' by difference: its scale needs 'effect: ratio'"
    if claim.effect == "ratio" and claim.expected is not None and claim.expected <= 0:
        wrong["expected",] = f"is a ratio to {claim.expected:g}: it must be above 0"
    return wrong


def _function(folder: Path, name: str) -> str:
    """Return why ``module:function`` is not in a paper's folder; empty if it is."""
    module, _, function = name.partition(":")
    path = folder / f"{module}.py"
    if not path.is_file():
        return f"names {module}.py, which papers/{folder.name}/ does not have"
    text = path.read_text(encoding="utf-8")
    if re.search(rf"^(?:def|class)\s+{re.escape(function)}\b", text, re.M):
        return ""
    try:
        known = _names(ast.parse(text))
    except SyntaxError as error:
        return f"names {module}.py, whose line {error.lineno} is not valid: {error.msg}"
    return "" if function in known else f"names '{function}', which {module}.py does not have{nearest(function, known)}"


def _names(tree: ast.Module) -> set[str]:
    """Names that a module defines, assigns or imports outside of its functions and classes."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return found
