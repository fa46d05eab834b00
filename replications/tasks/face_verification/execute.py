"""A run from its spec to its single, final evaluation, in one of two categories.

*Unrestricted, labelled outside data*: one recogniser, trained on people of no test fold, is scored on all
ten folds; each fold's threshold is fitted on the pairs of the other nine. Verifiers learn from people held
out of training, or (`fit: folds`) for each fold from all images of the other nine.

*Unrestricted, no outside data*: a separate recogniser for each fold, trained from scratch on the people
of the other nine. Its verifiers and its threshold are fitted on people of those nine that were held out of
its training: similarities of people whom a network was trained on say nothing of those it has never seen.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from replications.errors import RunFailure, UserError
from replications.layers.faces.angles import class_angles, weight_angles
from replications.layers.faces.model import FaceModel
from replications.layers.faces.verifiers.base import Verifier
from replications.records import Curve
from replications.tasks.face_verification.metrics import Calibration, Verification, verification_metrics
from replications.tasks.face_verification.options import FOLDS
from replications.tasks.face_verification.training import Recogniser, Setup, score_pairs
from replications.tasks.run import Context, Evaluation
from replications.training.stage import Batch, Workload

WORST_PAIRS = 12
CATEGORIES = {
    "outside_data": "unrestricted, labelled outside data",
    "no_outside_data": "unrestricted, no outside data",
}


@dataclass
class Scores:
    """A verifier's scores of the tested pairs, and of the pairs that thresholds were fitted on, by fold."""

    pairs: list[np.ndarray] = field(default_factory=list)  # indices of test pairs
    score: list[np.ndarray] = field(default_factory=list)
    calibration: list[Calibration] = field(default_factory=list)


def execute(context: Context) -> Evaluation:
    """Train the run's recognisers and score the test pairs once."""
    setup = Setup.of(context)
    folds = [None] if setup.options.protocol == "outside_data" else sorted(setup.options.folds)
    scores: dict[str, Scores] = {}
    angles: list[dict[str, float]] = []
    trained = []
    for fold in folds:
        recogniser = Recogniser.of(setup, fold)
        recogniser.fit()
        angles.append(_test(recogniser, scores))
        trained.append(recogniser.split)
    mean_angles = {name: float(np.mean([a[name] for a in angles])) for name in angles[0]}
    people = {
        "identities": [split.num_identities for split in trained],
        "images": [len(split.train_rows) for split in trained],
    }
    evaluation = _evaluation(setup, scores, mean_angles, people)
    image = torch.from_numpy(np.array(setup.test.images[:1])).to(context.device)
    evaluation.count(recogniser.model, lambda: setup.embedder.embed(recogniser.model, image))
    evaluation.model_parameters = recogniser.model.inference_parameters()
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step of the run's first recogniser, and inference: features of test images, mirror included."""
    setup = Setup.of(context)
    outside = setup.options.protocol == "outside_data"
    recogniser = Recogniser.of(setup, None if outside else min(setup.options.folds))
    stage = recogniser.stage()
    tested = np.unique(setup.test.pairs[setup.tested(recogniser.fold)])
    rows = np.resize(tested, setup.options.embed_batch_size)
    images = torch.from_numpy(np.ascontiguousarray(setup.test.images[rows])).to(context.device)

    def forward(module: FaceModel, inputs: Batch) -> torch.Tensor:
        return setup.embedder.embed(module, inputs["image"])[1]

    return Workload(stage, stage.batches.batch(0), forward, {"image": images}, context.device)


