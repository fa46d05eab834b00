"""Weights that a run starts from: a backbone trained on ImageNet, or a whole detector to finetune.

They are prepared sets like any other (arrays named like the parameters; `replications.datasets.weights`), named by the
data roles ``backbone`` and ``checkpoint``.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.detection.model import Detector

HEAD = ("fc.",)  # of a classifier, which a detector has no use for


def load_initial(detector: Detector, data: Mapping[str, str], data_root: Path) -> None:
    """Fill a detector from the sets of the roles ``checkpoint`` and ``backbone``, where the run's data has them.

    A checkpoint fills what has the same name and shape and must fill all but the class head, which a set with other
    classes starts from scratch; a backbone must fill the whole backbone. Raises UserError where they do not.
    """
    if "backbone" in data:
        state = _read(data["backbone"], data_root)
        state = {name: value for name, value in state.items() if not name.startswith(HEAD)}
        fill(detector.backbone_body(), state, f"data set '{data['backbone']}'", ())
    if "checkpoint" in data:
        state = detector.from_official(_read(data["checkpoint"], data_root))
        fill(detector, state, f"data set '{data['checkpoint']}'", detector.class_heads)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str, may_differ: tuple[str, ...]) -> None:
    """Fill a module; parameters that start with `may_differ` stay as they are where the shape is another.

    Raises UserError, naming the first, where anything else is missing, left over or of another shape.
    """
    own = module.state_dict()
    usable = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in own:
            raise UserError(f"{source}: '{name}' is not a parameter of this model (another backbone or depth?)")
        if own[name].shape == value.shape:
            usable[name] = value
        elif not name.startswith(may_differ) or not may_differ:
            raise UserError(
                f"{source}: '{name}' has shape {list(value.shape)}, this model's has {list(own[name].shape)} "
                "(set the model's options as the file has them)"
            )
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    if missing:
        raise UserError(f"{source}: '{missing[0]}' is missing ({len(missing)} in all): another model or layout")
    module.load_state_dict(usable, strict=False)


def read_file(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth`` file (no code runs); of a dictionary, the value of `key`.

    Raises UserError where the file is no such thing.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as a file of weights ({first})") from error
    if key is not None and isinstance(content, dict) and key in content:
        content = content[key]
    if not (isinstance(content, dict) and content and all(isinstance(v, Tensor) for v in content.values())):
        raise UserError(f"{path} holds no weights by name{f' under {key!r}' if key else ''}: another layout")
    return content


def _read(key: str, data_root: Path) -> dict[str, Tensor]:
    from replications.datasets.arrays import open_set

    return {name: torch.from_numpy(np.array(array)) for name, array in open_set(key, data_root).arrays.items()}
