"""Look by look: after the first, only the rows that an open claim needs, nothing twice, and one report at the end.

Runs, judgement and report are fakes here that take no time; the plan, the passes and the files between them are real.
The tests of this file build on one another, in order.
"""

import re

import pytest
from workflow_copy import PAPER, make_copy

pytestmark = pytest.mark.end_to_end

# A run writes its record at once, and in ran.txt what it was asked for; seed 1 of beta/margin diverges.
RUN = """

def run(args):
    from replications import records, running

    seeds = [int(seed) for seed in args.seeds.split(",") if seed]
    with open("ran.txt", "a") as stream:
        stream.write(f"{args.methods[0]} {args.seeds.strip(',')}\\n")
    for seed in seeds:
        spec = catalogue.resolve(args.methods[0], args.tier, seed, args.changes)
        prints = running.fingerprints(spec)
        lost = (spec.method, seed) == ("margin", 1)
        record = RunRecord(
            status="failed" if lost else "finished", reason="diverged" if lost else None, fingerprint=prints.run,
            code_fingerprint=prints.code, data_fingerprint=prints.data, spec=spec,
            metrics={} if lost else {"accuracy": 50.0 + seed},
        )
        folder = tier_folder(args.results, args.tier, tried=bool(args.changes))
        records.write_atomic(run_path(folder, spec.paper, spec.method, seed), record.model_dump_json().encode())
"""
REPORT = """

def report(args):
    folder = tier_folder(args.results, args.tier, args.tried)
    seeds = [path.parent.name for path in sorted(folder.glob("runs/*/*/*/run.json"))]
    (folder / "index.html").write_text(f"{len(seeds)} runs")
    if not args.show:
        with open("ran.txt", "a") as stream:
            stream.write("report\\n")
"""
# A claim stays open until it has as many pairs as its note says.
NEED = """
from replications.reporting.verdicts import Verdict


def next_seeds(verdicts, most):
    sides = [(v.subject, v.reference) for v in verdicts if len(v.seeds) < int(v.note)]
    return {method: 99 for side in sides for method in side}
"""
CLAIM = (
    "{{id: {id}, statement: x, where: x, subject: {{method: {subject}, metric: accuracy}}, "
    "reference: {{method: {reference}, metric: accuracy}}, direction: greater, smallest_effect: 0.5, "
    "tiers: [mini], note: '{note}'}}"
)
SURE = '{sure: {title: Sure, build: "model:build"}, plain: {title: Plain, build: "model:build"}}'


def write_claims(copy, alpha, beta=0):
    """Alpha's C1 (plain against margin) is open below so many pairs, beta's C2 (sure against broken) below others."""
    claims = {
        "alpha": CLAIM.format(id="C1", subject="alpha/plain", reference="beta/margin", note=alpha),
        "beta": CLAIM.format(id="C2", subject="alpha/sure", reference="beta/broken", note=beta),
    }
    for key, methods in {"alpha": SURE, "beta": None}.items():
        path = copy.model(key).parent / "paper.yaml"
        text = PAPER.format(key=key, methods=methods, claims=f"[{claims[key]}]") if methods else path.read_text()
        path.write_text(re.sub(r"(?m)^claims: .*$", lambda _, key=key: f"claims: [{claims[key]}]", text))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = make_copy(tmp_path_factory.mktemp("looks"))
    package = copy.root / "replications"
    tiers = package / "tasks" / "face_verification" / "tiers.yaml"
    tiers.write_text(tiers.read_text().replace("smoke:", "mini:"))
    for file, text in {"cli/runs.py": RUN, "cli/reports.py": REPORT}.items():
        (package / file).write_text((package / file).read_text() + text)
    (package / "reporting" / "need.py").write_text(NEED)
    write_claims(copy, alpha=5)
    return copy


def tier(copy, name):
    return copy.root / "results" / "mini" / name


def snakemake(copy, *words, code=0):
    targets = [word for word in words if "=" not in word]
    config = [word for word in words if "=" in word]
    return copy.snakemake(*targets, config=("tier=mini", "throughput=false", *config), code=code)


def ran(copy):
    """What was run since the last call: pass by pass in the order of rows, and the report."""
    path = copy.root / "ran.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    assert lines[-1:] in ([], ["report"]) and lines.count("report") < 2, "one report, at the end"
    return sorted(lines[:-1], key=lambda line: (int(line.split()[1].split(",")[0]), line))


FIRST = ["alpha/plain 0,1,2", "alpha/sure 0,1,2", "beta/broken 0,1,2", "beta/margin 0,1,2"]
SECOND = ["alpha/plain 3,4", "beta/margin 3,4"]
THIRD = ["alpha/plain 5,6,7", "beta/margin 5,6,7"]


def test_a_dry_run_tells_what_comes_now_and_what_may_come(copy):
    said = snakemake(copy, "-n")
    assert "alpha/plain (seeds 0,1,2)" in said and "(seeds 3,4)" not in said
    assert "verdicts of 2 papers" in said and "checkpoint" not in said
    assert "Then at most 8 more runs, 32 s on 2 cores" in said, "4 rows, 2 seeds, 0.1 min each and a start of 4 s"
    assert max(map(len, said[said.index("  alpha/plain") :].splitlines())) <= 80
    assert not (copy.root / "results").exists()


def test_the_second_look_is_of_the_rows_that_an_open_claim_needs(copy):
    said = snakemake(copy)
    assert ran(copy) == [*FIRST, *SECOND]
    assert "after 3 seeds 0 of 1 claims are decided; 2 rows go on to 5" in said
    assert "[10/10] report" in said, "the second look is counted"
    assert "Nothing to be done" in snakemake(copy) and not ran(copy)


def test_what_is_lost_on_the_way_is_made_again_and_nothing_else(copy):
    """As after a kill between two passes: the first look is there, a judging and part of the second look are not."""
    for seed in (3, 4):
        tier(copy, f"runs/beta/margin/seed{seed}/run.json").unlink()
    for name in ("looks/alpha-1.json", "index.html"):
        tier(copy, name).unlink()
    snakemake(copy, "alpha")
    assert ran(copy) == ["beta/margin 3,4"]


def test_more_looks_go_on_from_there(copy):
    snakemake(copy, "alpha", "looks=4")
    assert ran(copy) == THIRD, "C1 has 5 pairs only with 8 seeds: one diverged on one side"


def test_changed_code_is_judged_anew_before_a_further_look(copy):
    """Beta's row runs anew, and C1, now decided, asks for no second look of it; its records of old code stay."""
    path = copy.model("beta")
    path.write_text(path.read_text().replace("16.0 * cosine", "24.0 * cosine"))
    write_claims(copy, alpha=0)
    old = tier(copy, "runs/beta/margin/seed3/run.json").read_bytes()
    snakemake(copy, "alpha")
    assert ran(copy) == ["beta/margin 0,1,2"]
    assert tier(copy, "runs/beta/margin/seed3/run.json").read_bytes() == old
