"""The typed vocabulary of the suite: papers, methods, claims, recipes, tiers and run specifications.

Nothing here knows torch, a data set or a particular paper. YAML is parsed into these classes by
``replications.catalogue``; an unknown or misspelt key is an error that names it.
"""

import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from replications.errors import nearest
from replications.looks import LOOKS

LARGEST = 2**53  # beyond it JSON readers and floats lose digits
LARGEST_COUNT = 2**31 - 1  # of an option: no array here has more rows, and beyond it C code overflows
DEEPEST = 20

TIERS = ("smoke", "mini", "standard", "paper")
TierName = Literal["smoke", "mini", "standard", "paper"]
Number = int | float


class Strict(BaseModel):
    """Immutable; an unknown key is an error, and so are NaN and infinity, integers beyond 2^53, true as a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        return _check_numbers(value, cls.model_fields[info.field_name].annotation)


def _check_numbers(value: Any, annotation: Any) -> Any:
    """Raise ValueError for an integer beyond `LARGEST`, and for true or false where `annotation` has neither."""
    if isinstance(value, bool) and not any(word in str(annotation) for word in ("bool", "Any")):
        raise ValueError(f"{str(value).lower()} is not a value for it")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("the number is too large")
    if isinstance(value, list | tuple):
        for part in value:
            _check_numbers(part, annotation)
    return value


def _number(value: Any) -> float:
    """The number that a value is or, as text, is taken for; 0 for everything else."""
    try:
        return float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0
    except OverflowError:
        return math.inf


def check_plain(value: Any, depth: int = 0) -> Any:
    """Return an option's value if it is plain: a finite JSON value. Raises ValueError that names the invalid part."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if abs(_number(value)) > LARGEST_COUNT:
        raise ValueError(f"a number is beyond {LARGEST_COUNT}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{value!a} is not text")
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is not a word")
            check_plain(name)
            try:
                check_plain(part, depth + 1)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    elif isinstance(value, list | tuple):
        for part in value:
            check_plain(part, depth + 1)
    elif not isinstance(value, bool | int | float | str | None):
        raise ValueError(f"{value!r} is a {type(value).__name__}, not a number, a word, or a list of them")
    return value


def _check_sizes(value: Any, name: str = "") -> Any:
    """Return a model's options; raises ValueError for a number below 0: they are sizes, counts, rates and shares."""
    if isinstance(value, int | float) and value < 0:
        raise ValueError(f"{name} {value} is below 0")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_sizes(part, f"{name}.{key}" if name else key)
    if isinstance(value, list | tuple):
        for part in value:
            _check_sizes(part, name)
    return value


PlainOptions = Annotated[dict[str, Any], AfterValidator(check_plain)]
ModelOptions = Annotated[PlainOptions, AfterValidator(_check_sizes)]
Count = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]


class Side(Strict):
    """One side of a claim: a metric of a method, addressed ``paper/method``."""

    method: str
    metric: str


class Reported(Strict):
    """A figure as the publication (or a named third party) states it; `where` says table and source."""

    metric: str
    value: Number
    unit: str = "%"
    data: str
    setting: str
    where: str
    beside: Side | None = Field(None, description="method and metric beside which tables show it")


def on_test_scale(smallest_effect: float, effect: str) -> float:
    """Return the smallest effect of interest on the scale of the test: of a ``ratio`` the quotient's logarithm."""
    return math.log1p(smallest_effect) if effect == "ratio" else smallest_effect


