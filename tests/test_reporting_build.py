"""The whole report: what it writes, that every number in it follows from the records, and that tampering shows."""

import json
import re
import shutil

import numpy as np
import pytest
from reporting_factory import DEVIATIONS, TASKS, describe_set, faces, papers, write_results

from replications import catalogue
from replications.errors import UserError
from replications.records import read_run, write_record
from replications.reporting import aside, citation, drawing, report
from replications.reporting.album import TierAlbum, pictures
from replications.reporting.verify import verify

PAPERS = papers()


def build(results, tier="mini", **changes):
    given = {"tasks": TASKS, "deviations": DEVIATIONS, "describe_set": describe_set, "seeds": 3}
    return report.build(results, tier, PAPERS, **{**given, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole report with every plot, made once."""
    results = tmp_path_factory.mktemp("results") / "mini"
    write_results(results)
    return results, build(results, open_arrays=lambda key: faces())


@pytest.fixture
def results(made, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(made[0], tmp_path / "mini")
    return tmp_path / "mini"


@pytest.fixture
def no_plots(monkeypatch):
    monkeypatch.setattr(drawing, "draw", lambda *args: {})


def test_everything_is_there(made):
    results, files = made
    assert all(path == results / name and path.stat().st_size > 100 for name, path in files.items())
    for name in ("leaderboard_face_verification", "claims"):
        assert {f"{name}.{ending}" for ending in ("csv", "md", "tex", "json")} <= set(files)
    plots = {name.removeprefix("plots/") for name in files if name.startswith("plots/")}
    stems = {
        "claims",
        "roc_face_verification",
        "cost_face_verification",
        "seeds_face_verification",
        "wrong_face_verification",
    }
    stems |= {f"training_face_verification_train_{what}" for what in ("train_loss", "validation_accuracy")}
    assert plots == {f"{stem}.{ending}" for stem in stems for ending in ("svg", "png")}
    assert not list(results.glob(".report-*")), "the temporary folder is gone"


def test_pictures_drawn_aside_are_the_same_in_the_same_order(made, tmp_path, monkeypatch):
    write_results(tmp_path / "mini")
    other = 1 if aside.cpu_count() > 1 else 3
    monkeypatch.setattr(aside, "cpu_count", lambda: other)
    files = build(tmp_path / "mini", open_arrays=lambda key: faces())
    assert list(files) == list(made[1])
    for name, path in files.items():
        assert path.read_bytes() == made[1][name].read_bytes(), name


def test_the_page_links_only_to_files_beside_it(made):
    results, _ = made
    html = (results / "index.html").read_text()
    targets = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert targets
    for target in targets:
        assert target == "data:," or (results / target).is_file(), target
    assert "url(" not in html and "@import" not in html
    assert str(results) not in html


def test_the_page_shows_deviations_in_words(made):
    html = (made[0] / "index.html").read_text()
    assert DEVIATIONS["arcface"][2] in html and DEVIATIONS["deepid"][1] in html


def test_a_fresh_report_verifies(made):
    assert verify(made[0], "mini", PAPERS, tasks=TASKS) == []


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} does not hold {old}"
    path.write_text(text.replace(old, new, 1))


def mean_of(results) -> float:
    board = json.loads((results / "leaderboard_face_verification.json").read_text())
    return next(r for r in board["rows"] if r["address"] == "arcface/arcface")["metrics"]["accuracy"]["mean"]


@pytest.mark.parametrize("ending", ["json", "csv", "md", "tex", "html"])
def test_a_number_changed_in_a_leaderboard_is_named(results, ending):
    mean = mean_of(results)
    if ending in ("json", "csv"):
        replace(results / f"leaderboard_face_verification.{ending}", str(mean), str(mean + 0.01))
    else:
        name = "index.html" if ending == "html" else f"leaderboard_face_verification.{ending}"
        replace(results / name, f"{mean:.2f} ", f"{mean + 0.01:.2f} ")
    wrong = verify(results, "mini", PAPERS, tasks=TASKS)
    assert wrong and all("arcface/arcface" in line.replace("\\_", "_") for line in wrong)
    assert re.search("accuracy", wrong[0], re.I), f"the line names the cell: {wrong[0]}"


@pytest.mark.parametrize("field", ["effect", "p_holm", "adjusted"])
def test_a_changed_verdict_is_named(results, field):
    claims = json.loads((results / "claims.json").read_text())
    verdict = next(v for v in claims["verdicts"] if v["claim"] == "C2")
    verdict[field] = "contradicted" if field == "adjusted" else verdict[field] * 1.001
    (results / "claims.json").write_text(json.dumps(claims))
    wrong = verify(results, "mini", PAPERS, tasks=TASKS)
    assert len(wrong) == 1 and wrong[0].startswith(f"claims.json: verdicts arcface/C2 {field}: ")


def test_a_number_changed_on_a_card_or_in_a_sort_value_is_named(results):
    page = results / "index.html"
    replace(page, "≈ inconclusive</span>", "✓ reproduced</span>")
    replace(page, f'data-value="{mean_of(results)}"', 'data-value="99.9"')
    wrong = verify(results, "mini", PAPERS, tasks=TASKS)
    assert len(wrong) == 2 and all(line.startswith("index.html: ") for line in wrong)


def test_a_changed_record_no_longer_gives_the_tables(results):
    path = results / "runs/arcface/arcface/seed1/run.json"
    record = read_run(path)
    record.metrics["accuracy"] += 1
    write_record(record, path)
    wrong = "\n".join(verify(results, "mini", PAPERS, tasks=TASKS))
    assert "leaderboard_face_verification.json: rows arcface/arcface metrics accuracy mean" in wrong
    assert "claims.json: verdicts arcface/C2 effect" in wrong


def test_metrics_are_scored_again_from_the_scores(results):
    path = results / "runs/deepid/deepid/seed0/arrays.npz"
    arrays = dict(np.load(path))
    arrays["score"] = arrays["score"][::-1]
    np.savez(path, **arrays)
    wrong = verify(results, "mini", PAPERS, tasks=TASKS)
    assert len(wrong) == 1 and wrong[0].startswith("runs/deepid/deepid/seed0/run.json: auc: ")


def test_without_a_report_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(UserError, match="no report"):
        verify(tmp_path, "mini", PAPERS, tasks=TASKS)


def test_no_record_at_all(tmp_path):
    files = build(tmp_path / "mini")
    assert "no record" in files["index.html"].read_text().lower()
    assert files["claims.csv"].read_text().count("not tested") >= 11
    assert verify(tmp_path / "mini", "mini", PAPERS, tasks=TASKS) == []


def test_only_failures(tmp_path, no_plots):
    write_results(tmp_path / "mini", pairs=40)
    for path in (tmp_path / "mini").glob("runs/*/*/seed*/run.json"):
        record = read_run(path)
        changed = {"status": "failed", "reason": "out of memory", "metrics": {}, "curves": {}, "history": []}
        write_record(record.model_copy(update=changed), path)
    files = build(tmp_path / "mini")
    assert "No run has finished yet" in files["index.html"].read_text()
    assert "0/3, 3 out of memory" in files["leaderboard_face_verification.md"].read_text()


def test_a_second_report_replaces_the_first(results, no_plots):
    foreign = results / "notes.txt"
    foreign.write_text("a person's own file")
    before = {path: path.read_bytes() for path in results.glob("claims.*")}
    files = build(results)
    assert {path: path.read_bytes() for path in results.glob("claims.*")} == before, "same records, same bytes"
    assert not list((results / "plots").iterdir()), "plots that are no longer made are gone"
    assert foreign.exists() and (results / "runs").exists() and "claims.md" in files


def test_only_the_claims_of_the_chosen_papers(results, no_plots):
    files = build(results, selected=["deepid"], methods=["deepid/deepid", "deepid/one_patch"])
    claims = json.loads(files["claims.json"].read_text())["verdicts"]
    assert {v["paper"] for v in claims} == {"deepid"}
    assert "missing" not in files["leaderboard_face_verification.md"].read_text()
    assert verify(results, "mini", PAPERS, tasks=TASKS) == [], "the report remembers what it was asked for"
    with pytest.raises(UserError, match="nosuch"):
        build(results, selected=["nosuch"])


def album(made, describe, open_arrays):
    records, boards, _, _ = report.derive(made[0], "mini", PAPERS, tasks=TASKS)
    return TierAlbum(boards[0], records, made[0], describe, open_arrays)


def test_photographs_are_never_drawn(made):
    opened = []
    shown = album(made, lambda key: {**describe_set(key), "kind": "public"}, opened.append)
    assert list(pictures("face_verification", shown)) == [] and opened == []
    drawn = list(pictures("face_verification", album(made, describe_set, lambda key: faces())))
    assert [picture.name for picture in drawn] == ["wrong"] and not drawn[0].publish


def test_an_album_finds_what_lies_beside_the_records(made):
    shown = album(made, describe_set, None)
    assert set(shown.addresses) == {*shown._looks} and shown.role("arcface/arcface") == "method"
    assert shown.arrays("arcface/arcface", 99) == {} and shown.runs("arcface/none") == {}
    assert "score" in shown.arrays("arcface/arcface", 0)
    assert shown.open_set("faces_mini") is None


def test_an_unwritable_folder_is_one_clear_line(tmp_path, no_plots):
    (tmp_path / "mini").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write the report"):
        build(tmp_path / "mini")


def test_citations_are_of_what_was_used(made):
    text = (made[0] / "citations.bib").read_text()
    assert "{arcface2019," in text and "@misc{faces_mini," in text and "@inproceedings{torch," in text
    assert "scikit-learn" not in text, "the records name no such package"
    assert text.count("@misc{faces_mini,") == 1
    keys = re.findall(r"@\w+\{([^,]+),", citation.LIBRARIES.read_text())
    assert len(keys) == len(set(keys)) and all(entry.count("{") == entry.count("}") for entry in [text])


def test_the_citation_file_is_the_generated_one():
    from pathlib import Path

    import yaml

    path = Path(__file__).parent.parent / "CITATION.cff"
    assert path.read_text() == citation.citation_cff()
    told = yaml.safe_load(path.read_text())
    assert {"cff-version", "message", "title", "authors", "version"} <= told.keys()


def test_whether_a_tier_is_a_result_is_said_by_its_config(made, monkeypatch):
    config = catalogue.tier_config("mini")
    assert report.derive(made[0], "mini", PAPERS, tasks=TASKS)[3]
    plumbing = config.model_copy(update={"result": False})
    monkeypatch.setattr(catalogue, "tier_config", lambda name: plumbing)
    _, _, verdicts, result = report.derive(made[0], "mini", PAPERS, tasks=TASKS)
    assert not result and all(verdict.raw == "not tested" and not verdict.result for verdict in verdicts)
