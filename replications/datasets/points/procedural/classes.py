"""The classes of shapes: furniture and things, each drawn from random proportions. Sizes are in metres."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from replications.datasets.points.procedural.shape import BOX, CONE, CYLINDER, SPHERE, Part, Shape, about
from replications.errors import UserError, nearest

Rng = np.random.Generator
CLASSES: dict[str, Callable[[Rng], list[Part]]] = {}
PARTS: dict[str, tuple[str, ...]] = {}  # names of a class's parts


def draw_shape(label: str, rng: Rng) -> Shape:
    """Draw a shape of class `label`; raises UserError for an unknown class."""
    if label not in CLASSES:
        raise UserError(f"unknown class of shapes '{label}'{nearest(label, CLASSES)}")
    shape = Shape(label, tuple(CLASSES[label](rng)))
    floor = shape.bounds()[0][2]
    return Shape(label, tuple(replace(p, centre=(*p.centre[:2], p.centre[2] - floor)) for p in shape.parts))


def _class(*parts: str) -> Callable:
    def enter(function: Callable[[Rng], list[Part]]) -> Callable[[Rng], list[Part]]:
        name = function.__name__.strip("_")
        CLASSES[name], PARTS[name] = function, parts
        return function

    return enter


def _box(name: str, low: tuple[float, float, float], high: tuple[float, float, float], rotation=None) -> Part:
    """Return the box between two corners."""
    low, high = np.asarray(low), np.asarray(high)
    return Part(name, BOX, tuple((low + high) / 2), tuple((high - low) / 2), rotation)


def _upright(name: str, kind: int, x: float, y: float, bottom: float, top: float, radius: float) -> Part:
    """Return a cylinder or cone from `bottom` to `top`."""
    return Part(name, kind, (x, y, (bottom + top) / 2), (radius, radius, (top - bottom) / 2))


def _four_legs(rng: Rng, x: float, y: float, top: float, thickness: float, name: str = "legs") -> list[Part]:
    """Four legs at (±x, ±y), all square or all round."""
    square = rng.random() < 0.5
    legs = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            if square:
                low, high = (sx * x - thickness, sy * y - thickness, 0), (sx * x + thickness, sy * y + thickness, top)
                legs.append(_box(name, low, high))
            else:
                legs.append(_upright(name, CYLINDER, sx * x, sy * y, 0, top, thickness))
    return legs


@_class("top", "legs")
def table(rng: Rng) -> list[Part]:
    x, y = rng.uniform(0.35, 0.9), rng.uniform(0.3, 0.5)
    height, thick = rng.uniform(0.4, 0.85), rng.uniform(0.02, 0.05)
    form = rng.random()
    if form < 0.3:  # a round top
        top = [_upright("top", CYLINDER, 0, 0, height - thick, height, x)]
        y = x = x * 0.6
    else:
        top = [_box("top", (-x, -y, height - thick), (x, y, height))]
    if form < 0.2 or form > 0.85:  # a pedestal
        foot = min(x, y) * rng.uniform(0.5, 0.8)
        column = _upright("legs", CYLINDER, 0, 0, 0.03, height - thick, rng.uniform(0.03, 0.07))
        return [*top, column, _upright("legs", CYLINDER, 0, 0, 0, 0.03, foot)]
    inset = rng.uniform(0.8, 0.95)
    return top + _four_legs(rng, x * inset, y * inset, height - thick, rng.uniform(0.02, 0.045))


@_class("top", "legs", "drawers")
def desk(rng: Rng) -> list[Part]:
    x, y = rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.42)
    height, thick = rng.uniform(0.68, 0.8), rng.uniform(0.02, 0.05)
    drawer, side = rng.uniform(0.15, 0.25), rng.choice([-1, 1])
    parts = [_box("top", (-x, -y, height - thick), (x, y, height))]
    low, high = sorted((side * (x - 0.02), side * (x - 2 * drawer)))
    parts.append(_box("drawers", (low, -y * 0.95, rng.uniform(0, 0.4)), (high, y * 0.95, height - thick)))
    if rng.random() < 0.5:  # a panel on the other side
        low, high = sorted((-side * x, -side * (x - 0.04)))
        parts.append(_box("legs", (low, -y * 0.95, 0), (high, y * 0.95, height - thick)))
    else:
        thickness = rng.uniform(0.02, 0.04)
        legs = _four_legs(rng, x * 0.93, y * 0.9, height - thick, thickness)
        parts += legs if parts[1].centre[2] - parts[1].size[2] > 0.05 else [p for p in legs if p.centre[0] * side < 0]
    return parts


@_class("seat", "legs")
def stool(rng: Rng) -> list[Part]:
    radius, height, thick = rng.uniform(0.15, 0.25), rng.uniform(0.4, 0.8), rng.uniform(0.03, 0.07)
    if rng.random() < 0.6:
        seat = [_upright("seat", CYLINDER, 0, 0, height - thick, height, radius)]
    else:
        seat = [_box("seat", (-radius, -radius, height - thick), (radius, radius, height))]
    inset = radius * rng.uniform(0.6, 0.75)
    legs = _four_legs(rng, inset, inset, height - thick, rng.uniform(0.012, 0.025))
    if rng.random() < 0.5:
        z = height * rng.uniform(0.25, 0.5)
        legs += [_box("legs", (-inset, s * inset - 0.01, z), (inset, s * inset + 0.01, z + 0.02)) for s in (-1, 1)]
    return seat + legs


@_class("seat", "back", "legs", "arms")
def chair(rng: Rng) -> list[Part]:
    x, y = rng.uniform(0.2, 0.28), rng.uniform(0.2, 0.28)
    seat, thick = rng.uniform(0.38, 0.5), rng.uniform(0.03, 0.08)
    tall = seat + rng.uniform(0.3, 0.6)
    tilt = about(0, -rng.uniform(0, 0.25))
    back = Part("back", BOX, (0, y - 0.02, (seat + tall) / 2), (x, rng.uniform(0.012, 0.03), (tall - seat) / 2), tilt)
    parts = [_box("seat", (-x, -y, seat - thick), (x, y, seat)), back]
    if rng.random() < 0.4:
        rest = seat + rng.uniform(0.15, 0.25)
        for s in (-1, 1):
            low, high = sorted((s * x, s * (x + 0.04)))
            parts.append(_box("arms", (low, -y * 0.8, rest - 0.03), (high, y * 0.9, rest)))
            parts.append(_box("arms", (low, -y * 0.8, seat), (high, -y * 0.8 + 0.04, rest)))
    if rng.random() < 0.25:
        column = _upright("legs", CYLINDER, 0, 0, 0.04, seat - thick, 0.03)
        return [*parts, column, _upright("legs", CYLINDER, 0, 0, 0, 0.04, x * 0.9)]
    return parts + _four_legs(rng, x * 0.9, y * 0.9, seat - thick, rng.uniform(0.014, 0.03))


@_class("seat", "back", "arms")
def sofa(rng: Rng) -> list[Part]:
    x, y = rng.uniform(0.55, 1.1), rng.uniform(0.35, 0.5)
    seat, tall = rng.uniform(0.35, 0.48), rng.uniform(0.65, 0.95)
    arm, deep = rng.uniform(0.08, 0.2), rng.uniform(0.12, 0.25)
    parts = [
        _box("seat", (-x, -y, rng.uniform(0, 0.1)), (x, y, seat)),
        _box("back", (-x, y - deep, seat), (x, y, tall)),
    ]
    rest = seat + rng.uniform(0.1, 0.25)
    for s in (-1, 1):
        low, high = sorted((s * x, s * (x - arm)))
        if rng.random() < 0.85:
            parts.append(_box("arms", (low, -y, seat), (high, y - deep, rest)))
    return parts


@_class("mattress", "board", "legs", "pillow")
def bed(rng: Rng) -> list[Part]:
    x, y = rng.uniform(0.45, 1.0), rng.uniform(0.9, 1.1)
    low, high = rng.uniform(0.12, 0.3), rng.uniform(0.4, 0.6)
    parts = [
        _box("mattress", (-x, -y, low), (x, y, high)),
        _box("board", (-x, y, 0), (x, y + 0.05, high + rng.uniform(0.1, 0.6))),
    ]
    if rng.random() < 0.5:
        parts.append(_box("board", (-x, -y - 0.05, 0), (x, -y, high + rng.uniform(0, 0.2))))
    for s in (-1, 1) if x > 0.65 else (0,):
        middle = s * x / 2
        parts.append(_box("pillow", (middle - 0.3, y - 0.45, high), (middle + 0.3, y - 0.1, high + 0.1)))
    return parts + _four_legs(rng, x * 0.93, y * 0.95, low, 0.04)


@_class("sides", "boards", "back")
def shelf(rng: Rng) -> list[Part]:
    x, y, height = rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.22), rng.uniform(0.8, 2.0)
    parts = [_box("sides", (s * x - 0.015, -y, 0), (s * x + 0.015, y, height)) for s in (-1, 1)]
    count = int(rng.integers(3, 7))
    for i in range(count):
        z = i * (height - 0.03) / (count - 1)
        parts.append(_box("boards", (-x, -y, z), (x, y, z + 0.03)))
    if rng.random() < 0.6:
        parts.append(_box("back", (-x, y - 0.01, 0), (x, y, height)))
    return parts


@_class("base", "pole", "shade")
def lamp(rng: Rng) -> list[Part]:
    height, radius = rng.uniform(0.4, 1.6), rng.uniform(0.1, 0.25)
    shade = rng.uniform(0.15, 0.35)
    parts = [
        _upright("base", CYLINDER, 0, 0, 0, rng.uniform(0.02, 0.06), radius * rng.uniform(0.5, 1.0)),
        _upright("pole", CYLINDER, 0, 0, 0.02, height, rng.uniform(0.008, 0.025)),
    ]
    form = rng.random()
    if form < 0.5:
        parts.append(_upright("shade", CONE, 0, 0, height - shade * 0.3, height + shade * 0.7, radius))
    elif form < 0.8:
        parts.append(_upright("shade", CYLINDER, 0, 0, height - shade / 2, height + shade / 2, radius * 0.8))
    else:
        parts.append(Part("shade", SPHERE, (0, 0, height + radius * 0.6), (radius * 0.6,) * 3))
    return parts


@_class("body", "neck", "cap")
def bottle(rng: Rng) -> list[Part]:
    radius, height = rng.uniform(0.03, 0.06), rng.uniform(0.12, 0.22)
    neck, slim = rng.uniform(0.04, 0.1), rng.uniform(0.25, 0.45) * radius
    parts = [
        _upright("body", CYLINDER, 0, 0, 0, height, radius),
        _upright("neck", CONE, 0, 0, height, height + radius * rng.uniform(1.5, 3), radius),
        _upright("neck", CYLINDER, 0, 0, height, height + neck, slim),
    ]
    if rng.random() < 0.6:
        parts.append(_upright("cap", CYLINDER, 0, 0, height + neck, height + neck + 0.02, slim * 1.2))
    return parts


@_class("body", "handle")
def mug(rng: Rng) -> list[Part]:
    radius, height = rng.uniform(0.035, 0.06), rng.uniform(0.07, 0.14)
    out, thick = rng.uniform(0.02, 0.045), rng.uniform(0.004, 0.008)
    low, high = height * rng.uniform(0.15, 0.3), height * rng.uniform(0.7, 0.9)
    far = radius + out
    return [
        _upright("body", CYLINDER, 0, 0, 0, height, radius),
        _box("handle", (radius * 0.95, -thick, low), (far, thick, low + 2 * thick)),
        _box("handle", (radius * 0.95, -thick, high - 2 * thick), (far, thick, high)),
        _box("handle", (far - 2 * thick, -thick, low), (far, thick, high)),
    ]


@_class("body", "nose", "fins")
def rocket(rng: Rng) -> list[Part]:
    radius, height = rng.uniform(0.05, 0.12), rng.uniform(0.4, 0.9)
    nose, fin = rng.uniform(1.2, 3.0) * radius, rng.uniform(0.8, 1.8) * radius
    parts = [
        _upright("body", CYLINDER, 0, 0, 0, height, radius),
        _upright("nose", CONE, 0, 0, height, height + nose, radius),
    ]
    for i in range(count := int(rng.integers(3, 5))):
        turn = about(2, 2 * np.pi * i / count)
        centre = turn @ np.array([radius + fin / 2, 0, fin * 0.8])
        parts.append(Part("fins", BOX, tuple(centre), (fin / 2, radius * 0.08, fin * 0.8), turn))
    return parts


@_class("body", "cabin", "wheels")
def car(rng: Rng) -> list[Part]:
    x, y = rng.uniform(1.6, 2.4), rng.uniform(0.7, 0.9)
    wheel, height = rng.uniform(0.28, 0.38), rng.uniform(0.45, 0.7)
    front, rear = rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.95)
    parts = [
        _box("body", (-x, -y, wheel * 0.7), (x, y, wheel * 0.7 + height)),
        _box("cabin", (-x * rear, -y * 0.9, wheel * 0.7 + height), (x * front, y * 0.9, wheel * 0.7 + height * 1.8)),
    ]
    flat = about(0, np.pi / 2)
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(Part("wheels", CYLINDER, (sx * x * 0.65, sy * y, wheel), (wheel, wheel, 0.1), flat))
    return parts