class Claim(Strict):
    """A testable statement of a paper.

    The effect is ``subject.metric - reference.metric`` (``difference``) or their quotient (``ratio``), with `expected`
    in the reference's place where there is none, paired by seed. Metrics of a logarithmic scale (times, memory,
    speed-ups) are compared by ratio only. `direction` ``greater`` and
    ``less`` say which sign the paper states; ``equal`` is judged by two one-sided tests against
    ±`smallest_effect`. `evidence` ``exact`` is for what has no sampling noise (an invariance, a count, an
    identity): every value must be within the margin, and no p-value is made.
    """

    id: str
    statement: str
    where: str = Field(description="table, figure or section of the paper")
    subject: Side
    reference: Side | None = None
    expected: float | None = None
    effect: Literal["difference", "ratio"] = "difference"
    direction: Literal["greater", "less", "equal"]
    smallest_effect: float = Field(
        ge=0, description="smallest effect of interest, in the metric's unit; of a ratio 0.1 is 10 %"
    )
    reported_effect: float | None = Field(None, description="the paper's own effect, in the metric's unit")
    evidence: Literal["sampled", "exact"] = "sampled"
    tiers: tuple[TierName, ...]
    why_not: str = Field("", description="why tiers that `tiers` leaves out cannot test it, and what it would take")
    deviations: tuple[int, ...] = Field((), description="numbers of the paper's README deviations that bear on it")
    note: str = ""

    @model_validator(mode="after")
    def _one_comparison(self) -> "Claim":
        if (self.reference is None) == (self.expected is None):
            raise ValueError(f"claim {self.id}: give either 'reference' or 'expected'")
        return self

    def sides(self) -> dict[str, Side]:
        """The subject and, where there is one, the reference."""
        return {"subject": self.subject} | ({"reference": self.reference} if self.reference else {})

    @property
    def delta(self) -> float:
        """The smallest effect of interest on the scale of the test."""
        return on_test_scale(self.smallest_effect, self.effect)


class Recipe(Strict):
    """How the training loop trains a stage. One recipe a task and tier; a method's override is shown as a difference.

    `epochs` or `steps` gives the length. `optimizer` and `schedule` are timm's names. Sizes are samples, `lr` is
    for the whole batch, `warmup` is a fraction of all steps, `ema` the decay of the averaged weights (0: none).
    """

    batch_size: Count
    epochs: float | None = Field(None, gt=0, le=1e6)
    steps: Count | None = None
    optimizer: str = Field("sgd", pattern="^[A-Za-z][A-Za-z0-9_]*$")
    optimizer_options: PlainOptions = {}
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1e6)
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    schedule_milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="fractions of all steps at which lr drops tenfold, rising"
    )
    warmup: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    accumulate: Count = Field(1, description="micro-batches a step; batch_size stays samples per step")
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    ema: float = Field(0.0, ge=0, lt=1)
    compile: bool = False
    capture: bool = Field(False, description="on a CUDA GPU: forward and backward as one CUDA graph; for small models")
    channels_last: bool = True
    checkpoint_seconds: float = Field(60.0, ge=0, description="wall seconds between checkpoints; 0: every step")
    validate_every: float | None = Field(
        None, gt=0, le=1e6, description="epochs between validations; None: at the end only"
    )
    select: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _one_length(self) -> "Recipe":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either 'epochs' or 'steps'")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        return self

    @model_validator(mode="after")
    def _milestones(self) -> "Recipe":
        milestones = list(self.schedule_milestones)
        if (self.schedule == "step") != bool(milestones):
            raise ValueError(
                f"schedule '{self.schedule}' with milestones {milestones}: "
                "'step' needs schedule_milestones, and no other schedule takes them"
            )
        if milestones != sorted(set(milestones)):
            raise ValueError(f"schedule_milestones must rise, not {milestones}")
        return self


