"""Device, memory, energy and provenance: known values, fakes in place of hardware, nothing about speed."""

import contextlib
import ctypes
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from replications.errors import UserError
from replications.measurement import energy, hardware, memory, provenance
from replications.measurement.hardware import PEAK_TFLOPS, peak_flops, resolve_device, visible_gpus

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")

# Peak rates


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "tf32", 378),
        ("NVIDIA H200", "float32", 66.9),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA A100-PCIE-40GB", "float32", 19.5),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA L4", "bf16", 121),
        ("Tesla T4", "float32", 8.1),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        ("NVIDIA GeForce RTX 4090", "tf32", 82.6),
    ],
)
def test_peak_of_known_devices(name, precision, tflops):
    assert peak_flops(name, precision) == tflops * 1e12


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Tesla T4", "bf16"),  # no such mode
        ("Tesla V100-SXM2-16GB", "tf32"),
        ("NVIDIA A10G", "bf16"),  # not an A10
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),  # a seventh of an A100
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("AMD EPYC 7763 64-Core Processor", "float32"),
        ("cpu", "float32"),
    ],
)
def test_no_peak_where_none_is_known(name, precision):
    assert peak_flops(name, precision) is None


@pytest.mark.parametrize("pattern", PEAK_TFLOPS)
def test_rates_are_dense(pattern):
    """A sparse figure slipped in beside dense ones would break the tensor cores' factor of two between the modes."""
    bf16, tf32, float32 = PEAK_TFLOPS[pattern]
    if bf16 is None:
        assert tf32 is None
        return
    assert bf16 / tf32 == pytest.approx(2, rel=0.02)
    assert float32 <= tf32


# Which devices there are


