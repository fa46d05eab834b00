"""Procedural shapes: surfaces lie on the primitives, are sampled by area, and densities are what was asked for."""

import numpy as np
import pytest

from replications.datasets.points.procedural import (
    CLASSES,
    PARTS,
    Options,
    about,
    draw_shape,
    prepare,
    sample,
    surface,
)
from replications.datasets.points.procedural.shape import BOX, CONE, CYLINDER, SPHERE, Part, Shape
from replications.errors import UserError

SIZE = {BOX: (0.5, 1.0, 2.0), CYLINDER: (0.7, 0.7, 1.5), CONE: (0.7, 0.7, 1.5), SPHERE: (1.2, 1.2, 1.2)}


def one(kind: int, count: int = 20_000, size=None, rotation=None):
    shape = Shape("x", (Part("p", kind, (1.0, 2.0, 3.0), size or SIZE[kind], rotation),))
    points, normals, _ = surface([shape], count, np.random.default_rng(0))
    return points[0] - (1.0, 2.0, 3.0), normals[0]


def test_points_lie_on_their_primitive():
    points, _ = one(BOX)
    np.testing.assert_allclose(np.abs(points / SIZE[BOX]).max(1), 1)
    points, _ = one(SPHERE)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.2)
    points, _ = one(CYLINDER)
    ring, z = np.linalg.norm(points[:, :2], axis=1), np.abs(points[:, 2])
    assert (np.isclose(ring, 0.7) | np.isclose(z, 1.5)).all() and (ring < 0.7001).all()
    points, _ = one(CONE)
    ring, z = np.linalg.norm(points[:, :2], axis=1), points[:, 2]
    assert (np.isclose(ring, 0.7 * (1.5 - z) / 3.0) | np.isclose(z, -1.5)).all()


@pytest.mark.parametrize("kind", SIZE)
def test_normals_are_of_unit_length_and_close_the_surface(kind):
    """The mean outward normal of a closed surface sampled by area is 0, and points . normals / 3 give its volume."""
    points, normals = one(kind, 200_000)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    np.testing.assert_allclose(normals.mean(0), 0, atol=0.01)
    a, b, c = SIZE[kind]
    area = {
        BOX: 8 * (a * b + b * c + a * c),
        CYLINDER: 2 * np.pi * a * (2 * c + a),
        CONE: np.pi * a * (a + np.hypot(a, 2 * c)),
        SPHERE: 4 * np.pi * a * a,
    }[kind]
    volume = {
        BOX: 8 * a * b * c,
        CYLINDER: np.pi * a * a * 2 * c,
        CONE: np.pi * a * a * 2 * c / 3,
        SPHERE: 4 / 3 * np.pi * a**3,
    }[kind]
    assert area * (points * normals).sum(1).mean() / 3 == pytest.approx(volume, rel=0.02)


def test_a_cone_upside_down():
    points, normals = one(CONE, size=(0.7, 0.7, -1.5))
    upright, _ = one(CONE)
    np.testing.assert_allclose(points * [1, 1, -1], upright)
    assert (normals[np.isclose(points[:, 2], 1.5)][:, 2] == 1).mean() > 0.99


def test_rotation_turns_points_and_normals():
    turn = about(0, 0.7) @ about(2, 1.1)
    points, normals = one(BOX)
    turned, turned_normals = one(BOX, rotation=turn)
    np.testing.assert_allclose(turned, points @ turn.T, atol=1e-12)
    np.testing.assert_allclose(turned_normals, normals @ turn.T, atol=1e-12)


def test_parts_are_sampled_by_area():
    shape = Shape("x", (Part("a", SPHERE, (0, 0, 0), (1, 1, 1)), Part("b", SPHERE, (5, 0, 0), (2, 2, 2))))
    _, _, index = surface([shape], 50_000, np.random.default_rng(0))
    assert (index == 1).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("label", CLASSES)
def test_shapes_stand_on_the_floor_within_their_bounds(label):
    for seed in range(8):
        shape = draw_shape(label, np.random.default_rng(seed))
        assert {part.name for part in shape.parts} <= set(PARTS[label])
        low, high = shape.bounds()
        points, _, _ = surface([shape], 2000, np.random.default_rng(1))
        assert (points >= low - 1e-9).all() and (points <= high + 1e-9).all()
        assert low[2] == pytest.approx(0, abs=1e-12)


def test_a_gradient_thins_one_side_out():
    shapes = [Shape("x", (Part("p", SPHERE, (0, 0, 0), (1, 1, 1)),))] * 4
    options = Options(train=1, validation=0, test=1, points=2000, gradient=3.0, noise=0.0, stretch=1.0)
    _, normals, _ = sample(shapes, options, np.random.default_rng(0))
    off = np.linalg.norm(normals.mean(1), axis=1)  # 0 for an even cover of the sphere
    assert (off > 0.33).all()  # coth(1.5) - 1 / 1.5 = 0.44 for weights; thinning eight times as many takes some off
    even = sample(shapes, options.model_copy(update={"gradient": 0.0}), np.random.default_rng(0))[1]
    assert (np.linalg.norm(even.mean(1), axis=1) < 0.08).all()


def test_a_set_is_whole_and_the_same_each_time(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        facts = prepare(tmp_path / name, {"train": 2, "validation": 1, "test": 1, "points": 50}, {}, 1)
    arrays = {p.stem: np.load(p) for p in (tmp_path / "one").glob("*.npy")}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, np.load(tmp_path / "two" / f"{name}.npy"))
    assert len(facts["classes"]) >= 10
    assert np.bincount(arrays["split"]).tolist() == [24, 12, 12]
    assert (np.linalg.norm(arrays["points"], axis=-1) < 1.1).all()
    for row, label in enumerate(arrays["label"]):
        assert set(arrays["part"][row]) <= set(facts["class_parts"][label])
    assert len(np.unique(arrays["points"].reshape(48, -1), axis=0)) == 48


def test_wrong_options_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gradent: unknown key .did you mean 'gradient'"):
        prepare(tmp_path, {"gradent": 1.0}, {}, 1)
    with pytest.raises(UserError, match="options of the procedural shapes: points: "):
        prepare(tmp_path, {"train": 1, "validation": 0, "test": 1, "points": 0}, {}, 1)
    with pytest.raises(UserError, match="did you mean 'chair'"):
        draw_shape("chairs", np.random.default_rng(0))
