"""Document embedding: vectors trained on texts without labels, then classified and clustered by their directions.

A method offers an `EmbeddingModel` (``layers/embedding/model.py``). All documents are embedded together, as in the
papers; labels of the training documents train the classifiers.
"""

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.document_embedding.options import EmbeddingOptions

KINDS = {
    "accuracy": Metric("Logistic", "%", True, "accuracy of logistic regression"),
    "knn": Metric("k-NN", "%", True, "accuracy of the nearest neighbours by cosine"),
    "purity": Metric("Purity", "%", True, "purity of spherical k-means clusters, as many as classes"),
    "nmi": Metric("NMI", "%", True, "normalised mutual information of the same clusters and the classes"),
}


def _of(kind: str, title: str, what: str) -> Metric:
    base = KINDS[kind]
    return Metric(f"{base.title}{title}", base.unit, True, f"{base.description}, {what}")


TASK = Task(
    name="document_embedding",
    title="Document embedding",
    primary_metric="knn",
    metrics=Metrics(
        {kind: _of(kind, "", "on the method's vectors of documents") for kind in KINDS},
        further={f"average_{kind}": _of(kind, ", words", "on averages of word vectors") for kind in KINDS},
    ),
    options=EmbeddingOptions,
    build={
        "vocabulary": "number of words, numbered from 0",
        "documents": "number of documents, of all splits, numbered from 0",
    },
    returns="layers.embedding.model:EmbeddingModel",
)