class FakeNvml:
    class NVMLError(Exception):
        pass

    def __init__(self, gpus):
        self.gpus = gpus

    def nvmlDeviceGetCount(self):
        return self.gpus


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("1", ["1"]),
        ("2, 0", ["2", "0"]),
        ("0,-1,1", ["0"]),  # CUDA stops at the first entry it does not know
        ("7,0", []),
        ("GPU-8f3a", ["GPU-8f3a"]),
    ],
)
def test_visible_gpus_follow_cuda_visible_devices(monkeypatch, chosen, visible):
    monkeypatch.setattr(hardware, "nvml", lambda: contextlib.nullcontext(FakeNvml(3)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == visible
    assert hardware.count_gpus() == len(visible)


def test_without_a_driver_there_are_no_gpus(monkeypatch):
    monkeypatch.setattr(hardware, "nvml", lambda: contextlib.nullcontext(None))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert hardware.count_gpus() == 0
    assert hardware.gpu_name("0") is None


def test_planning_needs_no_torch():
    modules = "hardware, lease, protocol, provenance, memory, energy, process, throughput"
    code = (
        f"import sys; from replications.measurement import {modules}\n"
        "hardware.count_gpus(); throughput.device_name('auto')\nprint('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_choice_of_device(monkeypatch):
    assert resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    assert resolve_device("auto") == CPU
    with pytest.raises(UserError, match="'cuda': no GPU is visible"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="unknown device 'gpu': give auto, cpu, cuda or cuda:<index>"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(UserError, match="'cuda:2': only 2 GPUs are visible"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(UserError, match="no CUDA"):
        resolve_device("cuda")


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark cannot be set back")
def test_each_bracket_has_its_own_peak():
    megabytes = 2**20
    memory.reset_peak_memory(CPU)
    before = memory.peak_memory(CPU)
    big = np.ones(300 * megabytes, dtype=np.uint8)
    del big
    first = memory.peak_memory(CPU)
    assert first >= before + 290 * megabytes, "memory freed before the end of the bracket counts"
    memory.reset_peak_memory(CPU)
    second = memory.peak_memory(CPU)
    assert second <= first - 250 * megabytes, "a run's peak must not be that of the run before it in this process"


def test_cuda_is_initialised_before_its_peak_is_reset(monkeypatch):
    """A run's first call on the device: torch's allocator has nothing to reset yet, and raises."""
    calls = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    memory.reset_peak_memory(torch.device("cuda", 0))
    assert calls == ["init", "reset"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a setting of glibc")
def test_memory_that_a_step_frees_is_there_for_the_next():
    """Bytes that come from the system in sixty steps that take and free 40 MB, in a process that has set nothing."""
    steps = """
        import resource, sys, torch
        from replications.measurement import memory
        if sys.argv[1] == "keep":
            memory.keep_freed_memory(torch.device("cpu"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for step in range(60):
            torch.ones(10 << 20)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
    """
    faults = {
        how: int(
            subprocess.run([sys.executable, "-c", textwrap.dedent(steps), how], capture_output=True, check=True).stdout
        )
        for how in ("keep", "leave")
    }
    assert 3 * faults["keep"] < faults["leave"], faults


def test_out_of_memory_is_known_when_seen():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


# Energy


def zone(root: Path, name: str, label: str, microjoules: int) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    return folder / "energy_uj"


def test_processor_energy_is_packages_and_their_memory(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 990_000_000)
    other = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 5_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)  # within the package
    system = zone(tmp_path, "intel-rapl:2", "psys", 0)  # the packages once more
    with energy.EnergyMeter(CPU, powercap=tmp_path) as meter:
        package.write_text("20000000")  # wrapped at 1000 J: 10 + 20
        other.write_text("7000000")
        dram.write_text("6000000")
        core.write_text("3000000")
        system.write_text("90000000")
    assert meter.joules == pytest.approx(30 + 7 + 1)


def test_no_energy_where_the_counter_cannot_be_read(tmp_path):
    with energy.EnergyMeter(CPU, powercap=tmp_path / "missing") as meter:
        pass
    assert meter.joules is None
    zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    assert energy.rapl_source(tmp_path) is None


class FakeGpu:
    class NVMLError(Exception):
        pass

    def __init__(self, has_counter):
        self.has_counter, self.millijoules = has_counter, 1_000_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.has_counter:
            raise self.NVMLError("not supported")
        self.millijoules += 2_500
        return self.millijoules

    def nvmlDeviceGetPowerUsage(self, handle):
        return 100_000


def test_gpu_energy_by_counter():
    source = energy.nvml_reader(FakeGpu(has_counter=True), None)
    source.start()
    assert source.stop() == pytest.approx(2.5)


def test_gpu_energy_by_sampled_power():
    source = energy.nvml_reader(FakeGpu(has_counter=False), None)
    source.start()
    assert source.stop() >= 0
    clock = iter([0.0, 1.0, 3.0])
    watts = iter([100.0, 200.0, 50.0])
    read = energy.power_reader(lambda: next(watts), lambda: next(clock))
    assert [read(), read(), read()] == [0, 150, 250]


def test_a_reading_that_fails_on_the_way_leaves_no_number():
    readings = iter([1.0])
    source = energy.EnergySource(lambda: next(readings), None)
    source.start()
    assert source.stop() is None


# Provenance


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    answer = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_commit_and_dirt(tmp_path):
    assert provenance.git_state(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) == (None, None), "no commit yet"
    (tmp_path / "file").write_text("a")
    (tmp_path / "package").mkdir()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git_state(tmp_path) == (commit, False)
    (tmp_path / "data").write_text("untracked files are not code")
    assert provenance.git_state(tmp_path) == (commit, False)
    (tmp_path / "file").write_text("b")
    assert provenance.git_state(tmp_path) == (commit, True)
    assert provenance.git_state(tmp_path / "package") == (None, None), "an installed copy inside a repository"


def test_provenance_names_packages_and_nobody(monkeypatch):
    record = provenance.provenance(CPU, threads=3)
    assert record.device == "cpu" and record.device_kind == "cpu" and record.threads == 3
    assert record.packages["torch"] == torch.__version__
    assert {"numpy", "timm", "torchvision"} <= set(record.packages)
    text = json.dumps(record.model_dump())
    for private in (str(Path.home()) + "/", str(ROOT), str(Path(sys.prefix))):
        assert private not in text
    assert record.deterministic is False
    assert provenance.provenance(CPU, threads=3, deterministic=True).deterministic is True
