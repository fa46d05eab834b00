"""The command line: help with examples, what there is, and one line for what is wrong."""

import io
import re
import sys

import pytest

from replications import catalogue
from replications.cli import build_parser, main, readme
from replications.reporting import publications
from replications.reporting.sections import section_of

PUBLISHED = readme.README.parent / "results" / "published"
COMMANDS = (
    "check",
    "list",
    "describe",
    "fetch",
    "run",
    "evaluate",
    "throughput",
    "report",
    "verify",
    "cite",
    "compare",
    "publish",
)
METHODS = catalogue.methods_of(catalogue.papers(), "smoke")


@pytest.mark.parametrize("command", COMMANDS)
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
    assert all(re.search(rf"^\s+{command}\s", said, re.M) for command in COMMANDS)


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
    assert "primary metric" in described(spec.task, capsys)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["describe", METHODS[0] + "x"], f"did you mean '{METHODS[0]}'?"),
        (["run", METHODS[0][:-1] + "_", "--tier", "smoke"], "unknown method"),
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


def test_an_error_of_the_system_is_one_line_with_path_and_remedy(capsys, monkeypatch):
    def full(args):
        raise OSError(28, "No space left on device", "/there/run.json")

    monkeypatch.setattr("replications.cli.show.show_list", full)
    assert main(["list"]) == 2
    said = capsys.readouterr().err
    assert said == "error: /there/run.json: No space left on device (check the path, its rights and the disk)\n"


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


def test_the_suite_cites_itself(capsys):
    assert main(["cite", "--suite"]) == 0
    assert capsys.readouterr().out.startswith("cff-version")


def test_the_readme_says_what_is_there():
    text = readme.README.read_text(encoding="utf-8")
    for name, section in readme.sections().items():
        assert section_of(text, name) == section, "make it anew: python -m replications publish --readme"
    assert section_of(text, "published") == publications.readme_section(PUBLISHED, readme.README.parent)
    words = set(re.findall(r"`([a-z_]+)`", text))
    assert set(COMMANDS) <= words
    assert set(catalogue.read_yaml(catalogue.CONFIG / "config.yaml")) <= words


def test_links_of_the_readme_lead_somewhere():
    text = readme.README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links
    assert not [link for link in links if not (readme.README.parent / link).exists()]


def test_pages_of_publications_are_current_and_small():
    pages = {PUBLISHED / name: text for name, text in publications.all_pages(PUBLISHED, catalogue.papers()).items()}
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: make it anew by 'replications publish --readme'"
    sizes = {path: path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 8e6
    assert not [path for path, size in sizes.items() if path.suffix == ".svg" and size >= 150e3]
    assert not list(PUBLISHED.rglob("run.json")), "records are in one file a publication"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/report.json")))
def test_what_is_published_follows_from_its_records(name, capsys):
    assert main(["verify", str(PUBLISHED / name)]) == 0, capsys.readouterr()
