"""README.md and docs/: short, current, without dead links, and with commands that parse."""

import contextlib
import io
import json
import re
import shlex
import shutil

import pytest
import yaml

from replications import catalogue, request
from replications.cli import build_parser, main, readme
from replications.cli.readme import DOCS, PUBLICATIONS, README, ROOT
from replications.datasets import registry
from replications.reporting import publications
from replications.reporting.sections import section_of
from replications.reporting.verdict import Verdict
from replications.spec import TIERS, Paper, Recipe, TaskTier

PUBLISHED = ROOT / "results" / "published"
KNOBS = catalogue.read_yaml(catalogue.CONFIG / "config.yaml").keys()
PAGES = [README, *sorted(DOCS.glob("*.md"))]
PAPER_PAGES = sorted(catalogue.PAPERS.glob("*/README.md"))
MOST_BYTES = 8 * 1024
GENERATED = re.compile("results/(?!published)|data/|work/")


def identity(path):
    return str(path.relative_to(ROOT))


def test_the_readme_stays_short():
    assert len(README.read_bytes()) <= MOST_BYTES


def test_generated_sections_are_current():
    for path, parts in readme.sections(PUBLISHED).items():
        text = path.read_text(encoding="utf-8")
        for name, section in parts.items():
            assert section_of(text, name) == section, "regenerate it: python -m replications publish --readme"
    made = publications.readme_section(PUBLISHED, DOCS)
    assert section_of(PUBLICATIONS.read_text(encoding="utf-8"), publications.SECTION) == made


def test_the_plot_shows_the_published_verdicts():
    shown = re.search(r"<dc:description>(.*?)</dc:description>", readme.PLOT.read_text(encoding="utf-8"), re.S)
    assert shown[1].split("; ") == readme.plotted_texts(readme.published_verdicts(PUBLISHED))


def test_a_changed_set_up_counts_only_where_nothing_else_tests_the_claim(tmp_path):
    small = {"tier": "standard", "category": "real rooms · changed set-up: recipe.steps=300"}
    for name, other in (("a", {"tier": "mini"}), ("b", small), ("c", {"tier": "standard", "category": "real rooms"})):
        (tmp_path / name).mkdir()
        path = next(PUBLISHED.glob("mini-rooms-cpu/claims.json"))
        found = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
        (tmp_path / name / path.name).write_text(json.dumps({"verdicts": [one | other for one in found]}))
    assert readme.published_verdicts(tmp_path)["votenet/V3"].category == "real rooms"
    (tmp_path / "c" / "claims.json").unlink()
    assert readme.published_verdicts(tmp_path)["votenet/V3"].tier == "mini"
    (tmp_path / "a" / "claims.json").unlink()
    assert readme.published_verdicts(tmp_path)["votenet/V3"].category == small["category"]


def test_of_two_machines_the_one_with_more_looks_counts(tmp_path):
    found = json.loads((PUBLISHED / "mini-rooms-cpu" / "claims.json").read_text(encoding="utf-8"))["verdicts"]
    for name, looks in (("a", 2), ("b", 4), ("c", 4)):
        (tmp_path / name).mkdir()
        own = [one | {"looks": looks, "category": name} for one in found]
        (tmp_path / name / "claims.json").write_text(json.dumps({"verdicts": own}))
    assert readme.published_verdicts(tmp_path)["votenet/V3"].category == "b"


@pytest.mark.parametrize("counted", ["reproduced", "inconclusive"])
def test_a_publication_that_decides_otherwise_is_named_with_its_verdict(tmp_path, counted):
    found = json.loads((PUBLISHED / "mini-rooms-cpu" / "claims.json").read_text(encoding="utf-8"))["verdicts"]
    small = {"category": "real rooms · changed set-up: recipe.steps=300"}
    for name, word, other in (("a", counted, {}), ("b", "contradicted", small), ("c", "inconclusive", small)):
        (tmp_path / name).mkdir()
        words = {"adjusted": word, "raw": "reproduced" if word == "inconclusive" else word}
        own = [one | other | words for one in found if one["claim"] == "V3"]
        (tmp_path / name / "claims.json").write_text(json.dumps({"verdicts": own}))
    best = readme.published_verdicts(tmp_path)
    others = readme.other_verdicts(tmp_path, best)
    assert best["votenet/V3"].adjusted == counted and [name for name, _ in others["votenet/V3"]] == ["b"]
    parts = readme.sections(tmp_path)
    assert ("the opposite of `votenet/V3`." in parts[README]["verdicts"]) == (counted == "reproduced")
    line = next(row for row in parts[DOCS / "papers.md"]["papers"].splitlines() if row.startswith("| V3 | The same"))
    assert counted in line and "; in [b](../results/published/b/README.md) ✕ contradicted: " in line
    effect = f"{best['votenet/V3'].effect_text} {readme.interval_text(best['votenet/V3'])}"
    alone = " (alone: reproduced)" if counted == "inconclusive" else ""
    assert f" {counted}{alone}: {effect}" in line


