"""Random sets in the form of the task's own: grey images with their splits."""

from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, random_bytes, splits
from replications.spec import RunSpec


def synthetic_sets(spec: RunSpec, samples: int) -> dict[str, SyntheticSet]:
    """Return sets by key that hold a batch of `samples`."""
    key = spec.data["images"]
    side, split = find_set(key).options["size"], splits(samples)
    return {key: SyntheticSet({"images": random_bytes((len(split), side, side, 3)), "split": split}, {})}
