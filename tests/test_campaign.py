"""The campaign: a budget of time spent on whole looks, by a made-up clock and device."""

import itertools

import numpy as np
import pytest
from scipy import stats
from simulated_campaign import START, Clock, Device, Lab, carry_out, random_lab

from replications import looks
from replications.planning.campaign import Board, Question, Slots, next_job, simulate
from replications.planning.spend import Stopwatch, open_board, spend, stop_seconds
from replications.planning.undecided import State
from replications.reporting.predictive import SHARES, power, sequential

BUDGETS = (0.5, 2, 7, 20)


# ------------------------------------------------------------------ chances


def test_sequential_p_is_the_least_over_looks_of_p_over_its_weight():
    effects = np.random.default_rng(3).normal(0.9, 1, 9)  # looks at 3, 5 and 8; the ninth seed is not used
    alone = [stats.ttest_1samp(effects[:n], 0, alternative="greater").pvalue * 2 / w for n, w in
             ((3, 0.1), (5, 0.4), (8, 0.3))]  # fmt: skip
    against = [stats.ttest_1samp(effects[:n], 0.5, alternative="less").pvalue * 2 / w for n, w in
               ((3, 0.1), (5, 0.4), (8, 0.3))]  # fmt: skip
    assert sequential(effects, "greater", 0.5) == pytest.approx((min(1, *alone), min(1, *against)))
    sides = [stats.ttest_1samp(effects[:n], side * 2.0, alternative=way).pvalue for n in (3, 5, 8)
             for side, way in ((1, "less"), (-1, "greater"))]  # fmt: skip
    tost = [2 * max(pair) / w for *pair, w in zip(sides[::2], sides[1::2], (0.1, 0.4, 0.3), strict=True)]
    assert sequential(effects, "equal", 2.0)[0] == pytest.approx(min(1, *tost))
    assert sequential(-effects, "less", 0.5) == pytest.approx((min(1, *alone), min(1, *against)))


def test_power_agrees_with_a_simulation_of_its_own():
    """Mean and variance from their posterior, seed by seed and test by test."""
    effects, random, n = (1.2, 0.1, 0.9), np.random.default_rng(5), 4000
    sd = np.std(effects, ddof=1) * np.sqrt(2 / random.chisquare(2, (n, 1)))
    mean = np.mean(effects) + sd / np.sqrt(3) * random.normal(size=(n, 1))
    full = np.hstack([np.tile(effects, (n, 1)), mean + sd * random.normal(size=(n, 2))])
    least = np.ones(n)
    for size, weight in ((3, 0.1), (5, 0.4)):
        for null, side in ((0, "greater"), (0.5, "less")):
            p = stats.ttest_1samp(full[:, :size], null, axis=1, alternative=side).pvalue
            least = np.minimum(least, 2 * p / weight)
    assert power(effects, "greater", 0.5, 0.05, 0.05)[1] == pytest.approx(np.mean(least <= 0.05), abs=0.04)


def test_power_knows_the_easy_cases():
    assert power((), "greater", 1.0, 0.05, 0.05) == SHARES == power((3.0,), "less", 9.0, 0.05, 0.05)
    assert power((5.0, 5.0, 5.0), "greater", 1.0, 0.05, 0.05) == (0, 0, 0, 0), "no spread, no test"
    for sign in (1, -1):  # contradicted is decided, too
        past, first, *_ = power((sign * 5.0, sign * 5.1, sign * 4.9), "greater", 1.0, 0.05, 0.05)
        assert past == 0 and first > 0.99
    few, many = (power((1.0, 0.2, 0.9), "greater", 0.5, 0.05 / m, 0.05 / m)[2] for m in (1, 10))
    assert few > many + 0.1, "among ten claims it takes more"


# ------------------------------------------------------------------ the choice


def question(name, rows, *chance):
    return Question(name, tuple(rows), chance)


