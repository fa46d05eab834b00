"""Splits of identities: disjoint uses, nested subsets, nothing of the tested fold; options that say what is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replications.errors import UserError
from replications.tasks.face_verification import TASK
from replications.tasks.face_verification.data import FaceSet, ensure_disjoint, split_identities
from replications.tasks.face_verification.options import FaceOptions


def options(**changes) -> FaceOptions:
    return TASK.parse_options({"resolution": 16, **changes})


def long_tailed(seed=0, people=200):
    """Identities in mixed order, many with one image, as in LFW."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(rng.permutation(1000)[:people], rng.choice([1, 1, 1, 2, 3, 9], size=people))
    return rng.permutation(identity)


def face_set(**changes) -> FaceSet:
    arrays = {
        "key": "made",
        "about": {"key": "made", "title": "made", "kind": "procedural", "note": ""},
        "images": np.zeros((6, 8, 8, 3), np.uint8),
        "identity": np.array([0, 0, 1, 1, 2, 2]),
        "fold": np.array([0, 0, 1, 1, 1, 1]),
        "pairs": np.array([[2, 3], [3, 4]]),
        "same": np.array([True, False]),
        "pair_fold": np.array([1, 1]),
        "error": np.zeros(2, bool),
    }
    return FaceSet(**arrays | changes)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 5),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2, 0.4]),
    st.integers(1, 3),
    st.sampled_from([None, 2, 10, 0.5, 1.0]),
)
def test_no_identity_has_two_uses(seed, validation, verifier, images, wanted):
    identity = long_tailed(seed)
    rows = np.flatnonzero(identity % 7 != 0)
    split = split_identities(
        identity,
        rows,
        options(
            validation_fraction=validation,
            verifier_fraction=verifier,
            min_images_per_identity=images,
            train_identities=wanted,
        ),
        seed,
    )
    uses = [split.train_rows, split.validation_rows, split.verifier_rows]
    people = [set(identity[use].tolist()) for use in uses]
    assert sum(map(len, people)) == len(set.union(*people))
    assert all(set(use.tolist()) <= set(rows.tolist()) for use in uses)
    for use, own in zip(uses, people, strict=True):  # all images of a person are together
        assert len(use) == np.isin(identity[rows], list(own)).sum()
    assert len(people[0]) == split.num_identities == len(set(split.label.tolist())) == split.label.max() + 1
    assert all(len(set(identity[split.train_rows[split.label == k]])) == 1 for k in range(split.num_identities))
    count = np.bincount(identity[rows])
    assert all(count[person] >= images for person in people[0])
    assert all(count[person] >= 2 for person in people[1] | people[2])
    if isinstance(wanted, int):
        assert split.num_identities == wanted


def test_held_out_fractions_are_of_the_people_with_two_images():
    identity = long_tailed()
    several = (np.unique(identity, return_counts=True)[1] > 1).sum()
    split = split_identities(
        identity, np.arange(len(identity)), options(validation_fraction=0.25, verifier_fraction=0.5), 0
    )
    assert len(np.unique(identity[split.validation_rows])) == round(0.25 * several)
    assert len(np.unique(identity[split.verifier_rows])) == round(0.5 * several)


def test_subsets_are_nested_and_share_labels_and_held_out_people():
    identity = long_tailed()
    rows = np.arange(len(identity))
    held_out = {"validation_fraction": 0.2, "verifier_fraction": 0.2}
    small, large = (split_identities(identity, rows, options(train_identities=n, **held_out), 3) for n in (20, 0.9))
    everyone = split_identities(identity, rows, options(**held_out), 3)
    label_of = dict(zip(large.train_rows.tolist(), large.label.tolist(), strict=True))
    assert set(small.train_rows.tolist()) < set(large.train_rows.tolist()) < set(everyone.train_rows.tolist())
    assert all(label_of[row] == label for row, label in zip(small.train_rows, small.label, strict=True))
    np.testing.assert_array_equal(small.validation_rows, everyone.validation_rows)
    fewer = split_identities(identity, rows, options(min_images_per_identity=3, **held_out), 3)
    assert set(fewer.train_rows.tolist()) < set(everyone.train_rows.tolist())
    np.testing.assert_array_equal(fewer.validation_pairs, everyone.validation_pairs)
    np.testing.assert_array_equal(small.verifier_rows, everyone.verifier_rows)
    # A method whose verifier learns is validated on the same people as one without.
    without = split_identities(identity, rows, options(validation_fraction=0.2), 3)
    np.testing.assert_array_equal(without.validation_pairs, everyone.validation_pairs)


