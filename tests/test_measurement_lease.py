"""Leases, locks and processes that end with their parent. Waiting is bounded; nothing asserts a speed."""

import os
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from replications.errors import UserError
from replications.measurement import hardware, lease
from replications.measurement.process import die_with_parent, sigterm_as_interrupt

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0


def eventually(condition) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def start(code: str, *arguments) -> subprocess.Popen:
    """Start a Python process that prints a line once it is ready."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(lease, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_run_gets_a_gpu_of_its_own(tmp_path, two_gpus):
    with lease.lease_gpus(folder=tmp_path) as first:
        assert visible() == "0" and first == ["0"]
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "so that 0 is the same GPU to CUDA and to NVML"
        with lease.lease_gpus(folder=tmp_path) as second:
            assert visible() == "1" and second == ["1"]
        assert visible() == "0"
    assert visible() == "0,1" and "CUDA_DEVICE_ORDER" not in os.environ
    with lease.lease_gpus(folder=tmp_path) as again:
        assert again == ["0"]


def test_waits_with_a_message_until_a_gpu_is_free(tmp_path, two_gpus, capsys):
    got = []

    def run():
        with lease.lease_gpus(folder=tmp_path) as leased:
            got.extend(leased)

    with lease.lease_gpus(count=2, folder=tmp_path):
        waiting = threading.Thread(target=run)
        waiting.start()
        said = []

        def told():
            said.append(capsys.readouterr().err)
            return "waiting for 1 of the GPUs 0, 1" in "".join(said)

        assert eventually(told)
        assert not got
    waiting.join(PATIENCE)
    assert got == ["0"]


def test_a_waiting_process_holds_nothing(tmp_path, two_gpus):
    """Two runs that need two GPUs each, with one GPU each in hand, would wait for ever."""
    stop = threading.Event()

    def run():
        with lease.lease_gpus(count=2, folder=tmp_path):
            stop.wait(PATIENCE)

    with lease.lease_gpus(among=["0"], folder=tmp_path):
        waiting = threading.Thread(target=run)
        waiting.start()
        assert eventually(lambda: (tmp_path / "gpu-1.lock").exists())
        time.sleep(0.1)
        with lease.lease_gpus(among=["1"], folder=tmp_path) as other:
            assert other == ["1"]
    stop.set()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_killed_holder_frees_its_gpu(tmp_path, two_gpus):
    holder = start(
        """
        import sys, time
        from pathlib import Path
        from replications.measurement import lease
        lease.visible_gpus = lambda: ["0", "1"]
        with lease.lease_gpus(count=2, folder=Path(sys.argv[1])):
            print("ready", flush=True)
            time.sleep(600)
        """,
        tmp_path,
    )
    assert holder.stdout.readline() == "ready\n"
    holder.kill()
    holder.wait()
    with lease.lease_gpus(count=2, folder=tmp_path) as leased:
        assert leased == ["0", "1"]


def test_a_lease_ends_although_a_forked_worker_lives(tmp_path, two_gpus):
    with lease.lease_gpus(count=2, folder=tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(600)
    try:
        with lease.lease_gpus(count=2, folder=tmp_path) as leased:
            assert leased == ["0", "1"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lease_ends_with_its_owner_although_a_child_lives(tmp_path, two_gpus):
    """The owner is killed outright while a process that it forked lives on, as a reader of data may."""
    owner = start(
        """
        import os, sys, time
        from pathlib import Path
        from replications.measurement import lease
        lease.visible_gpus = lambda: ["0", "1"]
        with lease.lease_gpus(count=2, folder=Path(sys.argv[1])):
            child = os.fork()
            if child:
                print(child, flush=True)
            time.sleep(600)
        """,
        tmp_path,
    )
    child = int(owner.stdout.readline())
    try:
        owner.kill()
        owner.wait()
        assert psutil.pid_exists(child)
        with lease.contextlib.ExitStack() as stack:
            assert eventually(lambda: lease._try_lease(["0", "1"], 2, tmp_path, stack))
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_leaves_the_block_frees_nothing_of_its_owner(tmp_path, two_gpus):
    with lease.lease_gpus(count=2, folder=tmp_path):
        child = os.fork()
        if child == 0:
            with lease.contextlib.suppress(BaseException):
                lease._let_go(min(lease._held, default=0))
            os._exit(0)
        os.waitpid(child, 0)
        with lease.contextlib.ExitStack() as stack:
            assert not lease._try_lease(["0"], 1, tmp_path, stack)
    assert not lease._held


class Driver:
    """NVML of a machine with two GPUs."""

    class NVMLError(Exception):
        pass

    uuids = ("GPU-aaaa1111", "GPU-bbbb2222")

    def nvmlDeviceGetCount(self):
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index):
        if not index < len(self.uuids):
            raise self.NVMLError
        return index

    def nvmlDeviceGetUUID(self, handle):
        return self.uuids[handle].encode()


def test_a_gpu_is_leased_by_its_uuid_however_a_job_calls_it(tmp_path, two_gpus, monkeypatch):
    """Two jobs of a cluster may each see a GPU of their own as number 0, and one GPU has several names."""
    driver = Driver()
    monkeypatch.setattr(hardware, "nvml", lambda: lease.contextlib.nullcontext(driver))
    assert [hardware.gpu_uuid(name) for name in ("0", "GPU-bbbb", "GPU-bbbb2222")] == [*driver.uuids, driver.uuids[1]]
    assert [hardware.gpu_uuid(name) for name in ("7", "GPU-", "GPU-cccc", "MIG-x")] == [
        "7",
        "GPU-",
        "GPU-cccc",
        "MIG-x",
    ]
    with lease.lease_gpus(among=["0"], folder=tmp_path), lease.contextlib.ExitStack() as stack:
        assert (tmp_path / "gpu-GPU-aaaa1111.lock").exists()
        assert not lease._try_lease(["GPU-aaaa1111"], 1, tmp_path, stack), "the same GPU by another name"
        assert not lease._try_lease(["GPU-aaaa"], 1, tmp_path, stack)
        driver.uuids = ("GPU-cccc3333",)
        assert lease._try_lease(["0"], 1, tmp_path, stack) == ["0"], "another GPU that is number 0 there"


def plant_link(folder, other):
    other.mkdir()
    folder.symlink_to(other)


def plant_lock_link(folder, other):
    folder.mkdir(mode=0o700)
    other.write_text("precious")
    (folder / "cpu-use.lock").symlink_to(other)


def plant_open_folder(folder, other):
    folder.mkdir()
    folder.chmod(0o777)


def plant_pipe(folder, other):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "cpu-use.lock")


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (plant_link, "locks is a link"),
        (plant_lock_link, "cpu-use.lock is a link"),
        (plant_open_folder, "locks can be written by other users"),
        (plant_pipe, "cpu-use.lock is something else"),
        (lambda folder, other: folder.write_text("x"), "a file where a folder is needed"),
    ],
)
def test_no_lock_is_taken_in_what_others_can_change(tmp_path, plant, told):
    plant(tmp_path / "locks", tmp_path / "other")
    with pytest.raises(UserError, match=f"{told}.*TMPDIR"), lease.device_shared("cpu", tmp_path / "locks"):
        pass
    assert not (tmp_path / "other").is_file() or (tmp_path / "other").read_text() == "precious"
    assert not lease._held


def test_the_owner_of_a_folder_or_lock_of_another_user_is_named(tmp_path, monkeypatch):
    with lease.device_shared("cpu", tmp_path / "locks"):
        pass
    me = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(lease.os, "getuid", lambda: 12345)
    with pytest.raises(UserError, match=f"locks belongs to user {me}"), lease.device_shared("cpu", tmp_path / "locks"):
        pass
    lstat = os.lstat
    mine = os.stat_result((0o040700, 0, 0, 0, 12345, 0, 0, 0, 0, 0))
    monkeypatch.setattr(lease.os, "lstat", lambda path, **k: mine if str(path).endswith("locks") else lstat(path, **k))
    with pytest.raises(UserError, match=f"lock belongs to user {me}"), lease.device_shared("cpu", tmp_path / "locks"):
        pass


def test_too_few_gpus_and_too_late_a_lease(tmp_path, two_gpus, monkeypatch):
    with pytest.raises(UserError, match="GPUs needed: 3, visible here: 2"), lease.lease_gpus(3, folder=tmp_path):
        pass
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="in use already"), lease.lease_gpus(folder=tmp_path):
        pass


def test_reserving_a_choice_of_device(tmp_path, two_gpus, monkeypatch):
    with lease.reserve_device("cuda:1", folder=tmp_path) as device:
        assert device == "cuda:0" and visible() == "1"
        with lease.reserve_device("auto", folder=tmp_path) as other:
            assert other == "cuda:0" and visible() == "0"
    with lease.reserve_device("cpu", folder=tmp_path) as device:
        assert device == "cpu" and visible() == "0,1"
    with pytest.raises(UserError, match="'cuda:2': GPUs visible here: 2"), lease.reserve_device("cuda:2"):
        pass
    monkeypatch.setattr(lease, "visible_gpus", list)
    with lease.reserve_device("auto", folder=tmp_path) as device:
        assert device == "cpu"
    with pytest.raises(UserError, match="GPUs needed: 1, visible here: 0"), lease.reserve_device("cuda"):
        pass


def test_a_measurement_waits_for_runs_and_later_runs_wait_for_it(tmp_path):
    order = []

    def measurement():
        with lease.device_alone("cpu", tmp_path):
            order.append("measured")

    def late_run():
        with lease.device_shared("cpu", tmp_path):
            order.append("ran late")

    def gate_is_closed():
        with lease.contextlib.ExitStack() as stack:
            return not lease._locked(stack, tmp_path / "cpu-gate.lock", lease.fcntl.LOCK_SH | lease.fcntl.LOCK_NB)

    with lease.device_shared("cpu", tmp_path), lease.device_shared("cpu", tmp_path):
        measuring = threading.Thread(target=measurement)
        measuring.start()
        assert eventually(gate_is_closed)
        running = threading.Thread(target=late_run)
        running.start()
        running.join(0.2)
        assert order == [], "runs that keep arriving must not hold a measurement off"
    measuring.join(PATIENCE)
    running.join(PATIENCE)
    assert order == ["measured", "ran late"]


# Processes


def test_an_orphan_ends():
    """The parent is killed outright, as snakemake may be, and starts its child from a shell that becomes it."""
    parent = start(
        """
        import subprocess, sys, time
        child = '''
        import os, time
        from replications.measurement.process import die_with_parent
        die_with_parent()
        print(os.getpid(), flush=True)
        time.sleep(600)
        '''
        import textwrap
        command = ["bash", "-c", 'exec "$0" -c "$1"', sys.executable, textwrap.dedent(child)]
        subprocess.Popen(command)
        time.sleep(600)
        """
    )
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert all_end(child)


def all_end(*processes: psutil.Process) -> bool:
    """Whether the processes end by themselves. What does not is killed: a failing test leaves nothing behind."""

    def gone(process: psutil.Process) -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    ended = eventually(lambda: all(gone(process) for process in processes))
    for process in processes:
        if not gone(process):
            process.kill()
    return ended


def test_a_child_of_a_fork_server_ends_with_the_process_that_asked_for_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, os, signal, sys, time

            def child():
                from replications.measurement.process import die_with_parent
                die_with_parent(signal.SIGKILL)
                print(os.getpid(), flush=True)
                time.sleep(600)

            if __name__ == "__main__":
                multiprocessing.get_context("forkserver").Process(target=child).start()
                time.sleep(600)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    child = psutil.Process(int(parent.stdout.readline()))
    server = child.parent()
    parent.kill()
    parent.wait()
    assert all_end(child, server)


def test_a_parent_that_died_before_the_request_is_noticed():
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGTERM, parent=os.getpid())  # anyone but the real parent
        time.sleep(60)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_sigterm_unwinds_like_an_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), sigterm_as_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
        finally:
            cleaned.append(True)
    assert cleaned and signal.getsignal(signal.SIGTERM) == before


def test_those_in_turn_follow_each_other(tmp_path):
    order, inside = [], threading.Event()

    def second():
        inside.wait()
        with lease.in_turn("sweep", "another", tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with lease.in_turn("sweep", "another", tmp_path):
        inside.set()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


# Runs that share a GPU


def shared(folder, runs, **more):
    return lease.lease_gpus(folder=folder, runs_per_gpu=runs, **more)


def test_so_many_runs_share_a_gpu_and_spread_over_the_gpus_first(tmp_path, two_gpus):
    with lease.contextlib.ExitStack() as stack:
        taken = [stack.enter_context(shared(tmp_path, 2, among=["0", "1"]))[0] for _ in range(4)]
        assert taken == ["0", "1", "0", "1"]
        with lease.contextlib.ExitStack() as attempt:
            assert lease._try_lease(["0", "1"], 1, tmp_path, attempt, 2) == [], "both slots of both are taken"


def test_a_measurement_takes_the_whole_gpu(tmp_path, two_gpus):
    def free(gpu, runs_per_gpu):
        with lease.contextlib.ExitStack() as attempt:
            return bool(lease._try_lease([gpu], 1, tmp_path, attempt, runs_per_gpu))

    with lease.reserve_device("cuda:0", runs_per_gpu=8, folder=tmp_path):
        assert free("0", 8) and not free("0", 1), "another sharing run may come, one that is to be alone may not"
    with lease.reserve_device("cuda:0", alone=True, runs_per_gpu=8, folder=tmp_path):
        assert not free("0", 8) and not free("0", 1) and free("1", 8)
    assert free("0", 1)


def test_slots_are_of_the_gpu_whatever_a_job_calls_it(tmp_path, two_gpus, monkeypatch):
    """Two jobs of a cluster may each see one and the same GPU as 0, or as its UUID."""
    monkeypatch.setattr(lease, "gpu_uuid", lambda gpu: "GPU-1")
    two = shared(tmp_path, 2, among=["0"]), shared(tmp_path, 2, among=["GPU-1"])
    with two[0], two[1], lease.contextlib.ExitStack() as attempt:
        assert lease._try_lease(["1"], 1, tmp_path, attempt, 2) == []
