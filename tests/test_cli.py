"""The command line: help with examples, what there is, and one line for what is wrong."""

import ast
import io
import json
import re
import shlex
import sys
from types import SimpleNamespace

import pytest

from replications import catalogue
from replications.cli import build_parser, listing, main, readme
from replications.cli.data import prepare_own
from replications.cli.options import of_these
from replications.datasets.arrays import set_path
from replications.errors import UserError
from replications.reporting import publications
from replications.tasks.base import find_task

PUBLISHED = readme.README.parent / "results" / "published"
COMMANDS = (
    "check",
    "list",
    "describe",
    "fetch",
    "run",
    "evaluate",
    "throughput",
    "trials",
    "report",
    "verify",
    "cite",
    "compare",
    "publish",
)
METHODS = catalogue.methods_of(catalogue.papers(), "smoke")


@pytest.mark.parametrize("command", (*COMMANDS, "new"))
def test_help_ends_with_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    example = capsys.readouterr().out.strip().splitlines()[-1]
    words = re.fullmatch(r"\s*python -m replications (.+)", example).group(1).split()
    assert words[0] == command
    build_parser().parse_args(words)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(re.search(rf"^\s+{command}\s", said, re.M) for command in (*COMMANDS, "new"))


@pytest.mark.parametrize("kind", ["papers", "methods", "claims", "tasks", "tiers", "data"])
def test_list_has_a_row_for_each(kind, capsys):
    assert main(["list", kind]) == 0
    rows = capsys.readouterr().out.strip().splitlines()[2:]
    papers = catalogue.papers()
    expected = {
        "papers": len(papers),
        "methods": sum(len(paper.methods) for paper in papers.values()),
        "claims": sum(len(paper.claims) for paper in papers.values()),
        "tiers": 4,
    }
    assert len(rows) == expected.get(kind, len(rows)) > 0


def described(name, capsys, *more):
    assert main(["describe", name, *more]) == 0
    return capsys.readouterr().out


def test_describe_resolves_a_method(capsys):
    address = METHODS[0]
    said = described(address, capsys, "--tier", "smoke")
    spec = catalogue.resolve(address, "smoke", 0)
    assert f"lr: {spec.recipe.lr}" in said
    assert all(key in said for key in spec.data.values())


