"""Look by look: after the first, only the rows that an open claim needs, nothing twice, and one report at the end.

Runs, judgement and report are fakes here that take no time; the plan, the passes and the files between them are real.
The tests of this file build on one another, in order.
"""

import json
import re

import pytest
from workflow_copy import MODEL, PAPER, make_copy

pytestmark = pytest.mark.end_to_end

# A run writes its record at once, and in ran.txt what it was asked for; seed 1 of beta/margin diverges.
RUN = '''

def run(args):
    from replications.planning.plan import running

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
        write_atomic(run_path(folder, spec.paper, spec.method, seed), record.model_dump_json().encode())
'''
REPORT = '''

def report(args):
    folder = tier_folder(args.results, args.tier, args.tried)
    seeds = [path.parent.name for path in sorted(folder.glob("runs/*/*/*/run.json"))]
    (folder / "index.html").write_text(f"{len(seeds)} runs")
    with open("ran.txt", "a") as stream:
        stream.write("report\\n")
'''
# The claims that stay open are those whose note says so, and up to which look.
NEED = '''
from replications.reporting.verdicts import Verdict


def next_seeds(verdicts, most):
    sides = [(v.subject, v.reference) for v in verdicts if v.note and v.n <= int(v.note) and v.reason != "0"]
    return {method: 99 for side in sides for method in side}
'''
CLAIM = (
    "{{id: {id}, statement: x, where: x, subject: {{method: {subject}, metric: accuracy}}, "
    "reference: {{method: {reference}, metric: accuracy}}, direction: greater, smallest_effect: 0.5, "
    "tiers: [mini], note: '{note}'}}"
)
SURE = '{sure: {title: Sure, build: "model:build"}, plain: {title: Plain, build: "model:build"}}'


def write_claims(copy, alpha="3", beta=""):
    """Alpha's C1 (plain against margin) is open up to so many seeds, and beta's C2 (sure against broken)."""
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
    write_claims(copy)
    return copy


def snakemake(copy, *words, code=0):
    targets = [word for word in words if "=" not in word]
    config = [word for word in words if "=" in word]
    return copy.snakemake(*targets, config=("tier=mini", "throughput=false", *config), code=code)


def ran(copy):
    """What was run since the last call, sorted, but for the report's place."""
    path = copy.root / "ran.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


FIRST = ["alpha/plain 0,1,2", "alpha/sure 0,1,2", "beta/broken 0,1,2", "beta/margin 0,1,2"]
SECOND = ["alpha/plain 3,4", "beta/margin 3,4"]


def test_a_dry_run_tells_both_passes(copy):
    said = snakemake(copy, "-n")
    assert "alpha/plain (seeds 0,1,2)" in said and "(seeds 3,4)" not in said
    print(said)
