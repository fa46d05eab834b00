"""Language modelling: batches by step, what each score counts, the length sweep's figures, and wrong options."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from replications import catalogue
from replications.errors import UserError
from replications.layers.text.blocks import Rotary, exclusive_prefix, into_chunks
from replications.layers.text.model import IGNORED
from replications.measurement import lengths
from replications.running import RunContext
from replications.tasks.language_modelling import TASK, execute, stages, sweep
from replications.tasks.language_modelling.data import (
    MASK,
    MaskedBatches,
    Sequences,
    Text,
    WindowBatches,
    asked_targets,
)
from replications.tasks.language_modelling.evaluation import (
    asked_tokens,
    bits_per_byte,
    class_accuracy,
    masked_bytes,
    recurrence_gap,
    scored_bytes,
)
from replications.tasks.language_modelling.stages import TrainedStage

TEXT = np.random.default_rng(0).integers(0, 256, 4000).astype(np.uint8)
OPTIONS = {"length": 64, "stages": {"text": {}}}


class Repeater(nn.Module):
    """Holds that the byte at hand comes again, with probability 1/2, and any other alike."""

    def __init__(self, vocabulary=256):
        super().__init__()
        self.vocabulary, self.zero = vocabulary, nn.Parameter(torch.zeros(()))

    def logits(self, tokens):
        likely = math.log(self.vocabulary - 1)
        return F.one_hot(tokens.long(), self.vocabulary) * likely + self.zero


def test_windows_depend_on_seed_and_step_alone_and_split_into_parts():
    batches, again = (WindowBatches(TEXT, 16, 8, 3, "cpu") for _ in range(2))
    again.batch(0)
    whole = batches.batch(5)
    assert torch.equal(whole["tokens"], again.batch(5)["tokens"])
    assert not torch.equal(whole["tokens"], batches.batch(6)["tokens"])
    parts = [batches.batch(5, part, 2)["tokens"] for part in range(2)]
    assert torch.equal(torch.cat(parts), whole["tokens"])
    assert torch.equal(whole["tokens"][:, 1:].long(), whole["target"][:, :-1])


def test_every_byte_of_the_training_text_can_come_up():
    batches = WindowBatches(TEXT[:20], 16, 64, 0, "cpu")
    seen = {tuple(row) for step in range(8) for row in batches.batch(step)["tokens"].tolist()}
    assert len(seen) == 4  # 16 inputs and one more byte fit at four places
    with pytest.raises(UserError, match="too few for a window of 16"):
        WindowBatches(TEXT[:16], 16, 1, 0, "cpu")


def test_masked_batches_hide_what_they_ask_for_and_split_into_parts():
    batches = MaskedBatches(TEXT, 64, 64, 0, "cpu", fraction=0.15)
    plain, whole = WindowBatches(TEXT, 64, 64, 0, "cpu").batch(2)["tokens"].long(), batches.batch(2)
    asked = whole["target"] != IGNORED
    assert torch.equal(whole["target"][asked], plain[asked])
    assert torch.equal(whole["tokens"][~asked], plain[~asked])
    shown = whole["tokens"][asked]
    assert abs(asked.float().mean() - 0.15) < 0.02
    assert abs((shown == MASK).float().mean() - 0.8) < 0.05
    assert abs((shown == plain[asked]).float().mean() - 0.1) < 0.05
    assert torch.equal(torch.cat([batches.batch(2, p, 4)["tokens"] for p in range(4)]), whole["tokens"])


@pytest.mark.parametrize("length", [4, 16, 64])
def test_bits_per_byte_is_that_of_every_byte_once(length):
    text = np.where(np.random.default_rng(1).random(1025) < 0.6, 7, TEXT[:1025]).astype(np.uint8)
    same = text[1:] == text[:-1]
    wanted = np.where(same, 1.0, 1.0 + math.log2(255)).mean()
    assert bits_per_byte(Repeater(), text, length, 1024, 200) == pytest.approx(wanted, rel=1e-5)


def test_all_window_lengths_score_the_same_bytes():
    assert scored_bytes(TEXT, [64, 16, 256], None) == 3840  # 15 windows of 256
    assert scored_bytes(TEXT, [64], 100) == 64
    with pytest.raises(UserError, match="too few for a window of 4096"):
        scored_bytes(TEXT, [4096], None)


def test_masked_bytes_are_the_same_for_every_model_and_scored_alone():
    found = masked_bytes(Repeater(257), TEXT, 32, 1024, 0.15, 100)
    assert found == pytest.approx(masked_bytes(Repeater(257), TEXT, 32, 1024, 0.15, 333))
    assert 5 < found["masked_accuracy"] < 15  # a tenth is shown as it is, and repeated


def sequences(**arrays):
    base = {"asked": None, "label": None, "length": None, "vocabulary": 8, "classes": None}
    return Sequences("toy", split=np.array([2, 2, 0], np.int8), **{**base, **arrays})


def test_only_asked_tokens_count():
    tokens = np.array([[1, 1, 2, 3], [4, 5, 5, 5], [0, 0, 0, 0]], np.uint8)
    asked = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1]], bool)
    bits, accuracy = asked_tokens(Repeater(8), sequences(tokens=tokens, asked=asked), "test", 4)
    assert accuracy == pytest.approx(200 / 3)
    assert bits == pytest.approx((1 + 1 + 1 + math.log2(7)) / 3, rel=1e-5)
    batch = asked_targets(torch.from_numpy(tokens), torch.from_numpy(asked))
    assert batch["target"][0].tolist() == [1, 2, IGNORED] and batch["tokens"][0].tolist() == [1, 1, 2]


class FirstToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def class_logits(self, tokens, length):
        return F.one_hot(tokens[:, 0].long(), 8) + self.zero


def test_classes_are_scored_on_the_split_alone():
    tokens = np.array([[1, 0], [2, 2], [3, 3]], np.uint8)
    toy = sequences(tokens=tokens, label=np.array([1, 5, 3]), length=np.array([1, 2, 2]), classes=8)
    assert class_accuracy(FirstToken(), toy, "test", 2, 1) == 50.0


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = Rotary(8)
    query, key = torch.randn(2, 1, 8, dtype=torch.float64)
    near = rotary(query, 5) @ rotary(key, 2).T
    far = rotary(query, 1005) @ rotary(key, 1002).T
    torch.testing.assert_close(near, far)


def test_exclusive_prefix_sums_the_chunks_before():
    x = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    wanted = torch.stack([x[:, :i].sum(dim=1) for i in range(7)], dim=1)
    torch.testing.assert_close(exclusive_prefix(x), wanted)
    assert into_chunks(torch.ones(2, 10, 3), 4).sum(dim=(-2, -1)).tolist() == [[12.0, 12.0, 6.0]] * 2


def test_the_sweep_tells_exponents_speed_ups_and_where_costs_meet():
    def points(seconds, memory):
        return {n: {"seconds": seconds(n), "bytes": memory(n)} for n in (256, 512, 1024, 2048, 4096)}

    method = points(lambda n: 1e-5 * n, lambda n: 100 * n)
    sdpa = points(lambda n: 1e-8 * n**2, lambda n: 50 * n)
    naive = points(lambda n: 2e-8 * n**2, lambda n: n**2)
    naive[4096] = {"seconds": None, "bytes": None}  # out of memory
    found = lengths.summarise({"method": method, "sdpa": sdpa, "naive": naive})
    assert found.metrics["step_exponent"] == pytest.approx(1)
    assert found.metrics["memory_exponent"] == pytest.approx(1)
    assert found.metrics["crossover_sdpa"] == pytest.approx(1000, rel=1e-3)
    assert found.metrics["speedup_sdpa"] == pytest.approx(4.096)
    assert found.metrics["speedup_naive"] == pytest.approx(4.096)  # at 2048, its longest
    assert found.metrics["memory_ratio_sdpa"] == 2
    assert "decode_exponent" not in found.metrics
    assert set(found.metrics) <= set(TASK.metrics)


def test_a_sweep_without_room_says_so_and_goes_on():
    model = sweep.reference_model("naive", 257, 8, 1, 2)
    small = sweep.reference_model("sdpa", 257, 8, 1, 2)
    found = lengths._in_fresh_process({"method": small, "naive": model}, 4096, 1, "cpu", "float32", memory=0.06)
    assert found["naive"] == {"seconds": None, "bytes": None}
    assert found["method"]["seconds"] > 0 and found["method"]["token_seconds"] > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({**OPTIONS, "lenght": 4}, "lenght: unknown key.*length"),
        ({"length": 4, "stages": {"recall": {}}}, "must have 'text'"),
        ({**OPTIONS, "stages": {"text": {"seconds": 3}}}, "'text': 'seconds' is for the stage 'timed'"),
        ({**OPTIONS, "stages": {"text": {}, "timed": {}}}, "'timed': 'seconds' is for"),
        ({**OPTIONS, "transfer": [0.3]}, "not another whole length"),
        ({**OPTIONS, "sweep": {"lengths": [4, 2, 8]}}, "three or more, rising"),
        ({**OPTIONS, "stages": {"text": {"step": 3}}}, "stages.text.step: unknown key.*steps"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        TASK.parse_options(options)


def test_metrics_at_other_lengths_are_described():
    assert TASK.metrics["bits_per_byte_x0p25"].title == "Bits per byte, 0.25x"
    assert TASK.metrics["transfer_x4"].decimals == 4
    with pytest.raises(KeyError):
        TASK.metrics["bits_per_byte_xlong"]


def trained_stage(tmp_path, name, step_seconds=None, changes=()):
    """A stage of flash/flash in tier smoke on a text of its own, and what its training is given."""
    spec = catalogue.resolve("flash/flash", "smoke", 0, changes)
    context = RunContext(spec, torch.device("cpu"), tmp_path, tmp_path)
    stage = TrainedStage.of(context, name, step_seconds)
    stage.__dict__["data"] = Text("own", np.resize(TEXT, 9000), np.array([0, 6000, 7500, 9000]))
    return stage


def test_the_timed_stage_has_the_steps_that_fit_into_its_seconds(tmp_path):
    timed = 'task.stages={"text": {}, "timed": {"seconds": 0.9}}'
    stage = trained_stage(tmp_path, "timed", 0.1, [timed])
    assert stage.recipe.steps == 9
    assert stage.fit().steps == 9
    assert set(stage.score()) == {"bits_per_byte_equal_time"}
    assert trained_stage(tmp_path, "timed", 60.0, [timed]).recipe.steps == 1
    assert trained_stage(tmp_path, "text", None, [timed]).recipe.steps == 6


def test_a_timed_stage_of_its_own_length_takes_its_pace_from_a_stage_like_it(tmp_path, monkeypatch):
    same = trained_stage(tmp_path, "text", None, ['task.stages={"text": {}, "timed": {"seconds": 0.9}}'])
    assert TrainedStage.pace(same.context) is None
    longer = 'task.stages={"text": {}, "timed": {"seconds": 0.9, "length": 64, "batch_size": 1}}'
    text = trained_stage(tmp_path, "text", None, [longer])
    pace = TrainedStage.pace(text.context)
    assert (pace.length, pace.recipe.batch_size, pace.recipe.steps) == (64, 1, stages.PACE_STEPS)
    trained = []
    monkeypatch.setattr(
        TrainedStage, "fit", lambda self: trained.append(self.name) or SimpleNamespace(seconds=6, steps=12)
    )
    assert execute._step_seconds(text.context, SimpleNamespace(seconds=1.0, steps=10)) == 0.5
    assert execute._step_seconds(same.context, SimpleNamespace(seconds=1.0, steps=10)) == 0.1
    assert trained == ["pace"]


class Forgetful(nn.Module):
    """Adds up the tokens; `step` forgets what came before the last `memory`."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def logits(self, tokens):
        return F.one_hot(tokens.long(), 8).double().cumsum(dim=1)

    def start(self, batch, capacity):
        return [{"sum": torch.zeros(batch, capacity, 8)}]

    def step(self, token, position, states):
        states[0]["sum"][:, position] = F.one_hot(token, 8)
        return states[0]["sum"][:, max(0, position + 1 - self.memory) : position + 1].sum(dim=1)


