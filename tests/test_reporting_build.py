"""The whole report: what it writes, that every number in it follows from the records, and that tampering shows."""

import json
import re
import shutil

import numpy as np
import pytest
from reporting_factory import DEVIATIONS, GIVEN, TASKS, describe_set, faces, papers, write_results

from replications import catalogue
from replications.errors import UserError
from replications.records import read_run, write_record
from replications.reporting import citation, drawing, process_pool, report
from replications.reporting.album import TierAlbum, pictures
from replications.reporting.verify import first_difference, verify

PAPERS = papers()
PAGE = "face_verification.html"


def build(results, tier="mini", **changes):
    return report.build(results, tier, PAPERS, **{**GIVEN, "seeds": 3, **changes})


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


def test_pictures_drawn_by_the_pool_are_the_same_in_the_same_order(made, tmp_path, monkeypatch):
    write_results(tmp_path / "mini")
    other = 1 if process_pool.cpu_count() > 1 else 3
    monkeypatch.setattr(process_pool, "cpu_count", lambda: other)
    files = build(tmp_path / "mini", open_arrays=lambda key: faces())
    assert list(files) == list(made[1])
    for name, path in files.items():
        assert path.read_bytes() == made[1][name].read_bytes(), name


def test_pages_link_to_each_other_and_only_to_files_beside_it(made):
    results, _ = made
    for page in ("index.html", PAGE):
        html = (results / page).read_text()
        targets = re.findall(r'(?:src|href)="([^"#]+)', html)
        assert {"index.html", PAGE} <= set(targets), "each page leads to the others"
        for target in targets:
            assert target == "data:," or (results / target).is_file(), target
        assert "url(" not in html and "@import" not in html
        assert str(results) not in html


def test_the_page_shows_deviations_in_words(made):
    html = (made[0] / PAGE).read_text()
    assert DEVIATIONS["arcface"][2] in html and DEVIATIONS["deepid"][1] in html


def test_a_fresh_report_verifies(made):
    assert verify(made[0], "mini", PAPERS, **GIVEN) == []


def replace(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} does not hold {old}"
    path.write_text(text.replace(old, new, 1))


def mean_of(results) -> float:
    board = json.loads((results / "leaderboard_face_verification.json").read_text())
    return next(r for r in board["rows"] if r["address"] == "arcface/arcface")["metrics"]["accuracy"]["mean"]


def changed_line(path, old: str, new: str) -> int:
    """Change a file's first `old`; return the number of its line."""
    text = path.read_text()
    replace(path, old, new)
    return text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize("name", [f"leaderboard_face_verification.{e}" for e in ("json", "csv", "md", "tex")] + [PAGE])
def test_a_number_changed_in_a_leaderboard_is_named(results, name):
    mean = mean_of(results)
    exact = name.endswith(("json", "csv"))
    old, new = (str(mean), str(mean + 1e-6)) if exact else (f"{mean:.2f} ", f"{mean + 0.01:.2f} ")
    line = changed_line(results / name, old, new)
    (wrong,) = verify(results, "mini", PAPERS, **GIVEN)
    assert wrong.startswith(f"{name} line {line}: "), wrong
    there, expected = wrong.split(" in the file, ")
    assert new.strip()[-4:] in there and old.strip()[-4:] in expected


