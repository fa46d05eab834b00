"""The sections of README.md that are derived: papers, tiers and what is published."""

from pathlib import Path

from replications import catalogue
from replications.records import write_atomic
from replications.reporting.sections import with_section
from replications.spec import TIERS

README = catalogue.PACKAGE.parent / "README.md"


def sections() -> dict[str, str]:
    """The derived sections by the name in their markers, but for the published one."""
    return {"papers": _papers(), "tiers": _tiers()}


def update(readme: Path, published: Path) -> None:
    """Write the derived sections of a README anew; raises UserError where a marker is missing."""
    from replications.reporting.publications import update_readme

    text = readme.read_text(encoding="utf-8")
    for name, section in sections().items():
        text = with_section(readme, text, name, section)
    write_atomic(readme, text.encode())
    update_readme(readme, published)


def _papers() -> str:
    rows = ["| paper | methods | claims | task |", "| --- | --- | --- | --- |"]
    for key, paper in catalogue.papers().items():
        role = ", baseline" if paper.role == "baseline" else ""
        title = f"[{paper.title}](replications/papers/{key}/README.md) ({paper.venue} {paper.year}{role})"
        methods = ", ".join(f"`{key}/{name}`" for name in paper.methods)
        claims = ", ".join(claim.id for claim in paper.claims) or "–"
        rows.append(f"| {title} | {methods} | {claims} | {paper.task.replace('_', ' ')} |")
    return "\n".join(rows)


def _tiers() -> str:
    rows = ["| tier | what it is | seeds | threads of a run |", "| --- | --- | --- | --- |"]
    for name in TIERS:
        tier = catalogue.tier_config(name)
        rows.append(f"| `{name}` | {tier.description} | {tier.seeds} | {tier.threads} |")
    return "\n".join(rows)