def _check_recipe_changes(changes: dict[str, Any]) -> dict[str, Any]:
    for name, value in changes.items():
        if name not in Recipe.model_fields:
            raise ValueError(f"unknown recipe key '{name}'{nearest(name, Recipe.model_fields)}")
        field = Recipe.model_fields[name]
        try:
            _check_numbers(value, field.annotation)
            form = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            TypeAdapter(form, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"recipe {name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        except ValueError as error:
            raise ValueError(f"recipe {name}: {error}") from None
    return changes


# A stage's changes to a recipe; each value is checked alone, before the recipe is known.
RecipeChanges = Annotated[dict[str, Any], AfterValidator(_check_recipe_changes)]


class Override(Strict):
    """What a method changes against its task's set-up: options of the model, the recipe, the data or the task.

    Changes are merged into what is there, at any depth (`replications.parsing.merged`); a null takes a key out.
    """

    options: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    data: dict[str, str] = {}
    task: dict[str, Any] = {}
    why: str = Field("", description="needed where recipe, data or task differ: the paper's point, or a necessity")


class Method(Strict):
    """A trained variant that appears as a row. `build` names a callable in the paper's folder: ``module:function``."""

    title: str
    build: str
    role: Literal["method", "baseline", "ablation"] = "method"
    options: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    data: dict[str, str] = {}
    task: dict[str, Any] = {}
    why: str = ""
    per_tier: dict[TierName, Override] = {}
    tiers: tuple[TierName, ...] = TIERS
    weights: str | None = Field(None, description="module:function that fills a built module from a weights file")

    @field_validator("build", "weights")
    @classmethod
    def _module_and_function(cls, value: str | None) -> str | None:
        if value is not None and value.count(":") != 1:
            raise ValueError(f"must read 'module:function', not '{value}'")
        return value


class Paper(Strict):
    """A publication: bibliography, what it reports, what it claims, and the methods of its folder."""

    key: str = Field("", description="the folder's name; filled in by the catalogue")
    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    arxiv: str | None = None
    bibtex: str
    role: Literal["replication", "baseline"] = "replication"
    task: str
    methods: dict[str, Method]
    reported: tuple[Reported, ...] = ()
    claims: tuple[Claim, ...] = ()


class TaskTier(Strict):
    """A task's set-up in one tier: its data, its recipe and its options (typed by the task itself)."""

    data: dict[str, str] = Field(description="role (train, test, ...) -> prepared set of the registry; no fallback")
    recipe: dict[str, Any] | None = Field(None, description="None: nothing is trained")
    task: dict[str, Any] = Field({}, description="options of the task, typed by the task's own module")
    options: dict[str, Any] = Field({}, description="options handed to every method's build")
    minutes_per_run: float | None = Field(None, description="rough cost before any record exists, for the plan")


class TierConfig(Strict):
    """config/<tier>.yaml: what holds for every task."""

    name: TierName
    looks: int | None = Field(None, ge=1, le=len(LOOKS), description="how many looks (replications.looks) are taken")
    seeds: int | None = Field(None, ge=1, description="in place of looks where no claim is judged")
    seeds_per_process: int = Field(ge=1)
    threads: int = Field(ge=1, description="CPU threads of one run")
    result: bool = Field(True, description="false: plumbing only, stamped 'not a result' everywhere")
    accelerator: bool = Field(False, description="device 'auto' is a GPU where there is one; else it is the CPU")
    description: str

    @model_validator(mode="after")
    def _looks_or_seeds(self) -> "TierConfig":
        if (self.looks is None) == (self.seeds is None):
            raise ValueError("give either 'looks' or 'seeds'")
        return self


class RunSpec(Strict):
    """Everything that decides a run's numbers, resolved. Equal specs on equal code and data give equal records."""

    paper: str
    method: str
    tier: TierName
    seed: int = Field(ge=0)
    task: str
    data: dict[str, str]
    build: str
    options: ModelOptions
    recipe: Recipe | None
    task_options: PlainOptions
    threads: int
    changes: tuple[str, ...] = Field(
        (), description="what was set by hand against the tier's set-up, as part.name=value"
    )
    portable: bool = Field(False, description="held to kernels that every x86-64 processor with AVX2 has")

    @property
    def address(self) -> str:
        return f"{self.paper}/{self.method}"

    def canonical_json(self) -> str:
        """One line of JSON, keys sorted: the form that is hashed and passed to Snakemake."""
        # The changed values are in the fields above; how they were set affects no number.
        return json.dumps(self.model_dump(mode="json", exclude={"changes"}), sort_keys=True, separators=(",", ":"))