def test_rows_that_claims_share_are_paid_once():
    star = [question(f"C{i}", ("base", f"row{i}"), 0.3, 0.3, 0.3, 0.3) for i in range(3)]
    lone = question("L", ("x", "y"), 0.4, 0.4, 0.4, 0.4)
    board = Board([lone, *star], dict.fromkeys(["base", "row0", "row1", "row2", "x", "y"], 10.0))
    best = board.ranked(frozenset())[0]
    assert set(best.claims) == {"C0", "C1", "C2"} and best.value == pytest.approx(0.9)
    assert best.seconds == 120 and len(best.runs) == 12  # alone 0.3 for 60 s, the lone one 0.4 for 60 s
    paid = frozenset(("base", seed) for seed in range(3))
    assert board.ranked(paid)[0].seconds == 30, "what is there costs nothing"


def test_a_later_look_is_taken_for_its_chance_but_begun_at_the_earlier():
    board = Board([question("C", ("a", "b"), 0.1, 0.8, 0.9, 0.95)], {"a": 10.0, "b": 20.0})
    best = board.ranked(frozenset())[0]
    assert best.claims == {"C": 2} and len(best.runs) == 10
    job = next_job(board, frozenset(), {}, 1e6, Slots(1, 3))
    assert (job.address, job.seeds) == ("b", (0, 1, 2))


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_near_the_best_of_all_sets_of_claims(seed):
    random = np.random.default_rng(seed)
    rows = "abcde"
    made = [question(f"C{i}", random.choice(list(rows), 2, replace=False), *np.sort(random.random(4)))
            for i in range(6)]  # fmt: skip
    seconds = {row: float(random.uniform(5, 60)) for row in rows}
    best = 0.0
    for levels in itertools.product(range(5), repeat=5):
        level = dict(zip(rows, levels, strict=True))
        cost = sum(seconds[row] * looks.LOOKS[k - 1] for row, k in level.items() if k)
        value = sum(q.chance[k - 1] for q in made if (k := min(level[row] for row in q.rows)))
        best = max(best, value / cost if cost else 0.0)
    chosen = Board(made, seconds).ranked(frozenset())[0]
    assert 0.9 * best <= chosen.rate <= best * (1 + 1e-9)


def test_a_look_that_can_be_completed_comes_before_a_better_one_that_cannot():
    made = [question("long", ("a", "b"), 0.9, 0.9, 0.9, 0.9), question("short", ("c",), 0.1, 0.1, 0.1, 0.1)]
    board = Board(made, {"a": 10.0, "b": 10.0, "c": 10.0})
    assert board.ranked(frozenset())[0].claims == {"long": 1}
    chosen = {left: next_job(board, frozenset(), {}, left, Slots(1, 3)) for left in (60, 59, 30, 29, 9)}
    assert [job and job.address for job in chosen.values()] == ["a", "c", "c", "a", None]
    assert chosen[29].seeds == (0, 1), "no look can be completed: a part of the best one"


def test_seeds_of_a_row_share_a_process_where_slots_are_few():
    board = Board([question("C", ("a", "b"), 0.9, 0.9, 0.9, 0.9)], {"a": 10.0, "b": 10.0})
    assert len(next_job(board, frozenset(), {}, 1e6, Slots(1, 3)).seeds) == 3
    assert len(next_job(board, frozenset(), {}, 1e6, Slots(6, 3)).seeds) == 1, "six runs on six slots"
    assert len(next_job(board, frozenset(), {}, 25, Slots(1, 3)).seeds) == 2, "a third would not end in time"


# ------------------------------------------------------------------ the budget


@pytest.mark.parametrize("minutes", BUDGETS)
@pytest.mark.parametrize("count", [1, 4])
def test_a_budget_is_kept_and_goes_to_whole_looks(minutes, count):
    lab, clock = random_lab(1), Clock()
    spent, device, _ = carry_out(lab, minutes, clock, count)
    assert clock.true <= 60 * minutes + 0.5 and spent.seconds <= 60 * minutes + 0.5
    assert not spent.stopped, "nothing was begun that would not end"
    assert device.most <= count
    levels = {row: [seed for other, seed in lab.took if other == row] for row in lab.seconds}
    partial = [row for row, seeds in levels.items() if len(seeds) not in (0, *looks.LOOKS)]
    left = 60 * minutes - clock.true
    assert len(partial) <= 2 * count, "only what was left at the end went to looks that are not complete"
    assert left < 60 + START + stop_seconds(60 * minutes) or not spent.after.questions


