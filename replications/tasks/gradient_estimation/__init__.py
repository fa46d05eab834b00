"""Gradients of expectations E_q[f(y)] in the parameter of q: how biased and how noisy an estimator is.

Each seed draws problems whose gradient is known (`problems`). Estimators of one-hot variables also train an
autoencoder with one-hot latents; it is judged by hard draws, and their gradients' variance is compared at one
checkpoint that is the same for all methods of a seed.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.gradient_estimation.options import GradientOptions

BIAS = "|mean estimate - gradient| / |gradient|, squares summed over the problems"
VARIANCE = "variance of an estimate / |gradient|^2, times the evaluations of f that it takes"
NAMED = {
    "bias_in_errors": Metric(
        "Bias", "MC errors", False, "over its Monte-Carlo error, on all problems: about 1 without bias", 1, scale="log"
    ),
    "evaluations": Metric("Evaluations", "", False, "of f for one estimate", 0),
}
ONE_HOT = {
    "bias": Metric("Relative bias", "", False, f"{BIAS}; one-hot variables, the method's own temperature", 3),
    "bias_error": Metric("Bias's MC error", "", False, "of `bias`: what it is of an unbiased estimator", 3),
    "variance": Metric("Relative variance", "", False, f"{VARIANCE}; one-hot variables", 2, scale="log"),
    "least_bias_rise": Metric(
        "Least rise of bias", "x", True, "smallest ratio of biases at a temperature and the one below", 2, scale="log"
    ),
    "least_variance_fall": Metric(
        "Least fall of variance", "x", True, "smallest ratio of variances at a temperature and the one above", 2, "log"
    ),
}
NETWORK = {
    "nelbo": Metric("-ELBO", "nats", False, "minus the bound of a test image, hard draws", 2),
    "nelbo_gap": Metric(
        "Gap of own draws", "nats", False, "`nelbo` less the same at the estimator's own draws, relaxed ones too", 2
    ),
    "kl": Metric("KL", "nats", True, "of the latents' posterior from the uniform prior", 2),
    "encoder_variance": Metric(
        "Encoder variance",
        "",
        False,
        "variance of the encoder's gradient on a batch at the common checkpoint, times the evaluations of f",
        4,
        scale="log",
    ),
}


def _at(match: re.Match[str]) -> Metric:
    """``bias_tau0p5``, ``variance_dim10``: a figure at a temperature, or on Gaussians of a dimension."""
    figure, kind, number = match["figure"], match["kind"], match["number"].replace("p", ".")
    place = f"temperature {number}" if kind == "tau" else f"{number} dimensions"
    about = {"bias": BIAS, "bias_error": "Monte-Carlo error of the bias", "variance": VARIANCE}[figure]
    title = {"bias": "Bias", "bias_error": "Bias's MC error", "variance": "Variance"}[figure]
    scale = "log" if figure == "variance" else "linear"
    return Metric(f"{title}, {place}", "", False, f"{about}; {place}", 3, scale=scale)


TASK = Task(
    name="gradient_estimation",
    title="Gradient estimation",
    primary_metric="bias_in_errors",
    metrics=Metrics(
        NAMED,
        {r"(?P<figure>bias|bias_error|variance)_(?P<kind>tau|dim)(?P<number>\d+(p\d+)?)": _at},
        further=ONE_HOT | NETWORK,
    ),
    options=GradientOptions,
    returns="layers.gradients.model:Estimator",
)
