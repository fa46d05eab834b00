"""One tidy table of all runs: what it holds, who may load it, and what is aggregated from it."""

import csv
import io
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from reporting_factory import FAILED, METHODS, TASK, TASKS, describe_set, papers, provenance, record, write_results

from replications import reporting
from replications.errors import UserError
from replications.records import HistoryPoint, read_run, write_record
from replications.reporting import drawing, frame, plots, report, tables
from replications.reporting.leaderboard import leaderboards
from replications.reporting.results import Records, read_results
from replications.reporting.verify import verify
from replications.tasks.base import Metric

PAPERS = papers()
PUBLISHED = Path(__file__).parent.parent / "results" / "published"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, pairs=40)
    return results


@pytest.fixture(scope="module")
def table(made):
    return frame.tidy(read_results(made, "mini", PAPERS), PAPERS, TASKS)


def test_each_metric_of_each_run_has_one_row_and_a_failed_run_has_one_without(made, table):
    assert list(table.columns) == frame.COLUMNS and not table.duplicated(["address", "seed", "metric"]).any()
    expected = {}
    for path in made.glob("runs/*/*/seed*/run.json"):
        told = json.loads(path.read_text())
        address = f"{told['spec']['paper']}/{told['spec']['method']}"
        expected |= {(address, told["spec"]["seed"], name): value for name, value in told["metrics"].items()}
    finished = table[table["status"] == "finished"].set_index(["address", "seed", "metric"])
    assert finished["value"].to_dict() == expected
    (failed,) = table[table["status"] == "failed"].itertuples()
    assert (failed.address, failed.seed, failed.reason) == (*FAILED, "diverged")
    assert pd.isna(failed.metric) and math.isnan(failed.value) and failed.cost_total_seconds == 12


def test_a_row_says_what_the_value_is_and_where_it_is_from(table):
    row = table.set_index(["address", "seed", "metric"]).loc["arcface/margin_0.3", 1, "angle"]
    run = record("arcface/margin_0.3", 1, pairs=40)[0]
    assert (row["unit"], row["direction"], row["scale"], row["role"]) == ("degrees", "lower", "linear", "ablation")
    assert (row["paper"], row["method"], row["task"]) == ("arcface", "margin_0.3", "face_verification")
    assert (row["tier"], row["category"]) == ("mini", "unrestricted, labelled outside data")
    assert row["test_data"] == "procedural faces (mini)" and row["fingerprint"] == run.fingerprint
    assert row["cost_train_seconds"] == run.cost.train_seconds and row["cpu"] == run.provenance.cpu
    roles = table.groupby("paper")["role"].unique()
    assert set(roles["deepface"]) == {"baseline"}, "a baseline's methods are baselines"


def test_the_tiers_folder_has_it_as_csv_and_a_changed_number_shows(made, table, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "draw", lambda *args: {})
    shutil.copytree(made, tmp_path / "mini")
    report.build(tmp_path / "mini", "mini", PAPERS, tasks=TASKS, describe_set=describe_set, seeds=3)
    path = tmp_path / "mini" / "runs.csv"
    told = pd.read_csv(path)
    assert told["value"].equals(table["value"]) and told["address"].tolist() == table["address"].tolist()
    assert verify(tmp_path / "mini", "mini", PAPERS, tasks=TASKS, describe_set=describe_set) == []
    value = table["value"][0]
    path.write_text(path.read_text().replace(f",{value},", f",{value + 1},", 1))
    (line,) = verify(tmp_path / "mini", "mini", PAPERS, tasks=TASKS, describe_set=describe_set)
    assert line.startswith("runs.csv") and str(value + 1) in line


