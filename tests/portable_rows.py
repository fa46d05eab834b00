"""One short row a task in portable mode, as numbers to the last bit.

``PYTHONPATH=. python tests/portable_rows.py > tests/portable.json`` writes the reference that test_portable.py holds
other machines to; `portable_amd.json` is of one of them. Measured times and memory, and what was trained for equal
seconds, are left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from replications.measurement.hardware import cpu_model
from replications.tasks.base import find_task

ROOT = Path(__file__).parents[1]
ROWS = (
    "arcface/arcface",
    "eigenfaces/eigenfaces",
    "resnet/resnet",
    "vit/vit",
    "pointnet2/ssg",
    "votenet/votenet",
    "detr/detr",
    "transformer/transformer",
)


def processor() -> str:
    """The processor's name and, where Linux tells them, its family, model and stepping: names alone may be shared."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {key.strip(): value.strip() for key, value in found.items()}
    return ", ".join(
        [cpu_model(), *(f"{key} {known[key]}" for key in ("cpu family", "model", "stepping") if key in known)]
    )


def run(folder: Path) -> dict[str, dict[str, float]]:
    """Run the rows below `folder`; return their losses and metrics by row."""
    command = ["run", *ROWS, "--tier", "smoke", "--seeds", "0,", "--portable", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "replications", *command], cwd=folder, env=environment, check=True, capture_output=True
    )
    return {row: _numbers(folder / f"results/portable/smoke/runs/{row}/seed0/run.json") for row in ROWS}


def _numbers(path: Path) -> dict[str, float]:
    """The training losses and gradient norms, and the metrics but for measured times, of a record."""
    record = json.loads(path.read_text())
    metrics = find_task(record["spec"]["task"]).metrics
    trained = {
        f"{point['stage']} step {point['step']} {name}": value
        for point in record["history"]
        for name, value in point["values"].items()
        if name in ("loss", "grad_norm") and point["stage"] != "timed"
    }
    measured = {n for n in record["metrics"] if metrics[n].timed or "equal_time" in n or "memory" in n}
    return trained | {name: value for name, value in record["metrics"].items() if name not in measured}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        json.dump({"cpu": processor(), "rows": run(Path(folder))}, sys.stdout, indent=1)
    print()