def test_split_depends_on_the_seed_alone():
    identity = long_tailed()
    rows = np.arange(len(identity))
    chosen = options(validation_fraction=0.2, train_identities=0.5)
    first, again, other = (split_identities(identity, rows, chosen, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train_rows, again.train_rows)
    np.testing.assert_array_equal(first.validation_pairs, again.validation_pairs)
    assert set(first.train_rows.tolist()) != set(other.train_rows.tolist())


def test_validation_pairs_are_of_held_out_people_only():
    identity = long_tailed()
    split = split_identities(identity, np.arange(len(identity)), options(validation_fraction=0.3), 0)
    of_pairs = identity[split.validation_rows[split.validation_pairs]]
    np.testing.assert_array_equal(of_pairs[:, 0] == of_pairs[:, 1], split.validation_same)
    assert split.validation_same.mean() == 0.5
    assert not np.isin(of_pairs, identity[split.train_rows]).any()


def test_too_few_identities_are_refused():
    identity = long_tailed()
    with pytest.raises(UserError, match="train_identities: 5000 of 200"):
        split_identities(identity, np.arange(len(identity)), options(train_identities=5000), 0)
    with pytest.raises(UserError, match="at least 2"):
        split_identities(np.zeros(5, int), np.arange(5), options(), 0)


def test_leak_between_training_and_test_is_refused():
    faces = face_set()
    ensure_disjoint(faces, faces, np.array([0, 1]), np.array([2, 3]))
    with pytest.raises(UserError, match="identity 1 would be both"):
        ensure_disjoint(faces, faces, np.array([0, 2]), np.array([3]))
    ensure_disjoint(face_set(key="other"), faces, np.array([2]), np.array([3]))  # another set, other people


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 8, 9, 3), np.uint8)}, "images are not"),
        ({"identity": np.arange(5)}, "5 identities"),
        ({"fold": np.array([0, 1, 1, 1, 1, 1])}, "identity 0 is in two folds"),
        ({"fold": np.array([0, 0, 1, 1, 11, 11])}, "not of 0..10"),
        ({"pairs": np.array([[2, 3], [3, 6]])}, "pair 1 names a missing image"),
        ({"pairs": np.array([[2, 3], [3, -1]])}, "pair 1 names a missing image"),
        ({"pairs": np.array([[0, 1], [3, 4]])}, "pair 0 has an image of another fold"),
        ({"error": np.zeros(3, bool)}, "different lengths"),
    ],
)
def test_inconsistent_set_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        face_set(**changes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"validation_fracton": 0.1}, r"validation_fracton: unknown key \(did you mean 'validation_fraction'"),
        ({"resolution": "large"}, "task options: resolution"),
        ({"flip": "add"}, "task options: flip"),
        ({"folds": [1]}, "all ten folds"),
        ({"protocol": "no_outside_data"}, "validation_fraction must be above 0"),
        ({"protocol": "no_outside_data", "validation_fraction": 0.1, "fit": "folds"}, "fit 'folds'"),
        ({"protocol": "no_outside_data", "validation_fraction": 0.1, "folds": [1, 1]}, "different numbers"),
        ({"protocol": "no_outside_data", "validation_fraction": 0.1, "folds": [0]}, "different numbers"),
        ({"train_identities": 1.5}, "train_identities"),
        ({"train_identities": 1}, "train_identities"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
    ],
)
def test_wrong_option_is_one_clear_line(given, message):
    with pytest.raises(UserError, match=message) as raised:
        TASK.parse_options({"resolution": 16, **given})
    assert "\n" not in str(raised.value)


def test_fraction_and_number_of_identities_are_told_apart():
    assert isinstance(options(train_identities=1.0).train_identities, float)
    assert isinstance(options(train_identities=2).train_identities, int)
    assert options(protocol="no_outside_data", validation_fraction=0.1, folds=[1]).folds == (1,)


def test_metric_table_knows_every_verifier_and_no_typo():
    assert TASK.metrics["accuracy_network"].title == "Accuracy, network"
    assert TASK.metrics["tar_far1e3_joint_bayesian"].unit == "%"
    assert TASK.metrics["accuracy_se"].title == "SE" and TASK.metrics["accuracy_se_network"].title == "SE, network"
    assert "auc" in TASK.metrics and "angle_intra_test" in TASK.metrics
    assert "acuracy_network" not in TASK.metrics and "angle_intra_test_network" not in TASK.metrics
    assert TASK.primary_metric in set(TASK.metrics)
    assert not any("network" in name for name in TASK.metrics)
