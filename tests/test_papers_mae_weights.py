"""``evaluate mae --weights``: official layouts are read and scored, anything else is one clear line."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from replications import catalogue
from replications.cli import main
from replications.datasets.prepare import prepare
from replications.papers.mae.model import build

CLASSES, SIZE = 10, 16


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    prepare("digits_16", root)
    return root


def made(seed=0, **options):
    torch.manual_seed(seed)
    tier = catalogue.task_tiers("image_classification")["smoke"].options
    return build(CLASSES, SIZE, vit=tier["vit"], decoder=tier["decoder"], **options)


def evaluate(path, data_root, results):
    code = main(
        f"evaluate mae --weights {path} --tier smoke --data-root {data_root} --device cpu "
        f"--work {results / 'work'} --results {results / 'out'}".split()
    )
    found = list((results / "out").rglob("run.json"))
    return code, json.loads(found[0].read_text()) if found else None


def official(module):
    """The official layout: names at the top, under ``model``."""
    return {"model": module.state_dict()}


def test_an_autoencoder_a_pretrained_encoder_and_a_classifier_are_scored(data_root, tmp_path):
    classifier = made()
    pretrainer = classifier.pretrainer()
    encoder = {k: v for k, v in pretrainer.state_dict().items() if not k.startswith(("decoder_", "mask_token"))}
    cases = {
        "autoencoder": (official(pretrainer), {"knn_accuracy", "reconstruction_loss", "reconstruction_gain"}),
        "encoder": ({"model": encoder}, {"knn_accuracy"}),
        "classifier": (official(classifier), {"accuracy", "top5", "knn_accuracy"}),
    }
    for holds, (content, metrics) in cases.items():
        torch.save(content, tmp_path / f"{holds}.pth")
        code, record = evaluate(tmp_path / f"{holds}.pth", data_root, tmp_path / holds)
        assert code == 0 and record["extra"]["holds"] == holds
        assert set(record["metrics"]) == metrics
        assert record["extra"]["weights"]["file"] == f"{holds}.pth"


def test_safetensors_and_pth_score_alike_and_weights_matter(data_root, tmp_path):
    trained = made()
    torch.nn.init.normal_(trained.head.weight)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, tmp_path / "a.safetensors")
    torch.save(official(trained), tmp_path / "a.pth")
    other = made(seed=1)
    torch.nn.init.normal_(other.head.weight)
    torch.save(official(other), tmp_path / "b.pth")
    scores = [evaluate(tmp_path / name, data_root, tmp_path / name.replace(".", "_"))[1] for name in
              ("a.safetensors", "a.pth", "b.pth")]  # fmt: skip
    metrics = [score["metrics"] for score in scores]
    assert metrics[0] == metrics[1] != metrics[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"blocks.0.foo": torch.zeros(2)}}, "not in the layout of MAE's checkpoints .* it has no cls_token"),
        ({"model": "nothing"}, "holds no weights by name"),
        (b"not a weights file", "is not a weights file that can be read safely"),
    ],
)
def test_a_wrong_layout_is_one_line(content, message, data_root, tmp_path, capsys):
    path = tmp_path / "wrong.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    code, record = evaluate(path, data_root, tmp_path / "out")
    error = capsys.readouterr().err.strip().splitlines()
    assert code != 0 and record is None
    assert re.search(message, error[-1]) and len(error) == 1, error


def test_another_size_and_a_superfluous_name_are_one_line(data_root, tmp_path, capsys):
    state = made().state_dict()
    torch.save({"model": state | {"head.weight": torch.zeros(1000, 32)}}, tmp_path / "classes.pth")
    torch.save({"model": state | {"extra.weight": torch.zeros(1)}}, tmp_path / "extra.pth")
    assert evaluate(tmp_path / "classes.pth", data_root, tmp_path / "out")[0] != 0
    assert "head.weight has shape [1000, 32], this tier's network [10, 32]" in capsys.readouterr().err
    assert evaluate(tmp_path / "extra.pth", data_root, tmp_path / "out")[0] != 0
    assert "extra.weight has no place" in capsys.readouterr().err


def test_a_file_that_would_run_code_is_refused(data_root, tmp_path, capsys):
    torch.save({"model": made()}, tmp_path / "module.pth")  # a pickled module, not its weights
    assert evaluate(tmp_path / "module.pth", data_root, tmp_path / "out")[0] != 0
    assert "can be read safely" in capsys.readouterr().err
