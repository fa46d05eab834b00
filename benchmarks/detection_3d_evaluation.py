"""How long does the evaluation of 3-D detection take? Suppression and mAP of 1,000 scenes of 256 proposals.

python benchmarks/detection_3d_evaluation.py
"""

import time

import numpy as np

from replications.layers.rooms.boxes import nms
from replications.tasks.detection_3d.evaluation import Detections, Truth, evaluate

SCENES, PROPOSALS, OBJECTS, CLASSES = 1000, 256, 20, 10


def boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes of 0.3 to 2 m in a room of 6 m."""
    parts = rng.uniform(-3, 3, (*shape, 3)), rng.uniform(0.3, 2, (*shape, 3)), rng.uniform(-np.pi, np.pi, (*shape, 1))
    return np.concatenate(parts, axis=-1)


def main() -> None:
    rng = np.random.default_rng(0)
    truth = Truth(boxes(rng, (SCENES, OBJECTS)), rng.integers(0, CLASSES, (SCENES, OBJECTS)))
    found, scores = boxes(rng, (SCENES, PROPOSALS)), rng.random((SCENES, PROPOSALS, CLASSES))
    every = np.ones((SCENES, PROPOSALS), bool)
    wall, cpu = time.perf_counter(), time.process_time()
    kept = nms(found, scores.max(-1), scores.argmax(-1), 0.25, every)
    suppressed = time.process_time() - cpu
    evaluate(Detections(found, scores, every), truth, CLASSES)  # all of them: the dearer case
    print(f"{SCENES} scenes x {PROPOSALS} proposals, {kept.mean():.0%} kept by suppression")
    print(f"suppression {suppressed:.1f} s, with mAP at two thresholds {time.process_time() - cpu:.1f} s of CPU")
    print(f"wall {time.perf_counter() - wall:.1f} s")


if __name__ == "__main__":
    main()
