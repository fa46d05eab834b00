"""Systems and identities: what can be counted, computed or timed without training anything.

A row is one function of a paper's folder. It returns the two sides of a statement that holds exactly (bytes that were
counted and the formula's, a determinant and a trace), and metrics of its own. The task judges the statement and sets
what rows share: the seed, and how long something is timed.
"""

import re

from replications.spec import Strict
from replications.tasks.base import Metric, Metrics, Task

RING = {
    "bytes_ratio": Metric("Bytes", "x", False, "sent by the busiest rank, over 2 (n - 1) / n of the array", 6),
    "busiest_ratio": Metric(
        "Root's bytes", "x", True, "through the root of gather and broadcast, over those of a rank of the ring", 6
    ),
    "ranks_differ": Metric("Ranks differ", "values", False, "whose bits are not the same in all ranks", 0),
    "rounding_share": Metric("Rounding", "", False, "largest error of the sum over the bound of float32 rounding", 3),
    "speedup_large": Metric(
        "Speed-up, large", "x", True, "gather and broadcast over the ring, largest array", 2, "log", timed=True
    ),
    "speedup_small": Metric(
        "Speed-up, small", "x", True, "gather and broadcast over the ring, smallest array", 2, "log", timed=True
    ),
    "library_speedup": Metric(
        "Speed-up of torch", "x", False, "the ring over torch's all_reduce, largest array", 2, "log", timed=True
    ),
    "latency_us": Metric("Latency", "us", False, "of a message, fitted", 1, "log", timed=True),
    "bandwidth": Metric("Bandwidth", "GiB/s", True, "of a rank, fitted", 2, "log", timed=True),
    "fit_error": Metric("Fit", "%", False, "median relative error of the two-parameter fit over sizes", 1, timed=True),
}
FIELDS = {
    "support_difference": Metric("Support", "pixels", False, "in which gradient and formula's square differ", 0),
    "growth_exponent": Metric("Growth", "", True, "p of spread ~ depth^p", 3),
    "area_exponent": Metric("Area", "", True, "p of (effective area / theoretical area) ~ depth^p", 3),
    "shape_exponent": Metric("Shape", "", False, "p of (distance to a Gaussian) ~ depth^p", 3),
    "spread": Metric("Spread", "pixels", True, "standard deviation of the effective field along an axis", 3),
    "spread_error": Metric("Spread, error", "pixels", False, "largest difference to the closed form over depths", 9),
    "gaussian_distance": Metric("Gaussian", "", False, "total variation between the profile and a Gaussian", 4),
}
TRACES = {
    "float32_error": Metric("Error, float32", "", False, "of the identity in single precision, relative", 7),
    "cost_ratio": Metric("Cost", "x", True, "exponential and determinant over the trace", 1, "log", timed=True),
    "variance_ratio": Metric("Variance", "x", False, "of random signs over the closed form", 3),
    "gaussian_variance_ratio": Metric(
        "Variance, Gaussian", "x", False, "of Gaussian probes over that of random signs", 3, "log"
    ),
    "probe_speedup": Metric("Probe", "x", True, "exact trace over one probe, in time", 2, "log", timed=True),
    "flow_error": Metric("Flow", "", False, "integrated trace less the log determinant of the flow's Jacobian", 9),
}
AVERAGES = {
    "loss_ratio": Metric("Loss", "x", False, "of the averaged weights over the last iterate's", 4, "log"),
    "theory_ratio": Metric("Loss, theory", "x", False, "loss of the averaged weights over the closed form", 4, "log"),
    "bits_changed": Metric("Bits changed", "values", False, "trained weights that differ where an average is kept", 0),
}
UNITS = {
    "functions_share": Metric("Functions", "%", True, "of the Boolean functions of three inputs that it computes"),
    "and_accuracy": Metric("AND", "%", True, "points of AND that the best weights get right"),
    "xor_accuracy": Metric("XOR", "%", True, "the same of exclusive or"),
}
UPSAMPLING = {
    "nyquist_share": Metric("Nyquist", "", False, "share of an output's energy that repeats every two pixels", 4),
    "input_nyquist_share": Metric("Nyquist, input", "", False, "the same of what the layer is given", 4),
    "even_spread": Metric(
        "Spread, equal weights", "", False, "s.d. over mean of the output for a constant input, equal weights", 4
    ),
}


def _field(match: re.Match[str]) -> Metric:
    """``field_<network>``: a theoretical receptive field."""
    return Metric(match["network"], "pixels", True, f"theoretical receptive field of {match['network']}", 0)


def _padding(match: re.Match[str]) -> Metric:
    """``padding_<network>``: how far the first unit's field begins before the image."""
    return Metric(f"{match['network']}, padding", "pixels", True, "from the image's edge to the first unit's field", 0)


TASK = Task(
    name="systems_measurement",
    title="Systems and identities, measured",
    primary_metric="identity_error",
    metrics=Metrics(
        {
            "identity_error": Metric(
                "Identity", "", False, "largest difference of the two sides of the row's exact statement", 6
            )
        },
        {r"field_(?P<network>\w+)": _field, r"padding_(?P<network>\w+)": _padding},
        further=RING | FIELDS | TRACES | AVERAGES | UPSAMPLING | UNITS,
    ),
    options=Strict,
    build={"effort": "how long a step is timed (measurement.protocol.Effort)"},
    returns="layers.systems.measured:Measured",
)
