"""Leaderboards and tables: what a row says of its seeds, what may be ranked, and what each format holds."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib import get_data_path
from reporting_factory import FAILED, METHODS, MISSING, TASK, TASKS, failed, papers, provenance, record, throughput

from replications import catalogue
from replications.records import write_record
from replications.reporting import formats, labels, report, tables
from replications.reporting.leaderboard import heading, leaderboards
from replications.reporting.results import Records, read_results
from replications.tasks.base import Metric

PAPERS = papers()
PUBLISHED = Path(__file__).parent.parent / "results" / "published"


def records_with(*addresses: str, seeds: int = 3) -> Records:
    runs = {a: {seed: record(a, seed, pairs=40)[0] for seed in range(seeds)} for a in addresses}
    return Records(tier="mini", runs=runs, seeds=tuple(range(seeds)))


def board_of(records: Records, result: bool = True):
    return leaderboards(records, PAPERS, TASKS, result)[0]


@pytest.fixture(scope="module")
def board():
    records = records_with(*(a for a in METHODS if a != MISSING))
    records.runs[FAILED[0]][FAILED[1]] = failed(*FAILED)
    records.expected = tuple(METHODS)
    return board_of(records)


def test_a_row_says_what_became_of_its_seeds(board):
    rows = {row.address: row for row in board.rows}
    assert rows["arcface/arcface"].status == "3/3"
    assert rows[FAILED[0]].status == "2/3, 1 diverged"
    assert rows[FAILED[0]].metrics["accuracy"].n == 2
    assert rows[MISSING].status == "missing" and rows[MISSING].missing == [0, 1, 2]
    assert len(rows) == len(METHODS), "a missing method has a row too"
    gone = records_with("arcface/arcface")
    del gone.runs["arcface/arcface"][1]
    assert board_of(gone).rows[0].status == "2/3, 1 missing"


def test_rows_are_grouped_by_role_and_ordered_by_the_primary_metric(board):
    sections = tables.quality_table(board).sections
    assert [title.split(" — ")[0] for title, _ in sections] == ["Methods", "Baselines", "Ablations"]
    assert "unrestricted, labelled outside data" in sections[0][0]
    for _, rows in sections:
        means = [cells[1].value for _, cells in rows if cells[1].value is not None]
        assert means == sorted(means, reverse=True)
    assert sections[2][1][-1][0] == MISSING


def test_categories_and_test_sets_are_never_in_one_section():
    records = records_with("arcface/arcface", "arcface/softmax")
    for seed, run in records.runs["arcface/softmax"].items():
        records.runs["arcface/softmax"][seed] = run.model_copy(update={"category": "another"})
    records.expected = (MISSING,)
    titles = [title for title, _ in board_of(records).sections()]
    assert len(titles) == 3 and titles[-1] == "No finished run"


def test_no_interval_without_spread():
    records = records_with("lfw_protocol/eigenfaces")
    cell = board_of(records).rows[0].metrics["accuracy"]
    assert (cell.sd, cell.half_width) == (0, None)
    cell = board_of(records_with("arcface/arcface", seeds=1)).rows[0].metrics["accuracy"]
    assert (cell.sd, cell.half_width, cell.n) == (None, None, 1)


def test_hours_are_of_threads_on_a_cpu_and_of_devices_on_a_gpu():
    records = records_with("arcface/arcface", seeds=1)
    run = records.runs["arcface/arcface"][0]
    run.cost.total_seconds, run.cost.processes = 1800.0, 2
    run.provenance = provenance(threads=4)
    cost = board_of(records).rows[0].cost
    assert (cost.cpu_hours, cost.gpu_hours) == (4.0, None)
    run.provenance = provenance(device="Example GPU", device_kind="cuda", threads=4)
    cost = board_of(records).rows[0].cost
    assert (cost.cpu_hours, cost.gpu_hours, cost.device) == (None, 1.0, "Example GPU")


def test_failed_runs_cost_too():
    records = records_with("arcface/arcface", seeds=1)
    before = board_of(records).rows[0].cost.cpu_hours
    records.runs["arcface/arcface"][1] = failed("arcface/arcface", 1)
    assert board_of(records).rows[0].cost.cpu_hours == pytest.approx(before + 12 / 3600)


def test_throughput_is_not_ranked_across_classes():
    records = records_with("arcface/arcface", "arcface/softmax")
    records.throughput = {"arcface/arcface": throughput("arcface/arcface", mfu=0.41)}
    records.throughput["arcface/softmax"] = throughput("arcface/softmax")
    same = tables.cost_table(board_of(records))
    column = [c.key for c in same.columns].index("train_samples_per_second")
    assert same.columns[column].sortable
    for change in ({"precision": "bf16"}, {"batch_size": 128}, {"provenance": provenance(cpu="Another CPU")}):
        records.throughput["arcface/softmax"] = throughput("arcface/softmax", **change)
        mixed = tables.cost_table(board_of(records))
        assert not mixed.columns[column].sortable
        shown = {key: cells[column].text for _, rows in mixed.sections for key, cells in rows}
        assert {text[-3:] for text in shown.values()} == {"(a)", "(b)"}, "each rate names its class"
        assert "not ranked" in " ".join(mixed.notes)
    mfu = [c.key for c in same.columns].index("mfu")
    assert {cells[mfu].text for _, rows in same.sections for _, cells in rows} == {"41.0", ""}


def test_csv_and_json_hold_full_precision(board):
    row = next(r for r in board.rows if r.address == "arcface/arcface")
    lines = {line["address"]: line for line in csv.DictReader(io.StringIO(formats.leaderboard_csv(board)))}
    assert float(lines["arcface/arcface"]["accuracy_mean"]) == row.metrics["accuracy"].mean
    assert float(lines["arcface/arcface"]["cost_cpu_hours"]) == row.cost.cpu_hours
    assert lines["arcface/arcface"]["category"] == row.category and lines[MISSING]["status"] == "missing"
    told = json.loads(formats.leaderboard_json(board))
    assert type(board).model_validate(told) == board


def test_markdown_and_latex_have_a_cell_for_each_column(board):
    table = tables.quality_table(board)
    for line in formats.to_markdown([table]).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(table.columns) + 1
    latex = formats.to_latex([table])
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == len(METHODS) + 1
    columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", latex)[1]
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 for line in rows)
    assert r"margin\_0.7" in latex and r"$\pm$" in latex
    assert all(ord(character) < 128 for character in latex), "plain pdflatex must read it"


def text_width(text: str, points: float = 8) -> float:
    """Width in points by the metrics of Computer Modern, which is 1.07 times as wide for its size at 8 pt as at 10."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(fname=f"{get_data_path()}/fonts/ttf/cmr10.ttf", size=points)
    plain = re.sub(r"\\(?=[%_&#])|[{}]", "", re.sub(r"\$\\?[a-z]+\$", "w", text)).replace("$", "")
    return 1.07 * TextToPath().get_text_width_height_descent(plain, font, False)[0]


