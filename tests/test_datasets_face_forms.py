"""Forms of procedural faces: the same people and pairs, moved as asked."""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.datasets.faces import forms, procedural
from replications.datasets.faces.procedural.draws import TEST, TRAINING
from replications.datasets.registry import load
from replications.errors import UserError

SMALL = {
    "image_size": 48,
    "train_identities": 3,
    "train_images_per_identity": 3,
    "test_identities": 20,
    "test_images_per_identity": 2,
    "pairs_per_fold": 1,
    "pose": 2.0,
    "noise": 0.0,
}


def made(tmp_path, **options):
    """Prepare a small set and return its arrays."""
    folder = tmp_path / "-".join(f"{k}{v}" for k, v in options.items()) if options else tmp_path / "plain"
    folder.mkdir()
    forms.prepare(folder, SMALL | options, {}, 1)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_forms_have_the_same_people_and_pairs_and_other_images(tmp_path):
    drawn = made(tmp_path)
    for options in ({"form": "aligned"}, {"pose": 0.0}, {"form": "aligned", "error": 0.1}):
        other = made(tmp_path, **options)
        for name in drawn.keys() - {"images"}:
            assert np.array_equal(drawn[name], other[name]), (options, name)
        assert drawn["images"].shape == other["images"].shape
        assert (drawn["images"] != other["images"]).any(axis=(1, 2, 3)).all()


def test_every_registered_form_shows_the_set_that_it_names():
    sets = load().sets
    forms_of = {key: entry.options["form_of"] for key, entry in sets.items() if "form_of" in entry.options}
    free = {"form_of", "form", "error", "copies", "copied", "pose", "crop"}
    assert len(forms_of) >= 8
    for key, base in forms_of.items():
        ours, theirs = ({k: v for k, v in sets[k].options.items() if k not in free} for k in (key, base))
        assert ours == theirs, key
        assert sets[key].sources == sets[base].sources


def test_an_aligned_face_is_where_one_drawn_without_movement_is(tmp_path):
    """Turn, size and shift are undone: what is left against a face drawn without them is the blur of one warp."""
    options = forms.Options(**SMALL, expression=0.0, light=0.0, occlusion=0.0, blur=0.0)
    rows = [np.array([1] * 2), np.array([0, 1]), np.array([0, 1]), np.array([0, 0])]
    aligned = forms.draw(options.model_copy(update={"form": "aligned"}), *rows).astype(float)
    drawn = forms.draw(options, *rows).astype(float)
    still = _without_movement(options, *rows).astype(float)
    middle = slice(12, 36)
    apart, before = (np.abs(still - of)[:, middle, middle].mean() for of in (aligned, drawn))
    assert apart < 0.35 * before


def _without_movement(options, split, person, image, copy):
    """Draw the rows with turns in depth, but no movement in the plane."""
    shot = forms._conditions(options, int(split[0]), person, image, copy)
    for name in ("roll", "roll_more", "scale", "shift_x", "shift_y"):
        setattr(shot, name, np.zeros_like(shot.roll))
    noise = np.zeros((len(person), 3, 48, 48), np.float32)
    drawn = forms.render(forms.draw_traits(options.seed, int(split[0]), person), shot, noise, 48)
    return forms.sampled(drawn, *forms.grid(48))


def test_a_movement_is_turned_scaled_and_shifted_as_by_a_matrix():
    angle, x, y = 0.3, np.array([[[0.5]]]), np.array([[[-0.2]]])
    by = SimpleNamespace(turn=np.array([[[np.tan(angle / 2)]]]), scale=0.1, x=0.05, y=-0.07)
    found = np.array(forms.moved(by, x, y)).ravel()
    matrix = 1.1 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(found, matrix @ [0.5, -0.2] + [0.05, -0.07])


def test_images_are_read_between_their_pixels():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, 1, 1:3] = [[100] * 3, [200] * 3]
    unit = 2 * forms.EXTENT / 4  # face units a pixel
    place = np.array(
        [[[-0.25 * unit]]], np.float32
    )  # a quarter of the way from pixel 1 to pixel 2, and on to the right
    found = forms.sampled(image, place, np.array([[[-0.5 * unit]]], np.float32))
    assert found[0, 0, 0].tolist() == [125] * 3
    edge = forms.sampled(image, np.array([[[9.0]]], np.float32), np.array([[[-0.5 * unit]]], np.float32))
    assert edge[0, 0, 0].tolist() == [0] * 3


@pytest.mark.parametrize("copied", ["moved", "turned"])
def test_copies_follow_their_image_and_only_training_images_have_them(copied, tmp_path):
    plain, many = made(tmp_path), made(tmp_path, copies=2, copied=copied)
    assert (many["fold"] == 0).sum() == 3 * (plain["fold"] == 0).sum()
    assert np.array_equal(many["identity"][many["fold"] == 0], np.repeat(plain["identity"][plain["fold"] == 0], 3))
    own = many["images"][many["fold"] == 0]
    assert np.array_equal(own[::3], plain["images"][plain["fold"] == 0])
    assert (own[1::3] != own[::3]).any(axis=(1, 2, 3)).all() and (own[2::3] != own[1::3]).any(axis=(1, 2, 3)).all()
    assert np.array_equal(many["images"][many["fold"] > 0], plain["images"][plain["fold"] > 0])


def test_rows_are_drawn_alike_whatever_their_company():
    options = forms.Options(**SMALL, copies=1, copied="turned", form="aligned")
    split, person = np.array([TRAINING, TEST, TRAINING]), np.array([2, 5, 2])
    image, copy = np.array([1, 0, 1]), np.array([1, 0, 0])
    together = forms.draw(options, split, person, image, copy)
    alone = [forms.draw(options, *(part[i : i + 1] for part in (split, person, image, copy))) for i in range(3)]
    assert np.array_equal(together, np.concatenate(alone))


def test_an_error_without_alignment_is_refused(tmp_path):
    with pytest.raises(UserError, match="needs form 'aligned'"):
        made(tmp_path, error=0.1)


def test_forms_share_the_drawn_set_but_for_the_crop(tmp_path):
    """The image behind a form is the one of `faces.procedural` with the same options."""
    names = [np.array([1]), np.array([4]), np.array([1])]
    plain = {name: value for name, value in SMALL.items()}
    drawn = procedural.draw_images(*names, procedural.Options(**plain))
    assert np.array_equal(
        forms.sampled(drawn, *forms.grid(48)), forms.draw(forms.Options(**plain), *names, np.array([0]))
    )
