"""The real snakemake in tier smoke, in a copy of the repository: what it makes, and what makes it run again.

The tests of this file build on one another, in order.
"""

import json
import re
import subprocess
import sys

import pytest
from workflow_copy import make_copy

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return make_copy(tmp_path_factory.mktemp("workflow"))


def test_dry_run_says_what_would_run_and_its_cost_and_makes_nothing(copy):
    said = copy.snakemake("-n", "alpha")
    assert "alpha/plain (seeds 0)" in said and "beta/margin (seeds 0)" in said
    assert "beta/broken" not in said, "alpha's claims do not compare with it"
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["target"] == ["target", "jobs", "runs", "CPU-hours", "GPU-hours", "disk"]
    assert rows["alpha"][1:3] == ["1", "1"]
    assert rows["total"][2] == "2"
    assert "MB" in rows["data"], "the registry knows the size of the data"
    assert not (copy.root / "results").exists() and not (copy.root / "data").exists()


def test_a_paper_runs_with_what_its_claims_compare_with_and_nothing_more(copy):
    said = copy.snakemake("alpha")
    assert re.search(r"^\d+ jobs, tier smoke, about \d+ (s|min); results in ", said, re.MULTILINE), said
    assert set(copy.records()) == {"alpha/plain", "beta/margin"}
    record = json.loads(copy.record("alpha/plain").read_text())
    assert record["status"] == "finished" and record["fingerprint"]
    speeds = copy.root / "results" / "smoke" / "throughput"
    assert sorted(path.name for path in speeds.rglob("*.json")) == ["alpha.json", "margin.json", "plain.json"]
    assert "NOT A RESULT" in said and "alpha/C1" in said, "leaderboard and verdicts come at the end"
    assert "results/smoke/index.html" in said


def test_again_there_is_nothing_to_do(copy):
    before = copy.records()
    said = copy.snakemake("alpha")
    assert "Nothing to be done" in said and "results/smoke/index.html" in said
    assert copy.records() == before


def test_a_comment_a_docstring_and_a_date_run_nothing(copy):
    for paper in ("alpha", "beta"):
        text = copy.model(paper).read_text()
        text = text.replace("# this is the loss", "# a better word on it").replace("A linear embedding", "An embedding")
        copy.model(paper).write_text(text)
    for path in (copy.root / "data").rglob("set.json"):
        path.touch()
    assert "Nothing to be done" in copy.snakemake("alpha")


def test_a_changed_loss_runs_its_own_runs_and_the_report_only(copy):
    before = copy.records()
    text = copy.model("beta").read_text()
    copy.model("beta").write_text(text.replace("16.0 * cosine", "24.0 * cosine"))
    plan = copy.snakemake("-n", "alpha")
    assert "beta/margin (seeds 0)" in plan and "alpha/plain" not in plan and "report" in plan
    copy.snakemake("alpha")
    after = copy.records()
    assert after["alpha/plain"] == before["alpha/plain"]
    assert after["beta/margin"] != before["beta/margin"]


def test_the_change_taken_back_trains_nothing(copy):
    text = copy.model("beta").read_text()
    copy.model("beta").write_text(text.replace("24.0 * cosine", "16.0 * cosine"))
    work = {path: path.stat().st_mtime_ns for path in (copy.root / "work" / "runs").glob("*/run.json")}
    copy.snakemake("alpha", config=("throughput=false",))
    assert {path: path.stat().st_mtime_ns for path in (copy.root / "work" / "runs").glob("*/run.json")} == work


def test_a_run_that_diverges_is_a_row_of_the_table(copy):
    said = copy.snakemake(config=("throughput=false",))
    assert json.loads(copy.record("beta/broken").read_text())["reason"] == "diverged"
    assert "1 diverged" in said


def test_every_number_of_the_report_follows_from_the_records(copy):
    assert "follows from its records" in copy.cli("verify", "--tier", "smoke")


def test_a_finished_run_is_scored_again_without_training(copy):
    before = json.loads(copy.record("alpha/plain").read_text())
    copy.cli("evaluate", "alpha/plain", "--tier", "smoke", "--seeds", "0,")
    after = json.loads(copy.record("alpha/plain").read_text())
    assert after["metrics"] == before["metrics"]
    assert "has not been run" in copy.cli("evaluate", "alpha/plain", "--tier", "smoke", "--seeds", "7,", code=2)


def test_what_is_finished_is_put_back_without_importing_torch(copy):
    copy.record("alpha/plain").unlink()
    words = ["run", "alpha/plain", "--tier", "smoke", "--seeds", "0,"]
    code = f"import sys; from replications.cli import main; main({words}); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=copy.root, capture_output=True, text=True, check=True)
    assert copy.record("alpha/plain").exists()
    assert "alpha/plain seed 0" in said.stdout and said.stdout.endswith("False\n"), said.stdout


def test_a_tried_change_stays_out_of_the_tables(copy):
    before = copy.records()
    said = copy.cli("run", "alpha/plain", "--tier", "smoke", "--seeds", "0,", "--set", "recipe.lr=0.01")
    assert "alpha/plain seed 0" in said
    assert copy.records() == before
    assert (copy.root / "results" / "tried" / "smoke" / "runs" / "alpha" / "plain" / "seed0" / "run.json").exists()
