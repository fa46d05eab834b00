"""The script for a GPU slot, with a stand-in for Python: parts of data, what is missing, and a kill in the middle."""

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_slot.sh"
STUB = """#!/bin/bash
echo "$*" >> "$SEEN"
case "$*" in
    *import*torch*) [ -z "$NO_CARD" ] || { echo "error: device 'cuda': no GPU is visible here"; exit 1; } ;;
    *doctor*--out*)
        [ -z "$LEFT" ] || { echo "5 findings; 2 checks are left"; exit; }
        echo '{"finding": 1}' > "$KEEP/doctor.jsonl"
        [ -z "$SLOW" ] || exec sleep 10 ;;
    *campaign*) [ -z "$SHORT" ] || { echo "error: 0.5 min are too short"; exit 2; } ;;
esac
echo fine
"""


@pytest.fixture
def slot(tmp_path):
    """Return the environment of the script and a function that runs it."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    folders = {"OUT": tmp_path / "out", "KEEP": tmp_path / "keep", "SEEN": tmp_path / "seen", "PYTHON": stub}
    given = {
        "DEVICE": "cpu",
        "STEPS": "doctor",
        "PACK_SECONDS": "0.1",
        "NO_CARD": "",
        "SLOW": "",
        "LEFT": "",
        "SHORT": "",
    }
    environment = {**os.environ, **{name: str(path) for name, path in folders.items()}, **given}

    def call(**words):
        return subprocess.run(
            ["bash", SCRIPT], env={**environment, **words}, capture_output=True, text=True, timeout=60
        )

    return environment, call, tmp_path


def packed(folder: Path) -> set[str]:
    with tarfile.open(folder / "out" / "slot.tar.gz") as archive:
        return {name.removeprefix("./") for name in archive.getnames()}


def test_parts_that_come_in_two_calls_are_one_file_in_the_order_of_their_numbers(slot):
    _, call, root = slot
    for number in (*range(1, 11), 0):
        stash = root / f"stash{min(number, 1)}" / "lfw"
        stash.mkdir(parents=True, exist_ok=True)
        (stash / f"faces.tar.part-{number}").write_text(f"<{number}>")
    told = call(STASH=str(root / "stash0"), STEPS="machine").stdout
    assert "faces.tar of 1 parts, 3 bytes" in told
    told = call(STASH=str(root / "stash1"), STEPS="data*", DATA="lfw_112").stdout
    assert "faces.tar of 11 parts, 34 bytes" in told and "data-lfw_112: 0 s: fine" in told
    whole = (root / "keep" / "mirror" / "lfw" / "faces.tar").read_text()
    assert whole == "".join(f"<{number}>" for number in range(11))
    assert f"fetch lfw_112 --data-root {root}/keep/data --data-mirror {root}/keep/mirror" in (root / "seen").read_text()
    names = packed(root)
    assert "done/machine" in names and not {name for name in names if name.startswith(("mirror", "done/data"))}


def test_a_finished_step_is_not_repeated_also_on_another_machine(slot):
    _, call, root = slot
    assert call().returncode == 0
    told = call(KEEP=str(root / "new"), FROM=str(root / "out" / "slot.tar.gz")).stdout
    assert "doctor: done before" in told and "machine: 0 s" in told
    seen = (root / "seen").read_text().splitlines()
    assert sum("--out" in line for line in seen) == 1 and (root / "new" / "doctor.jsonl").exists()


def test_checks_that_are_left_are_made_by_the_next_call(slot):
    _, call, _ = slot
    assert "2 checks are left" in call(LEFT="1").stdout
    assert "doctor: 0 s: fine" in call().stdout and "doctor: done before" in call().stdout


def test_the_campaign_goes_on_at_each_call_and_a_short_budget_is_one_line(slot):
    _, call, root = slot
    words = {"STEPS": "campaign", "CAMPAIGN": "--tier mini --targets arcface/C1a"}
    for _ in range(2):
        assert call(**words).returncode == 0
    seen = [line for line in (root / "seen").read_text().splitlines() if "campaign" in line]
    assert len(seen) == 2 and "campaign --tier mini --targets arcface/C1a --minutes 8.7 --device cpu" in seen[0]
    told = call(SHORT="1", **words)
    assert told.returncode == 1 and told.stdout.splitlines()[-1] == "campaign: failed (2): error: 0.5 min are too short"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ({"NO_CARD": "1"}, 1, "machine: failed (1): error: device 'cuda': no GPU is visible here"),
        ({"WHEELS": "/nowhere"}, 2, "WHEELS: there is no wheel in /nowhere"),
        ({"STASH": "/nowhere"}, 2, "STASH: there is no folder /nowhere"),
        ({"FROM": "/nowhere.tar.gz"}, 2, "FROM: /nowhere.tar.gz cannot be unpacked"),
        ({"MINUTES": "0"}, 2, "MINUTES is a whole number from 1 on, not '0'"),
        ({"MINUTES": "1.5"}, 2, "MINUTES is a whole number from 1 on, not '1.5'"),
        ({"OUT": ""}, 1, "give a folder for what is brought back"),
    ],
)
def test_what_is_missing_is_told_and_nothing_follows(slot, words, code, told):
    _, call, root = slot
    found = call(**words)
    assert found.returncode == code and told in (found.stdout + found.stderr).splitlines()[-1]
    seen = (root / "seen").read_text() if (root / "seen").exists() else ""
    assert "doctor" not in seen


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_found_before_a_kill_has_been_packed_and_the_step_is_made_again(slot, sign):
    environment, call, root = slot
    process = subprocess.Popen(["bash", SCRIPT], env={**environment, "SLOW": "1"}, start_new_session=True)
    try:
        end = time.monotonic() + 30
        while not ((root / "out" / "slot.tar.gz").exists() and "doctor.jsonl" in packed(root)):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.send_signal(sign)
        code = process.wait(timeout=5)
    assert code == (130 if sign == signal.SIGTERM else -sign) and "done/doctor" not in packed(root)
    assert "doctor: 0 s: fine" in call().stdout
    assert "done/doctor" in packed(root)
