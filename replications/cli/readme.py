"""The generated sections of README.md and docs/: papers, tiers, knobs, publications, verdicts and their plot."""

import importlib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from replications import catalogue
from replications.looks import LOOKS
from replications.records import write_atomic
from replications.reporting import labels, publications, summary, wording
from replications.reporting.sections import with_section
from replications.reporting.verdicts import Verdict
from replications.spec import TIERS, Paper, TierConfig

ROOT = catalogue.PACKAGE.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PUBLISHED = ROOT / "results" / "published"  # what README.md and docs/ are on
PUBLICATIONS = DOCS / "publications.md"
PLOT = DOCS / "verdicts.svg"


def sections(published: Path) -> dict[Path, dict[str, str]]:
    """Return the generated sections of each file, by the name in their markers; `publications` writes its own."""
    verdicts = published_verdicts(published)
    others = other_verdicts(published, verdicts)
    return {
        README: {"verdicts": _verdicts(verdicts) + _opposite(verdicts, others), "plot": _plot(verdicts)},
        DOCS / "papers.md": {"papers": _papers(verdicts, others)},
        DOCS / "knobs.md": {"tiers": _tiers(), "knobs": _knobs()},
    }


def update(published: Path) -> list[Path]:
    """Regenerate the sections and the plot; return the files. Raises UserError if a marker is missing."""
    found = sections(published)
    for path, parts in found.items():
        text = path.read_text(encoding="utf-8")
        for name, section in parts.items():
            text = with_section(path, text, name, section)
        write_atomic(path, text.encode())
    publications.update_readme(PUBLICATIONS, published)
    _draw(published_verdicts(published))
    return [*found, PUBLICATIONS, PLOT]


def published_verdicts(published: Path) -> dict[str, Verdict]:
    """Return one published verdict per claim, by ``paper/claim``.

    If several publications have a claim, the largest tier that tests it at a complete look counts. One with a changed
    set-up, such as a small budget, counts only where no other has tested the claim. Of equal ones the one with more
    looks counts, such as of two machines; then the first by name. Decided verdicts are not preferred: that would
    select the luckiest of several attempts.
    """
    best: dict[str, Verdict] = {}
    for _, verdict in _all_verdicts(published):
        if verdict.address not in best or _weight(verdict) > _weight(best[verdict.address]):
            best[verdict.address] = verdict
    return best


def other_verdicts(published: Path, best: Mapping[str, Verdict]) -> dict[str, list[tuple[str, Verdict]]]:
    """Return, by ``paper/claim``, the publications that decide what `best` leaves open or decides the opposite way.

    Of several that decide alike at one set-up, such as on two machines, the one with more looks stands for all.
    """
    found: dict[str, dict[tuple, tuple[str, Verdict]]] = {}
    for name, verdict in _all_verdicts(published):
        if verdict.decided and verdict.adjusted != best[verdict.address].adjusted:
            alike = found.setdefault(verdict.address, {})
            set_up = (verdict.adjusted, verdict.tier, verdict.category)
            if set_up not in alike or verdict.looks > alike[set_up][1].looks:
                alike[set_up] = name, verdict
    return {address: list(alike.values()) for address, alike in found.items()}


def _all_verdicts(published: Path) -> Iterator[tuple[str, Verdict]]:
    """Yield every publication's verdicts, with its name."""
    for path in sorted(published.glob("*/claims.json")):
        for verdict in json.loads(path.read_text(encoding="utf-8"))["verdicts"]:
            yield path.parent.name, Verdict.model_validate(verdict)


def _weight(verdict: Verdict) -> tuple[bool, bool, int, int]:
    whole = verdict.n >= LOOKS[0] or verdict.evidence == "exact" or verdict.replication == "folds"
    as_it_is = labels.CHANGED_SET_UP not in (verdict.category or "")
    return verdict.adjusted != "not tested" and whole, as_it_is, TIERS.index(verdict.tier), verdict.looks


def interval_text(verdict: Verdict) -> str:
    return labels.interval(verdict.interval, verdict.effect_kind, verdict.decimals)


def _by_task() -> Iterator[tuple[str, list[Paper]]]:
    """Yield each task's title, by name of the task, and its papers."""
    papers = catalogue.papers()
    for task, title in sorted(summary.task_titles(papers).items()):
        yield title, [paper for paper in papers.values() if paper.task == task]


def _verdicts(verdicts: dict[str, Verdict]) -> str:
    words = " | ".join(summary.marked(word) for word in summary.SYMBOLS)
    rows = [f"| task | papers | {words} |", "| --- | --- |" + " ---: |" * len(summary.SYMBOLS)]
    for title, papers in _by_task():
        of = [verdicts.get(f"{paper.key}/{claim.id}") for paper in papers for claim in paper.claims]
        numbers = summary.counts([verdict for verdict in of if verdict])
        numbers["not tested"] += of.count(None)
        keys = ", ".join(paper.key for paper in papers)
        anchor = re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))  # as GitHub makes it of a heading
        rows.append(f"| [{title}](docs/papers.md#{anchor}) | {keys} | {' | '.join(map(str, numbers.values()))} |")
    return "\n".join(rows)


def _opposite(verdicts: Mapping[str, Verdict], others: Mapping[str, list[tuple[str, Verdict]]]) -> str:
    opposite = [address for address in others if verdicts[address].decided]
    if not opposite:
        return ""
    claims = ", ".join(f"`{address}`" for address in sorted(opposite))
    return f"\n\nAnother publication decides the opposite of {claims}."


