"""A run from its spec to its evaluation: the detector is trained on windows, then reads the test streams, once."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from replications.errors import RunFailure, UserError
from replications.layers.actions.model import ActionDetector
from replications.records import Curve
from replications.tasks.data import set_key
from replications.tasks.online_action.data import StreamBatches, Streams, open_streams
from replications.tasks.online_action.metrics import evaluate
from replications.tasks.run import Context, Evaluation
from replications.training.determinism import generator_for, scoring
from replications.training.stage import Batch, Stage, Workload


def execute(context: Context) -> Evaluation:
    """Train the detector and score it on the test streams, now and ahead."""
    data = open_streams(set_key(context, "streams"), context.data_root)
    stage = make_stage(context, data)
    detector = stage.module
    result = context.train(stage)
    detector.eval()
    arrays = data.labels("test")
    with scoring(context.spec.recipe.precision, context.device):
        arrays["scores"] = score(context, detector, data, "test")
        metrics, actions = evaluate(arrays)
        metrics["leak"] = leak(context, detector, data)
    metrics["step_ms"] = 1000 * result.seconds / result.steps
    evaluation = Evaluation(metrics, category=f"{data.title}: frames pooled, without background", arrays=arrays)
    names, trained = data.classes[1:], data.labels("train")["target"].any(0)
    evaluation.extra["untrained"] = [name for name, seen in zip(names, trained, strict=True) if not seen]
    evaluation.extra["ap"] = {name: value for name, value in zip(names, actions, strict=True) if np.isfinite(value)}
    evaluation.extra["classes"] = data.classes
    ahead = [metrics["map"], *(metrics[f"map_ahead_{i}"] for i in range(1, arrays["scores"].shape[1]))]
    evaluation.curves["ahead"] = Curve(
        x_label="frames ahead", y_label="mAP, %", x=list(map(float, range(len(ahead)))), y=ahead
    )
    evaluation.data["streams"] = {"set": data.key} | {
        split: len(data.rows(split)) for split in ("train", "validation", "test")
    }
    frames = torch.zeros(1, context.options.window, data.features.shape[1], device=context.device)
    evaluation.count(detector, lambda: detector.logits(frames))
    return evaluation


def workload(context: Context) -> Workload:
    """Return a training step, and inference: the logits of windows."""
    stage = make_stage(context, open_streams(set_key(context, "streams"), context.data_root))
    batch = stage.batches.batch(0)

    def forward(module: ActionDetector, inputs: Batch) -> Tensor:
        return module.logits(inputs["features"])[0]

    return Workload(stage, batch, forward, {"features": batch["features"]}, context.device)


def make_stage(context: Context, data: Streams) -> Stage:
    """Return what is trained; validation scores the validation streams, where there are any.

    Raises UserError where no test stream is longer than the horizon.
    """
    options, recipe = context.options, context.spec.recipe
    longest = int(np.diff(data.labels("test")["bounds"]).max())
    if longest <= options.horizon:
        raise UserError(
            f"task option 'horizon': {options.horizon} frames ahead, but test streams have {longest} or fewer"
        )
    sizes = {"features": data.features.shape[1], "classes": len(data.classes)}
    detector = context.build("detector", **sizes, window=options.window, horizon=options.horizon).to(context.device)
    batches = StreamBatches(data, options.window, options.horizon, recipe.batch_size, context.spec.seed, context.device)

    def validate(module: ActionDetector) -> dict[str, float]:
        with scoring(recipe.precision, context.device):
            found = evaluate({**data.labels("validation"), "scores": score(context, module, data, "validation")})
        return found[0]

    return Stage("train", detector, batches, recipe, validate if len(data.rows("validation")) else None)


def score(context: Context, detector: ActionDetector, data: Streams, split: str) -> np.ndarray:
    """Return log-probabilities of the actions, float16 ``[frames, 1 + ahead, actions]``, in the set's order.

    Streams of like length are scored side by side. Raises RunFailure ``diverged`` where a score is NaN.
    """
    options, streams = context.options, data.rows(split, needed=True)
    lengths = {int(stream): data.bounds[stream + 1] - data.bounds[stream] for stream in streams}
    waiting, found = sorted(lengths, key=lengths.get), {}
    for first in range(0, len(waiting), options.streams_at_once):
        now = waiting[first : first + options.streams_at_once]
        longest = lengths[now[-1]]
        frames = [torch.from_numpy(np.array(data.features[data.frames(stream)])).float() for stream in now]
        padded = torch.stack([F.pad(part, (0, 0, 0, int(longest) - len(part))) for part in frames])
        with torch.no_grad():
            scores = detector.score(padded.to(context.device), options.windows_at_once)[..., 1:].half().cpu().numpy()
        found |= {stream: row[: lengths[stream]] for stream, row in zip(now, scores, strict=True)}
    scores = np.concatenate([found[int(stream)] for stream in streams])
    if np.isnan(scores).any():
        raise RunFailure("diverged", f"scores of the {split} streams are not numbers")
    return scores


@torch.no_grad()
def leak(context: Context, detector: ActionDetector, data: Streams) -> float:
    """Return the largest change of a log-probability in the first half of a stream by other frames in its second."""
    stream = torch.from_numpy(np.array(data.features[data.frames(int(data.rows("test")[0]))])).float()
    half = len(stream) // 2
    other = stream.clone()
    other[half:] = torch.randn(other[half:].shape, generator=generator_for("online action", "leak"))
    scores = [
        detector.score(frames[None].to(context.device), context.options.windows_at_once)[0, :half]
        for frames in (stream, other)
    ]
    return float((scores[0] - scores[1]).abs().max()) if half else 0.0
