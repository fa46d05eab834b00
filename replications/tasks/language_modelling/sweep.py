"""What length costs a method, beside softmax attention of the same size (`replications.measurement.lengths`).

The references are this task's own: a pre-norm Transformer of the tier's width, depth and heads, its attention fused
(`sdpa`) or materialised (`naive`).
"""

from replications.layers.text.attention import SoftmaxAttention
from replications.layers.text.blocks import FeedForward
from replications.layers.text.model import SequenceModel, residual_model
from replications.measurement.lengths import REFERENCES, Sweep, measure_length, summarise
from replications.measurement.sweep import fit_power_law
from replications.tasks.language_modelling.data import BYTES
from replications.tasks.language_modelling.options import SweepOptions
from replications.tasks.run import Context


def reference_model(attention: str, vocabulary: int, width: int, depth: int, heads: int) -> SequenceModel:
    """Return the Transformer that methods are timed against."""
    return residual_model(
        lambda: SoftmaxAttention(width, heads, True, attention), depth, vocabulary, None,
        width=width, norm="layer", feed_forward=lambda: FeedForward(width),
    )  # fmt: skip


def decoding_bytes(model: SequenceModel, capacity: int) -> int:
    """Return the bytes that decoding keeps of one sequence of up to `capacity` tokens."""
    return sum(part.nbytes for state in model.start(1, capacity) for part in state.values())


def length_sweep(context: Context, options: SweepOptions) -> Sweep:
    """Measure the method of a run and the references at each length; see `summarise` for what comes of it."""
    shared = context.spec.options
    size = {name: shared[name] for name in ("width", "depth", "heads")}
    points: dict[str, dict[int, dict[str, float | None]]] = {"method": {}, **{name: {} for name in REFERENCES}}
    state_bytes: dict[int, int] = {}
    for n in options.lengths:
        # as a run would build it for that length: what depends on the training length is right at every point
        models = {"method": context.build("sweep", vocabulary=BYTES + 1, length=n, causal=True, num_classes=None)}
        if models["method"].decodes:
            state_bytes[n] = decoding_bytes(models["method"], n)
        for name in REFERENCES:
            if name == "sdpa" or n <= options.naive_up_to:
                models[name] = reference_model(name, BYTES + 1, **size)
        precision = context.spec.recipe.precision
        memory = options.memory_limit_gib if options.isolated else None
        found = measure_length(models, n, options.stamps, context.device, precision, memory)
        for name, point in found.items():
            points[name][n] = point
    swept = summarise(points)
    if state_bytes:
        swept.metrics["state_exponent"] = fit_power_law(list(state_bytes), list(state_bytes.values())).exponent
        swept.extra["state_bytes"] = state_bytes
    swept.extra["settings"] = {"deterministic": True, "precision": context.spec.recipe.precision}
    return swept
