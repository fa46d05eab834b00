"""Portable mode: its settings, its place in the fingerprint, and the same numbers on another machine."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import portable_rows
import pytest

from replications import catalogue, portable
from replications.cli.reports import _outdated
from replications.errors import UserError
from replications.reporting.results import Records
from replications.running import fingerprints

REFERENCE = json.loads((Path(__file__).parent / "portable.json").read_text())


def test_settings_are_made_before_the_libraries_read_them():
    code = "from replications import portable; portable.hold(); from torch.backends import cpu; "
    code += "print(cpu.get_cpu_capability())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=portable_rows.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AVX2"


def test_settings_too_late_are_an_error(monkeypatch):
    import torch  # noqa: F401

    monkeypatch.delenv("MKL_CBWR", raising=False)
    with pytest.raises(RuntimeError, match="torch imported before"):
        portable.hold()


def test_a_run_that_should_be_portable_is_refused_without_the_settings(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    portable.check(False)
    with pytest.raises(UserError, match="ONEDNN_MAX_CPU_ISA='AVX2'"):
        portable.check(True)


def test_portable_runs_have_fingerprints_of_their_own():
    ours, other = (fingerprints(catalogue.resolve("vit/vit", "smoke", 0, portable=held)).run for held in (False, True))
    assert ours != other


def test_numbers_are_those_of_the_reference(tmp_path):
    rows = portable_rows.run(tmp_path)
    assert rows.keys() == REFERENCE["rows"].keys()
    differ = {}
    for row, numbers in rows.items():
        expected = REFERENCE["rows"][row]
        assert numbers.keys() == expected.keys()
        differ[row] = sorted(name for name in numbers if numbers[name] != expected[name])
    if portable_rows.processor() == REFERENCE["cpu"]:
        assert not any(differ.values()), differ
    else:
        found = ", ".join(f"{row} {'differs' if names else 'equal'}" for row, names in differ.items())
        warnings.warn(f"portable mode on {portable_rows.processor()} against {REFERENCE['cpu']}: {found}", stacklevel=1)


def test_the_docs_name_the_rows_that_differ_on_the_other_processor():
    other = json.loads((Path(__file__).parent / "portable_amd.json").read_text())
    assert other["cpu"] != REFERENCE["cpu"] and other["rows"].keys() == REFERENCE["rows"].keys()
    first = {}
    for row, expected in REFERENCE["rows"].items():
        differ = [name for name in expected if other["rows"][row][name] != expected[name]]
        first |= {row: min(name for name in differ if name.startswith("train step"))} if differ else {}
    assert {row: name.split()[2] for row, name in first.items()} == {"votenet/votenet": "1", "arcface/arcface": "3"}
    a, b = (of["votenet/votenet"]["train step 1 loss"] for of in (other["rows"], REFERENCE["rows"]))
    assert 1e-7 < abs(a - b) / b < 1e-6
    text = " ".join(Path("docs/portable.md").read_text(encoding="utf-8").split())
    assert "VoteNet differs from its first loss on, in the seventh digit, ArcFace from its third step on" in text


@pytest.mark.parametrize("held", [True, False])
def test_a_record_is_compared_with_the_code_in_its_own_mode(held):
    spec = catalogue.resolve("trace_determinant/determinant", "mini", 0, {}, held)
    kept = Records("mini")
    kept.runs["trace_determinant/determinant"] = {0: SimpleNamespace(spec=spec, fingerprint=fingerprints(spec).run)}
    assert _outdated(kept) == []
    kept.runs["trace_determinant/determinant"][0].fingerprint = "another"
    assert len(_outdated(kept)) == 1
