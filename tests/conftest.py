"""What holds for every test."""

import random
import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_draws():
    """A test draws the same numbers whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