def wide_board():
    """Twelve metrics of long titles."""
    titled = {f"m{i}": Metric(f"Mean average precision of part {i}", "%", True, "") for i in range(12)}
    timed = SimpleNamespace(**{**vars(TASK), "metrics": {**titled, "accuracy": TASK.metrics["accuracy"]}})
    records = records_with(*(a for a in METHODS if a != MISSING))
    for runs in records.runs.values():
        for seed, run in runs.items():
            run.metrics |= {key: 100.0 + seed for key in titled}
    return leaderboards(records, PAPERS, {"face_verification": timed}, True)[0]


def latex_widths(latex: str) -> list[float]:
    """How wide each table is: sentences as their column says, other cells by their letters."""
    found = []
    for body in re.findall(r"\\begin\{tabular\}\{(.*?@\{\})\}(.*?)\\end\{tabular\}", latex, re.S):
        kinds = re.findall(r"[lr]|p\{\d+pt\}", body[0].replace("@{}", ""))
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        rows = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
        assert all(len(row) == len(kinds) for row in rows)
        total = 0
        for column, kind in enumerate(kinds):
            cells = [re.sub(r"\\shortstack\[.\]", "", row[column]) for row in rows]
            widest = max(text_width(part.strip()) for cell in cells for part in cell.split(r"\\"))
            total += float(kind[2:-3]) if kind[0] == "p" else widest
        found.append(total + 6 * (len(kinds) - 1))
    return found


