"""Boxes in space and the evaluator: against closed forms, Monte-Carlo volumes and cases computed by hand."""

import math
import time

import numpy as np
import pytest

from replications.datasets.rooms.box_points import points_inside
from replications.layers.rooms.boxes import (
    aligned_iou,
    bounds,
    corners,
    iou_matrix,
    nms,
    paired_iou,
)
from replications.tasks.detection_3d.evaluation import (
    Detections,
    Truth,
    average_precision,
    evaluate,
    mean_precision,
    mean_recall,
)


def random_boxes(n, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.uniform(-spread, spread, (n, 3)), rng.uniform(0.3, 2.0, (n, 3)), rng.uniform(-9, 9, (n, 1))], axis=1
    )


def test_iou_equals_the_volume_that_random_points_find():
    a, b = random_boxes(40, 0, 0.5), random_boxes(40, 1, 0.5)
    rng = np.random.default_rng(2)
    for one, other, iou in zip(a, b, paired_iou(a, b), strict=True):
        limits = bounds(np.stack([one, other]))
        low, high = limits[:, :3].min(0), limits[:, 3:].max(0)
        inside = points_inside(rng.uniform(low, high, (40_000, 3)), np.stack([one, other]))
        either = inside.any(1).sum()
        assert iou == pytest.approx(inside.all(1).sum() / either, abs=4 * math.sqrt(0.25 / either))


@pytest.mark.parametrize("quarters", [(0, 0), (1, 0), (2, 3)])
def test_boxes_along_the_axes_have_the_closed_form(quarters):
    a, b = random_boxes(300, 3), random_boxes(300, 4)
    a[:, 6], b[:, 6] = (q * math.pi / 2 for q in quarters)
    assert paired_iou(a, b) == pytest.approx(aligned_iou(bounds(a), bounds(b)), abs=1e-12)


def test_iou_is_one_with_itself_symmetric_and_turns_with_the_room():
    a, b = random_boxes(500, 5), random_boxes(500, 6)
    assert paired_iou(a, a) == pytest.approx(np.ones(500), abs=1e-12)
    assert paired_iou(a, b) == pytest.approx(paired_iou(b, a), abs=1e-12)
    half_turn = a + np.array([0, 0, 0, 0, 0, 0, math.pi])
    assert paired_iou(half_turn, b) == pytest.approx(paired_iou(a, b), abs=1e-12)

    def turned(boxes, angle):
        c, s = math.cos(angle), math.sin(angle)
        moved = boxes.copy()
        moved[:, 0], moved[:, 1] = c * boxes[:, 0] - s * boxes[:, 1], s * boxes[:, 0] + c * boxes[:, 1]
        moved[:, 6] += angle
        return moved

    assert paired_iou(turned(a, 1.1), turned(b, 1.1)) == pytest.approx(paired_iou(a, b), abs=1e-9)


def test_a_square_turned_by_an_eighth_shares_an_octagon():
    square = np.array([[0, 0, 0, 2, 2, 2, 0.0]])
    octagon = 8 * (math.sqrt(2) - 1) * 2
    turned = square + np.array([0, 0, 0, 0, 0, 0, math.pi / 4])
    assert paired_iou(square, turned)[0] == pytest.approx(octagon / (16 - octagon))


@pytest.mark.parametrize("heading", [math.pi + 0.4, -math.pi - 0.4, 7 * math.pi])
def test_heading_outside_pi_is_the_same_angle(heading):
    box = np.array([[0.3, 0.2, 0, 2, 1, 1, heading]])
    wrapped = box.copy()
    wrapped[0, 6] = (heading + math.pi) % (2 * math.pi) - math.pi
    assert paired_iou(box, wrapped)[0] == pytest.approx(1)
    assert corners(box) == pytest.approx(corners(wrapped))


@pytest.mark.parametrize("size", [(0, 1, 1), (1, 1, -0.5), (0, 0, 0)])
def test_a_box_without_volume_overlaps_nothing(size):
    flat, solid = np.array([[0, 0, 0, *size, 0.3]]), np.array([[0, 0, 0, 1, 1, 1, 0.0]])
    assert paired_iou(flat, solid)[0] == paired_iou(solid, flat)[0] == paired_iou(flat, flat)[0] == 0


