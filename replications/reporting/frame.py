"""Every number of a results folder in one tidy table (pandas): a row for each run and metric.

What a report aggregates starts here, and so may a person: see `replications.reporting.load`.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from replications import catalogue
from replications.errors import UserError
from replications.records import Cost, RunRecord
from replications.reporting import labels
from replications.reporting.results import Records, read_results, tasks_of, tier_of
from replications.spec import Paper
from replications.tasks.base import Task

RUN = ["address", "seed"]  # what names a run within a tier
MACHINE = ("device", "device_kind", "cpu", "threads", "commit", "dirty", "created")
COLUMNS = [
    "paper", "method", "address", "role", "task", "category", "tier", "seed", "status", "reason",
    "metric", "value", "unit", "direction", "scale", "train_data", "test_data", "changed_options",
    *(f"cost_{name}" for name in Cost.model_fields), *MACHINE,
    "fingerprint", "code_fingerprint", "data_fingerprint", "config_fingerprint",
]  # fmt: skip


def tidy(records: Records, papers: Mapping[str, Paper], tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Return a row for each run and metric, with `COLUMNS`; a run without metrics, as a failed one, has one row.

    Units are those of the task's metric table and of `replications.records.Cost`; `direction` says which values are
    better, ``higher`` or ``lower``.
    """
    rows = []
    for address in sorted(records.runs):
        paper = papers[address.partition("/")[0]]
        for _, record in sorted(records.runs[address].items()):
            run = {"role": role(paper, record.spec.method), **_run(record)}
            for name, value in record.metrics.items() or [(None, None)]:
                metric = name and labels.metric_of(tasks[paper.task], name)
                told = (
                    {
                        "unit": metric.unit,
                        "direction": "higher" if metric.higher_is_better else "lower",
                        "scale": metric.scale,
                    }
                    if metric
                    else {}
                )
                rows.append({**run, "metric": name, "value": value, **told})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": int, "value": float})


def role(paper: Paper, method: str) -> str:
    """``method``, ``baseline`` (any method of a paper that is one) or ``ablation``."""
    own = paper.methods[method].role
    return "baseline" if paper.role == "baseline" and own == "method" else own


def _run(record: RunRecord) -> dict[str, object]:
    spec, machine = record.spec, record.provenance
    return {
        **{name: getattr(spec, name) for name in ("paper", "method", "address", "task", "tier", "seed")},
        **{name: getattr(record, name) for name in ("status", "reason", *COLUMNS[-4:-1])},
        "config_fingerprint": hashlib.sha256(spec.canonical_json().encode()).hexdigest()[:16],
        "category": labels.category(record),
        "train_data": labels.data_name(record, "train"),
        "test_data": labels.data_name(record, "test"),
        "changed_options": labels.changed_options(record),
        **{f"cost_{name}": value for name, value in vars(record.cost).items()},
        **{name: getattr(machine, name, None) for name in MACHINE},
    }


def load(path: Path | str) -> pd.DataFrame:
    """Return the tidy table of ``results/<tier>`` or of a publication: see `replications.reporting.load`."""
    papers, tasks, tier = _known(path)
    records = read_results(Path(path), tier, papers, methods=())
    for problem in records.problems:
        warnings.warn(problem, stacklevel=3)
    return tidy(records, papers, tasks)


def load_claims(path: Path | str) -> pd.DataFrame:
    """Return the verdicts of a results folder, a row each: see `replications.reporting.load_claims`."""
    from replications.reporting.report import derive, read_manifest

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
