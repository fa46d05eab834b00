"""Check that methods compute the same on a device as on a CPU: ordered checks, results as JSON lines, a time limit."""

import json
import math
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from replications import catalogue
from replications.errors import RunFailure, UserError, on_disk, one_line
from replications.fingerprint import combined, module_hashes
from replications.running.fingerprints import PACKAGE, fingerprints

if TYPE_CHECKING:
    import torch

TIER = "smoke"
POINTS = "points"
COLUMNS = ("batch", "loss", "gradients", "bf16", "repeat", "resume")
BROKEN_DEVICE = ("CUDA error", "device-side assert", "CUDNN_STATUS_EXECUTION_FAILED")
Line = dict[str, Any]


class Check(NamedTuple):
    """A group of findings from one check: of one method, or of the point operations."""

    group: str
    subject: str
    code: str


class Outcome(NamedTuple):
    """All lines of the requested checks, the number of checks left, and why they are left."""

    lines: list[Line]
    left: int
    why: str | None


def examine(
    methods: Sequence[str],
    *,
    data_root: Path,
    device: "torch.device",
    name: str,
    out: Path | None,
    limit: float | None = None,
    say: Callable[[Line], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run the checks that are not in `out` yet; the lines of each are written before the next starts.

    A check is done if the file has it for this device (`name`), torch version and code. No check starts after `limit`
    seconds. A check that raises leaves a line ``failed``; one that breaks the device ends the session, since all
    later checks in this process would fail too. Raises UserError for a method that is not in tier smoke, and if `out`
    cannot be written or is not a file of `doctor`.
    """
    import torch

    from replications.training.determinism import set_threads

    began = clock()
    planned = _planned(methods)
    held = _read(out)
    place = {"device": name, "torch": torch.__version__}
    lines, todo = [], []
    for check in planned:
        made = [line for line in held if _is_of(line, check, place)]
        lines += made
        todo += [check] if not made else []
    set_threads(1 if device.type == "cpu" else 4)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for number, check in enumerate(todo):
            if limit is not None and clock() - began >= limit:
                return Outcome(lines, len(todo) - number, "the time is up")
            started = clock()
            found = _make(check, Path(data_root), device)
            for line in found:
                line |= {"group": check.group, "subject": check.subject, "code": check.code, **place}
                line["seconds"] = round((clock() - started) / len(found), 3)
            _append(out, found)
            lines += found
            for line in found:
                say(line)
            if any(sign in line.get("message", "") for line in found for sign in BROKEN_DEVICE):
                return Outcome(lines, len(todo) - number - 1, "the device is in error, in this process")
    return Outcome(lines, 0, None)


def table(lines: Iterable[Line]) -> str:
    """Return a table with a row per method and its figures, and below it the findings on point operations."""
    from tabulate import tabulate

    rows: dict[str, dict[str, str]] = {}
    points = []
    for line in lines:
        if line["subject"] == POINTS:
            points.append((line["check"], _cell(line)))
        elif line["verdict"] == "failed":
            rows.setdefault(line["subject"], {})[line["group"]] = "FAILED"
        else:
            rows.setdefault(line["subject"], {})[line["check"]] = _cell(line)
    text = []
    if points:
        text.append(tabulate(points, headers=["point operation", "against the CPU"], disable_numparse=True))
    if rows:
        body = [(subject, *(row.get(c, row.get("step", "")) for c in COLUMNS)) for subject, row in sorted(rows.items())]
        text.append(tabulate(body, headers=["method", *COLUMNS], disable_numparse=True))
    return "\n\n".join(text)


def healthy(line: Line) -> bool:
    return line["verdict"] not in ("differs", "failed")


def _cell(line: Line) -> str:
    figure = line.get("figure")
    words = {"ok": "ok", "declared": "varies, as declared", "does not apply": "-"}
    word = words.get(line["verdict"], line["verdict"].upper())
    return word if figure is None else f"{word} {figure:.1e}" if figure else word


def _planned(methods: Sequence[str]) -> list[Check]:
    """Return the checks in order: point operations, then the step of each method, then resuming of each method."""
    specs = [catalogue.resolve(address, TIER, 0) for address in methods]
    points = combined(module_hashes([PACKAGE / "layers" / POINTS / "__init__.py", PACKAGE / "running" / "checks.py"]))
    codes = {spec.address: fingerprints(spec).code for spec in specs if spec.recipe is not None}
    return [
        Check(POINTS, POINTS, points),
        *(Check(group, address, code) for group in ("step", "resume") for address, code in codes.items()),
    ]


def _make(check: Check, data_root: Path, device: "torch.device") -> list[Line]:
    """Run a check; an exception becomes its finding."""
    from replications.datasets.prepare import prepare
    from replications.running import checks
    from replications.training.determinism import deterministic

    try:
        if check.group == POINTS:
            with deterministic():
                found = checks.point_operations(device)
        else:
            spec = catalogue.resolve(check.subject, TIER, 0)
            for key in spec.data.values():
                prepare(key, data_root)
            found = getattr(checks, check.group)(spec, data_root, device)
    except Exception as error:
        if not (isinstance(error, RunFailure) and error.reason == "does not apply"):
            return [_failed(check, error)]
        found = []
    lines = [
        {"check": one.check, "verdict": one.verdict, "figure": _plain(one.figure), **_plain(one.details)}
        for one in found
    ]
    return lines or [{"check": check.group, "verdict": "does not apply", "figure": None}]


def _failed(check: Check, error: Exception) -> Line:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    message = f"{type(error).__name__}: {one_line(error)}"[:400]
    return {"check": check.group, "verdict": "failed", "figure": None, "message": message, "at": where}


def _plain(value: Any) -> Any:
    """Replace values that JSON cannot represent: non-finite numbers become None."""
    if isinstance(value, dict):
        return {name: _plain(own) for name, own in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_of(line: Line, check: Check, place: dict[str, str]) -> bool:
    wanted = {"group": check.group, "subject": check.subject, "code": check.code, **place}
    return all(line.get(name) == value for name, value in wanted.items())


def _read(out: Path | None) -> list[Line]:
    """Return the complete lines of a file; a kill may have cut off the last. A check's lines are written at once."""
    if out is None or not out.exists():
        return []
    with on_disk("read", out):
        written = out.read_text(encoding="utf-8", errors="replace")
    lines = []
    for number, text in enumerate(written.splitlines(keepends=True), start=1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or "verdict" not in line:
                raise ValueError
        except ValueError:
            if not text.endswith("\n"):
                break
            raise UserError(f"{out}, line {number}, was not written by `doctor`: give --out another file") from None
        lines.append(line)
    return lines


def _append(out: Path | None, lines: list[Line]) -> None:
    if out is None:
        return
    with on_disk("write", out):
        cut = out.exists() and out.stat().st_size and not out.read_bytes().endswith(b"\n")
        if cut:
            kept, _, _ = out.read_bytes().rpartition(b"\n")
            out.write_bytes(kept + b"\n" if kept else b"")
        with out.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines))