def test_a_plumbing_tiers_csv_is_stamped(made):
    records = read_results(made, "mini", PAPERS)
    rows = list(csv.DictReader(io.StringIO(report.runs_csv(records, PAPERS, TASKS, False))))
    assert {row["stamp"] for row in rows} == {"not a result"} and len(rows) > 200


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PUBLISHED.glob("*-rooms-*/report.json")))
def test_a_publication_is_loaded(folder):
    table = reporting.load(PUBLISHED / folder)
    assert set(table["task"]) == {"detection_3d"} and table["value"].notna().all()
    board = json.loads((PUBLISHED / folder / "leaderboard_detection_3d.json").read_text())
    means = table.groupby(["address", "metric"])["value"].mean()
    for row in board["rows"]:
        values = row["metrics"][board["primary_metric"]]["values"].values() if row["metrics"] else ()
        if values:
            assert means[row["address"], board["primary_metric"]] == pytest.approx(statistics.mean(values))
    claims = reporting.load_claims(PUBLISHED / folder).set_index("address")
    published = json.loads((PUBLISHED / folder / "claims.json").read_text())["verdicts"]
    assert {f"{v['paper']}/{v['claim']}": v["adjusted"] for v in published} == claims["adjusted"].to_dict()


def test_a_record_that_cannot_be_read_is_a_warning(tmp_path):
    paths = [tmp_path / f"mini/runs/arcface/arcface/seed{seed}/run.json" for seed in range(3)]
    for seed, path in enumerate(paths):
        write_record(record("arcface/arcface", seed, pairs=20)[0], path)
    paths[1].write_text("{")
    with pytest.warns(UserWarning, match=r"arcface/seed1/run\.json is not a RunRecord"):
        table = reporting.load(tmp_path / "mini")
    assert set(table["seed"]) == {0, 2}


@pytest.mark.parametrize("load", [reporting.load, reporting.load_claims])
def test_what_is_no_results_folder_is_one_clear_line(load, tmp_path):
    with pytest.raises(UserError, match="no record below"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"no folder .*nosuch: give results/<tier>"):
        load(str(tmp_path / "nosuch"))


def test_no_record_at_all_is_an_empty_table():
    assert frame.tidy(Records(tier="mini"), PAPERS, TASKS).empty
    assert leaderboards(Records(tier="mini"), PAPERS, TASKS, True) == []


@pytest.mark.parametrize("module", ["replications.reporting", "replications.planning.front", "replications.running"])
def test_only_a_report_pays_for_pandas(module):
    code = f"import {module}, sys; print({{'pandas', 'seaborn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------ aggregation


def with_values(metric: Metric, **values: tuple[float, ...]):
    """The leaderboard's row of each method, whose seeds have these values."""
    task = SimpleNamespace(**{**vars(TASK), "metrics": {"x": metric, "accuracy": TASK.metrics["accuracy"]}})
    runs = {}
    for name, own in values.items():
        runs[f"arcface/{name}"] = {}
        for seed, value in enumerate(own):
            run = record(f"arcface/{name}", seed, pairs=20)[0]
            run.metrics["x"] = value
            runs[f"arcface/{name}"][seed] = run
    records = Records(tier="mini", runs=runs, seeds=(0, 1, 2))
    board = leaderboards(records, PAPERS, {"face_verification": task}, True)[0]
    return board, {row.method: row.metrics["x"] for row in board.rows}


def test_sizes_whose_noise_is_a_factor_have_geometric_means():
    """1, 2 and 4: mean 2, and exp(t ln 2 / sqrt 3) with t = 4.302653 of two degrees of freedom."""
    board, cells = with_values(Metric("Step", "s", False, "", scale="log"), arcface=(1.0, 2.0, 4.0), softmax=(3.0,) * 3)
    cell = cells["arcface"]
    assert cell.mean == pytest.approx(2) and cell.half_width is None
    assert cell.factor == pytest.approx(math.exp(4.302653 * math.log(2) / math.sqrt(3)), rel=1e-6)
    assert cell.interval == pytest.approx((2 / cell.factor, 2 * cell.factor))
    assert (cells["softmax"].mean, cells["softmax"].factor) == (3.0, None), "no interval without spread"
    shown = {key: row[1].text for _, rows in tables.quality_table(board).sections for key, row in rows}
    assert shown["arcface/arcface"] == "2.00 ×/÷ 5.59" and shown["arcface/softmax"] == "3.00"
    assert "geometric mean" in " ".join(tables.quality_table(board).notes)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_other_values_have_the_mean_and_its_t_interval(scale):
    values = (0.0, 2.0, 7.0)  # no logarithm of 0
    _, cells = with_values(Metric("Size", "", True, "", scale=scale), arcface=values)
    reach = 4.302653 * statistics.stdev(values) / math.sqrt(3)
    assert (cells["arcface"].mean, cells["arcface"].factor) == (3.0, None)
    assert cells["arcface"].half_width == pytest.approx(reach, rel=1e-6)
    assert cells["arcface"].values == dict(enumerate(values))


