"""Whole runs on made images: both categories, what each part is fitted on, and that equal runs are equal."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from replications.errors import RunFailure, UserError
from replications.layers.faces.heads import CosineHead, FaceClassifier
from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import CosineVerifier
from replications.layers.faces.verifiers.joint_bayesian import PCAJointBayesian
from replications.spec import RunSpec
from replications.tasks.face_verification import TASK, training
from replications.tasks.face_verification.data import FaceSet
from replications.tasks.face_verification.embedding import AveragePool, Embedder, resizing
from replications.tasks.face_verification.metrics import Calibration, verification_metrics
from replications.training import workers
from replications.training.determinism import seed_everything
from replications.training.loop import train
from replications.training.stage import Batch, Stage, StageResult

SIZE = 16
PEOPLE, IMAGES = 80, 6  # as many to train on as to test on


def made_faces(key="made", kind="procedural", test_people=PEOPLE) -> FaceSet:
    """Each person a smooth pattern, each image its own light and noise; fold 0 to train on, then 1..10."""
    rng = np.random.default_rng(0)
    total = PEOPLE + test_people
    pattern = torch.tensor(rng.normal(size=(total, 3, 4, 4)), dtype=torch.float32)
    pattern = F.interpolate(pattern, (SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1).numpy()
    identity = np.repeat(np.arange(total), IMAGES)
    light = rng.normal(0, 0.7, size=(len(identity), 1, 1, 1))
    images = 128 + 40 * (pattern[identity] + light + rng.normal(0, 1.0, size=(len(identity), SIZE, SIZE, 3)))
    fold = np.where(identity < PEOPLE, 0, (identity - PEOPLE) % 10 + 1)
    pairs, same, pair_fold = [], [], []
    for k in range(1, 11):
        rows = np.flatnonzero(fold == k)
        if len(rows):
            first = rows[::IMAGES]
            matched = np.concatenate([np.stack([first, first + i], 1) for i in range(1, IMAGES)])
            chosen = np.array([rng.choice(rows, 2, replace=False) for _ in range(20 * len(matched))])
            mismatched = chosen[identity[chosen[:, 0]] != identity[chosen[:, 1]]][: len(matched)]
            pairs += [matched, mismatched]
            same += [True] * len(matched) + [False] * len(mismatched)
            pair_fold += [k] * (len(matched) + len(mismatched))
    return FaceSet(
        key=key,
        about={"key": key, "title": key, "kind": kind, "note": ""},
        images=images.clip(0, 255).astype(np.uint8),
        identity=identity,
        fold=fold,
        pairs=np.concatenate(pairs),
        same=np.array(same),
        pair_fold=np.array(pair_fold),
        error=np.zeros(len(same), bool),
    )


class TinyFace(FaceClassifier):
    """A linear embedding; it notes which images it was trained on."""

    def __init__(self, num_identities: int, image_size: int, verifier: str = "cosine"):
        inputs = 3 * image_size**2
        norm = nn.BatchNorm1d(16)
        super().__init__(
            nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), norm), CosineHead(16, num_identities, scale=16.0)
        )
        self.verifier = verifier

    def verifiers(self):
        if self.verifier == "cosine":
            return {"cosine": CosineVerifier}
        return {"joint_bayesian": lambda: PCAJointBayesian(8), "cosine": CosineVerifier}


@dataclass
class MinimalContext:
    spec: RunSpec
    work: Path
    data_root: Path = Path("unused")
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stages: list[Stage] = field(default_factory=list)
    built: list[nn.Module] = field(default_factory=list)
    maker: type[nn.Module] = TinyFace

    @property
    def options(self):
        return TASK.parse_options(self.spec.task_options)

    def build(self, name, **info):
        seed_everything(self.spec.seed, name)
        self.built.append(self.maker(**info, **self.spec.options))
        return self.built[-1]

    def train(self, stage: Stage) -> StageResult:
        self.stages.append(stage)
        return train(stage, work=self.work / stage.name, seed=self.spec.seed, device=self.device)


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Make contexts whose data sets are made here."""
    sets = {"made": made_faces(), "photos": made_faces("photos", "public")}
    monkeypatch.setattr(training, "open_faces", lambda key, root: sets[key])

    def make(seed=0, data=None, options=None, epochs=6.0, precision="float32", maker=TinyFace, **task):
        spec = RunSpec(
            paper="made",
            method="tiny",
            tier="smoke",
            seed=seed,
            task="face_verification",
            data=data or {"train": "made", "test": "made"},
            build="model:build",
            options=options or {},
            recipe={"batch_size": 40, "epochs": epochs, "lr": 0.03, "precision": precision},
            task_options={"resolution": SIZE, "validation_fraction": 0.2, **task},
            threads=1,
        )
        number = len(list(tmp_path.iterdir()))
        return MinimalContext(spec, tmp_path / str(number), maker=maker)

    make.sets = sets
    return make


