"""What to cite: BibTeX of the papers, data sets and libraries behind the current tables, and CITATION.cff."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import replications
from replications.errors import UserError
from replications.reporting.results import Records
from replications.spec import Paper

LIBRARIES = Path(__file__).with_name("libraries.bib")
REPORTED_WITH = ("matplotlib", "numpy", "scipy", "snakemake")


def bibtex(
    records: Records, papers: Mapping[str, Paper], describe_set: Callable[[str], Mapping], stamp: str = ""
) -> str:
    """BibTeX of every paper with a run, every data set that a run used, and the libraries that made them.

    `describe_set` gives a prepared set's ``citation`` (BibTeX or None); an unknown set becomes a
    comment.
    """
    papers_used = [papers[key].bibtex for key in dict.fromkeys(a.partition("/")[0] for a in sorted(records.runs))]
    runs = [record for by_seed in records.runs.values() for record in by_seed.values()]
    data, unknown = [], []
    for key in sorted({name for record in runs for name in record.spec.data.values()}):
        try:
            data.append(describe_set(key)["citation"] or "")
        except UserError:
            unknown.append(f"% data set {key}: not in the registry")
    packages = {name for record in runs if record.provenance for name in record.provenance.packages}
    library = _entries(LIBRARIES.read_text(encoding="utf-8"))
    used = [library[name] for name in sorted(packages.union(REPORTED_WITH)) if name in library]
    parts = [f"% {stamp}"] if stamp else []
    for heading, texts in (("Papers", papers_used), ("Data", data), ("Software", used)):
        entries: dict[str, str] = {}
        for text in texts:
            entries |= _entries(text)
        if entries:
            parts += [f"% {heading}", *entries.values()]
    return "\n\n".join([*parts, *unknown]) + "\n"


def _entries(text: str) -> dict[str, str]:
    """Split BibTeX into entries by key."""
    found = {}
    for entry in re.split(r"(?m)^\s*(?=@\w+\s*\{)", text):
        key = re.match(r"@\w+\s*\{\s*([^,\s]+)", entry)
        if key:
            found[key.group(1)] = entry.strip()
    return found


def citation_cff() -> str:
    """CITATION.cff of the suite itself; the repository's top-level file is this text."""
    return (
        "cff-version: 1.2.0\n"
        "message: If you use this suite or its published records, cite it and the papers it replicates.\n"
        "type: software\n"
        "title: Replications\n"
        "abstract: Tests what papers claim, and gives verdicts with their evidence and cost.\n"
        f"version: {replications.__version__}\n"
        "authors:\n"
        "  - name: The Replications contributors\n"
        "keywords:\n"
        "  - replication\n"
        "  - reproducibility\n"
        "  - benchmark\n"
        "  - machine learning\n"
        "license: Apache-2.0\n"
    )
