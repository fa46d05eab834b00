"""Toy densities: how near do generated points come to a density in the plane that is known exactly?

A method offers a `PointModel` (``layers/planar/model.py``). The category names the density, how many samples are
judged, and what as many real points reach: a comparison is made at equal counts only.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.toy_density.options import ToyOptions

SAMPLED = {
    "sliced_wasserstein": Metric(
        "Sliced W1",
        "",
        False,
        "mean W1 distance to as many real points, over 64 directions; floor: see the category",
        4,
    ),
    "bad_share": Metric("Bad", "%", False, "samples further than 3 s.d. from the density's centres or circle", 2),
    "mode_error": Metric("Modes", "", False, "total variation between shares of samples by mode and the true ones", 4),
    "kl": Metric(
        "KL, cells", "nats", False, "of the samples' shares in 24 x 24 cells from the exact ones", 3, scale="log"
    ),
    "evaluations": Metric("Evaluations", "", False, "of the denoiser, a sample", 0, scale="log"),
}
FURTHER = {
    "score_error": Metric("Score", "", False, "mean of sigma^2 |score - exact score|^2 / 2 over nine levels", 5),
    "true_log_prob": Metric("log p", "nats", True, "mean of the exact log-density of the test points", 4),
    "elbo": Metric("ELBO", "nats", True, "mean lower bound of a test point's log-density", 4),
    "ode_log_prob": Metric("log p, ODE", "nats", True, "mean log-density of a test point by the ODE", 4),
    "flow_gap": Metric("KL, ODE", "nats", False, "exact log-density less the ODE's: KL(p || q), by the test points", 4),
    "forward_error": Metric("Forward", "", False, "closed form less step-by-step chain: means and variances", 14),
    "posterior_error": Metric("Eta 1", "", False, "samples of DDIM at eta 1 less ancestral ones, in float64", 14),
    "euler_error": Metric("Euler", "", False, "samples of DDIM at eta 0 less Euler's on the ODE, in float64", 14),
    "same_noise_eta0_10": Metric("Same noise", "", False, "distance of samples of 10 and of all steps, eta 0", 4),
    "same_noise_eta1_10": Metric("Same noise, eta 1", "", False, "the same at eta 1", 4),
    "reconstruction_10": Metric("Decoded, 10", "", False, "distance of a point to its decoded code, 10 steps", 4),
    "reconstruction_20": Metric("Decoded, 20", "", False, "the same in 20 steps", 4),
    "objective_error": Metric("Objective", "", False, "score matching less noise prediction, relative to it", 14),
    "encoding_correlation": Metric(
        "Codes", "", True, "correlation of the ODE's codes with those of the exact score", 4
    ),
}


def _sampler(match: re.Match[str]) -> Metric:
    """``<metric>_<sampler>``: a metric of samples of a further sampler of the method."""
    base, name = SAMPLED[match["metric"]], match["sampler"].replace("_", " ")
    return Metric(f"{base.title}, {name}", base.unit, False, f"{base.description}: {name}", base.decimals, base.scale)


TASK = Task(
    name="toy_density",
    title="Toy densities",
    primary_metric="sliced_wasserstein",
    metrics=Metrics(
        SAMPLED,
        {
            rf"(?P<metric>{'|'.join(SAMPLED)})_(?P<sampler>\w+)": _sampler,
        },
        further=FURTHER,
    ),
    options=ToyOptions,
    build={"density": "the density of the points (layers.planar.density:PlanarDensity)"},
    returns="layers.planar.model:PointModel",
)
