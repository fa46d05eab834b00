"""What Snakemake itself costs while jobs run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SNAKEFILE = f"""
import sys, threading
from types import SimpleNamespace

sys.path.insert(0, {str(ROOT)!r})
from replications.planning import front

folders = SimpleNamespace(results="results", data_root="data", work="work")

onstart:
    front.begin(SimpleNamespace(knobs=folders), workflow)

onsuccess:
    print("waiting timers:", sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))

rule all:
    input: expand("{{n}}.txt", n=range(12))

rule one:
    output: "{{n}}.txt"
    shell: "touch {{output}}"
"""


@pytest.mark.end_to_end
def test_finished_jobs_leave_no_timers_behind(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    call = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.txt"))) == 12
    assert "waiting timers: 0" in done.stdout + done.stderr
