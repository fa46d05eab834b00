"""Texts as words, masked words and few labels, against counts, loops and libraries that share no code with them."""

import io
import itertools
import math
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from replications.datasets.prepare import prepare
from replications.datasets.text import imdb_words, kinds, synonyms
from replications.datasets.text.words import MASK, PADDING, SPECIAL, UNKNOWN, vocabulary_of, words_of, write_texts
from replications.errors import UserError
from replications.layers.text.masking import Masking, each_word_once, word_costs
from replications.layers.text.model import IGNORED
from replications.papers.bert import bag_of_words, model
from replications.tasks.base import Look
from replications.tasks.text_classification import pictures
from replications.tasks.text_classification.data import TextSet, open_texts
from replications.tasks.text_classification.options import TextOptions
from replications.tasks.text_classification.rescore import class_mean, rescore

SMALL = {"width": 16, "depth": 2, "heads": 2, "init_std": 0.3}


def texts_of(texts, label, split, vocabulary=50):
    start = np.cumsum([0, *map(len, texts)])
    words = np.array(list(itertools.chain(*texts)), np.uint16)
    return TextSet("toy", words, start, np.array(label), np.array(split), vocabulary, 2)


def small_bert(vocabulary=50, length=12, **options):
    torch.manual_seed(0)
    return model.build(vocabulary, length, 2, **SMALL | options).eval()


# Words


def test_words_of_text():
    assert words_of("It's BAD, isn't it? <3") == ["it's", "bad", "isn't", "it", "3"]
    assert words_of(" ...\n") == []


def test_the_vocabulary_is_of_the_training_texts_alone(tmp_path):
    texts = [["b", "a", "a"], [], ["a", "b", "c"], ["z", "z", "z", "a"]]
    facts = write_texts(tmp_path, texts, np.array([0, 1, 1, 0]), np.array([0, 0, 0, 2]), ("no", "yes"), 2, 1)
    words, start = np.load(tmp_path / "words.npy"), np.load(tmp_path / "start.npy")
    a, b = SPECIAL, SPECIAL + 1
    assert words.tolist() == [b, a, a, a, b, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, a]
    assert start.tolist() == [0, 3, 6, 10]  # the empty text is left out
    assert np.load(tmp_path / "label.npy").tolist() == [0, 1, 0] and np.load(tmp_path / "split.npy").tolist() == [
        0,
        0,
        2,
    ]
    assert facts == {"vocabulary": SPECIAL + 2, "classes": ["no", "yes"], "empty_texts": 1, "unknown_share": 0.4}


def test_a_vocabulary_without_words_is_one_line():
    with pytest.raises(UserError, match="no word occurs 3 times"):
        vocabulary_of([["a", "b"]], 10, 3)


def test_kinds_are_read_off_the_numbers():
    bounds = [(10, 20), (30, 40)]
    assert [kinds.kind_of(f"n{n:08d}", bounds) for n in (9, 10, 19, 20, 35)] == [-1, 0, 0, -1, 1]
    with pytest.raises(UserError, match="'dog' is not the name"):
        kinds.kind_of("dog", bounds)


