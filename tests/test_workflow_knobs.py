"""The knobs: what a person may give, as text or typed, and the one line for what they may not."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from replications import catalogue
from replications.errors import UserError, one_line
from replications.planning import front
from replications.planning.knobs import parse_methods, read_knobs
from replications.planning.lock import hold_folder
from replications.planning.plan import Plan
from replications.reporting import labels

ROOT = Path(__file__).parent.parent
CONFIG = catalogue.read_yaml(ROOT / "config" / "config.yaml")
PAPERS = sorted(catalogue.papers())


def knobs(**changes):
    return read_knobs({**CONFIG, **changes})


def test_defaults_are_a_whole_request():
    found = knobs()
    assert found.tier == "mini"
    assert (found.looks, found.seeds, found.passes) == (2, (0, 1, 2, 3, 4), ((0, 1, 2), (3, 4)))
    assert not found.tried
    assert set(found.papers) == {key for key in PAPERS if catalogue.methods_of([key], "mini")}


@pytest.mark.parametrize("given", ["recipe.steps=3", ["recipe.steps=3", "task.folds=[1]"]])
def test_a_changed_set_up_has_a_folder_of_its_own_and_goes_into_every_job(given):
    plan = Plan(knobs(set=given))
    assert plan.folder == Path("results/tried/mini") and Plan(knobs()).folder == Path("results/mini")
    assert "--set=recipe.steps=3" in plan.shell("run", "set", "tier") and "--tried" in plan.shell("report", "tried")
    assert "--set" not in Plan(knobs()).shell("run", "set", "tier")
    assert "--tried" not in Plan(knobs()).shell("report", "tried")
    address = plan.methods_of("all")[0]
    assert plan.spec(address, 0).recipe.steps == 3


def test_portable_runs_are_kept_apart():
    plan = Plan(knobs(portable=True))
    assert plan.folder == Path("results/portable/mini")
    assert plan.spec("vit/vit", 0).portable and not Plan(knobs()).spec("vit/vit", 0).portable
    assert "--portable" in plan.shell("run", "portable") and "--portable" not in Plan(knobs()).shell("run", "portable")


def test_ablations_may_be_left_out():
    roles = {catalogue.find_method(address)[1].role for address in Plan(knobs(ablations=False)).methods_of("all")}
    assert "ablation" not in roles and "method" in roles
    assert "--no-ablations" in Plan(knobs(ablations=False)).shell("report", "ablations")


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (5, (0, 1, 2, 3, 4)),
        ("5", (0, 1, 2, 3, 4)),
        ("2,0,1", (0, 1, 2)),
        ([7], (7,)),
        ("7,", (7,)),
    ],
)
def test_seeds_are_a_count_or_a_list_and_a_trial_that_every_table_names(given, seeds):
    found = Plan(knobs(seeds=given))
    assert found.knobs.seeds == seeds and found.knobs.passes == (seeds,) and found.folder == Path("results/tried/mini")
    spec = found.spec(found.methods_of("all")[0], seeds[0])
    named = f"seeds={','.join(map(str, seeds))}"
    assert spec.changes == (named,)
    assert labels.category(SimpleNamespace(spec=spec, category=None)) == f"changed set-up: {named}"
    assert spec.canonical_json() == catalogue.resolve(spec.address, "mini", seeds[0]).canonical_json()
    assert f"--set={named}" in found.shell("run", "set") and "--tried" in found.shell("report", "tried")


@pytest.mark.parametrize(
    ("tier", "given", "passes"),
    [
        ("mini", 1, ((0, 1, 2),)),
        ("mini", "4", ((0, 1, 2), (3, 4), (5, 6, 7), (8, 9, 10, 11))),
        ("mini", "null", ((0, 1, 2), (3, 4))),
        ("standard", None, ((0, 1, 2),)),
        ("smoke", None, ((0,),)),
        ("smoke", 2, ((0, 1, 2), (3, 4))),
    ],
)
def test_looks_say_which_seeds_come_when(tier, given, passes):
    found = knobs(tier=tier, looks=given)
    assert found.passes == passes and found.seeds == tuple(seed for seeds in passes for seed in seeds)
    assert not found.tried


def test_a_paper_needs_the_seeds_that_each_judging_gives_its_rows(tmp_path):
    """A row that is left behind and needed again catches up; where nobody goes on, no later judging is asked for."""
    found = Plan(knobs(looks=4, papers="lsoftmax", seeds=None))
    stays, goes, late, *_ = rows = found.methods_of("lsoftmax")
    one = dict.fromkeys(rows, 3) | {goes: 5}
    after = {1: one, 2: one | {goes: 8, late: 8}, 3: one | {goes: 8, late: 8}}

    def judged(paper, look):
        path = tmp_path / f"{paper}-{look}.json"
        path.write_text(json.dumps({"seeds": after[look]}))
        return str(path)

    def seeds_of(paths, row):
        return sum(path.startswith(f"results/mini/runs/{row}/") for path in paths)

    for passes, expected in ((1, (3, 3, 3)), (2, (3, 5, 3)), (3, (3, 8, 8)), (4, (3, 8, 8))):
        paths = found.records_after("lsoftmax", passes, judged)
        assert tuple(seeds_of(paths, row) for row in (stays, goes, late)) == expected
        assert [path for path in paths if path.startswith(str(tmp_path))] == [
            str(tmp_path / f"lsoftmax-{look}.json") for look in range(1, passes)
        ]
    assert found.records_after("resnet", 4, judged) == found.records("resnet"), "it has no claim to judge"
    after[2] = one
    assert not [path for path in found.records_after("lsoftmax", 4, judged) if path.endswith("lsoftmax-3.json")]
    after[1] = {"lsoftmax/gone": "many"}
    with pytest.raises(UserError, match=r"lsoftmax-1\.json is missing or damaged"):
        found.records_after("lsoftmax", 2, judged)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("False", False), (True, True)])
def test_a_shell_hands_booleans_over_as_text(text, value):
    assert knobs(throughput=text).throughput is value


def test_methods_are_named_by_themselves_by_paper_by_task_or_all():
    def own(key):
        return catalogue.methods_of([key], "mini")

    task = [key for key in PAPERS if catalogue.find_paper(key).task == "detection_3d"]
    assert parse_methods(["votenet/votenet", "boxnet/boxnet,votenet/votenet"], "mini") == [
        "votenet/votenet",
        "boxnet/boxnet",
    ]
    assert parse_methods(["cosface"], "mini") == own("cosface") and "arcface/arcface" in own("arcface")
    assert parse_methods(["detection_3d"], "mini") == sorted({address for key in task for address in own(key)})
    assert parse_methods(["all"], "smoke") == catalogue.methods_of(PAPERS, "smoke")
    one = parse_methods(["vit/vit", "image_classification"], "mini")
    assert one[0] == "vit/vit" and len(one) == len(set(one)) > 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["arcface", "vot"], "there is no paper, method or task 'vot'"),
        (["detection"], "there is no paper, method or task 'detection'"),
        (["votenet/votnet"], "unknown method 'votenet/votnet' (did you mean 'votenet'?)"),
        ([""], "no method given"),
        (["arcface/arcface_m03"], "arcface/arcface_m03 is not run in tier 'mini'"),
    ],
)
def test_what_names_no_method_is_one_line(words, line):
    with pytest.raises(UserError) as error:
        parse_methods(words, "mini")
    assert line in str(error.value)


def test_papers_are_all_or_a_list():
    assert knobs(papers=f"{PAPERS[1]},{PAPERS[0]}").papers == tuple(PAPERS[:2])
    assert knobs(papers=PAPERS[:1]).papers == tuple(PAPERS[:1])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"teir": "mini"}, "unknown key 'teir' in the configuration (did you mean 'tier'?)"),
        ({"tier": "minni"}, "unknown tier 'minni' (did you mean 'mini'?)"),
        ({"papers": PAPERS[0][:-1] + "x"}, f"(did you mean '{PAPERS[0]}'?)"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x' (did you mean 'cuda:0'?)"),
        ({"seeds": "1.5"}, "seeds: '1.5' is not an integer"),
        ({"seeds": 1.5}, "seeds: '1.5' is not an integer"),
        ({"seeds": "a,b"}, "seeds: 'a' is not an integer"),
        ({"seeds": "true"}, "seeds: 'true' is not an integer"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": "-1,2"}, "seeds=-1,2"),
        ({"seeds": "1,1"}, "seeds=1,1"),
        ({"throughput": "maybe"}, "throughput=maybe is wrong; it is whether"),
        ({"data_root": None}, "data_root="),
        ({"papers": ""}, "papers= is empty"),
        ({"seeds": 101}, "seeds: 101 are too many; at most 100"),
        ({"seeds": list(range(5000))}, "seeds: 5000 are too many"),
        ({"seeds": 10**18}, "is not an integer up to 4294967295"),
        ({"seeds": int("9" * 4000) ** 2}, "seeds: '...' is not an integer"),
        ({"seeds": [2**32]}, "seeds: '4294967296' is not an integer up to 4294967295"),
        ({"seeds": "٣"}, "seeds: '٣' is not an integer"),
        ({"seeds": float("inf")}, "seeds: 'inf' is not an integer"),
        ({"seeds": {"a": 1}}, "is not an integer"),
        (
            {"looks": 0},
            "looks=0: give 1 to 4, which stand for up to 3, 5, 8 or 12 seeds (other",
        ),
        ({"looks": "5"}, "looks=5: give 1 to 4"),
        ({"looks": "many"}, "looks=many: give 1 to 4"),
        ({"looks": "true"}, "looks=true: give 1 to 4"),
        ({"looks": True}, "looks=True: give 1 to 4"),
        ({"looks": 1.5}, "looks=1.5: give 1 to 4"),
        ({"looks": [2]}, "looks=2: give 1 to 4"),
        ({"looks": 2, "seeds": "7,8"}, "looks=2 and seeds=7,8: give looks for verdicts, or seeds for a trial"),
        ({"set": "seeds=x"}, "'seeds=x' is not of the form part.name=value"),
        ({"set": [[[["a"]]]]}, "is wrong; it is changes against"),
        ({"set": "[" * 3000}, "is not of the form part.name=value"),
        ({"tier": "x" * 100_000}, "unknown tier 'xxx"),
        ({"device": "cuda:²"}, "unknown device 'cuda:²'"),
        ({"data_mirror": "nowhere"}, "data_mirror=nowhere: there is no such folder"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(changes, line):
    with pytest.raises(UserError) as caught:
        plan(**changes).selection_meaning("all")
    said = one_line(caught.value)
    assert line in said and "\n" not in str(caught.value)
    assert len(said) < 500


def test_a_hundred_seeds_are_planned_in_seconds():
    began = time.process_time()
    found = plan(tier="mini", seeds=100, papers="eigenfaces,deepid")
    found.selection_meaning("all")
    prints = {found.fingerprints(address, seed).run for address in found.methods_of("all") for seed in range(100)}
    assert len(prints) == 100 * len(found.methods_of("all"))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("results: é".encode("latin-1"), "not UTF-8"),
        (b"results: 2026-99-99", "a value is not valid: month must be in 1..12"),
        (b"tier: mini\nresults: [", ": not valid YAML"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line(content, line, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        front.check_file(str(tmp_path / "config.yaml"))
    assert line in ended.value.code and "\n" not in ended.value.code


def test_every_knob_of_the_configuration_is_in_the_schema_and_back():
    schema = catalogue.read_yaml(ROOT / "workflows" / "config.schema.yaml")
    assert set(schema["properties"]) == set(CONFIG)
    assert schema["additionalProperties"] is False


def snakemake(*arguments):
    call = [sys.executable, "-m", "snakemake", "-n", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.end_to_end
def test_snakemake_says_what_is_wrong_in_one_line():
    done = snakemake("--config", "tier=smoke", "sedes=2")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: unknown key 'sedes' in the configuration (did you mean 'seeds'?)"


@pytest.mark.end_to_end
def test_snakemake_names_the_nearest_target():
    wrong = PAPERS[0][:-1]
    done = snakemake(wrong, "--config", "tier=smoke")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == f"error: unknown target '{wrong}' (did you mean '{PAPERS[0]}'?)"


def plan(**changes) -> Plan:
    return Plan(knobs(**changes))


def test_targets_on_the_command_line_become_a_selection():
    found = plan()
    first, second = PAPERS[:2]
    assert found.selection([]) == found.selection(["all"]) == found.selection(["all", first]) == "all"
    assert found.selection([second, first]) == f"{first}+{second}"
    assert found.papers_of(f"{first}+{second}") == (first, second)
    task = catalogue.find_paper(first).task
    assert first in found.papers_of(found.selection([task]))
    assert found.selection(["results/mini/runs/x/y/seed0/run.json"]) == "all"


def test_seeds_that_share_a_process_and_their_records():
    groups = plan(tier="standard", seeds=2).seed_groups if catalogue.methods_of(PAPERS, "standard") else ["0", "1"]
    assert groups == ["0", "1"]
    assert plan(tier="mini", looks=4).seed_groups == ["0,1,2", "3,4", "5,6,7", "8,9,10,11"]
    found = plan(tier="mini", seeds=5)
    assert found.seed_groups == ["0,1,2,3", "4"]
    wildcards = SimpleNamespace(paper="p", method="m")
    assert [path.format(**vars(wildcards)) for path in found.records_of_group("0,1,2")] == [
        f"results/tried/mini/runs/p/m/seed{seed}/run.json" for seed in (0, 1, 2)
    ]


def test_meaning_is_of_what_decides_a_number_and_of_nothing_else(monkeypatch):
    address = catalogue.methods_of(PAPERS, "mini")[0]
    meaning = plan().run_meaning(address, "0,1")
    other_place = plan(data_root="elsewhere", results="there", device="cpu", throughput=False)
    assert other_place.run_meaning(address, "0,1") == meaning
    assert plan(looks=4).run_meaning(address, "0,1") == meaning
    assert plan(seeds=5).run_meaning(address, "0,1") != meaning, "its records name the seeds of the trial"
    assert plan().run_meaning(address, "0,2") != meaning
    assert plan(tier="smoke").run_meaning(address, "0,1") != meaning


def test_verdicts_are_made_anew_where_claims_rows_or_looks_change(monkeypatch):
    meaning = plan().judging_meaning("lsoftmax")
    assert plan(device="cpu", results="there").judging_meaning("lsoftmax") == meaning
    assert plan(looks=4).judging_meaning("lsoftmax") != meaning
    assert plan(ablations=False).judging_meaning("lsoftmax") != meaning
    find_paper = catalogue.find_paper
    stricter = [claim.model_copy(update={"smallest_effect": 77.0}) for claim in find_paper("lsoftmax").claims]
    changed = find_paper("lsoftmax").model_copy(update={"claims": stricter})
    monkeypatch.setattr(catalogue, "find_paper", lambda key: changed if key == "lsoftmax" else find_paper(key))
    Plan.judging_meaning.cache_clear()  # which a process keeps: claims do not change in it
    assert plan().judging_meaning("lsoftmax") != meaning


def test_a_folder_has_one_snakemake(tmp_path):
    held = hold_folder(tmp_path / ".snakemake")
    with pytest.raises(UserError, match=r"another snakemake \(process [0-9]+\) is running"):
        hold_folder(tmp_path / ".snakemake")
    held.release()
    hold_folder(tmp_path / ".snakemake").release()


def test_reading_the_plan_imports_nothing_heavy():
    code = (
        "import sys; from types import SimpleNamespace as Some; "
        "from replications import catalogue; from replications.planning import front, estimate; "
        "given = Some(configfiles=[], config_args=None); "
        "workflow = Some(cores=1, basedir='.', configfiles=[], config_settings=given); "
        "config = catalogue.read_yaml(catalogue.CONFIG / 'config.yaml'); "
        "plan = front.make_plan(config, workflow); plan.records('all'); "
        "print(sorted({'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'timm', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
