"""Worker functions for the tests of filling rows; in a module of their own, which a worker imports fast."""

import os
import signal
import time

import numpy as np

from replications.errors import UserError

FORM = {"square": ((20, 2), "int64"), "name": ((20,), "int32")}


def square(values: list[int]) -> dict[str, np.ndarray]:
    if 13 in values and os.environ.get("UNLUCKY"):
        raise UserError("row 13 cannot be read")
    numbers = np.array(values)
    return {"square": np.stack([numbers**2, -numbers], 1), "name": numbers.astype(np.int32)}


def die(values: list[int]) -> dict[str, np.ndarray]:
    os.kill(os.getpid(), signal.SIGKILL)


def tell_and_sleep(values: list[int]) -> dict[str, np.ndarray]:
    print(os.getpid(), flush=True)
    time.sleep(600)
