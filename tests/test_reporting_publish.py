"""Publishing a report, the README's section made from it, comparing two folders, and the terminal's view."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from reporting_factory import GIVEN, TASKS, describe_set, failed, papers, record, throughput, write_results

from replications.archive import ARCHIVE, record_files
from replications.errors import UserError
from replications.records import read_run, read_throughput, write_record
from replications.reporting import compare, drawing, formats, labels, publications, publish, report, summary, terminal
from replications.reporting.site import Plot
from replications.reporting.temporary import temporary_folder
from replications.reporting.verify import verify
from replications.tasks.base import Metric

PAPERS = papers()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results, pairs=200)

    def draw(folder, *args):
        (folder / "plots").mkdir()
        for name in ("claims.svg", "claims.png", "roc_face_verification.svg", "wrong_face_verification.svg"):
            (folder / "plots" / name).write_text(f"<svg><!-- {name} --></svg>")
        shown = ("claims", "roc_face_verification")
        made = [Plot(f"plots/{name}.svg", "", "", publish=True) for name in shown]
        return {"claims": made, "face_verification": [Plot("plots/wrong_face_verification.svg", "", "")]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", draw)
        report.build(results, "mini", PAPERS, **GIVEN, seeds=3)
    return results


@pytest.fixture
def results(made, tmp_path):
    shutil.copytree(made, tmp_path / "mini")
    return tmp_path / "mini"


def test_a_part_of_a_tier_is_published_with_its_own_records_only(results, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "draw", lambda *args: {})
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    rows = ["arcface/arcface", "cosface/cosface"]
    part = {"tier": "mini", "selected": ["arcface"], **GIVEN}
    target = publish.publish_part(results, tmp_path / "published", PAPERS, name="arcface", methods=rows, **part)
    held = {name.split("/seed")[0].removesuffix(".json") for name, _ in record_files(target)}
    assert held == {f"{kind}/{row}" for kind in ("runs", "throughput") for row in rows}
    assert {verdict["paper"] for verdict in json.loads((target / "claims.json").read_text())["verdicts"]} == {"arcface"}
    assert verify(target, "mini", PAPERS, **GIVEN) == []
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert [path.name for path in results.parent.iterdir() if path.name.startswith(".part-")] == []
    with pytest.raises(UserError, match="no record of arcface"):
        publish.publish_part(results, tmp_path / "published", PAPERS, methods=["arcface/none"], **part)


def test_a_publication_holds_records_and_tables_and_verifies(results, tmp_path):
    target = publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    assert target.name == "mini-2025-01-02", "the date of the records, not of today"
    held = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"claims.md", "leaderboard_face_verification.tex", "citations.bib", "report.json", ARCHIVE} <= held
    before, after = ({name: json.loads(read()) for name, read in record_files(x)} for x in (results, target))
    assert "runs/arcface/arcface/seed0/run.json" in before and "throughput/arcface/arcface.json" in before
    assert after == before and not any(name.startswith(("runs/", "throughput/")) for name in held)
    assert {name for name in held if name.startswith("plots/")} == {
        "plots/claims.svg", "plots/roc_face_verification.svg"
    }  # fmt: skip
    assert not any(name.endswith((".npz", ".png", ".html")) for name in held), "no scores, no pictures of data"
    assert verify(target, "mini", PAPERS, **GIVEN) == []
    with pytest.raises(UserError, match="published already"):
        publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    assert publish.publish(results, tmp_path / "published", PAPERS, name="again", **GIVEN).is_dir()


@pytest.mark.parametrize(
    ("new", "written"),
    [
        ("effect 0.1234567890124, n 3", False),
        ("effect 0.1234567000000, n 3", True),
        ("effect -0.1234567890123, n 3", True),
        ("effect 0.1234567890123, n 4", True),
        ("effect 0.1234567890123, n 3.0", True),
    ],
)
def test_last_digits_of_another_processor_do_not_rewrite_a_file(tmp_path, new, written):
    path = tmp_path / "claims.csv"
    path.write_text("effect 0.1234567890123, n 3")
    publish.write_if_changed(path, new)
    assert (path.read_text() == new) == written


def test_nothing_doubtful_is_published(results, tmp_path):
    path = results / "claims.json"
    path.write_text(path.read_text().replace('"contradicted"', '"reproduced"').replace('"p": 0', '"p": 1', 1))
    with pytest.raises(UserError, match="do not follow from the records"):
        publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    manifest = json.loads((results / "report.json").read_text())
    (results / "report.json").write_text(json.dumps({**manifest, "tier": "smoke"}))
    with pytest.raises(UserError, match="not a result"):
        publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    (results / "report.json").unlink()
    with pytest.raises(UserError, match="no report"):
        publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    assert not (tmp_path / "published").exists()


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/b", "", ".", "..", ".x", "a\0b", "x" * 200, "a b", "a\n", "-x", "..\\x", "ü", "\udcff"],
)
def test_the_name_of_a_publication_stays_in_its_folder(results, tmp_path, name):
    published = tmp_path / "deep" / "published"
    with pytest.raises(UserError, match="is not the name of a publication") as told:
        publish.publish(results, published, PAPERS, **GIVEN, name=name)
    assert "\n" not in str(told.value) and not published.exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "plots/../../outside.txt", "", "a\0.txt", 3])
def test_a_manifest_that_names_files_elsewhere_is_none(results, tmp_path, name):
    manifest = json.loads((results / "report.json").read_text())
    plot = {**manifest["plots"]["claims"][0], "file": name}
    for changed in ({"files": [*manifest["files"], name]}, {"plots": {"claims": [plot]}}):
        (results / "report.json").write_text(json.dumps({**manifest, **changed}))
        assert report.read_manifest(results) is None
    with pytest.raises(UserError, match="no report in"):
        publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)


MAKER = """
import sys, time
from pathlib import Path
from replications.reporting.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1]), ".report-") as folder:
    (folder / "x").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_folders_of_killed_reports_are_removed_and_of_living_ones_are_not(tmp_path):
    (tmp_path / ".report-other").write_text("a file")
    (tmp_path / ".publish-1").mkdir()
    makers = [subprocess.Popen([sys.executable, "-c", MAKER, tmp_path], stdout=subprocess.PIPE) for _ in range(2)]
    folders = [Path(maker.stdout.readline().decode().strip()) for maker in makers]
    try:
        makers[0].kill()
        makers[0].wait()
        with temporary_folder(tmp_path, ".report-") as folder:
            assert not folders[0].exists() and (folders[1] / "x").exists() and folder.is_dir()
        assert not folder.exists() and (tmp_path / ".report-other").exists() and (tmp_path / ".publish-1").exists()
    finally:
        makers[1].kill()
        makers[1].wait()
    with temporary_folder(tmp_path, ".report-") as folder:
        folder.rename(tmp_path / "shown")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".publish-1", ".report-other", "shown"]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\n=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        (-2.5, "-2.5"),
        (-1e-9, "-1e-09"),
        ("-2.5", "-2.5"),
        ("-2.5;3e-4;-1", "-2.5;3e-4;-1"),
        ("-2.5;=1", "'-2.5;=1"),
        ("a=b", "a=b"),
        ("", ""),
        (None, ""),
        (True, "True"),
    ],
)
def test_no_cell_of_a_table_is_a_formula_and_numbers_stay_numbers(cell, written):
    text = formats.to_csv(pd.DataFrame([[cell, "y"]], columns=["x", "z"], dtype=object), True)
    assert list(csv.reader(io.StringIO(text, newline="")))[1] == ["", written, "y"]


