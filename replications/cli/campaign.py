"""``campaign``: spend a time budget on the runs that decide most claims."""

import argparse
import math
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from replications import catalogue, looks
from replications.cli.data import OWN_KINDS
from replications.cli.options import (
    add_device,
    add_folders,
    add_runs_per_gpu,
    add_tier,
    chosen_device,
    command,
    of_these,
)
from replications.errors import UserError, nearest
from replications.planning.estimate import START_SECONDS
from replications.planning.job import duration
from replications.planning.knobs import Knobs, parse_papers
from replications.planning.plan import Plan

if TYPE_CHECKING:
    from replications.planning.campaign import Board, Job, Run, Slots
    from replications.planning.spend import Spent
    from replications.planning.undecided import State, Study

WIDTH = 80
MORE = f"""
Claims are judged at {", ".join(map(str, looks.LOOKS[:-1]))} and {looks.LOOKS[-1]} seeds. Runs with the most expected
decisions per minute start first, estimated from past run times and effects;
runs that several claims need are counted once. A run that would not finish in
time is not started. Records are written as runs finish, and the same command
resumes from them, also on another machine with a copy of the results and work
folders. On a CPU, --cores limits the number of simultaneous runs.
"""


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "campaign",
        campaign,
        "spend a budget of minutes on the runs that decide most claims",
        "campaign --minutes 30 --tier mini --targets face_verification --plan",
        MORE,
    )
    parser.add_argument("--minutes", type=_minutes, required=True, metavar="M", help="wall minutes, all included")
    about = "papers, tasks, claims as in cosface/K1, or 'all' (the default)"
    parser.add_argument("--targets", nargs="+", default=("all",), metavar="NAME", help=about)
    add_tier(parser)
    add_device(parser)
    add_runs_per_gpu(parser)
    about = "on a CPU: cores to use (default: all)"
    parser.add_argument("--cores", type=_cores, metavar="N", help=about)
    about = "run times here over published ones, until records here show it (a fast GPU: 0.1; default: 1)"
    parser.add_argument("--pace", type=_pace, default=1.0, metavar="X", help=about)
    parser.add_argument("--plan", action="store_true", help="print the plan without running anything")
    add_folders(parser, "data_root", "work", "results")


def _minutes(text: str) -> float:
    if not (re.fullmatch(r"\d{1,6}(\.\d+)?|\.\d+", text) and float(text) > 0):
        raise UserError(f"--minutes {text}: give minutes above 0, as in 12 or 1.5")
    return float(text)


def _pace(text: str) -> float:
    if not (re.fullmatch(r"\d{0,3}(\.\d{1,4})?", text) and float(text or 0) > 0):
        raise UserError(f"--pace {text}: give a ratio above 0, as in 0.1")
    return float(text)


def _cores(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 4096):
        raise UserError(f"--cores {text}: give a number of cores, 1 or more")
    return int(text)


def campaign(args: argparse.Namespace) -> int:
    """Plan, or plan and run; the exit code is 1 if a run failed."""
    began = time.monotonic()
    from replications.planning.spend import launcher, open_board, spend, stop_seconds
    from replications.planning.undecided import SEEDS, Study

    if not catalogue.tier_config(args.tier).result:
        raise UserError(f"tier {args.tier} is plumbing only and decides no claim: give --tier mini, for one")
    papers, claims = parse_targets(args.targets, args.tier)
    device = chosen_device(args.device, args.tier)
    slots, where, kind, name = _place(args, device)
    knobs = Knobs(
        args.tier,
        papers,
        tuple(SEEDS),
        device="cpu" if kind == "cpu" else device,
        runs_per_gpu=args.runs_per_gpu if kind == "cuda" else 1,
        data_root=str(args.data_root),
        work=str(args.work),
        results=str(args.results),
    )
    study = Study(Plan(knobs), papers, claims, shared=kind == "cuda" and args.runs_per_gpu > 1, pace=args.pace)
    study.missing_data = _missing_data(study, args.data_root)
    if others := study.other_devices(name, kind):
        raise UserError(
            f"records of {study.plan.folder} and {args.work} were made on {', '.join(sorted(others))}, and claims "
            f"compare runs of one device: give --results and --work folders for {name or kind}"
        )
    state, budget = study.look(), 60 * args.minutes
    _print_state(state, f"{args.tier} on {where}, {args.minutes:g} min")
    board = open_board(state)
    jobs = _simulated(board, state.done, budget - stop_seconds(budget), slots)
    if not jobs:
        return _print_nothing_fits(board, state.done, args.minutes)
    if args.plan:
        print(f"\n{plan_table(jobs, board, state.done)}")
        _print_expected(jobs, board, state.done, budget, slots)
        return 0
    from replications.measurement.process import sigterm_as_interrupt

    study.restore()
    with sigterm_as_interrupt():
        left = budget - (time.monotonic() - began)  # reading and planning are part of the budget
        spent = spend(study, left, slots, launcher(study.plan), say=lambda line: print(line, flush=True))
    _print_spent(spent, budget, args)
    return int(bool(spent.failed))