def _test(recogniser: Recogniser, scores: dict[str, Scores]) -> dict[str, float]:
    """Add the recogniser's scores of its test pairs to `scores`, by verifier; return its angles."""
    setup, split, model = recogniser.setup, recogniser.split, recogniser.model
    test, options = setup.test, setup.options
    makers = model.verifiers()
    on_folds = options.fit == "folds" and any(make().needs_fit for make in makers.values())
    tested = np.flatnonzero(setup.tested(recogniser.fold))
    rows = np.flatnonzero(test.fold > 0) if on_folds else np.unique(test.pairs[tested])
    embeddings, features = setup.embed(model, test, rows, f"test {recogniser.name}")
    pairs = np.searchsorted(rows, test.pairs)  # meaningful for the tested pairs only
    held_out = _HeldOut(recogniser)
    for name, make in makers.items():
        own = scores.setdefault(name, Scores())
        if make().needs_fit and options.fit == "folds":
            for fold in FOLDS:
                verifier = make()
                learned = test.fold[rows] != fold
                _fit(verifier, recogniser, features[learned], test.identity[rows[learned]])
                _score(own, verifier, features, pairs, np.flatnonzero(test.pair_fold == fold))
                others = np.flatnonzero(test.pair_fold != fold)
                own.calibration.append(_calibration(verifier, features, pairs[others], test.same[others], fold))
            continue
        verifier = make()
        if verifier.needs_fit:
            _fit(verifier, recogniser, *held_out.verifier())
        _score(own, verifier, features, pairs, tested)
        if recogniser.fold is not None:
            same = split.validation_same
            validation = held_out.validation()
            own.calibration.append(_calibration(verifier, validation, split.validation_pairs, same, recogniser.fold))
    in_pairs = np.isin(rows, test.pairs[tested])
    return _angles(recogniser, embeddings[in_pairs], test.identity[rows[in_pairs]])


