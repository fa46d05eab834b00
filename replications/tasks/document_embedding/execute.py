"""A run from its spec to its evaluation: vectors are trained on all texts, then documents classified and clustered."""

import numpy as np
import torch
from scipy.sparse import csr_array, issparse
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn.functional import embedding

from replications.layers.embedding.model import EmbeddingModel
from replications.tasks.data import set_key
from replications.tasks.document_embedding.data import Documents, open_documents
from replications.tasks.document_embedding.pairs import PairBatches
from replications.tasks.document_embedding.rescore import rescore
from replications.tasks.document_embedding.scoring import Vectors, average, logistic, nearest, spherical_kmeans
from replications.tasks.run import Context, Evaluation
from replications.training.determinism import derive_seed
from replications.training.stage import Batch, Stage, Workload


def execute(context: Context) -> Evaluation:
    """Train the vectors, and score those of the method and the averages of words."""
    documents = open_documents(set_key(context, "texts"), context.data_root)
    stage = make_stage(context, documents)
    model = stage.module
    if stage.batches is not None:
        context.train(stage)
    options, counts = context.options, documents.counts()
    scored = documents.rows(options.scored, needed=True)
    evaluation = Evaluation({}, category=category_of(documents, options.scored))
    evaluation.arrays["label"] = documents.label[scored]
    for name, x in vectors_of(model, counts).items():
        evaluation.arrays |= answers(name, x, documents, scored, context)
    evaluation.metrics |= rescore(evaluation.arrays)
    evaluation.model_parameters = sum(parameter.numel() for parameter in model.parameters())
    evaluation.data["texts"] = {"documents": len(documents), "words": len(documents.words), "scored": len(scored)}
    return evaluation


def workload(context: Context) -> Workload | None:
    """Return a training step, and inference: means of the vectors of words. None where no words are trained."""
    documents = open_documents(set_key(context, "texts"), context.data_root)
    stage = make_stage(context, documents)
    if stage.batches is None or stage.module.word_vectors() is None:
        return None
    batch = stage.batches.batch(0)

    def forward(module: EmbeddingModel, inputs: Batch) -> Tensor:
        return embedding(inputs["words"], module.word_vectors()).mean(1)

    return Workload(
        stage, batch, forward, {"words": torch.stack([batch["center"], batch["context"]], 1)}, context.device
    )


def make_stage(context: Context, documents: Documents) -> Stage:
    """Return what is trained; without batches where nothing is. Validation scores the averages and the documents."""
    model = context.build("model", vocabulary=documents.vocabulary, documents=len(documents)).to(context.device)
    options, recipe = context.options, context.spec.recipe
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return Stage("train", model, None, recipe)
    batches = PairBatches(
        documents, recipe.batch_size, context.spec.seed, window=options.window, subsample=options.subsample,
        negatives=model.negatives, device=context.device,
    )  # fmt: skip
    counts, held_out = documents.counts(), documents.rows("validation", needed=True)

    def validate(module: EmbeddingModel) -> dict[str, float]:
        found = {}
        for name, x in vectors_of(module, counts).items():
            told = nearest(x, documents.label, documents.rows("train"), held_out, options.neighbours)
            found[f"knn_{name}"] = 100 * float(np.mean(told == documents.label[held_out]))
        return found

    return Stage("train", model, batches, recipe, validate=validate)


def vectors_of(model: EmbeddingModel, counts: csr_array) -> dict[str, Vectors]:
    """Return the unit vectors by name: ``document``, the method's own, and ``average``, where it has words."""
    found: dict[str, Vectors] = {}
    words, own = model.word_vectors(), model.document_vectors(counts)
    if words is not None:
        found["average"] = average(counts, words.cpu().numpy())
    found["document"] = found["average"] if own is None else normalize(own)
    return found


def answers(name: str, x: Vectors, documents: Documents, scored: np.ndarray, context: Context) -> dict[str, np.ndarray]:
    """Return classes told and clusters of the scored documents, and the first of them in the plane."""
    options, label = context.options, documents.label
    train, held_out = documents.rows("train"), documents.rows("validation", needed=True)
    found = {
        f"logistic_{name}": logistic(x, label, train, held_out, scored),
        f"nearest_{name}": nearest(x, label, train, scored, options.neighbours),
        f"cluster_{name}": spherical_kmeans(
            x[scored], documents.classes, options.restarts, derive_seed(context.spec.seed, "clusters")
        )[0],
    }
    if options.shown and not issparse(x):
        shown = x[scored][: options.shown]
        centred = shown - shown.mean(0)
        found[f"plane_{name}"] = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T).astype(np.float32)
    return found


def category_of(documents: Documents, scored: str) -> str:
    """Name the texts and what is scored."""
    found = f"{len(documents):,} documents, {documents.classes} classes, {len(documents.words):,} words"
    return found if scored == "test" else f"{found}, {scored}"
