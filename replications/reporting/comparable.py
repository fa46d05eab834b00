"""Whether a claim's runs are comparable, and warnings for those that are.

Seeds of a side must agree in code, data, set-up and device; the sides in test data (or in the set of which both are
forms), in the content of the sets and the code of the modules that both use, in device, and in each part of the set-up
that neither method changes in its paper.yaml. Timed metrics are compared only at equal batch, precision, threads,
processor and load. A different processor, kernel instruction set or library version, and uncommitted code, give
warnings.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from replications.datasets import registry
from replications.records import RunRecord
from replications.reporting import labels
from replications.reporting.model_options import taken
from replications.spec import Paper

LENGTH = {"epochs", "steps"}  # a change from one to the other touches both
PARTS = ("data", "recipe", "task_options", "options")

Side = Sequence[RunRecord]  # one method's runs, by seed


def why_not(paired: Sequence[Side], timed: bool, papers: Mapping[str, Paper]) -> str:
    """Return why the runs `paired` [sides][seeds] must not be compared; empty if they may be.

    `timed`: the metric is a measured time.
    """
    if timed and (shared := [record for side in paired for record in side if record.cost.runs_per_gpu > 1]):
        return f"times of runs that shared a GPU are not judged: {_names(shared)}"
    for side in paired:
        if different := within(side):
            return f"the seeds of {side[0].spec.address} differ in their {different}"
    if len(paired) == 1:
        return ""
    different = _between(*(side[0] for side in paired), papers)
    for pair in zip(*paired, strict=True):
        different = different or (_clock(*pair) if timed else "")
    return f"subject and reference differ in their {different}" if different else ""


def within(side: Side) -> str:
    """Return what differs between the runs of a method besides the seed; empty if nothing does."""
    first = side[0]
    for other in side[1:]:
        if first.code_fingerprint != other.code_fingerprint:
            return f"code{_listed(_other_modules(first, other))}"
        if first.data_fingerprint != other.data_fingerprint:
            return f"data{_listed(_other_sets(first, other))}"
        if _without_seed(first) != _without_seed(other):
            return "set-up"
        if device := _other(_device, first, other):
            return f"device ({device})"
    return ""


def _without_seed(record: RunRecord) -> dict[str, Any]:
    """Return the resolved spec of a run without its seed, and without `changes`, which it already includes."""
    return {name: value for name, value in vars(record.spec).items() if name not in ("seed", "changes")}


def _between(a: RunRecord, b: RunRecord, papers: Mapping[str, Paper]) -> str:
    if labels.category(a) != labels.category(b):
        return "category"
    if _tested_on(a) != _tested_on(b):
        return "test data"
    if a.spec.tier != b.spec.tier:
        return f"tier ({a.spec.tier} against {b.spec.tier})"
    sets = _other_sets(a, b)
    if sets or (a.spec.data == b.spec.data and a.data_fingerprint != b.data_fingerprint):
        return f"data{_listed(sets)}"
    modules = _other_modules(a, b)
    if modules or (_same_code_expected(a, b) and a.code_fingerprint != b.code_fingerprint):
        return f"code{_listed(modules)}"
    if device := _other(_device, a, b):
        return f"device ({device})"
    if set_up := _set_up(a, b, papers):
        return f"set-up ({set_up})"
    return ""


def _tested_on(record: RunRecord) -> str | None:
    """Return the key of the test set, or of the one whose items and labels it has in another form (`form_of`)."""
    key = record.spec.data.get("test")
    known = registry.load().sets.get(key)
    return (known and known.options.get("form_of")) or key


def _other(what: Callable[[RunRecord], Any], a: RunRecord, b: RunRecord) -> str:
    """Return ``x against y`` if both records have `what` and it differs."""
    one, other = what(a), what(b)
    return f"{one} against {other}" if None not in (one, other) and one != other else ""


def _device(record: RunRecord) -> str | None:
    return record.provenance and record.provenance.device


def _other_modules(a: RunRecord, b: RunRecord) -> list[str]:
    return _unequal(a.modules, b.modules)


def _other_sets(a: RunRecord, b: RunRecord) -> list[str]:
    return _unequal(a.sets, b.sets)


def _unequal(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return sorted(name for name in a.keys() & b.keys() if a[name] != b[name])


def _same_code_expected(a: RunRecord, b: RunRecord) -> bool:
    """Whether two records must have the same code fingerprint: true if they use the same model file."""
    module_a, module_b = (r.spec.build.partition(":")[0] for r in (a, b))
    return (a.spec.paper, a.spec.task, module_a) == (b.spec.paper, b.spec.task, module_b)


def _listed(names: Sequence[str], most: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f" of {', '.join(name.removeprefix('replications.') for name in names[:most])}{more}"


def _set_up(a: RunRecord, b: RunRecord, papers: Mapping[str, Paper]) -> str:
    """Return the first difference between two set-ups that neither method's paper.yaml declares."""
    own = [_own(record, papers) for record in (a, b)]
    if None in own:
        return ""
    by_hand = {name for record in (a, b) for name in _options_by_hand(record)}
    for part in PARTS:
        one, other = (dict(getattr(record.spec, part) or ()) for record in (a, b))  # no recipe: nothing is trained
        names = one.keys() | other.keys()
        free = own[0][part] | own[1][part]
        if part == "options":  # an option that one model does not take is no difference
            names, free = _taken(a) & _taken(b), free - by_hand
        for name in sorted(names - free):
            if one.get(name) != other.get(name):
                return f"{part.removesuffix('_options')}.{name}: {one.get(name)} against {other.get(name)}"
    return ""


