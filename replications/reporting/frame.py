"""Every number of a results folder in one tidy table (pandas): a row for each run and metric.

Reports aggregate this table; to use it yourself, see `replications.reporting.load`.
"""

import hashlib
from collections.abc import Mapping

import pandas as pd

from replications.records import Cost, RunRecord
from replications.reporting import labels
from replications.reporting.results import Records
from replications.spec import Paper
from replications.tasks.base import Task

RUN = ["address", "seed"]  # identifies a run within a tier
MACHINE = ("device", "device_kind", "cpu", "threads", "commit", "dirty", "created")
COLUMNS = [
    "paper", "method", "address", "role", "task", "category", "tier", "seed", "status", "reason",
    "metric", "value", "unit", "direction", "scale", "train_data", "test_data", "changed_options",
    *(f"cost_{name}" for name in Cost.model_fields), *MACHINE,
    "fingerprint", "code_fingerprint", "data_fingerprint", "config_fingerprint",
]  # fmt: skip


def tidy(records: Records, papers: Mapping[str, Paper], tasks: Mapping[str, Task]) -> pd.DataFrame:
    """Return a row for each run and metric, with `COLUMNS`; a run without metrics (a failed one) has one row.

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
                about_metric = (
                    {
                        "unit": metric.unit,
                        "direction": "higher" if metric.higher_is_better else "lower",
                        "scale": metric.scale,
                    }
                    if metric
                    else {}
                )
                rows.append({**run, "metric": name, "value": value, **about_metric})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seed": int, "value": float})


def role(paper: Paper, method: str) -> str:
    """``method``, ``baseline`` (any method of a baseline paper) or ``ablation``."""
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
