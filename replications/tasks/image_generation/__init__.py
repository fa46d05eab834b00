"""Image generation: how near do drawn images come to held-out ones, and what does drawing them cost?

A method offers a `Generator` (``layers/generation/model.py``). Distances are of the features of a frozen network that
is part of the prepared set. The category names the counts, the network's hash, and what as many real images reach:
claims compare at equal counts and equal features only.
"""

import re

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.image_generation.options import GenerationOptions

SAMPLED = {
    "frechet": Metric(
        "Fréchet", "", False, "distance of the set's frozen classifier features (no FID); floor: category", 2, "log"
    ),
    "precision": Metric("Precision", "", True, "samples within reach of a test image: 3 nearest neighbours", 3),
    "recall": Metric("Recall", "", True, "test images within reach of a sample: 3 nearest neighbours", 3),
    "sliced_wasserstein": Metric("Sliced W1", "", False, "mean W1 distance of pixels over 64 directions", 4, "log"),
    "evaluations": Metric("Evaluations", "", False, "of the network, a sample", 0, "log"),
}
COST = {
    "seconds_per_1000": Metric("1,000 samples", "s", False, "time to draw them", 3, scale="log", timed=True),
    "step_ms": Metric("Step", "ms", False, "time of a training step", 3, scale="log", timed=True),
}
CODES = {
    "code_correlation": Metric("Code", "", True, "correlation of noise and the critic's code of its image", 3),
    "reconstruction_mse": Metric("Rebuilt", "", False, "squared error of test images made of their code", 4, "log"),
    "relaxed_mse": Metric("Relaxed", "", False, "squared error of test images by soft codes, as in training", 4, "log"),
    "used_codes": Metric("Used codes", "%", True, "of the codebook, by the test images", 1),
    "perplexity": Metric("Perplexity", "codes", True, "of the codes of the test images", 2),
    "code_bits": Metric("Bits", "bits", False, "of a code, or of a pixel's grey level, of test images: exact", 3),
    "pair_share": Metric("Pairs", "", False, "share of made images' energy that repeats every two pixels", 4, "log"),
    "pair_share_untrained": Metric("Pairs, untrained", "", False, "the same before training", 4, "log"),
    "pair_share_real": Metric("Pairs, real", "", False, "the same of test images", 4, "log"),
    "shuffled_mse": Metric("Shuffled", "", False, "the same with another test image's code", 4, "log"),
}


def _sampler(match: re.Match[str]) -> Metric:
    """``<metric>_<sampler>``: of raw weights, or of a further sampler of the method."""
    base, name = SAMPLED[match["metric"]], match["sampler"].replace("_", " ")
    return Metric(
        f"{base.title}, {name}",
        base.unit,
        base.higher_is_better,
        f"{base.description}: {name}",
        base.decimals,
        base.scale,
    )


TASK = Task(
    name="image_generation",
    title="Image generation",
    primary_metric="frechet",
    metrics=Metrics(
        SAMPLED | COST, {rf"(?P<metric>{'|'.join(SAMPLED)})_(?P<sampler>[a-z]\w*)": _sampler}, further=CODES
    ),
    options=GenerationOptions,
    build={
        "shape": "rows and columns of an image",
        "classes": "classes of the data set; 0 where it has no labels",
    },
    returns="layers.generation.model:Generator",
)