def test_a_box_that_is_not_finite_is_refused():
    broken = random_boxes(3, 0)[None]
    broken[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        iou_matrix(broken, broken)


def test_nms_equals_the_loop_over_boxes():
    rng = np.random.default_rng(7)
    boxes = random_boxes(4 * 60, 8, 2.0).reshape(4, 60, 7)
    scores, labels = rng.integers(0, 20, (4, 60)) / 20, rng.integers(0, 3, (4, 60))
    taking_part = rng.random((4, 60)) < 0.9
    kept = nms(boxes, scores, labels, 0.25, taking_part)
    for s in range(4):
        limits, alive = bounds(boxes[s]), []
        for i in sorted(range(60), key=lambda i: (-scores[s, i], i)):
            rivals = [j for j in alive if labels[s, j] == labels[s, i]]
            if taking_part[s, i] and all(aligned_iou(limits[i], limits[j]) <= 0.25 for j in rivals):
                alive.append(i)
        assert sorted(alive) == np.flatnonzero(kept[s]).tolist()


def unit_boxes(*x):
    return np.array([[value, 0, 0, 1, 1, 1, 0.0] for value in x])


def test_average_precision_of_a_case_computed_by_hand():
    # Two scenes, one class, three objects. By falling score: hit, double of it, miss, hit.
    truth = Truth(np.stack([unit_boxes(0, 5), unit_boxes(0, 9)]), np.array([[0, 0], [0, -1]]))
    boxes = np.stack([unit_boxes(0.0, 0.1, 5.0), unit_boxes(3.0, 3.2, 9.0)])
    scores = np.array([[0.9, 0.8, 0.6], [0.7, 0.0, 0.5]])[..., None]
    kept = np.array([[True, True, True], [True, False, True]])
    results = evaluate(Detections(boxes, scores, kept), truth, classes=1)
    (result,) = results[0.25]
    assert result.precision == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4, 2 / 5])
    assert result.recall == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert result.average_precision == pytest.approx(1 / 3 * 1 + 1 / 3 * 0.5)
    assert mean_precision(results[0.25]) == pytest.approx(50) and mean_recall(results[0.25]) == pytest.approx(200 / 3)
    assert result.found.tolist() == [[True, True], [False, False]]


def test_classes_are_judged_apart_and_those_without_objects_left_out():
    truth = Truth(unit_boxes(0, 5)[None], np.array([[0, 1]]))
    scores = np.array([[[0.9, 0.1, 0.5], [0.2, 0.3, 0.5]]])  # both proposals count for all three classes
    results = evaluate(Detections(unit_boxes(0, 5)[None], scores, np.ones((1, 2), bool)), truth, classes=3)[0.5]
    assert [r and r.average_precision for r in results] == [1.0, 1.0, None]
    assert mean_precision(results) == 100


def test_the_threshold_decides_and_nothing_found_is_zero():
    truth = Truth(unit_boxes(0.0)[None], np.array([[0]]))
    shifted = Detections(unit_boxes(0.5)[None], np.ones((1, 1, 1)), np.ones((1, 1), bool))  # IoU 1/3
    results = evaluate(shifted, truth, 1)
    assert (mean_precision(results[0.25]), mean_precision(results[0.5])) == (100, 0)
    nothing = Detections(shifted.boxes, shifted.scores, np.zeros((1, 1), bool))
    assert mean_precision(evaluate(nothing, truth, 1)[0.25]) == 0


def test_average_precision_takes_the_best_precision_further_right():
    assert average_precision(np.array([0.5, 0.5, 1.0]), np.array([0.5, 0.4, 0.6])) == pytest.approx(0.6)
    assert average_precision(np.zeros(0), np.zeros(0)) == 0


def test_a_hundred_scenes_of_256_proposals_take_a_tenth_of_a_minute():
    rng = np.random.default_rng(9)
    truth = Truth(random_boxes(100 * 20, 10, 3.0).reshape(100, 20, 7), rng.integers(0, 10, (100, 20)))
    boxes, scores = random_boxes(100 * 256, 11, 3.0).reshape(100, 256, 7), rng.random((100, 256, 10))
    start = time.process_time()
    kept = nms(boxes, scores.max(2), scores.argmax(2), 0.25, np.ones((100, 256), bool))
    evaluate(Detections(boxes, scores, kept), truth, 10)
    assert time.process_time() - start < 6
