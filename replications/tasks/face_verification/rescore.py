"""The metrics of a finished run, recomputed from the scores beside its record."""

from collections.abc import Mapping

import numpy as np

from replications.tasks.face_verification.metrics import Calibration, verification_metrics


def rescore(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the metrics that scores decide, by the names of the record; the angles need the embeddings.

    `arrays` is what a run leaves as ``arrays.npz``: ``score`` (primary verifier) and ``score_<name>``, with
    ``same``, ``fold`` and ``error`` for each pair, and ``calibration_*`` where thresholds were fitted on other pairs.
    """
    metrics: dict[str, float] = {}
    for name in arrays:
        if name != "score" and not name.startswith("score_"):
            continue
        suffix = name.removeprefix("score")
        calibration = None
        if f"calibration_score{suffix}" in arrays:
            calibration = Calibration(
                arrays[f"calibration_score{suffix}"], arrays["calibration_same"], arrays["calibration_fold"]
            )
        result = verification_metrics(
            arrays[name],
            same=arrays["same"],
            fold=arrays["fold"],
            error=arrays["error"],
            calibration=calibration,
        )
        metrics |= {metric + suffix: value for metric, value in result.metrics.items()}
    return metrics
