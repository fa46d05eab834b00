"""Scoring a weights file without training."""

from replications.tasks.point_classification.execute import score
from replications.tasks.point_classification.stages import TrainedStage
from replications.tasks.run import Context, Evaluation


def score_weights(context: Context) -> Evaluation:
    """Score a weights file of the classification stage on the test clouds."""
    stage = TrainedStage.of(context, "classification")
    stage.model = context.load("classification", **stage.info).eval()
    evaluation = Evaluation({})
    score(stage, evaluation)
    return evaluation
