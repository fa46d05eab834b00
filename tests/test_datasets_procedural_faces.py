"""Procedural faces: equal everywhere, nested sets, disjoint folds, neither trivial nor hopeless."""

import ast
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from replications.datasets import registry
from replications.datasets.faces import procedural
from replications.datasets.faces.procedural import Options, draw_images, draws, prepare
from replications.errors import UserError
from replications.fingerprint import code_fingerprint

PACKAGE = Path(procedural.__file__).parent
SMALL = {
    "image_size": 24,
    "train_identities": 5,
    "train_images_per_identity": 3,
    "test_identities": 40,
    "test_images_per_identity": 4,
    "pairs_per_fold": 8,
}
NO_NUISANCE = dict.fromkeys(draws.NUISANCES, 0.0)


def drawn(folder: Path, **changes) -> tuple[dict[str, np.ndarray], dict]:
    folder.mkdir()
    meta = prepare(folder, SMALL | changes, {}, workers=1)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}, meta


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("faces") / "small")


def test_equal_on_every_machine(small):
    """A difference means that published fingerprints and records no longer fit: it needs a reason."""
    digest = {name: hashlib.sha256(small[0][name].tobytes()).hexdigest()[:16] for name in ("images", "pairs")}
    assert digest == {"images": "2a7dec2bee9fe9e4", "pairs": "56cae8ac053b645a"}


def test_only_operations_that_ieee_754_fixes():
    """The pinned bytes hold elsewhere because nothing in the drawing depends on a mathematics library."""
    exact = {"abs", "sqrt", "square", "floor", "minimum", "maximum", "sign", "where", "float32"}
    moves = {"array", "arange", "ndarray", "take", "pad", "moveaxis", "ascontiguousarray", "int64", "uint8"}
    for name in ("face", "scene", "drawing"):
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert node.attr in exact | moves, f"{name}.py:{node.lineno}: np.{node.attr}"
            assert not isinstance(node, ast.Pow | ast.MatMult), f"{name}.py uses ** or @"


def test_arrays_are_as_agreed(small):
    arrays, meta = small
    kinds = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    assert kinds == {
        "images": (np.uint8, (175, 24, 24, 3)),
        "identity": (np.int32, (175,)),
        "fold": (np.int8, (175,)),
        "pairs": (np.int32, (160, 2)),
        "pair_same": (np.bool_, (160,)),
        "pair_fold": (np.int8, (160,)),
        "pair_error": (np.bool_, (160,)),
    }
    assert (meta["title"], meta["kind"]) == ("procedural faces", "procedural")
    assert (meta["train_images"], meta["test_images"], meta["pairs"]) == (15, 160, 160)
    assert meta["options"]["pose"] == 1.0


def test_folds_are_disjoint_and_pairs_are_what_they_say(small):
    arrays, _ = small
    identity, fold, pairs = arrays["identity"], arrays["fold"], arrays["pairs"]
    assert np.array_equal(np.unique(identity), np.arange(45))
    assert len(set(zip(identity.tolist(), fold.tolist(), strict=True))) == 45  # one fold an identity
    assert np.array_equal(fold == 0, identity < 5)
    assert np.array_equal(fold[pairs], np.stack([arrays["pair_fold"]] * 2, axis=1))
    assert np.array_equal(identity[pairs[:, 0]] == identity[pairs[:, 1]], arrays["pair_same"])
    assert len(np.unique(np.sort(pairs, axis=1), axis=0)) == 160 and (pairs[:, 0] != pairs[:, 1]).all()
    assert np.array_equal(arrays["pair_fold"], np.repeat(np.arange(1, 11), 16))
    assert np.array_equal(arrays["pair_same"], np.tile(np.repeat([True, False], 8), 10))
    assert not arrays["pair_error"].any()


def test_a_larger_set_contains_the_smaller(small, tmp_path):
    arrays, _ = small
    larger, _ = drawn(tmp_path / "larger", train_identities=7, train_images_per_identity=5, test_images_per_identity=6)
    train = larger["images"][:35].reshape(7, 5, -1)[:5, :3].reshape(15, -1)
    test = larger["images"][35:].reshape(40, 6, -1)[:, :4].reshape(160, -1)
    assert np.array_equal(arrays["images"].reshape(175, -1), np.concatenate([train, test]))


def test_one_image_alone_equals_the_same_image_in_a_set(small):
    alone = draw_images(np.array([1]), np.array([17]), np.array([2]), Options(**SMALL))
    assert np.array_equal(alone[0], small[0]["images"][15 + 17 * 4 + 2])