def trained_people(stage: Stage, faces: FaceSet) -> set[int]:
    """Whose images a stage trains on, found by looking for its images in the set."""
    rows = {image.tobytes(): row for row, image in enumerate(faces.images)}
    images = stage.batches.arrays["image"].numpy()
    return {int(faces.identity[rows[image.tobytes()]]) for image in images}


def test_outside_data_trains_on_no_tested_person_and_learns(context):
    faces = context.sets["made"]
    run = context(epochs=20.0)
    evaluation = TASK.execute(run)
    (stage,) = run.stages
    people = trained_people(stage, faces)
    assert people <= set(range(PEOPLE)) and len(people) == PEOPLE - 16
    assert evaluation.extra["identities"] == [64] and evaluation.extra["images"] == [64 * IMAGES]
    assert evaluation.category == "procedural faces, unrestricted, labelled outside data"
    assert evaluation.metrics["accuracy"] > 70 and evaluation.metrics["auc"] > 0.8
    untrained = TASK.execute(context(epochs=0.1)).metrics
    assert evaluation.metrics["auc"] > untrained["auc"] + 0.15
    assert evaluation.metrics["angle_weight_centre"] < untrained["angle_weight_centre"] - 10
    assert len(evaluation.groups["accuracy"]) == 10
    assert evaluation.metrics["accuracy"] == pytest.approx(np.mean(evaluation.groups["accuracy"]))
    assert evaluation.model_parameters == 16 * 3 * SIZE**2 + 16 + 32
    # Feature of one image: the linear layer, for the image and for its mirror image.
    assert evaluation.flops_per_sample == pytest.approx(2 * 2 * 16 * 3 * SIZE**2)
    assert set(evaluation.metrics) <= set(TASK.metrics)


def test_metrics_follow_from_the_arrays_of_the_record(context):
    for run in (context(), context(protocol="no_outside_data", folds=[2, 5])):
        evaluation = TASK.execute(run)
        arrays = evaluation.arrays
        calibration = None
        if "calibration_score" in arrays:
            calibration = Calibration(*(arrays[f"calibration_{name}"] for name in ("score", "same", "fold")))
        again = verification_metrics(
            arrays["score"], arrays["same"], arrays["fold"], arrays["error"], calibration=calibration
        )
        assert {name: evaluation.metrics[name] for name in again.metrics} == again.metrics
        assert again.accuracy == evaluation.groups["accuracy"]


def test_each_fold_is_trained_without_its_people_and_without_the_outside(context):
    faces = context.sets["made"]
    run = context(protocol="no_outside_data", folds=[3, 7], verifier_fraction=0.25, options={"verifier": "jb"})
    evaluation = TASK.execute(run)
    assert [stage.name for stage in run.stages] == ["fold3", "fold7"]
    for stage, fold in zip(run.stages, (3, 7), strict=True):
        people = trained_people(stage, faces)
        folds_of = {int(faces.fold[np.flatnonzero(faces.identity == person)[0]]) for person in people}
        assert fold not in folds_of and 0 not in folds_of
        assert len(people) == 72 - round(0.2 * 72) - round(0.25 * 72)
    assert evaluation.category == "procedural faces, unrestricted, no outside data (folds 3, 7 of 10)"
    assert evaluation.extra["folds"] == [3, 7] and len(evaluation.groups["accuracy"]) == 2
    assert set(evaluation.arrays["fold"].tolist()) == {3, 7}
    assert set(evaluation.arrays["calibration_fold"].tolist()) == {3, 7}
    assert "accuracy_cosine" in evaluation.metrics and "roc_cosine" in evaluation.curves


