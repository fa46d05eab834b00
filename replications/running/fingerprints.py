"""What a run depends on, as hashes: its resolved spec, the code that it reaches, its prepared data."""

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

# Modules that compute no number of a run: they declare, talk or draw. Values of a spec are hashed by themselves.
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

MEANING = 1  # of options with default values, which no digest names: raise it where a default in the code changes


@dataclass(frozen=True)
class Fingerprints:
    """What a run depends on. `run` covers the resolved spec, the data and the code; it names the work folder too.

    `modules` and `sets` are short hashes of what code and data consist of, by name: two records are held together by
    those that both have.
    """

    run: str
    code: str
    data: str
    modules: Mapping[str, str] = field(default_factory=dict, compare=False)
    sets: Mapping[str, str] = field(default_factory=dict, compare=False)

    def with_seed_of(self, spec: RunSpec) -> "Fingerprints":
        """Return those of a run that differs from this one in nothing but its seed, without looking at code again."""
        return replace(self, run=digest(_meaning(spec), self.code, self.data))


def fingerprints(spec: RunSpec) -> Fingerprints:
    """Compute a run's fingerprints without its data and without importing torch.

    Code is what the paper's model, the task's ``execute.py`` and the training loop reach by imports, except for what
    only declares, talks or draws. Data is the fingerprints of the prepared sets by role. Options with their default
    value are left out of the spec's digest, so that a new option makes no run stale. Raises UserError for a wrong task
    option: everything that runs, plans or restores comes by here.
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
    """Return as JSON what a spec asks for, without options that have their default value."""
    options = find_task(spec.task).parse_options(spec.task_options)
    leave_out = {"changes"} if spec.portable else {"changes", "portable"}
    asked = spec.model_dump(mode="json", exclude=leave_out) | {
        "recipe": spec.recipe and spec.recipe.model_dump(mode="json", exclude_defaults=True),
        "task_options": options.model_dump(mode="json", exclude_defaults=True),
        "meaning": MEANING,
    }
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def task_modules(task: str) -> tuple[str, ...]:
    """Name the modules whose import brings in what a task's methods share."""
    return (f"replications.tasks.{task}.execute",)


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
