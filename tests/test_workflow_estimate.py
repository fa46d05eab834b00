"""What a request will cost: from records where there are any, and honest where nothing is known."""

import dataclasses

import pytest

from replications import catalogue
from replications.planning import estimate
from replications.planning.estimate import START_SECONDS
from replications.planning.knobs import Knobs
from replications.planning.plan import Plan
from replications.planning.table import cost_table, job_list
from replications.planning.terminal import Job
from replications.records import Cost, Provenance, RunRecord, run_path, write_record

ADDRESS = catalogue.methods_of(catalogue.papers(), "mini")[0]
PROVENANCE = Provenance(
    created="2026-01-01T00:00:00Z", suite_version="0", commit=None, dirty=None, python="3", packages={}, platform="x",
    device="x", device_kind="cpu", cpu="x", cpu_count=1, memory_gib=1.0, threads=1, deterministic=True,
)  # fmt: skip


@pytest.fixture
def plan(tmp_path, monkeypatch):
    tiers = {tier: setup.model_copy(update={"minutes_per_run": None}) for tier, setup in _tiers().items()}
    monkeypatch.setattr(catalogue, "task_tiers", lambda task: tiers)
    knobs = Knobs("mini", ("x",), (0, 1, 2), work=str(tmp_path / "work"), results=str(tmp_path / "results"))
    return Plan(knobs)


def _tiers():
    return catalogue.task_tiers(catalogue.find_method(ADDRESS)[0].task)


def make_record(plan, seed, seconds, folder=None, kind="cpu"):
    spec = plan.spec(ADDRESS, seed)
    record = RunRecord(
        status="finished",
        fingerprint=f"{seed:064d}",
        code_fingerprint="",
        data_fingerprint="",
        spec=spec,
        cost=Cost(total_seconds=seconds),
        provenance=PROVENANCE.model_copy(update={"device_kind": kind}),
    )
    write_record(record, run_path(folder or plan.folder, spec.paper, spec.method, seed))
    return record


def test_without_any_record_nothing_is_known(plan):
    assert estimate.run_seconds(plan, ADDRESS, "0,1") == estimate.UNKNOWN
    assert estimate.run_megabytes(plan, ADDRESS, "0,1") == estimate.UNKNOWN


def test_the_task_says_where_no_record_does(plan, monkeypatch):
    tiers = {tier: setup.model_copy(update={"minutes_per_run": 2.0}) for tier, setup in _tiers().items()}
    monkeypatch.setattr(catalogue, "task_tiers", lambda task: tiers)
    assert estimate.run_seconds(plan, ADDRESS, "0,1") == 2 * 120 + START_SECONDS


def test_records_of_the_method_say_the_median_of_each_run(plan):
    for seed, seconds in enumerate((10.0, 20.0, 90.0)):
        make_record(plan, seed, seconds)
    assert estimate.run_seconds(plan, ADDRESS, "3,4") == 40 + START_SECONDS
    kept = plan.folder.parent.parent / "work" / "runs" / f"{1:064d}"[:16]
    kept.mkdir(parents=True)
    (kept / "weights").write_bytes(bytes(3_000_000))
    assert estimate.run_megabytes(plan, ADDRESS, "3,4") == 6


@pytest.mark.parametrize(
    ("load", "cpus", "threads", "kind", "seconds"),
    [
        (0.5, 2, 1, "cpu", 100),  # others had the other processor
        (0.75, 2, 1, "cpu", 50),  # they had half of its own, too
        (0.75, 4, 4, "cpu", 25),  # a quarter of four
        (0.75, 2, 4, "cpu", 25),  # more threads than processors get no more than all
        (0.75, 4, 4, "cuda", 100),
        (None, 2, 1, "cpu", 100),
    ],
)
def test_seconds_of_a_busy_machine_count_by_the_share_that_the_run_had(plan, load, cpus, threads, kind, seconds):
    record = make_record(plan, 0, 100.0, kind=kind)
    busy = record.model_copy(
        update={
            "cost": Cost(total_seconds=100.0, background_load=load),
            "provenance": record.provenance.model_copy(update={"cpu_count": cpus, "threads": threads}),
        }
    )
    failed = busy.model_copy(update={"status": "failed"})
    assert estimate.alone_seconds([busy, failed]) == [pytest.approx(seconds)]


