"""The output of a dry-run: the jobs that would run and why, then their estimated cost per paper."""

from collections.abc import Callable, Sequence

from tabulate import tabulate

from replications.planning.job import Job, duration

Later = tuple[int, int, bool]  # number of runs, their seconds, whether on a GPU
ROWS = {"prepare": "data", "judge": "verdicts"}


def job_list(jobs: Sequence[Job]) -> str:
    """Return the jobs that would run, one per line, with the reason."""
    lines = [(job.title, job.reason) for job in sorted(jobs, key=lambda job: job.title) if job.rule != "judge"]
    if judging := [job for job in jobs if job.rule == "judge"]:
        reason = "which rows need more seeds" if len(judging) > 1 else judging[0].reason
        lines.append((f"verdicts of {len(judging)} papers" if len(judging) > 1 else judging[0].title, reason))
    width = max(len(title) for title, _ in lines)
    return "\n".join(f"  {title:{width}}  {reason}" for title, reason in lines)


def cost_table(jobs: Sequence[Job], cores: int, later: Later | None = None) -> str:
    """Return the cost of the jobs that would run, one row per paper, and their time on `cores` cores.

    `later` is the most that further looks may add: runs and, if known, their CPU- or GPU-seconds.
    """
    rows: dict[str, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: (job.rule in ROWS or job.paper is None, job.paper or "")):
        rows.setdefault(ROWS.get(job.rule) or job.paper or job.rule, []).append(job)
    lines = [_row(name, found) for name, found in rows.items()]
    if len(rows) > 1:
        lines.append(_row("total", jobs))
    table = tabulate(
        lines,
        headers=["target", "jobs", "runs", "CPU-hours", "GPU-hours", "disk"],
        colalign=("left", *["right"] * 5),
        disable_numparse=True,
    )
    return "\n".join([table, "", _footer(jobs, cores), *_later_runs(later, cores)])


def _row(name: str, jobs: Sequence[Job]) -> list[str]:
    cpu = [job for job in jobs if not job.resources.get("gpu")]
    gpu = [job for job in jobs if job.resources.get("gpu")]
    runs = sum(len(job.output) for job in jobs if job.rule.startswith("train"))
    return [
        name,
        str(len(jobs)),
        str(runs or "-"),
        _hours([(job, job.threads) for job in cpu]),
        _hours([(job, job.resources["gpu"]) for job in gpu]),
        _sum([job.resources.get("store_mb", 0) for job in jobs], _size),
    ]


def _hours(jobs: Sequence[tuple[Job, int]]) -> str:
    seconds = [job.resources.get("seconds", 0) for job, _ in jobs]
    weights = [weight for _, weight in jobs]
    return _sum([s * w if s > 0 else s for s, w in zip(seconds, weights, strict=True)], _show_hours)


def _show_hours(seconds: int) -> str:
    return f"{seconds / 3600:.2f}" if seconds >= 36 else "< 0.01"


def _sum(values: Sequence[int], show: Callable[[int], str]) -> str:
    """Sum of the known values; '?' marks unknown (negative) ones."""
    known = [value for value in values if value >= 0]
    unknown = len(known) < len(values)
    if not sum(known):
        return "?" if unknown else "-"
    return show(sum(known)) + (" + ?" if unknown else "")


def _size(megabytes: int) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


def _later_runs(later: Later | None, cores: int) -> list[str]:
    if not later:
        return []
    runs, seconds, gpu = later
    time = f", {duration(seconds)} on a GPU" if gpu else f", {duration(seconds / cores)} on {cores} cores"
    return [f"Then at most {runs} more runs{time if seconds > 0 else ''}, for claims that stay open."]


def _footer(jobs: Sequence[Job], cores: int) -> str:
    seconds = [max(job.resources.get("seconds", 0), 0) for job in jobs]
    if not any(seconds):
        return "No estimate: these methods have no run record, and their task gives no time. Nothing has been run."
    gpus = max((job.resources.get("gpu") or 0 for job in jobs), default=0)
    work = sum(s * (1 if job.resources.get("gpu") else job.threads) for s, job in zip(seconds, jobs, strict=True))
    if gpus:
        return f"Estimated {duration(work)} one after the other; on several GPUs less. Nothing has been run."
    return f"Estimated {duration(max(work / cores, *seconds))} on {cores} cores. Nothing has been run."