def test_latex_fits_the_text_of_a_page_in_8_points(board):
    """469 pt: the text width of A4 with margins of an inch, and nothing is shrunk to reach it."""
    _, _, verdicts, _ = report.derive(PUBLISHED / "mini-faces-cpu", "mini", catalogue.papers(), methods=())
    shown = [tables.quality_table(board), tables.cost_table(board), tables.quality_table(wide_board())]
    latex = formats.to_latex([*shown, tables.claims_table(verdicts, "mini", True)])
    assert "resizebox" not in latex and set(re.findall(r"\\fontsize\{(\d+)\}", latex)) == {"8"}
    widths = latex_widths(latex)
    assert len(widths) == 4 and all(300 < width <= 469 for width in widths), widths
    quality, _, wide, claims = latex.split(r"\begin{table*}")[1:]
    for text in (quality, wide):
        assert r"\shortstack[r]{Accuracy\\(\%)" in text and "& Seeds" in text, "what matters stays"
    assert "Not shown here: Mean average precision of part" in wide
    header = claims.split(r"\toprule")[1].splitlines()[1]
    assert all(word in header for word in ("Claim", "Verdict", "Effect", "interval", "Reported"))


def test_a_heading_wider_than_its_table_is_set_in_lines():
    columns = [tables.Column("one", "Method", numeric=False), tables.Column("two", "Two")]
    rows = [("row", [tables.Cell("a/b"), tables.Cell("1", 1.0)])]
    table = tables.Table("t", "T", columns, [(", ".join(f"task.option_{i}={i}" for i in range(9)), rows), ("a", rows)])
    latex = formats.to_latex([table])
    kinds = re.findall(r"\\multicolumn\{2\}\{@\{\}(l|p\{(\d+)pt\})@\{\}\}\{(.*)\} ", latex)
    assert [kind for kind, _, _ in kinds][1] == "l" and 0 < int(kinds[0][1]) < 100
    assert kinds[0][2].count(r",\allowbreak") == 8


def test_latex_escapes_what_tex_would_read():
    assert formats.latex_escape(r"50% & a_b {#$} ~^\ ≤ θ") == (
        r"50\% \& a\_b \{\#\$\} \textasciitilde{}\textasciicircum{}\textbackslash{} $\leq$ $\theta$"
    )


def test_everything_of_a_plumbing_tier_is_stamped(tmp_path):
    write_record(record("arcface/arcface", 0, "smoke", pairs=40)[0], tmp_path / "runs/arcface/arcface/seed0/run.json")
    _, boards, verdicts, result = report.derive(tmp_path, "smoke", PAPERS, tasks=TASKS)
    assert not result
    for name, text in report.table_files(boards, verdicts, "smoke", result).items():
        assert labels.NOT_A_RESULT in text.lower(), name
    assert {v.adjusted for v in verdicts} == {"not tested"}


def test_damaged_and_foreign_records_are_named_and_left_out(tmp_path):
    def path(address, seed):
        return tmp_path / f"runs/{address}/seed{seed}/run.json"

    for seed in range(2):
        write_record(record("arcface/arcface", seed, pairs=40)[0], path("arcface/arcface", seed))
    path("arcface/softmax", 0).parent.mkdir(parents=True)
    path("arcface/softmax", 0).write_text('{"kind": "run"')
    write_record(record("arcface/softmax", 1, "standard", pairs=40)[0], path("arcface/softmax", 1))
    write_record(record("arcface/softmax", 2, pairs=40)[0], path("arcface/withdrawn", 2))
    changed = record("arcface/arcface", 2, pairs=40)[0].model_copy(update={"code_fingerprint": "other"})
    write_record(changed, path("arcface/arcface", 2))
    records = read_results(tmp_path, "mini", PAPERS, seeds=3)
    assert list(records.runs) == ["arcface/arcface"]
    told = "\n".join(records.problems)
    for expected in (
        "softmax/seed0",
        "softmax/seed1",
        "withdrawn/seed2",
        "arcface/arcface: its seeds differ in their code",
    ):
        assert expected in told
    assert str(tmp_path) not in told, "a page that travels names no folder of this machine"