def test_a_claim_that_is_not_tested_says_why():
    lines = (DOCS / "papers.md").read_text(encoding="utf-8").splitlines()
    parity = next(line for line in lines if line.startswith("| D1 |") and "Faster R-CNN" in line)
    assert "| ○ not tested: parity belongs to long training" in parity
    assert not any(line.endswith("| – |") for line in lines)
    assert readme._within("TRN has time for one.") == "TRN has time for one", "an abbreviation keeps its capitals"


def test_of_two_machines_that_decide_alike_one_is_named(tmp_path):
    found = json.loads((PUBLISHED / "mini-rooms-cpu" / "claims.json").read_text(encoding="utf-8"))["verdicts"]
    real = {"tier": "standard"}
    mini = [("b", "contradicted", {"looks": 2}), ("c", "contradicted", {"looks": 3}), ("d", "inconclusive", {})]
    for name, word, other in (("a", "reproduced", real), *mini, ("e", "contradicted", {"category": "other rooms"})):
        (tmp_path / name).mkdir()
        own = [one | other | {"adjusted": word} for one in found if one["claim"] == "V3"]
        (tmp_path / name / "claims.json").write_text(json.dumps({"verdicts": own}))
    others = readme.other_verdicts(tmp_path, readme.published_verdicts(tmp_path))
    assert [name for name, _ in others["votenet/V3"]] == ["c", "e"]


def test_publications_elsewhere_leave_the_readme_as_it_is(tmp_path, monkeypatch, capsys):
    updated = []
    monkeypatch.setattr(readme, "update", lambda published: updated.append(published) or [])
    shutil.copytree(PUBLISHED / "mini-memory-cpu", tmp_path / "published" / "mini-memory-cpu")
    assert main(["publish", "--readme", "--results", str(tmp_path)]) == 0
    assert not updated and (tmp_path / "published" / "README.md").exists()
    monkeypatch.setattr(readme, "PUBLISHED", tmp_path / "published")
    assert main(["publish", "--readme", "--results", str(tmp_path)]) == 0
    assert updated == [tmp_path / "published"]


def test_answers_of_the_readme_are_the_published_effects():
    verdicts = readme.published_verdicts(PUBLISHED)
    rows = re.findall(r"^\|.*?\|(.*?)\| `(\w+/\w+)` \|$", README.read_text(encoding="utf-8"), re.M)
    assert rows
    for answer, address in rows:
        v = verdicts[address]
        assert f"{v.effect_text} {readme.interval_text(v)}" in answer, f"{address}: {v.adjusted}"
        assert answer.strip().startswith("Not decided") == (v.adjusted == "inconclusive"), address


def help_commands():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main(["--help"])
    return set(re.findall(r"^ {4}(\w+) ", out.getvalue(), re.M))


COMMANDS = help_commands()


