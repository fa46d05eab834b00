"""A run from its spec to its record."""

from replications.running.context import RunContext, make_workload
from replications.running.execute import execute, score_weights
from replications.running.fingerprints import Fingerprints, fingerprints, task_modules
from replications.running.store import finished_record, restore, work_folder
from replications.running.synthetic import make_synthetic_workload

__all__ = [
    "Fingerprints",
    "RunContext",
    "execute",
    "fingerprints",
    "finished_record",
    "make_synthetic_workload",
    "make_workload",
    "restore",
    "score_weights",
    "task_modules",
    "work_folder",
]
