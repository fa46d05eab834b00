"""Face verification on Labeled Faces in the Wild, View 2: are two images of the same person?

A method offers a `FaceModel` (``model.py``); the protocol is in ``execute.py``, the numbers in
``metrics.py``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from replications.tasks.base import Metric

if TYPE_CHECKING:
    from replications.tasks.base import Context, Evaluation
    from replications.training.stage import Workload

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
SUFFIXED = re.compile(rf"(?P<metric>{'|'.join(sorted(OF_VERIFIER, key=len, reverse=True))})_(?P<verifier>[a-z]\w*)")


class MetricTable(Mapping[str, Metric]):
    """The metrics of the primary verifier and the angles; and for any verifier ``<metric>_<verifier>``.

    Iteration gives the first two only: which other verifiers there are is the methods' business.
    """

    def __init__(self):
        self._named = OF_VERIFIER | ANGLES

    def __getitem__(self, name: str) -> Metric:
        if name in self._named:
            return self._named[name]
        match = SUFFIXED.fullmatch(name)
        if match is None:
            raise KeyError(name)
        of, verifier = OF_VERIFIER[match["metric"]], match["verifier"].replace("_", " ")
        title, description = f"{of.title}, {verifier}", f"{of.description}; verifier: {verifier}"
        return Metric(title, of.unit, of.higher_is_better, description, of.decimals)

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


class FaceVerification:
    """The task; see ``replications.tasks.base.Task``."""

    name = "face_verification"
    title = "Face verification"
    primary_metric = "accuracy"
    metrics = MetricTable()

    def execute(self, context: "Context") -> "Evaluation":
        from replications.tasks.face_verification.execute import execute

        return execute(context)

    def workload(self, context: "Context") -> "Workload":
        from replications.tasks.face_verification.execute import workload

        return workload(context)

    def rescore(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        from replications.tasks.face_verification.rescore import rescore

        return rescore(arrays)

    def check_options(self, options: Mapping[str, Any]) -> None:
        from replications.tasks.face_verification.options import parse_options

        parse_options(options)


TASK = FaceVerification()