def test_one_fold_has_no_standard_error(context):
    evaluation = TASK.execute(context(protocol="no_outside_data", folds=[1]))
    assert "accuracy_se" not in evaluation.metrics and evaluation.category.endswith("(fold 1 of 10)")


class Spy(CosineVerifier):
    """Scores by the cosine of pixels; notes what it was fitted on and what it scored."""

    needs_fit = True
    made: ClassVar[list["Spy"]] = []

    def __init__(self):
        self.fitted = self.scored = None
        Spy.made.append(self)

    def fit(self, features, identity, *, seed=0, device="cpu"):
        self.fitted, self.identity = features, identity

    def score(self, a, b):
        assert self.fitted is not None
        self.scored = np.concatenate([a, b, np.zeros((0, a.shape[1])) if self.scored is None else self.scored])
        return super().score(a, b)


class Pixels(FaceModel):
    """Nothing to train; the feature is the image, so that a feature tells whose it is."""

    embeds_mirror = True

    def __init__(self, num_identities, image_size):
        super().__init__()

    def embed(self, image):
        return image.flatten(1)

    def verifiers(self):
        return {"spy": Spy}


def people_of(features, faces):
    known = {
        np.round((image / 127.5 - 1).transpose(2, 0, 1).ravel(), 3).tobytes(): row
        for row, image in enumerate(faces.images.astype(np.float64))
    }
    return {int(faces.identity[known[np.round(f.astype(np.float64), 3).tobytes()]]) for f in features}


@pytest.mark.parametrize("fit", ["held_out", "folds"])
def test_verifiers_learn_from_people_who_are_neither_trained_on_nor_tested(context, fit):
    faces = context.sets["made"]
    Spy.made.clear()
    run = context(maker=Pixels, fit=fit, verifier_fraction=0.25)
    TASK.execute(run)
    assert not run.stages  # nothing to train
    used = [spy for spy in Spy.made if spy.fitted is not None]
    assert len(used) == (1 if fit == "held_out" else 10)
    for number, spy in enumerate(used, start=1):
        fitted = set(spy.identity.tolist())
        assert people_of(spy.fitted[::17], faces) <= fitted
        folds = {int(faces.fold[np.flatnonzero(faces.identity == person)[0]]) for person in fitted}
        assert folds == ({0} if fit == "held_out" else set(range(1, 11)) - {number})
        if fit == "held_out":
            assert len(fitted) == 20
            assert not fitted & people_of(spy.scored[::50], faces)


def test_verifier_that_learns_needs_people_to_learn_from(context):
    with pytest.raises(UserError, match=r"made/tiny has a verifier that learns.*verifier_fraction"):
        TASK.execute(context(maker=Pixels))


def test_equal_runs_are_equal_to_the_bit_and_seeds_differ(context):
    first, again, other = (TASK.execute(context(seed=seed, epochs=2.0)) for seed in (1, 1, 2))
    assert first.metrics == again.metrics
    np.testing.assert_array_equal(first.arrays["score"], again.arrays["score"])
    assert not np.array_equal(first.arrays["score"], other.arrays["score"])


def test_folds_do_not_depend_on_which_others_are_run(context):
    both = TASK.execute(context(protocol="no_outside_data", folds=[2, 9], epochs=2.0))
    alone = TASK.execute(context(protocol="no_outside_data", folds=[9], epochs=2.0))
    assert both.groups["accuracy"][1] == alone.groups["accuracy"][0]


def test_category_names_the_kind_of_faces(context):
    photos = {"train": "photos", "test": "photos"}
    evaluation = TASK.execute(context(data=photos, epochs=0.1))
    assert evaluation.category == "unrestricted, labelled outside data"
    everything = TASK.execute(context(data=photos, epochs=0.1, protocol="no_outside_data"))
    assert everything.category == "unrestricted, no outside data"
    assert "accuracy_se" in everything.metrics