def test_published_records_say_it_in_a_fresh_clone_but_not_those_of_another_kind_of_device(plan):
    published = plan.folder.parent / "published"
    make_record(plan, 0, 7.0, published / "mini-gpu", kind="cuda")
    assert estimate.run_seconds(plan, ADDRESS, "0") == estimate.UNKNOWN
    estimate._earlier.cache_clear()
    make_record(plan, 0, 70.0, published / "mini-first")
    assert estimate.run_seconds(plan, ADDRESS, "0,1") == 140 + START_SECONDS


def test_what_lies_finished_in_the_work_store_costs_nothing(plan):
    record = make_record(plan, 0, 10.0)
    prints = plan.fingerprints(ADDRESS, 0)
    same = record.model_copy(update={"fingerprint": prints.run})
    write_record(same, plan.folder.parent.parent / "work" / "runs" / prints.run[:16] / "run.json")
    assert estimate.run_seconds(plan, ADDRESS, "0") == 0
    assert estimate.run_seconds(plan, ADDRESS, "0,1") == 10 + START_SECONDS


def test_further_looks_are_at_most_those_of_rows_that_a_claim_compares(tmp_path, monkeypatch):
    """Of lsoftmax after its first look: 9 seeds of each row that its claims name, less what is planned or finished."""
    tiers = {tier: setup.model_copy(update={"minutes_per_run": 0.5}) for tier, setup in _tiers().items()}
    monkeypatch.setattr(catalogue, "task_tiers", lambda task: tiers)
    seeds = tuple(range(12))
    plan = Plan(Knobs("mini", ("lsoftmax",), seeds, 4, work=str(tmp_path / "work"), results=str(tmp_path / "results")))
    paper = catalogue.find_paper("lsoftmax")
    own = {f"lsoftmax/{name}" for name in paper.methods}
    claims = [c for c in paper.claims if "mini" in c.tiers and {s.method for s in c.sides().values()} <= own][:1]
    monkeypatch.setattr(catalogue, "find_paper", lambda key: paper.model_copy(update={"claims": tuple(claims)}))
    rows = {side.method for claim in claims for side in (claim.subject, claim.reference) if side}
    assert rows < own
    judging = Job("verdicts", "judge", "lsoftmax", [], "missing", None, 1, {}, look=1)
    seconds = (9 * 30 + 3 * START_SECONDS) * len(rows)  # three seeds a process
    assert rows and estimate.later(plan, [judging]) == (9 * len(rows), seconds, False)
    row = sorted(rows)[0]
    other = Job("x", "train_3_4", "x", [plan.record(row, 3), plan.record(row, 4)], "missing", None, 1, {})
    assert estimate.later(plan, [judging, other])[0] == 9 * len(rows) - 2
    assert estimate.later(plan, [dataclasses.replace(judging, look=3)])[0] == 4 * len(rows)
    assert estimate.later(plan, [other]) is None


def test_what_further_looks_may_add_is_said_in_a_line():
    assert cost_table([JOB], 2, (116, 3240, False)).splitlines()[-1] == (
        "Then at most 116 more runs, 27 min on 2 cores, for claims that stay open."
    )
    assert cost_table([JOB], 2, (3, estimate.UNKNOWN, True)).endswith("at most 3 more runs, for claims that stay open.")
    assert "Then" not in cost_table([JOB], 2)


JOB = Job("a/b (seeds 0,1)", "train_0_1", "a", ["x", "y"], "missing", None, 2, {"seconds": 1800, "store_mb": 1500})


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_table_adds_up_what_is_known_and_marks_what_is_not():
    gpu = dataclasses.replace(JOB, title="c/d", paper="c", resources={"gpu": 1, "seconds": 7200, "store_mb": -1})
    data = dataclasses.replace(JOB, title="data", rule="prepare", paper=None, resources={"seconds": -1, "store_mb": 10})
    lines = cost_table([JOB, gpu, data], cores=2).splitlines()
    assert cells(lines[2]) == ["a", "1", "2", "1.00", "-", "1.5 GB"]
    assert cells(lines[3]) == ["c", "1", "2", "-", "2.00", "?"]
    assert cells(lines[4]) == ["data", "1", "-", "?", "-", "10 MB"]
    assert cells(lines[5]) == ["total", "3", "4", "1.00 + ?", "2.00", "1.5 GB + ?"]


def test_time_on_some_cores_is_at_least_that_of_the_longest_job():
    assert "30 min on 8 cores" in cost_table([JOB], cores=8)
    assert "60 min on 2 cores" in cost_table([JOB, dataclasses.replace(JOB, title="z")], cores=2)


def test_each_job_is_listed_with_its_reason():
    assert job_list([JOB]) == "  a/b (seeds 0,1)  missing"