def test_slots_are_kept_full():
    lab = random_lab(2)
    _, device, _ = carry_out(lab, 4, count=8)
    used = sum(made.ended - made.begun for made in device.jobs)
    assert device.most == 8 and used > 0.8 * 8 * 4 * 60


def test_runs_that_take_longer_than_expected_are_stopped_and_nothing_finished_is_lost():
    lab = random_lab(1, expected=dict.fromkeys(random_lab(1).seconds, 1.0))
    clock = Clock()
    spent, device, _ = carry_out(lab, 1, clock, count=2)
    assert clock.true <= 60.5
    assert spent.stopped and all(made.code is not None for made in device.jobs)
    assert spent.runs == frozenset(lab.took)
    made = {made.job: made for made in device.jobs}
    assert all(made[job].ended <= 60 for job in spent.stopped)
    assert spent.late == pytest.approx(max((54 - made[job].begun) / job.seconds for job in spent.stopped), rel=0.05)
    slow, fast = (open_board(spent.after, frozenset(), late).seconds for late in (spent.late, 1.0))
    assert slow == {row: pytest.approx(spent.late * took) for row, took in fast.items()}


@pytest.mark.parametrize(("at", "count"), [(0.3, 1), (100, 1), (333, 1), (100, 3)])
def test_a_campaign_that_is_killed_goes_on_as_if_it_had_not_been(at, count):
    whole, killed = random_lab(4), random_lab(4)
    carry_out(whole, 200, count=count)
    with pytest.raises(KeyboardInterrupt):
        carry_out(killed, 200, Clock(interrupt_at=at), count=count)
    done = dict(killed.took)
    _, device, _ = carry_out(killed, 200, count=count)
    assert not any(run in done for made in device.jobs for run in made.job.runs), "no run is made twice"
    if count == 1:
        assert set(killed.took) == set(whole.took)
    assert killed.look().decided == whole.look().decided


def test_a_killed_campaign_stops_its_jobs():
    clock = Clock(interrupt_at=47)
    device = Device(random_lab(4), clock)
    with pytest.raises(KeyboardInterrupt):
        spend(device.lab, 6000, Slots(3), device.launch, clock=clock, sleep=clock.sleep, say=lambda line: None)
    assert len(device.jobs) >= 3 and all(made.code is not None for made in device.jobs)


@pytest.mark.parametrize("by", [-1e6, -30.0])
def test_a_clock_that_jumps_back_gives_no_more_time(by):
    clock = Clock(jumps={100: by})
    spent, _, _ = carry_out(random_lab(1), 7, clock)
    assert clock.true <= 7 * 60 + 1 and spent.runs


def test_a_clock_that_jumps_ahead_ends_the_campaign_and_keeps_what_is_finished():
    clock, lab = Clock(jumps={100: 1e6}), random_lab(1)
    spent, device, _ = carry_out(lab, 7, clock)
    assert clock.true < 102 and spent.runs == frozenset(lab.took) and len(spent.runs) > 1
    assert all(made.code is not None for made in device.jobs)
    carry_out(lab, 60, Clock())
    assert len(lab.took) > 10


def test_a_stopwatch_never_runs_back():
    shown = iter([5.0, 6.0, 2.0, 3.0, 100.0])
    watch = Stopwatch(lambda: next(shown))
    assert [watch() for _ in range(4)] == [1, 1, 2, 99]


def test_the_plan_is_what_is_run_where_runs_take_what_was_expected():
    """And where nothing is learned on the way: of claims that stay as likely as they were."""
    lab = random_lab(1)
    state = lab.look()
    lab.look = lambda: State(state.questions, dict(lab.took), lab.seconds, {}, {})
    board, slots = Board(state.questions, lab.seconds), Slots(2, 3, START)
    planned = simulate(board, frozenset(), 0.9 * 300, slots)
    spent, device, _ = carry_out(lab, 5, count=2)
    assert len(planned) > 5 and spent.seconds < 300
    run = [(made.job.address, made.job.seeds) for made in device.jobs]
    assert run[:6] == [(job.address, job.seeds) for _, job in planned][:6]


