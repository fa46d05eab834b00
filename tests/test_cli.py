"""The command line: help with examples, what there is, and one line for what is wrong."""

import re

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
    ],
)
def test_what_is_wrong_is_one_line(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and line in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.rglob("run.json"))


def test_the_suite_cites_itself(capsys):
    assert main(["cite", "--suite"]) == 0
    assert capsys.readouterr().out.startswith("cff-version")


def test_the_readme_says_what_is_there():
    text = readme.README.read_text(encoding="utf-8")
    for name, section in readme.sections().items():
        assert section_of(text, name) == section, "make it anew: python -m replications publish --readme"
    assert section_of(text, "published") == publications.readme_section(PUBLISHED, readme.README.parent)
    for page in PUBLISHED.glob("*/report.json"):
        assert (page.parent / publications.PAGE).read_text(encoding="utf-8") == publications.page(page.parent)
    words = set(re.findall(r"`([a-z_]+)`", text))
    assert set(COMMANDS) <= words
    assert set(catalogue.read_yaml(catalogue.CONFIG / "config.yaml")) <= words


def test_links_of_the_readme_lead_somewhere():
    text = readme.README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links
    assert not [link for link in links if not (readme.README.parent / link).exists()]


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/report.json")))
def test_what_is_published_follows_from_its_records(name, capsys):
    assert main(["verify", str(PUBLISHED / name)]) == 0, capsys.readouterr()
