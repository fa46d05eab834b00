"""A face from its traits and the conditions of the image: layers painted from the back to the front.

The head is an egg that is turned: a pixel inside its outline is taken as a point (a, b, c) of the unit
sphere, turned back by yaw and pitch, and the features are drawn at the frontal place (u, v) that it lands on.
So they shift and shorten as the head turns; the nose, which stands out, shifts more. Lengths are in face
units (`draws.TRAITS`). Every function takes a batch: fields [n, 1, 1], planes [n, size, size].
"""

from types import SimpleNamespace

import numpy as np

from replications.datasets.faces.procedural import scene
from replications.datasets.faces.procedural.drawing import (
    Canvas,
    box,
    bump,
    cover,
    ellipse,
    mix,
    ramp,
    rotation,
    triangle_wave,
)

SKIN = [(0.98, 0.86, 0.77), (0.93, 0.74, 0.60), (0.80, 0.58, 0.43), (0.60, 0.40, 0.28), (0.38, 0.25, 0.18)]
HAIR = [
    (0.08, 0.07, 0.08),
    (0.22, 0.13, 0.08),
    (0.42, 0.25, 0.12),
    (0.62, 0.27, 0.10),
    (0.82, 0.64, 0.32),
    (0.66, 0.65, 0.64),
    (0.92, 0.91, 0.89),
]
IRIS = [(0.18, 0.10, 0.06), (0.40, 0.24, 0.10), (0.42, 0.46, 0.20), (0.25, 0.50, 0.38), (0.28, 0.48, 0.72)]
WHITE = np.array([0.95, 0.94, 0.92], np.float32)[None, :, None, None]


def render(person: SimpleNamespace, shot: SimpleNamespace, noise: np.ndarray, size: int) -> np.ndarray:
    """Draw faces uint8 [n, size, size, 3] from `draws.draw_traits`, `draw_conditions` and `draw_noise`."""
    grid = ((np.arange(size, dtype=np.float32) * 2 + 1) / size - 1) * np.float32(scene.EXTENT)
    column, row = grid[None, None, :], grid[None, :, None]
    cos, sin = rotation(shot.roll + shot.roll_more)
    scale = 1.0 + shot.scale
    px, py = (column - shot.shift_x) / scale, (row - shot.shift_y) / scale
    head = SimpleNamespace(
        x=px * cos + py * sin, y=py * cos - px * sin, edge=np.float32(2 * scene.EXTENT / size) / scale
    )
    head.cos, head.sin = rotation(shot.yaw + shot.yaw_more)
    head.cos_pitch, head.sin_pitch = rotation(shot.pitch + shot.pitch_more)
    colours = _colours(person, shot)
    canvas = Canvas(scene.background(shot, column, row))
    _outline(person, head)
    _body(canvas, person, head, colours)
    _ears(canvas, person, head, colours, behind=True)
    canvas.paint(head.mask, colours.skin)
    _skin_marks(canvas, person, shot, head, colours)
    _nose(canvas, person, shot, head, colours)
    _mouth(canvas, person, shot, head, colours)
    _eyes(canvas, person, shot, head, colours)
    _hair(canvas, person, shot, head, colours)
    _ears(canvas, person, head, colours, behind=False)
    scene.light(canvas, shot, head)
    scene.occlusions(canvas, person, shot, head, column, row)
    return scene.develop(canvas, shot, noise)


def _colours(person, shot) -> SimpleNamespace:
    skin = ramp(SKIN, person.skin_tone)
    warm = np.array([0.03, 0.0, -0.04], np.float32)[None, :, None, None]
    skin = skin + warm * person.skin_warmth[:, None]
    hair = ramp(HAIR, person.hair_tone)
    rose = np.array([0.74, 0.24, 0.26], np.float32)[None, :, None, None]
    red = np.minimum(np.maximum(person.lip_red + shot.make_up, 0.0), 1.0)
    pale = skin * np.array([0.86, 0.66, 0.64], np.float32)[None, :, None, None]
    return SimpleNamespace(
        skin=skin,
        shadow=skin * np.array([0.62, 0.50, 0.48], np.float32)[None, :, None, None],
        hair=hair,
        brow=mix(hair, hair * 0.5, np.float32(0.7)),
        iris=ramp(IRIS, person.iris_tone),
        lip=mix(pale, rose, (red * 0.6)[:, None]),
        blush=mix(skin, rose, np.float32(0.45)),
        cloth=ramp(scene.CLOTH, shot.clothes) + shot.clothes_hue[:, None] * np.float32(0.1),
    )