# ------------------------------------------------------------------ what is told


def test_a_run_that_leaves_no_record_is_told_and_not_tried_again():
    lab = random_lab(1)
    spent, _, _ = carry_out(random_lab(1), 20)
    row = sorted(spent.runs)[0][0]
    lab.crashing = {(row, seed) for seed in range(12)}
    spent, device, lines = carry_out(lab, 20)
    assert {address for address, _ in spent.failed} == {row}
    assert sum(made.job.address == row for made in device.jobs) == 1
    assert sum("left no record" in line for line in lines) == 1
    assert spent.decided and not any(row in q.rows for q in open_board(spent.after, spent.failed).questions)


def test_decisions_are_told_once_and_truly():
    lab = random_lab(1)
    spent, _, lines = carry_out(lab, 20, count=2)
    told = sorted(line.split("min")[1].split(" is ")[0].strip() for line in lines if " is " in line)
    assert told == sorted(spent.decided) == sorted(lab.look().decided) and len(told) > 3


def test_expected_decisions_are_what_comes_on_the_average():
    """Effects drawn anew from what is known: the plan's figure is their mean."""
    said, came = [], []
    for seed in range(15):
        lab = random_lab(seed)
        lab.took = {(row, s): 1.0 for row in lab.seconds for s in range(3)}
        random = np.random.default_rng(seed)
        for name, (rows, effects) in lab.claims.items():
            sd = np.std(effects[:3], ddof=1) * np.sqrt(2 / random.chisquare(2))
            mean = random.normal(np.mean(effects[:3]), sd / np.sqrt(3))
            lab.claims[name] = (rows, [*effects[:3], *random.normal(mean, sd, 9)])
        state = lab.look()
        board = Board(state.questions, state.seconds)
        lab.took = {(row, s): 1.0 for row in lab.seconds for s in range(12)}
        said.append(board.expected(state.done, frozenset(lab.took)))
        came.append(len(lab.look().decided) - len(state.decided))
    assert np.mean(said) == pytest.approx(np.mean(came), rel=0.15)


def test_nothing_is_left_where_every_claim_has_had_its_looks():
    lab = random_lab(3)
    lab.took = {(row, seed): 1.0 for row in lab.seconds for seed in range(12)}
    spent, device, lines = carry_out(lab, 5)
    assert not device.jobs and not lines and not spent.runs


def test_more_is_decided_than_in_the_order_of_the_catalogue():
    """Same minutes, same runs on offer: row by row, three seeds each and then the next look, against the campaign."""
    ours, theirs = 0, 0
    for seed in range(3):
        lab = random_lab(seed)
        spent, _, _ = carry_out(lab, 15)
        ours += len(spent.decided)
        plain, left = Lab(lab.claims, lab.seconds), 15 * 60.0
        for before, size in itertools.pairwise((0, *looks.LOOKS)):
            for row in sorted(plain.seconds):
                needed = any(row in q.rows for q in plain.look().questions)
                for s in range(before, size) if needed else ():
                    left -= plain.seconds[row] + START / 3
                    if left > 0:
                        plain.took[row, s] = plain.seconds[row]
        theirs += len(plain.look().decided)
    assert ours > 1.5 * theirs > 0


def test_effects_of_another_machine_are_an_estimate_and_no_look():
    """Twelve published seeds of a large effect: here, with none yet, the first looks are likely to decide."""
    effects = tuple(0.02 + 0.001 * (seed % 5) for seed in range(12))
    assert power(effects, "greater", 0.0005, 0.025, 0.025) == (0.0,) * 4
    chances = power(effects, "greater", 0.0005, 0.025, 0.025, elsewhere=True)
    assert chances[0] > 0.2 and chances[1] > 0.95 and list(chances) == sorted(chances)