def parse_targets(words: Sequence[str], tier: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the papers of the targets, and the claims that were named (none: all).

    Raises UserError for an unknown name, with the closest match.
    """
    papers, tasks = catalogue.papers(), catalogue.tasks()
    every = {f"{key}/{claim.id}": key for key, paper in papers.items() for claim in paper.claims}
    found: dict[str, None] = {}
    for word in (part for text in words for part in text.split(",") if part):
        if word == "all":
            found |= dict.fromkeys(every)
        elif word in every:
            found[word] = None
        elif word in papers or word in tasks:
            found |= {name: None for name, key in every.items() if word in (key, papers[key].task)}
        else:
            near = every if "/" in word else {"all": "", **papers, **dict.fromkeys(tasks, "")}
            raise UserError(f"there is no paper, task or claim '{word}'{nearest(word, near)}")
    keys = parse_papers("all", tier)
    return tuple(key for key in keys if key in {every[name] for name in found}), tuple(found)


def _place(args: argparse.Namespace, device: str) -> tuple["Slots", str, str, str | None]:
    """Return the slots of a device, its display name, its kind and the GPU's model.

    Raises UserError if there is no such GPU, or none is free.
    """
    from replications.measurement.hardware import cpu_count, gpu_name, visible_gpus
    from replications.measurement.lease import free_leases
    from replications.planning.campaign import Slots

    config = catalogue.tier_config(args.tier)
    gpus = [] if device == "cpu" else visible_gpus()
    if device == "cpu" or (device == "auto" and not gpus):
        cores = args.cores or cpu_count()
        count = max(1, cores // config.threads)
        return Slots(count, config.seeds_per_process, START_SECONDS), f"a CPU, {_runs(count)} at once", "cpu", None
    index = device.partition(":")[2]
    if not gpus or (index and int(index) >= len(gpus)):
        raise UserError(
            f"device '{device}': GPUs visible here: {len(gpus)}; check the driver and CUDA_VISIBLE_DEVICES, or give "
            "--device cpu"
        )
    among = [gpus[int(index)]] if index else gpus
    most = len(among) * args.runs_per_gpu
    count = most if args.plan else free_leases(among, args.runs_per_gpu)
    if not count:
        raise UserError(f"device '{device}' is busy: other runs have leased it; wait for them, or choose another one")
    name = gpu_name(among[0])
    here = f"{len(among)} GPU{'s' if len(among) > 1 else ''} ({name or 'unknown'}), {_runs(count)} at once"
    here += f" of {most}: the rest is leased" if count < most else ""
    return Slots(count, config.seeds_per_process, START_SECONDS), here, "cuda", name


def _missing_data(study: "Study", data_root: Path) -> dict[str, str]:
    """Return rows whose data must be fetched first: sets that are neither prepared nor part of this package."""
    from replications.datasets import registry
    from replications.datasets.arrays import set_path

    lacking = {}
    for row in study.rows:
        for key in study.plan.spec(row, 0).data.values():
            if registry.find_set(key).kind not in OWN_KINDS and not set_path(key, data_root).is_dir():
                lacking[row] = f"'replications fetch {key}' has to come first"
    return lacking


def _simulated(board: "Board", done: frozenset["Run"], seconds: float, slots: "Slots") -> list[tuple[float, "Job"]]:
    from replications.planning.campaign import simulate

    return simulate(board, done, seconds, slots)


# ------------------------------------------------------------------ output


def _print_state(state: "State", head: str) -> None:
    print(head)
    print(f"{len(state.decided)} claims are decided, {len(state.questions)} can be by more seeds")
    why: dict[str, list[str]] = {}
    for claim, reason in state.hopeless.items():
        why.setdefault(reason, []).append(claim)
    for reason, claims in sorted(why.items(), key=lambda item: -len(item[1])):
        print(textwrap.shorten(f"not these {len(claims)}: {reason}: {', '.join(claims)}", WIDTH, placeholder=" ..."))


def _print_nothing_fits(board: "Board", done: frozenset["Run"], minutes: float) -> int:
    """Print that nothing is left to decide; raises UserError if the budget is shorter than the cheapest run."""
    job = board.cheapest(done)
    if job is None:
        print("nothing is left that more seeds could decide")
        return 0
    least = (job.seconds + START_SECONDS) / 0.9 / 60
    raise UserError(
        f"{minutes:g} min are too short: the shortest run that a claim needs, {job.address} seed {job.seeds[0]}, takes "
        f"about {duration(job.seconds)}; give --minutes {math.ceil(10 * least) / 10:g} or more, "
        "or --pace if this machine is faster than the published one"
    )


def plan_table(jobs: Sequence[tuple[float, "Job"]], board: "Board", done: frozenset["Run"]) -> str:
    """Return the plan: a line per group of claims in order of start times, at most 80 columns wide."""
    groups: dict[frozenset[str], list[tuple[float, Job]]] = {}
    for begin, job in jobs:
        claims = frozenset(job.claims)
        same = next((known for known in groups if known <= claims or claims <= known), claims)
        groups[same | claims] = [*groups.pop(same, []), (begin, job)]
    lines = ["from min  runs   cost  decides  claims (seeds)"]
    for members in sorted(groups.values(), key=lambda members: members[0][0]):
        claims = {claim: look for _, job in members for claim, look in job.claims.items()}
        after = done.union(*(job.runs for _, job in members))
        seconds = sum(job.seconds for _, job in members)
        runs = sum(len(job.seeds) for _, job in members)
        head = f"{members[0][0] / 60:8.1f} {runs:5d} {duration(seconds):>6} {board.expected(done, after):8.1f}  "
        lines.append(head + _claims(claims, WIDTH - len(head)))
        done = after
    return "\n".join(lines)


def _claims(claims: Mapping[str, int], width: int) -> str:
    """``cosface/K1 K2 (5), arcface/A1 (8) +3``: as many as fit, later looks first."""
    by_paper: dict[tuple[str, int], list[str]] = {}
    for name, look in sorted(claims.items(), key=lambda item: (-item[1], item[0])):
        paper, _, claim = name.partition("/")
        by_paper.setdefault((paper, look), []).append(claim)
    text, left = "", len(claims)
    for (paper, look), names in by_paper.items():
        more = f"{', ' if text else ''}{paper}/{' '.join(names)} ({looks.LOOKS[look - 1]})"
        if len(text + more) > width - 5:
            break
        text, left = text + more, left - len(names)
    return f"{text} +{left}".strip() if left else text


def _print_expected(
    jobs: Sequence[tuple[float, "Job"]], board: "Board", done: frozenset["Run"], budget: float, slots: "Slots"
) -> None:
    from replications.planning.spend import stop_seconds

    after = done.union(*(job.runs for _, job in jobs))
    end = max(begin + job.seconds for begin, job in jobs)
    gain = board.expected(done, after)
    print(f"\n{_runs(len(after - done))}, done after {duration(end)}: about {gain:.1f} decisions")
    _print_next(board, after, budget, slots, stop_seconds(budget))


def _print_next(board: "Board", done: frozenset["Run"], budget: float, slots: "Slots", reserve: float) -> None:
    jobs = _simulated(board, done, budget - reserve, slots)
    gain = board.expected(done, done.union(*(job.runs for _, job in jobs)))
    runs = _runs(sum(len(job.seeds) for _, job in jobs))
    print(f"the next {budget / 60:g} min would decide about {gain:.1f} more ({runs})")


def _print_spent(spent: "Spent", budget: float, args: argparse.Namespace) -> None:
    from replications.planning.spend import open_board, stop_seconds

    cost = sum(spent.after.took[run] for run in spent.runs)
    print(
        f"\n{len(spent.decided)} claims decided in {spent.seconds / 60:.1f} min by {_runs(len(spent.runs))} of "
        f"{duration(cost)} together; {len(spent.after.questions)} are left"
    )
    for word in ("reproduced", "contradicted"):
        if names := sorted(name for name, found in spent.decided.items() if found == word):
            print(textwrap.fill(f"{word}: {', '.join(names)}", WIDTH, subsequent_indent="  "))
    if spent.stopped:
        names = ", ".join(dict.fromkeys(job.address for job in spent.stopped))
        print(textwrap.fill(f"stopped at the limit, to go on from a checkpoint: {names}", WIDTH))
    if spent.late > 1:
        print(f"they had run {spent.late:.1f} times as long as expected, and so are others reckoned now:")
    if spent.failed:
        names = ", ".join(f"{row} seed {seed}" for row, seed in sorted(spent.failed))
        print(textwrap.fill(f"failed: {names}", WIDTH))
    _print_next(
        open_board(spent.after, spent.failed, spent.late), spent.after.done, budget, spent.slots, stop_seconds(budget)
    )
    print(f"'python -m replications report{of_these(args)}' makes the tables")


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
