"""A fingerprint changes with the meaning of the code that is reached, and with nothing else."""

import os
import textwrap
import time
from pathlib import Path

import pytest

from replications import catalogue, fingerprint
from replications.fingerprint import PACKAGE, code_fingerprint
from replications.running import fingerprints


@pytest.fixture
def package(tmp_path):
    """A package: entry -> pkg.one (in a function) -> pkg.deep.two (relative) ; `far` is reached by nothing."""
    files = {
        "__init__.py": '"""Top."""\n',
        "entry.py": """
            '''Docstring.'''
            import json
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from pkg import far
            def f(x):
                '''What f does.'''
                from pkg import one
                return one.g(x)  # a comment
            """,
        "one.py": "from pkg.deep.two import h as g\n",
        "deep/__init__.py": "LEVEL = 1\n",
        "deep/two.py": "import pkg.deep.three as three\nfrom ..four import Q\ndef h(x):\n    return x + three.K\n",
        "deep/three.py": "K = 1\n",
        "four.py": "class Q:\n    'doc'\n    a: int = 1\n    'what a is'\n",
        "far.py": "X = 1\n",
        "talk.py": "import pkg.far\n",
    }
    root = tmp_path / "pkg"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    status = path.stat()
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def of(package: Path, **options) -> str:
    return code_fingerprint([package / "entry.py"], package=package, **options)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("entry.py", "# a comment", "# another, longer comment\n"),
        ("entry.py", "What f does.", "What f really does."),
        ("entry.py", "'''Docstring.'''", ""),
        ("entry.py", "import json", "\n\n\nimport json"),
        ("entry.py", "one.g(x)", "(one.g(\n    x\n))"),
        ("__init__.py", "Top.", "The top."),
        ("four.py", "what a is", "what a means"),
        ("far.py", "X = 1", "X = 2"),
    ],
)
def test_words_and_unreached_code_do_not_count(package, file, old, new):
    before = of(package)
    edit(package / file, old, new)
    assert of(package) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("entry.py", "one.g(x)", "one.g(-x)"),
        ("entry.py", "return one.g(x)", "return"),
        ("one.py", "import h as g", "import h as g, h"),
        ("deep/__init__.py", "LEVEL = 1", "LEVEL = 2"),
        ("deep/two.py", "x + three.K", "x - three.K"),
        ("deep/three.py", "K = 1", "K = 1.0"),
        ("deep/three.py", "K = 1", "K = None"),
        ("four.py", "a: int = 1", "a: float = 1"),
        ("__init__.py", '"""Top."""', "import pkg.far"),
    ],
)
def test_every_reached_module_counts(package, file, old, new):
    before = of(package)
    edit(package / file, old, new)
    assert of(package) != before


def test_a_module_left_out_is_neither_counted_nor_followed(package):
    edit(package / "one.py", "from", "import pkg.talk\nfrom")
    assert of(package) != of(package, leave_out=["pkg.talk"])
    before = of(package, leave_out=["pkg.talk"])
    edit(package / "far.py", "X = 1", "X = 2")
    assert of(package, leave_out=["pkg.talk"]) == before


def test_moving_code_to_another_module_is_a_change_and_order_of_entries_is_not(package):
    entries = [package / "one.py", package / "far.py"]
    assert code_fingerprint(entries, package=package) == code_fingerprint(entries[::-1], package=package)
    before = of(package)
    (package / "deep/three.py").rename(package / "deep/five.py")
    edit(package / "deep/two.py", "pkg.deep.three", "pkg.deep.five")
    assert of(package) != before


def test_an_entry_outside_the_package_is_refused(tmp_path, package):
    with pytest.raises(ValueError, match="not in the package"):
        code_fingerprint([tmp_path / "x.py"], package=package)


def test_the_suite_itself_is_parsed_fast():
    files = sorted(PACKAGE.rglob("*.py"))
    fingerprint._PARSED.clear()
    started = time.process_time()
    code_fingerprint(files)
    size = sum(path.stat().st_size for path in files)
    assert time.process_time() - started < 0.1 + size * 2e-6  # about 0.25 us a byte on one core of a laptop


def test_another_seed_of_a_run_has_another_fingerprint_by_either_way():
    address = catalogue.methods_of(catalogue.papers(), "mini")[0]
    first, second = (catalogue.resolve(address, "mini", seed) for seed in (0, 1))
    assert fingerprints(first).with_seed_of(second) == fingerprints(second) != fingerprints(first)