def _plotted(verdicts: dict[str, Verdict]) -> list[Verdict]:
    """Return the decided verdicts on claims for which the paper states a figure, in the order of papers and claims."""
    addresses = [f"{paper.key}/{claim.id}" for _, papers in _by_task() for paper in papers for claim in paper.claims]
    of = [verdicts[address] for address in addresses if address in verdicts]
    return [verdict for verdict in of if verdict.decided and verdict.reported_effect is not None]


def plotted_texts(verdicts: dict[str, Verdict]) -> list[str]:
    """Return the contents of the plot, one text per claim."""
    return [f"{v.address} {v.adjusted}, {v.effect_text}" for v in _plotted(verdicts)]


def _plot(verdicts: dict[str, Verdict]) -> str:
    shown = "; ".join(f"{verdict.address} {verdict.adjusted}" for verdict in _plotted(verdicts))
    alt = f"Forest plot of the decided claims of which the paper gives a figure: {shown}"
    return f"![{alt}]({PLOT.relative_to(ROOT).as_posix()})"


def _draw(verdicts: dict[str, Verdict]) -> None:
    """Draw the README's plot. Its description lists the contents, so that a test can check that it is current."""
    import matplotlib

    from replications.reporting import forest, style

    def name(verdict: Verdict) -> str:
        return f"{textwrap.fill(verdict.statement, 46)}\n{verdict.address}, tier {verdict.tier}"

    with matplotlib.rc_context(style.RC):
        figure = forest.forest_plot(_plotted(verdicts), name)
        if figure is None:
            return
        description = "; ".join(plotted_texts(verdicts))
        figure.savefig(PLOT, bbox_inches="tight", metadata={"Date": None, "Creator": None, "Description": description})


def _papers(verdicts: dict[str, Verdict], others: Mapping[str, list[tuple[str, Verdict]]]) -> str:
    blocks = []
    for title, papers in _by_task():
        about = importlib.import_module(f"replications.tasks.{papers[0].task}").__doc__.partition("\n")[0]
        blocks += [f"## {title}", f"`{papers[0].task}`: {about}"]
        blocks += [_paper(paper, verdicts, others) for paper in papers]
    return "\n\n".join(blocks)


def _paper(paper: Paper, verdicts: dict[str, Verdict], others: Mapping[str, list[tuple[str, Verdict]]]) -> str:
    role = ", baseline" if paper.role == "baseline" else ""
    lines = [
        f"### {paper.key}",
        "",
        f"[{paper.title}](../replications/papers/{paper.key}/README.md) ({paper.venue} {paper.year}{role})",
        "",
        "Methods: " + "; ".join(f"`{paper.key}/{name}` {method.title}" for name, method in paper.methods.items()),
    ]
    if paper.claims:
        lines += ["", "| claim | statement | tested in | published verdict |", "| --- | --- | --- | --- |"]
    for claim in paper.claims:
        verdict = verdicts.get(f"{paper.key}/{claim.id}")
        word = _word(verdict) if verdict else summary.marked("not tested")
        if claim.why_not and (not verdict or verdict.adjusted == "not tested"):
            word += f": {_within(claim.why_not)}"
        for name, other in others.get(f"{paper.key}/{claim.id}", ()):
            word += f"; in [{name}](../results/published/{name}/README.md) {_word(other)}"
        lines.append(f"| {claim.id} | {claim.statement} | {', '.join(claim.tiers)} | {word} |")
    return "\n".join(lines)


def _within(sentence: str) -> str:
    """Return a sentence as part of another; a first word that is an abbreviation stays as it is."""
    first = sentence[:1] if sentence[1:2].isupper() else sentence[:1].lower()
    return f"{first}{sentence[1:]}".rstrip(".")


def _word(verdict: Verdict) -> str:
    """``✓ reproduced: −6.20 degrees [−7.00, −5.41]``.

    With the seeds at which it was decided where the interval does not show it, and with what the claim alone would be
    where the adjustment for all claims of its paper takes that back.
    """
    if verdict.adjusted == "not tested":
        return summary.marked(verdict.adjusted)
    word = f"{summary.SYMBOLS[verdict.adjusted]} {labels.verdict(verdict.adjusted, verdict.raw)}"
    interval = f" {interval_text(verdict)}" if verdict.interval else ""
    return f"{word}: {verdict.effect_text}{interval}{wording.earlier(verdict)}"


def _tiers() -> str:
    rows = ["| tier | what it is | seeds of a row | threads of a run |", "| --- | --- | --- | --- |"]
    for name in TIERS:
        tier = catalogue.tier_config(name)
        rows.append(f"| `{name}` | {tier.description} | {_seeds(tier)} | {tier.threads} |")
    return "\n".join(rows)


def _seeds(tier: TierConfig) -> str:
    """``3, then 5 where a claim needs them``."""
    first, *more = LOOKS[: tier.looks] if tier.looks else [tier.seeds]
    return f"{first}, then {', '.join(map(str, more))} where a claim needs them" if more else str(first)


def _knobs() -> str:
    """A table of the knobs: name, default and comment of each line of config/config.yaml."""
    text = (catalogue.CONFIG / "config.yaml").read_text(encoding="utf-8")
    rows = ["| knob | default | meaning |", "| --- | --- | --- |"]
    for name, value, comment in re.findall(r"^(\w+): (\S+) +# (.+)$", text, re.M):
        rows.append(f"| `{name}` | `{value}` | {comment} |")
    return "\n".join(rows)
