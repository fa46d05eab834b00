"""Density estimation: how likely is a held-out binary image under the model?

A method offers a `Density` (``layers/density/model.py``). Model selection sees the validation images only; test images
are scored once. The category says what kind of number the NLL is: claims compare numbers of one kind.
"""

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.density_estimation.options import DensityOptions

QUALITY = {
    "nll": Metric("NLL", "nats", False, "of a test image: exact or at most, as the category says", 3),
    "bits_per_dim": Metric("Bits", "bits a pixel", False, "the same in bits, over the number of pixels", 4),
    "density_ms": Metric(
        "Density", "ms", False, "time of 100 images' (bounds of) log-probabilities", 2, scale="log", timed=True
    ),
    "sample_ms": Metric("Sample", "ms", False, "time of 100 samples", 2, scale="log", timed=True),
}
EXACT = {
    "mass_error": Metric(
        "Mass error", "", False, "|sum of p(x) over all images - 1|, of few pixels, with random weights", 6
    ),
    "passes_density": Metric(
        "Passes", "", False, "runs of the network, or steps of a recursion, that a density takes", 0, scale="log"
    ),
    "passes_sample": Metric("Passes, sample", "", False, "the same of a sample", 0, scale="log"),
}
ORDERS = {
    "nll_one_order": Metric("NLL, one order", "nats", False, "of the same network at its first order", 3),
    "pseudo_nll": Metric("Averaged logits", "nats", False, "the same by the orders' mean logits: NOT a likelihood", 3),
    "pseudo_mass_error": Metric(
        "Mass error, logits", "", False, "mass error of the orders' mean logits: why they give no likelihood", 6
    ),
    "nll_joint": Metric("NLL, joint", "nats", False, "of a test image with its label: -log p(x, y)", 3),
    "label_accuracy": Metric("Label", "%", True, "test images whose label is argmax p(x, y)"),
    "logistic_accuracy": Metric("Label, logistic", "%", True, "the same of a logistic regression on the pixels"),
}
LATENT = {
    "elbo": Metric("ELBO", "nats", True, "mean of log p(x, z) - log q(z|x): a lower bound of log p(x)", 3),
    "bound_5": Metric("L5", "nats", True, "importance-weighted bound of 5 samples", 3),
    "bound_50": Metric("L50", "nats", True, "importance-weighted bound of 50 samples", 3),
    "bound_500": Metric("L500", "nats", True, "importance-weighted bound of 500 samples", 3),
    "bound_fall": Metric("Fall", "nats", False, "largest fall from one of these bounds to the next", 4),
    "bound_excess": Metric("Excess", "nats", False, "L500 less log p(x), which a grid over two latents gives", 4),
    "grid_log_prob": Metric("log p", "nats", True, "mean log p(x) by a grid over two latents", 3),
    "kl": Metric("KL", "nats", False, "mean KL(q(z|x) || p(z)) of the test images", 3),
    "active_units": Metric("Active", "units", True, "latents whose posterior mean varies by more than 0.01", 0),
}
GRADIENT = {
    f"gradient_variance_{name}": Metric(
        f"Variance, {title}", "", False, f"trace of the covariance of the encoder's gradient: {title}", 2, scale="log"
    )
    for name, title in {
        "path": "pathwise, closed KL",
        "path_sampled": "pathwise, sampled KL",
        "score": "score function",
        "score_baseline": "score function with a baseline",
    }.items()
}

TASK = Task(
    name="density_estimation",
    title="Density estimation",
    primary_metric="nll",
    metrics=Metrics(QUALITY, further=EXACT | ORDERS | LATENT | GRADIENT),
    options=DensityOptions,
    build={
        "shape": "rows and columns of an image",
        "classes": "classes of the data set; 0 where it has no labels",
    },
    returns="layers.density.model:Density",
)
