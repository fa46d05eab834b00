"""The commands beside results make the same runs again."""

import shlex

import pytest
from reporting_factory import provenance, record

from replications import catalogue, request
from replications.cli import build_parser
from replications.planning.knobs import seeds_or_looks
from replications.reporting import rerun
from replications.reporting.results import Records

CHANGES = ["recipe.lr=0.1", "task.folds=[1, 2]", "options.backbone={depth: 10, width: 0.25}", "threads=2"]


def records(*specs, tier="mini", **about) -> Records:
    """Records of resolved runs, made on a machine that `about` describes."""
    found = Records(tier)
    for spec in specs:
        run, _ = record("arcface/arcface", spec.seed)
        run.spec, run.provenance = spec, provenance(threads=spec.threads, **about)
        found.runs.setdefault(spec.address, {})[spec.seed] = run
    return found


def words(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "))


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,), (12, 13)])
def test_a_changed_set_up_is_run_again_by_its_command(seeds):
    tier = "standard"
    asked = [request.resolve("arcface/softmax", tier, seed, CHANGES, portable=True) for seed in seeds]
    (command,) = rerun.commands(records(*asked, tier=tier))
    assert max(map(len, command.splitlines())) <= rerun.WIDTH
    args = build_parser().parse_args(words(command)[3:])
    assert (args.methods, args.tier, args.device) == (["arcface/softmax"], tier, "cpu")
    taken, _ = seeds_or_looks(args.seeds, None, catalogue.tier_config(tier))
    assert [request.resolve("arcface/softmax", args.tier, seed, args.changes, args.portable) for seed in taken] == asked


def test_rows_of_one_set_up_share_a_command_and_others_do_not():
    rows = [request.resolve(f"arcface/{name}", "mini", 0, [f"recipe.lr={lr}"]) for name, lr in
            [("arcface", 0.1), ("softmax", 0.1), ("norm_softmax", 0.2)]]  # fmt: skip
    first, second = map(words, rerun.commands(records(*rows)))
    assert first[4:6] == ["arcface/arcface", "arcface/softmax"] and "recipe.lr=0.1" in first
    assert second[4:6] == ["arcface/norm_softmax", "--tier"] and "recipe.lr=0.2" in second


def test_the_tiers_own_set_up_is_run_again_by_snakemake_with_the_looks_that_were_taken():
    def of(seeds, tier="mini", **about):
        return records(*(request.resolve("arcface/softmax", tier, seed) for seed in range(seeds)), tier=tier, **about)

    assert rerun.commands(of(5)) == ["snakemake --cores all arcface"], "two looks are mini's own"
    assert rerun.commands(of(12)) == ["snakemake --cores all arcface --config looks=4"]
    (command,) = rerun.commands(of(3, "standard"))
    assert words(command)[4:] == ["--config", "tier=standard", "looks=1", "device=cpu"]
    (command,) = rerun.commands(of(3, "standard", device="H100", device_kind="cuda"))
    assert words(command)[4:] == ["--config", "tier=standard", "looks=1"]
    assert rerun.commands(of(5), ["face_verification"]) == ["snakemake --cores all face_verification"]


def test_whole_tasks_are_named_as_one_target():
    task = [key for key in catalogue.papers() if catalogue.find_paper(key).task == "toy_density"]
    rows = [request.resolve(address, "mini", 0) for address in catalogue.methods_of(task, "mini")]
    assert rerun.commands(records(*rows))[0].startswith("snakemake --cores all toy_density")


def test_rerun_records_are_compared_where_they_are_written():
    plain = request.resolve("arcface/softmax", "mini", 0)
    changed = request.resolve("arcface/arcface", "mini", 0, ["recipe.lr=0.2"], portable=True)
    assert rerun.comparison(records(plain, changed), "results/published/x") == [
        "python -m replications compare results/published/x results/mini",
        "python -m replications compare results/published/x results/portable/tried/mini",
    ]


def test_a_page_checks_its_numbers_where_the_runs_are_written():
    plain = request.resolve("arcface/softmax", "mini", 0)
    assert rerun.checks(records(plain)) == ["python -m replications verify"]
    changed = request.resolve("arcface/softmax", "standard", 0, ["recipe.lr=0.2"], portable=True)
    where = "--tier standard --tried --portable"
    assert rerun.checks(records(changed, tier="standard")) == [
        f"python -m replications report {where}",
        f"python -m replications verify {where}",
    ]
