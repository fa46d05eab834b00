"""Speed measurement: what is timed, what is recorded, and what happens when it fails. No test asserts a speed."""

import contextlib
import importlib.util
import itertools
import os
import signal
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from replications import catalogue
from replications.errors import RunFailure, UserError
from replications.measurement import lease, throughput
from replications.measurement.fresh import Host
from replications.measurement.protocol import EFFORTS, Effort, throughput_fingerprint
from replications.measurement.provenance import provenance
from replications.measurement.throughput import Request, measure_many, measure_method
from replications.measurement.timing import STAMP_SECONDS, Stopwatch, measure
from replications.records import read_throughput
from replications.running import task_modules
from replications.spec import Recipe, RunSpec
from replications.training.stage import Stage, Workload

CPU = torch.device("cpu")
QUICK = Effort(warmup=1, stamps=3, seconds=0.0)
WIDTH, CLASSES = 12, 5


def spec(method="plain", **recipe) -> RunSpec:
    settings = {"batch_size": 16, "steps": 3, "lr": 0.1, "momentum": 0.0, **recipe}
    return RunSpec(
        paper="paper", method=method, tier="smoke", seed=0, task="task", data={}, build="model:build",
        options={}, recipe=Recipe(**settings), task_options={}, threads=1,
    )  # fmt: skip


class Model(nn.Module):
    """Two linear layers; `limit` is the largest batch that 'fits into memory'."""

    def __init__(self, limit: int = 10**9, death: bool = False):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, CLASSES, bias=False)
        self.limit, self.death = limit, death
        self.modes: list[tuple[bool, int]] = []

    def logits(self, x):
        self.modes.append((self.training, len(x)))
        if len(x) > self.limit:
            if self.death:
                os.kill(os.getpid(), signal.SIGKILL)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\ndetails")
        return self.second(self.first(x))

    def forward(self, batch):
        return {"loss": nn.functional.cross_entropy(self.logits(batch["x"]), batch["label"])}


class Unused:
    samples = batch_size = 16

    def batch(self, step, part=0, parts=1):
        raise AssertionError("the fixed batch is measured, not the stage's batches")


def workload(settings: RunSpec, data_root: Path, device: torch.device, **options) -> Workload:
    torch.manual_seed(0)
    batch = {"x": torch.randn(16, WIDTH), "label": torch.randint(CLASSES, (16,))}
    images = torch.randn(8, WIDTH)
    stage = Stage("train", Model(**options), Unused(), settings.recipe)
    return Workload(stage, batch, lambda module, own: module.logits(own["x"]), {"x": images}, device)


def observed(settings: RunSpec, data_root: Path, device: torch.device) -> Workload:
    with (data_root / "calls").open("a") as stream:
        stream.write(f"{settings.method} {os.getpid()} {torch.get_num_threads()}\n")
    if settings.method == "broken":
        raise ValueError("no such layer")
    if settings.method == "no_data":
        raise UserError("no data: prepare it with 'replications fetch'")
    return workload(settings, data_root, device)


# The stop-watch


class Clock:
    """Steps of 1 s at first, then of what `durations` says; reading it costs nothing."""

    def __init__(self, durations):
        self.now, self.durations = 0.0, iter(durations)

    def __call__(self):
        return self.now

    def step(self):
        self.now += next(self.durations)


def laps(durations, effort) -> Stopwatch:
    clock = Clock(durations)
    watch = Stopwatch(effort, CPU, clock)
    while not watch.lap():
        clock.step()
    return watch


def test_warm_up_is_left_out_and_both_limits_hold():
    by_count = laps(itertools.chain([9, 9], itertools.repeat(1.0)), Effort(warmup=2, stamps=4, seconds=0.5))
    assert by_count.seconds == [1, 1, 1, 1] and by_count.steps == 4
    by_time = laps(itertools.chain([9, 9], itertools.repeat(1.0)), Effort(warmup=2, stamps=4, seconds=6.0))
    assert by_time.seconds == [1] * 6


def test_every_step_is_stamped_and_kept():
    assert laps([9, 1, 2, 3, 4], Effort(1, 4, 0.0)).seconds == [1, 2, 3, 4]


def test_short_steps_share_a_stamp():
    watch = laps(itertools.repeat(STAMP_SECONDS / 4), Effort(1, 3, 0.0))
    assert watch.seconds == pytest.approx([STAMP_SECONDS / 4] * 3)
    assert watch.steps == 12


def test_the_device_is_synchronised_before_every_stamp(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(clock()))
    clock = Clock(itertools.repeat(1.0))
    watch = Stopwatch(Effort(1, 2, 0.0), torch.device("cuda", 0), clock)
    watch._meter.start = watch._meter.stop = lambda: None
    while not watch.lap():
        clock.step()
    assert calls == [0, 1, 2, 3]


# One measurement


