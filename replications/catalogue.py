"""The papers on disk: read them, find a method, resolve a run.

A paper is a folder ``replications/papers/<key>`` with ``paper.yaml`` and ``README.md``; it is found by being there.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from replications.errors import UserError, nearest
from replications.parsing import merged, parse
from replications.spec import TIERS, Method, Override, Paper, Recipe, RunSpec, TaskTier, TierConfig

PACKAGE = Path(__file__).parent
PAPERS = PACKAGE / "papers"
TASKS = PACKAGE / "tasks"
CONFIG = PACKAGE.parent / "config"
PARTS = ("data", "recipe", "task", "options")
LENGTHS = {"epochs", "steps"}
TRIAL_SEEDS = re.compile(r"seeds=[0-9]+(,[0-9]+)*")  # among changes: the seeds of a trial


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that is given twice: of two, YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; raises UserError with file and line where it is not YAML, or gives a key twice."""
    try:
        with path.open(encoding="utf-8") as stream:
            return yaml.load(stream, Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # 2026-99-99 is no date, 5,000 digits no integer
        raise UserError(f"{path}: a value is not valid: {error} (put text into quotes)") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


@functools.cache
def papers() -> dict[str, Paper]:
    """Return all papers by key, sorted; raises UserError for a malformed file, and for the first of `problems`."""
    found = read_papers()
    for line in problems(found):
        raise UserError(line)
    return found


def read_papers() -> dict[str, Paper]:
    """Read every paper.yaml without resolving its names; raises UserError for a malformed file."""
    return {
        path.parent.name: parse(
            Paper, {"key": path.parent.name, **(read_yaml(path) or {})}, f"papers/{path.parent.name}/paper.yaml"
        )
        for path in sorted(PAPERS.glob("*/paper.yaml"))
    }


def problems(found: Mapping[str, Paper]) -> Iterator[str]:
    """Say what is wrong with papers that can be read, a line each: file and line, claim, and what is known instead.

    A claim id that occurs twice, an unknown method, a deviation that the README does not number. More is looked at
    by ``planning.check``, which knows the tasks.
    """
    for key, paper in found.items():
        seen, numbered = set(), _numbered(key) if any(claim.deviations for claim in paper.claims) else {}
        for index, claim in enumerate(paper.claims):
            if claim.id in seen:
                yield f"{place(key, 'claims', index)}: claim {claim.id} occurs twice: give this one another id"
            seen.add(claim.id)
            for name, side in claim.sides().items():
                owner, _, method = side.method.partition("/")
                if owner not in found or method not in found[owner].methods:
                    known = [f"{k}/{m}" for k, p in found.items() for m in p.methods]
                    yield (
                        f"{place(key, 'claims', index, name, 'method')}: claim {claim.id} names the unknown method "
                        f"'{side.method}'{nearest(side.method, known)}"
                    )
            for number in sorted(set(claim.deviations) - numbered.keys()):
                has = ", ".join(map(str, numbered)) or "none"
                yield (
                    f"{place(key, 'claims', index, 'deviations')}: claim {claim.id} lists deviation {number}, which "
                    f"README.md does not number (it has: {has})"
                )


def place(key: str, *steps: str | int) -> str:
    """Name the file and the line in it of the value at `steps` in a paper.yaml, as in ``claims, 3``."""
    node = yaml.compose((PAPERS / key / "paper.yaml").read_text(encoding="utf-8"), Loader=_Loader)
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == step), node)
        elif isinstance(step, int):
            node = node.value[step]
    return f"papers/{key}/paper.yaml:{node.start_mark.line + 1}"


def find_paper(key: str) -> Paper:
    """Return a paper by key; raises UserError that names the nearest one."""
    if key not in papers():
        raise UserError(f"unknown paper '{key}'{nearest(key, papers())}")
    return papers()[key]


