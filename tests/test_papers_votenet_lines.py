"""The two forms of Hough voting for lines: geometry by hand, and that the learned one learns."""

import numpy as np
import pytest
import torch

from replications.papers.votenet.lines import Drawing, draw, f1, hough_lines, lines_of, same_line, train


def test_a_line_has_one_name_whatever_its_direction():
    one, other = lines_of(np.array([[0.3, 0.2, 0.4], [0.3, 0.2, 0.4 + np.pi]]))
    assert same_line(one, other, factor=1e-6) and 0 <= one[0] < np.pi
    (level,) = lines_of(np.array([[0.5, 0.25, 0.0]]))
    assert level == pytest.approx([np.pi / 2, 0.25])
    assert same_line(np.array([0.01, 0.3]), np.array([np.pi - 0.01, -0.3])) and not same_line(
        level, level + np.array([0.3, 0])
    )


def test_the_transform_finds_clean_lines_and_no_more():
    t = np.linspace(-0.5, 0.5, 40)
    points = np.concatenate([np.column_stack([t, np.full(40, 0.31)]), np.column_stack([np.full(40, -0.2), t])])
    found = hough_lines(points, least=20)
    assert len(found) == 2
    drawing = Drawing(points, np.repeat([0, 1], 40), np.array([[0, 0.31, 0.0], [-0.2, 0, np.pi / 2]]))
    assert f1([found], [drawing]) == 100 and f1([found[:1]], [drawing]) == pytest.approx(200 / 3)


def test_votes_come_nearer_to_the_middle_in_a_short_training():
    module = train(100)
    before, after = [], []
    for i in range(10):
        drawing = draw(np.random.default_rng([5, i]))
        votes = module(torch.from_numpy(drawing.points[None]).float())[0][0].detach().numpy()
        on = drawing.owner >= 0
        middle = drawing.segments[drawing.owner[on], :2]
        for points, found in ((drawing.points, before), (votes, after)):
            found.extend(np.linalg.norm(points[on] - middle, axis=1))
    assert np.mean(after) < 0.85 * np.mean(before)
