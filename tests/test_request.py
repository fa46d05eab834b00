"""A run as it was asked for: the CPU threads that are set by hand."""

import pytest

from replications import catalogue, request
from replications.errors import UserError
from replications.planning.knobs import Knobs
from replications.planning.plan import Plan
from replications.running import fingerprints

ROW = "arcface/softmax"


def test_threads_decide_a_run_and_are_named_among_its_changes():
    plain = request.resolve(ROW, "mini", 0)
    assert plain == catalogue.resolve(ROW, "mini", 0)
    more = request.resolve(ROW, "mini", 0, ["threads=2", "recipe.lr=0.5", "threads=3"])
    assert (more.threads, more.recipe.lr) == (3, 0.5), "the last one counts"
    assert more.changes == ("threads=2", "recipe.lr=0.5", "threads=3")
    assert fingerprints(request.resolve(ROW, "mini", 0, ["threads=3"])).run != fingerprints(plain).run, (
        "sums of other threads may have other bits"
    )
    as_tier = request.resolve(ROW, "mini", 0, [f"threads={plain.threads}"])
    assert fingerprints(as_tier).run == fingerprints(plain).run


@pytest.mark.parametrize("number", ["0", "two", "", "1.5", "99999"])
def test_what_is_no_number_of_threads_is_one_line(number):
    with pytest.raises(UserError, match=f"'threads={number}': threads are a whole number from 1") as error:
        request.resolve(ROW, "mini", 0, [f"threads={number}"])
    assert "\n" not in str(error.value)


def test_snakemake_gives_a_run_the_cores_that_its_threads_need():
    assert Plan(Knobs("standard", ("arcface",), (0,))).threads == catalogue.tier_config("standard").threads > 1
    changed = Plan(Knobs("standard", ("arcface",), (0,), set=("threads=1",)))
    assert changed.threads == 1 and changed.spec(ROW, 0).threads == 1
