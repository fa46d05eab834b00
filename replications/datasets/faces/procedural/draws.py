"""What is drawn by chance: the traits of an identity, the conditions of an image, its noise.

A stream is Philox keyed by the seed and by what it is for, read as raw 64-bit words, so that the same
identity index gives the same face whatever the number of identities or images, and whatever the version of
NumPy: raw words are stable across versions, ``Generator`` methods are not. Reals are made of words by exact
operations only (see ``drawing``); normal deviates are sums of bytes.
"""

from types import SimpleNamespace

import numpy as np

PERSON, IMAGE, NOISE, PAIRS = range(4)
TRAINING, TEST = range(2)

# Uniform ranges. Lengths in face units: the face is about two high; x to the right, y down, origin between
# the ears.
TRAITS = {
    "face_width": (0.70, 0.88),
    "face_height": (0.94, 1.08),
    "jaw_taper": (0.04, 0.34),
    "crown_taper": (0.02, 0.16),
    "squareness": (0.0, 0.7),
    "ear_size": (0.10, 0.20),
    "ear_line": (-0.12, 0.10),
    "ear_out": (-0.02, 0.07),
    "skin_tone": (0.0, 1.0),
    "skin_warmth": (-1.0, 1.0),
    "hair_tone": (0.0, 1.0),
    "bald": (0.0, 1.0),
    "hairline": (0.46, 0.82),
    "hairline_curve": (0.0, 1.3),
    "fringe": (-0.9, 1.0),
    "parting": (-0.45, 0.45),
    "parting_depth": (-0.1, 0.2),
    "hair_volume": (0.03, 0.24),
    "hair_length": (-0.7, 1.0),
    "hair_sides": (0.05, 0.40),
    "sideburn": (-0.25, 0.30),
    "strand_slant": (-1.0, 1.0),
    "eye_gap": (0.27, 0.39),
    "eye_line": (-0.16, 0.02),
    "eye_width": (0.120, 0.190),
    "eye_height": (0.050, 0.105),
    "eye_tilt": (-0.20, 0.24),
    "eye_asymmetry": (-0.03, 0.03),
    "eye_socket": (0.0, 1.0),
    "iris_size": (0.045, 0.072),
    "iris_tone": (0.0, 1.0),
    "lid_weight": (0.012, 0.034),
    "lid_crease": (0.0, 1.0),
    "brow_gap": (0.10, 0.21),
    "brow_thickness": (0.018, 0.062),
    "brow_length": (0.15, 0.25),
    "brow_tilt": (-0.28, 0.28),
    "brow_arch": (0.0, 2.2),
    "brow_weight": (0.45, 1.0),
    "nose_length": (0.30, 0.46),
    "nose_width": (0.090, 0.185),
    "bridge_width": (0.035, 0.075),
    "nose_relief": (0.4, 1.0),
    "nostril": (0.3, 1.0),
    "nose_bend": (-0.04, 0.04),
    "mouth_gap": (0.17, 0.28),
    "mouth_width": (0.20, 0.35),
    "lip_upper": (0.022, 0.075),
    "lip_lower": (0.032, 0.095),
    "lip_bow": (0.0, 0.7),
    "lip_red": (0.1, 1.0),
    "mouth_curve": (-0.035, 0.035),
    "blush": (0.0, 0.6),
    "fold": (0.0, 1.0),
    "forehead_lines": (-0.8, 1.0),
    "chin_cleft": (-0.6, 1.0),
    "freckles": (-1.5, 1.0),
    "beard": (-1.2, 1.0),
    "beard_line": (0.42, 0.66),
    "moustache": (-1.5, 1.0),
    "mole_1": (-2.0, 1.0),
    "mole_1_x": (-0.55, 0.55),
    "mole_1_y": (0.10, 0.75),
    "mole_2": (-4.0, 1.0),
    "mole_2_x": (-0.50, 0.50),
    "mole_2_y": (-0.55, 0.70),
    "scar": (-4.0, 1.0),
    "scar_x": (-0.50, 0.50),
    "scar_y": (-0.50, 0.70),
    "scar_slant": (-1.0, 1.0),
    "wears_glasses": (0.0, 1.0),
}

