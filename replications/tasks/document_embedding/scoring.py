"""Classifying and clustering documents by the directions of their vectors."""

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the logistic regression, the inverse of its penalty
SPARSE_STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # features of sparse unit rows are small, and are not standardised
ITERATIONS = 100

Vectors = np.ndarray | csr_array


def average(counts: csr_array, vectors: np.ndarray) -> np.ndarray:
    """Return the mean direction ``[D, dim]`` of each document's words, whose vectors ``[V, dim]`` are made unit first.

    An empty document has the zero vector.
    """
    return normalize(counts @ normalize(vectors.astype(np.float64)))


def logistic(x: Vectors, label: np.ndarray, train: np.ndarray, held_out: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return the classes told of the rows `scored`, by the penalty that is best on the rows `held_out`."""
    if not issparse(x):
        x = StandardScaler().fit(x[train]).transform(x)
    best, chosen = -1.0, None
    for strength in SPARSE_STRENGTHS if issparse(x) else STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(x[train], label[train])
        accuracy = model.score(x[held_out], label[held_out])
        if accuracy > best:
            best, chosen = accuracy, model
    return chosen.predict(x[scored])


def nearest(x: Vectors, label: np.ndarray, train: np.ndarray, scored: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the classes told of the rows `scored` by their nearest rows of `train`, by cosine."""
    model = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine", algorithm="brute")
    return model.fit(x[train], label[train]).predict(x[scored])


def spherical_kmeans(x: Vectors, clusters: int, restarts: int, seed: int) -> tuple[np.ndarray, float]:
    """Return the cluster of each unit row and the sum of cosines to the centres: the best of some restarts.

    Centres are normalised sums of their rows; a cluster that gets empty keeps its centre. There are never more clusters
    than rows.
    """
    rng, best, found = np.random.default_rng(seed), -np.inf, np.zeros(x.shape[0], int)
    clusters = min(clusters, x.shape[0])
    for _ in range(restarts):
        start = x[np.sort(rng.choice(x.shape[0], clusters, replace=False))]
        centres = start.toarray() if issparse(start) else start
        before = None
        for _ in range(ITERATIONS):
            cosine = x @ centres.T
            own = cosine.argmax(1)
            if before is not None and (own == before).all():
                break
            before = own
            members = csr_array((np.ones(len(own)), (own, np.arange(len(own)))), shape=(clusters, len(own)))
            sums = members @ x
            sums = normalize(sums.toarray() if issparse(sums) else sums)
            centres = np.where(np.bincount(own, minlength=clusters)[:, None] > 0, sums, centres)
        total = float(cosine.max(1).sum())
        if total > best:
            best, found = total, own
    return found, best
