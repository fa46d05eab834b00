"""The protocol of density estimation: data, splits, scores against loops, bad input."""

import gzip
import struct

import numpy as np
import pytest
import torch

from replications import catalogue, running
from replications.datasets.arrays import open_set
from replications.datasets.images.binarised import prepare as prepare_binarised
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.layers.density.bounds import SIZES
from replications.tasks.density_estimation import TASK
from replications.tasks.density_estimation.data import open_binary
from replications.tasks.density_estimation.rescore import BOUNDS, rescore


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("digits_binary", root)
    return root


def made(target):
    return {path.stem: np.load(path) for path in target.glob("*.npy")}


def test_digits_are_cut_at_half_and_split_by_position(data_root):
    from sklearn.datasets import load_digits

    data, found = open_binary("digits_binary", data_root), load_digits()
    assert (data.bits == (found.images.reshape(1797, 64) >= 8)).all()
    counts = [len(data.rows(split)) for split in ("train", "validation", "test")]
    assert counts == [1200, 200, 397] and data.rows("train").max() < data.rows("validation").min() < 1400
    assert data.rows("test").min() == 1400 and (data.label == found.target).all()
    assert (data.shape, data.classes) == ((8, 8), 10)


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{values.ndim}i", 0, 8, values.ndim, *values.shape) + values.tobytes())


def test_idx_files_are_cut_at_128(tmp_path):
    train, test = (np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2) * 13 for n in (5, 2))
    files = {}
    for name, values in {
        "train_images": train, "test_images": test, "train_labels": np.arange(5, dtype=np.uint8),
        "test_labels": np.array([4, 0], np.uint8),
    }.items():  # fmt: skip
        files[name] = tmp_path / f"{name}.gz"
        files[name].write_bytes(idx(values))
    options = {"form": "idx", "side": 2, "validation": 2, "test": 2}
    facts = prepare_binarised(tmp_path, options, files, 1)
    arrays = made(tmp_path)
    assert (arrays["bits"] == (np.concatenate([train, test]).reshape(7, 4) > 127)).all()
    assert arrays["split"].tolist() == [0, 0, 0, 1, 1, 2, 2] and arrays["label"].tolist() == [0, 1, 2, 3, 4, 4, 0]
    assert facts == {"shape": [2, 2], "classes": 5, "images": {"train": 3, "validation": 2, "test": 2}}
    with pytest.raises(UserError, match="2 test images, not 3"):
        prepare_binarised(tmp_path, options | {"test": 3}, files, 1)
    files["train_images"].write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"))
    with pytest.raises(UserError, match="3 values, its header says 9"):
        prepare_binarised(tmp_path, options, files, 1)
    files["train_images"].write_bytes(b"junk")
    with pytest.raises(UserError, match="not a whole gzip file"):
        prepare_binarised(tmp_path, options, files, 1)


def test_text_files_keep_their_splits(tmp_path):
    files = {}
    for name, text in {"train": "0 1 1 0\n1 1 1 1\n", "validation": "0 0 0 1\n", "test": "1 0 0 0\n"}.items():
        files[name] = tmp_path / name
        files[name].write_text(text)
    options = {"form": "text", "side": 2, "validation": 1, "test": 1}
    facts = prepare_binarised(tmp_path, options, files, 1)
    assert made(tmp_path)["bits"].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert made(tmp_path)["split"].tolist() == [0, 0, 1, 2] and facts["classes"] == 0
    files["test"].write_text("1 0 2 0\n")
    with pytest.raises(UserError, match="neither 0 nor 1"):
        prepare_binarised(tmp_path, options, files, 1)
    files["test"].write_text("1 0 0\n")
    with pytest.raises(UserError, match="lines of 4 bits"):
        prepare_binarised(tmp_path, options, files, 1)


def test_other_values_than_0_and_1_are_one_line(data_root, monkeypatch):
    from replications.tasks.density_estimation import data as module

    real = open_set("digits_binary", data_root)
    grey = {**real.arrays, "bits": np.asarray(real.arrays["bits"]) * 7}
    monkeypatch.setattr(module, "open_prepared", lambda *given: type(real)("x", real.path, "", grey, real.meta))
    with pytest.raises(UserError, match="has the value 7: density estimation takes images of 0 and 1"):
        open_binary("digits_binary", data_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_shape": [8, 8]}, "mass_shape: 2\\^64 images are too many to enumerate: at most 16 pixels"),
        ({"validation_samples": 0}, "validation_samples: Input should be greater than 0"),
        ({"test_images": 0}, "test_images: Input should be greater than 0"),
    ],
)
def test_wrong_options_are_one_line(change, message):
    options = catalogue.resolve("made/made", "mini", 0).task_options
    with pytest.raises(UserError, match=message):
        TASK.parse_options(options | change)


def test_scores_follow_from_the_arrays():
    assert tuple(BOUNDS.values()) == SIZES
    found = rescore({"log_prob": np.array([-3.0, -5.0]), "pixels": np.array(4)})
    assert found == {"nll": 4.0, "bits_per_dim": pytest.approx(4 / np.log(2) / 4)}
    bounds = np.array([[-9.0, -8, -7, -6], [-7, -6, -6.5, -6]])
    found = rescore({"bounds": bounds, "pixels": np.array(4), "grid_log_prob": np.array([-5.0, -6.0])})
    assert (found["elbo"], found["bound_5"], found["nll"], found["bound_excess"]) == (-8, -7, 6, -0.5)
    assert found["bound_fall"] == 0
    assert rescore({"bounds": bounds[1:], "pixels": np.array(4)})["bound_fall"] == 0.5


def test_a_run_of_a_batch_of_one_trains_and_scores(data_root, tmp_path):
    spec = catalogue.resolve("vae/vae", "smoke", 12)
    recipe = spec.recipe.model_copy(update={"batch_size": 1, "steps": 2})
    spec = spec.model_copy(update={"recipe": recipe, "options": spec.options | {"gradient_draws": 2, "latents": 1}})
    cpu = torch.device("cpu")
    record = running.execute(spec, data_root=data_root, work_root=tmp_path / "w", results=tmp_path / "r", device=cpu)
    assert record.status == "finished" and record.category.endswith("at most, 500 samples")
