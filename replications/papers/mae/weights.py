"""Reading checkpoints in the layout of the official release: autoencoders, their encoders, finetuned classifiers.

The names are those of this suite's own modules; a ``.pth`` file holds them under ``model``. All were trained on images
normalised by ImageNet's mean and standard deviation (``main_pretrain.py``, ``util/datasets.py``), not in [-1, 1].
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from replications.errors import UserError
from replications.layers.images.model import Classifier, Loaded
from replications.training.augment import IMAGENET

WRAPPERS = ("model", "state_dict")


def read(classifier: Classifier, path: Path) -> None:
    """Fill `classifier`, or its pretrainer, whichever the file holds, and say so in ``classifier.loaded``.

    A file with ``head.weight`` is a finetuned classifier; one with ``decoder_pred.weight`` an autoencoder; one with
    neither, an encoder. Raises UserError where the file cannot be read, or a name or shape does not fit.
    """
    state = _state(Path(path))
    if "head.weight" in state:
        loaded, optional = Loaded("classifier", classifier, IMAGENET), ()
    elif "decoder_pred.weight" in state:
        loaded, optional = Loaded("autoencoder", classifier.pretrainer(), IMAGENET), ()
    else:
        loaded, optional = Loaded("encoder", classifier.pretrainer(), IMAGENET), ("decoder_", "mask_token")
    _fill(loaded.network, state, optional, Path(path).name)
    classifier.loaded = loaded


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of these formats raise many kinds of errors
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path.name} is not a weights file that can be read safely ({reason})") from error
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path.name} holds no weights by name, but {type(state).__name__}")
    return state


def _fill(target: nn.Module, state: dict[str, Tensor], optional: tuple[str, ...], name: str) -> None:
    own = target.state_dict()
    missing = [key for key in own if key not in state and not key.startswith(optional)]
    unknown = [key for key in state if key not in own]
    if missing or unknown:
        what = f"it has no {missing[0]}" if missing else f"{unknown[0]} has no place"
        raise UserError(
            f"{name} is not in the layout of MAE's checkpoints for this network: {what} "
            f"({len(missing)} names missing, {len(unknown)} unknown; the tier's depth and pooling must be the file's)"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise UserError(
                f"{name}: {key} has shape {list(value.shape)}, this tier's network {list(own[key].shape)} "
                "(choose the tier, or set options.vit, that the file was trained for)"
            )
    target.load_state_dict(own | state)
