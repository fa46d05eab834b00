"""A tier's page has one place: a report on some papers keeps the verdicts of the others that have records."""

import json
import shutil

import pytest
from published import unpack_runs

from replications import archive
from replications.cli import main
from replications.reporting import drawing, report


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Records of VoteNet and BoxNet, and of the papers on points, in one tier; no pictures are made."""
    monkeypatch.setattr(drawing, "draw", lambda *args: {})
    for name in ("rooms", "points"):
        unpack_runs(f"mini-{name}-cpu", tmp_path / "mini", seeds=2)
    return tmp_path / "mini"


def make(folder, papers, *more):
    assert main(["report", "--tier", "mini", "--papers", papers, "--results", str(folder.parent), *more]) == 0


def judged(folder) -> set[str]:
    return {verdict["paper"] for verdict in json.loads((folder / "claims.json").read_text())["verdicts"]}


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_report_on_one_paper_keeps_the_verdicts_of_the_others(folder, capsys):
    make(folder, "sonet,votenet,pointconv")
    first = files(folder)
    assert judged(folder) == {"sonet", "votenet", "pointconv"}
    capsys.readouterr()
    make(folder, "votenet")
    assert files(folder) == first, "the same records, the same page, claims and manifest"
    told = capsys.readouterr().out
    assert "votenet/V1" in told and "sonet/S" not in told, "the terminal shows what was asked for"
    assert main(["verify", str(folder)]) == 0


def test_records_in_one_archive_count_as_those_in_folders(folder):
    make(folder, "sonet,votenet")
    (folder / archive.ARCHIVE).write_bytes(archive.pack(folder))
    shutil.rmtree(folder / "runs")
    make(folder, "votenet")
    assert judged(folder) == {"sonet", "votenet"}


def test_a_paper_is_added_to_what_is_there(folder):
    make(folder, "votenet")
    assert judged(folder) == {"votenet"}
    make(folder, "sonet")
    assert judged(folder) == {"votenet", "sonet"}
    assert 'id="claim-votenet-V1"' in (folder / "detection_3d.html").read_text()
    assert 'id="paper-sonet"' in (folder / "point_classification.html").read_text()
    shown = (folder / "index.html").read_text()
    assert "detection_3d.html#claim-votenet-V1" in shown and "point_classification.html#paper-sonet" in shown


def test_what_has_no_record_any_more_goes(folder):
    make(folder, "all")
    assert {"arcface", "sonet", "votenet"} <= judged(folder), "asked for without a record: not tested"
    shutil.rmtree(folder / "runs" / "sonet")
    make(folder, "votenet")
    assert {"arcface", "sonet"}.isdisjoint(judged(folder)) and {"votenet", "pointconv"} <= judged(folder)


@pytest.mark.parametrize("told", [
    "", "{}", "[]", '{"tier": 1}', '{"tier": "mini", "methods": 5, "selected": null, "seeds": null, "files": []}',
    '{"tier": "mini", "methods": [], "selected": [7], "seeds": null, "files": []}',
])  # fmt: skip
def test_a_damaged_manifest_is_none(folder, told):
    (folder / report.MANIFEST).write_text(told)
    make(folder, "votenet")
    assert judged(folder) == {"votenet"}


def test_a_manifest_removes_nothing_outside_its_folder(folder, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("a person's own")
    names = [str(mine), "../mine.txt", "runs/votenet/votenet/seed0/run.json"]
    told = {"tier": "mini", "methods": [], "selected": ["nosuch"], "seeds": None, "files": names}
    (folder / report.MANIFEST).write_text(json.dumps(told))
    make(folder, "votenet")
    assert mine.exists() and (folder / names[-1]).exists()