def test_training_and_test_identities_are_other_faces():
    options = Options(**(SMALL | NO_NUISANCE))
    people = np.arange(40)
    train, test = (draw_images(np.full(40, split), people, people * 0, options) for split in (0, 1))
    middles = np.concatenate([train, test])[:, 10:18, 8:16].reshape(80, -1)
    assert len(np.unique(middles, axis=0)) == 80


def test_another_seed_is_another_set(small, tmp_path):
    other, _ = drawn(tmp_path / "other", seed=1)
    assert (other["images"] != small[0]["images"]).mean() > 0.9
    assert (other["pairs"] != small[0]["pairs"]).any()


def test_without_nuisance_a_face_is_the_same_in_all_its_images():
    options = Options(**(SMALL | NO_NUISANCE))
    person, image = np.divmod(np.arange(40), 4)
    pictures = draw_images(np.ones(40, int), person, image, options).reshape(10, 4, 24, 24, 3)
    assert (pictures[:, :, 4:19, 8:16] == pictures[:, :1, 4:19, 8:16]).all()


@pytest.mark.parametrize("nuisance", draws.NUISANCES)
def test_each_nuisance_changes_faces_more_the_stronger_it_is(nuisance):
    person, image = np.divmod(np.arange(160), 4)
    calm, some, much = (
        draw_images(np.ones(160, int), person, image, Options(**(SMALL | NO_NUISANCE | {nuisance: strength}))).astype(
            int
        )
        for strength in (0.0, 0.5, 1.5)
    )
    assert 0 < np.abs(some - calm).mean() < np.abs(much - calm).mean()


def _raw_pixel_auc(arrays) -> float:
    flat = arrays["images"].reshape(len(arrays["images"]), -1).astype(np.float64)
    distance = np.square(flat[arrays["pairs"][:, 0]] - flat[arrays["pairs"][:, 1]]).sum(axis=1)
    same = arrays["pair_same"]
    return (distance[same][:, None] < distance[~same]).mean()


def test_raw_pixels_tell_faces_apart_only_where_nothing_varies(small, tmp_path):
    """The difficulty comes from the nuisances, and is neither chance nor trivial for the poorest of methods."""
    calm, _ = drawn(tmp_path / "calm", **NO_NUISANCE)
    assert _raw_pixel_auc(calm) > 0.8  # backgrounds and clothes still differ
    assert 0.53 < _raw_pixel_auc(small[0]) < 0.72


def test_processes_draw_the_same_bytes(small, tmp_path, monkeypatch):
    monkeypatch.setattr(procedural, "WORTH_A_POOL", 0)
    monkeypatch.setattr(procedural, "IMAGES_A_JOB", 50)
    prepare(tmp_path, SMALL, {}, workers=2)
    assert np.array_equal(np.load(tmp_path / "images.npy"), small[0]["images"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_sice": 32}, ["image_sice", "image_size"]),
        ({"pose": -0.5}, ["pose", "greater than or equal to 0"]),
        ({"train_identities": "many"}, ["train_identities", "integer"]),
        ({"noise": float("nan")}, ["noise"]),
        ({"pairs_per_fold": 25}, ["pairs_per_fold", "25", "24 matched", "raise test_identities"]),
    ],
)
def test_wrong_options_are_one_clear_line(change, words, tmp_path):
    with pytest.raises(UserError) as error:
        prepare(tmp_path, SMALL | change, {}, workers=1)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not list(tmp_path.iterdir())


def test_sets_of_the_registry():
    """The sets of smoke and mini are valid, of the size that is announced; mini has more pairs than LFW."""
    options = {key: Options(**registry.find_set(key).options) for key in ("faces_smoke", "faces_mini")}
    assert options["faces_mini"].pairs_per_fold * 2 * 10 == 20_000
    for key, wanted in options.items():
        images = wanted.train_identities * wanted.train_images_per_identity
        images += wanted.test_identities * wanted.test_images_per_identity
        announced = registry.find_set(key).prepared_bytes
        assert announced == pytest.approx(images * wanted.image_size**2 * 3, rel=0.01)


def test_fingerprint_covers_every_module_that_draws(tmp_path):
    """A set is drawn again after a change of any file of the package."""
    seen = {path.name for path in PACKAGE.glob("*.py")}
    assert seen == {"__init__.py", "draws.py", "drawing.py", "face.py", "scene.py", "pairs.py"}
    copy = tmp_path / "replications"
    shutil.copytree(PACKAGE.parents[2], copy, ignore=shutil.ignore_patterns("__pycache__"))
    drawing = copy / "datasets" / "faces" / "procedural"
    before = code_fingerprint([drawing / "__init__.py"], package=copy)
    for name in sorted(seen):
        with (drawing / name).open("a") as stream:
            stream.write("\nCHANGED = 1\n")
        after = code_fingerprint([drawing / "__init__.py"], package=copy)
        assert after != before, name
        before = after
