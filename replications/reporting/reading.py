"""Results as pandas tables, for notebooks: implements `replications.reporting.load` and `load_claims`."""

import warnings
from pathlib import Path

import pandas as pd

from replications import catalogue
from replications.errors import UserError
from replications.reporting.frame import tidy
from replications.reporting.report import derive, read_manifest
from replications.reporting.results import read_results, tasks_of, tier_of
from replications.spec import Paper
from replications.tasks.base import Task


def load(path: Path | str) -> pd.DataFrame:
    """Return the tidy table of ``results/<tier>`` or of a publication: see `replications.reporting.load`."""
    papers, tasks, tier = _known(path)
    records = read_results(Path(path), tier, papers, methods=())
    for problem in records.problems:
        warnings.warn(problem, stacklevel=3)
    return tidy(records, papers, tasks)


def load_claims(path: Path | str) -> pd.DataFrame:
    """Return the verdicts of a results folder, one row each: see `replications.reporting.load_claims`."""
    papers, tasks, tier = _known(path)
    asked = read_manifest(Path(path)) or {"methods": (), "seeds": None, "selected": None}
    asked = {name: asked[name] for name in ("methods", "selected", "seeds")}
    verdicts = derive(Path(path), tier, papers, tasks=tasks, **asked)[2]
    return pd.DataFrame([{"address": verdict.address, **verdict.model_dump()} for verdict in verdicts])


def _known(path: Path | str) -> tuple[dict[str, Paper], dict[str, Task], str]:
    if not Path(path).is_dir():
        raise UserError(f"no folder {path}: give results/<tier>, or a folder below results/published")
    papers = catalogue.papers()
    return papers, tasks_of(papers), tier_of(Path(path))