def test_the_recurrence_gap_is_the_largest_difference_of_a_logit():
    tokens = torch.tensor([3, 3, 3, 1, 3])
    assert recurrence_gap(Forgetful(5), tokens) == 0
    assert recurrence_gap(Forgetful(2), tokens) == 3  # at the end one 3 is seen, of four


def test_decoding_bytes_are_those_of_one_sequence():
    attention = sweep.reference_model("sdpa", 257, 8, 2, 2)
    assert [sweep.decoding_bytes(attention, n) for n in (16, 32)] == [2 * 2 * 16 * 8 * 4, 2 * 2 * 32 * 8 * 4]


def test_the_text_stage_is_validated_as_often_as_asked_on_as_many_bytes(tmp_path, monkeypatch):
    scored = []
    real = stages.bits_per_byte

    def counting(model, text, length, count, size):
        scored.append(count)
        return real(model, text, length, count, size)

    monkeypatch.setattr(stages, "bits_per_byte", counting)
    stage = trained_stage(tmp_path, "text", None, ["task.validations=3", "task.validation_bytes=100"])
    history = stage.fit().history
    assert [point.step for point in history if point.split == "validation"] == [2, 4, 6]
    assert scored == [96] * 3
    found = execute._quality_by_time(SimpleNamespace(history=history, seconds=3.0, steps=6))
    assert found["seconds"] == [1.0, 2.0, 3.0] and len(found["bits_per_byte"]) == 3


def test_runs_of_later_seeds_leave_the_sweep_out():
    options = TASK.parse_options({**OPTIONS, "sweep": {"lengths": [2, 4, 8]}, "sweep_seeds": 1})
    seeds = [seed for seed in range(3) if execute._sweeps(SimpleNamespace(spec=SimpleNamespace(seed=seed)), options)]
    assert seeds == [0]


def test_attention_maps_are_the_weights_of_each_layer():
    model = sweep.reference_model("naive", 257, 8, 2, 2)
    tokens = torch.arange(10)
    maps = model.attention_maps(tokens)
    assert maps.shape == (2, 10, 10)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 10))
    assert (maps.triu(1) == 0).all()
    second = model.blocks[1]
    x = model.blocks[0](model._embed(tokens[None], 0))
    torch.testing.assert_close(maps[1], second.mixer.weights(second.norm(x))[0].mean(dim=0))