def test_describe_knows_papers_claims_data_and_tasks(capsys):
    claims = [(paper, claim) for paper in catalogue.papers().values() for claim in paper.claims]
    for paper, claim in claims[:3]:
        said = described(f"{paper.key}/{claim.id}", capsys)
        assert claim.subject.method in said and claim.direction in said
        assert paper.title.split(":")[0][:20] in described(paper.key, capsys)
    spec = catalogue.resolve(METHODS[0], "smoke", 0)
    assert "licence" in described(next(iter(spec.data.values())), capsys)
    said, task = described(spec.task, capsys), find_task(spec.task)
    assert "primary metric" in said and f"build returns: {task.returns.partition(':')[2]}\n" in said
    assert all(f"  {name}: {meaning}\n" in said for name, meaning in task.build.items())
    assert "must offer" in said.rpartition("replications/layers/")[2]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["describe", METHODS[0] + "x"], f"did you mean '{METHODS[0]}'?"),
        (["run", METHODS[0][:-1] + "_", "--tier", "smoke"], "unknown method"),
        (["run", METHODS[0], "arcfac", "--tier", "smoke"], "there is no paper, method or task 'arcfac' (did you mean"),
        (["run", ",", "--tier", "smoke"], "no method given"),
        (["throughput", METHODS[0] + ",nothing", "--tier", "smoke"], "there is no paper, method or task 'nothing'"),
        (["evaluate", METHODS[0], METHODS[1], "--weights", "x"], "--weights scores one method, not 2"),
        (["new", "paper", "3d", "--task", "detection_3d"], "'3d' is not a valid name"),
        (["new", "nothing"], "invalid choice: 'nothing'"),
        (["run", METHODS[0], "--tier", "smok"], "unknown tier 'smok' (did you mean 'smoke'?)"),
        (["run", METHODS[0], "--tier", "smoke", "--seeds", "x"], "seeds: 'x' is not an integer"),
        (
            ["run", METHODS[0], "--tier", "smoke", "--set", "recipe.lrr=1"],
            "key 'lrr' (did you mean 'lr'?)",
        ),
        (["run", METHODS[0], "--tier", "smoke", "--device", "gpu0"], "gpu0"),
        (["fetch", "no_such_set"], "unknown data set 'no_such_set'"),
        (["report", "--papers", "nobody"], "unknown paper 'nobody'"),
        (["compare", "nowhere", "nowhere"], "no record below nowhere"),
        (["verify", "--tier", "smoke", "--results", "nowhere"], "no report in nowhere"),
        (["cite", "--tier", "smoke", "--results", "nowhere"], "no record below nowhere"),
        (["publish", "--tier", "smoke", "--results", "nowhere"], "no report in nowhere"),
        (["report", "--tier", "smoke", "--results", "nowhere"], "no record below nowhere"),
        (["list", "methods", "--tier", "smok"], "did you mean 'smoke'?"),
        (["list", "nothing"], "invalid choice: 'nothing'"),
        (["list", "claims", "--paper", "arcfac"], "unknown paper 'arcfac' (did you mean 'arcface'?)"),
        (["list", "data", "--task", "detection_4d"], "unknown task 'detection_4d' (did you mean 'detection_3d'?)"),
        (["list", "--paper", ""], "unknown paper ''"),
        (["nothing"], "invalid choice: 'nothing'"),
        ([], "COMMAND"),
        (["report", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["fetch", "faces_smoke", "--papers", "nobody"], "unknown paper 'nobody'"),
        (["fetch", "faces_smoke", "--data-mirror", "nowhere"], "--data-mirror=nowhere: there is no such folder"),
        *[(["fetch", "faces_smoke", f"--workers={n}"], f"--workers={n}:") for n in ("0", "-1", "x", "٣", "9" * 9)],
        *[(["run", METHODS[0], f"--seeds={n}"], "seeds") for n in ("0", "-1", "1,1", "٣", "1e3", "9" * 5000, "5000")],
        *[(["run", METHODS[0], f"--device={d}"], "unknown device") for d in ("", "CPU", "cuda:", "cuda:²", "mps")],
        *[
            (["run", METHODS[0], f"--set=recipe.lr={v}"], "is not a value")
            for v in ("[" * 1000, "2026-99-99", "9" * 5000)
        ],
    ],
)
def test_what_is_wrong_is_one_line(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and line in said
    assert len(said.splitlines()) == 1 and len(said) < 4000
    assert not list(tmp_path.rglob("*"))


# A call of each command that is right up to the options below.
RIGHT = {
    "list": ["list"],
    "describe": ["describe", METHODS[0]],
    "fetch": ["fetch", "faces_smoke"],
    "run": ["run", METHODS[0]],
    "evaluate": ["evaluate", METHODS[0]],
    "throughput": ["throughput", METHODS[0]],
    "report": ["report"],
    "verify": ["verify"],
    "cite": ["cite"],
    "publish": ["publish"],
}
FOLDERS_OF = {
    "fetch": ["--data-root", "--data-mirror"],
    **{name: ["--data-root", "--work", "--results"] for name in ("run", "evaluate", "throughput")},
    "report": ["--data-root", "--results"],
    **{name: ["--results"] for name in ("verify", "cite", "publish")},
}


@pytest.mark.parametrize("command", RIGHT)
def test_every_command_checks_its_tier_and_its_folders(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    wrong = [(f"--tier={tier}", f"unknown tier '{tier}'") for tier in ("smok", "", "Mini")]
    for option in FOLDERS_OF.get(command, ()):
        bad = {"file": "file is a file", "file/x": "file is a file", "": "printable", "a\nb": "printable"}
        bad |= {"\0": "printable", "\udcff": "printable", "x" * 300: "too long"}
        wrong += [(f"{option}={name}", said) for name, said in bad.items()]
    for option, line in wrong:
        assert main([*RIGHT[command], option]) == 2, option
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and line in said and len(said.splitlines()) == 1, (option, said)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("option", ["--data-root", "--work", "--results"])
def test_a_folder_of_the_command_line_may_begin_at_home(option, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = build_parser().parse_args([*RIGHT["run"], f"{option}=~/a b"])
    assert getattr(args, option[2:].replace("-", "_")) == tmp_path / "a b"


def test_the_defaults_are_what_the_configuration_says_as_it_is_written(monkeypatch, tmp_path):
    text = (catalogue.CONFIG / "config.yaml").read_text()
    for name, value in (("results", "2026_11_27"), ("work", "0123"), ("data_root", "2026-11-27")):
        text = re.sub(rf"^{name}: \w+", f"{name}: {value}", text, flags=re.M)
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setattr(catalogue, "CONFIG", tmp_path)
    args = build_parser().parse_args([*RIGHT["run"], "--tier=smoke"])
    assert [str(getattr(args, name)) for name in ("results", "work", "data_root")] == [
        "2026_11_27",
        "0123",
        "2026-11-27",
    ]


def test_list_shows_what_a_tier_has(capsys):
    def names(*words):
        assert main(["list", *words]) == 0
        return {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]}

    for tier in ("smoke", "paper"):
        assert names("methods", "--tier", tier) == {
            f"{key}/{name}"
            for key, paper in catalogue.papers().items()
            for name in paper.methods
            if catalogue.is_in_tier(f"{key}/{name}", tier)
        }
        assert names("tiers", "--tier", tier) == {tier}
        claims = {f"{p.key}/{c.id}" for p in catalogue.papers().values() for c in p.claims if tier in c.tiers}
        assert names("claims", "--tier", tier) == claims
        assert names("data", "--tier", tier) < names("data")
    assert "faces_smoke" in names("data", "--tier", "smoke") - names("data", "--tier", "paper")


def listed(capsys, *words):
    assert main(["list", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_as_json_has_the_keys_that_its_help_names(capsys):
    found = listed(capsys)
    assert list(found) == list(listing.KINDS)
    documented = re.findall(r"^  (\w+)\s+(\w.*(?:\n {8,}.*)*)", listing.JSON, re.M)
    assert [kind for kind, _ in documented] == list(found)
    for kind, text in documented:
        names = [re.split(r"[ (]", part.strip())[0] for part in re.sub(r"\{.*?\}|\(.*?\)", "", text).split(",")]
        assert all(list(row) == names for row in found[kind]) and found[kind], kind


def test_list_filters_every_kind_by_paper_task_and_tier(capsys):
    found = listed(capsys, "--paper", "vit,arcface,detr", "--task", "detection_2d", "--tier", "mini")
    assert [row["paper"] for row in found["papers"]] == ["detr"]
    mini = [
        f"detr/{name}" for name in catalogue.find_paper("detr").methods if catalogue.is_in_tier(f"detr/{name}", "mini")
    ]
    assert [row["method"] for row in found["methods"]] == mini
    assert {row["paper"] for row in found["claims"]} == {"detr"} and all("mini" in r["tiers"] for r in found["claims"])
    assert [(row["task"], row["papers"]) for row in found["tasks"]] == [("detection_2d", ["detr"])]
    assert [row["tier"] for row in found["tiers"]] == ["mini"]
    assert [row["data_set"] for row in found["data"]] == ["scenes_mini"]
    rows = listed(capsys, "methods", "--task", "face_verification")
    assert {row["paper"] for row in rows} == {k for k, p in catalogue.papers().items() if p.task == "face_verification"}
    assert listed(capsys, "papers", "--paper", "vit", "--task", "detection_2d") == []


class Ended(SimpleNamespace):
    """As much of a run's record as the command line reads."""

    def __init__(self, spec, status="finished", reason=None):
        metric = find_task(spec.task).primary_metric
        super().__init__(spec=spec, status=status, reason=reason, message="so", metrics={metric: 50.0})


@pytest.mark.parametrize(
    ("second", "code", "begun"),
    [
        ("finished", 0, 3),
        ("diverged", 0, 3),  # a row of the table
        ("error", 1, 3),
        (UserError("no such option"), 1, 3),
        (ValueError("a bug"), 1, 3),
        ("interrupted", 1, 2),  # a person wants all of it to stop
    ],
)
def test_a_method_that_fails_does_not_stop_the_others(second, code, begun, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, seen, prepared = ["vit/vit", "resnet/resnet", "mae/supervised"], [], []

    def execute(spec, **_):
        seen.append(spec.address)
        if spec.address != names[1]:
            return Ended(spec)
        if isinstance(second, Exception):
            raise second
        return Ended(spec) if second == "finished" else Ended(spec, "failed", second)

    monkeypatch.setattr("replications.running.execute", execute)
    monkeypatch.setattr("replications.datasets.prepare.prepare", lambda key, root: prepared.append(key))
    assert main(["run", *names, "--tier", "smoke"]) == code
    assert (seen, prepared) == (names[:begun], ["digits_16"])
    said = capsys.readouterr()
    if isinstance(second, Exception):
        assert f"error: resnet/resnet: {second}" in said.err and ("Traceback" in said.err) == isinstance(
            second, ValueError
        )
    if begun == 3:
        ended = "3 methods have run" if code == 0 else "1 of 3 methods failed (resnet/resnet)"
        assert ended in said.out.splitlines()[-1]


def test_looks_go_on_with_the_rows_that_a_claim_needs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("replications.datasets.prepare.prepare", lambda key, root: None)
    one, two, three = names = [a for a in catalogue.methods_of(["lsoftmax"], "mini") if a.startswith("lsoftmax/")][:3]
    seen, asked = [], []

    def execute(spec, **_):
        seen.append((spec.address, spec.seed))
        return Ended(spec)

    def next_seeds(verdicts, most):
        asked.append(({v.paper for v in verdicts}, most))
        return {1: {one: 5}, 2: {two: 8}, 3: {}}[len(asked)]

    monkeypatch.setattr("replications.running.execute", execute)
    monkeypatch.setattr("replications.reporting.need.next_seeds", next_seeds)
    assert main(["run", *names, "--tier", "mini", "--looks", "4"]) == 0
    first = [(name, seed) for name in (one, two, three) for seed in range(3)]
    late = [(two, seed) for seed in range(3, 8)]  # left behind at the second look: it catches up
    assert seen == [*first, (one, 3), (one, 4), *late]
    assert asked == [({"lsoftmax"}, 4)] * 3
    assert "lsoftmax: after 3 seeds 0 of 0 claims are decided; 1 row goes on to 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--looks", "5"], "looks=5: give 1 to 4"),
        (["--looks", "2", "--seeds", "3"], "looks=2 and seeds=3: give looks for verdicts, or seeds for a trial"),
    ],
)
def test_looks_that_are_none_are_one_line(words, line, capsys):
    assert main(["run", "lsoftmax/lsoftmax", "--tier", "mini", *words]) == 2
    assert line in capsys.readouterr().err


def test_without_looks_a_run_takes_the_first_look_or_what_the_tier_says(monkeypatch):
    from replications.cli import runs

    taken = []
    monkeypatch.setattr(runs, "_execute", lambda args, rows, *_, **__: taken.append(dict(rows)) or 0)
    for words in (["--tier", "mini"], ["--tier", "standard"], ["--tier", "smoke"], ["--seeds", "7,"]):
        main(["run", "lsoftmax/lsoftmax_m2", *words])
    assert [rows["lsoftmax/lsoftmax_m2"] for rows in taken] == [(0, 1, 2), (0, 1, 2), (0,), (7,)]


def test_data_that_have_to_be_downloaded_are_left_to_fetch(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr("replications.datasets.prepare.prepare", lambda key, root: prepared.append(key))
    prepare_own(["lfw_112", "imagenet_256", "faces_mini", "dictionary_text"], tmp_path)
    assert prepared == ["faces_mini", "dictionary_text"]
    set_path("faces_mini", tmp_path).mkdir(parents=True)
    prepare_own(["faces_mini"], tmp_path)
    assert len(prepared) == 2


def test_an_error_of_the_system_is_one_line_with_path_and_remedy(capsys, monkeypatch):
    def full(args):
        raise OSError(28, "No space left on device", "/there/run.json")

    monkeypatch.setattr("replications.cli.listing.show_list", full)
    assert main(["list"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot read or write /there/run.json: No space left on device (free some space ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    ("words", "code"), [(["describe", "transformer"], 0), (["describe", "mäe√"], 2), (["fetch", "mäe√"], 2)]
)
def test_a_terminal_without_the_letters_gets_a_question_mark(encoding, words, code, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, "strict", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(words) == code
    assert b"?" in (err if code else out).buffer.getvalue()


def test_no_text_is_read_or_written_as_the_locale_says():
    """Where a locale is not UTF-8 a page could not be made, and a record would be another file."""
    found = []
    for room in ("reporting", "planning", "cli", "papers"):
        for path in (catalogue.PACKAGE / room).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
            found += [
                f"{path.name}:{call.lineno}"
                for call in calls
                if isinstance(call.func, ast.Attribute)
                and call.func.attr in ("read_text", "write_text")
                and "encoding" not in {word.arg for word in call.keywords}
            ]
    assert not found


def test_the_suite_cites_itself(capsys):
    assert main(["cite", "--suite"]) == 0
    assert capsys.readouterr().out.startswith("cff-version")


def test_pages_of_publications_are_current_and_small():
    pages = {PUBLISHED / name: text for name, text in publications.all_pages(PUBLISHED, catalogue.papers()).items()}
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: make it anew by 'replications publish --readme'"
    sizes = {path: path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()}
    folders = [path.parent for path in PUBLISHED.glob("*/report.json")]
    of_each = {folder: sum(size for path, size in sizes.items() if folder in path.parents) for folder in folders}
    assert max(of_each.values()) < 1e6 and sum(of_each.values()) < 0.55e6 * len(folders), of_each
    assert not [path for path, size in sizes.items() if path.suffix == ".svg" and size >= 150e3]
    assert not list(PUBLISHED.rglob("run.json")), "records are in one file a publication"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/report.json")))
def test_what_is_published_follows_from_its_records(name, capsys):
    assert main(["verify", str(PUBLISHED / name)]) == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "made_by"),
    [
        (["report"], "'snakemake --cores all' makes them"),
        (["cite", "--tier", "standard"], "'snakemake --cores all --config tier=standard'"),
        (["report", "--tier", "standard", "--tried"], "'python -m replications run' with --set makes them"),
    ],
)
def test_where_there_is_no_record_the_message_names_what_makes_those_of_the_request(words, made_by, tmp_path, capsys):
    assert main([*words, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "no record below" in error and made_by in error and error.count("\n") == 1


def test_the_next_command_finds_the_records_of_this_one(tmp_path):
    parser = build_parser()
    plain = parser.parse_args(["run", "arcface/softmax"])
    assert of_these(plain) == ""
    folder = tmp_path / "of mine"
    changed = ["--tier", "standard", "--portable", "--set", "recipe.lr=0.2", "--results", str(folder)]
    asked = of_these(parser.parse_args(["run", "arcface/softmax", *changed]))
    found = parser.parse_args(["report", *shlex.split(asked)])
    assert (found.tier, found.tried, found.portable, found.results) == ("standard", True, True, folder)
