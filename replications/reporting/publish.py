"""Publish a tier's records and tables below ``results/published/``.

A publication is a copy to commit and cite: records (in one file), tables, and plots that show no sample of a data
set. Scores and pages are left out.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from replications import catalogue
from replications.archive import ARCHIVE, pack, record_files
from replications.errors import UserError, disk_error
from replications.records import write_atomic
from replications.reporting import labels, report
from replications.reporting.svg import smaller
from replications.reporting.temporary import temporary_folder
from replications.reporting.verdicts import Verdict
from replications.reporting.verify import verify
from replications.spec import Paper
from replications.tasks.base import Task

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DECIMAL = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+")


def publish(
    results: Path,
    published: Path,
    papers: Mapping[str, Paper],
    *,
    name: str | None = None,
    tasks: Mapping[str, Task] | None = None,
    deviations: Mapping[str, Mapping[int, str]] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
) -> Path:
    """Copy the report in `results` (``results/<tier>``) and its records to ``<published>/<tier>-<name>``.

    `name` is the date of the latest record where not given; other arguments as in `report.build`. Raises UserError
    if there is no report, the tier gives no results, the publication exists, a number does not follow from the
    records, or `name` is not a plain folder name.
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
    wrong = verify(results, tier, papers, tasks=tasks, deviations=deviations, describe_set=describe_set)
    if wrong:
        raise UserError(f"{len(wrong)} files or numbers in {results} do not follow from the records, first {wrong[0]}")
    records = report.derive(results, tier, papers, tasks=tasks, methods=manifest["methods"])[0]
    dates = [r.provenance.created[:10] for of in records.runs.values() for r in of.values() if r.provenance]
    target = published / f"{tier}-{name or max(dates, default='undated')}"
    if os.path.lexists(target):
        raise UserError(f"{target} is published already: give another name, or remove it first")
    shown = [plot.file for plot in report.plots_of(manifest) if plot.publish]
    try:
        published.mkdir(parents=True, exist_ok=True)
        with temporary_folder(published, ".publish-") as temporary:
            for source in [report.MANIFEST, *shown]:
                (temporary / source).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(results / source, temporary / source)
            (temporary / ARCHIVE).write_bytes(pack(results))
            compact(temporary, papers, tasks=tasks, describe_set=describe_set)
            temporary.chmod(0o755)
            os.replace(temporary, target)
    except OSError as error:
        raise disk_error(error, "publish to", target, "nothing is lost") from error
    return target


def publish_part(
    results: Path,
    published: Path,
    papers: Mapping[str, Paper],
    *,
    name: str | None = None,
    tier: str,
    selected: Sequence[str],
    methods: Collection[str],
    tasks: Mapping[str, Task] | None = None,
    deviations: Mapping[str, Mapping[int, str]] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
    open_arrays: Callable[[str], Mapping] | None = None,
) -> Path:
    """Publish the records of some papers of a tier, with a report of these papers only.

    `selected` are the papers and `methods` the rows that their claims compare; other arguments as in `publish` and
    `report.build`. The records in `results` are linked, not copied, and the tier's own report is left as it is.
    """
    given = {"tasks": tasks, "deviations": deviations, "describe_set": describe_set}
    try:
        with temporary_folder(results.parent, ".part-") as temporary:
            part = temporary / tier  # the temporary folder itself is locked
            for method in methods:
                runs, throughput = f"runs/{method}", f"throughput/{method}.json"
                if (results / runs).is_dir():
                    shutil.copytree(results / runs, part / runs, copy_function=os.link)
                if (results / throughput).is_file():
                    (part / throughput).parent.mkdir(parents=True, exist_ok=True)
                    os.link(results / throughput, part / throughput)
            if next(record_files(part), None) is None:
                raise UserError(f"no record of {', '.join(selected)} in {results}: run the rows before publishing them")
            report.build(part, tier, papers, selected=selected, methods=methods, open_arrays=open_arrays, **given)
            return publish(part, published, papers, name=name, **given)
    except OSError as error:
        raise disk_error(error, "publish from", results, "nothing is lost") from error


def compact(
    folder: Path,
    papers: Mapping[str, Paper],
    *,
    tasks: Mapping[str, Task] | None = None,
    describe_set: Callable[[str], Mapping] | None = None,
) -> None:
    """Convert a publication to the current format, with records in one file; regenerate its tables and figures."""
    manifest = report.read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder}/{report.MANIFEST} is damaged: restore it, or remove the folder")
    if not (folder / ARCHIVE).exists():
        write_atomic(folder / ARCHIVE, pack(folder))
    for loose in ("runs", "throughput"):
        shutil.rmtree(folder / loose, ignore_errors=True)
    asked = {key: manifest[key] for key in ("methods", "selected", "seeds")}
    derived = report.derive(folder, manifest["tier"], papers, tasks=tasks, **asked)
    texts = report.text_files(derived, papers, manifest, describe_set=describe_set, tasks=tasks)
    texts = {name: text for name, text in texts.items() if not name.endswith(report.LOCAL)}
    claims = folder / "claims.json"
    if claims.exists() and not says_the_same(claims.read_text(encoding="utf-8"), texts["claims.json"]):
        _draw_claims(folder, derived[2])
    figures = {path.relative_to(folder).as_posix(): path for path in folder.glob("plots/*.svg")}
    texts |= {name: smaller(path.read_text(encoding="utf-8")) for name, path in figures.items()}
    files = sorted(texts)
    for name in {name for name in manifest["files"] if not name.startswith("plots/")} - set(files):
        (folder / name).unlink(missing_ok=True)
    manifest = {"tier": manifest["tier"], **asked, "files": files}
    texts[report.MANIFEST] = json.dumps(manifest, indent=1) + "\n"
    for name, text in texts.items():
        write_if_changed(folder / name, text)


def write_if_changed(path: Path, text: str) -> None:
    """Write a file unless it says the same: another processor's last digits are no change."""
    if not path.exists() or not says_the_same(path.read_text(encoding="utf-8"), text):
        write_atomic(path, text.encode())


def says_the_same(old: str, new: str) -> bool:
    """Whether two texts have the same words, and decimals that agree to nine digits."""
    if old == new or _DECIMAL.split(old) != _DECIMAL.split(new):
        return old == new
    decimals = zip(_DECIMAL.findall(old), _DECIMAL.findall(new), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12) for a, b in decimals)


def _draw_claims(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Redraw the forest plot if the publication has one."""
    import matplotlib

    from replications.reporting import forest, style

    with matplotlib.rc_context(style.RC), temporary_folder(folder, ".plots-") as temporary:
        figure = forest.forest_plot(verdicts)
        if figure is not None and (folder / "plots" / "claims.svg").exists():
            style.save(figure, temporary, "claims")
            os.replace(temporary / "claims.svg", folder / "plots" / "claims.svg")
