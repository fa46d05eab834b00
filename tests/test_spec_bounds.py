"""What a person sets is refused in one line, before anything is imported or trained, or lies within bounds."""

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from replications import catalogue
from replications.errors import UserError
from replications.parsing import parse
from replications.spec import LARGEST_COUNT, Recipe, RunSpec
from replications.tasks.base import find_task

METHODS = {  # a method for each task
    paper.task: f"{key}/{next(iter(paper.methods))}"
    for key, paper in catalogue.papers().items()
    if catalogue.methods_of([key], "smoke")
}
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 2**31, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, 1.0, 1e308, 5e-324, -1e-9]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(),
    st.floats(),
)
WORDS = st.sampled_from(
    ["", "x", "1", "1" * 40, "1e99", "2147483648", "1e3", "nan", "inf", "-1", "true", "\udcff", "a" * 3000, "../x"]
)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.booleans(), st.none(), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(-1, 3), inner, max_size=2),
    max_leaves=4,
)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def one_line(error: UserError) -> str:
    assert "\n" not in str(error) and 0 < len(str(error)) < 5000
    return str(error)


@functools.cache
def setup(task: str) -> dict:
    return catalogue.resolve(METHODS[task], "smoke", 0).model_dump()


def resolved(task: str, part: str, name: str, value: Any):
    """The spec with one value set by hand, or the line that refuses it."""
    base = setup(task)
    *way, last = name.split(".")
    changed = inner = dict(base[part])
    for step in way:
        inner[step] = inner = dict(inner.get(step) or {})
    inner[last] = value
    if name in ("steps", "epochs"):
        changed |= {"steps": None, "epochs": None, name: value}
    try:
        spec = parse(RunSpec, base | {part: changed}, "x")
        find_task(task).parse_options(spec.task_options)
    except UserError as error:
        return one_line(error)
    return spec


def numbers(value: Any):
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def check_written(spec) -> None:
    """What was accepted can be written and read back as it is."""
    text = spec.canonical_json()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")) is not None
    text.encode()
    assert type(spec).model_validate_json(spec.model_dump_json()).canonical_json() == text


@pytest.mark.parametrize("name", sorted(Recipe.model_fields))
@given(value=VALUES)
@QUICK
def test_a_recipe_is_refused_or_within_bounds(name, value):
    spec = resolved("point_classification", "recipe", name, value)
    if isinstance(spec, str):
        return
    check_written(spec)
    recipe = spec.recipe
    assert all(math.isfinite(number) and number >= 0 for number in numbers(dict(recipe, optimizer_options={})))
    assert 1 <= recipe.batch_size <= LARGEST_COUNT and recipe.batch_size % recipe.accumulate == 0
    assert recipe.lr > 0 and recipe.weight_decay >= 0 and 0 <= recipe.momentum < 1
    assert recipe.steps is None or 1 <= recipe.steps <= LARGEST_COUNT
    assert recipe.epochs is None or 0 < recipe.epochs <= 1e6
    assert recipe.clip_norm is None or recipe.clip_norm > 0
    assert recipe.validate_every is None or 0 < recipe.validate_every <= 1e6
    assert list(recipe.schedule_milestones) == sorted(set(recipe.schedule_milestones))
    assert all(0 < share < 1 for share in recipe.schedule_milestones)


def options_of(task: str) -> type[BaseModel]:
    return find_task(task).options


OPTIONS = [(task, name) for task in METHODS for name in sorted(options_of(task).model_fields)]


@pytest.mark.parametrize(("task", "name"), OPTIONS, ids=[f"{task}.{name}" for task, name in OPTIONS])
@given(value=VALUES)
@QUICK
@example(value=-1)
@example(value=[-1])
@example(value=[0.0, 1.0])
@example(value=True)
def test_a_task_option_is_refused_or_within_bounds(task, name, value):
    spec = resolved(task, "task_options", name, value)
    if isinstance(spec, str):
        return
    check_written(spec)
    typed = options_of(task).model_validate(spec.task_options)
    for number in numbers(typed):
        assert math.isfinite(number) and 0 <= number <= LARGEST_COUNT


NESTED = [
    ("image_classification", "augmentation"),
    ("image_classification", "probe"),
    ("point_classification", "augment"),
]


@pytest.mark.parametrize(("task", "name"), NESTED)
@given(value=VALUES, data=st.data())
@QUICK
def test_an_option_within_an_option_is_too(task, name, value, data):
    inner = options_of(task).model_fields[name].annotation
    key = data.draw(st.sampled_from(sorted(inner.model_fields)))
    spec = resolved(task, "task_options", f"{name}.{key}", value)
    if not isinstance(spec, str):
        check_written(spec)
        assert all(math.isfinite(n) and n >= 0 for n in numbers(options_of(task).model_validate(spec.task_options)))


@given(value=VALUES)
@QUICK
def test_an_option_of_a_model_can_be_written(value):
    spec = resolved("point_classification", "options", "anything", value)
    if not isinstance(spec, str):
        check_written(spec)
        assert all(number >= 0 for number in numbers(spec.options))


REFUSED = [
    "recipe.lr=.nan",
    "recipe.lr=.inf",
    "recipe.lr=-0.1",
    "recipe.lr=true",
    "recipe.weight_decay=-1e-4",
    "recipe.weight_decay=.inf",
    "recipe.momentum=1",
    "recipe.momentum=-0.1",
    "recipe.clip_norm=0",
    "recipe.clip_norm=-1",
    "recipe.clip_norm=.nan",
    "recipe.batch_size=0",
    "recipe.batch_size=true",
    "recipe.batch_size=1.5",
    f"recipe.batch_size={10**30}",
    f"recipe.steps={10**12}",
    "recipe.epochs=.inf",
    "recipe.epochs=1e300",
    "recipe.checkpoint_seconds=.nan",
    "recipe.validate_every=0",
    "recipe.validate_every=-1",
    "recipe.validate_every=1.0e+308",
    "recipe.ema=1",
    "recipe.warmup=.nan",
    "recipe.optimizer=../x",
    "recipe.optimizer_options={eps: .nan}",
    f"recipe.optimizer_options={{eps: {10**30}}}",
    "recipe.schedule_milestones=[0.5, 0.2]",
    "recipe.schedule=step",
    "task.points=-1",
    f"task.points={10**30}",
    "task.points=true",
    "task.kept=[.nan]",
    "options.width=-1",
    "options.width={inner: [1, -0.5]}",
    "options.width=.inf",
    f"options.width={10**30}",
    "options.width=2026-11-27",
    "options.width={1: 2}",
    "options.width=!!set {a}",
    "options.width=!!binary aGk=",
]


@pytest.mark.parametrize("assignment", REFUSED)
def test_what_is_refused_names_what_it_is(assignment):
    with pytest.raises(UserError) as told:
        find_task("point_classification").parse_options(
            catalogue.resolve(METHODS["point_classification"], "smoke", 0, [assignment]).task_options
        )
    name = assignment.partition("=")[0].partition(".")[2]
    assert name.partition("_")[0] in one_line(told.value)


def test_the_command_line_refuses_without_torch():
    code = """
import sys
from replications.cli import main
sys.argv = ["x"]
codes = [main(["run", "pointnet/pointnet", "--tier", "smoke", "--set", wrong]) for wrong in sys.stdin.read().split("|")]
print(codes, "torch" in sys.modules)
"""
    wrong = ["recipe.lr=.nan", "task.points=-1", "recipe.batch_size=-4", "options.width=.nan"]
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], input="|".join(wrong), capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[2, 2, 2, 2] False", done.stderr
    assert len(done.stderr.strip().splitlines()) == 4