def test_rows_stop_at_different_looks(tmp_path):
    """Only softmax went on to five seeds; of arcface none is missing, and its seed 3, of older code, does not count."""
    seeds = {"arcface/softmax": range(5), "arcface/arcface": range(4), "cosface/cosface": (0, 1, 2, 3)}
    for address, of_row in seeds.items():
        for seed in of_row:
            made = record(address, seed, pairs=40)[0]
            old = {"code_fingerprint": "old"} if (address, seed) == ("arcface/arcface", 3) else {}
            write_record(made.model_copy(update=old), tmp_path / f"runs/{address}/seed{seed}/run.json")
    records, boards, verdicts, _ = report.derive(tmp_path, "mini", PAPERS, tasks=TASKS, methods=list(seeds))
    rows = {row.address: row.status for row in boards[0].rows}
    assert rows == {
        "arcface/softmax": "5/5",
        "arcface/arcface": "3/3",
        "cosface/cosface": "4/5, 1 missing",
    }
    assert "arcface/arcface: seed 3 left out, not of the first look's code (run again, or delete what is left out)" in (
        records.problems
    )
    tested = [v for v in verdicts if (v.subject, v.reference) == ("arcface/arcface", "arcface/softmax")]
    assert tested and all(v.adjusted != "not tested" and v.seeds == (0, 1, 2) for v in tested)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (999.9, "1.00 k"), (1234, "1.23 k"), (95e6, "95.0 M"), (2.5e9, "2.50 G"), (0.05, "0.0500")],
)
def test_short_numbers(value, text):
    assert labels.short(value) == text


@pytest.mark.parametrize(
    ("title", "unit", "shown"),
    [("Step", "s", "Step (s)"), ("Top-1", "%", "Top-1 (%)"), ("Share in %", "%", "Share in %"), ("AUC", "", "AUC"),
     ("Training TFLOP", "TFLOP", "Training TFLOP"), ("Mixed", "x", "Mixed (x)"),
     ("Angle, degrees", "degrees", "Angle, degrees")],
)  # fmt: skip
def test_a_unit_is_named_once(title, unit, shown):
    assert labels.with_unit(title, unit) == shown


def test_effects_are_written_with_their_sign():
    assert labels.effect(0.314, "difference") == "+0.31"
    assert labels.effect(-0.314, "difference") == "−0.31"
    assert labels.effect(-0.001, "difference") == "0.00"
    assert labels.effect(1.25, "ratio") == "×1.25"
    assert [labels.effect(x, "difference", 12) for x in (2.13e-13, -2.13e-13, 0.0)] == ["+2.1e-13", "−2.1e-13", "0"]
    few = [labels.effect(x, "ratio", 3) for x in (0.0612, 0.0101, 0.00997, 0.00617, 0.000124, 0.0000123)]
    assert few == ["×0.061", "×0.010", "×0.010", "×0.0062", "×0.00012", "×1.2e-05"], "a quotient is never 0"
    assert [labels.effect(x, "ratio", 3) for x in (9.99, 10.254, 142.248, 6857.08)] == [
        "×9.990",
        "×10.25",
        "×142.2",
        "×6857",
    ]


# ------------------------------------------------------------------ load by others


def with_loads(*loads: float | None):
    addresses = list(METHODS)[: len(loads)]
    records = records_with(*addresses, seeds=1)
    records.throughput = {a: throughput(a, background_load=x, mfu=0.5) for a, x in zip(addresses, loads, strict=True)}
    return board_of(records)


def rate_cells(board, key: str = "train_samples_per_second") -> dict[str, str]:
    table = tables.cost_table(board)
    place = [column.key for column in table.columns].index(key)
    return {address: cells[place].text for _, rows in table.sections for address, cells in rows}


def test_the_cost_table_says_what_the_records_say_of_others_on_the_machine():
    quiet = with_loads(0.02, 0.064)
    note = tables.cost_table(quiet).notes[0]
    assert "alone" not in note and note.endswith("Others used 2 to 6 % of the machine meanwhile.")
    assert not any("†" in text for text in rate_cells(quiet).values())
    unknown = tables.cost_table(with_loads(0.02, None)).notes[0]
    assert unknown.endswith("Of 1 of 2 rows the load by others is not known.")


