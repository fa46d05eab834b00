"""BERT gives the numbers of transformers' BertForMaskedLM on the same weights, where transformers is installed."""

import pytest
import torch

from replications.papers.bert import model

transformers = pytest.importorskip("transformers", reason="an optional extra: pip install .[peers]")
VOCABULARY, LENGTH, WIDTH = 40, 12, 16


def test_words_are_told_alike_with_padding():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=4 * WIDTH, max_position_embeddings=LENGTH, attn_implementation="eager", initializer_range=0.3,
    )  # fmt: skip
    theirs = transformers.BertForMaskedLM(config).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    torch.nn.init.zeros_(theirs.bert.embeddings.token_type_embeddings.weight)  # segments, which ours has not
    ours = model.build(VOCABULARY, LENGTH, 2, width=WIDTH, depth=3, heads=4).eval()
    source, copied = theirs.state_dict(), {}
    for own, their in {
        "embedding": "bert.embeddings.word_embeddings", "position": "bert.embeddings.position_embeddings",
        "embedding_norm": "bert.embeddings.LayerNorm", "transform": "cls.predictions.transform.dense",
        "transform_norm": "cls.predictions.transform.LayerNorm",
    }.items():  # fmt: skip
        copied |= {f"{own}.{k}": source[f"{their}.{k}"] for k in ("weight", "bias") if f"{their}.{k}" in source}
    copied["word_bias"] = source["cls.predictions.bias"]
    for i in range(3):
        layer = f"bert.encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [source[f"{layer}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            copied[f"layers.{i}.into.{kind}"] = torch.cat(parts)
            for own, their in {
                "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
                "inner": "intermediate.dense", "outer": "output.dense", "norm": "output.LayerNorm",
            }.items():  # fmt: skip
                copied[f"layers.{i}.{own}.{kind}"] = source[f"{layer}.{their}.{kind}"]
    missing = ours.load_state_dict(copied, strict=False)
    assert set(missing.missing_keys) == {"classifier.weight", "classifier.bias"} and not missing.unexpected_keys
    tokens = torch.randint(3, VOCABULARY, (5, LENGTH))
    tokens[1, 7:] = tokens[2, 1:] = 0
    places = torch.arange(LENGTH).expand(5, -1)
    with torch.no_grad():
        found = ours.word_logits(tokens, places)
        expected = theirs(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
    torch.testing.assert_close(found[tokens != 0], expected[tokens != 0], rtol=1e-4, atol=1e-4)


def test_the_base_size_is_transformers_default():
    with torch.device("meta"):
        theirs = transformers.BertModel(transformers.BertConfig())
    assert sum(p.numel() for p in theirs.parameters()) == 109_482_240