def test_a_measurement_counts_and_times_both_ways(tmp_path, capfd):
    load = workload(spec(), tmp_path, CPU)
    before = [parameter.clone() for parameter in load.stage.module.parameters()]
    found = measure(load, QUICK)
    layers = 2 * WIDTH * (WIDTH + CLASSES)
    assert found.inference_flops == layers
    assert found.train_flops == 3 * layers - 2 * WIDTH * WIDTH  # the images need no gradient
    assert found.batch_size == 16 and found.inference_batch_size == 8
    assert len(found.train_step_seconds) >= 3 and min(found.train_step_seconds) > 0
    assert len(found.inference_step_seconds) >= 3 and min(found.inference_step_seconds) > 0
    assert found.uncounted == () and 0 <= found.background_load <= 1
    assert found.train_memory > 10**7 and found.inference_memory > 10**7
    assert set(load.stage.module.modes) == {(True, 16), (False, 8)}
    after = list(load.stage.module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), "the optimiser takes its step"
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, atol=0.05), "a batch seen many times is not learnt"
    assert capfd.readouterr().err == "", "no bar towards a step that never comes"


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_lap_is_a_step_of_the_loop(tmp_path, monkeypatch, accumulate):
    """One lap for one optimiser step, whatever the micro-batches."""
    load = workload(spec(accumulate=accumulate), tmp_path, CPU)
    updates, laps = [], []
    load.stage.module.on_step = lambda step, total: updates.append(step)
    lap = Stopwatch.lap
    monkeypatch.setattr(Stopwatch, "lap", lambda watch: laps.append(watch) or lap(watch))
    measure(load, QUICK)
    training = laps.count(laps[0])
    assert updates == [0, *range(training - 1)], "one for the count, then one between every two laps"
    assert {n for training, n in load.stage.module.modes if training} == {16, 16 // accumulate}


def test_halved_batches(tmp_path):
    found = measure(workload(spec(), tmp_path, CPU), QUICK, halvings=2)
    assert found.batch_size == 4 and found.inference_batch_size == 2
    assert found.train_flops == measure(workload(spec(), tmp_path, CPU), QUICK).train_flops
    load = workload(spec(accumulate=4), tmp_path, CPU)
    assert measure(load, QUICK, halvings=1).batch_size == 8


# Fresh processes


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "lock_folder", lambda: tmp_path / "locks")


def quick(root: Path, make_workload, method="plain"):
    with Host(preload=throughput.PRELOAD) as host:
        return throughput._in_fresh_process(host, spec(method), make_workload, root, "cpu", QUICK, halvings=0)


def out_of_memory(settings, data_root, device):
    return workload(settings, data_root, device, limit=8)


def killed(settings, data_root, device):
    return workload(settings, data_root, device, limit=8, death=True)


@pytest.mark.parametrize(
    ("make_workload", "message"),
    [(out_of_memory, "CUDA out of memory. Tried to allocate 20 GiB"), (killed, "ended the process with SIGKILL")],
)
def test_a_process_without_enough_memory_says_so_dead_or_alive(tmp_path, make_workload, message):
    with pytest.raises(RunFailure, match=f"{message}[^\n]*$") as caught:
        quick(tmp_path, make_workload)
    assert caught.value.reason == "out of memory"


def test_what_a_person_must_put_right_comes_through(tmp_path):
    with pytest.raises(UserError, match=r"^no data: prepare it with 'replications fetch'$"):
        quick(tmp_path, observed, "no_data")


def untrained(settings, data_root, device):
    load = workload(settings, data_root, device)
    load.stage.module.requires_grad_(False)
    return load


def test_a_method_that_trains_nothing_is_no_error(tmp_path):
    with pytest.raises(RunFailure, match="no training step") as failure:
        quick(tmp_path, untrained)
    assert failure.value.reason == "not trained"


def fits(limit: int):
    """A stand-in for the process, whose memory holds batches up to `limit`."""

    def run(host, settings, make_workload, data_root, device, effort, halvings):
        load = workload(settings, data_root, CPU)
        if settings.recipe.batch_size >> halvings > limit:
            raise RunFailure("out of memory", "out of memory")
        return measure(load, effort, halvings), provenance(CPU, 1)

    return run


def test_too_large_a_batch_is_halved_until_it_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "_in_fresh_process", fits(5))
    record = measure_method(spec(), workload, tmp_path, "cpu", Host())
    assert record.status == "finished"
    assert (record.requested_batch_size, record.batch_size, record.inference_batch_size) == (16, 4, 2)
    assert capsys.readouterr().err.count("trying half the batch") == 2


def test_a_method_that_never_fits_leaves_a_failed_record(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "_in_fresh_process", fits(0))
    record = measure_method(spec(accumulate=4), workload, tmp_path, "cpu", Host())
    assert record.status == "failed" and record.reason == "out of memory"
    assert record.batch_size == 4, "a micro-batch has at least one sample"


def requests(root: Path, *methods: str, code: str = "1") -> list[Request]:
    return [Request(spec(method), code, root / f"{method}.json") for method in methods]