@pytest.mark.parametrize(("load", "marked"), [(0.2, False), (0.21, True), (0.69, True)])
def test_a_figure_taken_beside_others_is_marked_and_not_ranked(load, marked):
    busy = with_loads(0.02, load)
    address = list(METHODS)[1]
    for key in ("train_samples_per_second", "inference_samples_per_second", "mfu"):
        assert {a for a, text in rate_cells(busy, key).items() if "†" in text} == ({address} if marked else set())
    table = tables.cost_table(busy)
    assert {c.sortable for c in table.columns if c.key in ("train_samples_per_second", "mfu")} == {not marked}
    assert ("† more than 20 %" in table.notes[0]) == marked
    speed = {row["address"]: row["speed"] for row in json.loads(formats.leaderboard_json(busy))["rows"]}
    assert speed[address]["background_load"] == load


def test_times_of_runs_beside_others_are_marked():
    timed = SimpleNamespace(
        **{**vars(TASK), "metrics": {**TASK.metrics, "ms": Metric("Step", "ms", False, "", timed=True)}}
    )
    records = records_with("arcface/arcface", "arcface/softmax", seeds=2)
    for address, load in (("arcface/arcface", 0.5), ("arcface/softmax", 0.1)):
        for run in records.runs[address].values():
            run.metrics["ms"], run.cost.background_load = 3.0 + run.spec.seed, load
    table = tables.quality_table(leaderboards(records, PAPERS, {"face_verification": timed}, True)[0])
    place = [column.key for column in table.columns].index("ms")
    found = {address: cells[place].text for _, rows in table.sections for address, cells in rows}
    assert found["arcface/arcface"].endswith("†") and not found["arcface/softmax"].endswith("†")
    assert "†" not in next(c[1].text for _, rows in table.sections for _, c in rows)
    assert "Others used 10 to 50 % of the machine meanwhile. †" in " ".join(table.notes)


@pytest.mark.parametrize(("title", "category", "shown"), [
    ("Procedural scenes, mini", "Procedural scenes, mini", "Procedural scenes, mini"),
    ("Procedural pictures, mini", "Procedural pictures, mini, 24 px", "Procedural pictures, mini, 24 px"),
    ("Procedural rooms", "Procedural rooms: oriented boxes", "Procedural rooms: oriented boxes"),
    ("Procedural faces, mini", "procedural faces, unrestricted", "Procedural faces, mini · unrestricted"),
    ("ModelNet10 (voxel-derived)", "modelnet10_voxel: 256 points", "ModelNet10 (voxel-derived) · 256 points"),
    ("shapes_mini", "shapes_mini: 128 points", "shapes_mini · 128 points"),
    ("LFW, 112x112", "unrestricted, no outside data", "LFW, 112x112 · unrestricted, no outside data"),
    ("LFW", "LFWA, aligned", "LFW · LFWA, aligned"),
    ("", "bytes of imdb_text", "bytes of imdb_text"),
    ("LFW", None, "LFW"),
])  # fmt: skip
def test_a_heading_names_the_set_once(title, category, shown):
    assert heading(title, category) == shown


NASTY = 'a|b & 5 % of _x_ *y* `z` <script>alert("1")</script>\n\n$#{}~^\\| [k](l_m)'


def test_what_a_title_holds_breaks_no_format():
    table = tables.Table(
        "nasty", NASTY, [tables.Column("one", NASTY, numeric=False), tables.Column("two", "Two")],
        [(NASTY, [("row", [tables.Cell(NASTY), tables.Cell("1", 1.0)])])], [NASTY], NASTY,
    )  # fmt: skip
    text = formats.to_markdown([table])
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3 for row in rows), (
        "three cell borders"
    )
    assert not re.search(r"(?<!\\)(?:\\\\)*(<[A-Za-z/]|\*(?!\*)(?<!\*\*)|`)", text.replace("**", "")), (
        "no tag, emphasis, code"
    )
    assert sum(bool(line) for line in text.splitlines()) == 7, (
        "title, stamp, heading, three rows and a note, a line each"
    )
    assert "[k](l_m)" in text, "links stay links, and a _ within a word stays as it is"
    latex = formats.to_latex([table])
    assert "\n\n" not in latex.strip()
    bare = re.sub(r"\\[&%#_{}$]|\\\\(?=\n|$)|\$\\?[a-z<>]+\$", "", latex)
    body = bare.split(r"\toprule")[1]
    assert not re.search(r"[%#~^|]", body) and body.count("&") == 2, "all special characters are escaped"
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