def find_method(address: str) -> tuple[Paper, Method]:
    """Return paper and method of an address ``paper/method``; raises UserError that names the nearest one."""
    key, slash, name = address.partition("/")
    if not slash:
        raise UserError(f"'{address}' is not an address 'paper/method', as in 'arcface/softmax'")
    paper = find_paper(key)
    if name not in paper.methods:
        raise UserError(f"unknown method '{address}'{nearest(name, paper.methods)}")
    return paper, paper.methods[name]


@functools.cache
def tier_config(name: str) -> TierConfig:
    """Return what config/<tier>.yaml says; raises UserError that names the nearest tier."""
    if name not in TIERS:
        raise UserError(f"unknown tier '{name}'{nearest(name, TIERS)}")
    return parse(TierConfig, {"name": name, **(read_yaml(CONFIG / f"{name}.yaml") or {})}, f"config/{name}.yaml")


def tasks() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(path.parent.name for path in TASKS.glob("*/tiers.yaml"))


@functools.cache
def task_tiers(task: str) -> dict[str, TaskTier]:
    """Return a task's set-up by tier; raises UserError for an unknown task or a malformed file."""
    if task not in tasks():
        raise UserError(f"unknown task '{task}'{nearest(task, tasks())}")
    where = f"tasks/{task}/tiers.yaml"
    content = read_yaml(TASKS / task / "tiers.yaml") or {}
    for tier in content:
        if tier not in TIERS:
            raise UserError(f"{where}: unknown tier '{tier}'{nearest(tier, TIERS)}")
    return {tier: parse(TaskTier, value, f"{where}: {tier}") for tier, value in content.items()}


def layers(address: str, tier: str) -> tuple[TaskTier, list[Method | Override]]:
    """Return the task's set-up and what the method puts over it, in that order.

    Raises UserError where the method is not meant for the tier or the task has no data in it.
    """
    paper, method = find_method(address)
    tiers = task_tiers(paper.task)
    if tier not in TIERS:
        raise UserError(f"unknown tier '{tier}'{nearest(tier, TIERS)}")
    if tier not in tiers:
        raise UserError(f"task {paper.task} has no data in tier '{tier}' (it has: {', '.join(tiers)})")
    if tier not in method.tiers:
        raise UserError(f"{address} is not run in tier '{tier}' (its tiers: {', '.join(method.tiers)})")
    return tiers[tier], [method, *([method.per_tier[tier]] if tier in method.per_tier else [])]


def resolve(address: str, tier: str, seed: int, assignments: Iterable[str] = (), portable: bool = False) -> RunSpec:
    """Resolve a run: task set-up, then the method's changes, then `assignments` like ``recipe.lr=0.05``.

    Each is laid over the one before as `replications.parsing.merged` says. A name may lead into an option, as
    ``task.sweep.lengths=[512]``. ``seeds=7,8`` changes nothing: it names the seeds of a trial in every table.

    Raises UserError for unknown names, a malformed assignment, or a recipe that does not validate.
    """
    setup, over = layers(address, tier)
    paper, method = find_method(address)
    parts: dict[str, dict[str, Any]] = {part: dict(getattr(setup, part) or {}) for part in PARTS}
    for layer in over:
        for part in PARTS:
            _change(parts, part, getattr(layer, part))
    changes = tuple(assignments)
    for assignment in changes:
        _assign(parts, assignment)
    return parse(
        RunSpec,
        {
            "paper": paper.key,
            "method": address.partition("/")[2],
            "tier": tier,
            "seed": seed,
            "task": paper.task,
            "build": method.build,
            "data": parts["data"],
            "options": parts["options"],
            "recipe": parts["recipe"] or None,
            "task_options": parts["task"],
            "threads": tier_config(tier).threads,
            "changes": changes,
            "portable": portable,
        },
        f"{address} in tier {tier}",
    )


