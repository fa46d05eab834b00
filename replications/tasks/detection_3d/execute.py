"""A run from its spec to its evaluation: one detector, trained, then scored once on the test scenes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import RunFailure, UserError
from replications.layers.rooms.boxes import nms
from replications.layers.rooms.model import Detector, Predictions
from replications.layers.rooms.proposal import Sampling
from replications.tasks.data import open_train_and_test
from replications.tasks.detection_3d.augment import MoveScene, Subsample
from replications.tasks.detection_3d.data import SceneSet, nearest_to_centre, open_scenes
from replications.tasks.detection_3d.evaluation import Detections, Truth, evaluate, mean_precision
from replications.tasks.detection_3d.options import DetectionOptions
from replications.tasks.detection_3d.scores import THRESHOLDS, class_table, mean_curve, metrics_of
from replications.tasks.run import Context, Evaluation, chunks, number_name
from replications.training.augment import Augment, Compose
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring
from replications.training.stage import Batch, Stage, Workload

DATA = ("points", "floor", "inside", "boxes", "label")


@dataclass
class Run:
    """A detector and the scenes of its run."""

    context: Context
    options: DetectionOptions
    train: SceneSet
    test: SceneSet
    model: Detector

    @classmethod
    def of(cls, context: Context) -> "Run":
        """Open the sets and build the method; raises UserError where they do not fit each other."""
        options = context.options
        train, test = open_train_and_test(context, open_scenes, alike=("classes",))
        for scenes in (train, test):
            stored = scenes.points.shape[1]
            if stored < options.points:
                raise UserError(
                    f"data set '{scenes.key}' stores {stored} points a scene, fewer than the task option points "
                    f"{options.points}: lower the option"
                )
        if train.oriented and options.heading_bins == 1:
            raise UserError(f"data set '{train.key}' has boxes with headings: raise the task option heading_bins")
        whole = options.points == train.points.shape[1]
        model = context.build(
            "train",
            mean_sizes=train.mean_sizes,
            heading_bins=options.heading_bins if train.oriented else 1,
            sampled=train.sampled if whole else 0,
        )
        return cls(context, options, train, test, model.to(context.device))

    def stage(self) -> Stage:
        spec, options = self.context.spec, self.options
        stored = self.train.points.shape[1]
        steps: list[Augment] = [Subsample(stored, options.points)] if options.points < stored else []
        batches = DeviceBatches(
            {name: getattr(self.train, name) for name in DATA},
            spec.recipe.batch_size,
            spec.seed,
            Compose([*steps, MoveScene(options, self.train.oriented)]),
            rows=self.train.rows("train", needed=True),
            device=self.context.device,
        )
        return Stage("train", self.model, batches, spec.recipe, validate=self.validation(), select_metric="mAP25")

    def validation(self) -> Callable[[nn.Module], dict[str, float]] | None:
        """Return a function that scores the validation scenes; None where the set has none."""
        rows = self.train.rows("validation")
        if not len(rows):
            return None

        def validate(module: Detector) -> dict[str, float]:
            found = detect(self, module, self.train, rows, {"own": (self.options.test_sampling, None)})
            results = evaluate(found["own"].detections, truth_of(self.train, rows), len(self.train.classes))
            return {f"mAP{name}": mean_precision(results[value]) for name, value in THRESHOLDS.items()}

        return validate


@dataclass(frozen=True)
class Found:
    """The detections of scenes, with the seeds and votes they came from (arrays ``[s, ...]``)."""

    detections: Detections
    seeds: np.ndarray
    votes: np.ndarray
    seed_index: np.ndarray
    seconds: float


def execute(context: Context) -> Evaluation:
    """Train the detector and score the test scenes."""
    run = Run.of(context)
    context.train(run.stage())
    run.model.eval()
    return test(run)


def test(run: Run) -> Evaluation:
    """Score a trained detector on the test scenes."""
    scenes, options = run.test, run.options
    rows = scenes.rows("test", needed=True)
    truth = truth_of(scenes, rows)
    own = options.test_sampling
    other: Sampling = "votes" if own == "seeds" else "seeds"
    variants: Variants = {"own": (own, None), other: (other, None)}
    for factor in options.test_proposals:
        variants[f"x{number_name(factor)}"] = (own, max(1, round(factor * run.model.proposal.count)))
    every = detect(run, run.model, scenes, rows, variants)
    found = every.pop("own")
    results = evaluate(found.detections, truth, len(scenes.classes))
    distance = nearest_to_centre(scenes.points[rows, : options.points], scenes.inside[rows, : options.points],
                                 truth.boxes, truth.label)  # fmt: skip
    evaluation = Evaluation(metrics_of(results, distance, truth))
    evaluation.metrics |= vote_metrics(found, scenes.inside[rows], truth)
    evaluation.metrics["scenes_per_second"] = len(rows) / found.seconds
    evaluation.metrics[f"mAP25_{own}"] = evaluation.metrics["mAP25"]
    for name, again in every.items():
        scored = evaluate(again.detections, truth, len(scenes.classes), (0.25,))
        evaluation.metrics[f"mAP25_{name}"] = mean_precision(scored[0.25])
    evaluation.groups = {
        f"{metric}{name}": [100.0 * getattr(r, attribute) for r in results[value] if r is not None]
        for name, value in THRESHOLDS.items()
        for metric, attribute in (("mAP", "average_precision"), ("AR", "final_recall"))
    }
    evaluation.curves = {f"precision_recall_{n}": mean_curve(results[v], v) for n, v in THRESHOLDS.items()}
    boxes = "oriented" if scenes.oriented else "axis-aligned"
    evaluation.category = f"{scenes.title}: {boxes} boxes, {options.points} points"
    evaluation.extra = {"classes": class_table(scenes.classes, results, distance, truth)}
    evaluation.data = {"scenes": len(rows), "objects": int((truth.label >= 0).sum()), "classes": list(scenes.classes)}
    one = inputs(run, scenes, rows[:1])
    evaluation.count(run.model, lambda: run.model.predict(*one))
    evaluation.arrays = arrays_of(found, truth, distance, scenes, rows, options)
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: boxes of test scenes."""
    run = Run.of(context)
    stage = run.stage()
    rows = np.resize(run.test.rows("test", needed=True), run.options.test_batch)
    points, floor = inputs(run, run.test, rows)

    def forward(module: Detector, scenes: Batch) -> Tensor:
        return module.predict(scenes["points"], scenes["floor"], run.options.test_sampling).boxes

    return Workload(stage, stage.batches.batch(0), forward, {"points": points, "floor": floor}, context.device)


