"""Validated knobs of a request, from config/config.yaml, ``--config`` and command-line options.

workflows/config.schema.yaml defines the knobs and their values; errors are one line.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replications import catalogue
from replications.errors import UserError, nearest
from replications.looks import LOOKS, passes_of, seeds_of
from replications.planning.folders import FOLDERS, folder_name
from replications.records import tier_folder
from replications.spec import TIERS, TierConfig

SCHEMA = catalogue.PACKAGE.parent / "workflows" / "config.schema.yaml"
WORDS = {"true": True, "false": False, "null": None, "none": None}
MOST_RUNS_PER_GPU = 64
MOST_SEEDS = 100  # larger plans take minutes; claims use at most 12 seeds
HIGHEST_SEED = 2**32 - 1  # numpy's limit
SEEDS_REMEDY = "give a count, as in seeds=5, or a list, as in seeds=0,1,2"


@dataclass(frozen=True)
class Knobs:
    """A checked request. `papers` have a method in the tier; of folders ``~`` is expanded.

    `seeds`, sorted, are the largest set that a row may take. With `looks`, rows take the first look's seeds and then
    those of each further look that a claim needs; without looks, every row takes all seeds.
    """

    tier: str
    papers: tuple[str, ...]
    seeds: tuple[int, ...]
    looks: int | None = None
    device: str = "auto"
    runs_per_gpu: int = 1
    portable: bool = False
    throughput: bool = True
    ablations: bool = True
    set: tuple[str, ...] = ()
    data_mirror: str | None = None
    data_root: str = "data"
    work: str = "work"
    results: str = "results"

    def results_of_tier(self) -> Path:
        """Where the tier's records and tables are."""
        return tier_folder(Path(self.results), self.tier, self.tried, self.portable)

    @property
    def passes(self) -> tuple[tuple[int, ...], ...]:
        """The seeds that each look adds; without looks there is one pass."""
        return passes_of(self.looks) if self.looks else (self.seeds,)

    @property
    def tried(self) -> bool:
        """Whether the set-up or the seeds are changed against the tier's."""
        return bool(self.set)


def read_knobs(config: Mapping[str, Any]) -> Knobs:
    """Check a configuration and return its knobs.

    Values may be text, as ``--config`` hands them over: 'true', '0,1,2', 'null'. Raises UserError for the first
    problem; it names the closest valid value.
    """
    schema = catalogue.read_yaml(SCHEMA)
    known = schema["properties"]
    for key in config:
        if key not in known:
            raise UserError(f"unknown key '{key}' in the configuration{nearest(str(key), known)}")
    values = {key: _typed(key, value, known[key]) for key, value in config.items()}
    _check(values, schema)
    for key in FOLDERS:
        if values.get(key) is not None:
            values[key] = folder_name(key, values[key], there=key == "data_mirror")
    tier = catalogue.tier_config(values["tier"])
    seeds, looks = seeds_or_looks(values.get("seeds"), values.get("looks"), tier)
    trial = [f"seeds={','.join(map(str, seeds))}"] if values.get("seeds") is not None else []
    return Knobs(
        **{
            **values,
            "papers": parse_papers(values["papers"], tier.name),
            "seeds": seeds,
            "looks": looks,
            "set": (*_assignments(values.get("set")), *trial),
        }
    )