def _change(parts: dict[str, dict[str, Any]], part: str, change: Mapping[str, Any]) -> None:
    """Lay a change over a part; one from epochs to steps (or back) replaces the length instead of giving two."""
    base = parts[part]
    if part == "recipe" and change.keys() & LENGTHS:
        base = {name: value for name, value in base.items() if name not in LENGTHS}
    parts[part] = merged(base, change)


def _assign(parts: dict[str, dict[str, Any]], assignment: str) -> None:
    if TRIAL_SEEDS.fullmatch(assignment):
        return
    key, equals, text = assignment.partition("=")
    part, dot, name = key.partition(".")
    if not (equals and dot and name):
        raise UserError(f"'{assignment}' is not of the form part.name=value, as in recipe.lr=0.05")
    if part not in parts:
        raise UserError(f"'{assignment}': unknown part '{part}'{nearest(part, parts)}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # 2026-99-99 is no date, 5,000 digits no integer
        raise UserError(f"'{assignment}': '{text}' is not a value") from None
    path = name.split(".")
    if part == "recipe" and path[0] not in Recipe.model_fields:
        raise UserError(f"'{assignment}': unknown recipe key '{name}'{nearest(name, Recipe.model_fields)}")
    inner = parts[part]
    for step in path[:-1]:
        if not isinstance(inner.get(step), dict):
            raise UserError(f"'{assignment}': {part} has no '{step}' with parts{nearest(step, inner)}")
        inner = inner[step]
    for step in reversed(path):
        value = {step: value}
    _change(parts, part, value)


def differences(address: str, tier: str) -> dict[str, tuple[Any, Any]]:
    """Return where a method departs from its task's set-up in data, recipe or task options.

    Keys read ``recipe.lr`` or ``task.sweep.lengths``; values are (the task's, the method's), None where there is none.
    Shown beside every verdict.
    """
    setup, over = layers(address, tier)
    found = {}
    for part in ("data", "recipe", "task"):
        base = theirs = getattr(setup, part) or {}
        for layer in over:
            theirs = merged(theirs, getattr(layer, part))
        found |= dict(_differing(base, theirs, part))
    return found


def _differing(base: Any, other: Any, name: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(base, Mapping) and isinstance(other, Mapping):
        for key in {**base, **other}:
            yield from _differing(base.get(key), other.get(key), f"{name}.{key}")
    elif base != other:
        yield name, (base, other)


def methods_of(keys: Iterable[str], tier: str, ablations: bool = True) -> list[str]:
    """Return the addresses that papers `keys` need in a tier: their own methods and those their claims compare with.

    Without `ablations`, rows of that role are left out; claims on them are then not tested.
    """
    wanted: dict[str, None] = {}
    for key in keys:
        paper = find_paper(key)
        own = [f"{key}/{name}" for name in paper.methods]
        sides = [
            side.method
            for claim in paper.claims
            if tier in claim.tiers or not tier_config(tier).result
            for side in (claim.subject, claim.reference)
            if side
        ]
        wanted.update(dict.fromkeys([*own, *sides]))
    chosen = (a for a in wanted if is_in_tier(a, tier) and (ablations or find_method(a)[1].role != "ablation"))
    return sorted(chosen)


def is_in_tier(address: str, tier: str) -> bool:
    """Whether a method runs in a tier: its `tiers` include it and its task has data there."""
    paper, method = find_method(address)
    return tier in method.tiers and tier in task_tiers(paper.task)


def deviations(key: str) -> dict[int, str]:
    """Return the numbered deviations of a paper's README (the ordered list under ``## Deviations``)."""
    return _numbered(find_paper(key).key)


def _numbered(key: str) -> dict[int, str]:
    path = PAPERS / key / "README.md"
    if not path.exists():
        return {}
    section = re.search(r"^## Deviations\s*$(.*?)(?=^## |\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
    if not section:
        return {}
    items = re.split(r"^(\d+)\.\s+", section.group(1), flags=re.M)[1:]
    return {int(number): " ".join(text.split()) for number, text in zip(items[::2], items[1::2], strict=True)}