def _taken(record: RunRecord) -> Set[str]:
    """Return the options in a record's spec that its model takes: the spec has all that the tier hands out."""
    known = taken(record.spec.paper, record.spec.build)
    return record.spec.options.keys() if known is None else record.spec.options.keys() & known


def _options_by_hand(record: RunRecord) -> dict[str, str]:
    """Return the changes set by hand (``--set``) to a method's options, by option name."""
    changes = [c.removeprefix("options.") for c in record.spec.changes if c.startswith("options.")]
    return {change.partition("=")[0].partition(".")[0]: change for change in changes}


def _own(record: RunRecord, papers: Mapping[str, Paper]) -> dict[str, set[str]] | None:
    """Return the names that a method sets itself in each part of the set-up; None for an unknown method."""
    paper = papers.get(record.spec.paper)
    method = paper and paper.methods.get(record.spec.method)
    if not method:
        return None
    layers = [method, *([method.per_tier[record.spec.tier]] if record.spec.tier in method.per_tier else [])]
    own = {
        part: {n for layer in layers for n in getattr(layer, part.replace("task_options", "task"))} for part in PARTS
    }
    if own["recipe"] & LENGTH:
        own["recipe"] |= LENGTH
    return own


def _clock(a: RunRecord, b: RunRecord) -> str:
    """Return the first difference between two runs that affects times; empty if their times may be compared."""
    for name, what in (
        ("batch size", lambda r: r.spec.recipe and r.spec.recipe.batch_size),
        ("precision", lambda r: r.spec.recipe and r.spec.recipe.precision),
        ("threads", lambda r: r.spec.threads),
        ("device", lambda r: r.provenance and labels.device_class(r)),
    ):
        if difference := _other(what, a, b):
            return f"{name} at seed {a.spec.seed} ({difference})"
    loads = a.cost.background_load, b.cost.background_load
    if None not in loads and abs(loads[0] - loads[1]) > labels.BUSY:
        return f"machine's load by others at seed {a.spec.seed} ({loads[0]:.0%} against {loads[1]:.0%})"
    return ""


# ------------------------------------------------------------------ warnings


def warnings(paired: Sequence[Side], timed: bool) -> tuple[str, ...]:
    """Return warnings: what else differs within or between sides, and notes on single runs."""
    runs = list({id(record): record for side in paired for record in side}.values())
    known = [record for record in runs if record.provenance]
    on_cpu = [record for record in known if record.provenance.device_kind == "cpu"]
    packages = sorted({name for record in known for name in record.provenance.packages})
    found = [
        _differ("processors", on_cpu, lambda r: r.provenance.cpu),
        _differ("kernel instruction sets", on_cpu, lambda r: r.provenance.cpu_capability),
        _differ("Python versions", known, lambda r: r.provenance.python),
        *(_differ(f"versions of {name}", known, lambda r, n=name: r.provenance.packages.get(n)) for name in packages),
    ]
    if not all(record.modules for record in runs):
        found.append(_differ("commits", known, lambda r: r.provenance.commit and r.provenance.commit[:12]))
    if dirty := [record for record in known if record.provenance.dirty]:
        found.append(f"uncommitted code: {_names(dirty)}")
    by_hand = [_options_by_hand(side[0]) for side in paired]
    if len(paired) == 2 and by_hand[0] != by_hand[1]:
        found.append(f"options set by hand differ: {_only(*by_hand)} against {_only(*by_hand[::-1])}")
    if timed and (busy := [r for r in runs if (r.cost.load_by_others or 0) > labels.BUSY]):
        most = max(r.cost.load_by_others for r in busy)
        found.append(f"others used up to {most:.0%} of the machine while this was timed: {_names(busy)}")
    return tuple(dict.fromkeys(filter(None, found)))


def _only(options: Mapping[str, str], other: Mapping[str, str], most: int = 3) -> str:
    own = [change for name, change in options.items() if other.get(name) != change] or ["none"]
    return ", ".join(own[:most]) + (f" and {len(own) - most} more" if len(own) > most else "")


def _differ(what: str, runs: Iterable[RunRecord], key: Callable[[RunRecord], str | None]) -> str:
    groups: dict[str, list[RunRecord]] = {}
    for record in runs:
        if key(record):
            groups.setdefault(key(record), []).append(record)
    if len(groups) < 2:
        return ""
    return f"{what} differ: " + "; ".join(f"{value} ({_names(of)})" for value, of in sorted(groups.items()))


def _names(runs: Sequence[RunRecord]) -> str:
    """``arcface/arcface seeds 0, 2; arcface/softmax seed 1``."""
    seeds: dict[str, list[int]] = {}
    for record in runs:
        seeds.setdefault(record.spec.address, []).append(record.spec.seed)
    return "; ".join(f"{address} {labels.seeds(of)}" for address, of in seeds.items())
