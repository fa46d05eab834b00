"""What length costs, without data or training: ``python -m benchmarks.length_sweep flash/flash --device cuda``.

The sweep of the task (a step of one sequence, beside fused softmax attention of the same size), at lengths of choice;
written as JSON: points, exponents and crossovers with their intervals.
"""

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from replications import catalogue
from replications.errors import UserError
from replications.measurement.hardware import resolve_device
from replications.measurement.lease import reserve_device
from replications.measurement.provenance import provenance
from replications.running import RunContext
from replications.tasks.language_modelling.options import SweepOptions
from replications.tasks.language_modelling.sweep import length_sweep
from replications.training.determinism import set_threads

LENGTHS = (8192, 16384, 32768, 65536)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", metavar="PAPER/METHOD")
    parser.add_argument("--tier", default="paper")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--stamps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    spec = catalogue.resolve(arguments.method, arguments.tier, 0)
    set_threads(spec.threads)
    # Softmax attention with its matrix in memory is left out: at these lengths there is no room for it.
    options = SweepOptions(lengths=tuple(arguments.lengths), stamps=arguments.stamps, naive_up_to=1)
    with reserve_device(arguments.device, alone=True) as choice:
        device = resolve_device(choice)
        found = length_sweep(RunContext(spec, device, Path(), Path()), options)
        told = provenance(device, spec.threads, deterministic=False).model_dump(mode="json")
    record = {"method": spec.address, "tier": spec.tier, "metrics": found.metrics, "provenance": told, **found.extra}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{spec.address}: {json.dumps(found.metrics)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except ValidationError as error:
        sys.exit(f"error: --lengths: {error.errors()[0]['msg']}")
