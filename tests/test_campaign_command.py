"""The command `campaign`: what it reads from records, its plan, and one line for what is wrong."""

import os
import re
import subprocess
import sys

import pytest
from published import PUBLISHED

from replications import catalogue, running
from replications.archive import record_files
from replications.cli import campaign, main
from replications.measurement import lease
from replications.measurement.hardware import cpu_model
from replications.planning import spend
from replications.planning.campaign import Job
from replications.planning.knobs import Knobs
from replications.planning.plan import Plan
from replications.planning.undecided import SEEDS, Study
from replications.records import RunRecord, parse, run_path, write_record

ROWS = ("arcface/arcface", "cosface/cosface")
CLAIM = "arcface/C1a"


@pytest.fixture
def plan(tmp_path):
    folders = {"data_root": str(tmp_path / "data"), "work": str(tmp_path / "work"), "results": str(tmp_path / "r")}
    return Plan(Knobs("mini", ("arcface",), tuple(SEEDS), device="cpu", **folders))


@pytest.fixture(scope="session")
def published():
    """Published records of the claim's rows."""
    runs = record_files(PUBLISHED / "mini-faces-cpu")
    texts = {name: read for name, read in runs if name.startswith(tuple(f"runs/{row}/" for row in ROWS))}
    found = [parse(read(), RunRecord, name) for name, read in texts.items()]
    return {(r.spec.address, r.spec.seed): r for r in found}


def write(plan, published, row, seed, folder=None, accuracy=None, **changes):
    """A record of a row, as the present code would leave it."""
    prints = plan.fingerprints(row, seed)
    record = published[row, seed % 3].model_copy(deep=True, update={"fingerprint": prints.run, **changes})
    record.code_fingerprint, record.data_fingerprint = prints.code, prints.data
    record.modules, record.sets, record.spec = dict(prints.modules), dict(prints.sets), plan.spec(row, seed)
    if accuracy is not None:
        record.metrics = {name: accuracy for name in record.metrics}
    write_record(record, folder or run_path(plan.folder, *row.split("/"), seed))
    return record


def test_nothing_is_known_at_the_beginning(plan):
    study = Study(plan, ["arcface"], [CLAIM])
    state = study.look()
    assert [q.claim for q in state.questions] == [CLAIM] and state.questions[0].rows == ROWS
    assert not state.done and all(seconds > 0 for seconds in state.seconds.values())


def test_records_of_the_present_code_count_and_those_of_another_do_not(plan, published):
    for seed in range(3):
        write(plan, published, ROWS[0], seed)
    write(plan, published, ROWS[1], 0, fingerprint="other")
    write(plan, published, ROWS[1], 1, status="failed", reason="out of memory", metrics={})
    stored = running.work_folder(plan.folder.parent.parent / "work", plan.fingerprints(ROWS[1], 2)) / "run.json"
    write(plan, published, ROWS[1], 2, folder=stored)
    study = Study(plan, ["arcface"], [CLAIM])
    assert study.look().done == {(ROWS[0], 0), (ROWS[0], 1), (ROWS[0], 2), (ROWS[1], 2)}
    study.restore()
    assert run_path(plan.folder, *ROWS[1].split("/"), 2).exists(), "the tables find what only the work store had"


def test_a_claim_is_asked_until_it_is_decided(plan, published):
    study = Study(plan, ["arcface"], [CLAIM])
    for seed in range(3):
        for row, accuracy in zip(ROWS, (80 + seed, 79.0), strict=True):
            write(plan, published, row, seed, accuracy=accuracy)
    first = study.look()
    assert first.questions[0].chance[0] == 0 < first.questions[0].chance[1] < first.questions[0].chance[3]
    for seed in range(3, 8):
        for row, accuracy in zip(ROWS, (90 + 0.01 * seed, 70.0), strict=True):
            write(plan, published, row, seed, accuracy=accuracy)
    for seed in range(3):
        write(plan, published, ROWS[0], seed, accuracy=90 + 0.01 * seed)
        write(plan, published, ROWS[1], seed, accuracy=70.0)
    after = study.look()
    assert after.decided == {CLAIM: "reproduced"} and not after.questions


def test_seconds_are_this_machines_own_else_the_published_at_its_pace(plan, published):
    study = Study(plan, ["arcface"], [CLAIM])
    before = study.look().seconds
    for seed in range(3):
        record = published[ROWS[0], seed].model_copy(deep=True)
        slow = record.cost.model_copy(update={"total_seconds": 3 * study.reference[ROWS[0]]})
        made = record.provenance.model_copy(update={"cpu": cpu_model()})
        write(plan, published, ROWS[0], seed, cost=slow, provenance=made)
    after = study.look().seconds
    assert after[ROWS[0]] == pytest.approx(3 * before[ROWS[0]])
    assert after[ROWS[1]] == pytest.approx(3 * before[ROWS[1]]), "not run here yet: three times slower, too"


def test_a_faster_machine_is_expected_to_be_so_until_records_show_its_pace(plan, published):
    plain, fast = (Study(plan, ["arcface"], [CLAIM], pace=pace).look().seconds for pace in (1.0, 0.1))
    assert fast == {row: pytest.approx(0.1 * seconds) for row, seconds in plain.items()}
    record = published[ROWS[0], 0].model_copy(deep=True)
    made = record.provenance.model_copy(update={"cpu": cpu_model()})
    write(plan, published, ROWS[0], 0, provenance=made)
    one, other = (Study(plan, ["arcface"], [CLAIM], pace=pace).look().seconds for pace in (1.0, 0.1))
    assert one == other