def test_each_method_is_measured_once_in_a_process_of_its_own(tmp_path, monkeypatch):
    methods = ("plain", "broken", "margin")
    records = measure_many(requests(tmp_path, *methods), observed, tmp_path, "cpu")
    assert [record.status for record in records] == ["finished", "failed", "finished"]
    assert records[1].reason == "error" and records[1].message == "ValueError: no such layer"
    assert [read_throughput(tmp_path / f"{method}.json") for method in methods] == records
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert len({pid for _, pid, _ in calls} | {str(os.getpid())}) == 4
    assert {threads for *_, threads in calls} == {"1"}
    record = records[0]
    assert record.train_samples_per_second == pytest.approx(16 / statistics.median(record.train_step_seconds))
    assert record.mfu is None and record.provenance.deterministic

    measured = []

    def note(host, settings, *arguments):
        measured.append(settings.method)
        return fits(16)(host, settings, *arguments)

    monkeypatch.setattr(throughput, "_in_fresh_process", note)
    again = measure_many(requests(tmp_path, *methods), observed, tmp_path, "cpu")
    assert measured == ["broken"], "only what failed is tried again"
    assert [again[0], again[2]] == [records[0], records[2]]
    measure_many(requests(tmp_path, *methods, code="2"), observed, tmp_path, "cpu")
    assert measured[1:] == list(methods), "their code changed"
    (tmp_path / "margin.json").write_text("{")
    measure_many(requests(tmp_path, *methods, code="2"), observed, tmp_path, "cpu")
    assert measured[4:] == ["margin"], "a damaged record is made again"


def above(settings, data_root, device):
    with (data_root / "above").open("a") as stream:
        stream.write(f"{settings.method} {os.getppid()}\n")
    return workload(settings, data_root, device, limit=8 if settings.method == "dies" else 16, death=True)


def test_methods_share_a_host_where_they_share_imports_and_outlive_each_other(tmp_path):
    asked = [("one", ()), ("other", ("json",)), ("dies", ()), ("two", ())]
    wanted = [replace(requests(tmp_path, method)[0], imports=imports) for method, imports in asked]
    records = measure_many(wanted, above, tmp_path, "cpu")
    assert [(record.method, record.batch_size) for record in records] == [
        ("one", 16), ("other", 16), ("dies", 8), ("two", 16),
    ]  # fmt: skip
    calls = [line.split() for line in (tmp_path / "above").read_text().splitlines()]
    assert [method for method, _ in calls] == ["one", "dies", "dies", "two", "other"]
    first, *same, other = [host for _, host in calls]
    assert set(same) == {first} != {other}


def test_what_the_methods_of_a_task_share_can_be_imported():
    for task in {paper.task for paper in catalogue.papers().values()}:
        names = task_modules(task)
        assert f"replications.tasks.{task}.execute" in names and not any("pictures" in name for name in names)
        assert all(importlib.util.find_spec(name) for name in names)


@pytest.mark.parametrize(("tier", "alone"), [("smoke", False), ("mini", True)])
def test_a_speed_that_counts_is_measured_alone(tmp_path, monkeypatch, tier, alone):
    asked = []

    @contextlib.contextmanager
    def reserve(device, *, alone):
        asked.append(alone)
        yield device

    monkeypatch.setattr(throughput, "reserve_device", reserve)
    monkeypatch.setattr(throughput, "_in_fresh_process", fits(16))
    settings = spec().model_copy(update={"tier": tier})
    measure_many([Request(settings, "1", tmp_path / "record.json")], observed, tmp_path, "cpu")
    assert asked == [alone]


def test_an_error_for_a_person_keeps_what_was_done_before(tmp_path, monkeypatch):
    def run(host, settings, *arguments):
        if settings.method == "no_data":
            raise UserError("no data")
        return fits(16)(host, settings, *arguments)

    monkeypatch.setattr(throughput, "_in_fresh_process", run)
    with pytest.raises(UserError, match="no data"):
        measure_many(requests(tmp_path, "plain", "no_data", "margin"), observed, tmp_path, "cpu")
    assert read_throughput(tmp_path / "plain.json").status == "finished"
    assert not (tmp_path / "no_data.json").exists() and not (tmp_path / "margin.json").exists()


def test_fingerprint_covers_config_code_and_device_but_not_the_seed():
    base = throughput_fingerprint(spec(), "code", "device")
    assert throughput_fingerprint(spec().model_copy(update={"seed": 7}), "code", "device") == base
    others = {
        throughput_fingerprint(spec(batch_size=8), "code", "device"),
        throughput_fingerprint(spec(), "other", "device"),
        throughput_fingerprint(spec(), "code", "other"),
    }
    assert len(others | {base}) == 4


def test_mfu_is_the_share_of_the_peak(tmp_path):
    found = measure(workload(spec(), tmp_path, CPU), QUICK)
    found = replace(found, train_step_seconds=[0.5, 1.0, 90.0], train_flops=19.5e12 / 32, background_load=0.4)
    gpu = provenance(CPU, 1).model_copy(update={"device": "NVIDIA A100-SXM4-80GB"})
    fields = throughput._fields(spec(), found, gpu)
    assert fields["train_samples_per_second"] == 16  # the median, which one slow step does not move
    assert fields["mfu"] == pytest.approx(0.5)
    assert set(EFFORTS) == {"smoke", "mini", "standard", "paper"}
