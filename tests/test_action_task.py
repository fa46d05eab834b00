"""Online actions: metrics against scikit-learn and a naive formula, windows, streams, official layouts, bad input."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from replications import catalogue, running
from replications.datasets.actions import features, procedural
from replications.datasets.prepare import prepare
from replications.datasets.registry import find_set
from replications.datasets.synthetic import SyntheticSet, write_synthetic
from replications.errors import RunFailure, UserError
from replications.layers.actions.model import ActionDetector
from replications.tasks.online_action.data import StreamBatches, Streams, open_streams
from replications.tasks.online_action.metrics import average_precisions, evaluate
from replications.tasks.online_action.rescore import rescore
from replications.tasks.online_action.skeleton import build

CPU = torch.device("cpu")


def streams(lengths=(5, 9), split=(0, 2), width=3, classes=4, invalid=(), seed=0):
    rng, frames = np.random.default_rng(seed), sum(lengths)
    valid = np.ones(frames, bool)
    valid[list(invalid)] = False
    return Streams(
        "toy", "toy", rng.standard_normal((frames, width)).astype(np.float32),
        np.eye(classes, dtype=np.uint8)[rng.integers(classes, size=frames)], valid,
        np.cumsum([0, *lengths]), np.array(split, np.int8), [f"c{i}" for i in range(classes)],
    )  # fmt: skip


def naive_calibrated(score, positive):
    """The formula of TVSeries frame by frame, for scores that all differ."""
    w = (len(score) - positive.sum()) / positive.sum()
    true = false = total = 0
    for frame in np.argsort(-score):
        true, false = true + positive[frame], false + 1 - positive[frame]
        if positive[frame]:
            total += w * true / (w * true + false)
    return total / positive.sum()


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns_and_the_calibrated_one_the_formula(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.2
    score = rng.standard_normal(200) + positive
    plain, calibrated = average_precisions(score, positive)
    assert plain == pytest.approx(average_precision_score(positive, score), abs=1e-12)
    assert calibrated == pytest.approx(naive_calibrated(score, positive.astype(int)), abs=1e-12)
    tied = score.round(0)  # frames of one score count together
    assert average_precisions(tied, positive)[0] == pytest.approx(average_precision_score(positive, tied), abs=1e-12)


def test_calibration_makes_the_chance_level_a_half():
    rng = np.random.default_rng(0)
    positive = rng.random(20000) < 0.05
    plain, calibrated = average_precisions(rng.random(20000), positive)
    assert plain == pytest.approx(0.05, abs=0.01) and calibrated == pytest.approx(0.5, abs=0.03)


def scored(lengths, horizon, actions=3, invalid=(), seed=0):
    rng, frames = np.random.default_rng(seed), sum(lengths)
    valid = np.ones(frames, bool)
    valid[list(invalid)] = False
    target = np.eye(actions + 1, dtype=np.uint8)[rng.integers(actions + 1, size=frames)][:, 1:]
    scores = rng.standard_normal((frames, 1 + horizon, actions)).astype(np.float16)
    return {"scores": scores, "target": target, "valid": valid, "bounds": np.cumsum([0, *lengths])}


def test_metrics_are_those_of_the_second_way():
    arrays = scored((40, 1, 30, 60), 4, invalid=(3, 50, 51))
    found, _ = evaluate(arrays)
    again = rescore(arrays)
    assert found.keys() == again.keys()
    assert all(found[name] == pytest.approx(again[name], abs=1e-9) for name in found)


def test_a_frame_ahead_is_of_the_same_stream_and_valid():
    arrays = scored((2, 3), 1, actions=1)
    arrays["target"][:] = [[1], [0], [1], [1], [0]]
    arrays["scores"][:] = 0
    arrays["scores"][:, 1, 0] = [0, 9, 1, 0, 9]  # frames 1 and 4 end their streams: what they tell is not scored
    assert evaluate(arrays)[0]["map_ahead_1"] == pytest.approx(100)  # 0 -> 0, 2 -> 1, 3 -> 0
    arrays["valid"][3] = False  # 2 -> 3 is gone, and so is what frame 3 tells: nothing positive is left
    with pytest.raises(RunFailure, match="no test frame has an action 1 frames ahead"):
        evaluate(arrays)


def test_an_action_without_a_test_frame_is_left_out():
    arrays = scored((60,), 1)
    arrays["target"][:, 0] = 0
    found, actions = evaluate(arrays)
    assert np.isnan(actions[0]) and found["map"] == pytest.approx(np.mean(actions[1:]))
    assert rescore(arrays)["map"] == pytest.approx(found["map"])


def test_windows_are_those_of_the_streams():
    data = streams((5, 2, 9), (0, 0, 2), invalid=(1,))
    batches = StreamBatches(data, 3, 2, 6, 0, CPU)
    assert batches.samples == 6  # the valid frames of the two training streams
    batch, seen = batches.batch(0), set()
    for window, target, valid in zip(batch["features"], batch["target"], batch["valid"], strict=True):
        frame = next(i for i in range(7) if torch.equal(window[-1], torch.from_numpy(data.features[i])))
        seen.add(frame)
        first, stop = (0, 5) if frame < 5 else (5, 7)
        for offset in range(-2, 3):
            inside = first <= frame + offset < stop
            assert bool(valid[2 + offset]) == (inside and frame + offset != 1)
            if offset <= 0:
                expected = data.features[frame + offset] if inside else np.zeros(3)
                assert np.array_equal(window[2 + offset], expected)
            if inside:
                assert np.array_equal(target[2 + offset], data.target[frame + offset])
    assert seen == {0, 2, 3, 4, 5, 6}


def test_a_detector_sees_zeros_before_a_stream_and_streams_shorter_than_its_window():
    torch.manual_seed(0)
    detector = build(3, 4, window=5, horizon=2)
    frames = torch.randn(2, 3, 3)
    found = detector.score(frames, chunk=1)
    assert found.shape == (2, 3, 3, 4)
    for stream in range(2):
        for frame in range(3):
            window = torch.zeros(1, 5, 3)
            window[0, 4 - frame :] = frames[stream, : frame + 1]
            now, ahead = detector.logits(window)
            expected = torch.cat([now[:, :, None], ahead], 2)[0, 0].log_softmax(-1)
            assert torch.allclose(found[stream, frame], expected, atol=1e-6)


class Told(ActionDetector):
    """Logits that are the features themselves, now and for each frame ahead."""

    causal = True

    def logits(self, features):
        return features, features[:, :, None].expand(-1, -1, self.horizon, -1)


def test_the_loss_is_the_mean_over_valid_frames_now_and_ahead():
    torch.manual_seed(0)
    detector, x = Told(3, 2, future_weight=0.5), torch.randn(1, 3, 4)
    target = torch.eye(4, dtype=torch.uint8)[torch.randint(4, (1, 5))]
    valid = torch.tensor([[False, True, True, True, False]])
    logs = x[0].log_softmax(-1)
    now = [-logs[i][target[0, i].bool()].sum() for i in (1, 2)]
    ahead = [-logs[i][target[0, j].bool()].sum() for i, j in ((1, 2), (1, 3), (2, 3))]
    expected = torch.stack(now).mean() + 0.5 * torch.stack(ahead).mean()
    assert torch.allclose(detector({"features": x, "target": target, "valid": valid})["loss"], expected)


# Data sets


def options(**changes):
    return {"train": 3, "validation": 1, "test": 2, "frames": 60, **changes}


def test_procedural_streams_hide_the_action_in_their_bodies(tmp_path):
    facts = procedural.prepare(tmp_path, options(opener_norm=30.0, body_norm=9.0, distractors=0.0), {}, 1)
    x, target = np.load(tmp_path / "features.npy"), np.load(tmp_path / "target.npy").argmax(1)
    assert facts["classes"] == ["background", "A1", "A2", "B1", "B2", "C1", "C2"] and facts["streams"] == [3, 1, 2]
    assert np.load(tmp_path / "bounds.npy").tolist() == [0, 60, 120, 180, 240, 300, 360]
    norm = np.linalg.norm(x, axis=1)
    assert (norm[target == 0] < 8).all()  # background: noise
    body = {action: x[(target == action) & (norm < 20)].mean(0) for action in range(1, 7)}
    for first in (1, 3, 5):
        assert np.linalg.norm(body[first] - body[first + 1]) < 3  # the two of a pair look alike
    assert np.linalg.norm(body[1] - body[3]) > 5
    for stream in target.reshape(-1, 60):
        changes = np.flatnonzero(np.diff(stream, prepend=0))
        runs = np.diff([*changes, 60])[:-1]
        kinds = stream[changes][:-1]
        assert all(8 <= length <= 23 for length, kind in zip(runs, kinds, strict=True) if kind)
        assert all(4 <= length <= 11 for length, kind in zip(runs, kinds, strict=True) if not kind)


def test_a_test_part_without_an_action_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no frame of the test streams has an action"):
        procedural.prepare(tmp_path, options(frames=3), {}, 1)
    with pytest.raises(UserError, match="must hold an opener"):
        procedural.prepare(tmp_path, options(gap=(1, 4)), {}, 1)


def official(root, key, chunks=(6, 9)):
    """Write a small data set in the layout that a registered set reads, with narrow features; returns its options."""
    wanted = dict(find_set(key).options) | {"widths": [4, 2]}
    info = {wanted["name"]: {"class_index": ["Background", "Run", "Jump", "Ambiguous"],
                             "train_session_set": ["v1"], "test_session_set": ["v2"]}}  # fmt: skip
    if wanted["name"] == "TVSeries":
        info["TVSeries"]["class_index"] = ["Run", "Jump"]
    (root / features.INFO).write_text(json.dumps(info))
    rng, labels = np.random.default_rng(0), {}
    for video, count in zip(("v1", "v2"), chunks, strict=True):
        width = 3 if wanted["name"] == "TVSeries" else 4
        labels[video] = np.eye(width)[np.arange(count) % width]
        for pattern, numbers in zip(wanted["features"], wanted["widths"], strict=True):
            path = root / pattern.format(video=video)
            path.parent.mkdir(exist_ok=True)
            np.save(path, rng.standard_normal((count, numbers)).astype(np.float32))
        if "labels" in wanted:
            path = root / wanted["labels"].format(video=video)
            path.parent.mkdir(exist_ok=True)
            np.save(path, labels[video])
    for path, video in zip(wanted.get("pickles", ()), ("v1", "v2"), strict=False):
        content = {video: {"anno": labels[video], "feature_length": len(labels[video])}}
        (root / path).write_bytes(pickle.dumps(content, protocol=4))
    return wanted


@pytest.mark.parametrize("key", ["thumos14", "thumos14_perframe", "tvseries"])
def test_official_layouts_are_read(key, tmp_path):
    root, target = tmp_path / "videos", tmp_path / "out"
    root.mkdir()
    target.mkdir()
    wanted = official(root, key)
    facts = features.prepare(target, wanted, {"videos": root}, 1)
    x, label, valid = (np.load(target / f"{name}.npy") for name in ("features", "target", "valid"))
    rgb, flow = (np.load(root / pattern.format(video="v2")) for pattern in wanted["features"])
    assert np.array_equal(x[6:], np.concatenate([rgb, flow], axis=1))
    assert facts["classes"] == ["Background", "Run", "Jump"] and label.shape == (15, 3)
    assert np.load(target / "split.npy").tolist() == [0, 2] and np.load(target / "bounds.npy").tolist() == [0, 6, 15]
    ambiguous = [3, 6 + 3, 6 + 7] if key != "tvseries" else []
    assert np.flatnonzero(~valid).tolist() == ambiguous and not label[ambiguous].any()


def break_width(root, wanted):
    np.save(root / wanted["features"][1].format(video="v2"), np.zeros((9, 5), np.float32))
    return r"v2_flow.npy is \[9, 5\], expected 9 chunks \(its labels\) of 2 numbers"


def break_length(root, wanted):
    np.save(root / wanted["features"][0].format(video="v1"), np.zeros((7, 4), np.float32))
    return r"v1_rgb.npy is \[7, 4\], expected 6 chunks"


def break_missing(root, wanted):
    (root / wanted["features"][0].format(video="v1")).unlink()
    return "v1_rgb.npy is missing"


def break_number(root, wanted):
    np.save(root / wanted["features"][0].format(video="v1"), np.full((6, 4), np.nan, np.float32))
    return "v1_rgb.npy, row 0: not finite"


def break_pickle(root, wanted):
    (root / wanted["pickles"][0]).write_bytes(pickle.dumps({"v1": pytest.fail}))
    return "is no pickle of arrays: it asks for"


def break_video(root, wanted):
    (root / wanted["pickles"][0]).write_bytes(pickle.dumps({"v3": {"anno": np.ones((6, 4))}}))
    return "has no labels .'anno'. of v1"


def break_labels(root, wanted):
    (root / wanted["pickles"][0]).write_bytes(pickle.dumps({"v1": {"anno": np.full((6, 4), 2)}}))
    return "must be zeros and ones"


def break_info(root, wanted):
    (root / features.INFO).write_text(json.dumps({"HDD": {}}))
    return "has no lists of 'THUMOS'"


def break_classes(root, wanted):
    info = json.loads((root / features.INFO).read_text())
    info["THUMOS"]["class_index"].insert(0, "more")
    info["THUMOS"]["class_index"].insert(0, "many")
    (root / features.INFO).write_text(json.dumps(info))
    return r"labels have \[4\] columns, but data_info.json names 6 classes"


BREAKS = [break_width, break_length, break_missing, break_number, break_pickle, break_video, break_labels, break_info]


@pytest.mark.parametrize("damage", [*BREAKS, break_classes])
def test_official_files_of_another_form_are_one_line(damage, tmp_path):
    wanted = official(tmp_path, "thumos14")
    target = tmp_path / "out"
    target.mkdir()
    message = damage(tmp_path, wanted)
    with pytest.raises(UserError, match=message):
        features.prepare(target, wanted, {"videos": tmp_path}, 1)


def test_another_set_is_refused(tmp_path):
    prepare("rare_vectors", tmp_path)
    with pytest.raises(UserError, match="is not a set of streams of actions: it has no 'features'"):
        open_streams("rare_vectors", tmp_path)


def test_streams_shorter_than_the_window_and_an_action_that_was_never_trained(tmp_path):
    data = streams((4, 3, 7, 5, 6), (0, 0, 0, 1, 2), width=2)
    data.target[:] = np.eye(4, dtype=np.uint8)[np.arange(25) % 3]
    data.target[20] = (0, 0, 0, 1)  # action c3, in a test stream alone
    arrays = {name: getattr(data, name) for name in ("features", "target", "valid", "bounds", "split")}
    write_synthetic("streams_smoke", SyntheticSet(arrays, {"classes": data.classes}), tmp_path)
    spec = catalogue.resolve("trn/frame", "smoke", 0)  # its window has 8 frames
    spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"batch_size": 8, "steps": 2})})
    places = {"data_root": tmp_path, "work_root": tmp_path / "work", "results": tmp_path / "results", "device": CPU}
    record = running.execute(spec, **places)
    assert (
        record.status == "finished"
        and record.extra["untrained"] == ["c3"]
        and set(record.extra["ap"]) == {"c1", "c2", "c3"}
    )
    far = spec.model_copy(update={"task_options": spec.task_options | {"horizon": 6}})
    with pytest.raises(UserError, match="task option 'horizon': 6 frames ahead, but test streams have 6 or fewer"):
        running.make_workload(far, tmp_path, CPU)
