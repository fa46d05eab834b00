"""Scoring a weights file on the test images, without training."""

from dataclasses import replace

from replications.errors import UserError
from replications.layers.images.model import Loaded
from replications.layers.images.probes import nearest_classes
from replications.tasks.image_classification.execute import TOP, category, count, described
from replications.tasks.image_classification.reconstruction import reconstruct_rows
from replications.tasks.image_classification.rescore import rescore
from replications.tasks.image_classification.stages import ImageRun
from replications.tasks.run import Context, Evaluation
from replications.training.augment import ToFloat


def score_weights(context: Context) -> Evaluation:
    """Score what the file holds: top-1 and top-5 of a classifier, the reconstruction of an autoencoder; k-NN of both.

    The k-NN probe reads the tier's training images and their labels; nothing is trained.
    """
    run = ImageRun.of(context)
    holds, network, normalisation = load(context, run)
    run = replace(run, to_float=ToFloat(**normalisation))
    arrays = {"test_label": run.labels(run.test_rows).cpu().numpy()}
    rows = run.images.rows("train")
    train, test = run.features(network, rows), run.features(network, run.test_rows)
    options = run.options
    arrays["told_knn_accuracy"] = nearest_classes(
        train, run.labels(rows), test, run.images.num_classes, options.neighbours, options.temperature
    ).cpu().numpy()  # fmt: skip
    evaluation = Evaluation({}, category=category(run), data={"images": described(run)})
    if holds == "classifier":
        told = run.told(network, run.test_rows, context.spec.recipe, TOP)
        arrays |= {"told_accuracy": told[:, 0], "top_classes": told}
        count(evaluation, run, network)
    evaluation.metrics = rescore(arrays)
    if holds == "autoencoder":
        evaluation.metrics |= reconstruct_rows(run, network)
    evaluation.model_parameters = sum(p.numel() for p in network.parameters())
    evaluation.extra |= {"holds": holds, "normalisation": {name: list(v) for name, v in normalisation.items()}}
    return evaluation


def load(context: Context, run: ImageRun) -> Loaded:
    """Let the paper's reader fill a classifier or a pretrainer; raises UserError where it fills neither."""
    built = context.load("weights", num_classes=run.images.num_classes, image_size=run.options.image_size)
    if built.loaded is None:
        raise UserError(f"{context.spec.address}: its reader of weights loaded nothing")
    return built.loaded._replace(network=built.loaded.network.to(run.device).eval())