def test_costs_are_means_and_maxima_of_what_is_known():
    runs = {seed: record("arcface/arcface", seed, pairs=20)[0] for seed in range(3)}
    for seed, (parameters, seconds, wait) in enumerate(((10, 20.0, 1.0), (30, 40.0, None), (None, None, None))):
        runs[seed].cost = runs[seed].cost.model_copy(
            update={"parameters": parameters, "train_seconds": seconds, "data_wait_seconds": wait, "total_seconds": 36}
        )
    runs[2].provenance = None
    runs[1].provenance = provenance(device="Example GPU", device_kind="cuda")
    board = leaderboards(Records(tier="mini", runs={"arcface/arcface": runs}), PAPERS, TASKS, True)[0]
    cost = board.rows[0].cost
    assert (cost.parameters, cost.train_seconds, cost.data_wait, cost.energy_joules) == (30, 30.0, 0.05, None)
    assert (cost.cpu_hours, cost.gpu_hours) == (pytest.approx(0.01), pytest.approx(0.01))


def test_every_method_of_a_report_has_the_numbers_of_numpy(made, table):
    rows = {row.address: row for row in leaderboards(read_results(made, "mini", PAPERS), PAPERS, TASKS, True)[0].rows}
    for address in METHODS:
        runs = [read_run(path) for path in sorted(made.glob(f"runs/{address}/seed*/run.json"))]
        finished = [run for run in runs if run.status == "finished"]
        for key, cell in rows[address].metrics.items():
            values = [run.metrics[key] for run in finished]
            assert cell.mean == pytest.approx(np.mean(values)) and cell.sd == pytest.approx(np.std(values, ddof=1))
        if runs:
            spent = sum(run.cost.total_seconds for run in runs) / 3600
            assert rows[address].cost.cpu_hours == pytest.approx(spent)


# ------------------------------------------------------------------ plots


def test_every_seed_is_a_dot_and_the_line_is_the_interval():
    metric = Metric("Step", "s", False, "", scale="log")
    board, cells = with_values(metric, arcface=(1.0, 2.0, 4.0), softmax=(3.0, 5.0, 6.0))
    board = board.model_copy(update={"primary_metric": "x"})
    (axes,) = plots.seeds_plot(board).axes
    dots = [tuple(at) for drawn in axes.collections if isinstance(drawn, PathCollection) for at in drawn.get_offsets()]
    places = {label.get_text(): place for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    for name, cell in cells.items():
        y = places[f"arcface/{name}"]
        assert {x for x, own in dots if own == y} == set(cell.values.values())
        ends = [drawn.get_segments()[0][:, 0] for drawn in axes.collections if isinstance(drawn, LineCollection)]
        assert any(end == pytest.approx(cell.interval) for end in ends)
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "Step (s), lower is better"
    one_seed, _ = with_values(Metric("Step", "s", False, ""), arcface=(1.0,))
    assert plots.seeds_plot(one_seed.model_copy(update={"primary_metric": "x"})) is None


def test_training_curves_reach_over_the_steps_that_every_seed_logged():
    runs = {seed: record("arcface/arcface", seed, pairs=20)[0] for seed in range(3)}
    for seed, run in runs.items():
        run.history = [
            HistoryPoint(stage="train", step=10 * i, epoch=i, split="train", values={"loss": float(1 + i + seed**2)})
            for i in range(4 - (seed == 2))
        ]
    records = Records(tier="mini", runs={"arcface/arcface": runs})
    board = leaderboards(records, PAPERS, TASKS, True)[0]
    history = plots.history(records, ["arcface/arcface"])
    assert len(history) == 11 and plots.quantities(board, history) == [("train", "train", "loss")]
    (axes,) = plots.training_curves(board, history, "train", "train", "loss").axes
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata() == pytest.approx([i + 1 + 5 / 3 for i in range(3)])
    (band,) = axes.collections
    assert (band.get_datalim(axes.transData).y0, band.get_datalim(axes.transData).y1) == (1.0, 7.0)
    assert plots.training_curves(board, history, "train", "train", "nosuch") is None