def inputs(run: Run, scenes: SceneSet, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return what the network sees of scenes: points ``[b, n, 3]`` and the z of the floor ``[b]``."""
    points, floor = np.array(scenes.points[rows, : run.options.points]), scenes.floor[rows]
    return torch.from_numpy(points).to(run.context.device), torch.from_numpy(floor).to(run.context.device)


def truth_of(scenes: SceneSet, rows: np.ndarray) -> Truth:
    return Truth(np.asarray(scenes.boxes[rows], np.float64), np.asarray(scenes.label[rows], np.int64))


Variants = dict[str, tuple[Sampling, int | None]]


def detect(run: Run, model: Detector, scenes: SceneSet, rows: np.ndarray, variants: Variants) -> dict[str, Found]:
    """Return the detections of `rows` for each way of sampling proposals (how, and how many).

    A detection is a proposal above the confidence, with enough points in it, that survives the suppression. Of a scene
    that stores more points than the task asks for, the first ones are used: a test does not depend on chance.
    """
    options = run.options
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in variants}
    seconds = dict.fromkeys(variants, 0.0)
    with scoring(run.context.spec.recipe.precision, run.context.device):
        for part in chunks(rows, options.test_batch):
            points, floor = inputs(run, scenes, part)
            started = time.perf_counter()
            looked = model.look(points, floor)
            shared = time.perf_counter() - started
            for name, (sampling, count) in variants.items():
                started = time.perf_counter()
                found = model.propose(*looked, sampling, count)
                kept = (found.objectness > options.confidence) & (points_in(found.boxes, points) >= options.min_points)
                parts[name].append({n: value.cpu().numpy() for n, value in (_arrays(found) | {"kept": kept}).items()})
                seconds[name] += shared + time.perf_counter() - started
    return {name: _suppressed(part, options, seconds[name]) for name, part in parts.items()}


def _suppressed(parts: list[dict[str, np.ndarray]], options: DetectionOptions, seconds: float) -> Found:
    started = time.perf_counter()
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    boxes, objectness, classes = (whole[name] for name in ("boxes", "objectness", "classes"))
    if not (np.isfinite(boxes).all() and np.isfinite(classes).all()):
        raise RunFailure("diverged", "predicted boxes are not finite")
    kept = nms(boxes, objectness, classes.argmax(-1), options.nms_iou, whole["kept"])
    detections = Detections(boxes, objectness[..., None] * classes, kept)
    seconds += time.perf_counter() - started
    return Found(detections, whole["seeds"], whole["votes"], whole["seed_index"], seconds)


def _arrays(found: Predictions) -> dict[str, Tensor]:
    return {name: getattr(found, name) for name in Predictions.__dataclass_fields__}


def points_in(boxes: Tensor, points: Tensor) -> Tensor:
    """Return how many of a scene's points ``[b, n, 3]`` lie in each of its boxes ``[b, p, 7]``: int64 ``[b, p]``."""
    counts = []
    for own, cloud in zip(boxes, points, strict=True):
        offset = cloud[None] - own[:, None, :3]
        cos, sin = own[:, 6:].cos(), own[:, 6:].sin()
        inside = (cos * offset[..., 0] + sin * offset[..., 1]).abs() <= own[:, 3:4] / 2
        inside &= (cos * offset[..., 1] - sin * offset[..., 0]).abs() <= own[:, 4:5] / 2
        inside &= offset[..., 2].abs() <= own[:, 5:6] / 2
        counts.append(inside.sum(1))
    return torch.stack(counts)


def vote_metrics(found: Found, inside: np.ndarray, truth: Truth) -> dict[str, float]:
    """Return the distance of seeds on objects, and of their votes, to the (nearest) centre of their object."""
    own = np.take_along_axis(inside, found.seed_index[..., None], axis=1).astype(np.int64)
    scene, seed = np.nonzero((own >= 0).any(-1))
    if not len(scene):
        return {}
    own = own[scene, seed]
    centres = truth.boxes[scene[:, None], np.maximum(own, 0), :3]
    metrics = {}
    for name, points in (("before", found.seeds), ("after", found.votes)):
        distance = np.linalg.norm(points[scene, seed][:, None] - centres, axis=-1)
        metrics[f"vote_distance_{name}"] = float(np.where(own >= 0, distance, np.inf).min(-1).mean())
    return metrics


def arrays_of(
    found: Found, truth: Truth, distance: np.ndarray, scenes: SceneSet, rows: np.ndarray, options: DetectionOptions
) -> dict[str, np.ndarray]:
    """Return the detections and the truth (for `rescore`) and a few scenes for pictures."""
    kept = found.detections.kept
    shown = slice(0, options.pictured)
    return {
        "detected_boxes": found.detections.boxes[kept].astype(np.float32),
        "detected_scores": found.detections.scores[kept].astype(np.float32),
        "detected_scene": np.nonzero(kept)[0].astype(np.int32),
        "true_boxes": truth.boxes.astype(np.float32),
        "true_label": truth.label.astype(np.int8),
        "distance": distance,
        "classes": np.array(scenes.classes),
        "shown_points": np.array(scenes.points[rows[shown], : options.points]).astype(np.float16),
        "shown_seeds": found.seeds[shown].astype(np.float16),
        "shown_votes": found.votes[shown].astype(np.float16),
        "shown_on_object": np.take_along_axis(
            np.asarray(scenes.inside[rows[shown], :, 0]) >= 0, found.seed_index[shown], axis=1
        ),
    }
