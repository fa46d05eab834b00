"""Hashes of the inputs of a run: its resolved spec, the code that it imports, its prepared data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from replications.datasets import registry
from replications.errors import UserError
from replications.fingerprint import combined, module_hashes
from replications.spec import RunSpec
from replications.tasks.base import find_task

if TYPE_CHECKING:
    pass


PACKAGE = Path(__file__).parents[1]

# Modules that compute no number of a run: declarations, output, plots. Spec values are hashed separately.
NOT_IN_A_RUN = (
    "replications",
    "replications.errors",
    "replications.fingerprint",
    "replications.looks",
    "replications.parsing",
    "replications.progress",
    "replications.records",
    "replications.spec",
    "replications.tasks",
    "replications.tasks.base",
)

MEANING = (
    1  # version of the default option values, which digests leave out: raise it when a default in the code changes
)


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of the inputs of a run. `run` covers the resolved spec, data and code, and is the name of the work folder.

    `modules` and `sets` are short hashes of single modules and data sets, by name: two records are compared by those
    that both have.
    """

    run: str
    code: str
    data: str
    modules: Mapping[str, str] = field(default_factory=dict, compare=False)
    sets: Mapping[str, str] = field(default_factory=dict, compare=False)

    def with_seed_of(self, spec: RunSpec) -> "Fingerprints":
        """Return the hashes of a run that differs only in its seed, without reading code again."""
        return replace(self, run=digest(_meaning(spec), self.code, self.data))


def fingerprints(spec: RunSpec) -> Fingerprints:
    """Compute a run's fingerprints without its data and without importing torch.

    Code is what the paper's model, the task's ``execute.py`` and the training loop reach by imports, except for
    declarations, output and plots. Data are the fingerprints of the prepared sets by role. Options with their default
    value are left out of the spec's digest, so that a new option makes no run stale. Raises UserError for an invalid
    task option: running, planning and restoring all call this.
    """
    module = spec.build.partition(":")[0]
    model = PACKAGE / "papers" / spec.paper / f"{module}.py"
    if not model.exists():
        raise UserError(f"{spec.address}: build names {module}.py, which papers/{spec.paper}/ does not have")
    roots = [model, PACKAGE / "training" / "loop.py", PACKAGE / "tasks" / spec.task / "execute.py"]
    modules = module_hashes(roots, leave_out={*NOT_IN_A_RUN, f"replications.tasks.{spec.task}"}, fields=False)
    sets = {key: registry.data_fingerprint(key) for key in spec.data.values()}
    code, data = combined(modules), digest(*(f"{role}={sets[key]}" for role, key in sorted(spec.data.items())))
    return Fingerprints(digest(_meaning(spec), code, data), code, data, _short(modules), _short(sets))


def _short(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:12] for name, value in hashes.items()}


def _meaning(spec: RunSpec) -> str:
    """Return a spec as JSON, without options that have their default value."""
    options = find_task(spec.task).parse_options(spec.task_options)
    leave_out = {"changes"} if spec.portable else {"changes", "portable"}
    asked = spec.model_dump(mode="json", exclude=leave_out) | {
        "recipe": spec.recipe and spec.recipe.model_dump(mode="json", exclude_defaults=True),
        "task_options": options.model_dump(mode="json", exclude_defaults=True),
        "meaning": MEANING,
    }
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def task_modules(task: str) -> tuple[str, ...]:
    """Return the modules whose imports a task's methods share."""
    return (f"replications.tasks.{task}.execute",)


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