def _typed(key: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """Restore types of values given as text: 'true' becomes a boolean; a folder named 5 stays text."""
    if key == "seeds":
        return _seed_list(value)
    if key == "looks":
        return _looks(value)
    if isinstance(value, str) and value.lower() in WORDS and key not in ("papers", *FOLDERS):
        return WORDS[value.lower()]
    if schema.get("type") == "integer" and isinstance(value, str) and value.isdecimal():
        return int(value)
    if schema.get("type") == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _check(values: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    for error in sorted(Draft202012Validator(schema).iter_errors(values), key=lambda error: list(error.path)):
        if not error.path:
            raise UserError(f"the configuration is not complete: {error.message}")
        key = str(error.path[0])
        if key == "tier":
            raise UserError(f"unknown tier '{_shown(values[key])}'{nearest(_shown(values[key]), TIERS)}")
        if key == "device":
            raise UserError(_unknown_device(_shown(values[key])))
        if key == "seeds":
            raise UserError(f"seeds={_shown(values[key])}: seeds are 0 or more, each given once ({SEEDS_REMEDY})")
        raise UserError(f"{key}={_shown(values[key])} is wrong; it is {schema['properties'][key]['description']}")


def check_device(choice: str) -> str:
    """Return a device's name; raises UserError for an invalid one."""
    if not re.fullmatch(catalogue.read_yaml(SCHEMA)["properties"]["device"]["pattern"], choice):
        raise UserError(_unknown_device(choice))
    return choice


def _unknown_device(choice: str) -> str:
    return f"unknown device '{choice}'{nearest(choice, ['auto', 'cpu', 'cuda', 'cuda:0'])}"


def _shown(value: Any) -> str:
    try:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list thousands deep
        return "..."
    return f"{text[:60]}..." if len(text) > 60 else text


def _assignments(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else tuple(value or ())


def _seed_list(value: Any) -> Any:
    """Return None, a count or a list of integers from what was given; raises UserError for anything else."""
    if isinstance(value, str):
        if value.lower() in ("null", "none", ""):
            return None
        value = [part.strip() for part in value.split(",")] if "," in value else value
    if isinstance(value, list | tuple):
        _check_number(len(value))
        return [_seed(part) for part in value if part != ""]
    if value is not None:
        _check_number(value := _seed(value))
    return value


def _seed(value: Any) -> int:
    text = _shown(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,10}", text) or int(text) > HIGHEST_SEED:
        raise UserError(f"seeds: '{text}' is not an integer up to {HIGHEST_SEED} ({SEEDS_REMEDY})")
    return int(text)


def _check_number(seeds: int) -> None:
    if seeds > MOST_SEEDS:
        raise UserError(f"seeds: {seeds} are too many; at most {MOST_SEEDS} ({SEEDS_REMEDY})")


def _looks(value: Any) -> int | None:
    """Return None or a number of looks; raises UserError for anything else."""
    text = _shown(value).strip()
    if value is None or text.lower() in ("null", "none", ""):
        return None
    if isinstance(value, bool | list) or not re.fullmatch(r"[0-9]", text) or not 1 <= int(text) <= len(LOOKS):
        *sizes, last = LOOKS
        raise UserError(
            f"looks={text}: give 1 to {len(LOOKS)}, which stand for up to {', '.join(map(str, sizes))} or {last} seeds "
            "(other seeds are a trial: seeds=)"
        )
    return int(text)


def seeds_or_looks(seeds: Any, asked: Any, tier: TierConfig) -> tuple[tuple[int, ...], int | None]:
    """Return the seeds that a row may take, and the number of looks, None where only the seeds count.

    `seeds` is a count or a list, `asked` a number of looks; neither: what the tier says. Raises UserError for both.
    """
    asked = _looks(asked)
    if seeds is not None and asked is not None:
        raise UserError(f"looks={asked} and seeds={_shown(seeds)}: give looks for verdicts, or seeds for a trial")
    if seeds is not None:
        return parse_seeds(seeds), None
    if asked is None and tier.looks is None:
        return tuple(range(tier.seeds or 0)), None
    asked = asked or tier.looks
    return seeds_of(asked), asked


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Return seeds from a count or a list; text is understood too."""
    value = _seed_list(value)
    seeds = value if isinstance(value, list) else list(range(value or 0))
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise UserError(f"seeds={_shown(value)}: seeds are 0 or more, each given once ({SEEDS_REMEDY})")
    return tuple(sorted(seeds))


def parse_papers(value: str | list[str], tier: str) -> tuple[str, ...]:
    """Return the papers that 'all', a list or comma-separated keys stand for; a task stands for its papers.

    Raises UserError for an unknown paper, or a named paper without a method in the tier.
    """
    words = [key.strip() for key in value.split(",")] if isinstance(value, str) else list(value)
    if words == ["all"]:
        return tuple(key for key in catalogue.papers() if catalogue.methods_of([key], tier))
    keys: list[str] = []
    for word in filter(None, words):
        of_task = [key for key, paper in catalogue.papers().items() if paper.task == word]
        keys += [key for key in of_task if catalogue.methods_of([key], tier)] or [word]
    for key in keys:
        catalogue.find_paper(key)
        if not catalogue.methods_of([key], tier):
            raise UserError(f"paper '{key}' has no method in tier '{tier}'")
    if not keys:
        raise UserError("papers= is empty (give papers=all, or keys joined by commas)")
    return tuple(sorted(set(keys)))


def parse_methods(words: Iterable[str], tier: str) -> list[str]:
    """Return the addresses of methods, papers, tasks or 'all' (also joined by commas), without duplicates.

    A paper or a task means its methods in the tier and those that their claims compare with, as in snakemake.
    Raises UserError for an unknown name, with the closest match, and for one without a method in the tier.
    """
    papers = catalogue.papers()
    tasks = catalogue.tasks()
    found: dict[str, None] = {}
    for name in (part.strip() for word in words for part in word.split(",") if part.strip()):
        if "/" in name:
            catalogue.layers(name, tier)
            methods = [name]
        elif name == "all" or name in papers or name in tasks:
            keys = [key for key, paper in papers.items() if name in ("all", key, paper.task)]
            methods = catalogue.methods_of(keys, tier)
        else:
            raise UserError(f"there is no paper, method or task '{name}'{nearest(name, [*papers, *tasks])}")
        if not methods:
            raise UserError(f"'{name}' has no method in tier '{tier}'")
        found |= dict.fromkeys(methods)
    if not found:
        raise UserError("no method given (see `list methods`)")
    return list(found)
