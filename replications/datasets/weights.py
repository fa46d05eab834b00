"""Weights in a ``.pth`` file as a prepared set: an array for each parameter, under its name.

Initial weights are part of a run's data: they are fetched, checked and fingerprinted like any other set.
"""

import re
from pathlib import Path

import numpy as np
from pydantic import Field

from replications.errors import UserError
from replications.parsing import parse
from replications.spec import Strict

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # becomes a file's: it stays in its folder


class Options(Strict):
    """Options of the set."""

    key: str | None = Field(None, description="where in the file the weights are; null: at its top")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write each parameter of the source ``weights`` as an array; raises UserError where the file holds none."""
    import torch

    wanted, path = parse(Options, options, "options of the weights"), files["weights"]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content if wanted.key is None else content[wanted.key]
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} holds no weights by name ({type(error).__name__}: {first})") from error
    for name in arrays:
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            told = f"{path}: {str(name)[:100]!r} is not the name of a parameter"
            raise UserError(f"{told} (letters, digits, '_', '-' and '.'): take another file")
    for name, array in arrays.items():
        np.save(target / f"{name}.npy", array)
    return {"parameters": int(sum(array.size for array in arrays.values()))}
