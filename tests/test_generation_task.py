"""The protocol of image generation: data and feature network, distances against other computations, both weights."""

import struct

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from sklearn.neighbors import NearestNeighbors

from replications import catalogue, running
from replications.datasets.images.generation import prepare as prepare_images
from replications.datasets.prepare import prepare
from replications.errors import RunFailure, UserError
from replications.layers.generation.averaged import WithAverage
from replications.layers.generation.model import Generator
from replications.tasks.image_generation.data import as_grey, open_images
from replications.tasks.image_generation.execute import category_of, checked, pictured
from replications.tasks.image_generation.rescore import covered, features, frechet, judge, sliced_wasserstein
from replications.training.stage import Turn

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("digits_generation", root)
    return root


def test_digits_are_split_by_position_and_scaled(data_root):
    from sklearn.datasets import load_digits

    data, found = open_images("digits_generation", data_root), load_digits()
    counts = [len(data.rows(split)) for split in ("train", "validation", "test")]
    assert counts == [1200, 200, 397] and data.rows("test").min() == 1400 and (data.label == found.target).all()
    batch = data.batch("test")
    assert np.abs(batch["image"].numpy() - (found.data[1400:] / 8 - 1)).max() <= 1 / 255 + 1e-6
    assert (as_grey(batch["image"]) == data.grey("test")).all() and (data.shape, data.classes) == ((8, 8), 10)
    assert as_grey(torch.tensor([[-3.0, -1.0, 0.01, 1.0, 9.0]])).tolist() == [[0, 0, 129, 255, 255]]


def test_the_feature_network_classifies_and_is_named(data_root):
    from sklearn.linear_model import LogisticRegression

    data = open_images("digits_generation", data_root)
    train, test = (features(data.grey(split), data.network) for split in ("train", "test"))
    labels = [data.label[data.rows(split)] for split in ("train", "test")]
    assert train.shape == (1200, 16)
    assert LogisticRegression(max_iter=2000).fit(train, labels[0]).score(test, labels[1]) > 0.88
    for weights in data.network.values():  # on the grid that makes the bits portable
        assert (weights * 4096 == np.round(weights * 4096)).all()
    truth = {"reference": data.grey("test", 300)} | data.network
    floor = judge(data.grey("train", 200), truth)
    category = category_of(data, truth, 200)
    assert "200 samples, 300 test images" in category and f"features {data.features};" in category
    assert f"Fréchet {floor['frechet']:.2f}, precision" in category and len(data.features) == 8


def test_an_idx_set_is_averaged_down(tmp_path):
    import gzip

    def idx(values):
        head = struct.pack(f">HBB{values.ndim}i", 0, 8, values.ndim, *values.shape)
        return gzip.compress(head + values.astype(np.uint8).tobytes())

    rng, files = np.random.default_rng(0), {}
    images = {part: rng.integers(0, 256, (n, 8, 8)) for part, n in (("train", 30), ("test", 4))}
    for part, values in images.items():
        for name, array in ((f"{part}_images", values), (f"{part}_labels", np.arange(len(values)) % 3)):
            files[name] = tmp_path / f"{name}.gz"
            files[name].write_bytes(idx(array))
    options = {
        "form": "idx", "side": 4, "validation": 10, "test": 4, "feature_images": 10, "feature_steps": 2,
        "feature_hidden": 5, "features": 3,
    }  # fmt: skip
    facts = prepare_images(tmp_path, options, files, 1)
    made = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    mean = np.concatenate(list(images.values())).reshape(34, 4, 2, 4, 2).mean((2, 4))
    assert np.abs(made["images"].reshape(34, 4, 4) - mean).max() <= 1  # rounded along each axis
    assert facts["images"] == {"train": 20, "validation": 10, "test": 4} and facts["shape"] == [4, 4]
    assert made["feature_weight_0"].shape == (16, 5) and made["feature_weight_1"].shape == (5, 3)
    with pytest.raises(UserError, match="4 test images, not 5"):
        prepare_images(tmp_path, options | {"test": 5}, files, 1)


def test_another_set_is_refused(tmp_path):
    prepare("digits_binary", tmp_path)
    with pytest.raises(UserError, match="'digits_binary' is not a set of images with a feature network"):
        open_images("digits_binary", tmp_path)


def test_frechet_is_that_of_a_matrix_root():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(40, 6)) + 1
    a, b = np.cov(one.T), np.cov(other.T)
    root = linalg.sqrtm(a @ b).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet(one, other) == pytest.approx(expected) == pytest.approx(frechet(other, one))
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, one + 3) == pytest.approx(6 * 9)
    still = np.ones((30, 6))  # a collapsed generator: no spread at all
    assert frechet(still, other) == pytest.approx(((1 - other.mean(0)) ** 2).sum() + np.trace(b))


def test_coverage_is_that_of_a_neighbour_search():
    rng = np.random.default_rng(1)
    points, by = rng.normal(size=(70, 3)) * 1.5, rng.normal(size=(60, 3))
    radius = NearestNeighbors(n_neighbors=4).fit(by).kneighbors(by)[0][:, 3]
    expected = np.mean([(np.linalg.norm(by - point, axis=1) <= radius).any() for point in points])
    assert 0.2 < expected < 0.95 and covered(points, by) == pytest.approx(expected)
    assert covered(by[:1] + 100, by) == 0 and covered(by, by) == 1


