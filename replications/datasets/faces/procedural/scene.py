"""What is around and before a face: background, light, things in front of it, and the camera."""

import numpy as np

from replications.datasets.faces.procedural.drawing import blur, box, cover, ellipse, mix, ramp

EXTENT = 1.24  # face units from the middle of the picture to its edge
CLOTH = [(0.10, 0.12, 0.20), (0.75, 0.20, 0.18), (0.90, 0.80, 0.35), (0.20, 0.50, 0.35), (0.92, 0.92, 0.94)]
GREY = [(0.03, 0.03, 0.04), (0.95, 0.95, 0.93)]
DARK = np.array([0.07, 0.05, 0.06], np.float32)[None, :, None, None]


def background(shot, column, row) -> np.ndarray:
    tint = np.array([0.18, 0.02, -0.18], np.float32)[None, :, None, None] * shot.background_hue[:, None]
    slope = np.minimum(np.maximum((column * shot.background_slant + row) * 0.4 + 0.5, 0.0), 1.0)[:, None]
    return mix(ramp(GREY, shot.background_1), ramp(GREY, shot.background_2), slope) * 0.85 + 0.07 + tint


def light(canvas, shot, head) -> None:
    """Lambert's law on an egg a little larger than the head, so that the hair behind is lit like the rest."""
    x, y = shot.light_x, shot.light_y
    z = np.sqrt(np.maximum(1.0 - np.square(x) - np.square(y), 0.04))
    radius2 = (np.square(head.a) + np.square(head.b)) * np.float32(0.72)
    outside = np.sqrt(np.maximum(radius2, 1.0))
    depth = np.sqrt(np.maximum(1.0 - radius2, 0.0))
    lambert = np.maximum(((head.a * x + head.b * y) * np.float32(0.85) + depth * z) / outside, 0.0)
    hard = np.minimum(shot.light_hard, 0.9)
    lit = mix(z * 0.75, lambert, np.maximum(np.maximum(head.mask, head.back), head.ears))
    canvas.shade((1.0 - hard) + hard * 1.25 * lit)


def occlusions(canvas, person, shot, head, column, row) -> None:
    """Glasses, a cap, a patch and a bar, where the conditions have them."""
    edge = head.edge
    worn = np.where(person.wears_glasses > 0.72, shot.glasses_habit, shot.glasses) * head.mask
    x, y = head.across - person.eye_gap - 0.01, head.v - person.eye_line - 0.02
    rounded = ellipse(x, y, shot.glasses_size, shot.glasses_size * 0.85)
    boxed = box(x, y, shot.glasses_size, shot.glasses_size * 0.66)
    lens = mix(boxed, rounded, shot.glasses_round > 0.5)
    dark = np.where(shot.glasses_tint > 0.72, np.float32(0.88), np.float32(0.08))
    frame = ramp(CLOTH, shot.glasses_tone) * 0.6
    canvas.paint(cover(lens, edge) * worn * dark, DARK)
    canvas.paint(cover(np.abs(lens) - shot.glasses_weight, edge) * worn, frame)
    bridge = box(head.u, y + 0.05, person.eye_gap - shot.glasses_size, shot.glasses_weight)
    temple = box(head.across - 0.8, y + 0.05, 0.8 - person.eye_gap - shot.glasses_size, shot.glasses_weight)
    canvas.paint(cover(np.minimum(bridge, temple), edge) * worn, frame)
    wide = person.face_width + 0.08
    dome = ellipse(head.x, head.y - shot.cap_line, wide, person.face_height + shot.cap_line + 0.16)
    dome = np.maximum(dome, head.y - shot.cap_line)
    brim = ellipse(head.x - head.sin * 0.35, head.y - shot.cap_line - 0.02, wide * 0.92, np.float32(0.10))
    cap = ramp(CLOTH, shot.cap_tone)
    canvas.paint(cover(dome, edge) * shot.cap, cap)
    canvas.paint(cover(brim, edge) * shot.cap, cap * 0.7)
    dx, dy = column - shot.patch_x, row - shot.patch_y
    patch = box(dx + dy * shot.patch_slant, dy - dx * shot.patch_slant, shot.patch_width, shot.patch_height)
    canvas.paint(cover(patch, edge) * shot.patch, ramp(CLOTH, shot.patch_tone))
    bar = np.abs(row + column * shot.bar_slant - shot.bar_offset) - shot.bar_width
    canvas.paint(cover(bar, edge) * shot.bar, ramp(GREY, shot.bar_tone))


def develop(canvas, shot, noise) -> np.ndarray:
    """Colour cast, gain, contrast, blur and noise of the camera, then uint8 [n, h, w, 3]."""
    warm = np.array([0.12, 0.0, -0.16], np.float32)[None, :, None, None] * shot.cast_warmth[:, None]
    green = np.array([-0.03, 0.05, -0.03], np.float32)[None, :, None, None] * shot.cast_green[:, None]
    gain = 1.0 + shot.gain[:, None]
    picture = canvas.rgb * ((1.0 + (warm + green)) * gain)
    picture = (picture - 0.5) * (1.0 + shot.contrast[:, None]) + 0.5
    for _ in range(2):
        picture = blur(picture, np.minimum(shot.blur, 1.0))
    picture = picture + noise * shot.noise[:, None]
    picture = np.floor(np.minimum(np.maximum(picture, 0.0), 1.0) * 255.0 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(picture, 1, 3))