def _body(canvas, person, head, colours) -> None:
    """Hair behind the head, neck and shoulders."""
    top = person.face_height + person.hair_volume
    bottom = np.maximum(person.hair_length * 1.4, person.ear_line + 0.05)
    middle, half = (bottom - top) * 0.5, (bottom + top) * 0.5
    back = ellipse(
        head.x + head.sin * 0.18,
        head.y - middle - head.sin_pitch * 0.1,
        person.face_width + person.hair_volume * 0.8 + 0.03,
        half,
    )
    head.back = cover(back, head.edge) * (person.bald > 0.08)
    head.strands = triangle_wave(head.u * 6.0 + head.v * person.strand_slant * 3.0) * 0.09 + 0.95
    canvas.paint(head.back, colours.hair * head.strands[:, None])
    neck = box(head.x, head.y - 1.2, person.face_width * 0.6, np.float32(0.7))
    canvas.paint(cover(neck, head.edge), colours.skin * 0.72)
    shoulders = ellipse(head.x, head.y - 1.75, np.float32(1.25), np.float32(0.55))
    canvas.paint(cover(shoulders, head.edge), colours.cloth)


def _outline(person, head) -> None:
    """Outline of the head; the point (a, b, c) of the sphere and the frontal place (u, v) of each pixel."""
    b = head.y / person.face_height
    below, above = np.minimum(np.maximum(b, 0.0), 1.0), np.minimum(np.maximum(-b, 0.0), 1.0)
    width = 1.0 - person.jaw_taper * np.square(below) - person.crown_taper * np.square(above)
    a = head.x / (person.face_width * width)
    a2, b2 = np.square(a), np.square(b)
    round_, square = np.sqrt(a2 + b2), np.sqrt(np.sqrt(np.square(a2) + np.square(b2)))
    radius = mix(round_, square, person.squareness)
    c = np.sqrt(np.maximum(1.0 - np.square(radius), 0.0))
    head.a, head.b, head.c = a, b, c
    head.mask = cover((radius - 1.0) * person.face_width, head.edge)
    depth = a * head.sin + c * head.cos
    head.depth = depth * head.cos_pitch - b * head.sin_pitch
    head.u = (a * head.cos - c * head.sin) * person.face_width
    head.v = (b * head.cos_pitch + depth * head.sin_pitch) * person.face_height
    head.front = np.minimum(np.maximum(head.depth * 8.0, 0.0), 1.0) * head.mask
    head.side = np.sign(head.u)
    head.across = np.abs(head.u)


def _ears(canvas, person, head, colours, behind: bool) -> None:
    head.ears = np.float32(0.0)
    for side in (-1.0, 1.0):
        front = -side * head.sin
        place = side * (person.face_width * 0.97 + person.ear_out) * head.cos
        x = head.x - place + person.face_width * 0.25 * head.sin
        y = head.y - person.ear_line + head.sin_pitch * 0.1
        turned = person.ear_size * 0.55 + np.maximum(front, 0.0) * 0.06
        alpha = np.float32(1.0) if behind else np.minimum(np.maximum(front * 4.0 - 0.4, 0.0), 1.0)
        outer = cover(ellipse(x, y, turned, person.ear_size), head.edge) * alpha
        inner = cover(ellipse(x, y, turned * 0.55, person.ear_size * 0.62), head.edge * 1.5) * alpha
        head.ears = np.maximum(head.ears, outer)
        canvas.paint(outer, colours.skin * 0.95)
        canvas.paint(inner * 0.5, colours.shadow)


