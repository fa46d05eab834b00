"""The publications of the repository, for tests that need real records."""

from pathlib import Path

from replications.archive import record_files

PUBLISHED = Path(__file__).parent.parent / "results" / "published"


def unpack_runs(name: str, results: Path, seeds: int = 3) -> None:
    """Write the run records of the first seeds of a publication below `results`, a file each."""
    kept = {f"seed{seed}" for seed in range(seeds)}
    for path, read in record_files(PUBLISHED / name):
        if path.startswith("runs/") and path.split("/")[3] in kept:
            (results / path).parent.mkdir(parents=True, exist_ok=True)
            (results / path).write_bytes(read())
