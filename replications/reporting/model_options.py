"""Which options a method's model takes, read from its source: nothing of a paper's code is imported."""

import ast
import functools
from pathlib import Path

from replications import catalogue


def taken(paper: str, build: str) -> frozenset[str] | None:
    """Return the parameter names of ``module:function`` in a paper's folder, and with them the options it takes.

    None where the source does not tell: no such file or function today, or one that takes any keyword.
    """
    module, _, function = build.partition(":")
    return _parameters(catalogue.PAPERS / paper / f"{module}.py", function)


@functools.cache
def _parameters(path: Path, function: str) -> frozenset[str] | None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, SyntaxError):
        return None
    found = [node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found or (own := found[-1]).kwarg:
        return None
    return frozenset(arg.arg for arg in (*own.posonlyargs, *own.args, *own.kwonlyargs))
