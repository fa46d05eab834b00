"""What was tried, side by side: set-ups told apart, validation values only, other runs left out."""

import pytest

from replications import catalogue
from replications.cli import main
from replications.records import Cost, HistoryPoint, RunRecord, write_record

ADDRESS, OTHER = "arcface/softmax", "arcface/arcface"


def point(stage, split, step, **values):
    return HistoryPoint(stage=stage, step=step, epoch=0.0, split=split, values=values)


def keep(work, name, seed, changes=(), history=(), address=ADDRESS, code="c", status="finished", tier="smoke"):
    record = RunRecord(
        status=status,
        fingerprint=name,
        code_fingerprint=code,
        data_fingerprint="",
        spec=catalogue.resolve(address, tier, seed, changes),
        metrics={"accuracy": 99.0},
        history=list(history),
        cost=Cost(),
    )
    write_record(record, work / "runs" / name / "run.json")


def shown(work, capsys, *names):
    code = main(["trials", *(names or [ADDRESS]), "--tier", "smoke", "--work", str(work)])
    return code, capsys.readouterr()


def rows(text):
    return [line.split("  ") for line in text.splitlines() if "seeds" in line]


def test_set_ups_are_compared_by_their_last_validation_values(tmp_path, capsys):
    def of(value):
        return [
            point("train", "validation", 1, loss=9.0),
            point("train", "validation", 2, loss=value),
            point("train", "train", 3, loss=7.0),
        ]

    slow, fast = ("recipe.steps=5", "recipe.lr=0.1"), ("recipe.steps=5", "recipe.lr=0.2")
    keep(tmp_path, "a", 13, slow, of(1.0))
    keep(tmp_path, "b", 12, slow, of(3.0))
    keep(tmp_path, "c", 12, fast, of(4.0))
    keep(tmp_path, "d", 0, (), of(5.0))  # the tier's own
    keep(tmp_path, "e", 14, fast, of(6.0), status="failed")
    keep(tmp_path, "f", 12, fast, of(8.0), address=OTHER)
    code, printed = shown(tmp_path, capsys)
    assert code == 0 and "arcface/softmax with recipe.steps=5" in printed.out
    found = [[cell.strip() for cell in row if cell.strip()] for row in rows(printed.out)]
    assert found == [["recipe.lr=0.1; seeds 12,13", "2 ± 1.4"], ["recipe.lr=0.2; seeds 12", "4"]]
    assert "99" not in printed.out and OTHER not in printed.out


def test_trial_seeds_of_the_tiers_set_up_and_several_stages(tmp_path, capsys):
    keep(tmp_path, "a", 12, (), [point("one", "validation", 1, x=1.0), point("two", "validation", 1, x=2.0)])
    keep(tmp_path, "b", 12, ("recipe.lr=0.1",), [])
    _, printed = shown(tmp_path, capsys, ADDRESS)
    assert "one x" in printed.out and "two x" in printed.out
    assert [row[0] for row in rows(printed.out)] == ["as it is; seeds 12", "recipe.lr=0.1; seeds 12"]
    assert rows(printed.out)[1][-1].strip() == "-"


def test_runs_of_other_code_are_apart(tmp_path, capsys):
    for code in ("first", "second"):
        keep(tmp_path, code, 12, ("recipe.lr=0.1",), [point("t", "validation", 1, x=len(code))], code=code)
    _, printed = shown(tmp_path, capsys)
    assert len(rows(printed.out)) == 2 and "code" in printed.out and "first" in printed.out


@pytest.mark.parametrize("damaged", [False, True])
def test_nothing_tried_is_said(tmp_path, capsys, damaged):
    if damaged:
        (tmp_path / "runs" / "a").mkdir(parents=True)
        (tmp_path / "runs" / "a" / "run.json").write_text("{")
    code, printed = shown(tmp_path, capsys)
    assert code == 2 and "nothing was tried in tier smoke" in printed.err
    assert ("left out: " in printed.err) == damaged