class _HeldOut:
    """Features of the held-out people of a recogniser, made when they are first asked for."""

    def __init__(self, recogniser: Recogniser):
        self.recogniser = recogniser
        self._made: dict[str, np.ndarray] = {}

    def _features(self, use: str, rows: np.ndarray) -> np.ndarray:
        if use not in self._made:
            setup = self.recogniser.setup
            self._made[use] = setup.embed(self.recogniser.model, setup.train, rows, use)[1]
        return self._made[use]

    def verifier(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features and identities for the verifiers; raises UserError where nobody was held out."""
        rows = self.recogniser.split.verifier_rows
        if not len(rows):
            raise UserError(
                f"{self.recogniser.setup.context.spec.address} has a verifier that learns, and no data to fit it on: "
                "set the task option 'verifier_fraction' (or 'fit: folds', with outside data)"
            )
        return self._features("fit verifiers", rows), self.recogniser.setup.train.identity[rows]

    def validation(self) -> np.ndarray:
        return self._features("fit threshold", self.recogniser.split.validation_rows)


def _fit(verifier: Verifier, recogniser: Recogniser, features: np.ndarray, identity: np.ndarray) -> None:
    context = recogniser.setup.context
    verifier.fit(features, identity, seed=context.spec.seed, device=str(context.device))


def _score(own: Scores, verifier: Verifier, features: np.ndarray, pairs: np.ndarray, chosen: np.ndarray) -> None:
    score = score_pairs(verifier, features, pairs[chosen])
    if not np.isfinite(score).all():
        raise RunFailure("diverged", "a score of a test pair is not finite")
    own.pairs.append(chosen)
    own.score.append(score)


def _calibration(
    verifier: Verifier, features: np.ndarray, pairs: np.ndarray, same: np.ndarray, fold: int
) -> Calibration:
    return Calibration(score_pairs(verifier, features, pairs), same, np.full(len(pairs), fold))


def _angles(recogniser: Recogniser, embeddings: np.ndarray, identity: np.ndarray) -> dict[str, float]:
    """Return the angles of ArcFace, Table 3, in embeddings of single images, without the mirror image."""
    setup, split, model = recogniser.setup, recogniser.split, recogniser.model
    device = setup.context.device
    # Whole people, in label order, until about `angle_images` images are together.
    upto = np.searchsorted(np.cumsum(np.bincount(split.label)), setup.options.angle_images)
    chosen = split.label <= upto
    trained, _ = setup.embed(model, setup.train, split.train_rows[chosen], "angles", mirror=False)
    trained, label = torch.from_numpy(trained).to(device), torch.from_numpy(split.label[chosen]).to(device)
    tested, person = torch.from_numpy(embeddings).to(device), torch.from_numpy(identity).to(device)
    angles = class_angles(trained, label, "train") | class_angles(tested, person, "test")
    weights = model.class_weights()
    if weights is not None:
        angles |= weight_angles(weights.detach(), trained, label)
    return angles


def _evaluation(
    setup: Setup, scores: dict[str, Scores], angles: dict[str, float], people: dict[str, Any]
) -> Evaluation:
    """Make the metrics of all verifiers from their scores. The first is the method's own and has the plain names."""
    test = setup.test
    tested = np.sort(np.concatenate(next(iter(scores.values())).pairs))
    common = {"same": test.same[tested], "fold": test.pair_fold[tested], "error": test.error[tested]}
    metrics: dict[str, float] = {}
    groups: dict[str, list[float]] = {}
    curves: dict[str, Curve] = {}
    arrays: dict[str, np.ndarray] = {"pair": test.pairs[tested].astype(np.int32), **common}
    extra: dict[str, Any] = {"verifiers": list(scores), "flip": setup.options.flip, **people}
    for number, (name, own) in enumerate(scores.items()):
        suffix = "" if number == 0 else f"_{name}"
        score = np.concatenate(own.score)[np.argsort(np.concatenate(own.pairs))]
        calibration = _joined(own.calibration)
        result = verification_metrics(score, calibration=calibration, **common)
        metrics |= {metric + suffix: value for metric, value in result.metrics.items()}
        groups |= {f"accuracy{suffix}": result.accuracy, f"threshold{suffix}": result.threshold}
        curves[f"roc{suffix}"] = Curve(
            x_label="false accept rate", y_label="true accept rate", x=result.far, y=result.tar
        )
        arrays[f"score{suffix}"] = score
        if calibration is not None:
            arrays[f"calibration_score{suffix}"] = calibration.score
            arrays["calibration_same"], arrays["calibration_fold"] = calibration.same, calibration.fold
        if number == 0:
            extra |= {"folds": result.folds, "worst_pairs": worst_pairs(score, result, arrays)}
    return Evaluation(
        metrics=metrics | angles,
        groups=groups,
        curves=curves,
        extra=extra,
        category=category(setup),
        data={
            role: {key: faces.about[key] for key in ("key", "title", "kind", "note")}
            for role, faces in (("train", setup.train), ("test", test))
        },
        arrays=arrays,
    )


def _joined(calibrations: list[Calibration]) -> Calibration | None:
    if not calibrations:
        return None
    columns = [[getattr(c, name) for c in calibrations] for name in ("score", "same", "fold")]
    return Calibration(*map(np.concatenate, columns))


def category(setup: Setup) -> str:
    """Name the protocol's category as every table shows it, with the folds and the kind of faces where they matter."""
    name = CATEGORIES[setup.options.protocol]
    if setup.test.about["kind"] == "procedural":
        name = f"procedural faces, {name}"
    folds = sorted(setup.options.folds)
    if len(folds) < len(FOLDS):
        name += f" (fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))} of {len(FOLDS)})"
    return name


def worst_pairs(score: np.ndarray, result: Verification, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the pairs that were most wrong, false rejects and false accepts, by distance to their fold's threshold.

    `rows` are the images in the test set.
    """
    threshold = np.array(result.threshold)[np.searchsorted(result.folds, arrays["fold"])]
    distance = score - threshold
    worst = []
    for same, sign in ((True, 1.0), (False, -1.0)):
        wrong = np.flatnonzero((arrays["same"] == same) & ((distance > 0) != same))
        for i in wrong[np.argsort(sign * distance[wrong], kind="stable")][:WORST_PAIRS]:
            worst.append(
                {
                    "rows": arrays["pair"][i].tolist(),
                    "same": same,
                    "fold": int(arrays["fold"][i]),
                    "score": float(score[i]),
                    "threshold": float(threshold[i]),
                    "known_error": bool(arrays["error"][i]),
                }
            )
    return worst
