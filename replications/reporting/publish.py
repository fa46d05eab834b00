"""Publish a tier's records and tables below ``results/published/``.

A publication is a copy that is committed and cited: records, tables and those plots that show no sample of
a data set, no scores.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from replications import catalogue
from replications.errors import UserError, disk_error
from replications.reporting import labels, report
from replications.reporting.temporary import temporary_folder
from replications.reporting.verify import verify
from replications.spec import Paper
from replications.tasks.base import Task

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def publish(
    results: Path,
    published: Path,
    papers: Mapping[str, Paper],
    *,
    name: str | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Path:
    """Copy the report in `results` (``results/<tier>``) and its records to ``<published>/<tier>-<name>``.

    `name` is the date of the latest record where not given. Raises UserError where there is no report, the
    tier gives no results, the publication exists, a number does not follow from the records, or `name` is no plain
    name of a folder.
    """
    if name is not None and not NAME.fullmatch(name):
        raise UserError(
            f"--name {name[:100]!r} is not the name of a publication: up to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    results, published = Path(results), Path(published)
    manifest = report.read_manifest(results)
    if manifest is None:
        raise UserError(f"no report in {results}: make one with 'replications report' before publishing it")
    tier = manifest["tier"]
    if not catalogue.tier_config(tier).result:
        raise UserError(f"tier {tier} is {labels.NOT_A_RESULT}: nothing of it is published")
    wrong = verify(results, tier, papers, tasks=tasks)
    if wrong:
        raise UserError(f"{len(wrong)} numbers in {results} do not follow from the records, first {wrong[0]}")
    records = report.derive(results, tier, papers, tasks=tasks, methods=manifest["methods"])[0]
    dates = [r.provenance.created[:10] for of in records.runs.values() for r in of.values() if r.provenance]
    target = published / f"{tier}-{name or max(dates, default='undated')}"
    if os.path.lexists(target):
        raise UserError(f"{target} is published already: give another name, or remove it first")
    shown = manifest.get("publish", ())
    kept = [f for f in manifest["files"] if f in shown or not f.startswith(("plots/", "index.html", report.RUNS))]
    sources = [*kept, *(p.relative_to(results).as_posix() for p in results.glob("runs/*/*/seed*/run.json"))]
    sources += [p.relative_to(results).as_posix() for p in results.glob("throughput/*/*.json")]
    try:
        published.mkdir(parents=True, exist_ok=True)
        with temporary_folder(published, ".publish-") as temporary:
            for source in sources:
                (temporary / source).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(results / source, temporary / source)
            text = json.dumps({**manifest, "files": kept}, indent=1) + "\n"
            (temporary / report.MANIFEST).write_text(text, encoding="utf-8")
            temporary.chmod(0o755)
            os.replace(temporary, target)
    except OSError as error:
        raise disk_error(error, "publish to", target, "nothing is lost") from error
    return target
