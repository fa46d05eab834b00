"""The picture of test sets in several forms, drawn from made-up sets."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.tasks.face_verification.pictures import draw

TESTED = {
    "a/aligned": "faces_aligned",
    "a/drawn": "faces_unaligned",
    "a/trained": "faces_unaligned",
    "b/lfw": "lfw_112",
}


class Album:
    """Rows by the set that they were tested on; two people with two images each, and one who is trained on."""

    width = 7.0

    def __init__(self, addresses, missing=()):
        self.addresses, self.missing = addresses, missing

    def role(self, address):
        return "method"

    def runs(self, address):
        spec = SimpleNamespace(data={"test": TESTED[address]})
        return {0: SimpleNamespace(spec=spec, extra={})}

    def open_set(self, key):
        assert key != "lfw_112", "photographs are not opened"
        if key in self.missing:
            return None
        grey = {"faces_aligned": 0, "faces_unaligned": 100}[key]
        images = np.zeros((5, 4, 4, 3), np.uint8)
        images += (grey + np.arange(5, dtype=np.uint8))[:, None, None, None]
        images[3, 0, 0] += 40  # one pixel of four of the second person's first image
        return {"images": images, "identity": np.array([7, 2, 2, 5, 5]), "fold": np.array([0, 1, 1, 2, 2])}


def figures(*addresses, **options):
    return {picture.name: picture for picture in draw(Album(addresses, **options))}


def test_each_form_is_a_line_of_the_first_image_of_each_test_person_at_half_size():
    found = figures(*TESTED)["forms"]
    assert found.publish
    lines = {axes.texts[0].get_text(): np.asarray(axes.images[0].get_array()) for axes in found.figure.axes}
    assert set(lines) == {"twice the pose\naligned in the plane", "twice the pose\nas drawn"}
    for name, start in (("twice the pose\naligned in the plane", 0), ("twice the pose\nas drawn", 100)):
        sheet = lines[name][..., 0]
        assert sheet.shape == (2, 4)
        assert sheet.tolist() == [
            [start + 1, start + 1, start + 13, start + 3],
            [start + 1, start + 1, start + 3, start + 3],
        ]


@pytest.mark.parametrize("of", [("a/aligned",), ("a/drawn", "a/trained"), ("b/lfw",)])
def test_one_form_alone_is_no_picture(of):
    assert "forms" not in figures(*of)


def test_a_set_that_cannot_be_read_is_left_out():
    assert "forms" not in figures(*TESTED, missing=("faces_aligned",))
