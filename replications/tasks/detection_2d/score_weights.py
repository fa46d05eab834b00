"""Scoring a weights file without training."""

from replications.tasks.detection_2d.execute import score
from replications.tasks.detection_2d.stages import Setup
from replications.tasks.run import Context, Evaluation


def score_weights(context: Context) -> Evaluation:
    """Score a weights file on the test images."""
    setup = Setup.of(context)
    return score(setup, context.load("detector", **setup.info).eval())
