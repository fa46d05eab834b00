"""What the rule for LFW's thresholds changes: ``python -m benchmarks.face_thresholds RESULTS``.

For each run of face verification below a results folder whose scores are cosines: the accuracy by this suite's rule
(the middle of the best interval between neighbouring scores) and by that of insightface's ``verification.py`` (of 400
thresholds on the squared distance, 0.01 apart, the first of the best), both fitted on the same pairs.
"""

import argparse
from pathlib import Path

import numpy as np

from replications.tasks.face_verification.metrics import PERCENT, fold_accuracies

GRID = np.arange(0, 4, 0.01)


def grid_accuracy(score: np.ndarray, same: np.ndarray, fold: np.ndarray) -> float:
    """Return the mean accuracy (%) over the folds, thresholds fitted on the grid on the pairs of the other folds."""
    distance = 2 - 2 * score
    right = (distance[:, None] < GRID) == same[:, None]
    found = [right[fold == k, right[fold != k].mean(0).argmax()].mean() for k in np.unique(fold)]
    return PERCENT * float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="a folder of runs, as results/mini")
    found = []
    for path in sorted(parser.parse_args().results.rglob("arrays.npz")):
        with np.load(path) as arrays:
            if "score" not in arrays or "calibration_score" in arrays or np.abs(arrays["score"]).max() > 1.0001:
                continue
            score, same, fold = (arrays[name] for name in ("score", "same", "fold"))
        exact = float(np.mean(fold_accuracies(score, same, fold)[1]))
        found.append((exact, grid_accuracy(score, same, fold)))
        print(f"{path.parent}: exact {exact:.3f}, grid {found[-1][1]:.3f}, difference {found[-1][1] - exact:+.3f}")
    if found:
        gap = np.subtract(*np.array(found).T[::-1])
        print(f"{len(gap)} runs: mean difference {gap.mean():+.3f}, largest {gap[np.abs(gap).argmax()]:+.3f} points")


if __name__ == "__main__":
    main()