def _skin_marks(canvas, person, shot, head, colours) -> None:
    u, v, across, edge = head.u, head.v, head.across, head.edge
    cheek = bump((np.square(across - 0.40) + np.square(v - 0.26)) / np.float32(0.055))
    canvas.paint(cheek * np.maximum(person.blush + shot.make_up * 0.5, 0.0), colours.blush)
    freckle = triangle_wave(u * 9.0 + v * 3.0) * triangle_wave(v * 9.0 - u * 2.0)
    canvas.paint(np.maximum(freckle - 0.35, 0.0) * cheek * np.maximum(person.freckles, 0.0), colours.shadow)
    # Lines are soft bands: cover of |distance| minus half a width.
    nose_base = person.eye_line + person.nose_length
    t = (v - nose_base + 0.03) / (person.mouth_gap + 0.1)
    smile = np.maximum(shot.smile, 0.0)
    fold = np.abs(across - person.nose_width - 0.06 - t * 0.12 - smile * 0.03) - 0.012
    inside = np.minimum(cover(-t, np.float32(0.3)), cover(t - 1.0, np.float32(0.3)))
    canvas.paint(cover(fold, edge * 1.6) * inside * (person.fold * 0.35 + smile * 0.25), colours.shadow)
    waves = np.maximum(triangle_wave((v + u * u * 0.2) * 7.0) - 0.45, 0.0)
    forehead = bump(np.square(u / 0.42) + np.square((v - person.eye_line + 0.46) / 0.18))
    raised = np.maximum(shot.brow_raise, 0.0) * 0.5
    lines = np.minimum(np.maximum(person.forehead_lines, 0.0) + raised, 1.0)
    canvas.paint(waves * forehead * lines, colours.shadow)
    chin = bump(np.square(u / 0.035) + np.square((v - person.face_height * 0.86) / 0.10))
    canvas.paint(chin * np.maximum(person.chin_cleft, 0.0) * 0.7, colours.shadow)
    stubble = np.maximum(shot.stubble, 0.0) * (person.beard > -0.4)
    growth = np.maximum(person.beard * 1.5, 0.0) + stubble
    line = person.beard_line - np.square(np.maximum(across - 0.30, 0.0)) * 4.5
    beard = cover(line - v, np.float32(0.10)) * np.minimum(growth, 0.92)
    canvas.paint(beard * head.mask, colours.hair * (head.strands * 0.9)[:, None])
    lip_top = nose_base + person.mouth_gap - person.lip_upper
    drop = v - (nose_base + lip_top) * 0.5 - across * 0.12
    moustache = cover(box(u, drop, person.mouth_width * 0.9, person.mouth_gap * 0.25), np.float32(0.07))
    canvas.paint(moustache * np.minimum(np.maximum(person.moustache * 1.5, 0.0), 0.9), colours.hair)
    for size, x, y in (
        (person.mole_1, person.mole_1_x, person.mole_1_y),
        (person.mole_2, person.mole_2_x, person.mole_2_y),
    ):
        radius = 0.018 + np.maximum(size, 0.0) * 0.022
        mole = cover(ellipse(u - x, v - y, radius, radius), edge) * (size > 0)
        canvas.paint(mole * 0.85, colours.shadow * 0.6)
    du, dv = u - person.scar_x, v - person.scar_y
    scar = box(du - dv * person.scar_slant, dv, np.float32(0.014), np.float32(0.13))
    canvas.paint(cover(scar, edge * 1.3) * (person.scar > 0) * 0.8, mix(colours.skin, WHITE, np.float32(0.5)))


def _nose(canvas, person, shot, head, colours) -> None:
    """Relief of the bridge as light and shade, the tip, the wings and the nostrils."""
    t = np.minimum(np.maximum((head.v - person.eye_line) / person.nose_length, 0.0), 1.0)
    u = head.u - head.sin * 0.16 * t - person.nose_bend * t * (1.0 - t) * 4.0
    v = head.v - person.eye_line - person.nose_length + head.sin_pitch * 0.12
    half = mix(person.bridge_width, person.nose_width, np.square(t)) * 1.3
    q = u / half
    along = np.minimum(cover(-v - person.nose_length * 0.95, np.float32(0.25)), cover(v - 0.02, np.float32(0.06)))
    relief = bump(np.square(q)) * along * person.nose_relief
    towards = -q * shot.light_x
    lit, unlit = relief * (0.12 + towards * 1.9), relief * (towards * -2.2)
    canvas.paint(np.minimum(np.maximum(lit, 0.0), 0.8), WHITE * 0.5 + colours.skin * 0.5)
    canvas.paint(np.minimum(np.maximum(unlit, 0.0), 0.8), colours.shadow)
    under = bump(np.square(u / (person.nose_width * 1.25)) + np.square((v - 0.03) / 0.07))
    canvas.paint(under * 0.55, colours.shadow)
    across = np.abs(u)
    side = across - person.nose_width * 0.72
    wing = np.abs(ellipse(side, v + 0.03, np.float32(0.055), np.float32(0.06))) - 0.008
    canvas.paint(cover(wing, head.edge * 1.3) * cover(-side, head.edge) * 0.55, colours.shadow)
    hole = ellipse(across - person.nose_width * 0.45, v, person.nose_width * 0.24, np.float32(0.022))
    canvas.paint(cover(hole, head.edge) * person.nostril, colours.shadow * 0.45)


