"""Skip-gram and PV-DBOW with words beside gensim's Word2Vec and Doc2Vec: pairs a second and quality, one thread.

``python -m benchmarks.word_vectors --data-root data`` trains both on the texts of tier mini in one process, in turns,
for as many pairs, and tells CPU seconds, pairs a second, their quotient (above 1 where ours is faster) and the k-NN
accuracy on validation documents. gensim is no dependency: ``pip install gensim``.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from replications import catalogue, running
from replications.tasks.document_embedding.data import Documents, open_documents
from replications.tasks.document_embedding.pairs import kept_share
from replications.tasks.document_embedding.scoring import average, nearest
from replications.training.determinism import set_threads
from replications.training.loop import train

ROWS = {"skip_gram/skip_gram": False, "paragraph_vector/dbow_words": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    set_threads(1)
    print(f"{'row':28} {'ours s':>8} {'gensim s':>9} {'quotient a pair':>16} {'ours k-NN':>10} {'gensim k-NN':>12}")
    for address, with_documents in ROWS.items():
        spec = catalogue.resolve(address, "mini", 12)
        documents = open_documents(spec.data["texts"], arguments.data_root)
        ours, pairs, own = train_ours(spec, documents, arguments)
        peer, peer_pairs, other = train_gensim(documents, spec, pairs, with_documents)
        quotient = (pairs / ours) / (peer_pairs / peer)
        print(
            f"{address:28} {ours:8.1f} {peer:9.1f} {quotient:16.2f} {accuracy(documents, own):10.1f} "
            f"{accuracy(documents, other):12.1f}"
        )


def train_ours(spec, documents: Documents, arguments) -> tuple[float, int, np.ndarray]:
    """Return CPU seconds, pairs and word vectors."""
    stage = running.make_workload(spec, arguments.data_root, "cpu").stage
    stage.recipe = stage.recipe.model_copy(update={"steps": arguments.steps, "validate_every": None})
    stage.validate = None
    with tempfile.TemporaryDirectory() as work:
        start = time.process_time()
        train(stage, work=Path(work), seed=12, device="cpu")
        taken = time.process_time() - start
    return taken, arguments.steps * stage.recipe.batch_size, stage.module.word_vectors().numpy()


def train_gensim(documents: Documents, spec, pairs: int, with_documents: bool) -> tuple[float, int, np.ndarray]:
    """Return CPU seconds, about how many pairs they were, and word vectors; epochs are rounded up."""
    from gensim.models import Doc2Vec, Word2Vec
    from gensim.models.doc2vec import TaggedDocument

    lengths = np.bincount(documents.document, minlength=len(documents))
    texts = [list(map(str, text)) for text in np.split(documents.words, np.cumsum(lengths)[:-1])]
    dim = spec.options["dim"]
    shared = {"vector_size": dim, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 1, "workers": 1, "seed": 12}
    # about 6 pairs a word, of those that subsampling keeps
    counts = np.bincount(documents.words, minlength=documents.vocabulary)
    an_epoch = int(6 * (counts * kept_share(counts, 1e-3)).sum())
    epochs = -(-pairs // an_epoch)
    start = time.process_time()
    if with_documents:
        tagged = [TaggedDocument(text, [number]) for number, text in enumerate(texts)]
        model = Doc2Vec(tagged, dm=0, dbow_words=1, epochs=epochs, **shared)
    else:
        model = Word2Vec(texts, sg=1, epochs=epochs, **shared)
    taken = time.process_time() - start
    vectors = np.zeros((documents.vocabulary, dim))
    for word in model.wv.index_to_key:
        vectors[int(word)] = model.wv[word]
    return taken, epochs * an_epoch, vectors


def accuracy(documents: Documents, vectors: np.ndarray) -> float:
    """Return the k-NN accuracy of averages on validation documents, in %."""
    train, held_out = documents.rows("train"), documents.rows("validation")
    told = nearest(average(documents.counts(), vectors), documents.label, train, held_out, 3)
    return 100 * float(np.mean(told == documents.label[held_out]))


if __name__ == "__main__":
    main()
