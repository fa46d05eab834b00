"""A run as it was asked for: its set-up of the catalogue, changed by hand, on so many threads; how to ask for it."""

import re
from collections.abc import Iterable

from replications import catalogue
from replications.errors import UserError
from replications.spec import RunSpec

THREADS = "threads="


def resolve(address: str, tier: str, seed: int, changes: Iterable[str] = (), portable: bool = False) -> RunSpec:
    """Resolve a run as `catalogue.resolve` does, with ``threads=N`` among the changes, which is of no part.

    All changes are named in the spec, in their order. Raises UserError where `catalogue.resolve` or `threads` does.
    """
    changes = tuple(changes)
    of_parts = [change for change in changes if not change.startswith(THREADS)]
    spec = catalogue.resolve(address, tier, seed, of_parts, portable)
    return spec.model_copy(update={"threads": threads(tier, changes), "changes": changes})


def threads(tier: str, changes: Iterable[str] = ()) -> int:
    """Return the CPU threads of a run: the tier's, or those of the last change ``threads=N``.

    Raises UserError for anything but a whole number from 1 on.
    """
    number = str(catalogue.tier_config(tier).threads)
    for change in changes:
        if change.startswith(THREADS):
            number = change.removeprefix(THREADS)
            if not re.fullmatch("[1-9][0-9]{0,3}", number):
                raise UserError(f"'{change}': threads are a whole number from 1 to 9999")
    return int(number)


def options(tier: str, tried: bool = False, portable: bool = False) -> list[str]:
    """Return the options by which commands find a tier's records, without those that are the default."""
    return [f"--tier {tier}"] * (tier != _default_tier()) + ["--tried"] * tried + ["--portable"] * portable


def workflow(tier: str, targets: Iterable[str] = (), *config: str, portable: bool = False) -> list[str]:
    """Return the words of the call of Snakemake that makes a tier's records; `config` are further ``name=value``."""
    values = [f"tier={tier}"] * (tier != _default_tier()) + [*config] + ["portable=true"] * portable
    return ["snakemake", "--cores all", *targets, *(["--config", *values] if values else [])]


def _default_tier() -> str:
    return catalogue.read_yaml(catalogue.CONFIG / "config.yaml")["tier"]