# Uniform ranges of an image, by nuisance. Tangents of half angles for the turns, which are sums of two draws
# so that small ones are likelier. The fields of a nuisance are multiplied by its strength, but for occlusion,
# where the strength multiplies the chances, and the scene, which has none.
CONDITIONS = {
    "pose": {
        "yaw": (-0.14, 0.14),
        "yaw_more": (-0.14, 0.14),
        "pitch": (-0.08, 0.08),
        "pitch_more": (-0.08, 0.08),
        "roll": (-0.05, 0.05),
        "roll_more": (-0.05, 0.05),
        "scale": (-0.10, 0.10),
        "shift_x": (-0.08, 0.08),
        "shift_y": (-0.08, 0.08),
    },
    "expression": {
        "smile": (-0.6, 1.0),
        "mouth_open": (-1.0, 1.0),
        "brow_raise": (-1.0, 1.0),
        "blink": (-1.0, 1.0),
        "gaze_x": (-1.0, 1.0),
        "gaze_y": (-1.0, 1.0),
        "stubble": (-0.4, 0.4),
        "hair_change": (-0.08, 0.08),
        "make_up": (-0.5, 0.5),
    },
    "light": {
        "light_x": (-0.75, 0.75),
        "light_y": (-0.65, 0.35),
        "light_hard": (0.15, 0.75),
        "gain": (-0.25, 0.25),
        "contrast": (-0.25, 0.25),
        "cast_warmth": (-1.0, 1.0),
        "cast_green": (-1.0, 1.0),
    },
    "blur": {"blur": (0.0, 1.0)},
    "noise": {"noise": (0.0, 0.08)},
    "occlusion": {
        "glasses": (0.0, 1.0),
        "glasses_round": (0.0, 1.0),
        "glasses_size": (0.17, 0.25),
        "glasses_tone": (0.0, 1.0),
        "glasses_tint": (0.0, 1.0),
        "glasses_weight": (0.012, 0.032),
        "cap": (0.0, 1.0),
        "cap_line": (-0.50, -0.30),
        "cap_tone": (0.0, 1.0),
        "patch": (0.0, 1.0),
        "patch_x": (-1.0, 1.0),
        "patch_y": (-1.0, 1.0),
        "patch_width": (0.15, 0.45),
        "patch_height": (0.15, 0.45),
        "patch_slant": (-0.4, 0.4),
        "patch_tone": (0.0, 1.0),
        "bar": (0.0, 1.0),
        "bar_offset": (-0.9, 0.9),
        "bar_slant": (-1.0, 1.0),
        "bar_width": (0.03, 0.08),
        "bar_tone": (0.0, 1.0),
    },
    "scene": {
        "background_1": (0.0, 1.0),
        "background_2": (0.0, 1.0),
        "background_hue": (-1.0, 1.0),
        "background_slant": (-1.0, 1.0),
        "clothes": (0.0, 1.0),
        "clothes_hue": (-1.0, 1.0),
    },
}
NUISANCES = ("pose", "expression", "light", "blur", "noise", "occlusion")
GLASSES, GLASSES_HABIT, CAP, PATCH, BAR = 0.10, 0.60, 0.08, 0.20, 0.12  # chances at strength 1


def words(seed: int, purpose: int, split: int, person: int, image: int, count: int) -> np.ndarray:
    """Return `count` raw uint64 words of the stream named by the other arguments."""
    stream = (purpose << 60) | (split << 56) | (person << 24) | image
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)


def uniform(raw: np.ndarray) -> np.ndarray:
    """Turn raw words into float32 in [0, 1): 24 bits each, exact."""
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def draw_traits(seed: int, split: int, person: np.ndarray) -> SimpleNamespace:
    """Draw the traits of each identity in `person` [n]; every field is float32 [n, 1, 1]."""
    indices, inverse = np.unique(person, return_inverse=True)
    raw = np.stack([words(seed, PERSON, split, int(i), 0, len(TRAITS)) for i in indices])
    return SimpleNamespace(**_within(TRAITS, uniform(raw)[inverse]))


def draw_conditions(
    seed: int, split: int, person: np.ndarray, image: np.ndarray, strengths: dict[str, float]
) -> SimpleNamespace:
    """Draw the conditions of image number `image` [n] of `person` [n]; every field is float32 [n, 1, 1].

    `strengths` has one for each of `NUISANCES`. What may be in front of the face (``glasses``, ``cap``,
    ``patch``, ``bar``) is 1 where it is and 0 where it is not; ``glasses_habit`` is ``glasses`` of a person
    who mostly wears them.
    """
    count = sum(map(len, CONDITIONS.values()))
    named = zip(person, image, strict=True)
    raw = np.stack([words(seed, IMAGE, split, int(p), int(i), count) for p, i in named])
    draws, fields, start = uniform(raw), {}, 0
    for nuisance, table in CONDITIONS.items():
        part = _within(table, draws[:, start : start + len(table)])
        if nuisance not in ("occlusion", "scene"):
            part = {name: value * np.float32(strengths[nuisance]) for name, value in part.items()}
        fields |= part
        start += len(table)
    chances = {"glasses_habit": GLASSES_HABIT, "glasses": GLASSES, "cap": CAP, "patch": PATCH, "bar": BAR}
    fields["glasses_habit"] = fields["glasses"]
    for name, chance in chances.items():
        fields[name] = (fields[name] < np.float32(chance * strengths["occlusion"])).astype(np.float32)
    return SimpleNamespace(**fields)


def _within(table: dict[str, tuple[float, float]], draws: np.ndarray) -> dict[str, np.ndarray]:
    """Name the columns of `draws` [n, fields], each brought from [0, 1) to its range: float32 [n, 1, 1]."""
    low, high = (np.array(side, np.float32) for side in zip(*table.values(), strict=True))
    draws = low + draws * (high - low)
    return {name: draws[:, i, None, None] for i, name in enumerate(table)}


def draw_noise(seed: int, split: int, person: np.ndarray, image: np.ndarray, size: int) -> np.ndarray:
    """Draw pixel noise float32 [n, 3, size, size], mean 0, variance 1, near normal: sums of four bytes."""
    count = 3 * size * size
    named = zip(person, image, strict=True)
    raw = np.stack([words(seed, NOISE, split, int(p), int(i), (count + 1) // 2) for p, i in named])
    pieces = raw.astype("<u8").view(np.uint8).reshape(len(raw), -1, 4)[:, :count].astype(np.float32)
    total = ((pieces[..., 0] + pieces[..., 1]) + pieces[..., 2]) + pieces[..., 3]
    return ((total - np.float32(510.0)) * np.float32(1 / 147.8)).reshape(-1, 3, size, size)