def test_claims_that_more_seeds_cannot_help_are_named(plan, published):
    for seed in range(3):
        write(plan, published, ROWS[0], seed, accuracy=80.0)
        write(plan, published, ROWS[1], seed, accuracy=79.0)
    study = Study(plan, ["arcface"], [CLAIM])
    assert "does not vary" in study.look().hopeless[CLAIM]
    write(plan, published, ROWS[0], 1, status="failed", reason="diverged", metrics={})
    assert study.look().hopeless[CLAIM] == "a run failed on one side"
    study.missing_data = {ROWS[1]: "'replications fetch x' has to come first"}
    assert study.look().hopeless[CLAIM] == study.missing_data[ROWS[1]]


def test_times_of_a_shared_gpu_are_not_asked_for(tmp_path):
    plan = Plan(Knobs("mini", ("linear_attention",), tuple(SEEDS), device="cpu", results=str(tmp_path)))
    study, found = Study(plan, ["linear_attention"]), []
    for study.shared in (False, True):
        found.append({name for name, why in study.look().hopeless.items() if "share a GPU" in why})
    assert not found[0] and found[1]


def test_records_of_another_device_do_not_mix(plan, published):
    write(plan, published, ROWS[0], 0)
    study = Study(plan, ["arcface"], [CLAIM])
    assert study.other_devices(None, "cpu") == set()
    assert study.other_devices("NVIDIA H100 80GB HBM3", "cuda") == {"cpu"}


# ------------------------------------------------------------------ the command


def call(tmp_path, *words):
    folders = ["--data-root", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--results", str(tmp_path)]
    return main(["campaign", *words, *folders])


def test_a_plan_fits_80_columns_runs_nothing_and_needs_neither_torch_nor_snakemake(tmp_path):
    words = ["campaign", "--minutes", "9", "--targets", "arcface", "--cores", "2", "--plan", "--results", str(tmp_path)]
    code = (
        f"import sys; from replications.cli import main; main({words!r}); "
        "print(sorted({'torch', 'snakemake'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert max(map(len, out.splitlines())) <= 80 and "2 runs at once" in out and "arcface/" in out
    assert re.search(r"about \d+\.\d decisions\nthe next 9 min would decide about \d+\.\d more", out)
    assert out.splitlines()[-1] == "[]" and not (tmp_path / "mini").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--minutes", "0.05", "--targets", "arcface"], r"0.05 min are too short: the shortest run .*arcface/\w+ seed"),
        (["--minutes", "0"], "give minutes above 0"),
        (["--minutes", "nan"], "give minutes above 0"),
        (["--minutes", "5", "--targets", "arcfase"], "did you mean 'arcface'"),
        (["--minutes", "5", "--targets", "arcface/C1x"], "did you mean 'arcface/C1"),
        (["--minutes", "5", "--tier", "smoke"], "plumbing only"),
        (["--minutes", "5", "--cores", "0"], "a number of cores"),
        (["--minutes", "5", "--pace", "0"], "a ratio above 0"),
        (["--minutes", "5", "--pace", "."], "a ratio above 0"),
        (["--minutes", "5", "--device", "cuda"], "GPUs visible here: 0"),
    ],
)
def test_what_is_wrong_is_one_line(words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("replications.measurement.hardware.visible_gpus", lambda: [])
    assert call(tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert re.search(told, error) and len(error.splitlines()) == 1


def test_a_gpu_that_others_have_leased_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("replications.measurement.hardware.visible_gpus", lambda: ["7"])
    monkeypatch.setattr(lease, "lock_folder", lambda: tmp_path / "locks")
    with lease.lease_gpus(1, ["7"]):
        assert call(tmp_path, "--minutes", "5", "--device", "cuda", "--runs-per-gpu", "4") == 2
    assert "device 'cuda' is busy" in capsys.readouterr().err
    with lease.lease_gpus(1, ["7"], runs_per_gpu=4):
        assert lease.free_leases(["7"], 4) == 3 and lease.free_leases(["7"], 1) == 0
    assert lease.free_leases(["7"], 4) == 4 and lease.free_leases(["7"], 1) == 1


def test_nothing_left_is_said_and_is_no_failure(tmp_path, capsys, plan, published, monkeypatch):
    for seed in range(12):
        write(plan, published, ROWS[0], seed, accuracy=80 + 3.0 * (seed % 2))
        write(plan, published, ROWS[1], seed, accuracy=80 + 3.0 * (seed // 2 % 2))
    monkeypatch.setattr(subprocess, "Popen", None)
    words = ["--minutes", "5", "--targets", CLAIM, "--device", "cpu", "--results", plan.knobs.results]
    assert main(["campaign", *words, "--data-root", plan.knobs.data_root, "--work", plan.knobs.work]) == 0
    out = capsys.readouterr().out
    assert "undecided at the last look" in out and "nothing is left that more seeds could decide" in out


def test_targets_are_papers_tasks_and_claims():
    assert campaign.parse_targets(["arcface/C1a"], "mini") == (("arcface",), ("arcface/C1a",))
    papers, claims = campaign.parse_targets(["face_verification"], "mini")
    assert {"arcface", "cosface"} <= set(papers) and CLAIM in claims
    assert set(campaign.parse_targets(["all"], "mini")[0]) > set(papers)


def test_a_job_is_a_run_command_that_ends_with_its_campaign(plan, tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$REPLICATIONS_PARENT: $*"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(spend.sys, "executable", str(stub))
    process = spend.launcher(plan)(Job("arcface/arcface", (3, 4), 1.0, {}))
    assert process.wait() == 0
    said = (plan.folder / "logs" / "arcface-arcface-3,4.log").read_text()
    assert said.startswith(f"{os.getpid()}: -m replications run arcface/arcface --seeds=3,4, --tier=mini --device=cpu")
    assert f"--results={plan.knobs.results}" in said
    assert catalogue.PACKAGE.name == "replications"