def anchors(text):
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [*PAGES, *PAPER_PAGES], ids=identity)
def test_links_resolve(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        file = (path.parent / target) if target else path
        assert file.exists(), f"{path.name} links {link}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{path.name} links {link}"


@pytest.mark.parametrize("path", [*PAGES, *PAPER_PAGES, ROOT / "tests" / "README.md"], ids=identity)
def test_files_that_are_named_exist(path):
    """Paths in backquotes, from the repository's root or from the package; what is generated is not there yet."""
    named = re.findall(r"`((?:[a-z_]+/)+[\w.-]*)`", path.read_text(encoding="utf-8"))
    folders = {folder.name for root in (ROOT, catalogue.PACKAGE) for folder in root.iterdir() if folder.is_dir()}
    named = [name for name in named if name.partition("/")[0] in folders and not GENERATED.match(name)]
    assert not [name for name in named if not (ROOT / name).exists() and not (catalogue.PACKAGE / name).exists()]


def commands(text):
    """Yield the command lines of a page: those in code blocks, and those in backquotes that start like one."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text)]
    for line in lines:
        words = line.partition("  #")[0].strip()
        if re.match(r"(torchrun .*-m replications|python -m replications|snakemake|make) ", words):
            yield words


def check_replications(words):
    """The words parse, and a method with its changes resolves."""
    if len(words) < 2 or "TASK" in words or "PAPER" in words:
        assert words[0] in COMMANDS
        return
    args = build_parser().parse_args(words)
    for address in [word for word in words[1:] if ADDRESS.fullmatch(word)]:
        if words[0] in ("run", "evaluate", "throughput", "describe"):
            request.resolve(address, args.tier, 0, getattr(args, "changes", ()))


def check_snakemake(words):
    """Targets come first and exist; after --config there are knobs, whose papers and tiers exist."""
    known = {"all", *catalogue.papers(), *{paper.task for paper in catalogue.papers().values()}}
    targets, knobs = words, []
    if "--config" in words:
        place = words.index("--config")
        targets, knobs = words[:place], words[place + 1 :]
    for index, word in enumerate(targets):
        if not word.startswith("-") and (index == 0 or targets[index - 1] not in OPTIONS_WITH_VALUE):
            assert word in known, f"no target {word}"
    for knob in knobs:
        name, equals, value = knob.partition("=")
        assert equals and name in KNOBS, f"no knob {knob}"
        if name == "tier":
            catalogue.tier_config(value)


ADDRESS = re.compile("[a-z0-9_]+/[a-z0-9_]+")
OPTIONS_WITH_VALUE = {"--cores", "--workflow-profile", "--resources"}


@pytest.mark.parametrize("path", [*PAGES, *PAPER_PAGES], ids=identity)
def test_commands_parse(path):
    for line in commands(path.read_text(encoding="utf-8")):
        words = shlex.split(line)
        if "replications" in words:
            check_replications(words[words.index("replications") + 1 :])
        elif words[0] == "snakemake":
            check_snakemake(words[1:])
        else:
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
            assert words[1] in targets, line


def test_the_readme_names_every_command_and_the_docs_every_knob():
    named = set(re.findall(r"`([a-z_]+)`", README.read_text(encoding="utf-8")))
    assert COMMANDS and named >= COMMANDS
    knobs = set(re.findall(r"`([a-z_]+)`", (DOCS / "knobs.md").read_text(encoding="utf-8")))
    assert knobs >= KNOBS


def test_the_example_of_adding_a_paper_is_one():
    """Its paper.yaml is read as one, and psi of its model.py has the values that the page states."""
    import torch

    text = (DOCS / "adding-a-paper.md").read_text(encoding="utf-8")
    blocks = {
        language: re.search(rf"```{language}\n(.*?)```", text, re.S)[1] for language in ("yaml", "python", "markdown")
    }
    paper = Paper.model_validate(yaml.safe_load(blocks["yaml"]))
    numbered = {int(number) for number in re.findall(r"^(\d+)\. ", blocks["markdown"].partition("## Impl")[0], re.M)}
    assert {number for claim in paper.claims for number in claim.deviations} <= numbered
    names = {}
    exec(blocks["python"], names)
    theta = torch.linspace(0, torch.pi, 2001, dtype=torch.float64)
    for margin in (1, 2, 3, 4):
        psi = names["psi"](theta.cos(), margin)
        assert torch.allclose(psi[[0, -1]], torch.tensor([1.0, 1 - 2 * margin], dtype=torch.float64))
        assert (psi.diff() < 0).all() and psi.diff().abs().max() < 0.01
    model = names["build"](5, 16, backbone={"depth": 10, "width": 0.125, "embedding_dim": 8}, margin=1)
    loss = model({"image": torch.randn(4, 3, 16, 16), "label": torch.tensor([0, 1, 2, 3])})["loss"]
    logits = model.eval().embed(torch.randn(2, 3, 16, 16)) @ model.class_weights().T
    assert loss.isfinite() and logits.shape == (2, 5)


def test_the_example_of_adding_a_task_is_one():
    """Its declaration makes a task whose options and tiers are read, and its turns are turns."""
    from replications.training.stage import Turn

    text = (DOCS / "adding-a-task.md").read_text(encoding="utf-8")
    declaration, execute, turns, pictures = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    exec(declaration, names)
    task = names["TASK"]
    assert task.primary_metric in task.metrics and task.metrics["step_ms"].timed
    setups = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    for name, setup in setups.items():
        tier = TaskTier.model_validate(setup)
        assert name in TIERS and Recipe.model_validate(tier.recipe) and task.parse_options(tier.task)
    critic, generator = eval(re.search(r"turns=(\(.*\n    \)),", turns, re.S)[1], {"Turn": Turn})
    assert (critic.part, critic.times, generator.times) == ("critic", 2, 1)
    for code in (execute, pictures):
        compile(code, "adding-a-task.md", "exec")


def test_no_page_names_a_set_by_its_key():
    """What a paper was tested on are titles; a key is for the command line."""
    keys = {key for key in registry.load().sets if "_" in key}
    for page in PUBLISHED.glob("*/README.md"):
        tested = re.findall(r"Tested on ([^.]*)", page.read_text(encoding="utf-8"))
        assert tested and not keys & set(re.findall(r"\w+", " ".join(tested))), page


def test_answers_of_the_readme_are_those_of_publications():
    """Effects and intervals in the table of questions are written by hand: each is one of its claim's, to the digit."""
    found = [json.loads(path.read_text(encoding="utf-8"))["verdicts"] for path in PUBLISHED.glob("*/claims.json")]
    shown: dict[str, set[str]] = {}
    for verdict in map(Verdict.model_validate, (one for of in found for one in of if one["interval"])):
        effect = f"{verdict.effect_text.split()[0]} {readme.interval_text(verdict)}"
        shown.setdefault(f"{verdict.paper}/{verdict.claim}", set()).add(effect)
    told = 0
    for line in README.read_text(encoding="utf-8").splitlines():
        claim = re.search(r"\| `(\w+/\w+)` \|$", line)
        for effect, interval in re.findall(r"([+−×][\d.]+)(?: \w+)? (\[[^\]]*\])", line) if claim else ():
            assert f"{effect} {interval}" in shown[claim[1]], line
            told += 1
    assert told >= 5
