"""The replay of records in two orders: real costs, verdicts of the report, and runs without a record."""

import pytest
from test_campaign_command import ROWS, plan, published, write  # noqa: F401 (fixtures)

from benchmarks.campaign_order import START_SECONDS, Recorded, play, replay
from replications.measurement.hardware import cpu_model
from replications.planning.campaign import Job, Slots

SECONDS = 40.0
SLOTS = Slots(2, 1, START_SECONDS)
END = 2 * (START_SECONDS + SECONDS) / 60


@pytest.fixture
def study(plan, published):  # noqa: F811
    """Five seeds of the claim's rows: effects of 7, 10 and 13, which leave it undecided, and twice 10; 40 s a run."""
    for seed, effect in enumerate((7.0, 10.0, 13.0, 10.0, 10.0)):
        for row, accuracy in zip(ROWS, (70 + effect, 70.0), strict=True):
            record = published[row, seed % 3]
            cost = record.cost.model_copy(update={"total_seconds": SECONDS})
            here = record.provenance.model_copy(update={"cpu": cpu_model()})
            write(plan, published, row, seed, accuracy=accuracy, cost=cost, provenance=here)
    return Recorded(plan, ("arcface",))


def first(study, seeds):
    return frozenset(run for run in study.all if run[1] < seeds)


def test_only_what_has_ended_is_seen(study):
    assert len(study.all) == 10 and set(study.all.values()) == {SECONDS}
    assert len(study.state(first(study, 3)).done) == 6
    assert [len(study.judge(first(study, seeds))) for seeds in (3, 4, 5)] == [0, 0, 1]


def test_a_job_takes_the_time_of_its_records_and_else_of_its_row(study):
    study.judge(first(study, 3))
    job = Job(ROWS[0], (3, 4, 5), 1.0, {})
    assert study.took(job) == pytest.approx(START_SECONDS + 3 * SECONDS)
    assert study.unrecorded(job) == {(ROWS[0], 5)}


@pytest.mark.parametrize("how", ["catalogue", "campaign"])
def test_a_decision_counts_when_the_last_run_that_it_needs_ends(study, how):
    """Four runs of the next look, two at once, in processes of one seed: twice 46 s."""
    study.published_effects = lambda name: (1.0, 1.0)  # without spread: the other claims of the paper are not asked
    asked = []
    took = study.took
    study.took = lambda job: asked.append(job) or took(job)
    story = play(study, 5, SLOTS, first(study, 3), how)
    assert sorted(run for job in asked[:4] for run in job.runs) == sorted(set(study.all) - first(study, 3))
    assert story.at(END - 0.01) == (0, 0) and story.at(END + 0.01) == (1, 1)
    assert story.points[-1][0] <= 5
    if how == "catalogue":  # the other claims of the paper have not had a first look
        assert len(asked) == 4 and story.missing is None and story.followed == 5
    else:
        assert story.followed == pytest.approx(END) and story.missing not in study.all


def test_beyond_a_missing_run_the_counts_are_bounds(study):
    del study.all[ROWS[1], 4]
    lines = replay(study, 2, SLOTS, 3)
    assert "by 9 records, 6 of them there at the beginning (seeds below 3), 2 runs at once" in lines[0]
    assert lines[2].split() == ["0", "0", "0"] and lines[3].split()[:2] == ["2", "0-1"]
    assert lines[4] == (
        f"catalogue: followed to minute {END / 2:.1f} (there {ROWS[1]} seed 4 begins, which has no record), 0 decided"
    )
