"""Speeds by card: every published measurement of a training step and an inference, in one table.

There are two kinds of records: those on a tier's own data, which are part of each publication, and those on random
data of the same form (`throughput --synthetic`), which have no quality and are kept in separate archives,
``speeds-NAME/``.
"""

import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from replications.archive import ARCHIVE
from replications.errors import UserError
from replications.records import ThroughputRecord, parse, read_throughput, write_atomic
from replications.reporting import labels
from replications.reporting.measured import Publication
from replications.reporting.tables import Cell, Column, Table, number

PREFIX = "speeds-"
PAGE = "speeds.md"
COLUMNS = [
    Column("method", "Method", numeric=False),
    Column("data", "Data", numeric=False),
    Column("setting", "Batch, precision", numeric=False),
    Column("train", "Training, samples/s"),
    Column("step", "Step, ms", description="median of the measured training steps"),
    Column("inference", "Inference, samples/s"),
    Column("memory", "Memory", description="peak of training"),
    Column("mfu", "MFU, %", description="model FLOPs utilisation of the training step"),
    Column("energy", "J a sample"),
    Column("with", "Measured with", numeric=False),
    Column("publication", "Publication", numeric=False),
]
NOTE = (
    "A section a card or processor. Speeds compare within a section and a setting; on a CPU, threads are the tier's. "
    "Random data are in the form of the tier's own."
)


def publish_speeds(results: Path, published: Path, name: str) -> Path:
    """Pack the records of ``results/*/synthetic`` into ``<published>/speeds-<name>/``; return the folder.

    Raises UserError if there is none, or the name is taken.
    """
    read = [read_throughput(path) for path in sorted(Path(results).glob("*/synthetic/*/*.json"))]
    records = [record for record in read if record.status == "finished"]
    if not records:
        raise UserError(
            f"no finished record in {results}/*/synthetic: 'replications throughput --synthetic' makes them"
        )
    target = Path(published) / f"{PREFIX}{name}"
    if target.exists():
        raise UserError(f"{target} is published already: give another name, or remove it first")
    lines = sorted(json.dumps(record.model_dump(mode="json"), sort_keys=True) + "\n" for record in records)
    target.mkdir(parents=True)
    write_atomic(target / ARCHIVE, lzma.compress("".join(lines).encode(), preset=9))
    return target


def read_speeds(published: Path, publications: Sequence[Publication]) -> Iterator[tuple[str, ThroughputRecord]]:
    """Yield the folder name and the record of each published speed measurement."""
    for one in publications:
        for _, record in sorted(one.records.throughput.items()):
            if record.status == "finished":
                yield one.name, record
    for path in sorted(Path(published).glob(f"{PREFIX}*/{ARCHIVE}")):
        for line in lzma.decompress(path.read_bytes()).splitlines():
            yield path.parent.name, parse(line, ThroughputRecord, str(path))


def speeds_table(speeds: Sequence[tuple[str, ThroughputRecord]]) -> Table:
    """Return the table: a section per GPU or CPU model, GPUs first."""
    sections: dict[str, list] = {}
    for name, r in sorted(speeds, key=lambda pair: (_on_cpu(pair[1]), labels.device_class(pair[1]))):
        setting = f"{r.batch_size}, {r.precision}" + (", compiled" if r.compiled else "")
        key = f"{name} {r.paper}/{r.method} {setting} {r.tier} {r.synthetic}"
        row = [
            Cell(f"{r.paper}/{r.method}"),
            Cell(f"{r.tier}, random data" if r.synthetic else r.tier),
            Cell(setting),
            number(r.train_samples_per_second, labels.short),
            number(1000 * median(r.train_step_seconds) if r.train_step_seconds else None, labels.short),
            number(r.inference_samples_per_second, labels.short),
            number(r.peak_memory_bytes, labels.mebibytes),
            number(r.mfu, labels.percent),
            number(r.train_joules_per_sample, labels.short),
            Cell(_software(r)),
            Cell(f"[{name}]({name}/{ARCHIVE if name.startswith(PREFIX) else 'README.md'})"),
        ]
        sections.setdefault(labels.device_class(r), []).append((key, row))
    return Table("speeds", "Speeds by card", COLUMNS, list(sections.items()), [NOTE])


def _on_cpu(record: ThroughputRecord) -> bool:
    return record.provenance is None or record.provenance.device_kind == "cpu"


def _software(record: ThroughputRecord) -> str:
    """Return versions of torch, CUDA, cuDNN and driver, and the load by other programs if it was high."""
    found = record.provenance.packages if record.provenance else {}
    parts = [f"{name} {found[name]}" for name in ("torch", "cuda", "cudnn", "driver") if name in found]
    if (record.background_load or 0) > labels.BUSY:
        parts.append(f"{record.background_load:.0%} of the machine in use by others")
    return ", ".join(parts)
