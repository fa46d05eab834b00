"""The task document_embedding: texts, pairs by count, scores, what it refuses, pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import normalized_mutual_info_score

from replications.datasets.arrays import open_set
from replications.datasets.prepare import prepare
from replications.datasets.text import review_words, topics
from replications.datasets.text.documents import write_documents
from replications.errors import UserError
from replications.tasks.base import Look
from replications.tasks.document_embedding import pictures
from replications.tasks.document_embedding.data import Documents, check, open_documents
from replications.tasks.document_embedding.pairs import (
    PairBatches,
    kept_share,
    noise_distribution,
    offset_distribution,
)
from replications.tasks.document_embedding.rescore import contingency, normalised_information, rescore
from replications.tasks.document_embedding.scoring import average, logistic, nearest, spherical_kmeans


def documents_of(texts, label=None, split=None, vocabulary=8):
    label = np.arange(len(texts)) % 2 if label is None else np.asarray(label)
    split = np.zeros(len(texts), np.int8) if split is None else np.asarray(split, np.int8)
    words = np.array([word for text in texts for word in text], np.int32)
    document = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return Documents("made", words, document, label, split, vocabulary, int(label.max()) + 1)


def batches(documents, size, **changes):
    options = {"window": 2, "subsample": None, "negatives": 2, "device": "cpu"} | changes
    return PairBatches(documents, size, 0, **options)


# Texts

OPTIONS = {
    "train": 200, "validation": 50, "test": 50, "topics": 3, "common": 20, "own": 10, "background": 0.4,
    "borrowed": 0.25, "main": 0.5, "run": 4, "length": 40,
}  # fmt: skip


def test_topics_have_the_shares_that_their_options_say():
    options = topics.Options(**OPTIONS)
    texts, label = topics.draw(options, 4000)
    words, main = np.concatenate(texts), np.repeat(label, [len(text) for text in texts])
    special = words >= 20
    assert special.mean() == pytest.approx(0.6, abs=0.01)
    block = (words[special] - 20) // 10
    # its own topic: half, and a third of the rest; a quarter of each topic's words are the next one's
    own = 0.5 + 0.5 / 3
    assert (block == main[special]).mean() == pytest.approx(own * 0.75 + (1 - own) / 2 * 0.25, abs=0.01)
    assert np.bincount(label).min() > 1200 and words.max() < 50
    lengths = np.array([len(text) for text in texts])
    assert lengths.min() >= 8 and lengths.mean() == pytest.approx(40, rel=0.05)
    ranks = np.bincount(words[~special], minlength=20) / (~special).sum()
    expected = 1 / (np.arange(20) + 5.0)
    assert np.allclose(ranks, expected / expected.sum(), atol=0.005)


def test_a_drawn_set_is_opened_as_it_was_drawn(tmp_path):
    prepare("topics_smoke", tmp_path, workers=1)
    found = open_documents("topics_smoke", tmp_path)
    texts, label = topics.draw(topics.Options(**_options("topics_smoke")), 120)
    assert np.array_equal(found.words, np.concatenate(texts)) and np.array_equal(found.label, label)
    assert np.array_equal(found.words[found.document == 3], texts[3])
    assert [len(found.rows(split)) for split in ("train", "validation", "test")] == [60, 20, 40]
    assert found.counts().sum() == len(found.words) and found.counts()[[3], :].sum() == len(texts[3])
    assert open_set("topics_smoke", tmp_path).meta["facts"]["vocabulary"] == found.vocabulary == 90


def _options(key):
    from replications.datasets.registry import find_set

    return find_set(key).options


def test_reviews_become_words_of_the_vocabulary_most_frequent_first(tmp_path):
    text = b"Don't<br /><br />STOP, it's 10/10 'fine'!"
    assert review_words.tokenise(text) == ["don't", "stop", "it's", "fine"]
    texts, vocabulary = review_words.number([["b", "a", "b"], ["a", "c"], ["c", "b", "d"], ["d"]], 2)
    assert [t.tolist() for t in texts] == [[0, 1, 0], [1, 2], [2, 0, 3], [3]] and vocabulary == 4
    texts, vocabulary = review_words.number([["b", "b"], ["rare"]], 2)
    assert [t.tolist() for t in texts] == [[0, 0], []] and vocabulary == 1
    with pytest.raises(UserError, match="no document has a word of the vocabulary"):
        write_documents(tmp_path, [np.zeros(0, np.int32)], np.zeros(1), np.zeros(1), 0, 2)


# Pairs


def test_subsampling_and_noise_are_word2vecs():
    counts = np.array([900, 90, 9, 1])
    assert noise_distribution(counts) == pytest.approx(counts**0.75 / (counts**0.75).sum())
    share = kept_share(counts, 0.01)
    assert share[0] == pytest.approx((np.sqrt(900 / 10) + 1) * 10 / 900)  # (sqrt(cn / (t T)) + 1) t T / cn
    assert share[3] == 1 and (np.diff(share) >= 0).all()


def test_pairs_are_those_of_a_window_of_random_size_by_count():
    text = [0, 1, 2, 3, 4, 5, 6, 7]
    found = batches(documents_of([text, text[::-1]]), 40_000, window=3)
    batch = {name: tensor.numpy() for name, tensor in found.batch(0).items()}
    in_first, valid = batch["document"] == 0, batch["valid"] > 0
    own = in_first & valid
    seen = np.zeros((8, 8))
    np.add.at(seen, (batch["center"][own], batch["context"][own]), 1)
    expected = np.zeros((8, 8))
    for size in (1, 2, 3):  # every size of the window, every pair in it
        for i in range(8):
            for j in range(max(0, i - size), min(8, i + size + 1)):
                expected[i, j] += i != j
    assert not seen[expected == 0].any()
    assert np.allclose(seen / seen.sum(), expected / expected.sum(), atol=0.008)
    assert own.sum() / in_first.sum() == pytest.approx(expected.sum() / (8 * 12), abs=0.01)


def test_noise_and_kept_words_come_by_count():
    rng = np.random.default_rng(0)
    documents = documents_of([rng.choice(4, 50, p=[0.7, 0.2, 0.08, 0.02]) for _ in range(400)], vocabulary=5)
    counts = np.bincount(documents.words, minlength=5)
    found = batches(documents, 20_000, subsample=0.05)
    batch = found.batch(0)
    noise = np.bincount(batch["noise"].flatten(), minlength=5) / 40_000
    assert np.allclose(noise, counts**0.75 / (counts**0.75).sum(), atol=0.01) and noise[4] == 0
    kept = counts * kept_share(counts, 0.05)
    for name in ("center", "context"):
        chosen = batch[name][batch["valid"] > 0]
        assert np.allclose(np.bincount(chosen, minlength=5) / len(chosen), kept / kept.sum(), atol=0.02), name
    assert (batch["document"][batch["valid"] > 0].bincount(minlength=400) > 0).all()


def test_a_batch_depends_on_seed_and_step_alone_and_is_cut_into_parts():
    documents = documents_of([[0, 1, 2, 3]] * 10)
    one, other = batches(documents, 8, subsample=0.1), batches(documents, 8, subsample=0.1)
    for step in (7, 0, 3, 12):
        one.batch(step)
    whole, again = one.batch(5), other.batch(5)
    halves = [other.batch(5, part, 2) for part in (0, 1)]
    for name in whole:
        assert torch.equal(whole[name], again[name])
        assert torch.equal(whole[name], torch.cat([half[name] for half in halves]))
    assert not torch.equal(whole["center"], one.batch(6)["center"])
    assert offset_distribution(2)[1].tolist() == pytest.approx([1 / 6, 2 / 6, 2 / 6, 1 / 6])


def test_a_document_of_one_word_has_no_pair_and_words_left_alone_count_for_no_other_document():
    batch = batches(documents_of([[0], [1], [2]]), 500).batch(0)
    assert not batch["valid"].any() and set(batch["document"].tolist()) == {0, 1, 2}


def test_a_vocabulary_smaller_than_the_number_of_noise_words_is_fine():
    batch = batches(documents_of([[0, 1]] * 4, vocabulary=2), 16, negatives=20).batch(0)
    assert batch["noise"].shape == (16, 20) and set(batch["noise"].flatten().tolist()) == {0, 1}


# Scores


def directions(seed=0, count=90, dim=5, clusters=3, spread=0.2):
    rng = np.random.default_rng(seed)
    label = np.arange(count) % clusters
    x = np.eye(dim)[label] + spread * rng.normal(size=(count, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True), label


def test_averages_are_of_directions_and_an_empty_document_is_zero():
    counts = csr_array(np.array([[2, 1], [0, 0], [0, 3]], np.float32))
    found = average(counts, np.array([[10.0, 0.0], [0.0, 0.1]]))
    assert np.allclose(found, [[2 / np.sqrt(5), 1 / np.sqrt(5)], [0, 0], [0, 1]])


def test_clusters_of_directions_are_found_dense_and_sparse_and_better_than_by_chance():
    x, label = directions()
    for form in (x, csr_array(x)):
        found, total = spherical_kmeans(form, 3, 5, 0)
        assert (contingency(found, label).max(1) == 30).all()
        centres = np.stack([x[found == k].sum(0) for k in range(3)])
        assert total == pytest.approx(np.linalg.norm(centres, axis=1).sum())  # at a fixed point
    single = [spherical_kmeans(x, 5, 1, seed)[1] for seed in range(5)]
    assert spherical_kmeans(x, 5, 20, 0)[1] >= max(single) - 1e-9
    assert len(np.unique(spherical_kmeans(x[:2], 3, 2, 0)[0])) == 2


def test_classifiers_take_training_rows_alone():
    x, label = directions(spread=0.3)
    train, held_out, scored = np.arange(40), np.arange(40, 60), np.arange(60, 90)
    hidden = label.copy()
    hidden[scored] = 0  # labels of scored rows are not looked at
    cosine = x[scored] @ x[train].T
    expected = [np.bincount(label[train][row.argsort()[::-1][:3]], minlength=3).argmax() for row in cosine]
    assert nearest(x, hidden, train, scored, 3).tolist() == expected
    assert (logistic(x, hidden, train, held_out, scored) == label[scored]).mean() > 0.9
    assert nearest(x, hidden, train[:2], scored, 3).shape == (30,)


def test_an_empty_document_and_a_class_with_one_document_are_scored():
    x, label = directions()
    x[60] = 0.0
    label = label.copy()
    label[0] = 3
    train, held_out, scored = np.arange(40), np.arange(40, 60), np.arange(60, 90)
    assert len(nearest(x, label, train, scored, 3)) == len(logistic(x, label, train, held_out, scored)) == 30
    assert len(spherical_kmeans(x[scored], 4, 3, 0)[0]) == 30


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    label, cluster = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    cluster[:120] = label[:120]
    table = contingency(cluster, label)
    assert normalised_information(table) == pytest.approx(normalized_mutual_info_score(label, cluster))
    assert normalised_information(contingency(np.zeros(9), np.zeros(9))) == 0
    told = {"label": label, "logistic_document": label, "nearest_document": cluster, "cluster_document": cluster}
    found = rescore(told)
    assert found["accuracy"] == 100 and found["knn"] == pytest.approx(100 * (cluster == label).mean())
    assert found["purity"] == pytest.approx(sum(np.bincount(label[cluster == k]).max() for k in range(5)) / 2)
    assert set(rescore(told | {f"{k}_average": label for k in ("logistic", "nearest", "cluster")})) == {
        prefix + name for prefix in ("", "average_") for name in ("accuracy", "knn", "purity", "nmi")
    }


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": [[0, 0], [0]]}, "has 1 different words"),
        ({"label": [1, 1]}, "training documents of 1 class"),
        ({"split": [1, 2]}, "nothing in its split 'train'"),
        ({"texts": [[0], [1], [2]], "label": [0, 1, 2], "split": [0, 0, 2]}, "class 2 of the test documents"),
    ],
)
def test_texts_that_cannot_be_used_are_refused_in_a_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        check(documents_of(**({"texts": [[0, 1], [1, 2]]} | changes)))
    assert "\n" not in str(error.value)


def test_an_empty_document_has_an_empty_row():
    counts = check(documents_of([[0, 1], [], [1]])).counts()
    assert counts.shape == (3, 8) and counts[[1], :].sum() == 0


# Pictures


class Album:
    tier, width, addresses = "mini", 7.4, ("one", "two", "missing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def role(self, address):
        return "method"

    def runs(self, address):
        if address == "missing":
            return {}
        metrics = {"accuracy": 50.0, "knn": 40.0, "purity": 30.0}
        if address == "one":
            metrics |= {f"average_{name}": 60.0 for name in metrics}
        history = [
            SimpleNamespace(split="validation", step=step, values={"knn_average": value})
            for step, value in ((10, 20.0), (20, 30.0))
        ]
        return {seed: SimpleNamespace(metrics=metrics, history=history[: 2 * (address == "one")]) for seed in (0, 1)}

    def arrays(self, address, seed):
        x, label = directions()
        found = {"label": label, "plane_average": x[:50, :2], "plane_document": x[:50, :2]}
        return found | {"plane_document": x[:50, 1:3]} if address == "one" else found


def test_each_picture_is_drawn(tmp_path):
    found = list(pictures.draw(Album()))
    assert [picture.name for picture in found] == ["map", "scores", "steps"]
    for picture in found:
        picture.figure.savefig(tmp_path / f"{picture.name}.png")
    titles = [axes.get_title() for axes in found[0].figure.axes]
    assert titles == ["one\naverages", "one\ndocuments", "two\naverages"]  # equal planes are drawn once
    assert pictures.over_steps(list(Album().runs("one").values())) == {10: 20.0, 20: 30.0}