def test_other_data_is_refused_where_no_outside_data_is_promised(context):
    with pytest.raises(UserError, match="trains on 'made' itself"):
        TASK.execute(context(data={"train": "photos", "test": "made"}, protocol="no_outside_data"))
    with pytest.raises(UserError, match="no data set for 'test'"):
        TASK.execute(context(data={"train": "photos"}))


def test_diverged_features_are_a_failure(context):
    class Broken(Pixels):
        def embed(self, image):
            return image.flatten(1) / 0.0

        def verifiers(self):
            return {"cosine": CosineVerifier}

    with pytest.raises(RunFailure) as raised:
        TASK.execute(context(maker=Broken))
    assert raised.value.reason == "diverged"


def test_worst_pairs_are_wrong_and_sorted(context):
    evaluation = TASK.execute(context(epochs=0.1))
    worst = evaluation.extra["worst_pairs"]
    faces = context.sets["made"]
    assert 2 <= len(worst) <= 24
    for pair in worst:
        left, right = pair["rows"]
        assert (faces.identity[left] == faces.identity[right]) == pair["same"]
        assert (pair["score"] > pair["threshold"]) != pair["same"]
    distance = [abs(p["score"] - p["threshold"]) for p in worst if p["same"]]
    assert distance == sorted(distance, reverse=True)


def test_workload_lowers_the_loss_on_its_batch_and_infers_features(context):
    workload = TASK.workload(context(embed_batch_size=32))
    module, batch = workload.stage.module.train(), workload.batch
    assert batch["image"].shape == (40, 3, SIZE, SIZE) and batch["image"].abs().max() <= 1
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = module(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert workload.infer(module.eval(), 32).shape == (32, 16)
    with pytest.raises(ValueError):
        workload.infer(module, 33)


def test_large_sets_are_read_by_workers_with_equal_batches(context, monkeypatch):
    near = TASK.workload(context())
    monkeypatch.setattr(workers, "RESIDENT_FRACTION", 0.0)
    far = TASK.workload(context())
    assert type(near.stage.batches) is not type(far.stage.batches)
    for step in (0, 3):
        one, other = near.stage.batches.batch(step), far.stage.batches.batch(step)
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=0)
        torch.testing.assert_close(one["label"], other["label"], rtol=0, atol=0)
    far.stage.batches.end()


def test_average_pool_is_exact():
    image = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    pooled = AveragePool(4)(image)
    expected = image.double().reshape(2, 4, 2, 4, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(pooled.double(), expected, rtol=0, atol=1e-5)
    assert resizing(112, 112) == []
    with pytest.raises(UserError, match=r"112 pixels cannot be averaged to 50.*56, 112"):
        resizing(112, 50)


@pytest.mark.parametrize("flip", ["sum", "concat", "none"])
def test_feature_contains_the_mirror_image_as_the_option_says(flip):
    class First(FaceModel):
        def embed(self, image: Batch) -> torch.Tensor:
            return image[:, 0, 0, :2]  # the two leftmost pixels of the first row, red

    images = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    embedding, feature = Embedder([], flip, "float32", torch.device("cpu")).embed(First(), images)
    left, right = images[:, 0, :2, 0] / 127.5 - 1, images[:, 0, [7, 6], 0] / 127.5 - 1
    torch.testing.assert_close(embedding, left, rtol=0, atol=1e-6)
    expected = {"sum": left + right, "concat": torch.cat([left, right], 1), "none": left}[flip]
    torch.testing.assert_close(feature, expected, rtol=0, atol=1e-6)
    own = First()
    own.embeds_mirror = True
    assert Embedder([], flip, "float32", torch.device("cpu")).embed(own, images)[1].shape == (3, 2)


def test_half_precision_is_used_where_the_recipe_says_so(context):
    full, half = (TASK.execute(context(epochs=1.0, precision=p)) for p in ("float32", "bf16"))
    assert half.arrays["score"].dtype == np.float64
    assert not np.array_equal(full.arrays["score"], half.arrays["score"])
    assert half.metrics["auc"] == pytest.approx(full.metrics["auc"], abs=0.05)