def test_reviews_lose_their_markup_and_a_wrong_count_is_one_line(tmp_path):
    archive = tmp_path / "reviews.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for part, kind, number, text in (
            ("train", "pos", 1, "Good<br /><br />film"), ("train", "neg", 2, "bad film"), ("test", "pos", 3, "good br"),
            ("train", "pos", 4, "<br />"),
        ):  # fmt: skip
            info = tarfile.TarInfo(f"aclImdb/{part}/{kind}/{number}_9.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    options = {"reviews": [3, 1], "validation": 0.01, "vocabulary": 10, "least": 1}
    facts = imdb_words.prepare(tmp_path, options, {"reviews": archive}, 1)
    start, words = np.load(tmp_path / "start.npy"), np.load(tmp_path / "words.npy")
    label, texts = np.load(tmp_path / "label.npy"), np.split(words, start[1:-1])
    found = {int(own): text.tolist() for own, text in zip(label[:2], texts[:2], strict=True)}
    bad, film, good = SPECIAL + 1, SPECIAL, SPECIAL + 2
    assert found == {0: [bad, film], 1: [good, film]} and words[-2:].tolist() == [good, UNKNOWN]
    assert facts["empty_texts"] == 1 and facts["vocabulary"] == SPECIAL + 3
    with pytest.raises(UserError, match=r"has \[3, 1\] reviews \(train, test\), expected \[5, 1\]"):
        imdb_words.prepare(tmp_path, options | {"reviews": [5, 1]}, {"reviews": archive}, 1)


LANGUAGE = {
    "train": 50, "validation": 10, "test": 300, "length": 5, "concepts": 4, "synonyms": 2, "stay": 0.6, "noise": 0.2
}  # fmt: skip


def test_the_language_of_synonyms(tmp_path):
    facts = synonyms.prepare(tmp_path, LANGUAGE, {}, 1)
    words, label = np.load(tmp_path / "words.npy").reshape(-1, 5).astype(int), np.load(tmp_path / "label.npy")
    concept = (words - SPECIAL) // 2
    for row, own in zip(concept, label, strict=True):
        good, bad = (row == 0).sum(), (row == 1).sum()
        assert own == (-1 if good == bad else int(good > bad))
    assert words.min() == SPECIAL and words.max() == facts["vocabulary"] - 1


def test_best_bits_of_a_word_by_trying_all_concepts(tmp_path):
    """The chance of a word given all others, from whole chains and without the Markov property."""
    options = synonyms.Options(**LANGUAGE)
    draw = synonyms._Uniform(0)
    chances, frequency = synonyms.transitions(options, draw), synonyms.frequencies(2)
    np.testing.assert_allclose(chances.sum(1), 1)
    concept = synonyms.draw_concepts(chances, 20, 5, draw)
    synonym = np.zeros_like(concept)
    bits = {"both": [], "left": []}
    chain = lambda c: 0.25 * np.prod([chances[a, b] for a, b in itertools.pairwise(c)])  # noqa: E731
    for row in concept:
        for place in range(5):
            for side, seen in (("both", row), ("left", row[: place + 1])):
                weights = [chain([*seen[:place], other, *seen[place + 1 :]]) for other in range(4)]
                bits[side].append(-math.log2(frequency[0] * weights[row[place]] / sum(weights)))
    found = synonyms.best_bits(chances, frequency, concept, synonym)
    assert found == pytest.approx({side: np.mean(values) for side, values in bits.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [({"stay": 0.9}, "stay 0.9 and noise 0.2 are more than 1"), ({"synonyms": 40000}, "more than 16 bits"),
     ({"concepts": 6}, "multiple of 4"), ({"pairs": 1}, "pairs")],
)  # fmt: skip
def test_a_language_that_cannot_be(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        synonyms.prepare(tmp_path, LANGUAGE | change, {}, 1)


# Masked words


def random_tokens(rows=4000, length=20, words=100):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(SPECIAL, SPECIAL + words, (rows, length), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) < 0.1] = UNKNOWN
    real = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return torch.where(torch.arange(length) < real, tokens, PADDING)


def test_shares_of_masked_words_by_count():
    tokens = random_tokens()
    masking = Masking(SPECIAL + 100, 20, 0.15, (0.8, 0.1, 0.1))
    batch = masking.apply({"tokens": tokens}, masking.draw(len(tokens), torch.Generator().manual_seed(0)))
    fates = {"mask": 0, "same": 0, "other": 0}
    for before, after, places, target in zip(tokens, batch["tokens"], batch["places"], batch["target"], strict=True):
        known = [i for i, token in enumerate(before.tolist()) if token >= SPECIAL]
        asked = [(p, t) for p, t in zip(places.tolist(), target.tolist(), strict=True) if t != IGNORED]
        assert len(asked) == min(len(known), max(1, round(0.15 * len(known))))
        for place, word in asked:
            assert place in known and before[place] == word
            shown = after[place].item()
            fates["mask" if shown == MASK else "same" if shown == word else "other"] += 1
        rest = [i for i in range(20) if i not in [p for p, _ in asked]]
        assert torch.equal(before[rest], after[rest])
    total = sum(fates.values())
    assert total > 5000
    for name, share in (("mask", 0.8), ("same", 0.1 + 0.1 / 100), ("other", 0.1 - 0.1 / 100)):
        assert abs(fates[name] / total - share) < 4 * math.sqrt(share * (1 - share) / total), name


def test_every_known_word_is_scored_once():
    tokens = random_tokens(30)
    asked = torch.zeros_like(tokens)
    for batch in each_word_once(tokens, 0.15, torch.Generator().manual_seed(0)):
        chosen = torch.zeros_like(tokens).scatter_add(1, batch["places"], (batch["target"] != IGNORED).long())
        assert torch.equal(batch["tokens"], torch.where(chosen.bool(), MASK, tokens))
        asked += chosen
    assert torch.equal(asked, (tokens >= SPECIAL).long())


def test_the_masked_loss_and_the_score_equal_naive_loops():
    tokens, net = random_tokens(6, 12, 40), small_bert(SPECIAL + 40).double()
    masking = Masking(SPECIAL + 40, 12, 0.3, (0.8, 0.1, 0.1))
    batch = masking.apply({"tokens": tokens}, masking.draw(6, torch.Generator().manual_seed(0)))

    def nats(row, places, target):
        x = net.encode(row[None])[0]
        for place, word in zip(places.tolist(), target.tolist(), strict=True):
            if word != IGNORED:
                hidden = net.transform_norm(torch.nn.functional.gelu(net.transform(x[place])))
                scores = [(hidden @ w + b).item() for w, b in zip(net.embedding.weight, net.word_bias, strict=True)]
                yield math.log(sum(math.exp(s) for s in scores)) - scores[word]

    costs = [c for parts in zip(*batch.values(), strict=True) for c in nats(*parts)]
    assert net(batch)["loss"].item() == pytest.approx(np.mean(costs), rel=1e-6)  # cross-entropy is in float32
    found = word_costs(net, tokens, 0.15, 4)
    assert len(found["word"]) == (tokens >= SPECIAL).sum()
    assert sorted(found["word"]) == sorted(tokens[tokens >= SPECIAL].tolist())


# BERT


@pytest.mark.parametrize("causal", [False, True])
def test_which_words_a_position_sees(causal):
    net, tokens = small_bert(causal=causal), torch.arange(SPECIAL, SPECIAL + 10)[None]
    plain = net.encode(tokens)
    for place in range(10):
        changed = tokens.clone()
        changed[0, place] = 40
        moved = (net.encode(changed) - plain).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [not causal or other >= place for other in range(10)]


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing_and_an_empty_text_has_a_class(causal):
    net, tokens = small_bert(causal=causal), torch.arange(SPECIAL, SPECIAL + 7)[None]
    padded = torch.nn.functional.pad(tokens, (0, 5))
    torch.testing.assert_close(net.features(padded), net.features(tokens))
    empty = torch.zeros_like(padded)
    assert torch.equal(net.features(empty), torch.zeros(1, 16)) and bool(net.class_logits(empty).isfinite().all())


def test_the_base_size_has_the_papers_parameters():
    with torch.device("meta"):
        net = model.build(30522, 512, 2, width=768, depth=12, heads=12)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    encoder = sum(count[name] for name in ("embedding", "position", "embedding_norm", "layers"))
    pooler, segments = 768 * 768 + 768, 2 * 768  # left out here
    assert encoder + pooler + segments == 109_482_240


def test_a_classifier_starts_from_what_the_pretraining_learned():
    one, other = small_bert(), model.build(50, 12, 2, **SMALL)
    before = other.classifier.weight.clone()
    other.start_from(one)
    tokens = random_tokens(3, 12, 40)
    assert torch.equal(other.eval().features(tokens), one.features(tokens))
    assert torch.equal(other.classifier.weight, before) and not torch.equal(before, one.classifier.weight)


@pytest.mark.parametrize("words", [True, False])
def test_each_use_trains_its_own_head_alone(words):
    net, tokens = small_bert(), random_tokens(4, 12, 40)
    net.learn_words(words)
    asked = next(each_word_once(tokens, 0.15, torch.Generator().manual_seed(0)))
    net(asked if words else {"tokens": tokens, "label": torch.arange(4) % 2})["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    assert net.classifier.weight.requires_grad != words and net.word_bias.requires_grad == words


# Few labels


def test_few_labels_are_balanced_nested_and_drawn_by_seed():
    texts = texts_of([[5]] * 40, [0, 1, 1, -1] * 10, [0] * 36 + [2] * 4)
    ten, four = texts.few(10, 3), texts.few(4, 3)
    assert sorted(texts.label[ten]) == [0] * 5 + [1] * 5 and set(four) < set(ten) and max(ten) < 36
    assert set(ten) != set(texts.few(10, 4))
    with pytest.raises(UserError, match="3 labelled texts do not divide into the 2 classes"):
        texts.few(3, 0)
    with pytest.raises(UserError, match="has 9 training texts of class 0, not 10"):
        texts.few(20, 0)


def test_texts_are_cut_and_padded():
    texts = texts_of([[5, 6, 7, 8, 9], [10]], [0, 1], [0, 0])
    rows = np.arange(2)
    assert texts.tokens(rows, 3).tolist() == [[5, 6, 7], [10, 0, 0]]
    assert texts.tokens(rows, 3, "last").tolist() == [[7, 8, 9], [10, 0, 0]]
    assert texts.pieces(rows, 3).tolist() == [[5, 6, 7], [8, 9, 0], [10, 0, 0]]
    with pytest.raises(UserError, match="no training text has a word of the vocabulary"):
        texts_of([[UNKNOWN], [UNKNOWN] * 4], [0, 1], [0, 0]).pieces(rows, 3)
    with pytest.raises(UserError, match="no labelled text in its split 'train'"):
        texts_of([[5], [6]], [-1, -1], [0, 0]).labelled("train")


def test_a_set_that_does_not_fit_is_one_line(tmp_path, monkeypatch):
    prepare("synonyms_smoke", tmp_path)
    prepare("recall_smoke", tmp_path)
    with pytest.raises(UserError, match="'recall_smoke' is not a set of texts as words: it has no 'words'"):
        open_texts("recall_smoke", tmp_path)
    opened = open_texts.__globals__["open_prepared"]

    def other_classes(*given):
        found = opened(*given)
        found.meta["facts"]["classes"] = ["one"]
        return found

    monkeypatch.setitem(open_texts.__globals__, "open_prepared", other_classes)
    with pytest.raises(UserError, match="'synonyms_smoke' has the label 1, but 1 classes"):
        open_texts("synonyms_smoke", tmp_path)


@pytest.mark.parametrize("change", [{"shares": [0.8, 0.1, 0.2]}, {"labels": [20, 10]}, {"labels": []}])
def test_wrong_options_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TextOptions(**{"length": 8, "labels": [10, 20], "finetune": {}} | change)


def test_the_bag_of_words_is_scikit_learns():
    tokens, generator = random_tokens(300, 12, 30).numpy(), np.random.default_rng(0)
    label = generator.integers(0, 3, 60)
    bag = bag_of_words.build(SPECIAL + 30, inverse_penalty=10.0)
    bag.fit(tokens, tokens[:60], label)
    lines = [" ".join(f"w{t}" for t in row if t >= SPECIAL) for row in tokens]
    vectors = TfidfVectorizer(token_pattern=r"\S+").fit(lines)
    theirs = LogisticRegression(C=10.0, max_iter=1000).fit(vectors.transform(lines[:60]), label)
    found = bag.class_logits(torch.from_numpy(tokens)).argmax(1).numpy()
    assert (found == theirs.predict(vectors.transform(lines))).all()
    assert bool(bag.class_logits(torch.zeros(1, 12, dtype=torch.int64)).isfinite().all())  # an empty text
    two = bag_of_words.build(SPECIAL + 30)
    two.fit(tokens, tokens[:60], label % 2)
    theirs = LogisticRegression(max_iter=1000).fit(vectors.transform(lines[:60]), label % 2)
    found = two.class_logits(torch.from_numpy(tokens)).argmax(1).numpy()
    assert (found == theirs.predict(vectors.transform(lines))).all() and len(set(found)) == 2


def test_metrics_of_what_a_run_keeps():
    generator = np.random.default_rng(0)
    label, told = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    assert class_mean(told, label) == pytest.approx(100 * balanced_accuracy_score(label, told))
    kept = {
        "label": label, "told_5": told, "told_20": label, "word_nats": np.full(4, math.log(8), np.float32),
        "unigram_nats": np.full(4, math.log(16), np.float32), "word_right": np.array([True, False, False, False]),
    }  # fmt: skip
    found = rescore(kept)
    assert found["accuracy"] == found["accuracy_5"] == class_mean(told, label) and found["accuracy_most"] == 100
    assert (found["masked_bits"], found["unigram_bits"], found["masked_accuracy"]) == pytest.approx((3, 4, 25))


# Pictures


class Album:
    tier, width = "mini", 7.4
    addresses = ("one", "bag", "other_set", "missing")

    def look(self, address):
        return Look("#0072B2", "o", "solid")

    def runs(self, address):
        if address == "missing":
            return {}
        spec = SimpleNamespace(data={"texts": "films" if address == "other_set" else "words"})
        curve = SimpleNamespace(x=[10.0, 20.0], y=[6.0, 5.0])
        metrics = {"accuracy_10": 60.0, "accuracy_40": 80.0, "accuracy_most": 80.0, "unigram_bits": 8.0}
        curves = {} if address == "bag" else {"masked_bits": curve}
        return {0: SimpleNamespace(metrics=metrics, curves=curves, spec=spec)}


def test_each_picture_is_drawn_of_what_there_is():
    bits, labels = pictures.draw(Album())
    for picture in (bits, labels):
        picture.figure.savefig(io.BytesIO(), format="svg")
        assert picture.publish and picture.alt and picture.caption
    line, unigram = bits.figure.axes[0].lines
    assert line.get_ydata() == pytest.approx([6, 5]) and unigram.get_ydata()[0] == 8
    assert [line.get_label() for line in labels.figure.axes[0].lines] == ["one", "bag"]
    assert labels.figure.axes[0].lines[1].get_ydata() == pytest.approx([60, 80])
    album = Album()
    album.addresses = ("missing",)
    assert not list(pictures.draw(album))
