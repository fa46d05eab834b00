"""A hash of code without comments and formatting: it decides whether a run or a prepared data set is outdated.

A fingerprint covers the syntax trees of the package's modules that some entry files reach by imports. Comments,
docstrings, line numbers and formatting are not in it, so an edited comment makes nothing again, and a changed line
in a loss makes again only what imports that loss.
"""

import ast
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# (path, fields) -> ((mtime, size), digest of the tree, modules imported); a file is parsed once a process and version
_PARSED: dict[tuple[str, bool], tuple[tuple[int, int], str, frozenset[str]]] = {}
FORMS = {"Strict", "BaseModel"}


def code_fingerprint(
    entry_files: Iterable[Path], *, package: Path = PACKAGE, leave_out: Collection[str] = (), fields: bool = True
) -> str:
    """Return the sha256 (hex) of the meaning of the entry files and of every package module they import.

    See `module_hashes`, whose hashes it covers.
    """
    return combined(module_hashes(entry_files, package=package, leave_out=leave_out, fields=fields))


def combined(hashes: Mapping[str, str]) -> str:
    """Return one sha256 (hex) of the hashes of modules."""
    lines = (f"{module} {digest}\n" for module, digest in sorted(hashes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def module_hashes(
    entry_files: Iterable[Path], *, package: Path = PACKAGE, leave_out: Collection[str] = (), fields: bool = True
) -> dict[str, str]:
    """Return the sha256 (hex) of the meaning of each module that the entry files reach, by its full name.

    Imports are followed statically: at the top of a module and inside its functions, but not below
    ``if TYPE_CHECKING:``; importing ``package.a.b`` runs, and so counts, ``a/__init__.py`` too. A module imported by
    a name made at run time is not seen: give its file as an entry. Modules named in `leave_out` (full dotted names)
    are neither counted nor followed. Without `fields`, a field with a default of a typed form (a class
    that derives from ``Strict``) does not count: for a caller that hashes the form's values beside the code.

    Raises ValueError for an entry outside the package; OSError or SyntaxError for one that cannot be read.
    """
    package = Path(package).resolve()
    seen = set(leave_out)
    waiting = {_module_of(Path(entry).resolve(), package) for entry in entry_files} - seen
    trees: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        path = _path_of(module, str(package.parent))
        if path is None:  # a name inside a module, or a module of another package
            continue
        trees[module], imported = _parse(path, module, package.name, fields)
        waiting |= (imported | _parents(module)) - seen
    return trees


def _module_of(path: Path, package: Path) -> str:
    if not path.is_relative_to(package):
        raise ValueError(f"{path} is not in the package {package}")
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _path_of(module: str, folder: str) -> str | None:
    base = os.path.join(folder, *module.split("."))  # plain text: thousands of look-ups, and pathlib is slow
    candidates = (os.path.join(base, "__init__.py"), f"{base}.py")
    return next((path for path in candidates if os.path.isfile(path)), None)


def _parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def _parse(path: str, module: str, package_name: str, fields: bool) -> tuple[str, frozenset[str]]:
    status = os.stat(path)
    version = (status.st_mtime_ns, status.st_size)
    known = _PARSED.get((path, fields))
    if known is None or known[0] != version:
        with open(path, "rb") as stream:
            tree = ast.parse(stream.read(), filename=path)
        parent = module if os.path.basename(path) == "__init__.py" else module.rpartition(".")[0]
        imported = frozenset(name for name in _imports(tree, parent) if name.split(".")[0] == package_name)
        if not fields:
            _drop_fields(tree)
        text: list[str] = []
        _write_canonical(tree, text)
        digest = hashlib.sha256("".join(text).encode("utf-8", "surrogatepass")).hexdigest()
        known = _PARSED[path, fields] = (version, digest, imported)
    return known[1], known[2]


def _imports(node: ast.AST, parent: str) -> Iterator[str]:
    """Yield the full names imported anywhere below `node`: modules, and names that may turn out to be modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = parent.split(".")[: len(parent.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children = node.orelse
    for child in children:
        if not isinstance(child, ast.expr):  # no expression holds an import statement
            yield from _imports(child, parent)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _drop_fields(tree: ast.Module) -> None:
    """Take out the fields with a default of the module's typed forms."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in FORMS for base in node.bases):
            node.body = [part for part in node.body if not (isinstance(part, ast.AnnAssign) and part.value)]


def _write_canonical(node: ast.AST, out: list[str]) -> None:
    """Append the tree as text, without docstrings and positions, equal on every Python that parses it.

    (`ast.dump` is slower, and its text changes from one Python version to the next.)
    """
    out.append(f"({type(node).__name__}")
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            if field != "ctx":  # follows from where the node stands
                out.append(f" {field}=")
                _write_canonical(value, out)
        elif isinstance(value, list):
            if value:  # an empty list is left out: newer Pythons add fields that are empty here
                out.append(f" {field}=[")
                for item in value:
                    if not isinstance(item, ast.AST):
                        out.append(f" {item!r}")
                    elif not _is_bare_string(item):
                        _write_canonical(item, out)
                out.append("]")
        elif value is not None:
            out.append(f" {field}={value!r}")
    out.append(")")


def _is_bare_string(node: ast.AST) -> bool:
    """Whether a statement is a string by itself: a docstring, or the description of an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