def test_a_title_that_is_a_formula_is_made_harmless_where_tables_are_written(results):
    boards = report.derive(results, "mini", PAPERS, tasks=TASKS)[1]
    row = boards[0].rows[0].model_copy(update={"title": "=HYPERLINK()"})
    board = boards[0].model_copy(update={"rows": (row,)})
    assert "'=HYPERLINK()" in formats.leaderboard_csv(board).split(",")


def test_the_readme_section_is_regenerated_between_its_markers(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Suite\n\n<!-- published:begin -->\nold\n<!-- published:end -->\n\nAfter.\n")
    publications.update_readme(readme, tmp_path / "published")
    assert "Nothing is published yet." in readme.read_text()
    publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    publications.update(tmp_path / "published", PAPERS, tasks=TASKS, describe_set=describe_set)
    publications.update_readme(readme, tmp_path / "published")
    text = readme.read_text()
    assert text.startswith("# Suite\n\n") and text.endswith("\n\nAfter.\n") and "old" not in text
    assert "[mini-2025-01-02](published/mini-2025-01-02)" in text
    verdicts = json.loads((results / "claims.json").read_text())["verdicts"]
    decided = [v["adjusted"] in ("reproduced", "contradicted") for v in verdicts]
    told = [f"| {v['paper']}/{v['claim']} | " in text for v in verdicts]
    assert told == decided and any(decided) and not all(decided)
    page = tmp_path / "published/mini-2025-01-02/README.md"
    board = json.loads((results / "leaderboard_face_verification.json").read_text())
    cell = board["rows"][0]["metrics"]["accuracy"]
    assert (
        f"{cell['mean']:.2f} ± {cell['half_width']:.2f}" in page.read_text() and "2/3, 1 diverged" in page.read_text()
    )
    assert all(f"| {v['paper']}/{v['claim']} | " in page.read_text() for v in verdicts)
    again = text, page.read_text()
    publications.update_readme(readme, tmp_path / "published")
    assert (readme.read_text(), page.read_text()) == again
    readme.write_text("# No markers\n")
    with pytest.raises(UserError, match="lacks the markers"):
        publications.update_readme(readme, tmp_path / "published")


def test_the_figure_of_the_claims_is_redrawn_where_they_say_something_else(results, tmp_path, monkeypatch):
    folder = publish.publish(results, tmp_path / "published", PAPERS, **GIVEN)
    drawn = []
    monkeypatch.setattr(publish, "_draw_claims", lambda folder, verdicts: drawn.append(folder))
    text = (folder / "claims.json").read_text(encoding="utf-8")
    effect = next(v["effect"] for v in json.loads(text)["verdicts"] if v["effect"])
    for factor, redrawn in ((1 + 1e-13, False), (1.01, True)):
        changed = text.replace(f'"effect": {effect!r}', f'"effect": {effect * factor!r}')
        assert changed != text
        (folder / "claims.json").write_text(changed, encoding="utf-8")
        publish.compact(folder, PAPERS, tasks=TASKS, describe_set=describe_set)
        assert bool(drawn) == redrawn


# ------------------------------------------------------------------ compare


def test_a_folder_does_not_differ_from_itself(results):
    same = compare.compare(results, results, PAPERS, TASKS)
    assert same.notes == [] and len(same.differences) and len(same.speeds)
    assert (same.differences["change"] == 0).all() and same.differences["identical"].equals(same.differences["n"])
    assert set(same.speeds["train_ratio"]) == {1.0}


def test_differences_are_paired_and_ratios_named_by_class(results, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(results, other)
    path = other / "runs/arcface/arcface/seed1/run.json"
    record = read_run(path)
    record.metrics["accuracy"] += 3.0
    write_record(record.model_copy(update={"code_fingerprint": "changed"}), path)
    shutil.rmtree(other / "runs/deepid/deepid")
    speed = read_throughput(other / "throughput/arcface/arcface.json")
    faster = {"train_samples_per_second": 2 * speed.train_samples_per_second, "batch_size": 128}
    write_record(throughput("arcface/arcface", **faster), other / "throughput/arcface/arcface.json")
    found = compare.compare(results, other, PAPERS, TASKS)
    row = found.differences.set_index(["address", "metric"]).loc["arcface/arcface", "accuracy"]
    assert (row.change, row.n, row.identical) == (pytest.approx(1.0), 3, 2)
    ratio = found.speeds.set_index("address").loc["arcface/arcface"]
    assert ratio.train_ratio == pytest.approx(2) and ratio.second_class.endswith("batch 128")
    notes = " ".join(found.notes)
    assert "arcface/arcface: different code" in notes and "no record of deepid/deepid" in notes
    text = formats.to_markdown(compare.comparison_tables(found))
    assert "+1.00 ± " in text and "×2.00" in text


def test_times_are_compared_as_ratios(tmp_path):
    """Seeds took 1, 2, 4 s and then 2, 4, 16 s: ratios 2, 2, 4, geometric mean 2^(4/3), SD of logs ln 2 / sqrt 3."""
    timed = SimpleNamespace(
        **{**vars(TASKS["face_verification"]), "metrics": {"s": Metric("Step", "s", False, "", scale="log")}}
    )
    for folder, values in (("a", (1, 2, 4)), ("b", (2, 4, 16))):
        for seed, value in enumerate(values):
            run = record("arcface/arcface", seed, pairs=20)[0]
            run.metrics = {"s": float(value)}
            write_record(run, tmp_path / folder / f"runs/arcface/arcface/seed{seed}/run.json")
    found = compare.compare(tmp_path / "a", tmp_path / "b", PAPERS, {"face_verification": timed})
    (told,) = found.differences.itertuples()
    assert (told.kind, told.change) == ("ratio", pytest.approx(2 ** (4 / 3)))
    assert (told.first, told.second) == (pytest.approx(2), pytest.approx(2 ** (7 / 3)))
    assert told.factor == pytest.approx(math.exp(4.302653 * math.log(2) / 3), rel=1e-6)
    assert "| 2.00 | 5.04 | ×2.520 ×/÷ 2.70 |" in formats.to_markdown(compare.comparison_tables(found))


def test_a_failure_in_one_folder_and_a_busy_machine_are_noted(results, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(results, other)
    write_record(failed("arcface/arcface", 1), other / "runs/arcface/arcface/seed1/run.json")
    write_record(throughput("arcface/arcface", background_load=0.69), other / "throughput/arcface/arcface.json")
    found = compare.compare(results, other, PAPERS, TASKS)
    assert "arcface/arcface: seed 1 failed in one folder only and left out" in found.notes
    told = found.speeds.set_index("address").loc["arcface/arcface"]
    assert "in use by others" not in told.first_class
    assert told.second_class.endswith("69% of the machine in use by others")


# ------------------------------------------------------------------ warnings


def test_a_warning_stands_on_the_card_in_the_table_and_in_the_files(results, monkeypatch):
    path = results / "runs/arcface/softmax/seed1/run.json"
    record = read_run(path)
    record.provenance.dirty = True
    write_record(record, path)
    monkeypatch.setattr(drawing, "draw", lambda *_: {})
    report.build(results, "mini", PAPERS, **GIVEN, seeds=3)
    warning = "uncommitted code: arcface/softmax seed 1"
    page = (results / "face_verification.html").read_text()
    card = page.partition('id="claim-arcface-C2"')[2].partition("</article>")[0]
    other = page.partition('id="claim-arcface-C1"')[2].partition("</article>")[0]
    assert f"Warning: {warning}." in card.partition("<details>")[0] and "Warning" not in other
    verdicts = {v["claim"]: v for v in json.loads((results / "claims.json").read_text())["verdicts"]}
    assert verdicts["C2"]["warnings"] == [warning] and verdicts["C1"]["warnings"] == []
    assert warning in (results / "claims.csv").read_text() and warning in (results / "claims.md").read_text()
    assert verify(results, "mini", PAPERS, **GIVEN) == []


def test_a_record_with_a_metric_that_is_not_finite_counts_as_failed(results):
    path = results / "runs/arcface/softmax/seed1/run.json"
    path.write_text(re.sub(r'"accuracy": [\d.]+', '"accuracy": NaN', path.read_text()))
    records, boards, verdicts, _ = report.derive(results, "mini", PAPERS, tasks=TASKS, seeds=3)
    assert any("softmax/seed1" in problem and "not a number" in problem for problem in records.problems)
    rows = {row.address: row for board in boards for row in board.rows}
    assert rows["arcface/softmax"].status == "2/3, 1 diverged"
    told = next(v for v in verdicts if v.address == "arcface/C2")
    assert (told.adjusted, told.reason) == ("inconclusive", "arcface/softmax diverged at seed 1")


def test_only_folders_of_one_tier_compare(results, tmp_path):
    with pytest.raises(UserError, match="no record below"):
        compare.compare(results, tmp_path / "empty", PAPERS, TASKS)
    write_results(tmp_path / "smoke", "smoke", seeds=1, pairs=20)
    with pytest.raises(UserError, match="of one tier"):
        compare.compare(results, tmp_path / "smoke", PAPERS, TASKS)


# ------------------------------------------------------------------ terminal


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_the_terminal_view_fits_its_width(results, width):
    _, boards, verdicts, _ = report.derive(results, "mini", PAPERS, tasks=TASKS, seeds=3)
    stream = io.StringIO()
    problems = ["a problem with [brackets]"]
    terminal.print_report(boards, verdicts, problems, [results / "index.html"], stream=stream, width=width)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue(), "no colours outside a terminal"
    tables = [line for line in lines if "index.html" not in line and "problem" not in line]
    assert max(map(len, tables)) <= width
    assert any("arcface/arcface" in line and "±" in line for line in lines)
    assert any("2/3, 1 diverged" in line for line in lines) and any("missing" in line for line in lines)
    assert any("arcface/C5" in line and "reproduced" in line for line in lines)
    of_papers = lines[lines.index("Verdicts in numbers") :]
    for name, own in [*summary.by_paper(verdicts).items(), ("all", verdicts)]:
        told = next(line.split() for line in of_papers if line.startswith(f"{name} "))
        assert told == [name, *map(str, summary.counts(own).values())]
    assert "problem: a problem with [brackets]" in lines and lines[-1].endswith("index.html")
    shown = next(line for line in lines if line.startswith("Method "))
    assert ("Angle" in shown) == (width == 200), "as many metrics as fit"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("tty", [False, True])
def test_a_claim_can_be_read_at_any_width(results, width, tty, monkeypatch):
    _, boards, verdicts, _ = report.derive(results, "mini", PAPERS, tasks=TASKS, seeds=3)
    stream = io.StringIO()
    stream.isatty = lambda: tty
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "50")
    monkeypatch.setenv("TERM", "xterm")
    terminal.print_report(boards, verdicts, [], [], stream=stream)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    told, undecided = text[text.index("Verdicts (") :].split("\nUndecided, by reason\n")
    for v in verdicts:
        assert (told.count(f"{v.address} "), undecided.count(v.address)) == (
            (0, 1) if v.adjusted == "not tested" else (1, 0)
        )
        if v.adjusted != "not tested":
            own = told[told.index(f"{v.address} ") :]
            parts = [
                labels.verdict(v.adjusted, v.raw),
                v.effect_text,
                labels.interval(v.interval, v.effect_kind, v.decimals),
            ]
            places = [own.index(part) for part in parts]  # each in one piece, near its claim
            assert places == sorted(places) and own[: places[-1]].count("\n") <= (2 if width == 40 else 1)
            words = " ".join(own[places[-1] + len(parts[-1]) :].split())
            assert words.startswith(v.statement)
    assert re.search(r"^ 1  not tested: no record of a method$\n^    deepface/A3$", undecided, re.M)


def test_undecided_claims_are_counted_by_reason(results):
    shutil.rmtree(results / "runs")
    _, boards, verdicts, _ = report.derive(results, "mini", PAPERS, tasks=TASKS, seeds=3)
    stream = io.StringIO()
    terminal.print_report(boards, verdicts, [], [], stream=stream, width=80)
    text = stream.getvalue()
    assert "Verdicts (" not in text and "10  not tested: no record of a method\n    arcface/C1, arcface/C2," in text
    assert " 1  not tested: tier mini cannot test it, only paper\n    arcface/C6\n" in text


def test_the_terminal_tells_warnings_in_short(results):
    for address, seed in (("arcface/softmax", 1), ("normface/normface", 0)):
        path = results / f"runs/{address}/seed{seed}/run.json"
        run = read_run(path)
        run.provenance.dirty = True
        write_record(run, path)
    _, boards, verdicts, _ = report.derive(results, "mini", PAPERS, tasks=TASKS, seeds=3)
    warned = [v.address for v in verdicts if v.warnings]
    assert warned == ["arcface/C2", "arcface/C4", "arcface/C5"]
    stream = io.StringIO()
    terminal.print_report(boards, verdicts, [], [], stream=stream, width=80)
    assert f"full\n3  uncommitted code\n   {', '.join(warned)}\n" in stream.getvalue()


def test_the_terminal_says_so_when_there_is_nothing():
    stream = io.StringIO()
    terminal.print_report([], [], [], [], stamp="NOT A RESULT", stream=stream)
    assert "NOT A RESULT" in stream.getvalue() and "No record yet" in stream.getvalue()
