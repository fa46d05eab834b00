"""Checkpoints in the layout of the authors' code: ``{"model": {"backbone.0.body.conv1.weight": ...}, ...}``."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.detection.weights import fill, read_file

OFFICIAL, OWN = "backbone.0.body.", "backbone.body."
HEAD = ("class_embed.weight", "class_embed.bias")
MASK_MODEL = "detr."  # prefix of all names in a checkpoint with a mask head


def renamed(state: dict[str, Tensor], category_ids: Sequence[int], outputs: int) -> dict[str, Tensor]:
    """Return the weights under this module's names.

    The authors' class head has an output for each category id up to the greatest (91 for COCO, of which 80 are used)
    and one for "no object": those of `category_ids` are picked where the head is of that form. Raises UserError where
    the names are not those of the official code.
    """
    if not any(name.startswith(OFFICIAL) for name in state):
        raise UserError(f"not in the layout of the official DETR code: no name starts with '{OFFICIAL}'")
    state = {OWN + name.removeprefix(OFFICIAL) if name.startswith(OFFICIAL) else name: v for name, v in state.items()}
    rows = len(state["class_embed.weight"]) if HEAD[0] in state else outputs
    if rows != outputs and category_ids and rows == max(category_ids) + 2:
        picked = [*category_ids, rows - 1]
        state |= {name: state[name][picked] for name in HEAD}
    return state


def load(module: nn.Module, path: Path) -> None:
    """Fill a DETR from a ``.pth`` file in the official layout; raises UserError where it is of another one."""
    state = read_file(path, key="model")
    if all(name.startswith(MASK_MODEL) for name in state if name.startswith((MASK_MODEL, "backbone"))) and any(
        name.startswith(MASK_MODEL) for name in state
    ):
        raise UserError(f"{path} has a mask head: its boxes are in the checkpoint it was made from")
    try:
        state = module.from_official(state)
    except UserError as error:
        raise UserError(f"{path} is {error}") from None
    fill(module, state, str(path), ())
