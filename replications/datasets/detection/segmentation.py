"""COCO's masks: polygons, runs, and runs in a compressed text."""

from typing import Any

from replications.datasets.detection.fields import finite, shown
from replications.errors import UserError


def box_of(form: Any, height: int, width: int, where: str) -> list[float]:
    """Return the box (left, top, width, height) of a mask in an image; raises UserError where it is no mask of it."""
    from faster_coco_eval.core import mask

    if not _is_polygons(form, 2 * max(height, width)) and not _is_runs(form, height, width):
        raise UserError(
            f"{where} has no box, and its segmentation {shown(form)} is not a mask of {width}x{height} pixels"
        )
    try:
        if isinstance(form, list):
            form = mask.merge(mask.frPyObjects(form, height, width))
        elif isinstance(form["counts"], list):
            form = mask.frPyObjects(form, height, width)
        return mask.toBbox(form).tolist()
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{where} has no box, and its segmentation is not a mask ({error})") from error


def _is_polygons(form: Any, most: float) -> bool:
    """Whether they are polygons x, y, x, y, ... near the image: one far away or not finite fills all memory."""
    return (
        isinstance(form, list)
        and bool(form)
        and all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in form)
        and all((x := finite(value)) is not None and abs(x) <= most for polygon in form for value in polygon)
    )


def _is_runs(form: Any, height: int, width: int) -> bool:
    """Whether they are runs of exactly the image's pixels."""
    if not isinstance(form, dict) or form.get("size") != [height, width]:
        return False
    counts = form.get("counts")
    counts = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list):
        return False
    return all(type(run) is int and run >= 0 for run in counts) and sum(counts) == height * width


def _uncompressed(text: str) -> list[int]:
    """Return the runs of a compressed text: five bits a letter, the lowest first, from the third on as differences."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs if not shift else [-1]  # ends within a number
