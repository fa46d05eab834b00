"""Language modelling, what can be wrong with an input: handled, or one clear line."""

import numpy as np
import pytest
import torch

from replications.datasets.text import files as text_files
from replications.errors import UserError
from replications.papers.flash.model import build_flash, build_quad
from replications.papers.linear_attention.model import build as build_linear
from replications.papers.transformer.model import build as build_transformer
from replications.spec import Recipe
from replications.tasks.language_modelling.evaluation import bits_per_byte, scored_bytes
from replications.training.loop import train
from replications.training.stage import Stage
from replications.training.windows import WindowBatches

SIZE = {"width": 16, "depth": 1}
CHUNK = 8
UNDECODABLE = np.frombuffer(b"\xff\xfe\x80\x00caf\xc3" * 40, np.uint8)  # no UTF-8, with zeros and half a letter


def make(name, vocabulary=256, length=16):
    return {
        "transformer": lambda: build_transformer(vocabulary, True, None, **SIZE, heads=2),
        "sinusoidal": lambda: build_transformer(vocabulary, True, None, **SIZE, heads=2, positions="sinusoidal"),
        "linear": lambda: build_linear(vocabulary, length, True, None, **SIZE, heads=2, chunk=CHUNK),
        "cosformer": lambda: build_linear(vocabulary, length, True, None, **SIZE, heads=2, features="cosformer"),
        "flash": lambda: build_flash(vocabulary, True, None, **SIZE, key_size=8, chunk=CHUNK),
        "quad": lambda: build_quad(vocabulary, length, True, None, **SIZE, key_size=8),
        "quad_longest": lambda: build_quad(vocabulary, length, True, None, **SIZE, key_size=8, divisor="longest"),
    }[name]()


NAMES = ("transformer", "sinusoidal", "linear", "cosformer", "flash", "quad", "quad_longest")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, CHUNK - 1, CHUNK + 1, 3 * CHUNK - 1])
def test_a_length_that_is_no_multiple_of_the_chunk_gives_what_a_longer_one_does(name, n):
    if name == "quad":
        pytest.skip("divides by the length at hand: another length is another function")
    model, tokens = make(name, length=4 * CHUNK).eval(), torch.arange(4 * CHUNK)[None]
    torch.testing.assert_close(model.logits(tokens[:, :n]), model.logits(tokens)[:, :n], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_beyond_the_training_length_is_scored(name):
    text = np.resize(UNDECODABLE, 4 * 64 + 1)
    assert np.isfinite(bits_per_byte(make(name, length=16), text, 4 * 16, 256, 64))


@pytest.mark.parametrize("name", ["transformer", "quad_longest"])
def test_decoding_beyond_the_room_it_was_given_says_so(name):
    model, token = make(name), torch.zeros(1, dtype=torch.long)
    states = model.start(1, 3)
    for position in range(3):
        model.step(token, position, states)
    with pytest.raises(UserError, match="position 3 is beyond the 3 that decoding was started for"):
        model.step(token, 3, states)


def test_an_empty_text_is_refused_where_it_is_prepared_trained_on_and_scored(tmp_path):
    with pytest.raises(UserError, match="the test text is empty"):
        text_files.write_text(tmp_path, [b"abc", b"def", b""])
    nothing = np.zeros(0, np.uint8)
    with pytest.raises(UserError, match="has 0 bytes, too few for a window of 8"):
        WindowBatches(nothing, 8, 1, 0, "cpu")
    with pytest.raises(UserError, match="has 0 bytes, too few for a window of 8"):
        scored_bytes(nothing, [8], None)


@pytest.mark.parametrize("name", NAMES)
def test_undecodable_bytes_are_bytes(name, tmp_path):
    text_files.write_text(tmp_path, [UNDECODABLE.tobytes()] * 3)
    text = np.load(tmp_path / "text.npy")
    assert text.tobytes() == 3 * UNDECODABLE.tobytes()
    model = make(name)
    loss = model(WindowBatches(text, 16, 4, 0, "cpu").batch(0))["loss"]
    loss.backward()
    assert loss.isfinite()


def test_another_vocabulary_at_resume_is_named(tmp_path):
    def stage(vocabulary):
        recipe = Recipe(batch_size=2, steps=2, optimizer="adamw", lr=1e-3, channels_last=False)
        return Stage("text", make("linear", vocabulary), WindowBatches(UNDECODABLE, 8, 2, 0, "cpu"), recipe)

    train(stage(256), work=tmp_path, seed=0, device="cpu")
    with pytest.raises(UserError, match=r"another training \(parameters was .*embedding.weight.*256.*258") as error:
        train(stage(258), work=tmp_path, seed=0, device="cpu")
    assert "\n" not in str(error.value)


def test_a_window_of_one_byte_is_trained_and_scored():
    batches = WindowBatches(UNDECODABLE, 1, 3, 0, "cpu")
    for name in NAMES:
        model = make(name, length=1)
        assert model(batches.batch(0))["loss"].isfinite()
        assert np.isfinite(bits_per_byte(model, UNDECODABLE, 1, 32, 8))


def test_a_text_too_large_to_hold_gives_the_same_windows(monkeypatch):
    held = WindowBatches(UNDECODABLE, 8, 5, 3, "cpu")
    monkeypatch.setattr("replications.training.windows.RESIDENT_BYTES", 10)
    streamed = WindowBatches(UNDECODABLE, 8, 5, 3, "cpu")
    assert streamed.text is UNDECODABLE
    for step in range(3):
        for name, value in held.batch(step, 1, 5).items():
            assert torch.equal(value, streamed.batch(step, 1, 5)[name])
