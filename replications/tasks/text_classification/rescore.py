"""Metrics from what a run keeps: classes told, labels, and what each masked word cost."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np


def class_mean(told: np.ndarray, label: np.ndarray) -> float:
    """Return how many texts got their own class, in %, as the mean over the classes that occur."""
    return 100.0 * float(np.mean([(told[label == own] == own).mean() for own in np.unique(label)]))


def rescore(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Derive metrics from ``label``, ``told_<labels>``, ``told_frozen``, and nats and hits of words."""
    numbers = sorted(int(name[5:]) for name in arrays if re.fullmatch(r"told_\d+", name))
    found = {f"accuracy_{n}": class_mean(arrays[f"told_{n}"], arrays["label"]) for n in numbers}
    found |= {"accuracy": found[f"accuracy_{numbers[0]}"], "accuracy_most": found[f"accuracy_{numbers[-1]}"]}
    if "told_frozen" in arrays:
        found["frozen_accuracy"] = class_mean(arrays["told_frozen"], arrays["label"])
    if "word_nats" in arrays:
        for name in ("word", "unigram"):
            metric = "masked_bits" if name == "word" else "unigram_bits"
            found[metric] = float(arrays[f"{name}_nats"].astype(np.float64).mean()) / math.log(2)
        found["masked_accuracy"] = 100.0 * float(arrays["word_right"].mean())
    return found