def test_sliced_distance_is_the_mean_over_directions():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(30, 5)), rng.normal(size=(20, 5)) * 2
    directions = np.random.default_rng(0).normal(size=(5, 64))
    directions /= np.linalg.norm(directions, axis=0)
    expected = np.mean([stats.wasserstein_distance(one @ d, other @ d) for d in directions.T])
    assert sliced_wasserstein(one, other) == pytest.approx(expected)


def test_damage_is_seen(data_root):
    data = open_images("digits_generation", data_root)
    truth = {"reference": data.grey("test")} | data.network
    real = judge(data.grey("train", 397), truth)
    rows = data.rows("train")
    few = judge(data.images[rows[data.label[rows] < 5]], truth)
    blurred = data.grey("train", 397).reshape(-1, 8, 8)
    blurred = ((blurred + np.roll(blurred, 1, 1).astype(int) + np.roll(blurred, 1, 2)) // 3).reshape(-1, 64)
    dull = judge(blurred, truth)
    assert few["frechet"] > 3 * real["frechet"] and few["recall"] < real["recall"] - 0.2
    assert dull["frechet"] > 3 * real["frechet"] and dull["sliced_wasserstein"] > 2 * real["sliced_wasserstein"]


class Constant(Generator):
    """Images of one learned grey."""

    turns = (Turn("one", part="inner"),)

    def __init__(self):
        super().__init__(2)
        self.inner = torch.nn.Linear(1, 1)

    def samplers(self):
        return {"once": lambda noise: noise.new_full((len(noise), 4), self.inner.bias.item())}


def test_the_average_follows_one_step_behind():
    module = WithAverage(Constant(), 0.9)
    start, followed = module.raw.inner.bias.item(), []
    for step in range(4):
        module.on_step(step, 4)
        module.raw.inner.bias.data.fill_(step + 1.0)
        followed.append(module.averaged.inner.bias.item())
    expected = [start]
    for value in (1.0, 2.0, 3.0):
        expected.append(0.9 * expected[-1] + 0.1 * value)
    assert followed == pytest.approx(expected)
    assert module.turns[0].part == "raw.inner" and not module.train().averaged.training
    assert all(not p.requires_grad for p in module.averaged.parameters())
    assert module.averaged.sample(3).tolist() == [[pytest.approx(followed[-1])] * 4] * 3


def test_images_that_are_not_finite_fail_the_run():
    with pytest.raises(RunFailure, match=r"sampler 'eta0_5': 1 of 2 are not finite"):
        checked(torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]), "_eta0_5")


def test_a_record_has_both_weights_and_every_sampler(data_root, tmp_path):
    address = "diffusion_images/ddpm"
    spec = catalogue.resolve(address, "smoke", 0)
    record = running.execute(
        spec, data_root=data_root, work_root=tmp_path / "work", results=tmp_path / "results", device=CPU
    )
    names = ["", "_raw", "_unclipped", "_eta0_5", "_eta1_5", "_eta0_10", "_eta1_10", "_eta0_50"]
    assert {f"frechet{name}" for name in names} <= record.metrics.keys()
    taken = [record.metrics[f"evaluations{name}"] for name in names]
    assert taken == [50, 50, 50, 5, 5, 10, 10, 50]
    assert record.metrics["seconds_per_1000"] > 0 and record.metrics["step_ms"] > 0
    assert record.metrics["frechet"] != record.metrics["frechet_raw"]
    assert "1,000" not in record.category and "60 samples, 60 test images" in record.category


class Coded(Generator):
    """Images are the noise; an image's code is its sign, and there are two codes."""

    between = "same"

    def samplers(self):
        return {"double": lambda noise: 2 * noise, "same": lambda noise: noise}

    def rebuild(self, image):
        return image.sign()

    def vocabulary(self):
        return torch.tensor([[-1.0, -1.0], [1.0, 1.0]])


def test_what_is_pictured_of_a_method():
    noise, test = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)) / 9, torch.tensor([[0.5, -0.5]])
    found = pictured(Coded(2), noise, test)
    assert set(found) == {"shown", "between", "pairs", "codes"}
    assert found["between"].shape == (2, 16, 2)
    for ends, way in zip(((0, 1), (2, 3)), found["between"], strict=True):
        assert np.array_equal(way[[0, -1]], as_grey(noise[list(ends)]))
    third = as_grey((noise[0] * 3**0.5 + noise[1])[None] / 2)[0]  # a third of the quarter turn
    assert np.array_equal(found["between"][0, 5], third)
    assert found["pairs"].tolist() == [[[191, 64]], [[255, 0]]] and found["codes"].tolist() == [[0, 0], [255, 255]]


GENERATORS = [key for key, paper in catalogue.papers().items() if paper.task == "image_generation"]


@pytest.mark.parametrize("address", catalogue.methods_of(GENERATORS, "smoke"))
def test_a_method_rebuilds_and_interpolates_by_what_it_says(address, data_root):
    """A way between two noises takes a sampler without noise of its own; rebuilt images and codes are whole images."""
    spec = catalogue.resolve(address, "smoke", 0)
    context = running.RunContext(spec, CPU, data_root, data_root)
    data = open_images(spec.data["images"], data_root)
    model = context.build("generator", shape=data.shape, classes=data.classes).eval()
    with torch.no_grad():
        if model.between:
            noise = model.noise(3)
            once, again = (model.samplers()[model.between](noise) for _ in range(2))
            assert torch.equal(once, again) and (once[0] - once[1]).abs().max() > 0
        image = data.batch("test")["image"][:3]
        for found in (model.rebuild(image), model.vocabulary()):
            assert found is None or (found.isfinite().all() and found.shape[1:] == image.shape[1:])
