"""What a code keeps of its input beyond the class: what a linear map of it gives back."""

import numpy as np

RIDGE = 1e-3  # of the code's variance


def restored(code: np.ndarray, x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what class and code ``[n, K]``, and the class alone, tell of the inputs' second half: ``[m, D]`` each.

    The first half gives the classes' means and the least squares of what is left, by a map of the standardised code.
    """
    half = len(x) // 2
    code = (code - code[:half].mean(0)) / (code[:half].std(0) + 1e-12)
    known = np.eye(label.max() + 1)[label]
    inputs = np.concatenate([known, code], 1).astype(np.float64)

    def told(features: np.ndarray, ridge: float) -> np.ndarray:
        first = features[:half]
        gram = first.T @ first + ridge * half * np.eye(features.shape[1])
        return features[half:] @ np.linalg.solve(gram, first.T @ x[:half])

    return told(inputs, RIDGE), told(known, 1e-9)


def forgotten(code: np.ndarray, x: np.ndarray, label: np.ndarray) -> float:
    """Return how much of the inputs' variance within classes `restored` leaves, in %; 100: nothing but the class."""
    both, class_alone = restored(code, x, label)
    rest = x[len(x) // 2 :]
    return float(100 * np.square(rest - both).sum() / np.square(rest - class_alone).sum())
