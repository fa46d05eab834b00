"""Streams of features that others have extracted from videos: THUMOS'14 and TVSeries in their published layouts.

The folder has one ``.npy`` a video and kind of feature, float ``[chunks, width]``, and ``data_info.json``, which names
the classes and the videos of each part. Labels are either one ``.npy`` a video, ``[chunks, classes]`` with zeros and
ones, or one pickle a part: video -> ``{"anno": the same array}``.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from replications.datasets.actions.form import write_labels
from replications.datasets.lines import read_text
from replications.datasets.rows import require_finite
from replications.errors import UserError
from replications.parsing import parse
from replications.progress import progress
from replications.spec import Strict

INFO = "data_info.json"
PARTS = {"train_session_set": 0, "test_session_set": 2}
IN_A_PICKLE = {("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numpy", "ndarray"), ("numpy", "dtype")}


class Options(Strict):
    """Options of a set. Paths are below the folder; ``{video}`` stands for a video's name."""

    name: str = Field(description="of the data set in data_info.json")
    features: tuple[str, ...] = Field(min_length=1, description="files whose features are put side by side")
    widths: tuple[int, ...] = Field(description="numbers that each of them has")
    labels: str | None = Field(None, description="file of a video's labels")
    pickles: tuple[str, str] | None = Field(None, description="files of all labels, of training and test videos")
    ambiguous: str | None = Field(None, description="class whose frames are neither trained on nor scored")

    @model_validator(mode="after")
    def _consistent(self) -> "Options":
        if (self.labels is None) == (self.pickles is None):
            raise ValueError("give either 'labels' or 'pickles'")
        if len(self.features) != len(self.widths):
            raise ValueError(f"{len(self.features)} features and {len(self.widths)} widths")
        return self


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Write a set of streams (see `form`) of the source ``videos``. Raises UserError, naming the file, where one is
    missing or of another form."""
    wanted, root = parse(Options, options, "options of the features"), files["videos"]
    info = read_info(root / INFO, wanted.name)
    videos = [(video, split) for part, split in PARTS.items() for video in info[part]]
    pickled = {}
    if wanted.pickles:
        pickled = {split: read_pickle(root / path) for split, path in zip(PARTS.values(), wanted.pickles, strict=True)}
    labels = []
    for video, split in videos:
        where = root / (wanted.pickles[split // 2] if wanted.pickles else wanted.labels.format(video=video))
        labels.append(_label(where, pickled.get(split), video))
    classes = _classes(info["class_index"], {label.shape[1] for label in labels}, root)
    shown = [name for name in classes if name != wanted.ambiguous]
    keep = [classes.index(name) for name in shown]
    valid = [
        np.ones(len(label), bool) if wanted.ambiguous is None else label[:, classes.index(wanted.ambiguous)] == 0
        for label in labels
    ]
    total, place = sum(map(len, labels)), 0
    out = np.lib.format.open_memmap(target / "features.npy", "w+", np.float32, (total, sum(wanted.widths)))
    with progress("reading features", len(videos), "videos") as counter:
        for (video, _), label in zip(videos, labels, strict=True):
            out[place : place + len(label)] = _features(wanted, root, video, len(label))
            place += len(label)
            counter.advance(1)
    out.flush()
    split = np.array([split for _, split in videos], np.int8)
    return write_labels(target, [label[:, keep] for label in labels], valid, split, shown)


def read_info(path: Path, name: str) -> dict[str, list[str]]:
    """Return classes and videos of a data set in ``data_info.json``."""
    try:
        info = json.loads(read_text(path))[name]
        lists = {key: info[key] for key in ("class_index", *PARTS)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} has no lists of '{name}' (class_index, {', '.join(PARTS)}): {error!r}") from None
    for key, value in lists.items():
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise UserError(f"{path}: {key} of '{name}' must be a list of names")
    return lists


class _Arrays(pickle.Unpickler):
    """Reads arrays, numbers and containers; a pickle that calls anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and (module.split(".")[-1], name) in IN_A_PICKLE:
            return getattr(np, name) if module == "numpy" else getattr(np._core.multiarray, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> dict[str, Any]:
    """Return a pickled dictionary of arrays; raises UserError where it is anything else. Nothing in it is run."""
    try:
        with path.open("rb") as stream:
            found = _Arrays(stream).load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises many kinds
        raise UserError(f"{path} is no pickle of arrays: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a dictionary of videos")
    return found


def _label(path: Path, pickled: dict[str, Any] | None, video: str) -> np.ndarray:
    """Return a video's labels, uint8 [chunks, classes]."""
    if pickled is None:
        label = _array(path)
    elif not isinstance(entry := pickled.get(video), dict) or not isinstance(label := entry.get("anno"), np.ndarray):
        raise UserError(f"{path} has no labels ('anno') of {video}")
    if label.ndim != 2 or not len(label) or not np.isin(label, (0, 1)).all():
        raise UserError(f"{path}: labels of {video} must be zeros and ones [chunks, classes], not {list(label.shape)}")
    return label.astype(np.uint8)


def _features(options: Options, root: Path, video: str, chunks: int) -> np.ndarray:
    parts = []
    for pattern, width in zip(options.features, options.widths, strict=True):
        path = root / pattern.format(video=video)
        found = _array(path)
        if found.shape != (chunks, width):
            raise UserError(f"{path} is {list(found.shape)}, expected {chunks} chunks (its labels) of {width} numbers")
        parts.append(found.astype(np.float32))
        require_finite(parts[-1], str(path))
    return np.concatenate(parts, axis=1)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: see what 'python -m replications list data' says of its set") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no array: {' '.join(str(error).split())}") from None


def _classes(names: list[str], widths: set[int], root: Path) -> list[str]:
    """Return the classes of the labels' columns; lists of some data sets leave out the background, column 0."""
    if widths == {len(names)}:
        return names
    if widths == {len(names) + 1}:
        return ["Background", *names]
    raise UserError(f"{root}: labels have {sorted(widths)} columns, but {INFO} names {len(names)} classes")
