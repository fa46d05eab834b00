"""Speed on random data: sets of the right form for every task, marked as what they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from replications import catalogue
from replications.cli import main
from replications.datasets.prepare import prepare
from replications.errors import RunFailure
from replications.measurement import throughput
from replications.records import read_throughput
from replications.reporting.results import read_results
from replications.running import make_synthetic_workload, make_workload

CPU = torch.device("cpu")
# One row of each task, and rows whose data are of another form.
ROWS = (
    "arcface/arcface", "mae/mae", "vit/vit", "detr/detr", "detr/detr_masks", "pointconv/pointconv", "pointconv/image",
    "votenet/votenet", "flash/flash", "gumbel_softmax/relaxed", "made/joint", "vib/vib_1e2", "smooth_metrics/soft_f1",
    "bert/bert",
)  # fmt: skip


def form(batch):
    """Names, types and shapes but for the number of objects in the fullest image."""
    return {name: (value.dtype, tuple(value.shape[:1]), tuple(value.shape[2:])) for name, value in batch.items()}


@pytest.mark.parametrize("address", ROWS)
def test_random_data_have_the_form_of_real_ones(address, tmp_path):
    spec = catalogue.resolve(address, "smoke", 0)
    for key in set(spec.data.values()):
        prepare(key, tmp_path)
    real, random = make_workload(spec, tmp_path, CPU), make_synthetic_workload(spec, tmp_path / "none", CPU)
    assert form(random.batch) == form(real.batch)
    shapes = [{n: p.shape for n, p in load.stage.module.state_dict().items()} for load in (real, random)]
    assert shapes[0] == shapes[1], "the model is told the same sizes: classes, people, channels"
    kept = {"validate_every": None}  # counts in epochs of the set
    assert random.stage.recipe.model_copy(update=kept) == real.stage.recipe.model_copy(update=kept)
    assert torch.isfinite(random.stage.module.train()(random.batch)["loss"])
    infer = [load.infer(load.stage.module.eval(), 2).shape for load in (real, random)]
    assert infer[0] == infer[1]


def test_a_batch_larger_than_what_is_made_repeats_it(tmp_path):
    spec = catalogue.resolve("vit/vit", "smoke", 0, ["recipe.batch_size=300"])
    load = make_synthetic_workload(spec, tmp_path, CPU)
    image = load.batch["image"]
    assert len(image) == load.stage.recipe.batch_size == 300
    assert torch.equal(image[128:256], image[:128]) and not torch.equal(image[0], image[1])


def measure(folder, *words):
    return main(["throughput", "vit/vit", "--synthetic", "--tier", "smoke", "--device", "cpu",
                 "--data-root", str(folder / "none"), "--results", str(folder), *words])  # fmt: skip


def test_the_command_needs_no_data_and_keeps_its_records_apart(tmp_path, capsys):
    assert measure(tmp_path) == 0
    assert measure(tmp_path, "--batch", "8", "--no-compile") == 0
    said = capsys.readouterr().out
    assert said.count("random data: no result") == 2 and "batch 8, float32, eager" in said
    folder = tmp_path / "smoke" / "synthetic" / "vit"
    plain, small = (read_throughput(folder / name) for name in ("vit.json", "vit-batch8-eager.json"))
    assert (plain.synthetic, plain.batch_size, small.batch_size) == (True, 64, 8)
    assert not (tmp_path / "smoke" / "throughput").exists() and not (tmp_path / "none").exists()
    records = read_results(tmp_path / "smoke", "smoke", catalogue.papers())
    assert not records.throughput and not records.problems
    place = tmp_path / "smoke" / "throughput" / "vit" / "vit.json"
    place.parent.mkdir(parents=True)
    (folder / "vit.json").rename(place)
    records = read_results(tmp_path / "smoke", "smoke", catalogue.papers())
    assert not records.throughput and "random data" in records.problems[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch", "0"], "from 1 on, or 'max'"),
        (["--batch", "many"], "from 1 on, or 'max'"),
        (["--batch", "max"], "needs a GPU"),
    ],
)
def test_a_wrong_batch_is_one_line(tmp_path, capsys, words, told):
    assert measure(tmp_path, *words) != 0
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


@pytest.mark.parametrize(("most", "code"), [(3, 0), (0, 1)])
def test_a_batch_without_room_is_told_with_the_largest_that_fits(tmp_path, capsys, monkeypatch, most, code):
    take = throughput._in_fresh_process

    def step(host, spec, make_workload, data_root, device, effort, halvings):
        if spec.recipe.batch_size >> halvings > most:
            raise RunFailure("out of memory", "CUDA out of memory. Tried to allocate 20 GiB")
        return take(host, spec, make_workload, data_root, device, effort, halvings)

    monkeypatch.setattr(throughput, "_in_fresh_process", step)
    assert measure(tmp_path, "--batch", "8") == code
    told = "; batch 2 (8 asked for: out of memory), float32" if most else "vit/vit: out of memory: CUDA out of memory."
    out, error = capsys.readouterr()
    assert told in out and "Traceback" not in error
    record = read_throughput(tmp_path / "smoke" / "synthetic" / "vit" / "vit-batch8.json")
    assert (record.requested_batch_size, record.batch_size) == (8, 2 if most else 1)


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "replications", "throughput", "vit/vit", "--synthetic", "--tier", "smoke", "--device", "cuda"],
        ["-m", "replications", "doctor", "--methods", "vit/vit", "--device", "cuda"],
        ["-m", "benchmarks.length_sweep", "flash/flash", "--tier", "smoke", "--device", "cuda", "--out", "none.json"],
    ],
)
def test_a_gpu_that_is_not_there_is_one_line(words, tmp_path):
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}
    found = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    (line,) = found.stderr.splitlines()
    assert found.returncode in (1, 2) and line.startswith("error: ") and "visible here: 0" in line
    assert not list(tmp_path.rglob("*.json*"))


def test_batch_and_compile_are_for_random_data(tmp_path, capsys):
    assert main(["throughput", "vit/vit", "--tier", "smoke", "--batch", "8", "--results", str(tmp_path)]) != 0
    assert "--synthetic" in capsys.readouterr().err


def test_the_largest_batch_is_doubled_until_memory_is_out(tmp_path, monkeypatch):
    spec = catalogue.resolve("vit/vit", "smoke", 0, ["recipe.batch_size=3"])
    tried = []

    def step(host, spec, *_):
        tried.append(spec.recipe.batch_size)
        if spec.recipe.batch_size > 20:
            raise RunFailure("out of memory", "no room")

    monkeypatch.setattr(throughput, "_in_fresh_process", step)
    found = throughput.largest_batch(spec, None, tmp_path, "cpu", None)
    assert found.recipe.batch_size == 12 and tried == [6, 12, 24]
