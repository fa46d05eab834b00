"""What snakemake says: one line for a target that is none, and for a job that waits for another process."""

import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from replications import catalogue, running
from replications.measurement.lease import device_alone, device_shared
from replications.planning import front, terminal
from replications.planning.knobs import read_knobs
from replications.planning.plan import Plan
from replications.planning.targets import unknown_target
from replications.planning.terminal import Terminal, Tidy

CONFIG = catalogue.read_yaml(catalogue.CONFIG / "config.yaml")


@pytest.fixture(scope="module")
def plan():
    return Plan(read_knobs({**CONFIG, "tier": "smoke"}))


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("arcfase", "unknown target 'arcfase' (did you mean 'arcface'?)"),
        ("arcface/softmx", "unknown target 'arcface/softmx' (did you mean 'arcface/softmax'?)"),
        ("arcfase/softmax", "did you mean 'arcface/softmax'?"),
        ("face_verificatio", "did you mean 'face_verification'?"),
        (
            "arcface/softmax",
            "'arcface/softmax' is a method, and targets are 'all', papers and tasks: ask for 'arcface'",
        ),
        ("tier=mini", "as in --config tier=mini"),
        (
            "results/smoke/indx.html",
            "no rule makes 'results/smoke/indx.html' (did you mean 'results/smoke/index.html'?)",
        ),
        ("zzz", "(known: all, arcface"),
    ],
)
def test_an_unknown_target_names_the_nearest(plan, word, line):
    assert line in unknown_target(plan, word)
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "", (), None)
    record.msg = f"MissingRuleException:\nNo rule to produce {word} (if you use input functions make sure that they)."
    record.exception = "MissingRuleException"
    assert Tidy(Terminal(plan, dryrun=False, cores=1)).filter(record)
    assert record.msg.startswith("error: ") and line in record.msg and record.msg.isprintable()


def test_a_paper_that_the_tier_does_not_have_is_not_called_unknown(monkeypatch):
    plan = Plan(read_knobs({**CONFIG, "tier": "smoke"}))
    plan.targets.pop("arcface")
    assert unknown_target(plan, "arcface") == "paper 'arcface' has no method in tier 'smoke'"
    assert unknown_target(plan, "arcface/softmax").endswith("is a method of a paper that has none in tier 'smoke'")


def event(**what):
    record = logging.LogRecord("x", logging.INFO, "x", 1, "", (), None)
    vars(record).update(what)
    return record


@pytest.mark.parametrize("failed", [False, True])
def test_a_stop_is_said_once_and_is_no_failure(plan, failed, capsys):
    shown = Terminal(plan, dryrun=False, cores=1)
    tidy = Tidy(shown)
    told = [event(msg="Will exit after finishing currently running jobs (scheduler).") for _ in range(3)]
    assert [tidy.filter(record) for record in told] == [True, False, False]
    assert told[0].msg == "stopping: the running jobs end first, no other one starts"
    if failed:
        job = {"rule_name": "train_0", "rule_msg": "arcface/softmax", "wildcards": {}, "resources": {}}
        shown.emit(event(event="job_info", jobid=1, output=[], reason="", log=[], threads=1, **job))
        shown.emit(event(event="job_error", jobid=1))
    end = event(msg="At least one job did not complete successfully.")
    assert tidy.filter(end)
    words = "error: some jobs failed; run the same" if failed else "stopped; run the same command again to resume"
    assert end.msg.startswith(words)


def test_a_job_that_waits_says_so_once_where_no_terminal_is(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.01)
    log = tmp_path / "log"
    log.write_text("arcface/softmax seed 0: waiting for a speed measurement on cpu to end\n")
    shown = Terminal(plan, dryrun=False, cores=1)
    shown.emit(event(event="run_info", stats={"train_0": 1, "total": 1}))
    job = {"rule_name": "train_0", "rule_msg": "arcface/softmax (seeds 0)", "wildcards": {"paper": "arcface"}}
    job |= {"output": [], "reason": "", "log": [str(log)], "threads": 1, "resources": {}}
    shown.emit(event(event="job_info", jobid=1, **job))
    time.sleep(0.3)
    shown.close()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "1 job, tier smoke; results in results/smoke/",
        "arcface/softmax (seeds 0): waiting for a speed measurement on cpu to end",
    ]


def test_every_wait_for_a_lock_begins_as_the_terminal_looks_for_it(tmp_path):
    code = "import sys, pathlib\nfrom replications.measurement.lease import {0}\n"
    code += "with {0}('cpu', pathlib.Path(sys.argv[1])): pass"
    for held, asked in ((device_alone, "device_shared"), (device_shared, "device_alone")):
        call = [sys.executable, "-c", code.format(asked), str(tmp_path)]
        with held("cpu", tmp_path):
            process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
            said = process.stderr.readline()
        process.communicate(timeout=60)
        assert said.startswith(terminal.WAITING) and process.returncode == 0


def test_a_closed_pipe_ends_a_dry_run_without_a_traceback(plan, capsys, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    put = []
    monkeypatch.setattr(os, "dup2", lambda *descriptors: put.append(descriptors))
    monkeypatch.setattr("builtins.print", closed)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 1))
    shown = Terminal(plan, dryrun=True, cores=1)
    shown.jobs[1] = terminal.Job("report", "report", None, [], "", None, 1, {})
    shown.emit(event(event="run_info", stats={"report": 1}))
    assert put and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("cores", [0, -1])
def test_snakemake_needs_a_core(cores, capsys):
    given = SimpleNamespace(configfiles=[], config_args=[])
    workflow = SimpleNamespace(cores=cores, basedir=".", configfiles=[], config_settings=given)
    with pytest.raises(SystemExit) as ended:
        front.make_plan(CONFIG, workflow)
    assert str(ended.value) == f"error: --cores {cores}: give 1 or more, or 'all'"


def test_the_seeds_of_a_method_share_code_and_data_but_not_their_fingerprint(plan):
    address = "eigenfaces/eigenfaces"
    for seed in (0, 7):
        assert plan.fingerprints(address, seed) == running.fingerprints(plan.spec(address, seed))