@pytest.mark.parametrize("field", ["effect", "p_holm", "adjusted"])
def test_a_changed_verdict_is_named(results, field):
    verdict = next(v for v in json.loads((results / "claims.json").read_text())["verdicts"] if v["claim"] == "C2")
    old = f'"{field}": {json.dumps(verdict[field])}'
    new = f'"{field}": {json.dumps("contradicted" if field == "adjusted" else verdict[field] * 1.001)}'
    line = changed_line(results / "claims.json", old, new)
    (wrong,) = verify(results, "mini", PAPERS, **GIVEN)
    assert wrong.startswith(f"claims.json line {line}: ") and f'"{field}": ' in wrong


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (PAGE, "<b>≈ inconclusive</b>", "<b>✓ reproduced</b>"),
        (PAGE, 'data-value="', 'data-value="9'),
        ("index.html", "</b>✓ reproduced</li>", "</b>✕ contradicted</li>"),
        ("index.html", "#claim-arcface-C2", "#claim-arcface-C3"),
        ("citations.bib", "author", "editor"),
        ("CITATION.cff", "0.1.0", "0.2.0"),
    ],
)
def test_any_change_of_any_page_is_named_once_with_its_line(results, name, old, new):
    line = changed_line(results / name, old, new)
    (wrong,) = verify(results, "mini", PAPERS, **GIVEN)
    assert wrong.startswith(f"{name} line {line}: ")


def test_a_line_more_or_less_is_named_and_so_is_a_missing_file(results):
    page = results / PAGE
    whole = page.read_text()
    page.write_text(f"{whole}\nmore\n")
    number = len(whole.splitlines())
    assert verify(results, "mini", PAPERS, **GIVEN) == [
        f"{PAGE} line {number + 1}: 'more' in the file, nothing from the records"
    ]
    page.write_text(whole.rstrip("\n").rpartition("\n")[0])
    (wrong,) = verify(results, "mini", PAPERS, **GIVEN)
    assert wrong == f"{PAGE} line {number}: nothing in the file, '</html>' from the records"
    page.unlink()
    (wrong,) = verify(results, "mini", PAPERS, **GIVEN)
    assert wrong.startswith(f"{PAGE}: missing")


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("a 0.30000000000000004,1", "a 0.3,1", True),
        ("1e-300", "2e-300", True),
        ("p 1.0000001e-03", "p 1e-03", False),
        ("0.3000001", "0.3", False),
        ("12", "13", False),
        ("0.3 a", "0.3 b", False),
        ("1 2", "1 2 3", False),
        ("", "1", False),
    ],
)
def test_what_another_machine_makes_of_the_last_digits_is_no_difference(found, expected, same):
    assert (list(first_difference(found, expected)) == []) is same


def test_a_changed_record_no_longer_gives_the_tables(results):
    path = results / "runs/arcface/arcface/seed1/run.json"
    record = read_run(path)
    record.metrics["accuracy"] += 1
    write_record(record, path)
    wrong = "\n".join(verify(results, "mini", PAPERS, **GIVEN))
    for name in ("leaderboard_face_verification.json", "claims.json", PAGE):
        assert f"{name} line " in wrong


def test_metrics_are_scored_again_from_the_scores(results):
    path = results / "runs/deepid/deepid/seed0/arrays.npz"
    arrays = dict(np.load(path))
    arrays["score"] = arrays["score"][::-1]
    np.savez(path, **arrays)
    wrong = verify(results, "mini", PAPERS, **GIVEN)
    assert len(wrong) == 1 and wrong[0].startswith("runs/deepid/deepid/seed0/run.json: auc: ")


def test_without_a_report_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(UserError, match="no report"):
        verify(tmp_path, "mini", PAPERS, **GIVEN)


def test_no_record_at_all(tmp_path):
    files = build(tmp_path / "mini")
    assert "no record" in files["index.html"].read_text().lower()
    assert files["claims.csv"].read_text().count("not tested") >= 11
    assert verify(tmp_path / "mini", "mini", PAPERS, **GIVEN) == []


def test_only_failures(tmp_path, no_plots):
    write_results(tmp_path / "mini", pairs=40)
    for path in (tmp_path / "mini").glob("runs/*/*/seed*/run.json"):
        record = read_run(path)
        changed = {"status": "failed", "reason": "out of memory", "metrics": {}, "curves": {}, "history": []}
        write_record(record.model_copy(update=changed), path)
    files = build(tmp_path / "mini")
    assert "No run has finished yet" in files[PAGE].read_text()
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
    assert verify(results, "mini", PAPERS, **GIVEN) == [], "the report remembers what it was asked for"
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
