"""Face verification on Labeled Faces in the Wild, View 2: are two images of the same person?

A method offers a `FaceModel` (``layers/faces/model.py``); the protocol is in ``execute.py``, the numbers in
``metrics.py``.
"""

import re
from dataclasses import replace

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.face_verification.options import FaceOptions

OF_VERIFIER = {
    "accuracy": Metric(
        "Accuracy", "%", True, "mean over the folds; threshold: middle of the best interval of scores on other data"
    ),
    "accuracy_se": Metric("SE", "%", False, "standard error of the mean accuracy over the folds", 2),
    "accuracy_clean": Metric("Accuracy, clean", "%", True, "accuracy without the known wrong labels"),
    "auc": Metric("AUC", "AUC", True, "area under the ROC; pooled scores, or mean over recognisers", 4),
    "eer": Metric("EER", "%", False, "where false accepts equal false rejects, linear between operating points"),
    "tar_far1e2": Metric("TAR@FAR 1e-2", "%", True, "true accepts at the last threshold with FAR <= 1e-2"),
    "tar_far1e3": Metric("TAR@FAR 1e-3", "%", True, "true accepts at the last threshold with FAR <= 1e-3"),
}
ANGLES = {
    "angle_weight_centre": Metric("W-EC", "degrees", False, "class weight to centre of its training embeddings"),
    "angle_weight_inter": Metric("W-Inter", "degrees", True, "class weight to the nearest other"),
    "angle_intra_train": Metric("Intra, train", "degrees", False, "training image to centre of its class"),
    "angle_inter_train": Metric("Inter, train", "degrees", True, "centre of a training class to the nearest other"),
    "angle_intra_test": Metric("Intra, test", "degrees", False, "test image to centre of its person"),
    "angle_inter_test": Metric("Inter, test", "degrees", True, "centre of a test person to the nearest other"),
}


def _of_verifier(match: re.Match[str]) -> Metric:
    """``<metric>_<verifier>``: a metric of a method's further verifier."""
    of, verifier = OF_VERIFIER[match["metric"]], match["verifier"].replace("_", " ")
    return replace(of, title=f"{of.title}, {verifier}", description=f"{of.description}; verifier: {verifier}")


TASK = Task(
    name="face_verification",
    title="Face verification",
    primary_metric="accuracy",
    metrics=Metrics(
        OF_VERIFIER | ANGLES,
        {rf"(?P<metric>{'|'.join(sorted(OF_VERIFIER, key=len, reverse=True))})_(?P<verifier>[a-z]\w*)": _of_verifier},
    ),
    options=FaceOptions,
    build={
        "num_identities": "number of people in the training set",
        "image_size": "side of an image in pixels",
    },
    returns="layers.faces.model:FaceModel",
)