def _mouth(canvas, person, shot, head, colours) -> None:
    smile, opening = shot.smile, np.maximum(shot.mouth_open, 0.0) * 0.11
    width = person.mouth_width * (1.0 + smile * 0.16 - opening * 0.8)
    q = head.u / width
    q2 = np.square(q)
    arch = np.maximum(1.0 - q2, 0.0)
    middle = person.eye_line + person.nose_length + person.mouth_gap - head.sin_pitch * 0.04
    y = head.v - middle + (person.mouth_curve + smile * 0.055) * q2
    bow = 1.0 - person.lip_bow * bump(np.square(q / 0.28))
    top, bottom = y + person.lip_upper * arch * bow, y - (person.lip_lower + opening * 1.5) * arch
    lips = np.maximum(np.maximum(-top, bottom), np.abs(head.u) - width)
    canvas.paint(cover(lips, head.edge) * head.front, colours.lip)
    gap = np.maximum(-y - arch * opening * 0.3, y - arch * opening * 1.2)
    inner = cover(np.maximum(gap, np.abs(head.u) - width * 0.9), head.edge) * np.minimum(opening * 40.0, 1.0)
    inner = inner * head.front
    canvas.paint(inner, colours.lip * 0.28)
    teeth = cover(np.abs(y - opening * 0.12) - opening * 0.32, head.edge) * cover(np.abs(q) - 0.72, np.float32(0.1))
    canvas.paint(inner * teeth, WHITE)
    line = cover(np.abs(y) - 0.008, head.edge * 1.3) * cover(np.abs(q) - 1.05, np.float32(0.08)) * head.front
    canvas.paint(line * np.maximum(0.75 - opening * 20.0, 0.0), colours.lip * 0.4)


def _eyes(canvas, person, shot, head, colours) -> None:
    edge = head.edge
    x = head.across - person.eye_gap
    level = person.eye_line + person.eye_asymmetry * head.side
    y = head.v - level + x * person.eye_tilt
    socket = bump(np.square(x / 0.30) + np.square((y + 0.03) / 0.19))
    canvas.paint(socket * (0.12 + person.eye_socket * 0.28), colours.shadow)
    blink = np.maximum(shot.blink * 1.6 - 0.8, 0.0) * 0.9
    smile = np.maximum(shot.smile, 0.0)
    opening = person.eye_height * (1.0 - blink)
    arch = np.maximum(1.0 - np.square(x / person.eye_width), 0.0)
    upper, lower = y + opening * arch * 1.15, y - opening * arch * (0.85 - smile * 0.25)
    lids = cover(np.maximum(np.maximum(-upper, lower), np.abs(x) - person.eye_width), edge) * head.front
    canvas.paint(lids, WHITE)
    ix = x - shot.gaze_x * 0.045 * head.side
    iy = y - shot.gaze_y * 0.02 + 0.01
    canvas.paint(cover(ellipse(ix, iy, person.iris_size, person.iris_size), edge) * lids, colours.iris)
    pupil = person.iris_size * 0.45
    canvas.paint(cover(ellipse(ix, iy, pupil, pupil), edge) * lids, scene.DARK)
    glint = ellipse(ix * head.side - shot.light_x * 0.03, iy + 0.02, np.float32(0.014), np.float32(0.014))
    canvas.paint(cover(glint, edge) * lids, WHITE)
    within = cover(np.abs(x) - person.eye_width * 1.02, edge * 1.5) * head.front
    canvas.paint(cover(np.abs(upper) - person.lid_weight, edge) * within, scene.DARK)
    canvas.paint(cover(np.abs(lower) - 0.005, edge) * within * 0.5, colours.shadow)
    crease = np.abs(upper + 0.045 + opening * 0.25) - 0.006
    canvas.paint(cover(crease, edge) * within * person.lid_crease * 0.7, colours.shadow)
    bx = x / person.brow_length
    rise = person.brow_gap + person.eye_height + shot.brow_raise * 0.045
    by = head.v - level + rise + x * person.brow_tilt + (1.0 - np.square(bx)) * person.brow_arch * 0.03
    thick = person.brow_thickness * (1.0 - 0.55 * np.maximum(bx, 0.0))
    brow = cover(np.abs(by) - thick, edge) * cover((np.abs(bx) - 1.0) * person.brow_length, edge * 1.5)
    canvas.paint(brow * head.front * person.brow_weight, colours.brow)


def _hair(canvas, person, shot, head, colours) -> None:
    off = head.u - person.parting
    line = -person.hairline + np.square(head.u) * person.hairline_curve + shot.hair_change
    line = line - person.parting_depth * np.maximum(1.0 - np.abs(off) * 3.0, 0.0)
    fringe = np.maximum(person.fringe, 0.0)
    line = line + fringe * 0.26 + fringe * 0.07 * triangle_wave(head.u * 3.1 + person.strand_slant)
    front = cover(head.v - line, head.edge)
    sides = cover((head.depth - person.hair_sides) * person.face_width, head.edge * 2.0)
    sides = sides * cover(head.v - np.maximum(person.sideburn, person.hair_length), head.edge)
    mask = np.maximum(front, sides) * np.maximum(head.mask, head.back) * (person.bald > 0.08)
    canvas.paint(mask, colours.hair * head.strands[:, None])
